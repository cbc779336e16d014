"""Capture files as arrays of frames: pcap and pcapng, plain or compressed, from a file or a pipe, in bounded memory."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from wiremeter.captures.compression import HEAD_BYTES, DecompressedStream, compression_of
from wiremeter.datapath._host import ffi, lib  # type: ignore[import-not-found,unused-ignore]
from wiremeter.errors import InputError
from wiremeter.reports.cells import utf8_text

STANDARD_INPUT = "-"
_CHUNK_BYTES = 1 << 18
_RECORDS = 1 << 14

#: Link types that are read, by number, named as libpcap names them.
LINKTYPES = {
    0: "NULL",
    1: "EN10MB",
    12: "RAW",
    14: "RAW",
    101: "RAW",
    108: "LOOP",
    113: "LINUX_SLL",
    228: "IPV4",
    229: "IPV6",
    276: "LINUX_SLL2",
}
#: Some of those that are not, so that the error can name them.
_OTHER_LINKTYPES = {
    6: "IEEE802",
    8: "SLIP",
    9: "PPP",
    10: "FDDI",
    50: "PPP_SERIAL",
    51: "PPP_ETHER",
    104: "C_HDLC",
    105: "IEEE802_11",
    107: "FRELAY",
    117: "PFLOG",
    119: "PRISM_HEADER",
    122: "IP_OVER_FC",
    127: "IEEE802_11_RADIO (radiotap)",
    163: "IEEE802_11_RADIO_AVS",
    187: "BLUETOOTH_HCI_H4",
    189: "USB_LINUX",
    192: "PPI",
    195: "IEEE802_15_4",
    201: "BLUETOOTH_HCI_H4_WITH_PHDR",
    220: "USB_LINUX_MMAPPED",
    227: "CAN_SOCKETCAN",
    239: "NFLOG",
    240: "NETANALYZER",
    247: "INFINIBAND",
    249: "USBPCAP",
    251: "BLUETOOTH_LE_LL",
    252: "WIRESHARK_UPPER_PDU",
    253: "NETLINK",
    264: "ISO_14443",
    274: "ETHERNET_MPACKET",
}


#: What other files begin with, and what they are. ERF, EtherPeek before version 9 and others begin with nothing of
#: their own.
_OTHER_FILES = {
    b"snoo": "a snoop capture (RFC 1761)",
    b"btsn": "a btsnoop capture of Bluetooth",
    b"RTSS": "a Network Monitor 1 capture",
    b"GMBU": "a Network Monitor 2 capture",
    b"TRSN": "a Sniffer (DOS) capture",
    b"XCP\0": "a NetXRay or Sniffer for Windows capture",
    b"\x7fver": "an EtherPeek or OmniPeek capture",
    b"iptr": "an AIX iptrace capture",
    b"\x05VNF": "a Visual Networks capture",
    b"\0\0\x02\0": "a K12 capture",
    b"\xa1\xb2\x34\xcd": "a capture of a pcap variant (Mesquita's) that libpcap does not read either",
    b"\xcd\x34\xb2\xa1": "a capture of a pcap variant (Mesquita's) that libpcap does not read either",
    b"\xa1\x2b\x3c\x4d": "a capture of a pcap variant (Navtel's) that libpcap does not read either",
    b"\x4d\x3c\x2b\xa1": "a capture of a pcap variant (Navtel's) that libpcap does not read either",
    b"\xa1\xb2\xc3\xcb": "a saved BPF filter",
    b"\xcb\xc3\xb2\xa1": "a saved BPF filter",
}
#: Those that hold a capture, perhaps.
_PACKINGS = {
    b"PK\x03\x04": "a zip archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a rar archive",
    b"\x1f\x9d": "compressed with compress (.Z)",
    b"\x02\x21\x4c\x18": "compressed in lz4's old format",
    b"LZIP": "compressed with lzip",
}
_BOTH_FORMATS = "give a pcap or pcapng file"


class Frames(NamedTuple):
    """Frames that lie in `data`; arrays of shape (n,) as HostEngine.count takes them. Valid until the next are read.

    offloads: what segments a frame was on the wire, where that is computed.
    """

    data: memoryview
    offsets: NDArray[np.uint64]
    captured: NDArray[np.uint32]
    wire: NDArray[np.uint32]
    times_ns: NDArray[np.uint64]
    links: NDArray[np.uint32]
    offloads: NDArray[np.void] | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    def part(self, first: int, end: int | None = None) -> Frames:
        """Frames from number `first` on, up to but without `end`."""
        part = slice(first, end)
        return Frames(
            self.data,
            self.offsets[part],
            self.captured[part],
            self.wire[part],
            self.times_ns[part],
            self.links[part],
            None if self.offloads is None else self.offloads[part],
        )


class CaptureFile:
    """One capture file, read once from the beginning to the end. A context manager.

    After the last frame `problem` says what was wrong with the file, if it ended early or is damaged.
    """

    def __init__(self, path: str) -> None:
        """Opens the file; "-" is standard input. Raises InputError if that cannot be done."""
        self.path = path
        #: For people: bytes of the path that are no UTF-8 as \\xff.
        self.name = "standard input" if path == STANDARD_INPUT else utf8_text(path)
        self.problem: str | None = None
        #: Bytes of the capture that have been taken, decompressed.
        self.offset = 0
        try:
            self._raw = io.FileIO(
                sys.stdin.fileno() if path == STANDARD_INPUT else path, closefd=path != STANDARD_INPUT
            )
        except OSError as error:
            raise InputError(f"{self.name}: {error.strerror}") from error
        self._capture = ffi.new("struct wm_capture *")
        self._state = ffi.new("enum wm_capture_state *")
        self._buffer = np.zeros(lib.WM_CAPTURE_KEEP_BYTES + _CHUNK_BYTES, np.uint8)
        self._arrays = tuple(np.zeros(_RECORDS, dtype) for dtype in ("u8", "u4", "u4", "u8", "u4"))
        names = ("offsets", "captured", "wire", "times_ns", "links")
        types = ("uint64_t[]", "uint32_t[]", "uint32_t[]", "uint64_t[]", "uint32_t[]")
        # The views must live as long as the struct that points at them.
        self._columns = [ffi.from_buffer(kind, array) for kind, array in zip(types, self._arrays, strict=True)]
        self._records = ffi.new(
            "struct wm_capture_records *",
            {"capacity": _RECORDS, **dict(zip(names, self._columns, strict=True))},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file. A second call does nothing."""
        self._raw.close()

    def stop(self) -> None:
        """Has the file end here: for a signal handler, also while a read waits for a pipe.

        The system call that the signal interrupted is made again, and then finds a file that is at its end.
        """
        ended = os.open(os.devnull, os.O_RDONLY)
        os.dup2(ended, self._raw.fileno())
        os.close(ended)

    @property
    def linktypes(self) -> tuple[int, ...]:
        """Numbers of the link types of the frames so far, and of a pcap file without any."""
        seen = self._capture.linktypes_seen
        return tuple(number for number in LINKTYPES if seen >> lib.wm_capture_linktype_bit(number) & 1)

    @property
    def position(self) -> int:
        """Bytes of the file that have been read, compressed if it is; 0 where it cannot be told."""
        try:
            return self._raw.tell()
        except OSError:
            return 0

    def frames(self) -> Iterator[Frames]:
        """All frames, in the order of the file.

        Raises InputError if this is no capture file, or one of a version or link type that is not read.
        """
        stream, kept = self._open_stream()
        view = self._buffer.data
        while True:
            got = self._read(stream, view[kept : kept + _CHUNK_BYTES])
            at, there = 0, kept + got
            while True:
                taken = lib.wm_capture_read(
                    self._capture, ffi.from_buffer("uint8_t[]", view[at:there]), there - at, self._records, self._state
                )
                count = int(self._records.count)
                if count:
                    offsets, *others = (array[:count] for array in self._arrays)
                    offsets += np.uint64(at)
                    yield Frames(view[:there], offsets, *others)
                at += taken
                self.offset += taken
                if self._state[0] != lib.WM_CAPTURE_FULL:
                    break
            if self._state[0] != lib.WM_CAPTURE_WANTS_MORE:
                self.problem = self._explain(self._state[0])
                return
            kept = there - at
            if not got:
                end = self._explain_end(bytes(view[at:there]))
                self.problem = self.problem or end
                return
            self._buffer[:kept] = self._buffer[at:there]

    def _open_stream(self) -> tuple[DecompressedStream | io.FileIO, int]:
        """What the capture's bytes come from, and how many of them are in the buffer already."""
        head = b""
        try:
            while len(head) < HEAD_BYTES and (more := self._raw.read(HEAD_BYTES - len(head))):
                head += more
        except OSError as error:
            raise InputError(f"{self.name}: {error.strerror}") from error
        if compression := compression_of(head):
            try:
                return DecompressedStream(self._raw, head, compression), 0
            except InputError as error:
                raise InputError(f"{self.name}: {error}") from error
        self._buffer[: len(head)] = np.frombuffer(head, np.uint8)
        return self._raw, len(head)

    def _read(self, stream: DecompressedStream | io.FileIO, to: memoryview) -> int:
        """Reads at least one byte, or returns 0 at the end; what cannot be read ends a capture that has begun."""
        try:
            got = int(stream.readinto(to) or 0)
        except OSError as error:
            if not self.offset:
                raise InputError(f"{self.name}: {error.strerror}") from error
            self.problem = f"reading ends at byte {self.offset}: {error.strerror}; what came before is counted"
            return 0
        if not got and isinstance(stream, DecompressedStream):
            self.problem = stream.problem
        return got

    def _explain(self, state: int) -> str:
        """What ended the reading at `offset`. Raises InputError where nothing of the file can be trusted."""
        detail = int(self._capture.detail)
        counted = "what came before is counted"
        match state:
            case lib.WM_CAPTURE_UNKNOWN:
                raise InputError(f"{self.name} {_what_else(detail.to_bytes(4))}")
            case lib.WM_CAPTURE_BYTE_ORDER if not self.offset:
                raise InputError(
                    f"{self.name} begins as pcapng does, but its byte-order magic is 0x{detail:08x}, which is neither "
                    "byte order: it is damaged"
                )
            case lib.WM_CAPTURE_BYTE_ORDER:
                return f"damaged at byte {self.offset}: a section of byte order 0x{detail:08x}; {counted}"
            case lib.WM_CAPTURE_VERSION:
                raise InputError(
                    f"{self.name} has version {detail >> 16}.{detail & 0xFFFF} of its format, which is not read; "
                    "convert it, for example with `editcap -F pcap`"
                )
            case lib.WM_CAPTURE_LINKTYPE:
                known = ", ".join(dict.fromkeys(LINKTYPES.values()))
                raise InputError(
                    f"{self.name} has frames of link type {linktype_name(detail)}, which is not read; those that are: "
                    f"{known}"
                )
            case lib.WM_CAPTURE_INTERFACE:
                return (
                    f"damaged at byte {self.offset}: a frame of interface {detail}, which has no description; {counted}"
                )
            case lib.WM_CAPTURE_INTERFACES:
                return f"more than {detail} interfaces, the most that are read, at byte {self.offset}; {counted}"
            case _:
                return f"damaged at byte {self.offset}: a length of {detail} is impossible; {counted}"

    def _explain_end(self, rest: bytes) -> str | None:
        """What is wrong with a file that ends with `rest` not taken, if anything is."""
        if not self._capture.is_pcap and not self._capture.is_pcapng:
            if self.problem:
                raise InputError(f"{self.name}: {self.problem.partition('; ')[0]}, before any frame")
            what = "is empty" if not rest else f"ends after {len(rest)} bytes, within the header of its format"
            raise InputError(f"{self.name} {what}: there is nothing to read")
        if rest or self._capture.trailer:
            end = self.offset + len(rest)
            return f"ends in the middle of a record, at byte {end}; what came before is counted"
        return None


def _what_else(head: bytes) -> str:
    """What a file is that begins with these four bytes and is no capture that is read, and what to do about it."""
    begins = f"it begins with 0x{head.hex()}"
    for start, what in _OTHER_FILES.items():
        if head.startswith(start):
            return f"is {what}, which is not read: convert it, for example with `editcap -F pcap IN OUT` ({begins})"
    for start, what in _PACKINGS.items():
        if head.startswith(start):
            return f"is {what}: unpack it first ({begins})"
    if head.startswith((b"\n\r\n", b"\r\n\r\r", b"\n\n\n\n")):
        return f"looks like pcapng whose line ends a transfer as text has changed: transfer it as binary ({begins})"
    if head.isascii() and (head.decode().isprintable() or head.isspace()):
        return f"is no capture file but text ({begins}): {_BOTH_FORMATS}; `tcpdump -w -` writes one into a pipe"
    return f"is no capture file: {begins}; {_BOTH_FORMATS}"


def linktype_name(number: int) -> str:
    """The name of a link type and its number.

    >>> linktype_name(127), linktype_name(300)
    ('IEEE802_11_RADIO (radiotap), 127', '300')
    """
    name = LINKTYPES.get(number) or _OTHER_LINKTYPES.get(number)
    return f"{name}, {number}" if name else str(number)
