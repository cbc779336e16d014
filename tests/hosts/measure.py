"""The meter on a host while a test sends: what it said about each device and direction, summed over its batches."""

from __future__ import annotations

import itertools
import mmap
import pickle
import struct
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from .devices import Port
from .netns import Host, Job, JobFailed, wait_until
from .wire import Count, Flow, Traffic, add_counts

if TYPE_CHECKING:
    from wiremeter.flows.batch import FlowBatch

Direction = Literal["rx", "tx"]
Attach = Literal["auto", "xdp", "xdp-generic", "tcx", "capture"]
Where = tuple[str, str]  # device, direction

#: Short, so that tests are; long against a grace period.
INTERVAL_SECONDS = 0.05
#: What a test's traffic needs is far less than the default; a small table is quicker to make.
FLOW_TABLE = 1 << 14
NUMBER = struct.Struct("=q")


@dataclass(frozen=True)
class Seen:
    """What the meter said of one device and direction, all batches together.

    traffic: from the flows and the ethertypes. total: from the audit. protocols: from the counters, by (family,
    protocol). unattributed: by reason, only what is not zero. kernel: the device's own counts; None where the meter
    gave none. dropped: by place and cause, remainders: by cause, only what is not zero.
    """

    traffic: Traffic = field(default_factory=Traffic)
    total: Count = field(default_factory=Count)
    protocols: Mapping[tuple[int, int], Count] = field(default_factory=dict)
    skbs: int = 0
    flow_skbs: Mapping[Flow, int] = field(default_factory=dict)
    tcp_flags: Mapping[Flow, int] = field(default_factory=dict)
    unattributed: Mapping[str, Count] = field(default_factory=dict)
    kernel: Count | None = None
    dropped: Mapping[tuple[str, str], int] = field(default_factory=dict)
    remainders: Mapping[str, int] = field(default_factory=dict)
    modes: frozenset[str] = frozenset()

    def plus(self, other: Seen) -> Seen:
        """Both together."""
        return Seen(
            traffic=self.traffic.plus(other.traffic),
            total=self.total.plus(other.total),
            protocols=add_counts(self.protocols, other.protocols),
            skbs=self.skbs + other.skbs,
            flow_skbs=_add_numbers(self.flow_skbs, other.flow_skbs),
            tcp_flags={
                flow: self.tcp_flags.get(flow, 0) | other.tcp_flags.get(flow, 0)
                for flow in {*self.tcp_flags, *other.tcp_flags}
            },
            unattributed=add_counts(self.unattributed, other.unattributed),
            kernel=(self.kernel or Count()).plus(other.kernel) if other.kernel else self.kernel,
            dropped=_add_numbers(self.dropped, other.dropped),
            remainders=_add_numbers(self.remainders, other.remainders),
            modes=self.modes | other.modes,
        )

    def assert_is(self, truth: Traffic) -> None:
        """Every flow, ethertype, protocol and total is the truth's, exactly, and nothing is unattributed."""
        assert self.unattributed == {}
        assert self.traffic.flows == truth.flows
        assert self.traffic.ethertypes == truth.ethertypes
        assert self.protocols == truth.protocols
        assert self.total == truth.total


def _add_numbers(left: Mapping[Any, int], right: Mapping[Any, int]) -> dict[Any, int]:
    both = {key: left.get(key, 0) + right.get(key, 0) for key in {*left, *right}}
    return {key: value for key, value in both.items() if value}


@dataclass(frozen=True)
class Reading:
    """All batches of a metering: sums by (device, direction), and by attachment id; and what batches must hold to."""

    seen: Mapping[Where, Seen]
    by_attachment: Mapping[int, Seen]
    devices: Mapping[int, tuple[str, ...]]  # the names that each attachment's device bore, in order
    batches: int
    unbalanced: tuple[str, ...]
    overlaps: tuple[str, ...]
    displaced: frozenset[str]
    early_flips: int

    def __getitem__(self, where: Where) -> Seen:
        return self.seen.get(where, Seen())


class Board:
    """A few numbers that the test and the monitor's process both see, in memory they share."""

    FIELDS = ("attached", "last_start_ns", "stop_ns", "attachments")

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)

    def __getitem__(self, name: str) -> int:
        return int(NUMBER.unpack_from(self._memory, self.FIELDS.index(name) * NUMBER.size)[0])

    def __setitem__(self, name: str, value: int) -> None:
        NUMBER.pack_into(self._memory, self.FIELDS.index(name) * NUMBER.size, value)

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()


class Meter:
    """A running Monitor in a process on a host. `reading` has what it said once the `metering` block is left."""

    def __init__(self, job: Job, board: Board) -> None:
        self._job = job
        self._board = board
        self.killed = False
        self.reading: Reading | None = None

    def __getitem__(self, where: Where) -> Seen:
        assert self.reading, "the meter still runs: ask after the metering block"
        return self.reading[where]

    def _wait(self, claim: Callable[[], bool], what: str) -> None:
        """Return once `claim` holds. Raises JobFailed with the monitor's error when it ended before."""
        wait_until(lambda: claim() or self._job.has_answered, what)
        if not claim():
            self._job.result()
            raise JobFailed("the monitor ended while it was needed")

    def wait_attached(self) -> None:
        """Return when the monitor is attached."""
        self._wait(lambda: bool(self._board["attached"]), "the monitor is attached")

    def wait_attachments(self, number: int) -> None:
        """Return when there have been so many attachments, two a device, those that are gone included."""
        self._wait(lambda: self._board["attachments"] >= number, f"{number} attachments were made")

    def wait_counted(self) -> None:
        """Return when a batch has come that began after this call: then all that was sent before it is counted."""
        now = time.time_ns()
        self._wait(lambda: self._board["last_start_ns"] >= now, "a batch has come that began after the traffic")

    def stop(self) -> None:
        """Tell the monitor to end once it has delivered what was seen until now."""
        self._board["stop_ns"] = time.time_ns()

    def finish(self) -> None:
        """Take what a stopped monitor said, and check what holds for every batch."""
        self.reading = summed(pickle.loads(self._job.result(15)))
        self._board.close()
        assert self.reading.unbalanced == (), "batches where seen is not flows + non-IP + unattributed"
        assert self.reading.overlaps == (), "batches whose intervals overlap or leave a gap"

    def kill(self) -> None:
        """End the monitor's process as `kill -9` does; it gives no reading."""
        self.killed = True
        self._job.kill()


def start_meter(
    host: Host, *devices: str, attach: Attach = "auto", interval: float = INTERVAL_SECONDS, **options: Any
) -> Meter:
    """Start a Monitor on the devices of `host`, in a process of its own; it is not yet attached."""
    import wiremeter.metering.monitor  # noqa: F401  here, so that the forked process need not

    board = Board()
    settings = {"flow_table": FLOW_TABLE, **options}
    return Meter(host.start(_monitor, devices, attach, interval, settings, board), board)


@contextmanager
def running(*meters: Meter) -> Iterator[None]:
    """The block runs while the meters are attached.

    When it ends they go on until an interval that began later is complete, so that the block's last packets are in
    the sums, and are closed. A fault in any batch's audit raises.
    """
    try:
        for meter in meters:
            meter.wait_attached()
        yield
        alive = [meter for meter in meters if not meter.killed]
        for meter in alive:
            meter.stop()
        for meter in alive:
            meter.finish()
    except BaseException:
        for meter in meters:
            meter.kill()
        raise


@contextmanager
def metering(host: Host, *devices: str, attach: Attach = "auto", **options: Any) -> Iterator[Meter]:
    """A Monitor on the devices of `host` around what the block sends."""
    meter = start_meter(host, *devices, attach=attach, **options)
    with running(meter):
        yield meter


@contextmanager
def metering_ends(client: Port, server: Port, attach: Attach = "auto", **options: Any) -> Iterator[tuple[Meter, Meter]]:
    """Monitors at both ends around what the block sends; `attach` is the server's, the client's is tcx."""
    meters = (
        start_meter(client.host, client.device, attach="tcx", **options),
        start_meter(server.host, server.device, attach=attach, **options),
    )
    with running(*meters):
        yield meters


def _monitor(devices: tuple[str, ...], attach: Attach, interval: float, options: dict[str, Any], board: Board) -> bytes:
    """The monitor's process: posts when it is attached and each batch's start, until one began after `stop_ns`."""
    from wiremeter import Monitor

    batches: list[FlowBatch] = []
    with Monitor(*devices, interval=interval, attach=attach, **options) as monitor:
        board["attached"] = 1
        for batch in monitor:
            batches.append(batch)
            board["attachments"] = max([board["attachments"], *(a.id + 1 for a in batch.attachments)])
            board["last_start_ns"] = batch.start_ns
            if 0 < board["stop_ns"] <= batch.start_ns:
                break
    return pickle.dumps([flatten(batch) for batch in batches])


def flatten(batch: FlowBatch) -> dict[str, Any]:
    """The parts of a batch that tests look at, as plain values that any process can take."""
    seen: dict[int, Seen] = {}
    place = {(a.device, a.direction): index for index, a in enumerate(batch.attachments)}
    unbalanced = []
    for entry in batch.audit:
        index = place[entry.device, entry.direction]
        if not entry.balanced:
            unbalanced.append(f"{entry.device} {entry.direction}: {entry.missing} missing of {entry.seen}")
        traffic, skbs, flags = _flows_of(batch, index)
        seen[batch.attachments[index].id] = Seen(
            traffic=Traffic(traffic, _ethertypes_of(batch, index)),
            total=Count(entry.seen.packets, entry.seen.bytes),
            protocols=_protocols_of(batch, index),
            skbs=entry.seen.skbs,
            flow_skbs=skbs,
            tcp_flags=flags,
            unattributed={r: Count(t.packets, t.bytes) for r, t in entry.unattributed.items() if t.packets},
            kernel=Count(entry.kernel.packets, entry.kernel.bytes) if entry.kernel else None,
            dropped={(drop.place, drop.cause): drop.packets for drop in entry.drops if drop.packets},
            remainders={cause: number for cause, number in entry.remainders.items() if number},
            modes=frozenset({batch.attachments[index].mode}),
        )
    return {
        "start_ns": batch.start_ns,
        "end_ns": batch.end_ns,
        "seen": seen,
        "names": {a.id: (a.device, a.direction) for a in batch.attachments},
        "unbalanced": unbalanced,
        "displaced": batch.health.displaced,
        "early_flips": batch.health.early_flips,
    }


def _flows_of(batch: FlowBatch, index: int) -> tuple[dict[Flow, Count], dict[Flow, int], dict[Flow, int]]:
    counts, skbs, flags = {}, {}, {}
    for row in batch.flows[batch.flows["attachment"] == index]:
        flow = flow_of_row(row)
        assert flow not in counts, f"{flow} is in one batch twice"
        counts[flow] = Count(int(row["packets"]), int(row["bytes"]))
        skbs[flow] = int(row["skbs"])
        flags[flow] = int(row["tcp_flags"])
        assert batch.start_ns - SLACK_NS <= row["first_ns"] <= row["last_ns"] <= batch.end_ns + SLACK_NS
    return counts, skbs, flags


def flow_of_row(row: Any) -> Flow:
    """The key of a row of dtype FLOW."""
    from wiremeter.flows.columns import VLAN_NONE, address_text

    return Flow(
        int(row["family"]),
        int(row["protocol"]),
        address_text(row["src_addr"]),
        int(row["src_port"]),
        address_text(row["dst_addr"]),
        int(row["dst_port"]),
        None if row["vlan"] == VLAN_NONE else int(row["vlan"]),
    )


#: First and last seen come from a clock of the kernel's tick, and the boundary of an interval is as wide as a grace
#: period. This is above both, and below any mistake of unit or origin.
SLACK_NS = 500_000_000


def _ethertypes_of(batch: FlowBatch, index: int) -> dict[int, Count]:
    rows = batch.ethertypes[batch.ethertypes["attachment"] == index]
    return {int(r["ethertype"]): Count(int(r["packets"]), int(r["bytes"])) for r in rows if r["packets"]}


def _protocols_of(batch: FlowBatch, index: int) -> dict[tuple[int, int], Count]:
    rows = batch.counters[batch.counters["attachment"] == index]
    return {
        (int(r["family"]), int(r["protocol"])): Count(int(r["packets"]), int(r["bytes"])) for r in rows if r["packets"]
    }


def summed(batches: list[dict[str, Any]]) -> Reading:
    """All batches together."""
    seen: dict[Where, Seen] = defaultdict(Seen)
    by_attachment: dict[int, Seen] = defaultdict(Seen)
    devices: dict[int, tuple[str, ...]] = defaultdict(tuple)
    for batch in batches:
        for attachment, one in batch["seen"].items():
            where = batch["names"][attachment]
            seen[where] = seen[where].plus(one)
            by_attachment[attachment] = by_attachment[attachment].plus(one)
            if where[0] not in devices[attachment]:
                devices[attachment] += (where[0],)
    return Reading(
        seen=dict(seen),
        by_attachment=dict(by_attachment),
        devices=dict(devices),
        batches=len(batches),
        unbalanced=tuple(fault for batch in batches for fault in batch["unbalanced"]),
        overlaps=tuple(
            f"{before['end_ns']} then {after['start_ns']}"
            for before, after in itertools.pairwise(batches)
            if before["end_ns"] != after["start_ns"]
        ),
        displaced=frozenset(place for batch in batches for place in batch["displaced"]),
        early_flips=batches[-1]["early_flips"] if batches else 0,
    )
