"""Which payloads user space gets to see: through every program and the host engine, alike, and never one uncounted."""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import pytest

from addresses import address
from hosts import devices, netns
from hosts.devices import Port
from wiremeter.datapath import records
from wiremeter.datapath.drain import Drain
from wiremeter.datapath.engine import Hook
from wiremeter.datapath.host import HostEngine
from wiremeter.datapath.kernel import CLOCK_MONOTONIC_COARSE, KernelEngine
from wiremeter.datapath.layout import plan_tables
from wiremeter.flows.columns import Direction
from wiremeter.metering.monitor import Monitor
from wiremeter.names.payloads import Payload
from wiremeter.names.records import FlowKey

from . import packets as p
from .bench import CPUS, ENTRIES, TC, Bench, is_accepted, load_only
from .cpus import USABLE, pinned
from .packets import SYN, TCP, UDP, over4, over6
from .payload_cases import (
    CASES,
    CLIENT_HELLO,
    DNS,
    ENCRYPTED,
    INITIAL,
    OPAQUE,
    PARTS,
    REQUEST,
    Case,
    Flip,
    Packet,
    fragments4,
    fragments6,
    tcp,
    udp,
)
from .programs import SOURCES

LIMIT = 2048
HOST = "host engine"
#: Between two times so far apart an engine forgets the flows that it remembers beyond an epoch.
AGE_NS = 1 << 40
_STARTS = re.findall(r"#define WM_STARTS_(\w+) +(\d+)", (SOURCES / "lib" / "payload.h").read_text())
#: New flows of a protocol whose inspection starts in one tick.
STARTS = {TCP: int(dict(_STARTS)["TCP"]), UDP: int(dict(_STARTS)["UDP"])}


@dataclass
class Engines:
    """Every program and the host engine, each with payloads on."""

    bench: Bench | None
    limit: int = LIMIT
    sources: Sequence[str] = records.SOURCES
    host: HostEngine = field(init=False)
    _sent_by_host: list[Payload] = field(default_factory=list)
    _times: Iterator[int] = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        self.host = HostEngine(
            plan_tables(1, 4096, attachments=2),
            payload_limit=self.limit,
            payload_sources=self.sources,
            on_payloads=self._sent_by_host.extend,
        )
        self._slot = self.host.attach("nowhere")

    @property
    def names(self) -> list[str]:
        """Of all engines: the programs, then the host's."""
        return [*(self.bench.programs if self.bench else ()), HOST]

    def send(self, name: str, frame: bytes, time_ns: int) -> list[Payload]:
        """One packet through one engine; returns what it sent."""
        if name == HOST:
            self.count_on_host(frame, time_ns)
        else:
            assert self.bench
            run = self.bench.programs[name].run(frame, time_ns=time_ns)
            assert run.verdict == ENTRIES[name].verdict
        return self.take()

    def count_on_host(self, frame: bytes, time_ns: int) -> None:
        """One frame."""
        length = np.array([len(frame)], np.uint32)
        times = np.array([time_ns], np.uint64)
        data = np.frombuffer(frame, np.uint8)
        assert self.host.count(self._slot, data, np.zeros(1, np.uint64), length, length, times) == 1

    def take(self) -> list[Payload]:
        """All that was sent and not taken yet."""
        taken, self._sent_by_host[:] = list(self._sent_by_host), []
        return taken + (take(self.bench.engine) if self.bench else [])

    def flip(self) -> list[Drain]:
        """Of the programs and of the host engine."""
        return [*([self.bench.engine.flip()] if self.bench else []), self.host.flip()]

    def new_time(self) -> int:
        """A time at which nothing that was sent before is remembered."""
        return next(self._times) * AGE_NS


def take(engine: KernelEngine) -> list[Payload]:
    """All that waits in the rings."""
    taken: list[Payload] = []
    for ring in engine.payload_rings:
        while len(block := engine.take_payloads(ring)):
            taken += block
    return taken


def total(drains: Sequence[Drain]) -> tuple[int, int]:
    """Payloads sent, and lost, of all sources."""
    return sum(int(d.payloads.sum()) for d in drains), sum(int(d.lost_payloads.sum()) for d in drains)


@contextmanager
def engines_with(*, limit: int = LIMIT, sources: Sequence[str] = records.SOURCES) -> Iterator[Engines]:
    """Engines with other settings."""
    plan = plan_tables(CPUS, 4096)
    with KernelEngine(plan, test_runs=True, payload_limit=limit, payload_sources=sources) as engine:
        yield Engines(Bench(engine), limit, sources)


@pytest.fixture(scope="module")
def engines(nothing_left_by_the_module: None) -> Iterator[Engines]:
    with pinned(USABLE[0]), engines_with() as engines:
        yield engines


def check(engines: Engines, case: Case, names: Sequence[str]) -> None:
    """Each packet of the case sends what the row says, and the counters say so too."""
    for name in names:
        time_ns, sent, counted = engines.new_time(), 0, 0
        for number, packet in enumerate(case.packets):
            if isinstance(packet, Flip):
                counted += total(engines.flip())[0]
                continue
            if name != HOST and not is_accepted(name, packet.frame):
                break
            found = [(records.SOURCES[f.source], f.data, f.length) for f in engines.send(name, packet.frame, time_ns)]
            length = min(len(packet.payload), engines.limit)
            expected = [(packet.source, packet.payload[:length], len(packet.payload))] if packet.source else []
            assert found == expected, f"{name}, packet {number} of {len(case.packets)}"
            sent += len(found)
        payloads, lost = total(engines.flip())
        assert (counted + payloads, lost) == (sent, 0), name


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_host_engine_keeps_what_the_table_says(case: Case) -> None:
    check(Engines(None), case, [HOST])


@pytest.mark.kernel
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_every_program_sends_what_the_table_says(case: Case, engines: Engines) -> None:
    check(engines, case, list(ENTRIES))


@pytest.mark.kernel
def test_fragments_of_dns_whose_first_has_not_come_are_not_sent(engines: Engines) -> None:
    for number, name in enumerate(engines.names):
        for build, src in ((fragments4, f"10.9.1.{number}"), (fragments6, f"2001:db8:9:1::{number}")):
            first, *others = build(PARTS, 53, "dns", src)
            early = [packet._replace(source="") for packet in others]
            check(engines, Case("", [*early, first, *others]), [name])


# Records -------------------------------------------------------------------------------------------------------------

FLOW4 = FlowKey(address(p.SRC4), p.SPORT, address(p.DST4), 53, UDP, 4)
FLOW6 = FlowKey(address(p.SRC6), p.SPORT, address(p.DST6), 53, UDP, 6)
RECORDS = {
    "UDP over IPv4": (over4(UDP, p.udp(DNS, dport=53)), Payload(0, FLOW4, 0, len(DNS), 0, 0, 0, DNS)),
    "UDP over IPv6": (over6(UDP, p.udp(DNS, dport=53)), Payload(0, FLOW6, 0, len(DNS), 0, 0, 0, DNS)),
    "TCP over IPv4": (
        over4(TCP, p.tcp(CLIENT_HELLO, flags=0x218, dport=1)),
        Payload(0, FLOW4._replace(protocol=TCP, dst_port=1), 1, len(CLIENT_HELLO), 0, 0x218, 1, CLIENT_HELLO),
    ),
    "TCP over IPv6 in a VLAN": (
        over6(TCP, p.tcp(REQUEST, dport=1), (p.VLAN, 7)),
        Payload(0, FLOW6._replace(protocol=TCP, dst_port=1), 1, len(REQUEST), 0, p.ACK, 2, REQUEST),
    ),
    "a first fragment over IPv4": (
        over4(UDP, p.udp(dport=53) + DNS, more=True),
        Payload(0, FLOW4, 77 << 8, len(DNS), 0, 0x2000, 0, DNS),
    ),
    "a later fragment over IPv4": (
        over4(UDP, DNS, fragment=9),
        Payload(0, FLOW4._replace(src_port=0, dst_port=0), 77 << 8, len(DNS), 0, 9, 0, DNS),
    ),
    "a first fragment over IPv6": (
        over6(p.FRAGMENT, p.fragment(UDP, more=True) + p.udp(dport=53) + DNS),
        Payload(0, FLOW6, 99 << 24, len(DNS), 0, 0x2000, 0, DNS),
    ),
    "a middle fragment over IPv6": (
        over6(p.FRAGMENT, p.fragment(UDP, 9, more=True) + DNS),
        Payload(0, FLOW6._replace(src_port=0, dst_port=0), 99 << 24, len(DNS), 0, 0x2009, 0, DNS),
    ),
}


@pytest.mark.kernel
def test_a_record_says_of_its_packet_what_its_headers_say(engines: Engines) -> None:
    for name in engines.names:
        for what, (frame, expected) in RECORDS.items():
            time_ns = engines.new_time() + 123
            attachment = 0 if name == HOST or engines.bench is None else engines.bench.programs[name].slot
            assert engines.send(name, frame, time_ns) == [expected._replace(time_ns=time_ns, attachment=attachment)], (
                f"{what}, {name}"
            )
    engines.flip()


# Bounds --------------------------------------------------------------------------------------------------------------


@pytest.mark.kernel
@pytest.mark.parametrize("limit", [1, 7, 8, 64, 1000, 4095, 4096])
def test_no_more_of_a_payload_is_sent_than_the_limit(limit: int) -> None:
    long = bytes(range(256)) * 20
    with pinned(USABLE[0]), engines_with(limit=limit) as engines:
        for length in (1, limit - 1, limit, limit + 1, 3000, len(long)):
            case = Case("", [udp("dns", long[:length], dport=53, over=over) for over in (4, 6) if length])
            check(engines, case, engines.names)


@pytest.mark.kernel
def test_a_limit_of_0_sends_nothing_and_counts_nothing() -> None:
    with pinned(USABLE[0]), KernelEngine(plan_tables(CPUS, 4096), test_runs=True) as engine:
        bench = Bench(engine)
        assert engine.payload_rings == ()
        for packet in (udp("", DNS, dport=53), tcp("", CLIENT_HELLO), tcp("", OPAQUE)):
            bench.run_all(packet.frame)
        assert total([engine.flip()]) == (0, 0)


@pytest.mark.kernel
@pytest.mark.parametrize("wanted", [*[(source,) for source in records.SOURCES], ("dns", "quic"), ("tls", "first"), ()])
def test_only_the_sources_that_are_wanted_are_sent_and_the_others_are_not_lost(wanted: tuple[str, ...]) -> None:
    packets = [
        *[udp("dns", DNS, dport=53)] * 2,
        *[tcp("first")] * 3,
        *[tcp("tls", CLIENT_HELLO), tcp("tls"), tcp("", ENCRYPTED)],
        *[tcp("http", REQUEST), tcp("http")],
        *[udp("first")] * 2,
        *[udp("quic", INITIAL), udp("quic")],
        Packet(over4(UDP, p.udp(dport=53) + DNS, more=True), "dns", DNS),
    ]
    masked = [packet if packet.source in wanted else packet._replace(source="") for packet in packets]
    with pinned(USABLE[0]), engines_with(sources=wanted) as engines:
        check(engines, Case("", masked), engines.names)


# Super-packets -------------------------------------------------------------------------------------------------------


def sent_of(engines: Engines, entry: str, frame: bytes, gso_size: int, time_ns: int) -> list[Payload]:
    """What a super-packet sends."""
    assert engines.bench
    engines.bench.programs[entry].run(frame, gso_size=gso_size, time_ns=time_ns)
    return engines.take()


@pytest.mark.kernel
@pytest.mark.parametrize("over", [over4, over6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("entry", TC)
def test_a_super_packet_of_udp_is_sent_as_its_first_four_datagrams_and_the_others_count_as_lost(
    entry: str, over: Callable[..., bytes], engines: Engines
) -> None:
    datagrams = [INITIAL + bytes([n]) * (100 - len(INITIAL)) for n in range(6)]
    for amount, last in ((1, 100), (2, 100), (3, 1), (4, 37), (6, 100)):
        data = b"".join(datagrams[:amount])[: 100 * (amount - 1) + last]
        found = sent_of(engines, entry, over(UDP, p.udp(data)), 100, engines.new_time())
        assert [f.data for f in found] == [data[at : at + 100] for at in range(0, min(len(data), 400), 100)]
        assert {(f.source, f.length == len(f.data), f.tcp_flags) for f in found} == {(3, True, 0)}
        assert total(engines.flip()[:1]) == (len(found), max(amount - 4, 0))


@pytest.mark.kernel
@pytest.mark.parametrize("over", [over4, over6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("entry", TC)
def test_a_super_packet_of_tcp_is_one_payload(entry: str, over: Callable[..., bytes], engines: Engines) -> None:
    data = CLIENT_HELLO + bytes(range(256)) * 11
    (found,) = sent_of(engines, entry, over(TCP, p.tcp(data)), 1000, engines.new_time())
    assert (found.source, found.length, found.data, found.seq) == (1, len(data), data[:LIMIT], 1)
    engines.flip()


# Live engines: a tick of their own, and rings that fill --------------------------------------------------------------

#: Places for all flows of a flood: one that finds none is not inspected at all.
ROOMY = plan_tables(CPUS, 16_384)


def let_ticks_pass(count: int) -> None:
    """By the clock that the programs look at, which a busy machine may be late with."""
    until_ns = time.clock_gettime_ns(CLOCK_MONOTONIC_COARSE) + count * round(
        1e9 * time.clock_getres(CLOCK_MONOTONIC_COARSE)
    )
    while time.clock_gettime_ns(CLOCK_MONOTONIC_COARSE) < until_ns:
        time.sleep(0.001)


def many(protocol: int, flows: int, over: Callable[..., bytes] = over4, first: int = 0) -> list[bytes]:
    """An opaque packet of each of many flows."""
    layer = p.tcp if protocol == TCP else p.udp
    return [over(protocol, layer(OPAQUE, sport=1024 + first + number)) for number in range(flows)]


@pytest.mark.kernel
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_of_a_flood_of_new_flows_few_are_inspected_in_a_tick_and_the_others_count_as_lost(
    protocol: int, entry: str
) -> None:
    with pinned(USABLE[0]), KernelEngine(ROOMY, payload_limit=LIMIT) as engine:
        program = load_only(engine, ENTRIES[entry].direction, ENTRIES[entry].mode)
        tick_s = time.clock_getres(CLOCK_MONOTONIC_COARSE)
        let_ticks_pass(2)
        started = time.monotonic()
        for frame in many(protocol, 1000):
            program.run(frame)
        ticks = (time.monotonic() - started) / tick_s + 2
        found, drain = take(engine), engine.flip()
        first = records.SOURCES.index("first")
        assert {payload.source for payload in found} == {first}
        assert STARTS[protocol] <= len(found) <= STARTS[protocol] * ticks
        assert (int(drain.payloads[first]), int(drain.lost_payloads[first])) == (len(found), 1000 - len(found))
        assert int(drain.lost_payloads.sum()) == 1000 - len(found)


@pytest.mark.kernel
def test_a_refusal_is_not_remembered_where_an_earlier_connection_had_the_same_ports() -> None:
    with pinned(USABLE[0]), KernelEngine(ROOMY, payload_limit=LIMIT) as engine:
        program = load_only(engine, "rx", "tcx")

        def asked(frames: Sequence[bytes]) -> set[int]:
            for frame in frames:
                program.run(frame)
            return {payload.flow.src_port for payload in take(engine)}

        def opaque(ports: Collection[int]) -> list[bytes]:
            return [over4(TCP, p.tcp(OPAQUE, sport=port)) for port in ports]

        def next_epoch() -> None:
            engine.flip()
            let_ticks_pass(2)

        ports = range(1024, 3024)
        unknown = set(ports)
        while unknown:
            unknown -= asked(opaque(unknown))
            next_epoch()
        again = [over4(TCP, p.tcp(sport=port, flags=SYN)) for port in ports]
        refused = set(ports) - asked([*again, *opaque(ports)])
        assert refused, "all were inspected: this machine is too slow to flood"
        next_epoch()
        first = set(sorted(refused)[:10])
        assert asked(opaque(first)) == first


@pytest.mark.kernel
def test_a_refused_flow_is_silent_but_for_what_begins_like_something_until_there_is_room_in_another_epoch() -> None:
    with pinned(USABLE[0]), KernelEngine(ROOMY, payload_limit=LIMIT) as engine:
        program = load_only(engine, "rx", "tcx")

        def sources(frame: bytes) -> list[str]:
            program.run(frame)
            return [records.SOURCES[payload.source] for payload in take(engine)]

        for frame in many(TCP, 2000):
            program.run(frame)
        asked = {payload.flow.src_port for payload in take(engine)}
        assert len(asked) < 2000, "all were inspected: this machine is too slow to flood"
        refused = max(set(range(1024, 3024)) - asked)
        opaque = over4(TCP, p.tcp(OPAQUE, sport=refused))
        assert sources(opaque) == []
        assert sources(over4(TCP, p.tcp(REQUEST, sport=refused))) == ["http"]
        lost = int(engine.flip().lost_payloads.sum())
        for frame in many(TCP, 1000, first=10_000):
            program.run(frame)
        take(engine)
        hellos = [over4(TCP, p.tcp(CLIENT_HELLO, sport=20_000 + number)) for number in range(100)]
        assert [source for frame in hellos for source in sources(frame)] == ["tls"] * 100
        assert lost == 2000 - len(asked)
        assert int(engine.flip().lost_payloads.sum()) <= 1000
        other = min(set(range(1024, 3024)) - asked)
        engine.flip()
        let_ticks_pass(2)
        assert sources(over4(TCP, p.tcp(OPAQUE, sport=other))) == ["first"]


@pytest.mark.kernel
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_full_ring_loses_its_own_payloads_which_count_and_leaves_the_other_free(entry: str) -> None:
    dns, hello = udp("dns", DNS, dport=53).frame, tcp("tls", CLIENT_HELLO).frame
    plan = plan_tables(CPUS, 4096)
    with (
        pinned(USABLE[0]),
        KernelEngine(plan, test_runs=True, payload_limit=4096, ring_bytes=16384) as engine,
    ):
        program = load_only(engine, ENTRIES[entry].direction, ENTRIES[entry].mode)
        for flood, other, flood_at, other_at in ((dns, hello, 0, 1), (hello, dns, 1, 0)):
            for _ in range(300):
                program.run(flood)
            for _ in range(10):
                program.run(other)
            waiting, drain = take(engine), engine.flip()
            sent = [sum(payload.source == source for payload in waiting) for source in range(len(records.SOURCES))]
            assert sent == drain.payloads.tolist()
            assert 10 < sent[flood_at] < 300
            assert int(drain.lost_payloads[flood_at]) == 300 - sent[flood_at]
            assert (sent[other_at], int(drain.lost_payloads[other_at])) == (10, 0)
            program.run(flood)
            assert len(take(engine)) == 1, "room again"
            engine.flip()


@pytest.mark.kernel
def test_rings_wake_their_reader_when_a_quarter_is_full_and_not_before() -> None:
    frame = udp("dns", bytes(1000), dport=53).frame
    plan, ring_bytes = plan_tables(CPUS, 4096), 1 << 18
    with KernelEngine(plan, test_runs=True, payload_limit=1000, ring_bytes=ring_bytes) as engine:
        program = load_only(engine, "rx", "tcx")
        polled = select.epoll()
        polled.register(engine.payload_rings[0].fileno(), select.EPOLLIN)
        record_bytes = 8 + records.PAYLOAD.itemsize + 1000
        runs = 0
        while not polled.poll(0):
            program.run(frame)
            runs += 1
            assert runs < 2 * ring_bytes // record_bytes
        polled.close()
        assert ring_bytes / 4 <= runs * record_bytes <= ring_bytes / 4 + 2 * record_bytes
        assert len(take(engine)) == runs


@pytest.mark.kernel
def test_a_monitor_whose_time_for_names_is_over_waits_for_the_end_of_its_interval_without_turning(
    wire: tuple[Port, Port], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wiremeter.metering.beat.NAMES_SHARE", 0.0)
    ours, _ = wire
    frame = udp("dns", bytes(1000), dport=53).frame
    with ours.host.entered(), Monitor(ours.device, interval=0.5, attach="tcx") as monitor:
        assert monitor._session
        engine = monitor._session._engine
        assert isinstance(engine, KernelEngine)
        engine.attachments[0].run(frame, repeat=3000)
        batches = iter(monitor)
        next(batches)
        cpu_seconds = time.thread_time()
        next(batches)
        assert time.thread_time() - cpu_seconds < 0.25


# Where the payload lies elsewhere than the headers --------------------------------------------------------------------


@pytest.fixture(scope="module")
def wire(nothing_left_by_the_module: None) -> Iterator[tuple[Port, Port]]:
    """Two ends of a veth pair between namespaces, with addresses."""
    with devices.pair("ours", "theirs") as ends:
        devices.settle(*ends)
        yield ends


def served(port: int, address: str, amount: int) -> int:
    """Accepts a connection and reads to its end; returns how many bytes there were."""
    with socket.create_server((address, port)) as server:
        connection, _ = server.accept()
        read = 0
        with connection:
            while data := connection.recv(1 << 16):
                read += len(data)
        return read


@pytest.mark.kernel
def test_payload_that_is_not_linear_is_read_all_the_same(wire: tuple[Port, Port]) -> None:
    """What a socket sends over TCP lies in fragments of its skb: at egress of the sender nothing of it is at hand."""
    ours, theirs = wire
    address4 = theirs.ipv4
    body = bytes(range(256)) * 16
    with ours.host.entered(), KernelEngine(plan_tables(CPUS, 4096), payload_limit=4096) as engine:
        ifindex = socket.if_nametoindex(ours.device)
        directions: tuple[Direction, ...] = ("tx", "rx")
        for direction in directions:
            engine.attach(Hook(ours.device, ifindex, direction, "tcx"))
        server = theirs.host.start(served, 8080, address4, len(body))
        sender = connected(address4, 8080)
        head = b"POST /x HTTP/1.1\r\nContent-Length: 4096\r\n\r\n"
        with sender:
            sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sender.sendall(head + body)
            for _ in range(30):  # beyond any budget
                sender.sendall(OPAQUE)
                time.sleep(0.001)
            sender.sendall(head)
        assert server.result() == 2 * len(head) + len(body) + 30 * len(OPAQUE)
        found, drain = take(engine), engine.flip()
    heads = [payload.data for payload in found if payload.data.startswith(b"POST")]
    assert heads[-1] == head, "a head is found though the budget was spent"
    joined = b"".join(payload.data for payload in found)
    assert joined.startswith((head + body)[:4096])
    assert {records.SOURCES[payload.source] for payload in found} == {"http"}
    assert total([drain]) == (len(found), 0)


def connected(address4: str, port: int) -> socket.socket:
    """A connection, as soon as there is someone to take it."""
    made: list[socket.socket] = []

    def try_once() -> bool:
        try:
            made.append(socket.create_connection((address4, port), timeout=5))
        except ConnectionRefusedError:
            return False
        return True

    netns.wait_until(try_once, "there is a server")
    return made[0]
