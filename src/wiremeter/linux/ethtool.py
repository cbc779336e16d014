"""Driver names and offload features by the SIOCETHTOOL ioctl, which needs no privilege.

Structures and numbers are those of linux/ethtool.h.
"""

from __future__ import annotations

import array
import errno
import fcntl
import socket
import struct
from typing import NamedTuple, Self

from wiremeter.errors import MORE_FILES, KernelError

SIOCETHTOOL = 0x8946  # linux/sockios.h
ETHTOOL_GDRVINFO = 0x03
ETHTOOL_GSTRINGS = 0x1B
ETHTOOL_GSSET_INFO = 0x37
ETHTOOL_GFEATURES = 0x3A
ETH_SS_FEATURES = 4
ETH_GSTRING_LEN = 32

_IFREQ = struct.Struct("@16sP16x")  # struct ifreq with its data pointer
_DRVINFO = struct.Struct("=I32s32s32s32s32s12s5I")
_SSET_INFO = struct.Struct("=IIQI")  # command, reserved, mask, one count
_STRINGS = struct.Struct("=III")  # command, string set, count
_FEATURES = struct.Struct("=II")  # command, blocks
_FEATURE_BLOCK = struct.Struct("=4I")  # available, requested, active, never_changed


class Features(NamedTuple):
    """Offloads of a device by the kernel's names. active: whether each is on; fixed: those that can't be changed."""

    active: dict[str, bool]
    fixed: frozenset[str]


class Ethtool:
    """Asks drivers about their devices, in the namespace of the thread that makes it; a context manager.

    All of it raises KernelError with the errno; methods with ENODEV where the device has gone.
    """

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        except OSError as error:
            is_full = error.errno in (errno.EMFILE, errno.ENFILE)
            sandbox = "a sandbox around this process must allow AF_INET (systemd: RestrictAddressFamilies)"
            raise KernelError(
                f"no socket to ask drivers with: {error.strerror}; {MORE_FILES if is_full else sandbox}",
                call="socket(AF_INET)",
                errno=error.errno or 0,
            ) from error
        self._feature_names: tuple[str, ...] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; doing it again is allowed."""
        self._socket.close()

    def driver(self, device: bytes) -> str:
        """The driver's name, "" where the device has none to name. device: its name as the kernel has it."""
        try:
            answer = self._ask(device, _DRVINFO.pack(ETHTOOL_GDRVINFO, *[b""] * 6, *[0] * 5), "ETHTOOL_GDRVINFO")
        except KernelError as error:
            if error.errno == errno.EOPNOTSUPP:
                return ""
            raise
        return _text(_DRVINFO.unpack(answer)[1])

    def features(self, device: bytes) -> Features:
        """The device's offloads. device: its name as the kernel has it."""
        if self._feature_names is None:  # the names are the kernel's, the same for all devices
            self._feature_names = self._read_feature_names(device)
        blocks = -(-len(self._feature_names) // 32)
        request = _FEATURES.pack(ETHTOOL_GFEATURES, blocks) + bytes(blocks * _FEATURE_BLOCK.size)
        answer = self._ask(device, request, "ETHTOOL_GFEATURES")
        return parse_features(answer, self._feature_names)

    def _read_feature_names(self, device: bytes) -> tuple[str, ...]:
        request = _SSET_INFO.pack(ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0)
        count = _SSET_INFO.unpack(self._ask(device, request, "ETHTOOL_GSSET_INFO"))[3]
        request = _STRINGS.pack(ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count) + bytes(count * ETH_GSTRING_LEN)
        answer = self._ask(device, request, "ETHTOOL_GSTRINGS")
        starts = range(_STRINGS.size, len(answer), ETH_GSTRING_LEN)
        return tuple(_text(answer[start : start + ETH_GSTRING_LEN]) for start in starts)

    def _ask(self, device: bytes, request: bytes, what: str) -> bytes:
        """Do one ioctl; the answer has the request's length."""
        buffer = array.array("B", request)
        try:
            fcntl.ioctl(self._socket, SIOCETHTOOL, _IFREQ.pack(device, buffer.buffer_info()[0]))
        except OSError as error:
            name = device.decode(errors="backslashreplace")
            raise KernelError(f"{what} on {name}: {error.strerror}", call=what, errno=error.errno or 0) from error
        return buffer.tobytes()


def parse_features(answer: bytes, names: tuple[str, ...]) -> Features:
    """Features from a struct ethtool_gfeatures, names[i] being the name of bit i; unnamed bits are left out."""
    blocks = list(_FEATURE_BLOCK.iter_unpack(answer[_FEATURES.size :]))
    active: dict[str, bool] = {}
    fixed: set[str] = set()
    for place, name in enumerate(names):
        if not name or place // 32 >= len(blocks):
            continue
        available, _, on, never_changed = (word >> place % 32 & 1 for word in blocks[place // 32])
        active[name] = bool(on)
        if never_changed or not available:
            fixed.add(name)
    return Features(active, frozenset(fixed))


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode(errors="replace")
