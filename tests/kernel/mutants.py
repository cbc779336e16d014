"""Frames without number: those of the table and of other projects' captures, damaged at random, many at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import packets as p

FRAME_BYTES_MAX = 1280  # 129 extension headers, one more than are walked
ETHERNET_BYTES = 14
#: Bytes that mean something somewhere: version and length, protocols and extension headers, limits.
TELLING = np.array(
    [
        *(0x00, 0x01, 0x7F, 0x80, 0xFF, 0x40, 0x44, 0x45, 0x46, 0x4F, 0x60, 0x65, 0x6F),
        *(p.ICMP, p.TCP, p.UDP, p.DCCP, p.ESP, p.ICMPV6, p.NO_NEXT, p.SCTP, p.UDPLITE),
        *(p.HOPOPTS, p.ROUTING, p.FRAGMENT, p.AH, p.DSTOPTS),
    ],
    np.uint8,
)
ETHERTYPES = np.array([p.IPV4, p.IPV6, p.ARP, p.VLAN, p.QINQ, p.QINQ_OLD, p.MPLS, 0x0026, 0x05FF, 0x0600], ">u2")


@dataclass(frozen=True)
class Frames:
    """Frames as HostEngine.count takes them: arrays of shape (n,) about `data`, in which frames do not overlap."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.uint64]
    captured: NDArray[np.uint32]
    wire: NDArray[np.uint32]
    times_ns: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, which: NDArray[np.bool_] | slice) -> Frames:
        """Some of them."""
        return Frames(self.data, self.offsets[which], self.captured[which], self.wire[which], self.times_ns[which])

    def bytes_of(self, i: int) -> bytes:
        """One frame."""
        at = int(self.offsets[i])
        return self.data[at : at + int(self.captured[i])].tobytes()


def mutants(random: np.random.Generator, origins: Sequence[bytes], count: int) -> Frames:
    """`count` frames of 14 to 1,280 bytes: some as they were, most with up to four bytes changed, cut or padded; some
    nothing but noise. Times go back and forth; one in four is longer on the wire than it is here."""
    table = np.zeros((len(origins), FRAME_BYTES_MAX), np.uint8)
    lengths = np.array([min(len(origin), FRAME_BYTES_MAX) for origin in origins], np.uint32)
    for row, origin in zip(table, origins, strict=True):
        row[: min(len(origin), FRAME_BYTES_MAX)] = np.frombuffer(origin[:FRAME_BYTES_MAX], np.uint8)
    chosen = random.integers(0, len(origins), count)
    frames, captured = table[chosen], lengths[chosen]
    rows = np.arange(count)

    noisy = random.random(count) < 0.03
    frames[noisy] = random.integers(0, 256, (int(noisy.sum()), FRAME_BYTES_MAX), np.uint8)
    retyped = random.random(count) < 0.05
    frames[retyped, 12:14] = random.choice(ETHERTYPES, int(retyped.sum())).view(np.uint8).reshape(-1, 2)
    for chance in (0.6, 0.4, 0.2, 0.1):
        hit = rows[random.random(count) < chance]
        # Headers come first: the square of an even number falls there more often than not.
        at = (ETHERNET_BYTES - 2 + random.random(len(hit)) ** 2 * (captured[hit] - ETHERNET_BYTES + 2)).astype(np.intp)
        telling = random.random(len(hit)) < 0.5
        frames[hit, np.minimum(at, captured[hit] - 1)] = np.where(
            telling, random.choice(TELLING, len(hit)), random.integers(0, 256, len(hit), np.uint8)
        )
    cut = rows[random.random(count) < 0.2]
    captured[cut] = ETHERNET_BYTES + random.random(len(cut)) * (captured[cut] - ETHERNET_BYTES + 1)
    padded = rows[random.random(count) < 0.1]
    captured[padded] = np.minimum(captured[padded] + random.integers(1, 60, len(padded), np.uint32), FRAME_BYTES_MAX)
    longer = (random.random(count) < 0.25) * random.integers(0, 9000, count)
    return Frames(
        data=frames.reshape(-1),
        offsets=rows.astype(np.uint64) * np.uint64(FRAME_BYTES_MAX),
        captured=captured,
        wire=captured + longer.astype(np.uint32),
        times_ns=random.integers(1, 1 << 62, count, np.uint64),
    )
