"""The capture engine: `--attach capture`, live devices through packet sockets into the host engine.

The old way of metering, done as well as it can be: the kernel copies the head of every packet into a ring (AF_PACKET,
TPACKET_V3), and this process reads it there. It is for hosts where BPF is not allowed, since it needs CAP_NET_RAW
and nothing else. It costs several times as much, and what finds the ring full is lost, and counted as lost.

To Monitor it is what KernelEngine is: it attaches, flips, and asks for a flip when its table fills.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from wiremeter.datapath import records
from wiremeter.datapath.drain import Drain
from wiremeter.datapath.engine import Hook, ProgramInfo
from wiremeter.datapath.host import HostEngine
from wiremeter.datapath.layout import CAPTURE_RING_BYTES, RING_BYTES, TablePlan
from wiremeter.datapath.packet_ring import BLOCK_TIMEOUT_MS, PacketRing
from wiremeter.errors import InputError, KernelError
from wiremeter.flows.batch import Mark
from wiremeter.names.payloads import PayloadBlock

#: Bytes kept of each packet: Ethernet, tags, IPv6 with some extension headers or a tunnel, TCP with options.
HEADER_BYTES = 192
_SOURCE_AT = records.PAYLOAD.fields["source"][1]  # type: ignore[index]
#: The kernel hands a block over after two timeouts at most; its timers are as coarse as its tick.
_SETTLE_SECONDS = 2 * BLOCK_TIMEOUT_MS / 1e3 + 0.02
_LOOK_SECONDS = 0.001


class CaptureAttachment:
    """One packet socket: a device in one direction. Its slot is where the table counts for it."""

    def __init__(self, slot: int, hook: Hook, ring: PacketRing) -> None:
        self.slot = slot
        self.hook = hook
        self.ring = ring

    def is_first(self) -> bool:
        """Always: packet sockets stand in nobody's way, and nobody in theirs."""
        return True

    def is_attached(self) -> bool:
        """Whether the socket is still on the device that bore the ifindex when it was opened."""
        return self.ring.ifindex == self.hook.ifindex

    def info(self) -> ProgramInfo:
        """Raises InputError: there is no program."""
        raise InputError("--attach capture runs no program that could be timed")


class PayloadQueue:
    """Payloads between counting, which must not wait for anyone, and reading them: copies, within a bound."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._blocks: deque[PayloadBlock] = deque()
        self._bytes = 0
        self._lost = np.zeros(len(records.SOURCES), np.uint64)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        """Readable while there are any."""
        return self._wake

    def put(self, block: PayloadBlock) -> None:
        """Keeps a block that is valid only now; without room it counts as lost."""
        data = np.frombuffer(block.data, np.uint8)
        if self._bytes + len(data) > self._most_bytes:
            sources = data[block.offsets + np.uint64(_SOURCE_AT)]
            self._lost += np.bincount(sources, minlength=len(self._lost)).astype(np.uint64)
            return
        self._blocks.append(PayloadBlock(data.copy(), block.offsets.copy()))
        self._bytes += len(data)
        os.eventfd_write(self._wake, 1)

    def take(self) -> PayloadBlock:
        """The oldest block; an empty one where there is none."""
        if not self._blocks:
            return PayloadBlock(b"", np.zeros(0, np.uint64))
        block = self._blocks.popleft()
        self._bytes -= len(block.data)
        if not self._blocks:
            os.eventfd_read(self._wake)
        return block

    def take_lost(self) -> NDArray[np.uint64]:
        """Payloads lost since the last call, by records.SOURCES."""
        lost, self._lost = self._lost, np.zeros_like(self._lost)
        return lost

    def close(self) -> None:
        """Frees what it holds."""
        self._blocks.clear()
        os.close(self._wake)


class CaptureEngine:
    """A table in this process's memory and the packet sockets that fill it. One thread may attach as another flips."""

    def __init__(
        self,
        plan: TablePlan,
        *,
        ring_bytes: int = CAPTURE_RING_BYTES,
        payload_limit: int = 0,
        payload_sources: Collection[str] = records.SOURCES,
    ) -> None:
        """Makes the table.

        plan: of its regions and epochs only one is made. ring_bytes: memory of each direction of a device, a multiple
        of 1 MiB. payload_limit: bytes of a packet's payload to keep at most, where a name may be read from it; 0:
        none is looked at. payload_sources: of records.SOURCES, those to keep.
        """
        self.plan = plan
        self._payloads = PayloadQueue(RING_BYTES if payload_limit else 0)
        self._host = HostEngine(
            plan,
            payload_limit=payload_limit,
            payload_sources=payload_sources,
            on_payloads=self._payloads.put if payload_limit else None,
        )
        #: As KernelEngine's: where payloads wait for `take_payloads`.
        self.payload_rings = (self._payloads,) if payload_limit else ()
        self._snap_bytes, self._ring_bytes = HEADER_BYTES + payload_limit, ring_bytes
        self._turn = threading.Lock()
        self._attachments: dict[int, CaptureAttachment] = {}
        self._closing: set[int] = set()
        self._free: list[int] = []
        self._waiting = select.epoll()
        self._is_full = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    #: Nothing of packet sockets outlives the process.
    lasts = None
    adopted: Sequence[CaptureAttachment] = ()

    def take_recovered(self) -> list[Drain]:
        """Nothing."""
        return []

    def told(self, mark: Mark) -> None:
        """Nothing to do."""

    @property
    def flip_requests(self) -> Self:
        """What Monitor waits for: readable when packets are there, and `take` says whether the table is full."""
        return self

    @property
    def flips(self) -> int:
        """How often the table was read and cleared."""
        return self._host.flips

    @property
    def table_bytes(self) -> int:
        """Memory of the table and of the rings there are now."""
        return self.plan.region_bytes + len(self._attachments) * self._ring_bytes

    @property
    def attachments(self) -> Sequence[CaptureAttachment]:
        """Those that count now."""
        return [a for a in self._attachments.values() if a.slot not in self._closing]

    def fileno(self) -> int:
        """Readable when a ring has packets."""
        return self._waiting.fileno()

    def attach(self, hook: Hook) -> CaptureAttachment:
        """Opens a socket for `hook`.

        Raises PermissionNeeded or KernelError; InputError when the table has no room for another.
        """
        ring = PacketRing(
            hook.device,
            hook.ifindex,
            hook.direction,
            ethernet=hook.l2_bytes > 0,
            snap_bytes=self._snap_bytes,
            ring_bytes=self._ring_bytes,
        )
        try:
            with self._turn:
                slot = self._free.pop() if self._free else self._host.attach(hook.device, hook.direction)
                try:
                    self._waiting.register(ring, select.EPOLLIN)
                except OSError as error:
                    self._free.append(slot)
                    what = f"waiting for packets of {hook.device}: {error.strerror}"
                    raise KernelError(what, call="epoll_ctl", errno=error.errno or 0) from error
                attachment = self._attachments[slot] = CaptureAttachment(slot, hook, ring)
        except BaseException:
            ring.close()
            raise
        return attachment

    def prepare(self, hook: Hook) -> None:
        """As KernelEngine's: here nothing takes long."""

    def holds(self, attachment: CaptureAttachment) -> bool:
        """Whether counts of `attachment` may still come."""
        return self._attachments.get(attachment.slot) is attachment

    def release(self, attachment: CaptureAttachment) -> None:
        """Lets go; the next flip takes what its ring still holds and closes it."""
        with self._turn:
            self._closing.add(attachment.slot)

    def take(self) -> bool:
        """Counts what has come; True if the table filled up meanwhile, so that a flip is due before the rest."""
        with self._turn:
            by_fd = {attachment.ring.fileno(): attachment for attachment in self._attachments.values()}
            for fd, events in self._waiting.poll(0):
                if events & select.EPOLLERR:
                    by_fd[fd].ring.take_error()  # the device went down, or is gone: the tracker will see to it
                # No more than there is now, or whoever waits for us would wait as long as packets come.
                if not self._count(by_fd[fd], time.time_ns()):
                    return True
            return False

    def flip(self, turned: Callable[[], None] | None = None) -> Drain:
        """All that came before now, each frame by its time; what comes later belongs to the next flip.

        turned: called now.

        Frames that the kernel still holds back in a block that is not full are waited for, some 20 ms.
        """
        with self._turn:
            return self._flip(turned)

    def _flip(self, turned: Callable[[], None] | None) -> Drain:
        started, until_ns = time.monotonic(), time.time_ns()
        if turned:
            turned()
        early: list[Drain] = []
        dropped: dict[int, int] = {}
        for attachment in self._attachments.values():
            while not self._count(attachment, until_ns) or self._is_late(attachment, started):
                if self._is_full:
                    early.append(self._host.flip())
                else:
                    time.sleep(_LOOK_SECONDS)
            if found := attachment.ring.take_drops():
                dropped[attachment.slot] = found
        counted = time.monotonic()
        drain = self._host.flip()
        for more in early:
            _add(drain, more)
        drain.dropped = dropped
        lost = self._payloads.take_lost()
        drain.payloads -= lost
        drain.lost_payloads += lost
        drain.owners = dict(self._attachments)
        drain.grace_seconds = counted - started
        for slot in self._closing:
            self._attachments.pop(slot).ring.close()
            self._free.append(slot)
        self._closing.clear()
        return drain

    def _is_late(self, attachment: CaptureAttachment, started: float) -> bool:
        """Whether the kernel still holds frames back that may be older than a flip that began at `started`."""
        ring = attachment.ring
        return not ring.is_ours() and not ring.is_empty() and time.monotonic() - started < _SETTLE_SECONDS

    def _count(self, attachment: CaptureAttachment, until_ns: int) -> bool:
        """Counts the frames that have been handed over, up to a time; False where a flip is due before the rest."""
        ring = attachment.ring
        while (frames := ring.read(until_ns)) is not None:
            counted = self._host.count(attachment.slot, *frames)
            ring.advance(counted)
            if counted < len(frames):
                self._is_full = True
                return False
        self._is_full = False
        return True

    def take_payloads(self, ring: PayloadQueue) -> PayloadBlock:
        """The oldest payloads that wait, not all if they are many; none: no offsets."""
        return ring.take()

    def close(self) -> None:
        """Closes the sockets and frees the table. A second call does nothing."""
        if self._waiting.closed:
            return
        self._payloads.close()
        for attachment in self._attachments.values():
            attachment.ring.close()
        self._attachments.clear()
        self._closing.clear()
        self._waiting.close()


def _add(drain: Drain, more: Drain) -> None:
    """Adds what another flip of the same engine brought."""
    drain.counters += more.counters
    drain.flows += more.flows
    drain.payloads += more.payloads
    drain.lost_payloads += more.lost_payloads
    drain.ethertypes = np.concatenate((drain.ethertypes, more.ethertypes))
    drain.peak_lines = max(drain.peak_lines, more.peak_lines)
    drain.drain_seconds += more.drain_seconds
