"""How much an Arrow stream says that it will decompress to, read before anything is.

Arrow's readers take memory for a compressed buffer by the length that stands in front of it, so that a kilobyte could
ask for a terabyte. Those lengths are where the message's flatbuffer says (Arrow columnar format, "Serialization and
Interprocess Communication"; https://flatbuffers.dev/internals/); the readers verify the flatbuffer itself later.
"""

from __future__ import annotations

import struct

import pyarrow as pa

#: Fields of a Message, a DictionaryBatch and a RecordBatch, by number (Arrow's Message.fbs).
_HEADER, _DATA, _ROWS, _BUFFERS, _COMPRESSION = 2, 1, 0, 2, 3
#: More rows than a column of any use has; the rows of columns without buffers cost nothing to claim.
_ROWS_MAX = 1 << 32


def declared_bytes(source: pa.NativeFile) -> int:
    """What all buffers of one stream take in memory, by its messages; `source` stands behind the stream then.

    Raises ValueError, or one of pyarrow's errors, for what is no stream.
    """
    reader = pa.ipc.MessageReader.open_stream(source)
    total = 0
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            return total
        if message.type in ("record batch", "dictionary batch"):
            try:
                total += _of_message(memoryview(message.metadata), memoryview(message.body), message.type)
            except struct.error as error:
                raise ValueError("a message that is damaged") from error


def _of_message(metadata: memoryview, body: memoryview, kind: str) -> int:
    batch = _table(metadata, _root(metadata), _HEADER)
    if kind == "dictionary batch" and batch is not None:
        batch = _table(metadata, batch, _DATA)
    if batch is None:
        raise ValueError("a message without a batch")
    rows = _field(metadata, batch, _ROWS)
    if rows is not None and not 0 <= struct.unpack_from("<q", metadata, rows)[0] < _ROWS_MAX:
        raise ValueError("a batch of more rows than can be")
    is_compressed = _field(metadata, batch, _COMPRESSION) is not None
    at = _field(metadata, batch, _BUFFERS)
    if at is None:
        return 0
    vector = at + struct.unpack_from("<I", metadata, at)[0]
    count = struct.unpack_from("<I", metadata, vector)[0]
    total = 0
    for number in range(count):
        offset, length = struct.unpack_from("<qq", metadata, vector + 4 + 16 * number)
        if not 0 <= offset <= offset + length <= len(body):
            raise ValueError("a buffer that lies outside of its message")
        size = length
        if is_compressed and length:
            size = struct.unpack_from("<q", body, offset)[0]
            size = length if size == -1 else size  # it is not compressed after all
        if size < 0:
            raise ValueError("a buffer of a negative length")
        total += size
    return total


def _root(buffer: memoryview) -> int:
    found: int = struct.unpack_from("<I", buffer, 0)[0]
    return found


def _field(buffer: memoryview, table: int, number: int) -> int | None:
    """Where a field of a table lies; None if it has its default."""
    vtable = table - struct.unpack_from("<i", buffer, table)[0]
    if vtable < 0:
        raise ValueError("a message that is damaged")
    entry = 4 + 2 * number
    if entry + 2 > struct.unpack_from("<H", buffer, vtable)[0]:
        return None
    offset: int = struct.unpack_from("<H", buffer, vtable + entry)[0]
    return table + offset if offset else None


def _table(buffer: memoryview, table: int, number: int) -> int | None:
    at = _field(buffer, table, number)
    return None if at is None else at + int(struct.unpack_from("<I", buffer, at)[0])
