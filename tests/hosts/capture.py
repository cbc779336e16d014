"""A capture as ground truth: every frame's length and first bytes, where offloads are off."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections import Counter
from types import TracebackType
from typing import Self

from .netns import Host
from .wire import ETHER, IPV6, TAG, TCP, Count, Flow, Traffic, decode

SNAP = 160  # bytes kept of each frame: enough for two tags and the extension headers that tests send
SO_ATTACH_FILTER, SO_RCVBUFFORCE = 26, 33  # asm-generic/socket.h
SOL_PACKET, PACKET_AUXDATA, PACKET_STATISTICS = 263, 8, 6  # linux/if_packet.h
PACKET_OUTGOING = 4
TP_STATUS_VLAN_VALID, TP_STATUS_VLAN_TPID_VALID = 1 << 4, 1 << 6
ETH_P_ALL = 3
WHATEVER = 1 << 20  # bytes; a capture with this as its longest frame is not used as truth
AUXDATA = struct.Struct("=IIIHHHH")  # struct tpacket_auxdata
ROOM = 512 << 20  # bytes of kernel memory that waiting frames may take


class Capture:
    """Frames of one direction ("in" or "out") at a device, from the moment this is made until `traffic` is asked.

    What goes "out" is seen after software segmentation, so on a device whose offloads are off it is what the wire
    would carry. Raises AssertionError when the kernel dropped frames for want of room, or when a frame is longer
    than `longest`: then it was a super-packet, and this capture is no truth.
    """

    def __init__(self, host: Host, device: str, direction: str, longest: int = 1518) -> None:
        self._direction = direction
        self._longest = longest
        self._what = f"{host.role} {device} {direction}"
        with host.entered():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
        self._socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        _keep_first_bytes(self._socket, SNAP)
        self._socket.bind((device, ETH_P_ALL))
        self._socket.setblocking(False)
        self.lengths: Counter[int] = Counter()
        self._flows: dict[Flow, Count] = {}
        self._ethertypes: dict[int, Count] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._socket:
            if error is None:
                self._take_waiting()

    def traffic(self) -> Traffic:
        """All that was captured until now, or until the capture was left."""
        if self._socket.fileno() >= 0:
            self._take_waiting()
        return Traffic(dict(self._flows), dict(self._ethertypes))

    def _take_waiting(self) -> None:
        while True:
            try:
                frame, ancillary, _, address = self._socket.recvmsg(SNAP, 64)
            except BlockingIOError:
                break
            if (address[2] == PACKET_OUTGOING) == (self._direction == "out"):
                self._count(frame, ancillary[0][2])
        seen, dropped = struct.unpack("=II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        assert not dropped, f"the capture at {self._what} missed {dropped} of {seen} frames: give it more room"

    def _count(self, frame: bytes, aux: bytes) -> None:
        status, length, _, _, _, tci, tpid = AUXDATA.unpack(aux)
        if status & TP_STATUS_VLAN_VALID:  # the tag was taken out of the frame; on the wire it is there
            tpid = tpid if status & TP_STATUS_VLAN_TPID_VALID else 0x8100
            frame = frame[:12] + struct.pack("!HH", tpid, tci) + frame[12:]
            length += TAG
        assert length <= self._longest, f"a frame of {length} bytes at {self._what} is no wire frame: offloads are on"
        self.lengths[length] += 1
        key = decode(frame)
        if isinstance(key, Flow):
            self._flows[key] = self._flows.get(key, Count()).plus(Count(1, length))
        else:
            self._ethertypes[key] = self._ethertypes.get(key, Count()).plus(Count(1, length))


class PayloadCapture(Capture):
    """A capture that also adds up what each TCP flow carried behind its headers, in bytes.

    Written for frames without tags and IPv6 extension headers.
    """

    def __init__(self, host: Host, device: str, direction: str, longest: int = 1518) -> None:
        super().__init__(host, device, direction, longest)
        self.payload_bytes: Counter[Flow] = Counter()

    def _count(self, frame: bytes, aux: bytes) -> None:
        super()._count(frame, aux)
        key = decode(frame)
        if isinstance(key, Flow) and key.protocol == TCP:
            transport = ETHER + ((frame[ETHER] & 0xF) * 4 if key.family == 4 else IPV6)
            self.payload_bytes[key] += AUXDATA.unpack(aux)[1] - transport - (frame[transport + 12] >> 4) * 4


def _keep_first_bytes(packet_socket: socket.socket, snap: int) -> None:
    """A classic filter of one instruction, `ret #snap`, so that long frames need not be copied whole."""
    code = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, snap))
    program = struct.pack("@HP", 1, ctypes.addressof(code))
    packet_socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


assert ETHER + 2 * TAG < SNAP
