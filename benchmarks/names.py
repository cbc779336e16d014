"""What names cost: a packet of no interest, a packet that is sent, DNS at a rate, and reading it all in user space."""

from __future__ import annotations

import os
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import handshakes, packets
from benchmarks.cpus import measured_cpu, pinned
from benchmarks.memory import cpu_seconds, family
from benchmarks.namespaces import RECEIVER, SENDER, Namespace, device_counter, veth_pair
from benchmarks.programs import OBJECT, fill, loaded, require_object
from benchmarks.report import Figure, Progress, figure_of, figure_of_difference
from benchmarks.sender import build_program
from benchmarks.testrun import lines_for
from wiremeter.datapath.kernel import KernelEngine
from wiremeter.datapath.layout import plan_tables
from wiremeter.datapath.naming import NameOptions
from wiremeter.datapath.rows import conversation_hashes
from wiremeter.errors import KernelError
from wiremeter.flows.columns import FLOW
from wiremeter.libbpf.testrun import run_program
from wiremeter.metering.monitor import Monitor
from wiremeter.names.namer import Namer
from wiremeter.names.payloads import Payload, packed
from wiremeter.names.records import FlowKey
from wiremeter.settings.words import PAYLOAD_BYTES_DEFAULT

UNINTERESTING = "test run (warm), packets of no interest, ns that names add"
SENT = "test run (warm), packets whose payload is sent, ns that names add"
LOAD = "DNS through a veth pair, 1 s intervals"
WITHOUT_LOSS = f"{LOAD}: the highest rate without loss"
USER = "reading payloads, µs of CPU each"
#: A program's speed depends on where in memory its code happens to lie, so each is loaded several times.
LOADS = 6
ROUNDS = 9
REPEAT = 100_000
#: Of packets that are sent: as many as fit a ring.
REPEAT_SENT = 10_000
#: Transactions a second that are asked for.
RATE = 50_000
SECONDS = 10.0
#: As agents do.
_NAMES = NameOptions(isolated=True)
#: Of each step in the search for the highest rate without loss.
STEP_SECONDS = 4.0
RATES = (2_500, 5_000, 7_500, 10_000, 15_000, 20_000, 25_000, 30_000, 40_000, 50_000, 75_000, 100_000)
TRANSACTIONS = 32_000  # different ones; then they come again

TCP, UDP = packets.TCP, packets.UDP


def measure(say: Progress) -> Iterator[Figure]:
    """All four parts."""
    require_object()
    with pinned(measured_cpu()):
        for case in CASES:
            say(f"names, test run: {case.what}")
            yield _measure_case(case)
    yield from _measure_user_half(say)
    yield from _measure_load(say)


# --- nanoseconds in the kernel


@dataclass(frozen=True, slots=True)
class Case:
    """A packet through the same program with names on and off."""

    group: str
    what: str
    packet: bytes
    flows: int = 1
    address_at: int = packets.SOURCE_IPV4
    target: float | None = None


def _opaque(packet: bytes) -> bytes:
    """The same with a payload that begins with none of the bytes that are looked for, where there is one."""
    return packet[:-64] + bytes(range(128, 192)) if len(packet) > 100 else packet


_QUERY = handshakes.dns_query(0)
CASES = (
    Case(UNINTERESTING, "IPv4/TCP, 64 bytes of data, 1 flow", _opaque(packets.ipv4(TCP, 64)), target=5),
    Case(UNINTERESTING, "IPv4/TCP, no data, 1 flow", packets.ipv4(TCP, 0), target=5),
    Case(UNINTERESTING, "IPv4/TCP, 1,400 bytes of data, 1 flow", _opaque(packets.ipv4(TCP, 1400)), target=5),
    Case(UNINTERESTING, "IPv4/UDP, 64 bytes of data, 1 flow", _opaque(packets.ipv4(UDP, 64)), target=5),
    Case(UNINTERESTING, "IPv6/TCP, 64 bytes of data, 1 flow", _opaque(packets.ipv6(TCP, 64)), target=5),
    Case(UNINTERESTING, "IPv4/TCP, 64 bytes of data, 50,000 flows", _opaque(packets.ipv4(TCP, 64)), 50_000),
    Case(SENT, f"DNS query, {len(_QUERY)} bytes", packets.ipv4(UDP, 0, _QUERY, port=53)),
    Case(SENT, "TLS segment, 1,400 bytes", packets.ipv4(TCP, 0, handshakes.client_hello("site.example").ljust(1400))),
    Case(SENT, "HTTP head, 300 bytes", packets.ipv4(TCP, 0, b"GET / HTTP/1.1\r\n".ljust(300))),
)


def _measure_case(case: Case) -> Figure:
    plan = plan_tables(measured_cpu() + 1, lines_for(case.flows))
    constants = {
        "bench_flows": case.flows,
        "bench_address_at": case.address_at,
    }
    repeat = REPEAT if case.group == UNINTERESTING else REPEAT_SENT
    with (
        KernelEngine(plan, OBJECT) as without,
        KernelEngine(plan, OBJECT, payload_limit=PAYLOAD_BYTES_DEFAULT) as names,
    ):

        def run(engine: KernelEngine, program: int, count: int) -> float:
            while any(len(engine.take_payloads(ring)) for ring in engine.payload_rings):
                pass
            started = time.thread_time_ns()
            run_program(program, case.packet, repeat=max(count, 2), skb=True)
            return (time.thread_time_ns() - started) / max(count, 2)

        for engine in (without, names) if case.flows > 1 else ():
            with loaded(engine, "wm_bench_ingress", **constants, bench_in_order=1) as in_order:
                fill(engine, lambda engine=engine, program=in_order: run(engine, program, case.flows))  # type: ignore[misc]
        off: list[float] = []
        on: list[float] = []
        for _ in range(LOADS):
            with (
                loaded(without, "wm_bench_ingress", **constants) as program_off,
                loaded(names, "wm_bench_ingress", **constants) as program_on,
            ):
                for _ in range(ROUNDS):
                    off.append(run(without, program_off, repeat))
                    on.append(run(names, program_on, repeat))
    return figure_of_difference(case.group, case.what, "ns", on, off, case.target)


# --- the user half


def _measure_user_half(say: Progress) -> Iterator[Figure]:
    """Each kind through a Namer of its own, and an interval closed over many names."""
    kinds: tuple[tuple[str, int, Callable[[int], Sequence[Payload]], float | None], ...] = (
        ("DNS transaction, each of another name, all to columns", 10_000, _dns_payloads, 3),
        ("DNS transaction, of 100 names", 10_000, lambda number: _dns_payloads(number, names=100), 3),
        ("TLS handshake, both hellos", 1_000, _tls_payloads, 15),
        ("HTTP exchange, both heads, each on its connection", 2_000, _http_payloads, 5),
        ("opaque TCP packet, the first of its flow", 4_000, _opaque_payloads, 0.3),
    )
    with pinned(measured_cpu()):
        for what, count, make, target in kinds:
            say(f"names, user half: {what}")
            block = packed(payload for number in range(count) for payload in make(number))
            samples = []
            for _ in range(ROUNDS):
                namer = Namer(conversation_hashes)
                started = time.thread_time_ns()
                namer.feed(block)
                samples.append((time.thread_time_ns() - started) / 1e3 / count)
            yield figure_of(USER, what, "µs", samples, target)
        say("names, user half: closing an interval")
        yield _measure_close(50_000, 20_000, 15)
        yield _measure_close(1_000_000, 20_000, 20)


def _measure_close(flows: int, conversations: int, target: float) -> Figure:
    """Naming flows of which some had DNS; the part of it that grows with each flow. target: in ms."""
    rows = np.zeros(flows, FLOW)
    rows["src_addr"][:, 8:] = np.arange(flows, dtype=">u8").view("u1").reshape(-1, 8)
    rows["protocol"], rows["family"], rows["dst_port"] = 6, 4, 443
    samples = []
    for _ in range(ROUNDS):
        namer = Namer(conversation_hashes)
        namer.feed(packed(payload for number in range(conversations) for payload in _dns_payloads(number)))
        started = time.thread_time_ns()
        namer.close_interval(rows, np.zeros(flows, np.int64), 10**18)
        samples.append((time.thread_time_ns() - started) / 1e6)
    return figure_of(
        USER, f"closing an interval of {flows:,} flows and {conversations:,} DNS transactions", "ms", samples, target
    )


def _payload(number: int, from_client: bool, protocol: int, port: int, source: int, data: bytes, seq: int) -> Payload:
    client = FlowKey(_mapped(10 << 24 | number % 250), 1024 + number % 60_000, _SERVER, port, protocol, 4)
    flow = client if from_client else client.reversed()
    flags = 0x18 if protocol == TCP else 0
    return Payload(10**18 + number * 1000, flow, seq, len(data), 0, flags, source, data)


def _mapped(address: int) -> bytes:
    return bytes(10) + b"\xff\xff" + address.to_bytes(4, "big")


_SERVER = _mapped(198 << 24 | 18 << 16 | 1)


def _dns_payloads(number: int, names: int = 1 << 30) -> list[Payload]:
    query, answer = handshakes.dns_query(number, names), handshakes.dns_answer(number, names)
    return [_payload(number, True, UDP, 53, 0, query, 0), _payload(number, False, UDP, 53, 0, answer, 0)]


def _tls_payloads(number: int) -> list[Payload]:
    hello, answer = handshakes.tls_hellos()
    return [_payload(number, True, TCP, 443, 1, hello, 1), _payload(number, False, TCP, 443, 1, answer, 1)]


def _http_payloads(number: int) -> list[Payload]:
    request = f"GET /{number} HTTP/1.1\r\nHost: site-{number % 50}.example\r\nUser-Agent: bench\r\n\r\n".encode()
    response = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
    return [_payload(number, True, TCP, 80, 2, request, 1), _payload(number, False, TCP, 80, 2, response, 1)]


def _opaque_payloads(number: int) -> list[Payload]:
    return [_payload(number, True, TCP, 9000, 4, bytes(range(128, 228)), 1)]


# --- DNS at a rate


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of packets that were offered to a device."""

    offered: int
    seconds: float
    arrived: int
    sent: int
    lost: int
    transactions: int
    cpu_seconds: float

    def check(self) -> None:
        """Raises KernelError where packets are missing that nothing counted."""
        if not self.offered == self.arrived == self.sent + self.lost:
            raise KernelError(
                f"{self.offered} DNS packets were offered and {self.arrived} arrived, but {self.sent} payloads were "
                f"sent and {self.lost} lost",
                call="names",
            )


def _measure_load(say: Progress) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="wm-bench-") as folder:
        frames = Path(folder) / "frames"
        frames.write_bytes(b"".join(_with_length(frame) for frame in _dns_frames()))
        with veth_pair() as (sending, receiving):
            say(f"names, DNS: {RATE:,} transactions/s for {SECONDS:.0f} s")
            outcome = _run(sending, receiving, frames, RATE, SECONDS)
            outcome.check()
            for what, unit, value in (
                ("transactions offered each second", "", outcome.offered / 2 / outcome.seconds),
                ("packets offered", "", outcome.offered),
                ("packets that arrived", "", outcome.arrived),
                ("payloads sent", "", outcome.sent),
                ("payloads lost, and counted", "", outcome.lost),
                ("packets that nothing counted", "", outcome.offered - outcome.sent - outcome.lost),
                ("transactions told", "", outcome.transactions),
                ("CPU of the meter's processes", "% of one", 100 * outcome.cpu_seconds / outcome.seconds),
            ):
                yield figure_of(f"{LOAD}: {RATE:,} transactions/s offered", what, unit, [value])
            carried: tuple[int, Outcome] | None = None
            for rate in RATES:
                say(f"names, DNS: {rate:,} transactions/s")
                outcome = _run(sending, receiving, frames, rate, STEP_SECONDS)
                outcome.check()
                if outcome.lost:
                    break
                carried = rate, outcome
            if carried:
                rate, outcome = carried
                yield figure_of(WITHOUT_LOSS, "transactions/s", "", [rate])
                yield figure_of(WITHOUT_LOSS, "transactions told of those offered", "%", [_share(outcome)])
                yield figure_of(
                    WITHOUT_LOSS,
                    "CPU of the meter's processes",
                    "% of one",
                    [100 * outcome.cpu_seconds / outcome.seconds],
                )


def _share(outcome: Outcome) -> float:
    return 100 * outcome.transactions / (outcome.offered / 2)


def _dns_frames() -> Iterator[bytes]:
    for number in range(TRANSACTIONS):
        client, port = bytes([10, 0, 0, number % 250]), 1024 + number % 60_000
        server = bytes([198, 18, 0, 1])
        yield packets.udp4(client, port, server, 53, handshakes.dns_query(number))
        yield packets.udp4(server, 53, client, port, handshakes.dns_answer(number))


def _with_length(frame: bytes) -> bytes:
    return struct.pack("=I", len(frame)) + frame


def _run(sending: Namespace, receiving: Namespace, frames: Path, rate: int, seconds: float) -> Outcome:
    """A monitor on RECEIVER, on another CPU than the sender, which receives what it sends."""
    program = build_program("replayer")
    arrived = device_counter(receiving, RECEIVER, "rx_packets")
    before = min(os.sched_getaffinity(0))
    with receiving.entered(), pinned(before), Monitor(RECEIVER, interval=1.0, attach="tcx", names=_NAMES) as monitor:
        processes = family(os.getpid())
        before_seconds = sum(map(cpu_seconds, processes))
        with sending.entered(), pinned(measured_cpu()):
            sender = subprocess.Popen(
                (program, SENDER, frames, str(2 * rate), str(seconds)), stdout=subprocess.PIPE, text=True
            )
        transactions, quiet = 0, 0
        sent = lost = 0
        for batch in monitor:
            transactions += len(batch.transactions.dns)
            sent, lost = batch.health.payloads.get("dns", 0), batch.health.lost_payloads.get("dns", 0)
            quiet += sender.poll() is not None
            if quiet == 2:
                monitor.close()
        took_seconds = sum(map(cpu_seconds, processes)) - before_seconds
    output, _ = sender.communicate()
    if sender.returncode:
        raise KernelError(f"the replayer ended with {sender.returncode}", call="sendmmsg")
    offered, took = output.split()
    arrived = device_counter(receiving, RECEIVER, "rx_packets") - arrived
    return Outcome(int(offered), float(took), arrived, sent, lost, transactions, took_seconds)
