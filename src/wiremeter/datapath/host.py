"""The host engine: the kernel's datapath over plain memory, without privileges, on any operating system."""

from __future__ import annotations

import mmap
import secrets
import time
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wiremeter.datapath import records
from wiremeter.datapath.drain import Drain
from wiremeter.datapath.layout import TablePlan, spread_for
from wiremeter.datapath.regions import Region
from wiremeter.errors import InputError
from wiremeter.flows.columns import ETHERTYPE_COUNTER, Direction
from wiremeter.names.payloads import PayloadBlock

try:
    from wiremeter.datapath._host import ffi, lib  # type: ignore[import-not-found,unused-ignore]
except ImportError as error:  # pragma: no cover - only without a build
    raise InputError(f"the host engine is not built ({error}): run `make build`, or `pip install .`") from error

#: In `links`: the frame begins with an Ethernet header. Any other number is the ethertype of one that does not.
LINK_ETHERNET: int = lib.WM_LINK_ETHERNET

#: What the kernel had done to a frame before it was seen (struct wm_host_offload): the VLAN tag that it took off, as
#: 0x1000 | id, or 0; of a super-packet the bytes of one segment's payload, where the innermost L4 header is (0: not
#: known), and what the segments are (enum wm_segments).
OFFLOAD = np.dtype([("vlan", "u2"), ("gso_size", "u2"), ("l4_at", "u2"), ("segments_are", "u2")])

_BLOCK_BYTES = 1 << 18
_BLOCK_RECORDS = 4096


class HostEngine:
    """One table in this process's memory and the parser that fills it. Not to be used by two threads at once."""

    def __init__(
        self,
        plan: TablePlan,
        *,
        seed: int | None = None,
        payload_limit: int = 0,
        payload_sources: Collection[str] = records.SOURCES,
        on_payloads: Callable[[PayloadBlock], None] | None = None,
    ) -> None:
        """Makes the table; its memory is taken as it is used, and few flows use little of it.

        plan: of its regions only one is made: one thread counts, and a flip reads and clears at once.
        seed: of the hash, 64 bits; the same gives the same places, and rows that merge with another engine's.
        payload_limit: bytes of a packet's payload that `on_payloads` gets at most, where a name may be read from it; 0:
        none is looked at. payload_sources: of records.SOURCES, those to keep. on_payloads: called by `count`, with a
        block that is valid during the call.
        """
        self.plan = plan
        self.flips = 0
        self._memory = mmap.mmap(-1, plan.region_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._region = Region(plan, self._memory, 0)
        self._recent_lines = 0  # most lines of late in use
        self._region.spread(spread_for(0, plan.lines))
        self._region_at = ffi.from_buffer(self._memory)
        self._shape = np.array(plan.shape(secrets.randbits(64) if seed is None else seed))
        self._shape_at = ffi.cast("struct wm_table_shape *", self._shape.ctypes.data)
        self._stop = ffi.new("enum wm_host_stop *")
        self._payloads = ffi.NULL
        self._on_payloads = on_payloads
        if payload_limit and on_payloads:
            self._make_payloads(payload_limit, payload_sources)
        self._slots = 0

    def _make_payloads(self, limit: int, sources: Collection[str]) -> None:
        self._recent = np.zeros(1, records.RECENT)
        self._payload_data = np.empty(_BLOCK_BYTES, np.uint8)
        self._payload_offsets = np.empty(_BLOCK_RECORDS, np.uint64)
        self._payloads = ffi.new(
            "struct wm_host_payloads *",
            {
                "recent": ffi.cast("struct wm_recent *", self._recent.ctypes.data),
                "limit": limit,
                "sources": records.source_bits(sources),
                "data": ffi.from_buffer("uint8_t[]", self._payload_data),
                "capacity": _BLOCK_BYTES,
                "offsets": ffi.from_buffer("uint64_t[]", self._payload_offsets),
                "offsets_capacity": _BLOCK_RECORDS,
            },
        )

    def _deliver_payloads(self) -> None:
        if self._payloads == ffi.NULL or not self._payloads.count:
            return
        block = PayloadBlock(self._payload_data[: self._payloads.used], self._payload_offsets[: self._payloads.count])
        self._payloads.used = self._payloads.count = 0
        assert self._on_payloads
        self._on_payloads(block)

    def attach(self, device: str, direction: Direction = "rx") -> int:
        """A new slot for frames of one device and direction; returns its number.

        Raises InputError when all slots that the plan has are in use.
        """
        if self._slots == self.plan.attachments:
            raise InputError(
                f"no room to meter {device} {direction}: the table was planned for {self.plan.attachments} "
                "devices and directions"
            )
        self._slots += 1
        return self._slots - 1

    def count(
        self,
        slot: int,
        data: Any,
        offsets: NDArray[np.uint64],
        captured: NDArray[np.uint32],
        wire: NDArray[np.uint32],
        times_ns: NDArray[np.uint64],
        links: NDArray[np.uint32] | None = None,
        offloads: NDArray[np.void] | None = None,
    ) -> int:
        """Counts frames that lie in `data`, in order; returns how many, from the first on.

        data: a C-contiguous buffer. The arrays have shape (n,): where each frame begins, its bytes that are there and
        those it had on the wire (link-layer header included), its time in nanoseconds since the Unix epoch, and
        LINK_ETHERNET or, for frames that begin with their network header, the ethertype (also ETHERTYPE_LLC and
        ETHERTYPE_NONE). offloads, dtype OFFLOAD: what the kernel had done to each; None: nothing.
        Fewer than n where a flip is due: flip, and go on with the next one, so that none ever finds no room. After a
        flip the flows are spread over more of the table.
        Raises InputError for a slot that is not attached, arrays of other lengths or types, and a frame that does not
        lie in `data`; those before it are counted.
        """
        if not 0 <= slot < self._slots:
            raise InputError(f"slot {slot} is not attached; there are {self._slots}")
        frames = ffi.new(
            "struct wm_host_frames *",
            {
                "count": len(offsets),
                "data": ffi.from_buffer("uint8_t[]", data),
                "data_bytes": memoryview(data).nbytes,
                "offsets": _column("uint64_t", "offsets", offsets, "u8", len(offsets)),
                "captured": _column("uint32_t", "captured", captured, "u4", len(offsets)),
                "wire": _column("uint32_t", "wire", wire, "u4", len(offsets)),
                "times_ns": _column("uint64_t", "times_ns", times_ns, "u8", len(offsets)),
                "links": ffi.NULL if links is None else _column("uint32_t", "links", links, "u4", len(offsets)),
                "offloads": ffi.NULL
                if offloads is None
                else _column("struct wm_host_offload", "offloads", offloads, OFFLOAD, len(offsets)),
            },
        )
        if self._payloads != ffi.NULL:
            self._payloads.attachment = slot
        counted, self._stop[0] = 0, lib.WM_HOST_PAYLOADS_DUE
        while self._stop[0] == lib.WM_HOST_PAYLOADS_DUE:
            counted = int(
                lib.wm_host_count(self._region_at, self._shape_at, slot, frames, counted, self._payloads, self._stop)
            )
            self._deliver_payloads()
        if self._stop[0] == lib.WM_HOST_OUTSIDE_DATA:
            raise InputError(
                f"frame {counted} has {captured[counted]} bytes from {offsets[counted]} on; "
                f"the data end at {memoryview(data).nbytes}"
            )
        return counted

    def flip(self) -> Drain:
        """Takes all that was counted since the last flip, and clears the table."""
        started = time.monotonic()
        drain = Drain(
            counters=np.zeros((self.plan.attachments, records.ROWS, 3), np.uint64),
            flows=[],
            ethertypes=np.zeros(0, ETHERTYPE_COUNTER),
            peak_lines=self._region.lines_used,
        )
        self._region.add_counters(drain.counters, np.arange(self._slots))
        self._region.add_payload_counts(drain.payloads, drain.lost_payloads)
        if drain.peak_lines:
            flows, drain.ethertypes = self._region.take_rows()
            drain.flows.append(flows)
        self._recent_lines = max(drain.peak_lines, self._recent_lines // 2)
        self._region.spread(spread_for(self._recent_lines, self.plan.lines))
        self.flips += 1
        drain.drain_seconds = time.monotonic() - started
        return drain


def _column(c_type: str, name: str, values: NDArray[Any], dtype: str | np.dtype[Any], length: int) -> Any:
    """A C pointer to `values`, which must be what C takes them for."""
    if values.dtype != np.dtype(dtype) or values.shape != (length,) or not values.flags.c_contiguous:
        raise InputError(
            f"{name} has dtype {values.dtype} and shape {values.shape}; expected {np.dtype(dtype)}, ({length},), "
            "in one piece"
        )
    return ffi.from_buffer(f"{c_type}[]", values)
