"""One meter under one load after another, and what that took of whom."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bulk import addressed, send_bulk
from benchmarks.compare.cgroups import Group, Host
from benchmarks.compare.meters import NOTHING, Account, Meter, Running, running
from benchmarks.cpus import measured_cpu
from benchmarks.generator import Generator, Sent
from benchmarks.loads import LOADS
from benchmarks.namespaces import RECEIVER, SENDER, Namespace, device_counter, veth_with_napi
from benchmarks.report import Progress
from wiremeter.errors import KernelError

BULK = "bulk"
SETTLE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Trial:
    """A load and how much of it: packets at `rate` a second, or as fast as they go; of BULK, bytes."""

    load: str
    amount: int
    rate: int | None = None

    @property
    def name(self) -> str:
        """For tables.

        >>> Trial("imix", 10, 100_000).name
        'imix at 100,000/s'
        """
        return self.load if self.rate is None else f"{self.load} at {self.rate:,}/s"


#: Those of few flows first, since a process's memory does not shrink.
FULL = (
    Trial("udp64-1000", 200_000, 100_000),
    Trial("dns", 200_000, 100_000),
    Trial("udp64-1", 1_200_000),
    Trial("udp64-1000", 1_200_000),
    Trial("imix", 1_200_000),
    Trial("dns", 1_200_000),
    Trial(BULK, 3 << 30),
    Trial("udp64-100000", 1_200_000),
    Trial("udp64-1000000", 1_500_000),
)
QUICK = (
    Trial("udp64-1000", 100_000, 100_000),
    Trial("dns", 100_000, 100_000),
    Trial("udp64-1000", 600_000),
    Trial("dns", 600_000),
    Trial(BULK, 1 << 30),
    Trial("udp64-1000000", 1_200_000),
)


@dataclass(frozen=True, slots=True)
class Run:
    """One trial with one meter.

    offered, offered_bytes: what the sender put on the wire towards the device, for a meter of both directions also what
    came back. refused: buffers that the sender's device dropped because the receiver's ring was full. taken: buffers
    that the receiver's counted. seconds: of sending. sender_seconds: CPU of sending and
    receiving, what runs in the receiving softirq included; softirq_seconds: what the kernel put off to a thread of its
    own. meter_seconds: CPU of the meter's processes until it had caught up. accounted, lost: by its own words; None
    where it has none. memory_bytes: at its most, of its processes; map_bytes: in the kernel besides.
    """

    meter: str
    trial: str
    round: int
    offered: int
    offered_bytes: int
    refused: int
    taken: int
    seconds: float
    sender_seconds: float
    softirq_seconds: float
    meter_seconds: float
    accounted: int | None
    accounted_bytes: int | None
    lost: int | None
    memory_bytes: int
    map_bytes: int
    bpf_ns: float | None
    load_average: float


class Bench:
    """The pair of namespaces and every load, ready to be sent."""

    def __init__(self, sending: Namespace, receiving: Namespace, generators: Mapping[str, Generator]) -> None:
        self.sending, self.receiving = sending, receiving
        self._generators = generators
        self.host = Host()

    def send(self, trial: Trial) -> tuple[Sent, Sent | None]:
        """What went to the device, and what came back from it if the load has such."""
        if trial.load == BULK:
            return send_bulk(self.sending, self.receiving, trial.amount, measured_cpu())
        return self._generators[trial.load].send(trial.amount, trial.rate), None

    def taken(self) -> int:
        """Buffers that the device has received so far, by its own counter."""
        return device_counter(self.receiving, RECEIVER, "rx_packets")

    def refused(self) -> int:
        """Buffers that the sender's device has dropped so far."""
        return device_counter(self.sending, SENDER, "tx_dropped")


@contextmanager
def bench(trials: Sequence[Trial]) -> Iterator[Bench]:
    """Namespaces of its own, gone when the block ends."""
    with ExitStack() as stack:
        sending, receiving = stack.enter_context(veth_with_napi())
        stack.enter_context(addressed(sending, receiving))
        generators = {
            name: stack.enter_context(Generator(LOADS[name], sending, SENDER, measured_cpu()))
            for name in {trial.load for trial in trials} - {BULK}
        }
        yield Bench(sending, receiving, generators)


def measure(
    at: Bench, meter: Meter, trials: Sequence[Trial], number: int, folder: Path, say: Progress
) -> Iterator[Run]:
    """All trials with one meter, in one life of it where it can tell what it has counted meanwhile."""
    if meter.tells_at_end:
        for trial in trials:
            say(f"round {number}: {meter.text}, {trial.name}")
            yield _measure_whole_life(at, meter, trial, number, folder)
        return
    with running(meter, at.receiving, folder) as (process, group):
        for trial in trials:
            say(f"round {number}: {meter.text}, {trial.name}")
            yield _measure_part(at, meter, process, group, trial, number)


def _measure_part(at: Bench, meter: Meter, process: Running, group: Group, trial: Trial, number: int) -> Run:
    before = process.account() or Account(0)
    with _Watched(at, group) as watched:
        there, back = at.send(trial)
        after = _settled(meter, process, before, _offered(meter, there, back).packets, watched)
    return _run_of(meter, trial, number, there, back, watched, before, after)


def _measure_whole_life(at: Bench, meter: Meter, trial: Trial, number: int, folder: Path) -> Run:
    with running(meter, at.receiving, folder) as (process, group), _Watched(at, group) as watched:
        there, back = at.send(trial)
        time.sleep(meter.quiet_seconds)
        after = process.stop()
    return _run_of(meter, trial, number, there, back, watched, Account(0), after)


def _run_of(
    meter: Meter,
    trial: Trial,
    number: int,
    there: Sent,
    back: Sent | None,
    watched: _Watched,
    before: Account,
    after: Account | None,
) -> Run:
    offered = _offered(meter, there, back)
    runs = after.bpf_runs - before.bpf_runs if after else 0
    return Run(
        meter=meter.name,
        trial=trial.name,
        round=number,
        offered=offered.packets,
        offered_bytes=offered.bytes,
        refused=watched.refused,
        taken=watched.taken,
        seconds=there.seconds,
        sender_seconds=there.cpu_seconds,
        softirq_seconds=watched.softirq_seconds,
        meter_seconds=watched.meter_seconds,
        accounted=after.packets - before.packets if after else None,
        accounted_bytes=None if after is None or after.bytes is None else after.bytes - (before.bytes or 0),
        lost=None if after is None or after.lost is None else after.lost - (before.lost or 0),
        memory_bytes=watched.memory_bytes,
        map_bytes=watched.map_bytes,
        bpf_ns=(after.bpf_ns - before.bpf_ns) / runs if after and runs else None,
        load_average=watched.load_average,
    )


def _offered(meter: Meter, there: Sent, back: Sent | None) -> Sent:
    """What came past a meter: wiremeter's rx apart from its tx, others' both together."""
    if back is None or not meter.counts_both_directions:
        return there
    return there._replace(packets=there.packets + back.packets, bytes=there.bytes + back.bytes)


def _settled(meter: Meter, process: Running, before: Account, offered: int, watched: _Watched) -> Account | None:
    """What the meter says once it has accounted for all, or has said the same for long enough."""
    if meter.kind == "none":
        return None
    quiet = meter.quiet_seconds
    deadline = time.monotonic() + SETTLE_SECONDS
    last, since = before, time.monotonic()
    while time.monotonic() < deadline and time.monotonic() - since < quiet:
        time.sleep(quiet / 2)
        with watched.asking():
            now = process.account()
        if now is None or now.packets - before.packets == offered:
            return now
        if now.packets != last.packets:
            last, since = now, time.monotonic()
    return last


class _Watched:
    """Takes notes of what changes while the block runs."""

    def __init__(self, at: Bench, group: Group) -> None:
        self._at, self._group = at, group
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self.memory_bytes = self.map_bytes = 0
        self._asking_seconds = 0.0

    @contextmanager
    def asking(self) -> Iterator[None]:
        """What the meter's processes do meanwhile is done for us, and not counted."""
        before = self._group.cpu_seconds()
        yield
        self._asking_seconds += self._group.cpu_seconds() - before

    def __enter__(self) -> _Watched:
        self.load_average = float(Path("/proc/loadavg").read_text().split()[0])
        self._taken, self._refused = self._at.taken(), self._at.refused()
        self._softirq, self._meter = self._at.host.softirq_seconds(), self._group.cpu_seconds()
        self._sampler.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.meter_seconds = self._group.cpu_seconds() - self._meter - self._asking_seconds
        self.softirq_seconds = self._at.host.softirq_seconds() - self._softirq
        self.taken, self.refused = self._at.taken() - self._taken, self._at.refused() - self._refused
        self._stop.set()
        self._sampler.join()

    def _sample(self) -> None:
        """The most that the meter's processes have, looked at now and then: looking costs, too."""
        while True:
            self.memory_bytes = max(self.memory_bytes, self._group.memory_bytes())
            self.map_bytes = max(self.map_bytes, self._group.map_bytes())
            if self._stop.wait(0.25):
                return


def sessions(meters: Sequence[Meter]) -> list[Meter]:
    """The order within a round: before, between and after the meters the empty device, since a machine changes."""
    order = [NOTHING]
    for number, meter in enumerate(meters, 1):
        order.append(meter)
        if number % 4 == 0 or number == len(meters):
            order.append(NOTHING)
    return order


def compare(
    meters: Sequence[Meter],
    trials: Sequence[Trial],
    rounds: int,
    folder: Path,
    failures: dict[str, str],
    say: Progress,
) -> Iterator[Run]:
    """All meters under all trials, round by round.

    One that fails is left out from then on; why is in `failures`, by its text.
    """
    with bench(trials) as at:
        for trial in trials:  # caches, page pools, and a processor that has woken up
            at.send(trial)
        for number in range(1, rounds + 1):
            taking_part = [meter for meter in meters if number <= meter.rounds]
            turned = taking_part[number - 1 :] + taking_part[: number - 1]
            for meter in sessions(turned):
                if meter.text in failures:
                    continue
                try:
                    yield from measure(at, meter, trials, number, folder, say)
                except (KernelError, OSError) as error:
                    say(f"{meter.text} failed and is left out: {error}")
                    failures[meter.text] = str(error)
