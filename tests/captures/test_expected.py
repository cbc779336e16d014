"""Public captures against what another dissector found in them, on both engines.

The captures are not part of this repository: they are looked for beside it.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wiremeter.captures.file import CaptureFile, Frames
from wiremeter.captures.meter import HostMeter
from wiremeter.cli.main import main
from wiremeter.datapath.interval import Interval, tallies_by_attachment
from wiremeter.flows.batch import Attachment, Audit, FlowBatch
from wiremeter.reports.document import document_lines
from wiremeter.reports.selection import EVERYTHING

from .expectation import differences, expected_holdings, our_holdings, remainder

CAPTURES = Path(__file__).parents[3] / "shared" / "captures"
SUFFIX = ".expected.json"
NAMES = sorted(path.name.removesuffix(SUFFIX) for path in CAPTURES.glob(f"*{SUFFIX}"))
#: Where we count a frame that the reference calls ambiguous, by its reason; the table in docs/replay.md says why.
READINGS = {
    "no-ip-header": {"malformed_ip", "truncated_ip", "truncated_l4", "flow"},
    "ip-ethertype-without-ip": {"malformed_ip", "truncated_ip"},
    "ipv6-chain-cut": {"truncated_ip"},
    "no-l4-header": {"truncated_l4", "truncated_ip", "flow"},
    "bogus-tcp-header-length": {"flow"},
    "bogus-udp-length": {"flow"},
    "no-link-header": {"truncated_l2"},
}
needs_captures = pytest.mark.skipif(not NAMES, reason=f"there are no captures in {CAPTURES}")
REFUSED = {"linktype:radiotap": "IEEE802_11_RADIO"}


@needs_captures
def test_the_captures_are_there() -> None:
    """Where they are not, tests of every one of them are none; CI takes this skip for a failure."""
    assert COUNTED


def expectation(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((CAPTURES / f"{name}{SUFFIX}").read_text())
    return loaded


def is_refused(expected: dict[str, Any]) -> bool:
    return any(name in REFUSED for name in expected["non_ip_by_ethertype"])


COUNTED = [name for name in NAMES if not is_refused(expectation(name))]


def replay(name: str, *options: str) -> str:
    """What `wiremeter replay --format json` prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["replay", str(CAPTURES / name), "--format", "json", *options]) == 0
    return printed.getvalue()


def frames_one_by_one(name: str) -> Iterator[Frames]:
    with CaptureFile(str(CAPTURES / name)) as file:
        for frames in file.frames():
            for number in range(len(frames)):
                yield frames.part(number, number + 1)


class Apart:
    """One capture through the host engine with the frames that may be counted either way set apart."""

    def __init__(self, name: str, ambiguous: dict[int, list[str]]) -> None:
        #: Where each of them was counted by us: an unattributed reason, "flow", or "non_ip".
        self.readings: list[tuple[tuple[str, ...], str]] = []
        self.frames = {"packets": 0, "bytes": 0}
        self.times_ns: set[int] = set()
        alone, others = HostMeter(), Collected()
        for number, frame in enumerate(frames_one_by_one(name), 1):
            reading = read_alone(alone, frame)
            why = tuple(ambiguous.get(number, ()))
            if reading == "truncated_l2":
                why = ("no-link-header",)  # tshark lists it as not IP and without ethertype
            if not why:
                others.count(frame)
                continue
            self.readings.append((why, reading))
            self.frames["packets"] += 1
            self.frames["bytes"] += int(frame.wire[0])
            self.times_ns.add(int(frame.times_ns[0]))
        self.others = others.document()


class Collected:
    """Frames counted by the host engine, as a document."""

    def __init__(self) -> None:
        self._meter = HostMeter()
        self._interval = Interval()

    def count(self, frames: Frames) -> None:
        assert self._meter.count(frames) == len(frames)

    def document(self) -> dict[str, Any]:
        for drain, positions in self._meter.flip():
            self._interval.add(drain, positions)
        flows, seen = self._interval.flows(), self._interval.seen(0)
        attachment = Attachment(0, "capture", 0, "rx", "none")
        of_flows, non_ip = tallies_by_attachment(flows, 1)[0], self._interval.non_ip(0)
        audit = Audit("capture", "rx", seen, of_flows, non_ip, self._interval.unattributed(0))
        counters, ethertypes = self._interval.counters(), self._interval.ethertypes()
        batch = FlowBatch(0, 0, (attachment,), flows, counters, ethertypes, (audit,), mode="capture")
        loaded: dict[str, Any] = json.loads("".join(document_lines(batch, EVERYTHING)))
        return loaded


def read_alone(meter: HostMeter, frame: Frames) -> str:
    """Where the host engine counts one frame."""
    meter.count(frame)
    interval = Interval()
    for drain, positions in meter.flip():
        interval.add(drain, positions)
    if unattributed := interval.unattributed(0):
        (reason,) = unattributed
        return reason
    return "flow" if len(interval.flows()) else "non_ip"


@pytest.mark.parametrize("name", COUNTED)
def test_host_engine_counts_what_is_expected(name: str) -> None:
    expected = expectation(name)
    ambiguous = {row["frame"]: row["why"] for row in expected["ambiguous_frames"]}
    apart = Apart(name, ambiguous)
    if not apart.readings:
        assert differences(expected_holdings(expected), our_holdings([json.loads(replay(name))])) == []
        return
    ours = our_holdings([apart.others])
    assert remainder(expected_holdings(expected), ours, apart.frames, apart.times_ns) == []


@pytest.mark.parametrize("name", COUNTED)
def test_ambiguous_frames_are_read_as_documented(name: str) -> None:
    ambiguous = {row["frame"]: row["why"] for row in expectation(name)["ambiguous_frames"]}
    for why, reading in Apart(name, ambiguous).readings:
        allowed = set[str]().union(*(READINGS[cause] for cause in why))
        assert reading in allowed, f"{why}: {reading}"


@pytest.mark.parametrize("name", COUNTED)
def test_what_is_seen_is_flows_and_non_ip_and_unattributed(name: str) -> None:
    document = json.loads(replay(name))
    for amount in ("packets", "bytes"):
        parts = [*document["unattributed"].values(), *document["flows"], document["families"]["non_ip"]]
        assert document["seen"][amount] == sum(part[amount] for part in parts)
        assert document["families"]["non_ip"][amount] == sum(t[amount] for t in document["ethertypes"].values())


@pytest.mark.kernel
@pytest.mark.parametrize("name", COUNTED)
def test_kernel_engine_prints_the_same_byte_for_byte(name: str) -> None:
    assert replay(name, "--engine", "kernel") == replay(name)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in COUNTED])
def test_other_link_types_are_refused_by_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(CAPTURES / name)]) == 2
    (label,) = expectation(name)["non_ip_by_ethertype"]
    assert REFUSED[label] in capsys.readouterr().err
