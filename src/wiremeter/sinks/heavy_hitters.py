"""The heaviest keys of an endless stream, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

import numpy as np

Key = TypeVar("Key")

#: Growing weights are brought back to 1 here, far below the end of floats.
_LARGEST_SCALE = 2.0**100


class HeavyHitters(Generic[Key]):
    """Recent weights by key; they halve every `half_life` seconds.

    The summary of Misra and Gries (Science of Computer Programming 2, 1982), merged as by Agarwal et al. ("Mergeable
    summaries", PODS 2012): a weight is never above the true one, and below it by at most the weight of all keys
    together divided by room / 2. So every key heavier than that is here, however many others there are.
    """

    def __init__(self, room: int, half_life: float) -> None:
        """room: most keys that are kept, at least 2. half_life: seconds."""
        self._room = room
        self._half_life = half_life
        # Instead of shrinking all old weights, new ones count for more: `_scale` times, which doubles each half-life.
        self._scale = 1.0
        self._scaled: dict[Key, float] = {}

    def __len__(self) -> int:
        return len(self._scaled)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._scaled)

    def weight(self, key: Key) -> float:
        """The key's recent weight; 0 if it is not among the heavy ones."""
        return self._scaled.get(key, 0.0) / self._scale

    def age(self, seconds: float) -> None:
        """Lets time pass."""
        # What is older than 100 half-lives is nothing at all, so a gap of any length can be taken as that.
        self._scale *= 2.0 ** min(seconds / self._half_life, 100.0)
        if self._scale > _LARGEST_SCALE:
            self._scaled = {key: weight / self._scale for key, weight in self._scaled.items()}
            self._scale = 1.0

    def add(self, gains: Iterable[tuple[Key, float]]) -> None:
        """Adds to the weights of keys."""
        for key, gain in gains:
            self._scaled[key] = self._scaled.get(key, 0.0) + gain * self._scale
        if len(self._scaled) > self._room:
            self._cut()

    def _cut(self) -> None:
        """Keeps the heavier half, all less the weight of the heaviest that goes: that bounds the error."""
        kept = self._room // 2
        weights = np.fromiter(self._scaled.values(), np.float64, len(self._scaled))
        lost = float(np.partition(weights, -kept - 1)[-kept - 1])
        self._scaled = {key: weight - lost for key, weight in self._scaled.items() if weight > lost}
