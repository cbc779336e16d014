"""The scenarios of the table: what is sent, where, and what is true of it. Those of tests/hosts, told as figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hosts import devices, netns, scenarios, senders, uring
from hosts.capture import WHATEVER, Capture
from hosts.devices import Port, Wire
from hosts.measure import Attach, metering, metering_ends
from hosts.wire import Conversation, Count, Traffic

from .outcome import Outcome, compared, counted

#: Runs one scenario once.
Run = Callable[[], list[Outcome]]
ATTACH: tuple[Attach, ...] = ("tcx", "xdp")


@contextmanager
def between_hosts() -> Iterator[dict[str, Run]]:
    """Every sender's scenario, between two hosts whose wire leads through a third that cuts all to wire packets."""
    with devices.wire(v6=True) as wire, senders.sinks(wire.server):
        devices.settle(wire.client, wire.server)
        runs: dict[str, Run] = {}
        for name, scenario in scenarios.SCENARIOS.items():
            for attach in ATTACH:
                runs[f"{name}, received by {attach}"] = _between(wire, name, scenario, attach)
        yield runs


def _between(wire: Wire, name: str, scenario: scenarios.Scenario, attach: Attach) -> Run:
    def run() -> list[Outcome]:
        # A ring that native XDP reads may overflow: there a capture behind the program says what came in.
        longest = 1522 if attach == "xdp" else WHATEVER
        with (
            Capture(wire.server.host, "eth0", "in", longest=longest) as captured,
            metering_ends(wire.client, wire.server, attach) as (client, server),
        ):
            sent = scenario(wire.client, wire.server)
        came = captured.traffic() if attach == "xdp" else sent.to_server
        sender = [compared(name, "sender, tx", client, ("eth0", "tx"), sent.to_server)] if attach == "tcx" else []
        if attach == "tcx" and sent.to_client.total.packets:
            sender.append(compared(name, "sender, rx", client, ("eth0", "rx"), sent.to_client))
        return [*sender, compared(name, f"receiver, rx by {attach}", server, ("eth0", "rx"), came)]

    return run


def forwarded() -> list[Outcome]:
    """TCP through a router: none of it is local."""
    with netns.hosts("client", "router", "server") as (client, router, server):
        near, left = devices.veth(client, router, ("eth0", "left"))
        far, right = devices.veth(server, router, ("eth0", "right"))
        devices.route_through(near, left, far, right)
        devices.settle(near, far)
        with metering(router, "left", "right") as meter:
            sent = senders.tcp_bulk(near, far, 8_000_000)
    return [
        compared("forwarded TCP", "left, rx", meter, ("left", "rx"), sent.to_server),
        compared("forwarded TCP", "right, tx", meter, ("right", "tx"), sent.to_server),
        compared("forwarded TCP", "right, rx", meter, ("right", "rx"), sent.to_client),
        compared("forwarded TCP", "left, tx", meter, ("left", "tx"), sent.to_client),
    ]


def loopback() -> list[Outcome]:
    """TCP to oneself: each packet is sent and received."""
    with netns.hosts("alone") as (host,):
        lo = Port(host, "lo", "00:00:00:00:00:00", "127.0.0.1")
        with metering(host, "lo") as meter:
            sent = senders.tcp_bulk(lo, lo, 4_000_000)
    both = sent.to_server.plus(sent.to_client)
    return [compared("loopback TCP", f"lo, {way}", meter, ("lo", way), both) for way in ("tx", "rx")]


def jumbo() -> list[Outcome]:
    """TCP and fragments with an MTU of 9,000."""
    outcomes = []
    with devices.pair(mtu=9000) as (client, server), senders.sinks(server):
        devices.settle(client, server)
        jobs: dict[str, Callable[[], Conversation]] = {
            "jumbo TCP": lambda: senders.tcp_bulk(client, server, 8_000_000),
            "jumbo datagrams": lambda: Conversation(senders.udp_packets(client, server.ipv4, 200, 8972)),
            "jumbo fragments": lambda: Conversation(senders.udp_fragments(client, server.ipv4, 50, 60_000, mtu=9000)),
        }
        for name, send in jobs.items():
            with metering_ends(client, server, "tcx") as (ours, theirs):
                sent = send()
            outcomes += [
                compared(name, "sender, tx", ours, ("eth0", "tx"), sent.to_server),
                compared(name, "receiver, rx by tcx", theirs, ("eth0", "rx"), sent.to_server),
            ]
    return outcomes


def big_tcp() -> list[Outcome]:
    """Super-packets of more than 64 KiB."""
    with devices.pair(v6=True) as (client, server):
        client.host.ip("link set eth0 gso_max_size 185000")
        devices.settle(client, server)
        with metering_ends(client, server, "tcx") as (ours, theirs):
            sent = senders.tcp_bulk(client, server, 20_000_000, family=6)
    return [
        compared("BIG TCP", "sender, tx", ours, ("eth0", "tx"), sent.to_server),
        compared("BIG TCP", "receiver, rx by tcx", theirs, ("eth0", "rx"), sent.to_server),
    ]


def every_cpu() -> list[Outcome]:
    """Every CPU sends at full rate, of one flow and of many."""
    outcomes = []
    with devices.pair() as (client, server):
        devices.settle(client, server)
        devices.make_strangers(client, server)  # what arrives is thrown away at once: more for the sender
        jobs: dict[str, Callable[[int], Traffic]] = {
            "every CPU, one flow": lambda cpu: senders.udp_packets(client, server.ipv4, 20_000),
            "every CPU, 200 flows, full rate": lambda cpu: senders.udp_sendmmsg(
                client, server.ipv4, 300_000, sport=5100 + cpu, flows=100
            ),
        }
        for name, send in jobs.items():
            with metering_ends(client, server, "tcx") as (ours, theirs):
                sent = senders.on_every_cpu(send)
            outcomes += [
                compared(name, "sender, tx", ours, ("eth0", "tx"), sent),
                compared(name, "receiver, rx by tcx", theirs, ("eth0", "rx"), sent),
            ]
    return outcomes


def io_uring() -> list[Outcome]:
    """Datagrams by io_uring."""
    with devices.pair() as (client, server), senders.sinks(server):
        devices.settle(client, server)
        with metering_ends(client, server, "tcx") as (ours, theirs):
            sent = uring.udp_io_uring(client, server.ipv4, 20_000)
    return [
        compared("UDP by io_uring", "sender, tx", ours, ("eth0", "tx"), sent),
        compared("UDP by io_uring", "receiver, rx by tcx", theirs, ("eth0", "rx"), sent),
    ]


def tap() -> list[Outcome]:
    """A guest's super-packets, whose header names no number of segments."""
    with netns.hosts("host") as (host,):
        port = devices.tap(host)
        inside = Port(host, "guest", "02:77:fe:00:00:01", "10.79.0.2", "fd79::2")
        big = senders.super_packet(inside, Port(host, "", port.mac, port.ipv4, "fd79::1"), 4, 60_000, 1000)
        with senders.guest(port) as guest, metering(host, "tap0") as meter:
            sent = senders.guest_super_packets(guest, big, 100)
    return [compared("tap with vnet headers, gso_segs 0", "tap0, rx", meter, ("tap0", "rx"), sent)]


def vxlan() -> list[Outcome]:
    """TCP in a tunnel with GSO and GRO; the wire's capture says what the outer packets are."""
    name = "TCP in VXLAN, GSO and GRO"
    with devices.wire() as wire:
        left, right = devices.vxlan(wire.client, wire.server, checksum=True)
        wire.server.offload(generic_receive_offload=True)
        devices.settle(wire.client, wire.server)
        with (
            wire.capture() as captured,
            metering(left.host, "eth0", "vx0") as ours,
            metering(right.host, "eth0", "vx0") as theirs,
        ):
            inner = senders.tcp_bulk(left, right, 8_000_000)
        outer = captured.to_server
    return [
        compared(name, "sender, tunnel tx", ours, ("vx0", "tx"), inner.to_server),
        compared(name, "sender, outside tx", ours, ("eth0", "tx"), outer),
        compared(name, "receiver, outside rx", theirs, ("eth0", "rx"), outer),
        compared(name, "receiver, tunnel rx", theirs, ("vx0", "rx"), inner.to_server),
    ]


def macvlan() -> list[Outcome]:
    """A macvlan and the device below it."""
    with devices.pair() as (client, server):
        upper = devices.macvlan(client, "mv0", client.ipv4.rsplit(".", 1)[0] + ".9", "02:77:fd:00:00:01")
        client.host.ip(f"addr flush dev {client.device}")
        devices.acquaint(upper, server)
        devices.settle(client, server)
        with metering(client.host, "eth0", "mv0") as meter:
            sent = senders.tcp_bulk(upper, server, 4_000_000)
    return [compared("macvlan TCP", f"{d}, tx", meter, (d, "tx"), sent.to_server) for d in ("eth0", "mv0")]


def bridged() -> list[Outcome]:
    """A bridge with an address, and its port."""
    with devices.pair() as (client, server):
        devices.bridge(client.host, "br0", "eth0")
        above = Port(client.host, "br0", client.mac, client.ipv4)
        client.host.ip(f"addr flush dev {client.device}", f"link set br0 address {client.mac}")
        devices.bring_up(above)
        devices.acquaint(above, server)
        devices.settle(client, server)
        with metering(client.host, "eth0", "br0") as meter:
            sent = senders.tcp_bulk(above, server, 4_000_000)
    return [compared("bridge TCP", f"{d}, tx", meter, (d, "tx"), sent.to_server) for d in ("eth0", "br0")]


def renamed() -> list[Outcome]:
    """A device that gets another name between two bursts."""
    with devices.pair() as (client, server), senders.sinks(server):
        devices.settle(client, server)
        with metering(client.host, "eth0") as meter:
            before = senders.udp_packets(client, server.ipv4, 100)
            meter.wait_counted()
            client.host.ip("link set eth0 name lan7")
            after = senders.udp_packets(Port(client.host, "lan7", client.mac, client.ipv4), server.ipv4, 200)
    assert meter.reading
    total = Count()
    for seen in meter.reading.by_attachment.values():
        total = total.plus(seen.total)
    return [counted("device renamed while metered", "tx under both names", before.plus(after).total, total)]


def moved() -> list[Outcome]:
    """A device that goes to another namespace: what it sends there is no longer this host's."""
    with netns.hosts("client", "server", "elsewhere") as (client, server, elsewhere):
        near, far = devices.veth(client, server)
        with senders.sinks(far):
            devices.settle(near, far)
            with metering(client, "eth0", "lo") as meter:
                before = senders.udp_packets(near, far.ipv4, 100)
                devices.move(near, elsewhere)
                meter.wait_counted()
                meter.wait_counted()
                away = Port(elsewhere, "eth0", near.mac, near.ipv4)
                devices.bring_up(away)
                devices.acquaint(away, far)
                devices.wait_up(away)
                senders.udp_packets(away, far.ipv4, 1000)
    return [compared("device moved while metered", "tx until then", meter, ("eth0", "tx"), before)]


def dropping() -> list[Outcome]:
    """A queue that drops: what was handed over is counted, and what was lost is a named remainder."""
    name = "qdisc that drops"
    with devices.pair() as (client, server), senders.sinks(server):
        devices.limit_rate(client)
        devices.settle(client, server)
        with metering(client.host, "eth0") as meter:
            meter.wait_counted()
            sent = senders.udp_packets(client, server.ipv4, 2000)
            meter.wait_counted()
        dropped = devices.qdisc_counts(client)["drops"]
    named = -meter["eth0", "tx"].remainders.get("qdisc_drops", 0)
    return [
        compared(name, "sender, tx", meter, ("eth0", "tx"), sent),
        counted(name, "remainder qdisc_drops", Count(dropped), Count(named)),
    ]


def bypassing() -> list[Outcome]:
    """A sender that goes round the qdisc is not seen at egress: the expected result is the gap the audit reports."""
    name = "sender that bypasses the qdisc"
    with devices.pair() as (client, server):
        devices.settle(client, server)
        with metering_ends(client, server, "tcx") as (ours, theirs):
            ours.wait_counted()
            plain = senders.raw_frames(client, scenarios.tcp_frame(client, server), 100)
            hidden = senders.raw_frames(client, scenarios.tcp_frame(client, server), 5000, bypass_qdisc=True)
            ours.wait_counted()
    gap = ours["eth0", "tx"].remainders.get("bypassed_stack", 0)
    return [
        compared(name, "sender, tx", ours, ("eth0", "tx"), plain),
        counted(name, "remainder bypassed_stack", Count(hidden.total.packets), Count(gap)),
        compared(name, "receiver, rx by tcx", theirs, ("eth0", "rx"), plain.plus(hidden)),
    ]


def is_possible(kind: str) -> bool:
    """Whether this kernel has a kind of device, or io_uring."""
    return uring.is_available() if kind == "io_uring" else devices.kind_exists(kind)


#: Scenarios that make hosts of their own, and what they need that not every kernel has.
ALONE: dict[str, tuple[Run, tuple[str, ...]]] = {
    "forwarded": (forwarded, ()),
    "loopback": (loopback, ()),
    "jumbo": (jumbo, ()),
    "big-tcp": (big_tcp, ()),
    "every-cpu": (every_cpu, ()),
    "io-uring": (io_uring, ("io_uring",)),
    "tap": (tap, ("tap",)),
    "vxlan": (vxlan, ("vxlan", "bridge")),
    "macvlan": (macvlan, ("macvlan",)),
    "bridge": (bridged, ("bridge",)),
    "renamed": (renamed, ()),
    "moved": (moved, ()),
    "qdisc-drops": (dropping, ()),
    "bypass": (bypassing, ()),
}
