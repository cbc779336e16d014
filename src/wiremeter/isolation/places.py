"""The memory that a meter and its reader share: places for blocks of payloads, which only the meter can write."""

from __future__ import annotations

import mmap
from array import array
from bisect import bisect_right
from collections.abc import Iterator

from wiremeter.names.payloads import PayloadBlock

#: Blocks that may be on their way to a reader. On a busy machine both sides wait for a CPU, and who has it must find
#: enough to do. Memory is taken as places are used.
PLACES = 16
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


def parts(block: PayloadBlock) -> Iterator[tuple[memoryview, memoryview]]:
    """The data and offsets of a block, in as many parts as it takes for each to fit a place: an engine's is one.

    Its records lie one behind the other, none longer than a place.
    """
    data, offsets = memoryview(block.data).cast("B"), memoryview(block.offsets)
    if len(data) <= DATA_BYTES and len(offsets) <= RECORDS_MAX:
        yield data, offsets
        return
    first = 0
    while first < len(offsets):
        begin = offsets[first]
        after = min(first + RECORDS_MAX, len(offsets))
        if (len(data) if after == len(offsets) else offsets[after]) - begin > DATA_BYTES:
            after = bisect_right(offsets, begin + DATA_BYTES, first, after) - 1
        end = len(data) if after == len(offsets) else offsets[after]
        yield data[begin:end], memoryview(array("Q", (at - begin for at in offsets[first:after])))
        first = after
