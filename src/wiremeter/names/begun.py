"""When flows began, beyond the interval that their rows are of: bounded memory of conversations, in C (began.c)."""

from __future__ import annotations

import mmap

import numpy as np
from numpy.typing import NDArray

from wiremeter.names.library import ffi, lib

#: Conversations that are remembered, 16 bytes each.
CONVERSATIONS_MAX = 1 << 17


class Begun:
    """Remembers conversations by hash; of more than find room, those not seen for the longest time are forgotten, and
    begin when they are seen next."""

    def __init__(self) -> None:
        self._sets = CONVERSATIONS_MAX // lib.WM_BEGAN_WAYS
        # The system gives it as it is used, and full of zeros.
        self._memory = mmap.mmap(-1, CONVERSATIONS_MAX * 16)
        self._round = 0

    def next_round(self) -> None:
        """Another interval's flows come."""
        self._round += 1

    def of(
        self, first_ns: NDArray[np.uint64], is_new: NDArray[np.bool_], hashes: NDArray[np.uint64]
    ) -> NDArray[np.int64]:
        """When each flow was first seen, shape (n,), nanoseconds.

        first_ns: of this interval. is_new: it began in this interval, since its SYN was seen. hashes: of their
        conversations, on whatever device. All of shape (n,).
        """
        first_ns, is_new = np.ascontiguousarray(first_ns), np.ascontiguousarray(is_new)
        hashes = np.ascontiguousarray(hashes)
        began_ns = np.empty(len(first_ns), np.uint64)
        lib.wm_began_find(
            ffi.cast("struct wm_began_set *", ffi.from_buffer(self._memory)),
            self._sets - 1,
            self._round,
            ffi.cast("uint64_t *", hashes.ctypes.data),
            ffi.cast("uint64_t *", first_ns.ctypes.data),
            ffi.cast("uint8_t *", is_new.ctypes.data),
            len(first_ns),
            ffi.cast("uint64_t *", began_ns.ctypes.data),
        )
        return np.minimum(began_ns, (1 << 62) - 1).astype(np.int64)
