"""Which keys of an endless stream get series of their own: the heaviest lately, in few places, with few changes."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator
from typing import Generic, TypeVar

from wiremeter.errors import InputError
from wiremeter.sinks.heavy_hitters import HeavyHitters

Key = TypeVar("Key")

#: What is counted together: of all keys that are not listed, and of those that were listed once.
OTHER, FORMER = "other", "former"

#: Seconds in which traffic loses half its say in who is listed.
HALF_LIFE_SECONDS = 600.0
#: A newcomer needs this many times the recent weight of the one whose place it takes, or two of like size would take
#: turns without end.
LEAD = 1.5
#: Keys whose recent weights are known, to find newcomers among: at least so many.
LEAST_ROOM = 16_384


class Listed(Generic[Key]):
    """The keys that are listed now. Who counts for them sees to it that what they counted is never taken back."""

    def __init__(self, places: int) -> None:
        """places: how many at most. Raises InputError if that is negative."""
        if places < 0:
            raise InputError(f"{places} names cannot be listed: 0 or more can")
        self._places = places
        self._keys: set[Key] = set()
        self._recent = HeavyHitters[Key](max(LEAST_ROOM, 4 * places), HALF_LIFE_SECONDS)
        # Each change ends one series in every scraper's database and begins another, so they are rationed: in a
        # half-life as many as there are places, and few at once.
        self._changes_per_second = places / HALF_LIFE_SECONDS
        self._most_changes = max(1.0, places / 20)
        self._changes = self._most_changes

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys)

    def elect(self, weights: Iterable[tuple[Key, float]], seconds: float) -> list[Key]:
        """Takes the weights of an interval, each key once; those that lost their place by it."""
        weighed = [(key, weight) for key, weight in weights if weight]
        self._recent.age(seconds)
        self._recent.add(weighed)
        self._changes = min(self._most_changes, self._changes + seconds * self._changes_per_second)
        # Only a key with weight in this interval can have risen, so others need no look.
        newcomers = [key for key, _ in weighed if key not in self._keys]
        free = self._places - len(self._keys)
        left = []
        for key in heapq.nlargest(free + int(self._changes), newcomers, key=self._recent.weight):
            if len(self._keys) == self._places:
                weakest = self._weakest(self._recent.weight(key))
                if weakest is None:
                    break
                left.append(weakest)
                self._keys.remove(weakest)
                self._changes -= 1
            self._keys.add(key)
        return left

    def restore(self, keys: Iterable[Key]) -> list[Key]:
        """Lists keys that were listed in an earlier life; those that find no place."""
        left = []
        for key in keys:
            if len(self._keys) < self._places:
                self._keys.add(key)
            else:
                left.append(key)
        return left

    def remove(self, keys: Collection[Key]) -> None:
        """Frees the places of keys that are no more."""
        self._keys.difference_update(keys)

    def _weakest(self, weight: float) -> Key | None:
        """Who must leave for a newcomer of that weight, if anyone must."""
        weakest = min(self._keys, key=self._recent.weight, default=None)
        return weakest if weakest is not None and weight > LEAD * self._recent.weight(weakest) else None
