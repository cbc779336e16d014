"""How the rate of a capture went over time, in bounded memory whatever its length."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wiremeter.captures.file import Frames

_BINS = 128
_FIRST_BIN_NS = 1_000_000


class RateHistory:
    """Bytes in bins of equal time, from the first frame on. Bins double when the capture goes beyond the last."""

    def __init__(self) -> None:
        self.bin_ns = _FIRST_BIN_NS
        self._bytes = np.zeros(_BINS, np.float64)
        self._start_ns = 0
        self._used = 0

    def add(self, frames: Frames) -> None:
        """Take in frames; one from before the first counts in the first bin."""
        if not len(frames):
            return
        if not self._used:
            self._start_ns = int(frames.times_ns[0])
        since = np.where(frames.times_ns > self._start_ns, frames.times_ns - np.uint64(self._start_ns), 0)
        latest = int(since.max())
        while latest // self.bin_ns >= _BINS:
            self._bytes[: _BINS // 2] = self._bytes.reshape(-1, 2).sum(axis=1)
            self._bytes[_BINS // 2 :] = 0
            self._used = (self._used + 1) // 2
            self.bin_ns *= 2
        bins = (since // np.uint64(self.bin_ns)).astype(np.intp)
        self._bytes += np.bincount(bins, frames.wire, _BINS)
        self._used = max(self._used, latest // self.bin_ns + 1)

    @property
    def bytes_per_second(self) -> NDArray[np.float64]:
        """Shape (n,), n ≤ 128, oldest first, each over `bin_ns`; the last may have been longer than the capture."""
        return self._bytes[: self._used] / (self.bin_ns / 1e9)
