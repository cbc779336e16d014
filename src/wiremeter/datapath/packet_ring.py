"""One packet socket and its ring: what crosses a device in one direction, as frames that lie where the kernel put them.

TPACKET_V3 (packet(7), Documentation/networking/packet_mmap.rst) with PACKET_VNET_HDR, which says of a super-packet
what its segments are. Needs CAP_NET_RAW in the network namespace, and nothing else.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import struct
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from wiremeter.datapath._host import ffi, lib  # type: ignore[import-not-found,unused-ignore]
from wiremeter.datapath.host import OFFLOAD
from wiremeter.errors import KernelError, PermissionNeeded
from wiremeter.flows.columns import Direction

ETH_P_ALL = 0x0003  # linux/if_ether.h
SOL_PACKET = 263  # bits/socket.h
#: linux/if_packet.h
PACKET_RX_RING, PACKET_STATISTICS, PACKET_VERSION, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 5, 6, 10, 15, 23
TPACKET_V3 = 2
SO_ATTACH_FILTER = 26  # asm-generic/socket.h
#: Classic BPF (linux/filter.h): A = packet type; if it is outgoing …; return so many bytes.
_LOAD_PACKET_TYPE = (0x20, 0, 0, 0xFFFFF000 + 4)  # BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_PKTTYPE
_IF_EQUAL, _RETURN = 0x15, 0x06  # BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K
PACKET_OUTGOING = 4

BLOCK_BYTES = 1 << 20
#: The kernel closes a block that has frames after one to two such times, full or not.
BLOCK_TIMEOUT_MS = 8
#: The kernel's unit for what it believes to be frames of a fixed size; only its divisibility matters here.
_FRAME_BYTES = 1 << 11
_FRAMES = 1 << 13  # that are read at once
NEVER_NS = (1 << 64) - 1

_ADDRESS = struct.Struct("=HHiHBB8s")  # struct sockaddr_ll; the ifindex is the third
_STATISTICS = struct.Struct("=III")  # struct tpacket_stats_v3: packets, drops, freezes


_libc = ctypes.CDLL(None, use_errno=True)


class RingFrames(NamedTuple):
    """Frames of one block, as HostEngine.count() takes them: in `data`, the ring. Valid until the next are read."""

    data: mmap.mmap
    offsets: NDArray[np.uint64]
    captured: NDArray[np.uint32]
    wire: NDArray[np.uint32]
    times_ns: NDArray[np.uint64]
    links: NDArray[np.uint32]
    offloads: NDArray[np.void]

    def __len__(self) -> int:
        return len(self.offsets)

    def first(self, count: int) -> RingFrames:
        """So many of them, from the first on."""
        return RingFrames(
            self.data,
            self.offsets[:count],
            self.captured[:count],
            self.wire[:count],
            self.times_ns[:count],
            self.links[:count],
            self.offloads[:count],
        )


class PacketRing:
    """A packet socket on one device in one direction, with its ring mapped. Not to be used by two threads at once."""

    def __init__(
        self, device: str, ifindex: int, direction: Direction, *, ethernet: bool, snap_bytes: int, ring_bytes: int
    ) -> None:
        """Opens and binds it; frames come from now on.

        ethernet: frames begin with an Ethernet header, else with the network header. snap_bytes: bytes of each that
        are kept. ring_bytes: of memory, a multiple of BLOCK_BYTES.
        Raises PermissionNeeded without CAP_NET_RAW, KernelError where the device is gone or memory is short.
        """
        self._ethernet = ethernet
        self.blocks = ring_bytes // BLOCK_BYTES
        what = f"capturing on {device} ({direction})"
        try:
            # Protocol 0: nothing is received before the filter and the ring are there and the socket is bound.
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        except PermissionError as error:
            raise PermissionNeeded(f"{what} needs CAP_NET_RAW: run as root, or with that capability") from error
        try:
            self._set(PACKET_VERSION, struct.pack("=i", TPACKET_V3))
            self._set(PACKET_VNET_HDR, struct.pack("=i", 1))
            if direction == "rx":
                self._ignore_outgoing()
            self._filter(direction, snap_bytes)
            # struct tpacket_req3
            request = (BLOCK_BYTES, self.blocks, _FRAME_BYTES, ring_bytes // _FRAME_BYTES, BLOCK_TIMEOUT_MS, 0, 0)
            self._set(PACKET_RX_RING, struct.pack("=7I", *request))
            self._memory = mmap.mmap(self._socket.fileno(), ring_bytes)
            self._bind(ifindex)
        except OSError as error:
            self._socket.close()
            raise KernelError(f"{what}: {error.strerror}", call="packet socket", errno=error.errno or 0) from error
        except BaseException:
            self._socket.close()
            raise
        self._ring = ffi.from_buffer("uint8_t[]", self._memory)
        self._number = 0  # of the block that comes next, or is being read
        self._place = ffi.new("struct wm_ring_place *")
        self._begun = False
        self._make_arrays()

    def _make_arrays(self) -> None:
        self._arrays = (
            np.empty(_FRAMES, np.uint64),
            np.empty(_FRAMES, np.uint32),
            np.empty(_FRAMES, np.uint32),
            np.empty(_FRAMES, np.uint64),
            np.empty(_FRAMES, np.uint32),
            np.empty(_FRAMES, OFFLOAD),
        )
        names = ("offsets", "captured", "wire", "times_ns", "links", "offloads")
        types = ("uint64_t", "uint32_t", "uint32_t", "uint64_t", "uint32_t", "struct wm_host_offload")
        # The views must live as long as the struct that points at them.
        self._views = [ffi.from_buffer(f"{kind}[]", array) for kind, array in zip(types, self._arrays, strict=True)]
        self._frames = ffi.new(
            "struct wm_ring_frames *", {"capacity": _FRAMES, **dict(zip(names, self._views, strict=True))}
        )

    def _bind(self, ifindex: int) -> None:
        """By number: Python's own bind() takes a name, which may change meanwhile and hold bytes that are no text."""
        address = _ADDRESS.pack(socket.AF_PACKET, socket.htons(ETH_P_ALL), ifindex, 0, 0, 0, bytes(8))
        if _libc.bind(self._socket.fileno(), address, len(address)):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def _set(self, option: int, value: bytes) -> None:
        self._socket.setsockopt(SOL_PACKET, option, value)

    def _ignore_outgoing(self) -> None:
        """Spares the other direction the way to our filter; the filter alone does without it (before Linux 4.20)."""
        try:
            self._set(PACKET_IGNORE_OUTGOING, struct.pack("=i", 1))
        except OSError:
            return

    def _filter(self, direction: Direction, snap_bytes: int) -> None:
        """Keeps the first bytes of the frames of one direction, and drops others unseen."""
        other = 0
        outgoing, incoming = (snap_bytes, other) if direction == "tx" else (other, snap_bytes)
        code = (
            _LOAD_PACKET_TYPE,
            (_IF_EQUAL, 0, 1, PACKET_OUTGOING),
            (_RETURN, 0, 0, outgoing),
            (_RETURN, 0, 0, incoming),
        )
        program = b"".join(struct.pack("=HBBI", *step) for step in code)
        buffer = ctypes.create_string_buffer(program, len(program))
        # struct sock_fprog
        self._socket.setsockopt(
            socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(code), ctypes.addressof(buffer))
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends it; what has not been read is lost. A second call does nothing."""
        if self._socket.fileno() < 0:
            return
        self._socket.close()
        ffi.release(self._ring)
        self._memory.close()

    def fileno(self) -> int:
        """To wait with: readable when a block is ours."""
        return self._socket.fileno()

    @property
    def ifindex(self) -> int:
        """Of the device that the socket is on; another or −1 once that has left the namespace."""
        # Python's own getsockname() gives the device's name, which may change, instead of its number.
        address, length = ctypes.create_string_buffer(_ADDRESS.size), ctypes.c_uint32(_ADDRESS.size)
        if _libc.getsockname(self._socket.fileno(), address, ctypes.byref(length)):
            return -1
        return int(_ADDRESS.unpack(address.raw)[2])

    def read(self, until_ns: int = NEVER_NS) -> RingFrames | None:
        """The next frames of the block that is ours, up to the first one that is younger than until_ns.

        until_ns: nanoseconds since the Unix epoch. None where there is none now. The same frames come again until
        `advance` goes past them.
        """
        while self.is_ours():
            if not self._begun:
                self._place[0] = lib.wm_ring_begin(self._block())
                self._begun = True
            if not self._place.left:
                self._release()
                continue
            at = self._number * BLOCK_BYTES
            found = lib.wm_ring_read(
                self._ring, at, BLOCK_BYTES, self._place[0], self._ethernet, until_ns, self._frames
            )
            if not found:
                return None
            return RingFrames(self._memory, *self._arrays).first(found)
        return None

    def advance(self, count: int) -> None:
        """Goes past so many frames; a block that has been read goes back to the kernel."""
        lib.wm_ring_skip(self._block(), BLOCK_BYTES, self._place, count)
        if not self._place.left:
            self._release()

    def is_empty(self) -> bool:
        """Whether no frame waits, not even in a block that the kernel has not handed over yet."""
        return not self.is_ours() and not lib.wm_ring_frames_open(self._block())

    def is_ours(self) -> bool:
        """Whether the next block has been handed over."""
        return bool(lib.wm_ring_is_ours(self._block()))

    def take_drops(self) -> int:
        """Frames that found no room since the last call, or that the kernel could not describe (PACKET_STATISTICS)."""
        _, drops, _ = _STATISTICS.unpack(self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, _STATISTICS.size))
        return int(drops)

    def take_error(self) -> int:
        """The errno that waits at the socket, as when its device goes down, and forgets it; 0: none."""
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def _block(self) -> object:
        return self._ring + self._number * BLOCK_BYTES

    def _release(self) -> None:
        lib.wm_ring_release(self._block())
        self._number = (self._number + 1) % self.blocks
        self._begun = False
