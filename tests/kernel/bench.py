"""Frames in, counts out: the meter's programs on every hook, run on frames that no device ever saw."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import NamedTuple

from wiremeter.datapath.drain import Drain
from wiremeter.datapath.engine import Hook
from wiremeter.datapath.interval import Interval, tallies_by_attachment
from wiremeter.datapath.kernel import KernelAttachment, KernelEngine
from wiremeter.flows.batch import Audit
from wiremeter.flows.columns import AttachMode, Direction

from .reference import Counts, count_drain

#: Regions enough for whatever CPU a packet runs on.
CPUS = os.sysconf("SC_NPROCESSORS_CONF")


class Entry(NamedTuple):
    """A program's way in: how it is loaded, and the verdict that lets a packet pass on unchanged."""

    direction: Direction
    mode: AttachMode
    verdict: int


ENTRIES = {
    "tc ingress": Entry("rx", "tcx", 0xFFFFFFFF),  # TCX_NEXT, and TC_ACT_UNSPEC under clsact
    "tc egress": Entry("tx", "tcx", 0xFFFFFFFF),
    "XDP": Entry("rx", "xdp", 2),  # XDP_PASS
}
TC = ("tc ingress", "tc egress")
TC_BYTES_MAX = 3500  # of a test run: what fits a page beside headroom and skb_shared_info, with some to spare
IP_HEADER_BYTES = {0x0800: 20, 0x86DD: 40}


def load_only(engine: KernelEngine, direction: Direction, mode: AttachMode, l2_bytes: int = 14) -> KernelAttachment:
    """A program that is on no device."""
    return engine.attach(Hook("nowhere", 0, direction, mode, l2_bytes, load_only=True))


def is_accepted(entry: str, frame: bytes) -> bool:
    """Whether a test run takes this frame: tc's wants a whole IP header where the Ethernet header promises one."""
    if len(frame) < 14:
        return False
    promised = IP_HEADER_BYTES.get(int.from_bytes(frame[12:14], "big"), 0)
    return entry not in TC or 14 + promised <= len(frame) <= TC_BYTES_MAX


class Bench:
    """An engine and one program for each entry."""

    def __init__(self, engine: KernelEngine, l2_bytes: int = 14, entries: Collection[str] = tuple(ENTRIES)) -> None:
        self.engine = engine
        self.programs = {
            name: load_only(engine, ENTRIES[name].direction, ENTRIES[name].mode, l2_bytes) for name in entries
        }

    def run(self, entry: str, frame: bytes, *, repeat: int = 1, gso_size: int = 0) -> None:
        """Through one program, which must pass it on."""
        found = self.programs[entry].run(frame, repeat=repeat, gso_size=gso_size)
        assert found.verdict == ENTRIES[entry].verdict, f"{entry} gave verdict {found.verdict:#x} to {frame.hex()}"

    def run_all(self, frame: bytes, *, gso_size: int = 0) -> list[str]:
        """Through every program that takes such a frame; returns their names."""
        entries = [name for name in self.programs if is_accepted(name, frame)]
        for name in entries:
            self.run(name, frame, gso_size=gso_size)
        return entries

    def take(self) -> dict[str, Counts]:
        """What each program has counted since the last time; the audit of each must balance."""
        drain = self.engine.flip()
        counts = {name: count_drain(drain, program.slot) for name, program in self.programs.items()}
        for audit in audits(drain, self.programs):
            assert audit.balanced, f"{audit.device}: missing {audit.missing} of {audit}"
        return counts


def audits(drain: Drain, programs: dict[str, KernelAttachment]) -> list[Audit]:
    """Seen = flows + non-IP + unattributed, by program, as a batch would say it."""
    interval = Interval()
    interval.add(drain, {program.slot: position for position, program in enumerate(programs.values())})
    in_flows = tallies_by_attachment(interval.flows(), len(programs))
    return [
        Audit(
            device=name,
            direction=program.hook.direction,
            seen=interval.seen(position),
            flows=in_flows[position],
            non_ip=interval.non_ip(position),
            unattributed=interval.unattributed(position),
        )
        for position, (name, program) in enumerate(programs.items())
    ]
