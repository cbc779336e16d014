"""An open meter over an engine, devices and clocks that are made up: what goes into a batch, and when it comes."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from wiremeter.datapath import records
from wiremeter.datapath.drain import Drain
from wiremeter.datapath.engine import Lasts
from wiremeter.datapath.layout import plan_tables
from wiremeter.datapath.naming import NO_NAMES, NameOptions, NoNaming
from wiremeter.errors import KernelError
from wiremeter.flows.batch import Attachment, Mark, Tally
from wiremeter.flows.columns import ETHERTYPE_COUNTER
from wiremeter.linux.clock import WallClock
from wiremeter.linux.devices import ARPHRD_ETHER, ARPHRD_LOOPBACK, Device
from wiremeter.linux.host import HostFacts
from wiremeter.metering.auditor import Auditor
from wiremeter.metering.early_flips import EarlyFlips
from wiremeter.metering.session import Options, Session, Wake, _most_flows
from wiremeter.metering.tracker import Metered
from wiremeter.names.payloads import PayloadBlock, packed

from ..linux.test_clock import HOUR, Clocks
from ..names.payload_records import key, payload

OPTIONS = Options(("*",), 0.05, "auto", None, Path("none"), False, 4, 1 << 20, NO_NAMES, False)


class Event:
    """A descriptor that is readable once `tell` was called, until it was read."""

    def __init__(self) -> None:
        self._event = os.eventfd(0, os.EFD_NONBLOCK)

    def fileno(self) -> int:
        return self._event

    def tell(self) -> None:
        os.eventfd_write(self._event, 1)

    def read(self) -> bool:
        try:
            return bool(os.eventfd_read(self._event))
        except BlockingIOError:
            return False

    take = read


class Engine:
    """Counts what a test gives to its slots."""

    table_bytes = 0
    lasts: Lasts | None = None

    def __init__(self) -> None:
        self.recovered: list[Drain] = []
        self.marks: list[Mark] = []
        self.payload_rings: tuple[Event, ...] = ()
        self.payload_times: Iterator[int] | None = None  # they come without an end
        self.plan = plan_tables(1, 256, attachments=4)
        self.flip_requests = Event()
        self.flips = 0
        self.on_flip: Callable[[], None] = lambda: None
        self.owners: dict[int, object] = {}
        self._counted = np.zeros((4, records.ROWS, 3), np.uint64)

    def count(self, slot: int, packets: int) -> None:
        self._counted[slot, records.ROW_IPV4 + 6] += np.array([packets, 60 * packets, packets], np.uint64)

    def flip(self, turned: Callable[[], None] | None = None) -> Drain:
        if turned:
            turned()
        counters, self._counted = self._counted, np.zeros_like(self._counted)
        self.flips += 1
        self.on_flip()
        return Drain(counters, [], np.zeros(0, ETHERTYPE_COUNTER), owners=dict(self.owners))

    def take_recovered(self) -> list[Drain]:
        return self.recovered

    def told(self, mark: Mark) -> None:
        self.marks.append(mark)

    def holds(self, attachment: object) -> bool:
        return attachment in self.owners.values()

    def give_ring(self) -> Event:
        self.payload_rings = (Event(),)
        return self.payload_rings[0]

    def take_payloads(self, ring: Event) -> PayloadBlock:
        if not ring.read() and not self.payload_times:
            return packed(())
        at_ns = next(self.payload_times) if self.payload_times else 0
        return packed([payload(key(), b"payload", at_ns=at_ns)])


class Names(NoNaming):
    """What payloads were last said to belong to."""

    devices: Mapping[int, int] | None = None
    fed = 0

    def feed(self, block: PayloadBlock, devices: Mapping[int, int] | None = None) -> None:
        self.devices = devices
        self.fed += 1


class Slot:
    """What the engine has of an attachment."""

    def __init__(self, slot: int) -> None:
        self.slot = slot


class Devices:
    """A tracker and what it tracks: one attachment after the other."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.metered: list[Metered] = []
        self.wanted: list[tuple[int, str, int]] = []
        self.let_go: list[Metered] = []
        self.refreshes = 0
        self.refusals: list[KernelError] = []
        self.adopted: dict[object, Attachment] = {}

    def attachment_of(self, kernel: object) -> Attachment:
        return next(m.attachment for m in self.metered if m.kernel is kernel)

    def add(self, id: int, name: str, slot: int, arphrd: int = ARPHRD_ETHER) -> None:
        device = Device(name, 10 + id, arphrd=arphrd)
        attachment = Attachment(id, name, device.ifindex, "rx", "tcx")
        kernel = self._engine.owners[slot] = Slot(slot)
        self.metered.append(Metered(attachment, cast(Any, kernel), device))

    def release(self, id: int) -> None:
        (gone,) = (m for m in self.metered if m.attachment.id == id)
        self.metered.remove(gone)
        self.let_go.append(gone)

    @property
    def waiting(self) -> int:
        return len(self.wanted)

    def attach_some(self) -> None:
        self.add(*self.wanted.pop(0))

    def take_let_go(self) -> list[Metered]:
        let_go, self.let_go = self.let_go, []
        return let_go

    def refresh(self) -> None:
        self.refreshes += 1
        if self.refusals:
            raise self.refusals.pop()

    def displaced(self) -> tuple[str, ...]:
        return ()


class Parts:
    def __init__(self) -> None:
        self.engine, self.watch, self.clocks = Engine(), Event(), Clocks()
        self.devices = Devices(self.engine)
        self.devices.add(7, "eth0", 0)
        self.early = EarlyFlips(cast(Any, self.engine))
        self.names = Names()

    @contextlib.contextmanager
    def open(self) -> Iterator[Session]:
        source = SimpleNamespace(counters=dict, qdiscs=dict)
        with self.early, contextlib.closing(Wake()) as wake:
            session = Session(
                cast(Any, self.engine),
                cast(Any, self.devices),
                Auditor(source),
                self.early,
                cast(Any, self.watch),
                self.names,
                wake,
                WallClock(self.clocks.monotonic_ns, self.clocks.wall_ns),
                OPTIONS,
            )
            with contextlib.closing(session):
                yield session


@pytest.fixture
def parts() -> Parts:
    return Parts()


def seen(session: Session) -> dict[str, int]:
    batch = session.next_batch()
    assert batch
    return {audit.device: audit.seen.packets for audit in batch.audit}


def test_pinned_tables_bring_first_what_was_counted_before_the_first_interval(parts: Parts) -> None:
    """What agents before have read and not told, each flip a batch of its own; then what waited in the tables."""
    parts.engine.lasts = Lasts("abc", 5)
    parts.engine.count(0, 3)
    kept = parts.engine.flip()
    kept.flip, kept.ended_ns = 6, 17
    parts.engine.recovered = [kept]
    parts.engine.count(0, 4)
    with parts.open() as session:
        parts.engine.count(0, 5)
        batches = [batch for _ in range(3) if (batch := session.next_batch())]
        session.told(Mark("abc", 6, 17))
    assert [batch.audit[0].seen.packets for batch in batches] == [3, 4, 5]
    assert (batches[0].start_ns, batches[0].end_ns, batches[0].mark) == (5, 17, Mark("abc", 6, 17))
    assert batches[1].start_ns == 17 or batches[1].start_ns == batches[1].end_ns
    assert parts.engine.marks == [Mark("abc", 6, 17)]


def test_what_came_before_the_first_interval_began_is_not_in_it(parts: Parts) -> None:
    parts.engine.count(0, 1000)
    with parts.open() as session:
        parts.engine.count(0, 5)
        assert seen(session) == {"eth0": 5}
        assert seen(session) == {"eth0": 0}


def test_early_flips_add_up_in_their_interval(parts: Parts) -> None:
    with parts.open() as session:
        parts.engine.count(0, 5)
        parts.engine.flip_requests.tell()
        parts.engine.count(0, 3)
        batch = session.next_batch()
        assert batch
        assert batch.audit[0].seen == Tally(8, 480, 8)
        assert batch.health.early_flips == 1


def test_devices_are_looked_at_when_the_kernel_says_so(parts: Parts) -> None:
    with parts.open() as session:
        session.next_batch()
        assert parts.devices.refreshes == 0
        parts.watch.tell()
        session.next_batch()
        assert parts.devices.refreshes == 1


def test_devices_that_change_while_they_are_read_are_read_again(parts: Parts) -> None:
    parts.devices.refusals = [KernelError("the table changed", errno=errno.EINTR)]
    with parts.open() as session:
        parts.watch.tell()
        assert session.next_batch()
        assert session.next_batch()
    assert parts.devices.refreshes == 2


def test_any_other_refusal_to_tell_of_devices_is_raised(parts: Parts) -> None:
    parts.devices.refusals = [KernelError("no netlink socket", errno=errno.EMFILE)]
    with parts.open() as session:
        parts.watch.tell()
        with pytest.raises(KernelError, match="no netlink socket"):
            session.next_batch()


def test_a_device_that_comes_counts_from_then_on(parts: Parts) -> None:
    with parts.open() as session:
        assert seen(session) == {"eth0": 0}
        parts.devices.add(9, "veth1", 1)
        parts.engine.count(1, 3)
        assert seen(session) == {"eth0": 0, "veth1": 3}
        assert [attachment.id for attachment in session.attachments] == [7, 9]


def test_counts_of_a_slot_go_to_whom_it_belonged_when_they_were_taken(parts: Parts) -> None:
    """An early flip takes the last counts of eth0, and its slot goes to veth1 before anyone looks at them."""
    with parts.open() as session:
        parts.engine.count(0, 5)
        parts.devices.release(7)
        parts.engine.flip_requests.tell()
        while not parts.early.count:
            time.sleep(0.001)
        parts.devices.add(9, "veth1", 0)
        parts.engine.count(0, 3)
        assert seen(session) == {"eth0": 5, "veth1": 3}
        assert seen(session) == {"veth1": 0}


def test_payloads_of_a_slot_go_to_whom_it_belongs_now(parts: Parts) -> None:
    """The slot of eth0 goes to veth1 while counts of eth0 are still to come; loopback says all twice."""
    ring = parts.engine.give_ring()
    with parts.open() as session:
        parts.devices.release(7)
        parts.devices.add(9, "veth1", 0)
        parts.devices.add(8, "lo", 1, arphrd=ARPHRD_LOOPBACK)
        ring.tell()
        session.next_batch()
    assert parts.names.devices == {0: 19}


def test_what_was_let_go_is_counted_as_long_as_the_engine_holds_it(parts: Parts) -> None:
    with parts.open() as session:
        parts.devices.release(7)
        assert seen(session) == {}
        parts.engine.count(0, 2)
        assert seen(session) == {"eth0": 2}
        del parts.engine.owners[0]
        assert seen(session) == {}


def test_devices_are_attached_one_after_the_other_between_all_else(parts: Parts) -> None:
    with parts.open() as session:
        parts.devices.wanted = [(20 + n, f"veth{n}", 1 + n) for n in range(3)]
        batch = session.next_batch()
        assert batch
        assert batch.health.attaching == 0
        assert [attachment.id for attachment in session.attachments] == [7, 20, 21, 22]


def test_after_stop_one_batch_comes_and_no_more(parts: Parts) -> None:
    with parts.open() as session:
        parts.engine.count(0, 5)
        session.stop()
        session.stop()
        assert seen(session) == {"eth0": 5}
        assert session.next_batch() is None


def test_the_last_batch_waits_for_payloads_of_before_its_end_and_not_for_what_comes_after(parts: Parts) -> None:
    """As long as traffic with payloads went on, the end took five seconds."""
    parts.engine.give_ring()
    with parts.open() as session:
        ends_ns = parts.clocks.wall
        parts.engine.payload_times = itertools.count(ends_ns - 10)
        session.stop()
        assert session.next_batch()
    assert parts.names.fed == 11


def test_a_stop_while_a_batch_is_made_brings_one_more(parts: Parts) -> None:
    with parts.open() as session:
        parts.engine.on_flip = session.stop
        assert session.next_batch()
        parts.engine.count(0, 2)
        assert seen(session) == {"eth0": 2}
        assert session.next_batch() is None


def test_intervals_follow_each_other_without_a_gap_and_last_as_long_as_the_monotonic_clock_says(parts: Parts) -> None:
    with parts.open() as session:
        parts.clocks.pass_by(10**9)
        first = session.next_batch()
        parts.clocks.pass_by(2 * 10**9)
        second = session.next_batch()
    assert first
    assert second
    assert (first.seconds, second.seconds) == (1.0, 2.0)
    assert first.end_ns == second.start_ns
    assert second.health.clock_step_seconds == 0


@pytest.mark.parametrize("step_ns", [HOUR, -3 * HOUR])
def test_a_clock_that_is_set_moves_times_of_day_and_no_duration(parts: Parts, step_ns: int) -> None:
    with parts.open() as session:
        parts.clocks.pass_by(5 * 10**8)
        parts.clocks.wall += step_ns
        parts.clocks.pass_by(5 * 10**8)
        first = session.next_batch()
        parts.clocks.pass_by(10**9)
        second = session.next_batch()
    assert first
    assert second
    assert (first.seconds, second.seconds) == (1.0, 1.0)
    assert first.health.clock_step_seconds == step_ns / 1e9
    assert second.health.clock_step_seconds == 0
    assert second.start_ns - first.end_ns == step_ns
    assert second.end_ns == parts.clocks.wall


@pytest.mark.parametrize(
    ("ram_mib", "most", "told"),
    [(1 << 20, 1 << 20, []), (96, 1 << 14, [("memory bounds the flows of a batch", 1 << 14)])],
)
def test_where_memory_bounds_a_batch_the_log_tells(
    caplog: pytest.LogCaptureFixture, ram_mib: int, most: int, told: list[tuple[str, int]]
) -> None:
    host = HostFacts("6.12.0", (6, 12, 0), ram_bytes=ram_mib << 20)
    with caplog.at_level("INFO"):
        assert _most_flows(replace(OPTIONS, names=NameOptions()), host) == most
    assert [(record.message, record.flows) for record in caplog.records] == told  # type: ignore[attr-defined]
