"""Ring buffers: records that programs send to user space."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wiremeter.errors import KernelError, PermissionNeeded
from wiremeter.libbpf._ffi import ffi, lib, messages, refusal


@ffi.def_extern()  # type: ignore[untyped-decorator,unused-ignore]
def wm_ring_record(context: Any, data: Any, size: int) -> int:
    ffi.from_handle(context).append(bytes(ffi.buffer(data, size)))
    return 0


#: Records that BlockRing.take() gives at once at most.
BLOCK_RECORDS = 512


def _not_opened() -> KernelError | PermissionNeeded:
    number, said = ffi.errno, messages()
    return refusal(f"opening a ring buffer: {os.strerror(number)} ({said})", "ring_buffer__new", number)


class RingBuffer:
    """The reading end of one ring buffer map; `fileno()` is readable when there is something to take."""

    def __init__(self, map_fd: int) -> None:
        self._records: list[bytes] = []
        self._handle = ffi.new_handle(self._records)
        self._ring = lib.wm_ring_open(map_fd, self._handle)
        if self._ring == ffi.NULL:
            raise _not_opened()

    def fileno(self) -> int:
        """For select and epoll."""
        return int(lib.ring_buffer__epoll_fd(self._ring))

    def take(self) -> list[bytes]:
        """All records that are there now, oldest first; never waits."""
        lib.ring_buffer__consume(self._ring)
        taken = list(self._records)
        self._records.clear()
        return taken

    def close(self) -> None:
        """Frees the ring. A second call does nothing."""
        if self._ring != ffi.NULL:
            lib.ring_buffer__free(self._ring)
            self._ring = ffi.NULL


class BlockRing:
    """The reading end of a ring buffer map of many records: they are taken by the block, in C."""

    def __init__(self, map_fd: int, *, block_bytes: int, record_max: int) -> None:
        """block_bytes: of records taken at once. record_max: bytes of the longest record, at most block_bytes."""
        self._data = np.empty(block_bytes, np.uint8)
        self._offsets = np.empty(BLOCK_RECORDS, np.uint64)
        self._block = ffi.new("struct wm_ring_block *")
        self._block.data = ffi.from_buffer("uint8_t[]", self._data)
        self._block.capacity = block_bytes
        self._block.offsets = ffi.from_buffer("uint64_t[]", self._offsets)
        self._block.offsets_capacity = BLOCK_RECORDS
        self._block.record_max = record_max
        self._ring = lib.wm_block_ring_open(map_fd, self._block)
        if self._ring == ffi.NULL:
            raise _not_opened()

    def fileno(self) -> int:
        """For select and epoll."""
        return int(lib.ring_buffer__epoll_fd(self._ring))

    def take(self) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
        """The oldest records that are there now, as the bytes they lie in and where each begins; never waits.

        Both are valid until the next call. No offsets: there was none.
        """
        self._block.used = self._block.count = 0
        lib.ring_buffer__consume(self._ring)
        return self._data[: self._block.used], self._offsets[: self._block.count]

    def close(self) -> None:
        """Frees the ring. A second call does nothing."""
        if self._ring != ffi.NULL:
            lib.ring_buffer__free(self._ring)
            self._ring = ffi.NULL
