"""Who sends packets chooses addresses and ports, and must not be able to choose places in the table by it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from wiremeter.datapath.host import HostEngine
from wiremeter.datapath.interval import Interval
from wiremeter.datapath.layout import plan_tables
from wiremeter.datapath.rows import conversation_hashes

FLOWS = 12_000  # an IPv6 flow takes two lines, and no flip shall be due
LINES, BLOCK_LINES = 1 << 17, 16
NUMBERS = np.arange(FLOWS, dtype=np.uint64)
#: Of 12,000 random places in 8,192 blocks, hardly ever more than 10 are in one.
BLOCK_MOST = 12


def big(numbers: NDArray[np.uint64], size: int) -> NDArray[np.uint8]:
    """Shape (n, size): each number in network order."""
    return numbers.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 8 - size :]


def frames4(src: NDArray[np.uint64], dst: NDArray[np.uint64], ports: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """UDP over IPv4; ports: both in one number."""
    head = np.frombuffer(bytes(12) + b"\x08\0\x45\0\0\x1c" + bytes(4) + b"\x40\x11\0\0", np.uint8)
    rows = np.zeros((FLOWS, 42), np.uint8)
    rows[:, : len(head)] = head
    rows[:, 26:30], rows[:, 30:34], rows[:, 34:38] = big(src, 4), big(dst, 4), big(ports, 4)
    return rows


def frames6(
    src: tuple[NDArray[np.uint64], NDArray[np.uint64]], dst: tuple[NDArray[np.uint64], ...]
) -> NDArray[np.uint8]:
    """UDP over IPv6 from one port; addresses as two halves each."""
    head = np.frombuffer(bytes(12) + b"\x86\xdd\x60\0\0\0\0\x08\x11\x40", np.uint8)
    rows = np.zeros((FLOWS, 62), np.uint8)
    rows[:, : len(head)] = head
    for at, half in zip(range(22, 54, 8), (*src, *dst), strict=True):
        rows[:, at : at + 8] = big(half, 8)
    rows[:, 54:58] = (0x9C, 0x40, 0, 80)
    return rows


ONE, NET = np.full(FLOWS, 0x0A000001, np.uint64), np.full(FLOWS, 0x20010DB8 << 32, np.uint64)


def flipped(x: NDArray[np.uint64], bits: tuple[int, int]) -> NDArray[np.uint64]:
    """Spreads the bits of small numbers over two places of a word as it lies in memory."""
    return (x.astype("<u8") << np.uint64(bits[0]) | x.astype("<u8") << np.uint64(bits[1])).byteswap()


#: What scanners send, and what was chosen against a hash that mixed word after word (Murmur3's step): a difference that
#: its step turns into one that the next word takes back, whatever the seed; and one that never reached the lower bits.
CHOSEN: dict[str, Callable[[], NDArray[np.uint8]]] = {
    "IPv4 scan": lambda: frames4(ONE, ONE + NUMBERS, ONE),
    "IPv4 scan of networks": lambda: frames4(ONE, NUMBERS << np.uint64(8), ONE),
    "IPv4 every 16th": lambda: frames4(ONE, NUMBERS << np.uint64(16) | NUMBERS >> np.uint64(16), ONE),
    "IPv4 spoofed sources": lambda: frames4(NUMBERS, ONE, ONE),
    "IPv4 ports": lambda: frames4(ONE, ONE, NUMBERS),
    "IPv6 scan from one port": lambda: frames6((NET, ONE), (NET, NUMBERS)),
    "IPv6 scan of networks": lambda: frames6((NET, ONE), (NET | NUMBERS, ONE)),
    "IPv6 upper bytes": lambda: frames6((NET, ONE), (NET, NUMBERS << np.uint64(48))),
    "IPv6 differences that cancel": lambda: frames6(
        (NET, flipped(NUMBERS & np.uint64(1), (63, 30))), (flipped(NUMBERS & np.uint64(1), (63, 30)), NUMBERS)
    ),
}


def count(frames: NDArray[np.uint8], seed: int) -> NDArray[np.void]:
    """The flows of frames, counted in one table without a flip."""
    engine = HostEngine(plan_tables(1, LINES), seed=seed)
    engine.attach("sim0")
    engine._region.spread(LINES)
    n, size = frames.shape
    columns = (np.arange(n, dtype="u8") * np.uint64(size), np.full(n, size, "u4"), np.full(n, size, "u4"), NUMBERS)
    assert engine.count(0, frames.tobytes(), *columns) == n
    interval = Interval()
    interval.add(engine.flip(), {0: 0})
    assert not interval.unattributed(0)
    return interval.flows()


@pytest.mark.parametrize("chosen", CHOSEN)
def test_chosen_addresses_are_spread_over_the_table_like_others(chosen: str) -> None:
    frames = CHOSEN[chosen]()
    for seed in range(4):
        rows = count(frames, seed)
        assert len(rows) == FLOWS
        for places in (rows["hash"] % LINES, (rows["hash"] >> 16 | rows["hash"] << 16) % LINES):
            assert np.bincount(places // BLOCK_LINES, minlength=LINES // BLOCK_LINES).max() <= BLOCK_MOST


@pytest.mark.parametrize("chosen", CHOSEN)
def test_no_two_chosen_conversations_share_a_hash(chosen: str) -> None:
    rows = count(CHOSEN[chosen](), 0)
    assert len(np.unique(conversation_hashes(rows))) == len(rows)


def test_the_hash_of_other_keys_is_another() -> None:
    frames = CHOSEN["IPv4 scan"]()
    one, other = (count(frames, seed)["hash"] for seed in (1, 2))
    assert (one == other).mean() < 0.001
