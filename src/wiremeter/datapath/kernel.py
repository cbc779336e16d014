"""The kernel engine: tables shared with the programs, a meter for all attachments, and the flip of the epoch."""

from __future__ import annotations

import functools
import logging
import mmap
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self, cast

import numpy as np
from numpy.typing import NDArray

from wiremeter.datapath import records
from wiremeter.datapath.clsact import ClsactFilter
from wiremeter.datapath.drain import Drain
from wiremeter.datapath.engine import Hook, Lasts
from wiremeter.datapath.layout import RING_BYTES, TablePlan, spread_for
from wiremeter.datapath.pins import Slot
from wiremeter.datapath.programs import PAYLOAD_RINGS, SHARED_MAPS, TC_PROGRAMS, XDP_PROGRAMS, MeterPrograms
from wiremeter.datapath.regions import Region
from wiremeter.datapath.restarts import Restarts
from wiremeter.errors import InputError, KernelError, WiremeterError
from wiremeter.flows.batch import Mark
from wiremeter.flows.columns import ETHERTYPE_COUNTER
from wiremeter.libbpf.attach import (
    BEFORE,
    TCX_EGRESS,
    TCX_INGRESS,
    XDP,
    XDP_FLAGS_DRIVER,
    XDP_FLAGS_SKB,
    Link,
    ProgramInfo,
    enable_statistics,
    filter_program,
    program_info,
    tcx_programs,
    xdp_programs,
)
from wiremeter.libbpf.btf import KIND_DATASEC
from wiremeter.libbpf.maps import GracePeriod, map_memory, put_program
from wiremeter.libbpf.objects import BpfObject
from wiremeter.libbpf.rings import BlockRing, RingBuffer
from wiremeter.libbpf.testrun import ProgramRun, run_program
from wiremeter.linux.clock import STEP_NS, WallClock, best_offset
from wiremeter.names.payloads import PayloadBlock

log = logging.getLogger(__name__)

CLOCK_MONOTONIC_COARSE = 6  # its resolution is the kernel's tick
_BLOCK_BYTES = 1 << 18
_LONGEST_RECORD = records.PAYLOAD.itemsize + records.PAYLOAD_BYTES_MAX


class KernelAttachment:
    """One program on one hook. Its slot is where the tables count for it."""

    def __init__(self, slot: int, hook: Hook, test_packet: NDArray[np.void]) -> None:
        self.slot = slot
        self.hook = hook
        #: The engine sets both as it attaches.
        self.program_fd = -1
        self.held_by: Link | ClsactFilter | None = None
        #: It was attached by another process before this one.
        self.is_adopted = False
        self._test_packet = test_packet

    @functools.cached_property
    def _program_id(self) -> int:
        return self.info().id

    def info(self) -> ProgramInfo:
        """The program's name, run time and count."""
        return program_info(self.program_fd)

    def is_first(self) -> bool:
        """Whether no other program comes before ours; only at tcx can one."""
        if self.hook.mode != "tcx":
            return True
        chain = tcx_programs(self.hook.ifindex, TCX_INGRESS if self.hook.direction == "rx" else TCX_EGRESS)
        return chain[:1] == [self._program_id]

    def is_attached(self) -> bool:
        """Whether our program is still on the device that bears the ifindex we attached to, in our own namespace."""
        hook = self.hook
        try:
            match hook.mode:
                case "xdp" | "xdp-generic":
                    return self._program_id in xdp_programs(hook.ifindex)
                case "tcx":
                    side = TCX_INGRESS if hook.direction == "rx" else TCX_EGRESS
                    return self._program_id in tcx_programs(hook.ifindex, side)
                case "clsact":
                    return filter_program(hook.ifindex, hook.direction == "tx") == self._program_id
                case _:
                    return True
        except KernelError:
            return False

    def run(
        self,
        packet: bytes,
        *,
        repeat: int = 1,
        gso_size: int = 0,
        gso_segs: int = 0,
        time_ns: int = 0,
        wire_bytes: int = 0,
    ) -> ProgramRun:
        """Runs the program on a packet that no device ever saw; its counts land in the tables like any other's.

        time_ns, wire_bytes: the packet's time, and its length on the wire (0: as it is); only in an engine for
        `test_runs`.
        """
        self._test_packet["time_ns"], self._test_packet["wire_bytes"] = time_ns, wire_bytes
        skb = not self.hook.mode.startswith("xdp")
        return run_program(self.program_fd, packet, repeat=repeat, gso_size=gso_size, gso_segs=gso_segs, skb=skb)

    def detach(self) -> None:
        """Takes the program off its hook; it stays loaded until `close`. A second call does nothing."""
        if self.held_by:
            self.held_by.close()
            self.held_by = None

    def close(self, *, stays: bool = False) -> None:
        """Detaches and frees the program. A second call does nothing. stays: what is pinned goes on without us."""
        if stays and isinstance(self.held_by, ClsactFilter):
            self.held_by = None
        self.detach()
        if self.program_fd >= 0:
            os.close(self.program_fd)
            self.program_fd = -1


def _is_whole(hook: Hook) -> bool:
    """Whether the program is bound to its device, so that no other can go on to it."""
    return hook.mode == "xdp" and hook.vlan_from_driver


class KernelEngine:
    """The tables in the kernel and the programs that fill them."""

    def __init__(
        self,
        plan: TablePlan,
        program: Path | None = None,
        *,
        test_runs: bool = False,
        payload_limit: int = 0,
        payload_sources: Collection[str] = records.SOURCES,
        ring_bytes: int = RING_BYTES,
        statistics: bool = False,
        clock: WallClock | None = None,
        restarts: Restarts | None = None,
    ) -> None:
        """Makes the tables, or takes over those that are pinned; all their memory is taken now.

        test_runs: nothing will be attached, all packets come through KernelAttachment.run, with times of their own.
        payload_limit: bytes of a packet's payload that programs send at most, where a name may be read from it; 0:
        they look at none. payload_sources: of records.SOURCES, those to send. ring_bytes: of each of the two rings for
        that, a power of two of whole pages. statistics: have the kernel time every program run while this is open.
        clock: what tells times of day; by default one of its own. restarts: tables and programs outlive this process.
        Raises InputError, PermissionNeeded or KernelError, naming what is in the way.
        """
        self.plan = plan
        self._programs = MeterPrograms(
            program,
            plan,
            test_runs=test_runs,
            payload_limit=payload_limit,
            payload_sources=payload_sources,
            ring_bytes=ring_bytes,
        )
        self._tick_ns = 1 if test_runs else round(time.clock_getres(CLOCK_MONOTONIC_COARSE) * 1e9)
        self._clock = clock or WallClock()
        self._restarts = restarts
        self._clock_fd = self._statistics_fd = -1
        self._book = threading.Lock()  # of the next two: attaching and flipping may be two threads' work
        self._attachments: dict[int, KernelAttachment] = {}
        self._closing: dict[int, int] = {}  # flips that still have to pass before the slot is free
        self._map_fds: dict[str, int] = {}
        self._objects: dict[str, BpfObject] = {}  # by the name of an entry: where its instructions are
        self.flips = 0
        #: Attachments that agents before this one have made, until they are attached to or let go.
        self.adopted: list[KernelAttachment] = []
        self._past: dict[tuple[int, Hook], KernelAttachment] = {}
        self._recovered: list[Drain] = []
        self.payload_rings: tuple[BlockRing, ...] = ()
        self._payload_limit = payload_limit
        self._recent_lines = plan.lines  # most lines of late in use in a region
        try:
            if statistics:
                self._statistics_fd = enable_statistics()
            self._make_tables()
            if restarts:
                self._take_over(restarts)
        except BaseException:
            self.close()
            raise

    def _make_tables(self) -> None:
        plan = self.plan
        opened = self._programs.open()
        self._objects = dict.fromkeys(TC_PROGRAMS[1:], opened)
        variables = {m.name: m.offset for m in opened.btf.members(opened.btf.find(".data.control", KIND_DATASEC))}
        found: dict[str, int] = {}
        if self._restarts:
            found = self._restarts.find(plan, {name: opened.map_shape(name) for name in SHARED_MAPS}, variables)
            self._map_fds.update(found)
            if self._restarts.seed is not None:
                self._programs.set_seed(self._restarts.seed)
                opened.set_constants({"wm_shape": plan.shape(self._programs.seed)})
        for name, fd in found.items():
            opened.reuse_map(name, fd)
        opened.load(*TC_PROGRAMS, "wm_read_clock")
        for name in SHARED_MAPS if not found else ():
            self._map_fds[name] = opened.map_fd(name)
        self._put_meter(opened, "wm_meter_tc", "wm_tc_meter")
        self._clock_fd = opened.program_fd("wm_read_clock")
        control = map_memory(self._map_fds[".data.control"], mmap.PAGESIZE)
        self._epoch = np.frombuffer(control, "u4", 1, variables["wm_epoch"])
        self._clock_reading = np.frombuffer(control, records.CLOCK_READING, 1, variables["wm_clock"])
        self._test_packet = np.frombuffer(control, records.TEST_PACKET, 1, variables["wm_test_packet"])
        self._kernel_ahead_ns = self._measure_kernel_clock()
        tables = map_memory(self._map_fds["wm_tables"], 2 * plan.regions * plan.region_bytes)
        overflow = map_memory(self._map_fds["wm_overflow"], 2 * plan.overflow_bytes)
        self._regions = [
            [
                Region(plan, tables, (epoch * plan.regions + cpu) * plan.region_bytes, in_use=bool(found))
                for cpu in range(plan.regions)
            ]
            for epoch in (0, 1)
        ]
        self._overflow = [Region(plan, overflow, e * plan.overflow_bytes, counters_only=True) for e in (0, 1)]
        self._grace = GracePeriod()
        self.flip_requests = RingBuffer(self._map_fds["wm_events"])
        if self._payload_limit:
            self.payload_rings = tuple(
                BlockRing(self._map_fds[name], block_bytes=_BLOCK_BYTES, record_max=_LONGEST_RECORD)
                for name in PAYLOAD_RINGS
            )

    def _take_over(self, restarts: Restarts) -> None:
        """Goes on with what is pinned, in whatever state it was left; or pins what was made.

        First all that counts goes on to our programs and tables, each at once and without a gap. Then what is left in
        other tables, and in the half of ours that is not written, is read if it was not.
        """
        if restarts.seed is None:
            self._epoch[0] = restarts.first_flip
            restarts.made(self._map_fds, self._programs.seed)
            is_new = True
        else:
            is_new = False
        for number, noted in restarts.slots.items():
            self._adopt(restarts, number, noted)
        restarts.clean()
        self._grace.wait()
        restarts.read_older(self._tick_ns, self._clock_origin_ns(), self._clock.now_ns())
        before = int(self._epoch[0]) - 1
        if not is_new and before >= 0:
            if restarts.has(before):
                self._clear(before & 1)
            else:
                self._read_and_keep(before)
        self._recovered = [self._with_owners(*kept) for kept in restarts.waiting()]

    def _adopt(self, restarts: Restarts, number: int, noted: Slot) -> None:
        if number >= self.plan.attachments:
            log.warning("no room for what was attached", extra={"device": noted.hook.device})
            restarts.forget_slot(number)
            return
        attachment = self._attachments[number] = KernelAttachment(number, noted.hook, self._test_packet)
        attachment.is_adopted = True
        self.adopted.append(attachment)
        program_fd = -1
        try:
            self.prepare(noted.hook)
            program_fd = self._load(noted.hook, number)
            attachment.held_by = restarts.exchange(number, noted, program_fd)
        except WiremeterError as error:
            log.warning(
                "what an agent before this one attached cannot be taken over, and is attached anew",
                extra={"device": noted.hook.device, "direction": noted.hook.direction, "why": str(error)},
            )
        if attachment.held_by:
            attachment.program_fd = program_fd
            return
        if program_fd >= 0:
            os.close(program_fd)
        restarts.forget_slot(number)
        self._closing[number] = 2

    def _with_owners(self, drain: Drain, hooks: Mapping[int, Hook]) -> Drain:
        """A drain that was kept, with the attachments it is of: those there are now, or such as are no more."""
        owners: dict[int, KernelAttachment] = {}
        for slot, hook in hooks.items():
            now = self._attachments.get(slot)
            is_same = now is not None and replace(now.hook, device=hook.device) == hook
            owners[slot] = (
                now
                if now and is_same
                else self._past.setdefault((slot, hook), KernelAttachment(slot, hook, self._test_packet))
            )
        return replace(drain, owners=owners)

    def take_recovered(self) -> list[Drain]:
        """What agents before this one have read and not told, and what was left for them to read; oldest first."""
        recovered, self._recovered = self._recovered, []
        return recovered

    def told(self, mark: Mark) -> None:
        """All up to there was told: no agent after this one will tell it again."""
        if self._restarts:
            self._restarts.told(mark)

    @property
    def lasts(self) -> Lasts | None:
        """What is pinned; None where all of it ends with this process."""
        if self._restarts is None:
            return None
        return Lasts(self._restarts.tables, self._restarts.told_until_ns)

    def _put_meter(self, opened: BpfObject, meter: str, place: str) -> None:
        fd = opened.program_fd(meter)
        try:
            put_program(self._map_fds[place], fd)
        finally:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def table_bytes(self) -> int:
        """Memory of all tables."""
        return self.plan.bytes

    @property
    def attachments(self) -> Sequence[KernelAttachment]:
        """Those that are attached now."""
        with self._book:
            return [a for a in self._attachments.values() if a.slot not in self._closing]

    def prepare(self, hook: Hook) -> None:
        """Loads what `hook` needs and takes long to verify, if it is not there yet: may be called while flips go on.

        Raises as `attach`.
        """
        if hook.mode.startswith("xdp") and not _is_whole(hook) and "wm_xdp" not in self._objects:
            opened = self._programs.open(self._map_fds)
            try:
                opened.load(*XDP_PROGRAMS, with_frags=self._programs.with_frags)
                self._put_meter(opened, "wm_meter_xdp", "wm_xdp_meter")
            except BaseException:
                opened.close()
                raise
            self._objects["wm_xdp"] = opened

    def attach(self, hook: Hook) -> KernelAttachment:
        """Attaches a program to `hook`; at tcx before all others.

        With `load_only` it is on no device, for test runs. Raises KernelError, PermissionNeeded or VerifierError;
        InputError when all attachments the tables have room for are in use.
        """
        self.prepare(hook)
        if adopted := self._adopted_at(hook):
            return adopted
        attachment = self._reserve(hook)
        try:
            attachment.program_fd = self._load(hook, attachment.slot)
            attachment.held_by = self._hold(hook, attachment.program_fd)
            if self._restarts:
                self._restarts.keep(attachment)
        except BaseException:
            if self._restarts:
                self._restarts.drop(attachment)
            attachment.close()
            with self._book:
                del self._attachments[attachment.slot]
            if self._restarts:
                self._restarts.note_free(attachment.slot)
            raise
        return attachment

    def _adopted_at(self, hook: Hook) -> KernelAttachment | None:
        """What an agent before this one has attached there, in the same way. Another way of it is let go."""
        for attachment in self.attachments:
            there = attachment.hook
            if not attachment.is_adopted or (there.ifindex, there.direction) != (hook.ifindex, hook.direction):
                continue
            if replace(there, device=hook.device) == hook and attachment.is_attached():
                attachment.hook, attachment.is_adopted = hook, False
                return attachment
            self.release(attachment)
        return None

    def _reserve(self, hook: Hook) -> KernelAttachment:
        """Before anything counts for it: a flip meanwhile takes its counts too."""
        with self._book:
            free = next((i for i in range(self.plan.attachments) if i not in self._attachments), None)
            if free is None:
                raise InputError(
                    f"no room to meter {hook.device} {hook.direction}: the tables were made for "
                    f"{self.plan.attachments // 2} devices; ask for more with --max-devices"
                )
            attachment = self._attachments[free] = KernelAttachment(free, hook, self._test_packet)
        if self._restarts:
            self._restarts.note(attachment)
        return attachment

    def _load(self, hook: Hook, attachment_id: int) -> int:
        """A program for one attachment; its file descriptor."""
        identity = np.zeros(1, records.IDENTITY)[0]
        identity["attachment"] = attachment_id
        identity["has_ethernet"], identity["is_ingress"] = hook.l2_bytes > 0, hook.direction == "rx"
        if _is_whole(hook):
            return self._load_named("wm_xdp_vlan", {"wm_whole": identity}, bound_to=hook.ifindex)
        if hook.mode.startswith("xdp"):
            entry = "wm_xdp"
        else:
            entry = "wm_tc_ingress" if hook.direction == "rx" else "wm_tc_egress"
        return self._objects[entry].copy_program(entry, records.IDENTITY_MARK, int(identity.view("u4")))

    def _load_named(self, name: str, constants: dict[str, int | np.void], *, bound_to: int = 0) -> int:
        """Loads one program over the shared tables; returns its file descriptor."""
        with self._programs.open(self._map_fds, constants) as program:
            program.load(name, bound_to=bound_to, with_frags=self._programs.with_frags)
            return program.program_fd(name)

    @staticmethod
    def _hold(hook: Hook, program_fd: int) -> Link | ClsactFilter | None:
        what = f"attaching to {hook.device} ({hook.mode}, {hook.direction})"
        egress = hook.direction == "tx"
        if hook.load_only:
            return None
        match hook.mode:
            case "xdp":
                return Link(program_fd, hook.ifindex, XDP, XDP_FLAGS_DRIVER, what)
            case "xdp-generic":
                return Link(program_fd, hook.ifindex, XDP, XDP_FLAGS_SKB, what)
            case "tcx":
                return Link(program_fd, hook.ifindex, TCX_EGRESS if egress else TCX_INGRESS, BEFORE, what)
            case "clsact":
                return ClsactFilter(program_fd, hook.ifindex, egress, what)
            case "none" | "capture":
                return None

    def holds(self, attachment: KernelAttachment) -> bool:
        """Whether counts of `attachment` may still come."""
        return self._attachments.get(attachment.slot) is attachment

    def release(self, attachment: KernelAttachment) -> None:
        """Detaches; the slot stays taken until the second flip from now has read what the program still counted."""
        if self._restarts:
            self._restarts.drop(attachment)
        attachment.detach()
        with self._book:
            self._closing[attachment.slot] = 2

    def flip(self, turned: Callable[[], None] | None = None) -> Drain:
        """Turns the programs to the other half of the tables, waits until none writes this one, takes and clears it.

        turned: called as soon as they write the other half.
        """
        started = time.monotonic()
        flip = int(self._epoch[0])
        epoch = flip & 1
        for region in self._regions[epoch ^ 1]:
            region.spread(spread_for(self._recent_lines, self.plan.lines))
        self._epoch[0] = flip + 1
        if turned:
            turned()
        self._grace.wait()
        read_from = time.monotonic()
        drain = self._read_and_keep(flip) if self._restarts else self._read(epoch)
        drain.grace_seconds = read_from - started
        drain.drain_seconds = time.monotonic() - read_from
        self._recent_lines = max(drain.peak_lines, self._recent_lines // 2)
        self.flips += 1
        # A run that began before a program was detached may have read the epoch after this turned it: what it counted
        # comes with the next flip, and only then can nothing come any more.
        with self._book:
            ended = [self._attachments[at] for at, left in self._closing.items() if left == 1]
        for attachment in ended if self._restarts else ():
            self._restarts.note_free(attachment.slot)  # type: ignore[union-attr]
        with self._book:
            for attachment in ended:
                del self._attachments[attachment.slot]
            self._closing = {at: 1 for at, left in self._closing.items() if left == 2}
        for attachment in ended:
            attachment.close()
        return drain

    def _read_and_keep(self, flip: int) -> Drain:
        """In this order: who is killed in between leaves to the next agent what it needs to do neither too little nor
        anything twice. Nothing is cleared before it is kept."""
        assert self._restarts
        drain = self._read(flip & 1, keep=True)
        drain.flip, drain.ended_ns = flip, self._clock.now_ns()
        owners = cast("Mapping[int, KernelAttachment]", drain.owners)
        self._restarts.put(drain, {slot: owner.hook for slot, owner in owners.items()})
        self._clear(flip & 1)
        return drain

    def _clear(self, epoch: int) -> None:
        for region in (*self._regions[epoch], self._overflow[epoch]):
            region.clear()

    def take_payloads(self, ring: BlockRing) -> PayloadBlock:
        """The oldest payloads that wait in one of `payload_rings`, not all if they are many; none: no offsets."""
        data, offsets = ring.take()
        return PayloadBlock(data, offsets, 0 if self._tick_ns == 1 else self._clock.offset_ns - self._kernel_ahead_ns)

    def _read(self, epoch: int, *, keep: bool = False) -> Drain:
        counters = np.zeros((self.plan.attachments, records.ROWS, 3), np.uint64)
        with self._book:
            owners = dict(self._attachments)
        in_use = np.fromiter(owners, np.intp)
        origin_ns = self._clock_origin_ns()
        flows: list[NDArray[np.void]] = []
        ethertypes: list[NDArray[np.void]] = []
        payloads, lost_payloads = np.zeros((2, len(records.SOURCES)), np.uint64)
        peak_lines = 0
        for region in self._regions[epoch]:
            region.add_counters(counters, in_use, keep=keep)
            region.add_payload_counts(payloads, lost_payloads, keep=keep)
            peak_lines = max(peak_lines, region.lines_used)
            if not region.lines_used:
                continue
            rows, kinds = region.take_rows(self._tick_ns, origin_ns, keep=keep)
            flows.append(rows)
            ethertypes.append(kinds)
        self._overflow[epoch].add_counters(counters, in_use, keep=keep)
        return Drain(
            counters=counters,
            flows=flows,
            ethertypes=np.concatenate(ethertypes) if ethertypes else np.zeros(0, ETHERTYPE_COUNTER),
            payloads=payloads,
            lost_payloads=lost_payloads,
            peak_lines=peak_lines,
            owners=owners,
        )

    def _clock_origin_ns(self) -> int:
        """When the engine's clock stood at 0, in nanoseconds since the Unix epoch, modulo 2^64; good to one tick."""
        if self._tick_ns == 1:
            return 0
        read_ns = self._read_kernel_clock() - self._kernel_ahead_ns + self._clock.offset_ns
        return (read_ns - int(self._clock_reading["ticks"][0]) * self._tick_ns) % (1 << 64)

    def _read_kernel_clock(self) -> int:
        """The monotonic clock as programs see it."""
        run_program(self._clock_fd, bytes(64))
        return int(self._clock_reading["monotonic_ns"][0])

    def _measure_kernel_clock(self) -> int:
        """By how much the kernel's monotonic clock is ahead of this process's: not at all, unless the process is in a
        time namespace (time_namespaces(7)), where it stays for life."""
        ahead_ns = best_offset(time.monotonic_ns, self._read_kernel_clock)
        return ahead_ns if abs(ahead_ns) >= STEP_NS else 0

    def close(self) -> None:
        """Detaches everything and frees the tables; what is pinned stays. A second call does nothing."""
        for attachment in self._attachments.values():
            attachment.close(stays=self._restarts is not None)
        self._attachments.clear()
        self._closing.clear()
        for ring in self.payload_rings:
            ring.close()
        for opened in self._objects.values():
            opened.close()
        self._objects.clear()
        for name in ("flip_requests", "_grace"):
            if hasattr(self, name):
                getattr(self, name).close()
                delattr(self, name)
        # The views hold the mappings; without them the memory goes back when the descriptors are closed.
        self._regions, self._overflow = [], []
        self._epoch, self._clock_reading = np.zeros(1, "u4"), np.zeros(1, records.CLOCK_READING)
        self._test_packet = np.zeros(1, records.TEST_PACKET)
        for fd in (*self._map_fds.values(), self._clock_fd, self._statistics_fd):
            if fd >= 0:
                os.close(fd)
        self._map_fds.clear()
        self._clock_fd = self._statistics_fd = -1
