"""Closes minutes and hours: has their rollups made, and tells the loader which rows are late.

A period is closed in memory before its rollups are made. From then on groups that have rows of it are late: they wait
until the rollups are made, and then bring the sums of their late rows themselves. Groups that began before are waited
for. So each row is in the rollups once, by the build or by its own group.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping

from wiremeter.server.store.backend import Backend
from wiremeter.server.store.errors import Unavailable
from wiremeter.server.store.rollups import BUILD_SETTINGS, GRACE_SECONDS, Slice, build_statements, slices
from wiremeter.server.store.schema import DATABASE, HOUR, MINUTE

#: Longest wait of a late group for a build.
_BUILD_SECONDS = 120.0


class Ticket:
    """Of a group that is being stored."""


class Closing:
    """The periods that are closed, and what closes them.

    now: seconds since the epoch.
    """

    def __init__(self, backend: Backend, *, now: Callable[[], float] = time.time) -> None:
        self._backend = backend
        self._now = now
        self._changed = threading.Condition()
        self._closed: dict[int, int] = {MINUTE: 0, HOUR: 0}
        self._made: dict[int, int] | None = None
        self._tickets: set[Ticket] = set()
        self._one_at_a_time = threading.Lock()
        self._is_ended = threading.Event()

    def stop(self) -> None:
        """Ends what waits for groups."""
        self._is_ended.set()
        with self._changed:
            self._changed.notify_all()

    def made(self) -> dict[int, int]:
        """By resolution, the time up to which there are rollups, seconds since the epoch. Raises as Backend.query."""
        with self._changed:
            made = self._made
        if made is not None:
            return made
        sql = f"SELECT resolution, toUnixTimestamp(max(closed)) AS closed FROM {DATABASE}.rollups GROUP BY resolution"
        found = {MINUTE: 0, HOUR: 0}
        found |= {row["resolution"]: row["closed"] for row in self._backend.query(sql).records()}
        with self._changed:
            if self._made is None:
                self._made = found
                self._closed = {key: max(self._closed[key], found[key]) for key in found}
            return self._made

    def begin(self, oldest: float) -> tuple[Ticket, Mapping[int, int]]:
        """Before a group is written down. oldest: time of its oldest flow, seconds since the epoch.

        Returns a ticket for `end`, and by resolution up to when periods are closed: rows before that are the group's
        to sum. Raises Unavailable if the group is late and a build does not end.
        """
        self.made()
        deadline = time.monotonic() + _BUILD_SECONDS
        with self._changed:
            while self._is_being_made(oldest):
                if not self._changed.wait(deadline - time.monotonic()):
                    raise Unavailable("rollups are being made, which takes long", retry_after=10)
            return self.begin_again(), dict(self._closed)

    def begin_again(self) -> Ticket:
        """The same for a group that was written down when periods were closed as they are now."""
        ticket = Ticket()
        with self._changed:
            self._tickets.add(ticket)
        return ticket

    def end(self, ticket: Ticket) -> None:
        """The group is stored, or there is nothing of it."""
        with self._changed:
            self._tickets.discard(ticket)
            self._changed.notify_all()

    def close_ended(self) -> None:
        """Closes what has ended, and makes the rollups of it. Raises as Backend.execute; then the next call goes on."""
        with self._one_at_a_time:
            self.made()
            ended = int(self._now() - GRACE_SECONDS)
            self._close(MINUTE, ended // MINUTE * MINUTE)
            self._close(HOUR, min(ended // HOUR * HOUR, self.made()[MINUTE] // HOUR * HOUR))

    def _is_being_made(self, oldest: float) -> bool:
        assert self._made is not None
        return any(self._made[size] < self._closed[size] and oldest < self._closed[size] for size in self._closed)

    def _close(self, resolution: int, end: int) -> None:
        made = self.made()[resolution]
        if end <= made:
            return
        with self._changed:
            self._closed[resolution] = max(end, self._closed[resolution])
            end = self._closed[resolution]
            before = set(self._tickets)
            while before & self._tickets:
                if self._is_ended.is_set():
                    raise Unavailable("the store is being closed")
                self._changed.wait(1)
        began = time.monotonic()
        for each in self._slices(resolution, made, end):
            for _, token, statement in build_statements(each):
                self._backend.execute(statement, settings={**BUILD_SETTINGS, "insert_deduplication_token": token})
        self._backend.execute(
            f"INSERT INTO {DATABASE}.rollups (resolution, closed, made, seconds) "
            f"VALUES ({resolution}, {end}, {self._now():.3f}, {time.monotonic() - began:.3f})"
        )
        with self._changed:
            self._made = {**self.made(), resolution: end}
            self._changed.notify_all()

    def _slices(self, resolution: int, start: int, end: int) -> list[Slice]:
        """What there is to make from `start` to `end`."""
        source = "flows" if resolution == MINUTE else "names_minute"
        begins = f"toUnixTimestamp(toStartOfInterval(time, INTERVAL {resolution} SECOND))"
        sql = (
            f"SELECT {begins} AS begins, agent, count() AS rows FROM {DATABASE}.{source} "
            f"WHERE time >= toDateTime64({start}, 3, 'UTC') AND time < toDateTime64({end}, 3, 'UTC') "
            "GROUP BY begins, agent"
        )
        counted: dict[int, dict[str, int]] = defaultdict(dict)
        for row in self._backend.query(sql).records():
            counted[row["begins"]][row["agent"]] = row["rows"]
        if resolution != MINUTE:
            return [Slice(resolution, begins) for begins in sorted(counted)]
        return [each for begins in sorted(counted) for each in slices(begins, counted[begins])]
