"""What a test run must not leave in the kernel: programs, maps, links, filters, pins and namespaces of ours.

Programs of ours are named wm_…; maps are ours when such a program uses them or their name says so; links when they
hold such a program. What a living process outside this test run holds belongs to it and is not counted: two runs
may share a machine.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from . import netns
from .netns import command

PROGRAM_PREFIX = "wm_"
PIN_PREFIXES = ("wm_", "wiremeter")
BPFFS = Path("/sys/fs/bpf")
#: The kernel frees programs and maps after a grace period, from a work queue; on a busy machine that takes seconds.
PATIENCE_SECONDS = 20.0 * netns.PATIENCE


class Thing(NamedTuple):
    """One object in the kernel: "prog", "map", "link" with its id, or "filter", "pin", "namespace" with its place."""

    kind: str
    id: int | str
    name: str


def bpftool(*arguments: str) -> list[dict[str, Any]]:
    """What `bpftool -j` lists. It stumbles over an object that goes while it lists, so it is asked again then."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            listed = json.loads(command("bpftool", "-j", *arguments) or "[]")
        except netns.CommandFailed:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return listed if isinstance(listed, list) else [listed]


def things() -> set[Thing]:
    """All that is ours in the kernel now, whoever uses it."""
    programs = [program for program in bpftool("prog", "list") if program.get("name", "").startswith(PROGRAM_PREFIX)]
    ids = {program["id"] for program in programs}
    used = {number for program in programs for number in program.get("map_ids", [])}
    found = {Thing("prog", program["id"], program["name"]) for program in programs}
    found |= {
        Thing("map", entry["id"], entry.get("name", ""))
        for entry in bpftool("map", "list")
        # Linux (6.18, prog_array_map_clear()) keeps an empty map of programs for ever when its last descriptor is
        # closed twice in a row, as whoever lists maps at that moment makes it: 785 of 227,684 beside two that list.
        if entry.get("type") != "prog_array"
        and (entry["id"] in used or entry.get("name", "").startswith(PROGRAM_PREFIX))
    }
    found |= {
        Thing("link", link["id"], link.get("type", ""))
        for link in bpftool("link", "list")
        if link.get("prog_id") in ids
    }
    found |= {Thing("namespace", name, name) for name in netns.existing()}
    return found | filters() | pins()


def filters() -> set[Thing]:
    """Our tc filters and XDP programs on devices of this namespace; in those of tests they go with the devices."""
    found = set()
    for attached in bpftool("net", "list"):
        for hook in ("xdp", "tc"):
            for entry in attached.get(hook, []):
                if entry.get("name", "").startswith(PROGRAM_PREFIX):
                    found.add(Thing("filter", f"{entry.get('devname')} {entry.get('kind', hook)}", entry["name"]))
    return found


def pins() -> set[Thing]:
    """Pinned objects of ours."""
    with suppress(OSError):
        return {Thing("pin", str(p), p.name) for p in BPFFS.rglob("*") if p.name.startswith(PIN_PREFIXES)}
    return set()


def held_by_others() -> set[tuple[str, int]]:
    """(kind, id) of the BPF objects that processes outside this run hold open."""
    ours = descendants(os.getpid())
    held: set[tuple[str, int]] = set()
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) not in ours:
            held |= held_by(process)
    return held


def held_by(process: Path) -> set[tuple[str, int]]:
    """(kind, id) of the BPF objects that a process holds open, by its /proc folder."""
    held: set[tuple[str, int]] = set()
    with suppress(OSError):
        for entry in (process / "fdinfo").iterdir():
            with suppress(OSError):
                text = entry.read_text()
                held |= {(kind, int(n)) for kind, n in re.findall(r"^(prog|map|link)_id:\s*(\d+)$", text, re.M)}
    return held


def descendants(root: int) -> set[int]:
    """`root` and all processes below it."""
    children: dict[int, list[int]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(process.name))
    found, waiting = set(), [root]
    while waiting:
        process_id = waiting.pop()
        found.add(process_id)
        waiting += children.get(process_id, [])
    return found


def left_since(before: set[Thing]) -> set[Thing]:
    """What of ours is there now, was not there before, and belongs to no other living run."""
    new = things() - before
    if not new:
        return new
    others = held_by_others()
    foreign_programs = {number for kind, number in others if kind == "prog"}
    return {
        thing
        for thing in new
        if (thing.kind, thing.id) not in others
        and not (thing.kind == "link" and _program_of(thing.id) in foreign_programs)
        and not (thing.kind == "map" and _users_of(thing.id) & foreign_programs)
        and not (thing.kind == "namespace" and _is_of_living_other(thing.name))
    }


def _program_of(link: int | str) -> int | None:
    return next((entry.get("prog_id") for entry in bpftool("link", "list") if entry["id"] == link), None)


def _users_of(map_id: int | str) -> set[int]:
    return {program["id"] for program in bpftool("prog", "list") if map_id in program.get("map_ids", [])}


def _is_of_living_other(name: str) -> bool:
    owner = int(name.removeprefix(netns.PREFIX).split("-")[0])
    return owner != os.getpid() and Path("/proc", str(owner)).exists()


@contextmanager
def nothing_left() -> Iterator[None]:
    """Raises AssertionError when the block leaves anything of ours behind, after the kernel had time to free it."""
    before = things()
    yield
    deadline = time.monotonic() + PATIENCE_SECONDS
    left = left_since(before)
    while left:
        if time.monotonic() > deadline:
            raise AssertionError(f"left in the kernel: {sorted(map(str, left))}")
        time.sleep(0.01)
        # What another run let go of between two looks seems to be nobody's once; what we left does each time.
        left &= left_since(before)
