"""Bulk TCP over real sockets through the veth pair, so that TSO and GRO have their part, counted by the kernel."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.cpus import pinned
from benchmarks.generator import Sent
from benchmarks.namespaces import RECEIVER, SENDER, Namespace, run

TCP_INFO = 11  # linux/tcp.h, as are the offsets in struct tcp_info
SEGS_OUT_AT, BYTES_SENT_AT, INFO_BYTES = 136, 200, 232
#: Ethernet, IPv4, TCP with timestamps; a SYN has 8 bytes of options more (SACK is off).
HEADERS, SYN_EXTRA = 14 + 20 + 32, 8
CHUNK = 1 << 20
PORT = 5001
SENDER_ADDRESS, RECEIVER_ADDRESS = "198.18.1.1", "198.18.1.2"


@contextmanager
def addressed(sending: Namespace, receiving: Namespace) -> Iterator[None]:
    """IPv4 addresses and fixed neighbours for both ends, so that nothing but TCP crosses."""
    ends = ((sending, SENDER, SENDER_ADDRESS), (receiving, RECEIVER, RECEIVER_ADDRESS))
    macs = []
    for namespace, device, address in ends:
        with namespace.entered():
            run("ip", "address", "add", f"{address}/24", "dev", device)
            # SACK blocks would make the length of a TCP header depend on chance.
            Path("/proc/sys/net/ipv4/tcp_sack").write_text("0")
            macs.append(_mac(device))
    for (namespace, device, _), (_, _, address), mac in zip(ends, ends[::-1], macs[::-1], strict=True):
        with namespace.entered():
            run("ip", "neighbour", "replace", address, "lladdr", mac, "dev", device)
    try:
        yield
    finally:
        for namespace, device, address in ends:
            with namespace.entered():
                run("ip", "address", "del", f"{address}/24", "dev", device)


def send_bulk(sending: Namespace, receiving: Namespace, size: int, cpu: int) -> tuple[Sent, Sent]:
    """`size` bytes over one connection, by a thread on `cpu` to one that runs anywhere.

    Returns what the sender's TCP put on the wire and what the receiver's put there (its acknowledgements), in packets
    and bytes of frames: tcpi_segs_out counts super-packets by their segments, repeats too. cpu_seconds of the first
    are those of both threads, and so of all that the kernel did in their name.
    """
    with receiving.entered(), socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((RECEIVER_ADDRESS, PORT))
        listener.listen(1)
        with sending.entered():
            near = socket.socket()
        with near:
            near.connect((RECEIVER_ADDRESS, PORT))
            far = listener.accept()[0]
            with far:
                reader = _Reader(far)
                reader.start()
                cpu_ns, started = time.thread_time_ns(), time.monotonic()
                with pinned(cpu):
                    _write(near, size)
                near.shutdown(socket.SHUT_WR)
                reader.join()
                seconds = time.monotonic() - started
                cpu_ns = time.thread_time_ns() - cpu_ns + reader.cpu_ns
                near.recv(1)  # the other's FIN
                return _sent(near, seconds, cpu_ns, syn_acks=0), _sent(far, seconds, 0, syn_acks=1)


class _Reader(threading.Thread):
    """Reads until the end, then closes its side."""

    def __init__(self, end: socket.socket) -> None:
        super().__init__(daemon=True)
        self._end = end
        self.cpu_ns = 0

    def run(self) -> None:
        room = bytearray(CHUNK)
        while self._end.recv_into(room):
            pass
        self._end.shutdown(socket.SHUT_WR)
        self.cpu_ns = time.thread_time_ns()


def _write(end: socket.socket, size: int) -> None:
    chunk = memoryview(bytes(CHUNK))
    while size:
        size -= end.send(chunk[: min(size, CHUNK)])


def _sent(end: socket.socket, seconds: float, cpu_ns: int, syn_acks: int) -> Sent:
    """What one end has sent. The SYN-ACK goes out before the server's socket exists, so it is added."""
    info = end.getsockopt(socket.IPPROTO_TCP, TCP_INFO, INFO_BYTES)
    packets = struct.unpack_from("=I", info, SEGS_OUT_AT)[0] + syn_acks
    payload = struct.unpack_from("=Q", info, BYTES_SENT_AT)[0]
    return Sent(packets, payload + packets * HEADERS + SYN_EXTRA, seconds, cpu_ns / 1e9)


def _mac(device: str) -> str:
    # /sys shows the namespace that it was mounted in, so the kernel is asked through a socket.
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as asking:
        asking.bind((device, 0))
        return ":".join(f"{byte:02x}" for byte in asking.getsockname()[4])
