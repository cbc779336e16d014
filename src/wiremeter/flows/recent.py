"""What went on lately: averages over the last seconds, sums and peaks, of devices, of flows and of names."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from wiremeter.flows.batch import FlowBatch
from wiremeter.flows.by_name import sums_by_label
from wiremeter.flows.columns import Direction
from wiremeter.flows.top import DeviceRate, is_rx
from wiremeter.names.records import FlowName

#: Seconds that averages are over, as iftop has them; and so how far back is remembered.
WINDOWS = (2.0, 10.0, 40.0)
#: Flows, and names, of one interval that are remembered: the largest.
FLOWS_KEPT = 4096

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, its bits well mixed
_Place = tuple[str, Direction]


class _Interval(NamedTuple):
    seconds: float
    bytes: Mapping[_Place, int]


class DeviceSums:
    """Of each device and direction: bytes since the start, the highest rate, averages. A device that is gone stays."""

    def __init__(self) -> None:
        self._intervals: deque[_Interval] = deque()
        self._bytes: dict[_Place, int] = {}
        self._peaks: dict[_Place, float] = {}

    def add(self, rates: Iterable[DeviceRate], seconds: float) -> None:
        """Takes in one interval."""
        now = {(rate.device, rate.direction): rate for rate in rates}
        for place, rate in now.items():
            self._bytes[place] = self._bytes.get(place, 0) + rate.audit.seen.bytes
            self._peaks[place] = max(self._peaks.get(place, 0.0), rate.bits_per_second)
        gained = {place: rate.audit.seen.bytes for place, rate in now.items()}
        self._intervals.appendleft(_Interval(seconds, gained))
        _forget(self._intervals)

    def bytes(self, device: str, direction: Direction) -> int:
        """Since the start."""
        return self._bytes.get((device, direction), 0)

    def peak(self, device: str, direction: Direction) -> float:
        """The highest rate of any interval since the start, in bits per second."""
        return self._peaks.get((device, direction), 0.0)

    def averages(self, device: str, direction: Direction) -> list[float]:
        """Over each of WINDOWS, in bits per second; over what there is, where that is less, or one interval is more."""
        amounts = [interval.bytes.get((device, direction), 0) for interval in self._intervals]
        spans = _spans([interval.seconds for interval in self._intervals])
        return [8 * sum(amounts[:count]) / seconds for count, seconds in spans]


_Timed = TypeVar("_Timed", _Interval, "_Kept")


class _Kept(NamedTuple):
    """Flows of one interval. keys: shape (n,), ascending; bytes: shape (n,)."""

    seconds: float
    keys: NDArray[np.uint64]
    bytes: NDArray[np.uint64]


class _Amounts:
    """Bytes of whatever has a key: in each of the latest intervals, and since each was first seen.

    Of an interval with more than `kept` of them the smaller ones count as 0.
    """

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._intervals: deque[_Kept] = deque()
        self._keys = np.zeros(0, np.uint64)
        self._sums = np.zeros(0, np.uint64)

    def add(self, keys: NDArray[np.uint64], amounts: NDArray[np.uint64], seconds: float) -> None:
        """Takes in one interval; keys, amounts: shape (n,), each key once."""
        if len(keys) > self._kept:
            largest = np.argpartition(amounts, -self._kept)[-self._kept :]
            keys, amounts = keys[largest], amounts[largest]
        order = np.argsort(keys)
        self._intervals.appendleft(_Kept(seconds, keys[order], amounts[order]))
        _forget(self._intervals)
        recent = np.concatenate([interval.keys for interval in self._intervals])
        lasting = np.isin(self._keys, recent)
        known = np.concatenate([self._keys[lasting], keys])
        added = np.concatenate([self._sums[lasting], amounts])
        self._keys, places = np.unique(known, return_inverse=True)
        self._sums = np.zeros(len(self._keys), np.uint64)
        np.add.at(self._sums, places, added)

    def averages(self, keys: NDArray[np.uint64]) -> NDArray[np.float64]:
        """Bytes per second over each of WINDOWS: shape (len(keys), len(WINDOWS))."""
        none = np.zeros(len(keys), np.uint64)
        amounts = [_found(one.keys, one.bytes, keys) for one in self._intervals]
        spans = _spans([interval.seconds for interval in self._intervals])
        return np.stack([sum(amounts[:count], none) / seconds for count, seconds in spans], axis=1)

    def sums(self, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Bytes since each was first seen, and again after it had none for as long as the longest window."""
        return _found(self._keys, self._sums, keys)


class FlowSums:
    """Averages and sums of flows. Of an interval with more than FLOWS_KEPT flows the smaller ones count as 0.

    A flow's sum begins when it is first seen, and again when it had no packet for as long as the longest window.
    """

    def __init__(self, kept: int = FLOWS_KEPT) -> None:
        self._kept = kept
        self._amounts = _Amounts(kept)
        # So that nobody can send flows that are taken for each other.
        self._secret = np.uint64(secrets.randbits(64))

    def add(self, batch: FlowBatch) -> None:
        """Takes in one interval."""
        flows = batch.flows
        if len(flows) > self._kept:
            flows = flows[np.argpartition(flows["bytes"], -self._kept)[-self._kept :]]
        keys = self._keys_of(batch, flows, "src", "dst", is_rx(batch)[flows["attachment"]])
        self._amounts.add(keys, flows["bytes"], batch.seconds)

    def averages(self, batch: FlowBatch, rows: NDArray[np.void]) -> NDArray[np.float64]:
        """Bytes per second of flows or conversations over each of WINDOWS: shape (len(rows), len(WINDOWS)).

        rows: of the latest batch, dtype FLOW or CONVERSATION.
        """
        return np.sum([self._amounts.averages(keys) for keys in self._halves(batch, rows)], axis=0)  # type: ignore[no-any-return]

    def sums(self, batch: FlowBatch, rows: NDArray[np.void]) -> NDArray[np.uint64]:
        """Bytes of flows or conversations since they were first seen: shape (len(rows),)."""
        return np.sum([self._amounts.sums(keys) for keys in self._halves(batch, rows)], axis=0)  # type: ignore[no-any-return]

    def _halves(self, batch: FlowBatch, rows: NDArray[np.void]) -> list[NDArray[np.uint64]]:
        """The keys of each row's flows: one, or two for a conversation."""
        if "local_addr" not in (rows.dtype.names or ()):
            return [self._keys_of(batch, rows, "src", "dst", is_rx(batch)[rows["attachment"]])]
        yes = np.ones(len(rows), np.bool_)
        return [
            self._keys_of(batch, rows, "remote", "local", yes),
            self._keys_of(batch, rows, "local", "remote", ~yes),
        ]

    def _keys_of(
        self, batch: FlowBatch, rows: NDArray[np.void], src: str, dst: str, received: NDArray[np.bool_]
    ) -> NDArray[np.uint64]:
        """What tells a flow from others in whichever batch: shape (len(rows),)."""
        devices = np.array([attachment.ifindex for attachment in batch.attachments], "u8")
        ends = [np.ascontiguousarray(rows[f"{side}_addr"]).view("u8") for side in (src, dst)]
        ports = rows[f"{src}_port"].astype("u8") << np.uint64(16) | rows[f"{dst}_port"]
        kind = rows["protocol"].astype("u8") << np.uint64(8) | rows["family"]
        place = devices[rows["attachment"]] << np.uint64(17) | rows["vlan"].astype("u8") << np.uint64(1) | received
        keys = np.full(len(rows), self._secret)
        for column in (*(end[:, half] for end in ends for half in (0, 1)), ports, kind, place):
            keys = (keys ^ column) * _MULTIPLIER
            keys ^= keys >> np.uint64(32)
        return keys


class NameSums:
    """Averages by name, such as by domain.

    Of an interval with more than FLOWS_KEPT names the smaller ones count as 0.
    """

    def __init__(self, label: Callable[[FlowName], str | None], kept: int = FLOWS_KEPT) -> None:
        """label: what flows are added up by."""
        self._label = label
        self._amounts = _Amounts(kept)

    def add(self, names: Sequence[FlowName], amounts: NDArray[np.uint64], seconds: float) -> None:
        """Takes in one interval. amounts: the bytes of each of `names`, shape (len(names),)."""
        labels, sums = sums_by_label(map(self._label, names), amounts[:, None])
        self._amounts.add(_label_keys(labels), sums[:, 0], seconds)

    def averages(self, labels: Sequence[str | None]) -> NDArray[np.float64]:
        """Bytes per second over each of WINDOWS: shape (len(labels), len(WINDOWS))."""
        return self._amounts.averages(_label_keys(labels))


def _label_keys(labels: Sequence[str | None]) -> NDArray[np.uint64]:
    # Python's hash of text is keyed anew in each process (PEP 456).
    return np.fromiter(map(hash, labels), np.int64, len(labels)).view(np.uint64)


def _found(known: NDArray[np.uint64], amounts: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The amount of each of `keys`, 0 if it is not among `known`, which ascends."""
    if not len(known):
        return np.zeros(len(keys), np.uint64)
    at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[at] == keys, amounts[at], np.uint64(0))


def _spans(seconds: list[float]) -> list[tuple[int, float]]:
    """For each of WINDOWS how many of the latest intervals it takes, and how long they are together."""
    spans = []
    for window in WINDOWS:
        count, covered = 0, 0.0
        while count < len(seconds) and (not count or covered + seconds[count] / 2 <= window):
            covered += seconds[count]
            count += 1
        spans.append((count, covered or 1.0))
    return spans


def _forget(intervals: deque[_Timed]) -> None:
    """Drops what no window reaches."""
    covered = 0.0
    for at, interval in enumerate(intervals):
        covered += interval.seconds
        if covered >= WINDOWS[-1] + interval.seconds:
            while len(intervals) > at + 1:
                intervals.pop()
            return
