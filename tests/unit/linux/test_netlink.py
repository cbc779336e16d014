"""The netlink reader: messages built by hand, and the running kernel's answers against those of `ip` and `tc`."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hosts import devices, netns, senders
from hosts.netns import Host
from wiremeter.errors import KernelError
from wiremeter.linux import netlink
from wiremeter.linux import netlink_messages as nl
from wiremeter.linux.netlink import LinkWatch, RouteSocket, read_xdp_support
from wiremeter.linux.netlink_messages import (
    LinkCounters,
    Qdisc,
    TcFilter,
    XdpSlot,
    XdpSupport,
    attribute,
    merge_qdiscs,
    parse_address,
    parse_attributes,
    parse_counters,
    parse_default_route,
    parse_filter,
    parse_link,
    parse_messages,
    parse_next_hop,
    parse_qdisc,
    parse_xdp_support,
)

needs_root = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces, which needs root"),
]


def message(kind: int, body: bytes, *, flags: int = 0, sequence: int = 1) -> bytes:
    """A netlink message, padded."""
    length = 16 + len(body)
    return struct.pack("=IHHII", length, kind, flags, sequence, 0) + body + bytes(-length % 4)


def done(*, sequence: int = 1, code: int = 0, flags: int = 0) -> bytes:
    """The end of a dump."""
    return message(netlink.NLMSG_DONE, struct.pack("=i", -code), sequence=sequence, flags=flags)


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def link_body(name: str, ifindex: int, *attributes: bytes, family: int = 0, flags: int = 1, arphrd: int = 1) -> bytes:
    header = struct.pack("=BxHiII", family, arphrd, ifindex, flags, 0)
    return header + text(nl.IFLA_IFNAME, name) + b"".join(attributes)


def route_body(*attributes: bytes, dst_len: int = 0, src_len: int = 0, table: int = 254, kind: int = 1) -> bytes:
    return struct.pack("=8BI", socket.AF_INET, dst_len, src_len, 0, table, 3, 0, kind, 0) + b"".join(attributes)


def qdisc_body(ifindex: int, parent: int, kind: str, drops: int, queued: int = 0) -> bytes:
    queue = attribute(nl.TCA_STATS_QUEUE, struct.pack("=5I", queued, queued * 100, drops, 0, 0))
    stats = attribute(nl.TCA_STATS2, queue)
    return struct.pack("=B3xiIII", 0, ifindex, 1 << 16, parent, 0) + text(nl.TCA_KIND, kind) + stats


def whole(parse: Callable[[bytes, int, int], Any], body: bytes) -> Any:
    return parse(body, 0, len(body))


# Messages ------------------------------------------------------------------------------------------------------------


def test_messages_follow_each_other_at_multiples_of_four() -> None:
    data = message(16, b"abcde") + message(17, b"", sequence=9)
    first, second = parse_messages(data)
    assert data[first.start : first.end] == b"abcde"
    assert (second.kind, second.sequence, second.end - second.start) == (17, 9, 0)


@pytest.mark.parametrize("data", [b"\0" * 16, message(16, b"abcd")[:-1], message(16, b"") + b"\x01"])
def test_cut_and_impossible_messages_are_refused(data: bytes) -> None:
    with pytest.raises(KernelError, match="makes no sense"):
        list(parse_messages(data))


@pytest.mark.parametrize("data", [b"\x03\0\x01\0", b"\x09\0\x01\0abcd", b"\x04\0\x01"])
def test_impossible_attributes_are_refused(data: bytes) -> None:
    with pytest.raises(KernelError, match="makes no sense"):
        list(parse_attributes(data, 0, len(data)))


def test_the_nested_flag_is_not_part_of_an_attributes_type() -> None:
    assert [kind for kind, *_ in parse_attributes(attribute(0x8000 | 18, b""), 0, 4)] == [18]


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    parsers: list[Callable[[bytes, int, int], Any]] = [
        parse_link,
        parse_qdisc,
        parse_default_route,
        parse_next_hop,
        parse_xdp_support,
        nl.parse_address,
        nl.parse_counters,
        nl.parse_filter,
        nl.parse_family_id,
    ]
    for parse in parsers:
        route = answering(lambda sequence: message(99, data, sequence=sequence) + done(sequence=sequence))
        with contextlib.suppress(KernelError):
            route.dump(1, b"", parse)


# Exchanges -----------------------------------------------------------------------------------------------------------


class FakeKernel:
    """Answers each request with what `answers` gives for its sequence number, one datagram each."""

    def __init__(self, answer: Callable[[int], bytes | list[bytes]]) -> None:
        self.answer = answer
        self.waiting: list[bytes] = []
        self.requests: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.requests.append(data)
        answer = self.answer(struct.unpack_from("=I", data, 8)[0])
        self.waiting += answer if isinstance(answer, list) else [answer]

    def recvmsg(self, *_: int) -> tuple[bytes, list[Any], int, None]:
        return self.waiting.pop(0), [], 0, None


def answering(answer: Callable[[int], bytes | list[bytes]]) -> RouteSocket:
    route = object.__new__(RouteSocket)
    route._socket = FakeKernel(answer)  # type: ignore[assignment]
    route._sequence = 0
    return route


def body_of(data: bytes, start: int, end: int) -> bytes:
    return data[start:end]


def test_a_dump_in_several_datagrams_is_read_to_its_end() -> None:
    route = answering(lambda n: [message(16, b"1", sequence=n) + message(16, b"2", sequence=n), done(sequence=n)])
    assert route.dump(18, b"", body_of) == [b"1", b"2"]


def test_what_is_left_of_an_earlier_exchange_is_passed_over() -> None:
    route = answering(lambda n: message(16, b"old", sequence=77) + message(16, b"new", sequence=n) + done(sequence=n))
    assert route.dump(18, b"", body_of) == [b"new"]


def test_an_interrupted_dump_is_asked_for_again() -> None:
    def answer(sequence: int) -> bytes:
        flags = netlink.NLM_F_DUMP_INTR if sequence < 3 else 0
        return message(16, b"%d" % sequence, sequence=sequence) + done(sequence=sequence, flags=flags)

    assert answering(answer).dump(18, b"", body_of) == [b"3"]


def test_a_table_that_never_stays_still_is_an_error() -> None:
    route = answering(lambda n: done(sequence=n, flags=netlink.NLM_F_DUMP_INTR))
    with pytest.raises(KernelError, match="changed during each of 20 readings") as caught:
        route.dump(nl.RTM_GETLINK, b"", body_of)
    assert caught.value.errno == errno.EINTR


@pytest.mark.parametrize("capped", [True, False])
def test_a_refusal_carries_the_kernels_own_words(capped: bool) -> None:
    def answer(sequence: int) -> bytes:
        request = message(18, b"" if capped else b"\0" * 7, sequence=sequence)
        flags = netlink.NLM_F_ACK_TLVS | (netlink.NLM_F_CAPPED if capped else 0)
        body = struct.pack("=i", -errno.EINVAL) + request + text(netlink.NLMSGERR_ATTR_MSG, "no such luck")
        return message(netlink.NLMSG_ERROR, body, sequence=sequence, flags=flags)

    with pytest.raises(KernelError, match=r"RTM_GETLINK: Invalid argument \(the kernel says: no such luck\)") as caught:
        answering(answer).dump(nl.RTM_GETLINK, b"", body_of)
    assert (caught.value.call, caught.value.errno) == ("RTM_GETLINK", errno.EINVAL)


def test_a_dump_that_fails_at_its_end_is_refused() -> None:
    with pytest.raises(KernelError) as caught:
        answering(lambda n: done(sequence=n, code=errno.ENOENT)).dump(26, b"", body_of)
    assert caught.value.errno == errno.ENOENT


def test_a_namespace_without_a_main_table_has_no_default_route() -> None:
    assert answering(lambda n: done(sequence=n, code=errno.ENOENT)).default_route_devices() == frozenset()


# Bodies --------------------------------------------------------------------------------------------------------------


def test_a_links_attributes_are_read() -> None:
    info = text(nl.IFLA_INFO_KIND, "vxlan")
    body = link_body(
        "vx0",
        7,
        u32(nl.IFLA_MTU, 1450),
        u32(nl.IFLA_LINK, 4),
        u32(nl.IFLA_MASTER, 9),
        attribute(nl.IFLA_LINKINFO, info),
        text(nl.IFLA_PARENT_DEV_NAME, "0000:00:03.0"),
    )
    link = whole(parse_link, body)
    assert (link.name, link.ifindex, link.mtu, link.lower, link.master, link.kind) == ("vx0", 7, 1450, 4, 9, "vxlan")
    assert link.parent == "0000:00:03.0"
    assert link.is_up
    assert link.xdp.is_free


def test_counters_are_read_from_where_the_kernel_puts_them() -> None:
    body = struct.pack("=B3xII", 0, 7, 1) + attribute(nl.IFLA_STATS_LINK_64, struct.pack("=24Q", *range(24)))
    assert whole(parse_counters, body) == (
        7,
        LinkCounters(0, 1, 2, 3, rx_dropped=6, tx_dropped=7, rx_missed=15, rx_nohandler=23),
    )


def test_an_xdp_program_is_named_once() -> None:
    xdp = attribute(nl.IFLA_XDP_ATTACHED, b"\x01") + u32(nl.IFLA_XDP_PROG_ID, 42) + u32(nl.IFLA_XDP_DRV_PROG_ID, 42)
    link = whole(parse_link, link_body("eth0", 2, attribute(nl.IFLA_XDP, xdp)))
    assert link.xdp == XdpSlot("xdp", (42,))


def test_the_programs_of_both_xdp_slots_are_named() -> None:
    xdp = attribute(nl.IFLA_XDP_ATTACHED, b"\x04") + u32(nl.IFLA_XDP_DRV_PROG_ID, 42) + u32(nl.IFLA_XDP_HW_PROG_ID, 43)
    link = whole(parse_link, link_body("eth0", 2, attribute(nl.IFLA_XDP, xdp)))
    assert link.xdp == XdpSlot("multiple", (42, 43))


def test_only_the_root_qdiscs_drops_count() -> None:
    bodies = [
        qdisc_body(2, nl.TC_H_ROOT, "mq", drops=30, queued=5),
        qdisc_body(2, 0x10001, "fq_codel", drops=10),
        qdisc_body(2, 0x10002, "fq_codel", drops=20),
        qdisc_body(2, 0xFFFFFFF1, "clsact", drops=99),
        qdisc_body(3, 0xFFFFFFF1, "ingress", drops=99),
    ]
    assert merge_qdiscs(whole(parse_qdisc, body) for body in bodies) == {2: Qdisc("mq", 30, 5)}


def address_body(family: int, *attributes: bytes) -> bytes:
    return struct.pack("=4BI", family, 24, 0, 0, 3) + b"".join(attributes)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (address_body(2, attribute(nl.IFA_ADDRESS, b"peer"), attribute(nl.IFA_LOCAL, b"ours")), b"ours"),
        (address_body(10, attribute(nl.IFA_ADDRESS, b"sixteen bytes it")), b"sixteen bytes it"),
        (address_body(45, attribute(nl.IFA_LOCAL, b"\x08")), b""),
        (address_body(2), b""),
    ],
    ids=["point-to-point", "IPv6", "MCTP", "nothing"],
)
def test_a_devices_own_address_is_read(body: bytes, found: bytes) -> None:
    assert whole(parse_address, body).packed == found


def filter_body(kind: str, handle: int, *options: bytes, chain: int = 0, priority: int = 1) -> bytes:
    header = struct.pack("=B3xiIII", 0, 2, handle, 0xFFFFFFF2, priority << 16 | 0x0300)
    more = attribute(nl.TCA_OPTIONS, b"".join(options)) if options else b""
    return header + text(nl.TCA_KIND, kind) + u32(nl.TCA_CHAIN, chain) + more


def test_a_filter_that_is_a_program_has_its_id_and_name() -> None:
    body = filter_body("bpf", 0x776D, text(nl.TCA_BPF_NAME, "wm_tc:[7]"), u32(nl.TCA_BPF_ID, 7), chain=3)
    assert whole(parse_filter, body) == TcFilter("bpf", 3, 1, 0x776D, 7, "wm_tc:[7]")
    assert whole(parse_filter, filter_body("flower", 1, u32(11, 7), priority=49152)) == TcFilter("flower", 0, 49152, 1)


def test_a_filter_counts_once_and_one_without_a_handle_counts_too() -> None:
    bodies = [filter_body("bpf", 0), filter_body("bpf", 1, u32(nl.TCA_BPF_ID, 7)), filter_body("fw", 0, priority=2)]
    route = answering(lambda n: b"".join(message(44, body, sequence=n) for body in bodies) + done(sequence=n))
    assert [each.kind for each in route.filters(2, egress=False)] == ["bpf", "fw"]


def test_a_refused_listing_of_filters_is_no_empty_list() -> None:
    def answer(sequence: int) -> bytes:
        return message(netlink.NLMSG_ERROR, struct.pack("=i", -errno.ENOBUFS), sequence=sequence)

    with pytest.raises(KernelError, match="RTM_GETTFILTER: No buffer space"):
        answering(answer).filters(2, egress=False)


def next_hops(*ifindexes: int) -> bytes:
    return b"".join(struct.pack("=HBBi", 16, 0, 0, each) + u32(5, 1) for each in ifindexes)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (route_body(u32(nl.RTA_OIF, 3)), ({3}, set())),
        (route_body(u32(nl.RTA_OIF, 3), u32(nl.RTA_NH_ID, 8)), ({3}, set())),
        (route_body(u32(nl.RTA_NH_ID, 8)), (set(), {8})),
        (route_body(attribute(nl.RTA_MULTIPATH, next_hops(3, 5))), ({3, 5}, set())),
        (route_body(u32(nl.RTA_OIF, 3), src_len=56), ({3}, set())),
        (route_body(u32(nl.RTA_OIF, 3), dst_len=24), (set(), set())),
        (route_body(u32(nl.RTA_OIF, 1), kind=7), (set(), set())),
        (route_body(u32(nl.RTA_OIF, 3), u32(nl.RTA_TABLE, 1000), table=252), (set(), set())),
        (route_body(u32(nl.RTA_OIF, 3), u32(nl.RTA_TABLE, 254), table=252), ({3}, set())),
    ],
    ids=[
        "device",
        "device-and-next-hop",
        "next-hop",
        "multipath",
        "source-specific",
        "subnet",
        "unreachable",
        "other-table",
        "main-table",
    ],
)
def test_default_routes_name_their_devices(body: bytes, found: tuple[set[int], set[int]]) -> None:
    assert whole(parse_default_route, body) == found


def test_a_next_hop_group_names_its_members() -> None:
    header = struct.pack("=4BI", 0, 0, 0, 0, 0)
    group = struct.pack("=IBBH", 11, 0, 0, 0) + struct.pack("=IBBH", 12, 0, 0, 0)
    assert whole(parse_next_hop, header + attribute(nl.NHA_GROUP, group)) == (set(), [11, 12])
    assert whole(parse_next_hop, header + u32(nl.NHA_OIF, 4)) == ({4}, [])


def test_xdp_support_is_named() -> None:
    body = struct.pack("=BBH", 1, 1, 0) + u32(nl.NETDEV_A_DEV_IFINDEX, 4)
    body += attribute(nl.NETDEV_A_DEV_XDP_FEATURES, struct.pack("=Q", 0b100001))
    body += attribute(nl.NETDEV_A_DEV_XDP_RX_METADATA_FEATURES, struct.pack("=Q", 0b100))
    assert whole(parse_xdp_support, body) == (4, XdpSupport(frozenset({"basic", "rx-sg"}), frozenset({"vlan-tag"})))


# The running kernel --------------------------------------------------------------------------------------------------


def test_loopback_is_listed_without_privilege() -> None:
    with RouteSocket() as route:
        loopback = next(link for link in route.links() if link.name == "lo")
        assert loopback.ifindex == 1
        assert loopback.ifindex in route.counters()


@pytest.fixture
def host() -> Iterator[Host]:
    """A namespace with loopback only."""
    with netns.hosts("solo") as (solo,):
        yield solo


def route_of(host: Host) -> RouteSocket:
    with host.entered():
        return RouteSocket()


class TestRunningKernel:
    """What `ip` and `tc` say of the same namespace is what we read."""

    pytestmark = needs_root

    def test_links_agree_with_ip(self, host: Host) -> None:
        devices.require("vxlan", "macvlan", "bridge", "tun", "tap")
        host.ip(
            "link add v0 type veth peer name v1",
            "link set v0 mtu 1400 up",
            "link set v1 up",
            "link add br0 type bridge",
            "link set v1 master br0",
            "link add vx0 type vxlan id 7 dstport 4789 dev v0",
            "link add link v0 name mv0 type macvlan mode bridge",
            "tuntap add mode tun name tun0",
            "tuntap add mode tap name tap0",
        )
        with route_of(host) as route:
            found = {link.name: link for link in route.links()}
        listed = host.links()
        assert found.keys() == listed.keys()
        index = {name: entry["ifindex"] for name, entry in listed.items()}
        for name, entry in listed.items():
            link = found[name]
            assert (link.ifindex, link.mtu) == (entry["ifindex"], entry["mtu"])
            assert link.kind == entry.get("linkinfo", {}).get("info_kind", "")
            assert link.is_up == ("UP" in entry["flags"])
            assert link.master == index.get(entry.get("master", ""), 0)
            assert link.lower == index.get(entry.get("link", ""), 0)
            assert (link.rx_queues, link.tx_queues) == (entry["num_rx_queues"], entry["num_tx_queues"])

    def test_each_socket_shows_the_namespace_where_it_was_made(self) -> None:
        with netns.hosts("one", "two") as (one, two):
            one.ip("link add only0 type veth peer name only1")
            with route_of(one) as here, route_of(two) as there:
                assert {link.name for link in here.links()} == {"lo", "only0", "only1"}
                assert {link.name for link in there.links()} == {"lo"}

    def test_hundreds_of_devices_come_whole(self, host: Host) -> None:
        host.ip(*(f"link add a{number} type veth peer name b{number}" for number in range(150)))
        with route_of(host) as route:
            assert len(route.links()) == len(route.counters()) == 301

    def test_counters_gain_what_was_sent(self) -> None:
        with devices.pair() as (client, server), senders.sinks(server), route_of(client.host) as route:
            ifindex = client.link["ifindex"]
            before = route.counters()[ifindex]
            sent = senders.udp_packets(client, server.ipv4, 123)
            gained = route.counters()[ifindex].since(before)
            assert (gained.tx_packets, gained.tx_bytes) == sent.total

    def test_drops_of_a_qdisc_are_seen(self) -> None:
        with devices.pair() as (client, server), senders.sinks(server), route_of(client.host) as route:
            devices.limit_rate(client)
            ifindex = client.link["ifindex"]
            before = route.qdiscs()[ifindex]
            senders.udp_packets(client, server.ipv4, 200, 1000)
            after = route.qdiscs()[ifindex]
            assert after.kind == "tbf"
            assert after.drops - before.drops == devices.qdisc_counts(client)["drops"] > 100

    def test_default_routes_lead_to_devices(self, host: Host) -> None:
        host.ip(*(f"link add d{n} type veth peer name e{n}" for n in range(4)))
        for n in range(4):
            with host.entered():
                netns.sysctl(f"ipv6/conf/d{n}/disable_ipv6", 0)
            host.ip(f"link set d{n} up", f"link set e{n} up", f"addr add 10.9.{n}.1/24 dev d{n}")
        index = {name: entry["ifindex"] for name, entry in host.links().items()}

        def leads_to(*commands: str) -> set[str]:
            host.ip(*commands)
            with route_of(host) as route:
                found = route.default_route_devices()
            return {name for name, ifindex in index.items() if ifindex in found}

        assert leads_to() == set()
        assert leads_to("route add default via 10.9.0.2 dev d0") == {"d0"}
        assert leads_to("route add default via 10.9.1.2 dev d1 metric 600") == {"d0", "d1"}
        assert leads_to("route add default via 10.9.3.2 dev d3 table 77") == {"d0", "d1"}
        assert leads_to("route add ::/0 dev d2") == {"d0", "d1", "d2"}
        assert leads_to(
            "route del default via 10.9.0.2 dev d0",
            "route del default via 10.9.1.2 dev d1",
            "route del ::/0 dev d2",
            "route add default nexthop via 10.9.0.2 dev d0 nexthop via 10.9.3.2 dev d3",
        ) == {"d0", "d3"}
        assert leads_to("route del default", "route add unreachable ::/0") == set()
        assert leads_to("addr add 2001:db8::2/64 dev d2 nodad") == set()
        assert leads_to("route add ::/0 from 2001:db8::/56 via 2001:db8::1 dev d2") == {"d2"}

    @pytest.mark.parametrize("compat", [0, 1])
    def test_next_hop_objects_are_followed(self, host: Host, compat: int) -> None:
        host.ip("link add d0 type veth peer name e0", "link add d1 type veth peer name e1")
        for n in range(2):
            host.ip(f"link set d{n} up", f"link set e{n} up", f"addr add 10.9.{n}.1/24 dev d{n}")
        with host.entered():
            netns.sysctl("ipv4/nexthop_compat_mode", compat)
        host.ip(
            "nexthop add id 1 via 10.9.0.2 dev d0",
            "nexthop add id 2 via 10.9.1.2 dev d1",
            "nexthop add id 3 group 1/2",
            "route add default nhid 3",
        )
        index = {name: entry["ifindex"] for name, entry in host.links().items()}
        with route_of(host) as route:
            assert route.default_route_devices() == {index["d0"], index["d1"]}

    def test_changes_of_devices_are_heard_until_they_are_read(self, host: Host) -> None:
        host.ip("link add w0 type veth peer name w1")
        with host.entered():
            watch = LinkWatch()
        with watch, netns.hosts("other") as (other,):
            for change in ("set w0 up", "set w0 name r0", f"set r0 netns {other.name}", "del w1"):
                assert not select.select([watch], [], [], 0)[0]
                host.ip(f"link {change}")
                assert select.select([watch], [], [], 5)[0]
                time.sleep(0.01)  # one change may be told of twice
                watch.read()

    def test_a_flood_of_changes_is_heard(self, host: Host) -> None:
        host.ip("link add f0 type veth peer name f1")
        with host.entered():
            watch = LinkWatch()
        with watch:
            watch._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            host.ip(*(f"link set f0 mtu {1000 + number}" for number in range(100)))
            assert select.select([watch], [], [], 0)[0]
            watch.read()
            assert not select.select([watch], [], [], 0)[0]

    @pytest.mark.parametrize(("flags", "mode"), [(4, "xdp"), (2, "xdp-generic")])
    def test_an_attached_xdp_program_is_seen(self, flags: int, mode: str) -> None:
        with devices.pair() as (client, _):
            with client.host.entered():
                program = load_xdp_pass()
                link = attach_xdp(program, client.link["ifindex"], flags)
            try:
                with route_of(client.host) as route:
                    found = next(each for each in route.links() if each.name == client.device)
            finally:
                os.close(link)
                os.close(program)
            assert found.xdp.mode == mode
            assert len(found.xdp.program_ids) == 1
            with route_of(client.host) as route:
                assert all(each.xdp.is_free for each in route.links())

    def test_veth_says_what_it_can_do_at_xdp(self) -> None:
        with devices.pair() as (client, _):
            with client.host.entered():
                support = read_xdp_support()
            if support is None:
                pytest.skip("this kernel cannot be asked (before 6.3)")
            assert "basic" in support[client.link["ifindex"]].features
            assert support[1].features == frozenset()


BPF_PROG_LOAD, BPF_LINK_CREATE, BPF_PROG_TYPE_XDP, BPF_XDP = 5, 28, 6, 37
SYS_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}


def load_xdp_pass() -> int:
    """A program that returns XDP_PASS, as a descriptor."""
    code = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0))
    license_text = ctypes.create_string_buffer(b"GPL")
    addresses = ctypes.addressof(code), ctypes.addressof(license_text)
    return bpf(BPF_PROG_LOAD, struct.pack("=IIQQ", BPF_PROG_TYPE_XDP, 2, *addresses))


def attach_xdp(program: int, ifindex: int, flags: int) -> int:
    """A link, as a descriptor."""
    return bpf(BPF_LINK_CREATE, struct.pack("=IIII", program, ifindex, BPF_XDP, flags))


def bpf(command: int, attributes: bytes) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes, 128)
    descriptor = libc.syscall(SYS_BPF[os.uname().machine], command, buffer, len(buffer))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(descriptor)
