"""What outlives the agent in a bpffs: tables, programs and links, and what the next agent has to know of them.

    DIRECTORY/                      locked by the agent that runs
        v1/                         the version of all this
            tables-N/NAME           maps; a greater N replaces those before, which are read once more and removed
            tables-N/slots          whose counts each slot has, as JSON in a map
        tables-N/about          what they are, as JSON in a map: pinned last, so without it the rest is nothing
            programs/SLOT, links/SLOT

Names in a bpffs have no dots. What is here is gone after a reboot.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from wiremeter.datapath import records
from wiremeter.datapath.engine import Hook
from wiremeter.errors import InputError, KernelError, PermissionNeeded
from wiremeter.libbpf.pins import is_bpffs, make_array, map_size, pin, pinned, read_value, write_value

DEFAULT_DIRECTORY = Path("/sys/fs/bpf/wiremeter")
VERSION = "v1"
_ABOUT = "about"
_SLOTS = "slots"
_ABOUT_BYTES, _SLOT_BYTES = 32 << 10, 512
_PLAN = ("lines", "regions", "attachments")
_TABLES = re.compile(r"tables-(\d{1,9})")


def layout_hash() -> str:
    """Of the records that this wiremeter reads: two that differ in it cannot read one another's tables as their own."""
    return hashlib.sha256(json.dumps(records.described(), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Slot:
    """Whose counts a slot has. is_filter: a clsact filter holds the program; qdisc_made: and its qdisc is ours."""

    hook: Hook
    is_filter: bool = False
    qdisc_made: bool = False


@dataclass(frozen=True, slots=True)
class About:
    """What the next agent has to know. tables: a random word, the same in all that replace one another.

    layout: hash of the records; records: they themselves, as records.described. maps: sizes of each. control: where
    the variables are that user space sets. lines, regions, attachments: the plan. seed: of the hash's keys.
    """

    wiremeter: str
    tables: str
    layout: str
    records: Mapping[str, Any]
    maps: Mapping[str, Sequence[int]]
    control: Mapping[str, int]
    lines: int
    regions: int
    attachments: int
    seed: int

    @property
    def has_our_layout(self) -> bool:
        """Whether its records are those that this wiremeter reads."""
        return self.layout == layout_hash()

    @property
    def table_bytes(self) -> int:
        """Memory of the tables."""
        return sum(self.maps[name][2] * self.maps[name][3] for name in ("wm_tables", "wm_overflow"))

    def can_read(self, other: About) -> bool:
        """Whether tables of `other` are as ours would be."""
        return all(getattr(self, name) == getattr(other, name) for name in ("layout", "maps", "control", *_PLAN))

    def with_seed(self, seed: int) -> About:
        """The same with another seed."""
        return replace(self, seed=seed)

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> About:
        """Raises ValueError, KeyError or TypeError for what is none."""
        return cls(**json.loads(raw.rstrip(b"\0")))


class Tables:
    """One set of pinned maps."""

    def __init__(self, path: Path, about: About, slots_fd: int) -> None:
        self.path = path
        self.about = about
        self._slots_fd = slots_fd

    def map_fd(self, name: str) -> int:
        """To be closed. Raises KernelError, also where there is none."""
        fd = pinned(self.path / _pin_name(name))
        if fd < 0:
            raise KernelError(
                f"{self.path} has no {name}: somebody removed it; `wiremeter detach` removes the rest",
                call="BPF_OBJ_GET",
                errno=errno.ENOENT,
            )
        return fd

    def slots(self) -> dict[int, Slot]:
        """Whose counts each slot has. Raises ValueError, KeyError or TypeError where that cannot be read."""
        found = {}
        for number in range(self.about.attachments):
            raw = read_value(self._slots_fd, _SLOT_BYTES, number).rstrip(b"\0")
            if raw:
                plain = json.loads(raw)
                found[number] = Slot(Hook(**plain["hook"]), plain["is_filter"], plain["qdisc_made"])
        return found

    def set_slot(self, number: int, slot: Slot | None) -> None:
        """None: no counts of it can come any more."""
        raw = json.dumps(asdict(slot), separators=(",", ":")).encode() if slot else b""
        write_value(self._slots_fd, raw.ljust(_SLOT_BYTES, b"\0"), number)

    def close(self) -> None:
        """Frees the descriptor; what is pinned stays."""
        if self._slots_fd >= 0:
            os.close(self._slots_fd)
            self._slots_fd = -1


class Pins:
    """A directory of pins, for one agent at a time."""

    def __init__(self, directory: Path) -> None:
        """Makes and locks it. Raises InputError where it is in no bpffs, or another agent has it."""
        self.directory = directory
        self._lock = -1
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not is_bpffs(directory):
                raise InputError(
                    f"{directory} is not in a bpffs, so nothing can be pinned there: take a directory below "
                    "/sys/fs/bpf, after `mount -t bpf bpf /sys/fs/bpf` if nobody has mounted one"
                )
            self._lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise InputError(
                f"cannot pin at {directory}: {error.strerror}; --pin takes a directory in a bpffs, such as "
                f"{DEFAULT_DIRECTORY}, that this process may write"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise InputError(
                f"another wiremeter has the pins at {directory}: two would take one another's counts. End it, or "
                "give this one another --pin directory"
            ) from error
        self._root = directory / VERSION
        for part in ("", "links", "programs"):
            (self._root / part).mkdir(mode=0o700, exist_ok=True)

    def __enter__(self) -> Pins:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Unlocks; what is pinned stays. A second call does nothing."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # -- tables

    def found(self) -> list[Tables]:
        """All sets of tables, the newest last. Those that were never finished are removed."""
        tables = []
        for path in _tables_in(self._root):
            found = _open(path)
            if found is None:
                _remove(path)
            else:
                tables.append(found)
        return tables

    def make(self, about: About, maps: Mapping[str, int], slots: Mapping[int, Slot]) -> Tables:
        """Pins new tables, which are the newest from then on. Raises KernelError."""
        numbers = [_number(path) for path in _tables_in(self._root)]
        path = self._root / f"tables-{max(numbers, default=0) + 1}"
        path.mkdir(mode=0o700)
        for name, fd in maps.items():
            pin(fd, path / _pin_name(name))
        tables = Tables(path, about, make_array("wm_slots", _SLOT_BYTES, about.attachments))
        for number, slot in slots.items():
            tables.set_slot(number, slot)
        pin(tables._slots_fd, path / _SLOTS)
        about_fd = make_array("wm_about", _ABOUT_BYTES)
        try:
            write_value(about_fd, about.to_bytes().ljust(_ABOUT_BYTES, b"\0"))
            pin(about_fd, path / _ABOUT)
        finally:
            os.close(about_fd)
        return tables

    def remove(self, tables: Tables) -> None:
        """Takes tables away that have been read."""
        tables.close()
        _remove(tables.path)

    # -- programs and links

    def keep(self, slot: int, *, program_fd: int, link_fd: int = -1) -> None:
        """Pins a slot's program, in the place of another, and its link where it is new. Raises KernelError."""
        part = self._root / "programs" / "new"
        part.unlink(missing_ok=True)
        pin(program_fd, part)
        part.rename(self._root / "programs" / str(slot))
        if link_fd >= 0:
            pin(link_fd, self._root / "links" / str(slot))

    def program_fd(self, slot: int) -> int:
        """To be closed; -1 where there is none."""
        return pinned(self._root / "programs" / str(slot))

    def link_fd(self, slot: int) -> int:
        """To be closed; -1 where there is none."""
        return pinned(self._root / "links" / str(slot))

    def drop(self, slot: int) -> None:
        """Forgets a slot's program and link: the link is gone when its last descriptor is."""
        for kind in ("links", "programs"):
            (self._root / kind / str(slot)).unlink(missing_ok=True)

    def drop_all_but(self, slots: Sequence[int]) -> None:
        """What nobody knows of: the agent was killed in between."""
        known = set(map(str, slots))
        for kind in ("links", "programs"):
            for path in (self._root / kind).iterdir():
                if path.name not in known:
                    path.unlink()


class Removed(NamedTuple):
    """What was pinned, and how many links were among it."""

    tables: tuple[About, ...] = ()
    links: int = 0


def remove_all(directory: Path) -> Removed:
    """Removes all that was pinned, of any version, and the directory.

    Raises InputError where an agent runs with it, PermissionNeeded where this process may not see it.
    """
    try:
        if not directory.is_dir() or not is_bpffs(directory):
            return Removed()
    except PermissionError as error:
        raise PermissionNeeded(f"cannot look for pins at {directory}: run as root") from error
    with Pins(directory) as pins:
        tables = pins.found()
        for each in tables:
            each.close()
        links = len(list(directory.glob("*/links/*")))
        for version in directory.glob("v*"):
            _remove(version)
        with contextlib.suppress(OSError):  # a mount point stays
            directory.rmdir()
    return Removed(tuple(each.about for each in tables), links)


@dataclass(frozen=True, slots=True)
class Seen:
    """What doctor says of a directory of pins. is_in_use: an agent runs with it."""

    directory: Path
    tables: tuple[About, ...]
    links: int
    is_in_use: bool


def look(directory: Path) -> Seen | None:
    """What is pinned; None where nothing is, or nothing that this process may see. Changes nothing."""
    root = directory / VERSION
    try:
        tables = [found for path in _tables_in(root) if (found := _open(path))]
    except (OSError, KernelError, PermissionNeeded):
        return None
    for each in tables:
        each.close()
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_in_use = False
    except BlockingIOError:
        is_in_use = True
    finally:
        os.close(lock)
    links = len(list((root / "links").iterdir()))
    return Seen(directory, tuple(each.about for each in tables), links, is_in_use) if tables else None


def new_tables_word() -> str:
    """What new tables are called."""
    return secrets.token_hex(8)


def _pin_name(name: str) -> str:
    return name.rpartition(".")[2]


def _number(path: Path) -> int:
    matched = _TABLES.fullmatch(path.name)
    return int(matched[1]) if matched else -1


def _tables_in(root: Path) -> Iterator[Path]:
    return iter(sorted((path for path in root.iterdir() if _number(path) >= 0), key=_number))


def _open(path: Path) -> Tables | None:
    fd = pinned(path / _ABOUT)
    if fd < 0:
        return None
    try:
        about = About.from_bytes(read_value(fd, map_size(fd)))
        return Tables(path, about, pinned(path / _SLOTS))
    except (ValueError, KeyError, TypeError):
        return None
    finally:
        os.close(fd)


def _remove(path: Path) -> None:
    for each in path.iterdir():
        if each.is_dir():
            _remove(each)
        else:
            each.unlink()
    path.rmdir()
