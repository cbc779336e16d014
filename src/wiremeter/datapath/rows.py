"""Rows of flows: taken out of a region, and those of several merged into one row a flow. In C: bpf/host/rows.c."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wiremeter.errors import InputError
from wiremeter.flows.columns import ETHERTYPE_COUNTER, FLOW

try:
    from wiremeter.datapath._host import ffi, lib  # type: ignore[import-not-found,unused-ignore]
except ImportError as error:  # pragma: no cover - only without a build
    raise InputError(f"the host library is not built ({error}): run `make build`, or `pip install .`") from error

#: Who sends packets must not be able to make two conversations look alike.
_HASH_KEYS = ffi.new("uint64_t[]", [secrets.randbits(64) for _ in range(lib.WM_ROWS_HASH_KEYS)])


def conversation_hashes(rows: NDArray[np.void]) -> NDArray[np.uint64]:
    """A number for each row of dtype FLOW that both flows of a conversation share, on whatever device. Shape (n,).

    By addresses, ports and protocol; the same throughout this process.
    """
    contiguous = np.ascontiguousarray(rows)
    hashes = np.empty(len(rows), np.uint64)
    lib.wm_rows_conversation_hashes(
        ffi.cast("struct wm_flow_row *", contiguous.ctypes.data),
        len(rows),
        _HASH_KEYS,
        ffi.cast("uint64_t *", hashes.ctypes.data),
    )
    return hashes


def tally_rows(rows: NDArray[np.void], attachments: int) -> NDArray[np.uint64]:
    """Sums of rows of dtype FLOW by attachment. Returns shape (attachments, 3): packets, bytes, skbs."""
    contiguous = np.ascontiguousarray(rows)
    sums = np.zeros((attachments, 3), np.uint64)
    lib.wm_rows_tally(
        ffi.cast("struct wm_flow_row *", contiguous.ctypes.data),
        len(rows),
        ffi.cast("uint64_t *", sums.ctypes.data),
        attachments,
    )
    return sums


def take_rows(
    region: Any, shape: NDArray[np.void], entries: int, tick_ns: int, origin_ns: int, *, keep: bool = False
) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """Every entry of a region, which is left empty, unless `keep`.

    region: the memory from the region's header on. shape: one element of records.TABLE_SHAPE. entries: what its header
    says. A time of the engine's clock `t` becomes origin_ns + t × tick_ns, modulo 2^64.
    Returns (flows, ethertypes) of dtypes FLOW and ETHERTYPE_COUNTER.
    """
    flows, ethertypes = np.empty(entries, FLOW), np.empty(entries, ETHERTYPE_COUNTER)
    taken = lib.wm_rows_take(
        ffi.from_buffer(region),
        ffi.cast("struct wm_table_shape *", shape.ctypes.data),
        ffi.cast("struct wm_flow_row *", flows.ctypes.data),
        ffi.cast("struct wm_ethertype_row *", ethertypes.ctypes.data),
        tick_ns,
        origin_ns,
        keep,
    )
    return flows[: taken.flows], ethertypes[: taken.ethertypes].copy()


def clear(region: Any, shape: NDArray[np.void], attachments: int, *, with_lines: bool = True) -> None:
    """Leaves a region empty: counters first, entries last, so that it can be done again by who finds it half done."""
    lib.wm_counters_clear(ffi.from_buffer(region), attachments)
    if with_lines:
        lib.wm_rows_clear(ffi.from_buffer(region), ffi.cast("struct wm_table_shape *", shape.ctypes.data))


def take_counters(
    region: Any, attachments: NDArray[np.integer[Any]], sums: NDArray[np.uint64], *, keep: bool = False
) -> None:
    """Adds a region's counters of some attachments to `sums`, shape (all attachments, records.ROWS, 3); leaves 0,
    unless `keep`.

    region: the memory from the region's header on.
    """
    numbers = attachments.astype(np.uint32)
    lib.wm_counters_take(
        ffi.from_buffer(region),
        ffi.cast("uint32_t *", numbers.ctypes.data),
        len(numbers),
        ffi.cast("uint64_t *", sums.ctypes.data),
        keep,
    )


class Part(NamedTuple):
    """Rows of dtype FLOW, and the place in the batch for each slot that their `attachment` names; None: the same."""

    rows: NDArray[np.void]
    places: NDArray[np.uint16] | None = None


def merge_parts(parts: Sequence[Part]) -> NDArray[np.void]:
    """All rows of `parts`, at their places, with rows of the same flow added up.

    parts: without two rows of one flow in the same part. Returns shape (n,), dtype FLOW: packets,
    bytes and skbs summed, first_ns the least, last_ns the greatest, tcp_flags ORed; in order of appearance.
    Equal flows must carry equal hashes; different flows may share one. The input is not changed; it may be returned.
    """
    filled = [part for part in parts if len(part.rows)]
    if not filled:
        return np.zeros(0, FLOW)
    if len(filled) == 1 and filled[0].places is None:
        return filled[0].rows
    rows: NDArray[np.void] = _joined(filled)
    if len(filled) == 1:
        return rows
    places = 1 << (2 * len(rows) - 1).bit_length()
    index = np.zeros(places, np.uint64)
    kept = lib.wm_rows_merge(
        ffi.cast("struct wm_flow_row *", rows.ctypes.data),
        len(rows),
        ffi.cast("uint64_t *", index.ctypes.data),
        places - 1,
    )
    return rows[:kept]


def _joined(parts: Sequence[Part]) -> NDArray[np.void]:
    """All parts in one array. NumPy would keep other threads waiting meanwhile, one that serves filling tables too."""
    rows = np.empty(sum(len(part.rows) for part in parts), FLOW)
    at = 0
    for part in parts:
        source = np.ascontiguousarray(part.rows)
        lib.wm_rows_copy(
            ffi.cast("struct wm_flow_row *", rows[at:].ctypes.data),
            ffi.cast("struct wm_flow_row *", source.ctypes.data),
            len(source),
            ffi.NULL if part.places is None else ffi.cast("uint16_t *", part.places.ctypes.data),
        )
        at += len(source)
    return rows
