"""Ring buffers: records that programs send to user space."""

from __future__ import annotations

from typing import Any

from wiremeter.errors import KernelError
from wiremeter.libbpf._ffi import ffi, lib, messages


@ffi.def_extern()  # type: ignore[untyped-decorator,unused-ignore]
def wm_ring_record(context: Any, data: Any, size: int) -> int:
    ffi.from_handle(context).append(bytes(ffi.buffer(data, size)))
    return 0


class RingBuffer:
    """The reading end of one ring buffer map; `fileno()` is readable when there is something to take."""

    def __init__(self, map_fd: int) -> None:
        self._records: list[bytes] = []
        self._handle = ffi.new_handle(self._records)
        self._ring = lib.wm_ring_open(map_fd, self._handle)
        if self._ring == ffi.NULL:
            raise KernelError(f"opening a ring buffer failed: {messages()}", call="ring_buffer__new", errno=ffi.errno)

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
