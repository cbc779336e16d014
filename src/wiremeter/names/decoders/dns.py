"""DNS over TCP: the framing, which is not read in C."""

from __future__ import annotations

from wiremeter.names.library import ffi, lib
from wiremeter.names.records import DecodeError

_HEADER_BYTES = 12
_LENGTH_BYTES = 2


class DnsStream:
    """One direction of DNS over TCP: the stream's bytes in, whole messages out (RFC 1035, section 4.2.2).

    Nothing in the stream marks where a message begins but the length of the one before it. So whoever meets a gap, or
    a DecodeError, must give the stream up. Holds no more than one message and what was fed last.
    """

    def __init__(self) -> None:
        self._held = bytearray()
        self._is_broken = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The messages that `chunk`, which continues the stream, completes; in their order, without their lengths.

        Raises DecodeError where the stream cannot be DNS, since a message is shorter than a header or its header is
        none; if `chunk` has messages before that, by the next call. Every later call raises too.

        >>> stream = DnsStream()
        >>> stream.feed(bytes([0, 13]) + b"id"), stream.feed(bytes(11) + bytes([0]))
        ([], [b'id\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00'])
        """
        if self._is_broken:
            raise DecodeError("this stream was given up before")
        held = self._held
        held += chunk
        messages: list[bytes] = []
        at = 0
        while len(held) - at >= _LENGTH_BYTES:
            begin = at + _LENGTH_BYTES
            end = begin + int.from_bytes(held[at:begin], "big")
            header = bytes(held[begin : begin + _HEADER_BYTES])
            if end - begin < _HEADER_BYTES or not lib.wm_dns_may_begin(header, len(header)):
                self._is_broken = True
                held.clear()
                if messages:
                    return messages
                raise DecodeError("not DNS over TCP, or its beginning was missed")
            if end > len(held):
                break
            messages.append(bytes(held[begin:end]))
            at = end
        del held[:at]
        return messages

    def unfinished(self) -> bytes:
        """What is there of the message that has begun, to be read as cut when nothing more will come."""
        return bytes(self._held[_LENGTH_BYTES:])


def looks_like_dns(data: bytes, *, cut: bool = False) -> bool:
    """Whether a datagram on a port that promises nothing is an ordinary query or its response.

    cut: the end of the datagram is missing. Then its records may be as well, and are not looked at.

    >>> looks_like_dns(bytes.fromhex("1234 0100 0001 0000 0000 0000 03777777 00 001c 0001"))
    True
    """
    return bool(lib.wm_dns_looks_like(ffi.from_buffer(data), len(data), cut))
