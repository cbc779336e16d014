"""The memory that a meter and its reader share: places for blocks of payloads, which only the meter can write."""

from __future__ import annotations

import mmap

#: Blocks that may be on their way to a reader.
PLACES = 4
#: Bytes of records, and records, of one block at most.
DATA_BYTES = 1 << 18
RECORDS_MAX = 4096

_PLACE_BYTES = DATA_BYTES + 8 * RECORDS_MAX
MEMORY_BYTES = PLACES * _PLACE_BYTES


class Places:
    """All of them, as one process sees them."""

    def __init__(self, fd: int, protection: int) -> None:
        """fd: of MEMORY_BYTES. protection: of mmap."""
        self._memory = memoryview(mmap.mmap(fd, MEMORY_BYTES, mmap.MAP_SHARED, protection))

    def write(self, place: int, data: memoryview, offsets: memoryview) -> None:
        """Puts a block there. offsets: uint64."""
        begin = place * _PLACE_BYTES
        self._memory[begin : begin + len(data)] = data
        begin += DATA_BYTES
        self._memory[begin : begin + offsets.nbytes] = offsets.cast("B")

    def read(self, place: int, data_bytes: int, count: int) -> tuple[memoryview, memoryview]:
        """The data and offsets of a block there, as they lie."""
        begin = place * _PLACE_BYTES
        offsets = self._memory[begin + DATA_BYTES : begin + DATA_BYTES + 8 * count].cast("Q")
        return self._memory[begin : begin + data_bytes], offsets
