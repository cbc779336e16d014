"""From one agent to the next: tables that are pinned are taken over, what was read and not told is found again.

The kernel engine calls this where it would otherwise make, clear or free something.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wiremeter import __version__
from wiremeter.datapath import records
from wiremeter.datapath.clsact import ClsactFilter
from wiremeter.datapath.drain import Drain
from wiremeter.datapath.engine import Hook
from wiremeter.datapath.journal import Journal
from wiremeter.datapath.layout import TablePlan
from wiremeter.datapath.old_tables import OldTables
from wiremeter.datapath.pins import About, Pins, Slot, Tables, layout_hash, new_tables_word
from wiremeter.errors import InputError
from wiremeter.flows.batch import Mark
from wiremeter.libbpf.attach import Link, program_info
from wiremeter.libbpf.maps import map_memory

if TYPE_CHECKING:
    from wiremeter.datapath.kernel import KernelAttachment

log = logging.getLogger(__name__)


class Restarts:
    """Pins and journal of one agent. A context manager."""

    def __init__(self, directory: Path, state_dir: Path, told: Mark | None = None) -> None:
        """directory: of the pins. state_dir: where a journal is kept. told: what the last agent has told.

        Raises InputError.
        """
        self._pins = Pins(directory)
        try:
            self._journal = Journal(state_dir / "drains", told)
        except OSError as error:
            self._pins.close()
            raise InputError(
                f"cannot keep a journal in {state_dir}: {error.strerror}; --state-dir names one"
            ) from error
        self._older: list[Tables] = []
        self._tables: Tables | None = None
        self._about: About | None = None
        #: As an agent before this one has noted them.
        self.slots: dict[int, Slot] = {}

    def __enter__(self) -> Restarts:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """What is pinned stays. A second call does nothing."""
        for tables in (*self._older, *([self._tables] if self._tables else ())):
            tables.close()
        self._pins.close()

    # -- tables

    def find(self, plan: TablePlan, sizes: Mapping[str, Sequence[int]], control: Mapping[str, int]) -> dict[str, int]:
        """Descriptors of the maps to take over, by name; none: the caller makes new ones, and says so to `made`.

        sizes: of the maps that would be made; control: where the variables are. Those of another layout or size are
        read later, in `read_older`, when nothing counts there any more.
        """
        found = self._pins.found()
        newest = found[-1].about if found else None
        self._about = About(
            wiremeter=__version__,
            tables=newest.tables if newest else new_tables_word(),
            layout=layout_hash(),
            records=records.described(),
            maps={name: list(size) for name, size in sizes.items()},
            control=dict(control),
            lines=plan.lines,
            regions=plan.regions,
            attachments=plan.attachments,
            seed=newest.seed if newest else 0,
        )
        self.slots = found[-1].slots() if found else {}
        self._journal.open(self._about.tables)
        if newest and self._about.can_read(newest):
            self._tables, self._older = found[-1], found[:-1]
            return {name: self._tables.map_fd(name) for name in sizes}
        self._older = found
        return {}

    @property
    def tables(self) -> str:
        """What the tables are called."""
        return self._about.tables if self._about else ""

    @property
    def seed(self) -> int | None:
        """Of the tables to take over; None where they are new."""
        return self._tables.about.seed if self._tables else None

    @property
    def first_flip(self) -> int:
        """The number of the first flip of new tables: past those of older ones, with one between."""
        flips = [self._flip_of(tables) for tables in self._older]
        return max(flips) + 2 if flips else 0

    def made(self, maps: Mapping[str, int], seed: int) -> None:
        """Pins new tables; they count for the slots of those before."""
        assert self._about
        if self._older:
            last = self._older[-1].about
            log.warning(
                "the pinned tables are of another layout or size: they are read once more and replaced",
                extra={"by": last.wiremeter, "layout": last.layout, "lines": last.lines},
            )
        fitting = {number: slot for number, slot in self.slots.items() if number < self._about.attachments}
        self._tables = self._pins.make(self._about.with_seed(seed), maps, fitting)

    def note(self, attachment: KernelAttachment) -> None:
        """Says to the next agent whose counts a slot has, before any come."""
        assert self._tables
        held = attachment.held_by
        is_filter = attachment.hook.mode == "clsact"
        qdisc_made = isinstance(held, ClsactFilter) and held.qdisc_made
        self._tables.set_slot(attachment.slot, Slot(attachment.hook, is_filter, qdisc_made))

    def note_free(self, slot: int) -> None:
        """No counts of a slot can come any more."""
        assert self._tables
        self._tables.set_slot(slot, None)

    # -- programs and links

    def keep(self, attachment: KernelAttachment) -> None:
        """Pins what is attached."""
        held = attachment.held_by
        self._pins.keep(
            attachment.slot, program_fd=attachment.program_fd, link_fd=held.fd if isinstance(held, Link) else -1
        )
        if isinstance(held, ClsactFilter):
            self.note(attachment)

    def drop(self, attachment: KernelAttachment) -> None:
        """Takes an attachment's pins away: it is detached when its descriptors are closed."""
        self._pins.drop(attachment.slot)

    def clean(self) -> None:
        """Takes pins away that belong to no slot."""
        self._pins.drop_all_but(list(self.slots))

    def exchange(self, slot: int, noted: Slot, program_fd: int) -> Link | ClsactFilter | None:
        """Puts a program in the place of what an agent before this one has attached, and pins it.

        None where that is gone. Raises KernelError or PermissionNeeded.
        """
        held: Link | ClsactFilter | None = None
        before = self._pins.program_fd(slot)
        try:
            if noted.is_filter and before >= 0:
                held = ClsactFilter.adopt(
                    program_fd,
                    noted.hook.ifindex,
                    noted.hook.direction == "tx",
                    instead_of=program_info(before).id,
                    qdisc_made=noted.qdisc_made,
                )
            elif (fd := self._pins.link_fd(slot)) >= 0:
                link = Link.of(fd)
                if link.is_severed:
                    link.close()
                else:
                    link.update(program_fd)
                    held = link
        finally:
            if before >= 0:
                os.close(before)
        if held:
            self._pins.keep(slot, program_fd=program_fd)
        return held

    def forget_slot(self, slot: int) -> None:
        """Takes away what is pinned for a slot."""
        self._pins.drop(slot)

    # -- drains

    def has(self, flip: int) -> bool:
        """Whether what a flip brought was kept: then it must only be cleared."""
        return self._journal.has(flip)

    def put(self, drain: Drain, hooks: Mapping[int, Hook]) -> None:
        """Keeps a drain until it is told."""
        self._journal.put(drain, hooks)

    def waiting(self) -> list[tuple[Drain, dict[int, Hook]]]:
        """What was not told, oldest first, with the hooks of its slots."""
        return list(self._journal.waiting())

    def told(self, mark: Mark) -> None:
        """All up to there has been told: it will not be again."""
        self._journal.forget(mark)

    @property
    def told_until_ns(self) -> int:
        """The end of what was told; 0 where it is not known."""
        told = self._journal.told
        return told.end_ns if told else 0

    def read_older(self, tick_ns: int, origin_ns: int, now_ns: int) -> None:
        """Reads tables that were replaced, each half that was not, and removes them. Nothing counts there any more."""
        for tables in self._older:
            flip = self._flip_of(tables)
            about = tables.about
            left = [each for each in (flip - 1, flip) if each >= 0 and not self.has(each)]
            try:
                with contextlib.ExitStack() as opened:
                    reader = self._reader(tables, opened) if left else None
                    hooks = {number: slot.hook for number, slot in tables.slots().items()}
                    for each in left:
                        assert reader
                        drain = reader.read(each & 1, tick_ns, origin_ns)
                        drain.flip, drain.ended_ns = each, now_ns
                        self.put(drain, hooks)
                    del reader
            except (ValueError, KeyError, TypeError, IndexError) as error:
                log.error(
                    "what was counted since the last agent ended is in tables that cannot be read, and is lost",
                    extra={"by": about.wiremeter, "layout": about.layout, "why": str(error)},
                )
            self._pins.remove(tables)
        self._older = []

    def _reader(self, tables: Tables, opened: contextlib.ExitStack) -> OldTables:
        about = tables.about

        def memory(name: str) -> mmap.mmap:
            fd = tables.map_fd(name)
            opened.callback(os.close, fd)
            _, _, value_bytes, entries, _ = about.maps[name]
            return map_memory(fd, value_bytes * entries)

        plan = about.lines, about.regions, about.attachments
        return OldTables(about.records, plan, memory("wm_tables"), memory("wm_overflow"))

    @staticmethod
    def _flip_of(tables: Tables) -> int:
        fd = tables.map_fd(".data.control")
        try:
            control = map_memory(fd, mmap.PAGESIZE)
            return int(np.frombuffer(control, "u4", 1, tables.about.control["wm_epoch"])[0])
        finally:
            os.close(fd)
