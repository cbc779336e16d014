"""Which devices a meter is on, over devices and an engine that are made up."""

from __future__ import annotations

import errno
import logging
from pathlib import Path
from typing import Any, cast

import pytest

from wiremeter.datapath.engine import Hook, Lasts
from wiremeter.errors import InputError, KernelError
from wiremeter.flows.columns import AttachMode
from wiremeter.linux.devices import Device
from wiremeter.linux.grace_periods import GracePeriods
from wiremeter.linux.host import HostFacts
from wiremeter.metering import tracker as tracking
from wiremeter.metering.tracker import Tracker

HOST = HostFacts("6.12.0", (6, 12, 0), capabilities=frozenset({"CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON"}))
VETH0, VETH1, VETH2 = (Device(f"veth{number}", 10 + number, kind="veth") for number in range(3))


class Attached:
    """A program that is on its device until somebody takes it away."""

    def __init__(self, hook: Hook) -> None:
        self.hook = hook
        self.is_on = True

    def is_attached(self) -> bool:
        return self.is_on


class Engine:
    """Has room for so many programs, and refuses devices by name."""

    def __init__(self, room: int = 100) -> None:
        self.room = room
        self.refuses: dict[str, KernelError] = {}
        self.attached: list[Attached] = []
        self.adopted: list[Attached] = []
        self.lasts: Lasts | None = None

    def attach(self, hook: Hook) -> Attached:
        if len(self.attached) == self.room:
            raise InputError("no room")
        if hook.device in self.refuses:
            raise self.refuses[hook.device]
        self.attached.append(Attached(hook))
        return self.attached[-1]

    def release(self, attachment: Attached) -> None:
        self.attached.remove(attachment)

    @property
    def attachments(self) -> list[Attached]:
        return self.attached

    def holds(self, attachment: Attached) -> bool:
        return attachment in self.attached

    @property
    def hooks(self) -> list[tuple[str, str]]:
        return [(each.hook.device, each.hook.direction) for each in self.attached]


class World:
    """What the kernel would say of devices."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.devices: list[Device] = [VETH0, VETH1]
        monkeypatch.setattr(tracking, "read_devices", lambda: tuple(self.devices))
        monkeypatch.setattr(tracking, "read_default_route", frozenset)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def started(engine: Engine, *patterns: str, requested: Any = "tcx") -> Tracker:
    tracker = Tracker(cast(Any, engine), GracePeriods(Path("none")), HOST, patterns or ("veth*",), requested)
    tracker.start()
    return tracker


def attach_all(tracker: Tracker) -> None:
    while tracker.waiting:
        tracker.attach_some()


def on(tracker: Tracker) -> list[tuple[str, str]]:
    return [(metered.attachment.device, metered.attachment.direction) for metered in tracker.metered]


@pytest.mark.parametrize("taken", [0, 1], ids=["rx", "tx"])
def test_a_device_that_lost_one_of_its_programs_gets_both_anew(world: World, taken: int) -> None:
    engine = Engine()
    tracker = started(engine)
    engine.attached[taken].is_on = False
    tracker.refresh()
    assert on(tracker) == engine.hooks == [("veth1", "rx"), ("veth1", "tx")]
    assert [m.attachment.device for m in tracker.take_let_go()] == ["veth0", "veth0"]
    attach_all(tracker)
    assert sorted(engine.hooks) == [("veth0", "rx"), ("veth0", "tx"), ("veth1", "rx"), ("veth1", "tx")]
    assert [metered.attachment.id for metered in tracker.metered] == [2, 3, 4, 5]


def test_a_tracker_that_is_closed_leaves_nothing_attached(world: World) -> None:
    engine = Engine()
    tracker = started(engine)
    tracker.close()
    assert (engine.hooks, tracker.metered) == ([], [])


def test_room_is_for_those_that_are_named_first(world: World) -> None:
    engine = Engine(room=2)
    started(engine, "veth*", "veth1")
    assert engine.hooks == [("veth1", "rx"), ("veth1", "tx")]


def test_what_found_no_room_is_tried_again_when_there_is_some(world: World) -> None:
    engine = Engine(room=2)
    tracker = started(engine)
    assert engine.hooks == [("veth0", "rx"), ("veth0", "tx")]
    tracker.refresh()
    assert not tracker.waiting
    world.devices = [VETH1]
    tracker.refresh()
    attach_all(tracker)
    assert engine.hooks == [("veth1", "rx"), ("veth1", "tx")]


def test_what_the_kernel_refused_is_tried_again_only_under_another_name(world: World) -> None:
    engine = Engine()
    engine.refuses["veth1"] = KernelError("no", call="BPF_LINK_CREATE", errno=errno.EINVAL)
    tracker = started(engine)
    world.devices = [VETH1]
    tracker.refresh()
    assert (tracker.waiting, engine.hooks) == (0, [])
    world.devices = [Device("veth7", VETH1.ifindex, kind="veth")]
    tracker.refresh()
    attach_all(tracker)
    assert engine.hooks == [("veth7", "rx"), ("veth7", "tx")]


def test_a_device_with_another_name_keeps_its_attachments(world: World) -> None:
    engine = Engine()
    tracker = started(engine)
    world.devices = [Device("veth9", VETH0.ifindex, kind="veth"), VETH1]
    tracker.refresh()
    assert on(tracker)[:2] == [("veth9", "rx"), ("veth9", "tx")]
    assert [metered.attachment.id for metered in tracker.metered] == [0, 1, 2, 3]
    assert not tracker.waiting


def test_a_named_device_that_is_refused_ends_the_start_and_one_of_many_is_logged(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine()
    engine.refuses["veth1"] = KernelError("no", call="BPF_LINK_CREATE", errno=errno.EINVAL)
    with pytest.raises(KernelError, match="no; this kernel has no tcx"):
        started(engine, "veth1")
    with caplog.at_level(logging.WARNING):
        assert on(started(engine)) == [("veth0", "rx"), ("veth0", "tx")]
    assert [(record.message, record.device) for record in caplog.records] == [("not metered", "veth1")]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("mode", "number", "advice"),
    [
        ("xdp", errno.EBUSY, "another XDP program is on this device"),
        ("xdp-generic", errno.EBUSY, "another XDP program is on this device"),
        ("xdp", errno.EOPNOTSUPP, "the driver has no native XDP"),
        ("xdp-generic", errno.EOPNOTSUPP, "takes no generic XDP: use --attach tcx"),
        ("xdp", errno.ERANGE, "MTU is too large"),
        ("tcx", errno.ERANGE, "as many programs as it can"),
        ("tcx", errno.EINVAL, "no tcx"),
        ("tcx", errno.ENODEV, "the device is gone"),
        ("capture", errno.ENODEV, "the device is gone"),
        ("clsact", errno.EEXIST, "`wiremeter detach` removes what it left"),
    ],
)
def test_what_the_kernel_says_is_explained_by_where_it_was_to_be_attached(
    mode: AttachMode, number: int, advice: str
) -> None:
    error = tracking._explained(KernelError("refused", call="BPF_LINK_CREATE", errno=number), mode)
    assert str(error).startswith("refused; ")
    assert advice in str(error)
    assert error.errno == number


@pytest.mark.parametrize(("mode", "number"), [("tcx", errno.EEXIST), ("tcx", errno.EBUSY), ("clsact", errno.EINVAL)])
def test_nothing_is_advised_that_was_not_the_cause(mode: AttachMode, number: int) -> None:
    error = tracking._explained(KernelError("refused", call="BPF_LINK_CREATE", errno=number), mode)
    assert str(error) == "refused"


# What agents before left attached ------------------------------------------------------------------------------------


def test_what_was_left_attached_is_attached_to_again_and_the_rest_let_go(world: World) -> None:
    engine = Adopting()
    left = {
        name: Attached(Hook(name, ifindex, "rx", "tcx")) for name, ifindex in (("veth0", VETH0.ifindex), ("gone0", 99))
    }
    engine.adopted = engine.attached = list(left.values())
    tracker = started(engine)
    assert left["veth0"] in cast(Any, [m.kernel for m in tracker.metered])
    assert left["gone0"] not in engine.attached
    assert not tracker.adopted
    ids = [m.attachment.id for m in tracker.metered]
    assert len(set(ids)) == len(ids)


def test_at_the_end_what_is_pinned_stays_attached(world: World) -> None:
    engine = Engine()
    engine.lasts = Lasts("abc", 0)
    tracker = started(engine)
    hooks = engine.hooks
    tracker.close()
    assert engine.hooks == hooks


class Adopting(Engine):
    """Gives what is there already."""

    def attach(self, hook: Hook) -> Attached:
        for there in self.adopted:
            if (there.hook.ifindex, there.hook.direction) == (hook.ifindex, hook.direction):
                return there
        return super().attach(hook)
