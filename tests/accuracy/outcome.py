"""What a meter said beside what is true, and how far apart they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from hosts.measure import Meter, Seen, Where
from hosts.wire import Count, Traffic, add_counts

Key = TypeVar("Key")


@dataclass(frozen=True)
class Outcome:
    """One device and direction in one or more runs of a scenario.

    expected, measured: packets and bytes, all runs together. wrong: packets that are missing, too many, or in a flow
    that is not theirs; a packet in the wrong flow counts twice. wrong_bytes: likewise.
    """

    scenario: str
    place: str
    expected: Count
    measured: Count
    wrong: int
    wrong_bytes: int
    runs: int = 1

    def plus(self, other: Outcome) -> Outcome:
        """Both runs together."""
        return Outcome(
            self.scenario,
            self.place,
            self.expected.plus(other.expected),
            self.measured.plus(other.measured),
            self.wrong + other.wrong,
            self.wrong_bytes + other.wrong_bytes,
            self.runs + other.runs,
        )


def compared(scenario: str, place: str, meter: Meter | Mapping[Where, Seen], where: Where, truth: Traffic) -> Outcome:
    """What the meter saw at one device and direction against the truth, flow by flow and ethertype by ethertype."""
    seen = meter[where]
    apart = [
        _apart(seen.protocols, truth.protocols),
        _apart({"": seen.total}, {"": truth.total}),
        _apart(seen.traffic.flows, truth.flows).plus(_apart(seen.traffic.ethertypes, truth.ethertypes)),
    ]
    wrong = Count(max(count.packets for count in apart), max(count.bytes for count in apart))
    return Outcome(scenario, place, truth.total, seen.total, wrong.packets, wrong.bytes)


def counted(scenario: str, place: str, expected: Count, measured: Count) -> Outcome:
    """Two plain counts."""
    wrong = measured.minus(expected)
    return Outcome(scenario, place, expected, measured, abs(wrong.packets), abs(wrong.bytes))


def _apart(ours: Mapping[Key, Count], theirs: Mapping[Key, Count]) -> Count:
    """How far two tables of counts are apart, all keys together."""
    less = {key: Count(-count.packets, -count.bytes) for key, count in theirs.items()}
    apart = add_counts(ours, less).values()
    return Count(sum(abs(count.packets) for count in apart), sum(abs(count.bytes) for count in apart))
