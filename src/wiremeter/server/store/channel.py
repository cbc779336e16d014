"""Messages between the server and its engine's process: a header and a body, over a Unix stream socket."""

from __future__ import annotations

import socket
import struct
from typing import Any

import msgspec

_LENGTHS = struct.Struct("!IQ")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class ChannelClosed(ConnectionError):
    """The other end is gone."""


def send(sock: socket.socket, header: dict[str, Any], body: bytes | memoryview = b"") -> None:
    """Sends one message. header: what JSON can say. Raises OSError when the other end is gone or does not read."""
    head = _encode(header)
    sock.sendall(_LENGTHS.pack(len(head), len(body)) + head)
    if body:
        sock.sendall(body)


def receive(sock: socket.socket) -> tuple[dict[str, Any], bytearray]:
    """The next message. Raises ChannelClosed when the other end is gone, TimeoutError as the socket says."""
    head_length, body_length = _LENGTHS.unpack(_exactly(sock, _LENGTHS.size))
    header: dict[str, Any] = _decode(_exactly(sock, head_length))
    return header, _exactly(sock, body_length)


def _exactly(sock: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        got = sock.recv_into(rest)
        if not got:
            raise ChannelClosed("the other end closed the channel")
        rest = rest[got:]
    return data
