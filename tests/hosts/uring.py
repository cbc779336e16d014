"""Sending by io_uring, with the system calls themselves (io_uring(7)): no library is needed for one kind of request."""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import struct

from .devices import Port
from .senders import FAMILIES, IP_HEADERS, bind_to, new_socket, udp_flow
from .wire import ETHER, UDP_HEADER, Traffic, flow_traffic

SETUP, ENTER = 425, 426  # system calls, the same numbers on all architectures but Alpha
PARAMS_BYTES, ENTRY_BYTES, COMPLETION_BYTES = 120, 64, 16
REQUESTS_AT = 0x10000000  # IORING_OFF_SQES
WAIT = 1  # IORING_ENTER_GETEVENTS
SINGLE_MMAP = 1  # IORING_FEAT_SINGLE_MMAP, Linux 5.4
SEND = 26  # IORING_OP_SEND, Linux 5.6
#: Up to the user's data: opcode, flags, priority, descriptor, offset, address, length, flags of the message, data.
REQUEST = struct.Struct("=BBHiQQIIQ")
COMPLETION = struct.Struct("=QiI")
WORD = struct.Struct("=I")

_libc = ctypes.CDLL(None, use_errno=True)


class SendRing:
    """An io_uring of `entries` requests, all of them sends of the same bytes on one socket. A context manager."""

    def __init__(self, entries: int) -> None:
        params = bytearray(PARAMS_BYTES)
        self._fd = _called(SETUP, entries, (ctypes.c_char * PARAMS_BYTES).from_buffer(params))
        words = struct.unpack("=30I", params)
        self._entries, completions, features = words[0], words[1], words[5]
        assert features & SINGLE_MMAP, "io_uring of a kernel before 5.4"
        _, self._tail, _, _, _, _, array, *_ = words[10:18]
        self._done_head, self._done_tail, mask, _, _, self._done, *_ = words[20:28]
        bytes_of_rings = max(array + 4 * self._entries, self._done + COMPLETION_BYTES * completions)
        self._rings = mmap.mmap(self._fd, bytes_of_rings, mmap.MAP_SHARED)
        self._requests = mmap.mmap(self._fd, ENTRY_BYTES * self._entries, mmap.MAP_SHARED, offset=REQUESTS_AT)
        self._mask = WORD.unpack_from(self._rings, mask)[0]
        struct.pack_into(f"={self._entries}I", self._rings, array, *range(self._entries))

    def __enter__(self) -> SendRing:
        return self

    def __exit__(self, *exception: object) -> None:
        self._rings.close()
        self._requests.close()
        os.close(self._fd)

    def send(self, sender: socket.socket, data: ctypes.Array[ctypes.c_char], times: int) -> None:
        """Ask for `times` sends of `data`, at most `entries`, and wait for all. Raises OSError if one failed."""
        assert 0 < times <= self._entries
        tail = WORD.unpack_from(self._rings, self._tail)[0]
        for number in range(tail, tail + times):
            at = number % self._entries * ENTRY_BYTES
            self._requests[at : at + ENTRY_BYTES] = bytes(ENTRY_BYTES)
            REQUEST.pack_into(
                self._requests, at, SEND, 0, 0, sender.fileno(), 0, ctypes.addressof(data), len(data), 0, number
            )
        WORD.pack_into(self._rings, self._tail, (tail + times) & 0xFFFFFFFF)
        taken = _called(ENTER, self._fd, times, times, WAIT, None, 0)
        assert taken == times, f"the kernel took {taken} of {times} requests"
        head, end = (WORD.unpack_from(self._rings, at)[0] for at in (self._done_head, self._done_tail))
        assert end - head == times, f"{end - head} of {times} sends are done"
        for number in range(head, end):
            _, result, _ = COMPLETION.unpack_from(self._rings, self._done + (number & self._mask) * COMPLETION_BYTES)
            if result != len(data):
                raise OSError(-result, f"io_uring send: {os.strerror(-result)}")
        WORD.pack_into(self._rings, self._done_head, end)


def _called(number: int, *arguments: object) -> int:
    answer = int(_libc.syscall(number, *arguments))
    if answer < 0:
        raise OSError(ctypes.get_errno(), f"system call {number}: {os.strerror(ctypes.get_errno())}")
    return answer


def is_available() -> bool:
    """Whether this kernel has io_uring and lets us use it."""
    try:
        with SendRing(1):
            return True
    except OSError:
        return False


def udp_io_uring(src: Port, dst: str, times: int, size: int = 18, *, sport: int = 5000, dport: int = 5001) -> Traffic:
    """`times` datagrams of `size` bytes by io_uring, up to 64 at once. Truth: each request's own answer."""
    flow = udp_flow(src, sport, dst, dport)
    data = ctypes.create_string_buffer(size)
    with new_socket(src, FAMILIES[flow.family], socket.SOCK_DGRAM) as datagrams, SendRing(64) as ring:
        bind_to(datagrams, src, flow)
        for first in range(0, times, 64):
            ring.send(datagrams, data, min(64, times - first))
    return flow_traffic(flow, times, times * (ETHER + IP_HEADERS[flow.family] + UDP_HEADER + size))
