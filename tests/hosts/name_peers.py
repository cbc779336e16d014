"""Peers that no package brings: servers that speak the first lines of a protocol, and both ends of QUIC (aioquic)."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

Speaker = Callable[[socket.socket], None]


def serve_tcp(address: str, port: int, speak: Speaker) -> None:
    """Take connections for ever; each is spoken to in a thread of its own, then closed."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family) as listener:
        while True:
            near, _ = listener.accept()
            threading.Thread(target=_speak_and_close, args=(near, speak), daemon=True).start()


def _speak_and_close(near: socket.socket, speak: Speaker) -> None:
    with near:
        near.settimeout(5)
        speak(near)


def ssh_banner(near: socket.socket) -> None:
    """RFC 4253, section 4.2, up to the client's own line."""
    near.sendall(b"SSH-2.0-wmtest\r\n")
    near.recv(4096)


def binary_chatter(near: socket.socket) -> None:
    """A protocol of nobody's: a length, and as many bytes."""
    while data := near.recv(4096):
        near.sendall(bytes([0xFA, len(data)]) + bytes(byte ^ 0x5A for byte in data))


def _lines(near: socket.socket, greeting: bytes, replies: dict[bytes, bytes]) -> bytes:
    """Answer each line by its first word, until there is none or its answer is the last; returns that word."""
    near.sendall(greeting)
    with near.makefile("rb", buffering=0) as lines:
        for line in lines:
            word = line.split()[0].upper()
            near.sendall(replies.get(word, b"500 what?\r\n"))
            if word == b"DATA":
                while lines.readline() not in (b".\r\n", b""):
                    pass
                near.sendall(b"250 taken\r\n")
            if word in (b"QUIT", b"STARTTLS"):
                return word
    return b""


_SMTP = {
    b"EHLO": b"250-mail.wire.test\r\n250 STARTTLS\r\n",
    b"MAIL": b"250 ok\r\n",
    b"RCPT": b"250 ok\r\n",
    b"DATA": b"354 go on\r\n",
    b"STARTTLS": b"220 ready\r\n",
    b"QUIT": b"221 bye\r\n",
}


def smtp(certificate: Path, key: Path) -> Speaker:
    """RFC 5321 as far as a short message goes, with STARTTLS (RFC 3207)."""

    def speak(near: socket.socket) -> None:
        if _lines(near, b"220 mail.wire.test ESMTP\r\n", _SMTP) != b"STARTTLS":
            return
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        with context.wrap_socket(near, server_side=True) as secure:
            _lines(secure, b"", _SMTP)

    return speak


def ftp(near: socket.socket) -> None:
    """RFC 959, the control connection."""
    replies = {b"USER": b"331 and?\r\n", b"PASS": b"230 in\r\n", b"PWD": b'257 "/"\r\n', b"QUIT": b"221 bye\r\n"}
    _lines(near, b"220 files.wire.test FTP server ready\r\n", replies)


def ask_http2(near: socket.socket, authority: str, paths: list[str]) -> int:
    """GET all paths at once, each on a stream of its own (RFC 9113); returns how many streams the server ended."""
    import hpack

    encoder = hpack.Encoder()
    data = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b"")
    for number, path in enumerate(paths):
        head = [(":method", "GET"), (":scheme", "http"), (":authority", authority), (":path", path)]
        data += _frame(1, 0x5, 2 * number + 1, encoder.encode(head))  # END_STREAM, END_HEADERS
    near.sendall(data)
    ended = 0
    with near.makefile("rb") as frames:
        while ended < len(paths) and (start := frames.read(9)):
            frames.read(int.from_bytes(start[:3], "big"))
            ended += start[3] in (0, 1) and start[4] & 1  # DATA or HEADERS with END_STREAM
    return ended


def _frame(type: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([type, flags]) + stream.to_bytes(4, "big") + payload


def serve_quic(address: str, port: int, certificate: Path, key: Path, alpn: list[str], versions: list[int]) -> None:
    """Echo what comes on any stream, for ever."""
    from aioquic.asyncio.server import serve
    from aioquic.quic.configuration import QuicConfiguration

    async def run() -> None:
        configuration = QuicConfiguration(is_client=False, alpn_protocols=alpn, supported_versions=versions)
        configuration.load_cert_chain(certificate, key)
        await serve(address, port, configuration=configuration, stream_handler=_echo)
        await asyncio.Future()

    asyncio.run(run())


def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async def run() -> None:
        writer.write(await reader.read())
        writer.write_eof()

    _tasks.add(asyncio.ensure_future(run()))


_tasks: set[asyncio.Future[None]] = set()


def ask_quic(
    address: str, port: int, local_port: int, server_name: str, alpn: list[str], version: int, size: int
) -> int:
    """A connection, a stream of `size` bytes there and back; returns how many came back."""
    from aioquic.asyncio.client import connect
    from aioquic.quic.configuration import QuicConfiguration

    async def run() -> int:
        configuration = QuicConfiguration(
            alpn_protocols=alpn,
            server_name=server_name,
            verify_mode=ssl.CERT_NONE,
            original_version=version,
            supported_versions=[version],
        )
        async with connect(address, port, configuration=configuration, local_port=local_port) as connection:
            reader, writer = await connection.create_stream()
            writer.write(bytes(size))
            writer.write_eof()
            return len(await asyncio.wait_for(reader.read(), 10))

    return asyncio.run(run())
