"""On devices: attached in each mode, first in the chain or said to be displaced, and gone again however it ends."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from socket import if_nametoindex

import pytest

from hosts import devices, leaks, netns, senders
from hosts.devices import Port
from wiremeter.datapath import records
from wiremeter.datapath.clsact import ClsactFilter, remove_stale_filters
from wiremeter.datapath.engine import Hook
from wiremeter.datapath.hooks import program_query
from wiremeter.datapath.kernel import KernelAttachment, KernelEngine
from wiremeter.datapath.layout import plan_tables
from wiremeter.errors import KernelError
from wiremeter.flows.batch import Tally
from wiremeter.flows.columns import AttachMode, Direction
from wiremeter.libbpf.attach import (
    BEFORE,
    TCX_EGRESS,
    TCX_INGRESS,
    XDP,
    XDP_FLAGS_DRIVER,
    Link,
    filter_program,
    tcx_programs,
    xdp_programs,
)
from wiremeter.linux.netlink import RouteSocket
from wiremeter.linux.netlink_messages import TcFilter

from . import packets as p
from .bench import CPUS, load_only
from .packets import UDP, over4
from .programs import others
from .reference import Counts, count_drain, count_readings, read_frame

pytestmark = pytest.mark.kernel

MODES: list[tuple[Direction, AttachMode]] = [
    ("rx", "tcx"), ("tx", "tcx"), ("rx", "clsact"), ("tx", "clsact"), ("rx", "xdp"), ("rx", "xdp-generic"),
]  # fmt: skip
NOTHING = {"tcx": 0, "xdp": 0, "clsact": 0, "qdiscs": []}
FRAME = over4(UDP, p.udp(bytes(18)))
PAIRS: list[list[tuple[Direction, AttachMode]]] = [
    [("rx", "tcx"), ("tx", "tcx")],
    [("rx", "clsact"), ("tx", "clsact")],
    [("rx", "xdp"), ("tx", "tcx")],
    [("rx", "xdp-generic"), ("tx", "clsact")],
]


@pytest.fixture(autouse=True)
def nothing_left_by_the_test() -> Iterator[None]:
    """Each test here must itself clear up."""
    with leaks.nothing_left():
        yield


@pytest.fixture(scope="module")
def wire(nothing_left_by_the_module: None) -> Iterator[tuple[Port, Port]]:
    """Two ends of a veth pair, nothing attached."""
    with devices.pair("ours", "theirs") as ends:
        devices.settle(*ends)
        yield ends


@pytest.fixture
def ours(wire: tuple[Port, Port]) -> Iterator[Port]:
    """The end that is metered. Nothing may be attached to it when a test is done."""
    port = wire[0]
    with port.host.entered():
        yield port
        left = on_device(port)
        if left["qdiscs"]:
            netns.command("tc", "qdisc", "del", "dev", port.device, "clsact")
        assert left == NOTHING


@pytest.fixture
def engine() -> Iterator[KernelEngine]:
    with KernelEngine(plan_tables(CPUS, 256)) as engine:
        yield engine


def hook(port: Port, direction: Direction, mode: AttachMode) -> Hook:
    """To be made in the port's namespace."""
    return Hook(port.device, if_nametoindex(port.device), direction, mode)


def on_device(port: Port) -> dict[str, object]:
    """How many programs are on a device of this namespace, and its qdiscs for filters."""
    at = if_nametoindex(port.device)
    qdiscs = json.loads(netns.command("tc", "-j", "qdisc", "show", "dev", port.device))
    return {
        "tcx": len(tcx_programs(at, TCX_INGRESS)) + len(tcx_programs(at, TCX_EGRESS)),
        "xdp": sum(map(bool, xdp_programs(at))),
        "clsact": sum(bool(filter_program(at, egress)) for egress in (False, True)),
        "qdiscs": [qdisc["kind"] for qdisc in qdiscs if qdisc["kind"] in ("clsact", "ingress")],
    }


def count_until(engine: KernelEngine, program: KernelAttachment, expected: Counts) -> Counts:
    """All counts of a program, flipping until there are as many as expected or a second has passed."""
    deadline, total = time.monotonic() + 60, Counts()
    while time.monotonic() < deadline and total != expected:
        total.add(count_drain(engine.flip(), program.slot))
    total.add(count_drain(engine.flip(), program.slot))
    return total


# Attached, and gone --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("direction", "mode"), MODES)
def test_an_attached_program_counts_what_crosses_and_nothing_once_detached(
    direction: Direction, mode: AttachMode, wire: tuple[Port, Port], ours: Port, engine: KernelEngine
) -> None:
    sender = wire[1] if direction == "rx" else wire[0]
    program = engine.attach(hook(ours, direction, mode))
    assert program.is_attached()
    assert program.is_first()
    senders.raw_frames(sender, FRAME, 23)
    expected = count_readings([(read_frame(FRAME), Tally(23, 23 * len(FRAME), 23))])
    assert count_until(engine, program, expected) == expected
    program.detach()
    assert not program.is_attached()
    senders.raw_frames(sender, FRAME, 23)
    assert count_until(engine, program, Counts()) == Counts()


@pytest.mark.parametrize("hooks", PAIRS, ids=str)
def test_nothing_is_attached_after_close(hooks: list[tuple[Direction, AttachMode]], ours: Port) -> None:
    engine = KernelEngine(plan_tables(CPUS, 256))
    programs = [engine.attach(hook(ours, *one)) for one in hooks]
    assert all(program.is_attached() for program in programs)
    engine.close()
    engine.close()
    assert not any(program.is_attached() for program in programs)


@pytest.mark.parametrize("hooks", PAIRS, ids=str)
def test_nothing_is_attached_after_an_exception(hooks: list[tuple[Direction, AttachMode]], ours: Port) -> None:
    def fail() -> None:
        with KernelEngine(plan_tables(CPUS, 256)) as engine:
            for one in hooks:
                engine.attach(hook(ours, *one))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_programs_of_both_directions_may_go_in_any_order(
    order: tuple[int, int], ours: Port, engine: KernelEngine
) -> None:
    programs = [engine.attach(hook(ours, direction, "clsact")) for direction in ("rx", "tx")]
    for at in order:
        engine.release(programs[at])
        assert not programs[at].is_attached()
    engine.flip()


def test_a_clsact_qdisc_that_was_there_before_stays(ours: Port, engine: KernelEngine) -> None:
    netns.command("tc", "qdisc", "add", "dev", ours.device, "clsact")
    try:
        program = engine.attach(hook(ours, "rx", "clsact"))
        program.detach()
        assert on_device(ours)["qdiscs"] == ["clsact"]
    finally:
        netns.command("tc", "qdisc", "del", "dev", ours.device, "clsact")


def test_two_engines_meter_one_device_beside_each_other(
    wire: tuple[Port, Port], ours: Port, engine: KernelEngine
) -> None:
    expected = count_readings([(read_frame(FRAME), Tally(23, 23 * len(FRAME), 23))])
    first = engine.attach(hook(ours, "tx", "tcx"))
    with KernelEngine(plan_tables(CPUS, 256)) as other:
        second = other.attach(hook(ours, "tx", "tcx"))
        assert (first.is_first(), second.is_first()) == (False, True)
        senders.raw_frames(ours, FRAME, 23)
        assert count_until(engine, first, expected) == expected
        assert count_until(other, second, expected) == expected
    assert first.is_first()


# First in the chain --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("direction", "side"), [("rx", TCX_INGRESS), ("tx", TCX_EGRESS)])
def test_we_come_before_a_program_that_ends_the_chain(
    direction: Direction, side: int, wire: tuple[Port, Port], ours: Port, engine: KernelEngine, tmp_path: Path
) -> None:
    expected = count_readings([(read_frame(FRAME), Tally(23, 23 * len(FRAME), 23))])
    sender = wire[1] if direction == "rx" else wire[0]
    with others(tmp_path, "other_ends_chain") as fd, Link(fd, if_nametoindex(ours.device), side, 0, "other"):
        program = engine.attach(hook(ours, direction, "tcx"))
        assert program.is_first()
        for _ in range(23):  # what is dropped at egress, after we have counted it, is an error to the sender
            with pytest.raises(OSError, match="No buffer space") if direction == "tx" else nullcontext():
                senders.raw_frames(sender, FRAME, 1)
        assert count_until(engine, program, expected) == expected


@pytest.mark.parametrize(("direction", "side"), [("rx", TCX_INGRESS), ("tx", TCX_EGRESS)])
def test_a_program_that_gets_before_us_is_noticed_until_it_goes(
    direction: Direction, side: int, ours: Port, engine: KernelEngine, tmp_path: Path
) -> None:
    program = engine.attach(hook(ours, direction, "tcx"))
    with others(tmp_path, "other_goes_on") as fd:
        with Link(fd, if_nametoindex(ours.device), side, 0, "behind us"):
            assert program.is_first()
        with Link(fd, if_nametoindex(ours.device), side, BEFORE, "before us"):
            assert not program.is_first()
            assert program.is_attached()
        assert program.is_first()


# Devices that go -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("direction", "mode"), MODES)
def test_a_device_that_is_deleted_is_no_longer_attached_and_detaching_is_no_error(
    direction: Direction, mode: AttachMode, ours: Port, engine: KernelEngine
) -> None:
    netns.command("ip", "link", "add", "gone0", "type", "veth", "peer", "name", "gone1")
    program = engine.attach(Hook("gone0", if_nametoindex("gone0"), direction, mode))
    netns.command("ip", "link", "del", "gone0")
    assert not program.is_attached()
    engine.release(program)
    engine.flip()


@pytest.mark.parametrize(("direction", "mode"), MODES)
def test_a_device_that_moves_to_another_namespace_is_let_go(
    direction: Direction, mode: AttachMode, wire: tuple[Port, Port], ours: Port, engine: KernelEngine
) -> None:
    netns.command("ip", "link", "add", "moves0", "type", "veth", "peer", "name", "moves1")
    program = engine.attach(Hook("moves0", if_nametoindex("moves0"), direction, mode))
    netns.command("ip", "link", "set", "moves0", "netns", wire[1].host.name)
    assert not program.is_attached()
    engine.release(program)
    engine.flip()
    with wire[1].host.entered():
        moved = Port(wire[1].host, "moves0", "", "")
        left = on_device(moved)
        netns.command("ip", "link", "del", "moves0")
    assert left == NOTHING


# Killed --------------------------------------------------------------------------------------------------------------


def attach_and_wait(port: Port, hooks: list[tuple[Direction, AttachMode]]) -> None:
    """In a process of its own: attach, and never come to an end."""
    with KernelEngine(plan_tables(CPUS, 256)) as engine:
        for one in hooks:
            engine.attach(hook(port, *one))
        time.sleep(60)


@pytest.mark.parametrize(
    "hooks", [[("rx", "tcx"), ("tx", "tcx")], [("rx", "xdp"), ("tx", "tcx")], [("rx", "xdp-generic")]], ids=str
)
def test_links_die_with_a_killed_process(hooks: list[tuple[Direction, AttachMode]], ours: Port) -> None:
    job = ours.host.start(attach_and_wait, ours, hooks)
    wanted = {kind: sum(mode.startswith(kind) for _, mode in hooks) for kind in ("tcx", "xdp")}
    netns.wait_until(
        lambda: {kind: on_device(ours)[kind] for kind in wanted} == wanted or job.has_answered, "it is attached"
    )
    assert {kind: on_device(ours)[kind] for kind in wanted} == wanted
    job.kill()
    netns.wait_until(lambda: on_device(ours) == NOTHING, "the links are gone")


def test_filters_of_a_killed_process_are_removed_at_the_next_start(ours: Port) -> None:
    job = ours.host.start(attach_and_wait, ours, [("rx", "clsact"), ("tx", "clsact")])
    netns.wait_until(lambda: on_device(ours)["clsact"] == 2 or job.has_answered, "it is attached")
    job.kill()
    assert on_device(ours)["clsact"] == 2
    at = if_nametoindex(ours.device)
    assert remove_stale_filters(at) == ["rx", "tx"]
    assert remove_stale_filters(at) == []


def test_filters_that_a_running_process_holds_are_not_stale(ours: Port, engine: KernelEngine) -> None:
    at = if_nametoindex(ours.device)
    programs = [engine.attach(hook(ours, direction, "clsact")) for direction in ("rx", "tx")]
    assert remove_stale_filters(at) == []
    assert all(program.is_attached() for program in programs)
    job = ours.host.start(remove_stale_filters, at)  # another process sees who holds them, too
    assert job.result() == []
    assert all(program.is_attached() for program in programs)


@pytest.fixture
def foreign_filter(ours: Port, tmp_path: Path) -> Iterator[str]:
    """A program of somebody else's as clsact filter at our very place; the qdisc goes afterwards."""
    with others(tmp_path, "other_goes_on"):
        netns.command("tc", "qdisc", "add", "dev", ours.device, "clsact")
        filter_ = ["dev", ours.device, "ingress", "prio", "1", "handle", "0x776d", "bpf"]
        try:
            netns.command("tc", "filter", "add", *filter_, "da", "obj", str(tmp_path / "others.bpf.o"), "sec", "tc")
            yield ours.device
        finally:
            netns.command("tc", "qdisc", "del", "dev", ours.device, "clsact")


def test_filters_of_others_are_left_alone(foreign_filter: str, ours: Port) -> None:
    assert remove_stale_filters(if_nametoindex(foreign_filter)) == []
    assert on_device(ours)["clsact"] == 1


def add_u32(device: str, *where: str) -> None:
    """A filter of another kind than ours, at a place of its own."""
    what = ["prio", "7", "protocol", "ip", "u32", "match", "u32", "0", "0"]
    netns.command("tc", "filter", "add", "dev", device, *where, *what)


def filters_of(device: str) -> set[str]:
    """Kinds of all clsact filters, as tc lists them."""
    listed = [json.loads(netns.command("tc", "-j", "filter", "show", "dev", device, side)) for side in SIDES]
    return {each["kind"] for side in listed for each in side}


SIDES = ("ingress", "egress")


@pytest.fixture
def shared(ours: Port) -> Iterator[Port]:
    """The metered end, for others' filters too: its clsact qdisc must be there when a test is done, and goes then."""
    yield ours
    netns.command("tc", "qdisc", "del", "dev", ours.device, "clsact")


def refuse_to_list(self: RouteSocket, ifindex: int, *, egress: bool) -> list[TcFilter]:
    raise KernelError("RTM_GETTFILTER: No buffer space available", call="RTM_GETTFILTER", errno=105)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("is_refused", [False, True])
def test_a_foreign_filter_on_a_qdisc_of_ours_survives_our_detaching(
    side: str, is_refused: bool, shared: Port, engine: KernelEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the kernel refuses to say what is on the qdisc: an error is not an empty list."""
    programs = [engine.attach(hook(shared, direction, "clsact")) for direction in ("rx", "tx")]
    add_u32(shared.device, side)
    with monkeypatch.context() as patch:
        if is_refused:
            patch.setattr(RouteSocket, "filters", refuse_to_list)
        for program in programs:
            program.detach()
    assert filters_of(shared.device) == {"u32"}
    assert on_device(shared)["clsact"] == 0


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("is_refused", [False, True])
def test_a_foreign_filter_beside_stale_ones_survives_their_removal(
    side: str, is_refused: bool, shared: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = shared.host.start(attach_and_wait, shared, [("rx", "clsact"), ("tx", "clsact")])
    netns.wait_until(lambda: on_device(shared)["clsact"] == 2 or job.has_answered, "it is attached")
    job.kill()
    add_u32(shared.device, side)
    at = if_nametoindex(shared.device)
    with monkeypatch.context() as patch:
        if is_refused:
            patch.setattr(RouteSocket, "filters", refuse_to_list)
            with pytest.raises(KernelError, match=r"qdisc stays: .* No buffer space"):
                remove_stale_filters(at)
        else:
            assert remove_stale_filters(at) == ["rx", "tx"]
    assert filters_of(shared.device) == {"u32"}
    assert on_device(shared)["clsact"] == 0


def test_an_ingress_qdisc_of_others_is_said_and_left_alone(ours: Port, engine: KernelEngine) -> None:
    """It takes egress filters and runs them at ingress, so ours would count the wrong direction."""
    netns.command("tc", "qdisc", "add", "dev", ours.device, "ingress")
    try:
        with pytest.raises(KernelError, match="has an ingress qdisc"):
            engine.attach(hook(ours, "tx", "clsact"))
        assert on_device(ours)["qdiscs"] == ["ingress"]
    finally:
        netns.command("tc", "qdisc", "del", "dev", ours.device, "ingress")


# Listed --------------------------------------------------------------------------------------------------------------


def test_all_that_is_on_a_devices_hooks_is_listed(
    foreign_filter: str, ours: Port, engine: KernelEngine, tmp_path: Path
) -> None:
    at = if_nametoindex(ours.device)
    query = program_query()
    assert query is not None
    add_u32(ours.device, "egress")
    engine.attach(hook(ours, "rx", "tcx"))
    engine.attach(hook(ours, "tx", "clsact"))
    with (
        others(tmp_path, "other_xdp") as xdp,
        Link(xdp, at, XDP, XDP_FLAGS_DRIVER, "other"),
        others(tmp_path, "other_goes_on") as tc,
        Link(tc, at, TCX_EGRESS, 0, "other"),
    ):
        found = query(at)
    assert found is not None
    assert [(each.hook, each.name, each.is_ours) for each in found] == [
        ("xdp", "other_xdp", False),
        ("tcx ingress", "wm_tc_ingress", True),
        ("tcx egress", "other_goes_on", False),
        ("clsact ingress", "other_ends_chai", False),
        ("clsact egress", "wm_tc_egress", True),
        ("clsact egress", "u32", False),
    ]
    assert all(each.id for each in found if each.name != "u32")


def test_a_filter_on_an_ingress_qdisc_is_listed_once(ours: Port) -> None:
    netns.command("tc", "qdisc", "add", "dev", ours.device, "ingress")
    try:
        add_u32(ours.device, "parent", "ffff:")
        query = program_query()
        assert query is not None
        assert query(if_nametoindex(ours.device)) == [("ingress", 0, "u32", False)]
    finally:
        netns.command("tc", "qdisc", "del", "dev", ours.device, "ingress")


# Refused -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("direction", "mode"), MODES)
def test_a_device_that_is_not_there_is_named(
    direction: Direction, mode: AttachMode, ours: Port, engine: KernelEngine
) -> None:
    with pytest.raises(KernelError, match="eth99") as refusal:
        engine.attach(Hook("eth99", 999_999, direction, mode))
    assert refusal.value.errno == (22 if mode.startswith("xdp") else 19)  # bpf_xdp_link_attach() says EINVAL
    assert refusal.value.call in ("BPF_LINK_CREATE", "RTM_NEWQDISC")
    assert engine.attachments == []
    assert engine.attach(hook(ours, direction, mode)).slot == 0


def test_another_xdp_program_in_the_slot_is_said_and_left_alone(
    ours: Port, engine: KernelEngine, tmp_path: Path
) -> None:
    at = if_nametoindex(ours.device)
    with others(tmp_path, "other_xdp") as fd, Link(fd, at, XDP, XDP_FLAGS_DRIVER, "other"):
        before = xdp_programs(at)
        with pytest.raises(KernelError, match="Device or resource busy") as refusal:
            engine.attach(hook(ours, "rx", "xdp"))
        assert (refusal.value.call, refusal.value.errno) == ("BPF_LINK_CREATE", 16)
        with pytest.raises(KernelError) as refusal:
            engine.attach(hook(ours, "rx", "xdp-generic"))
        assert refusal.value.errno in (16, 17)
        assert xdp_programs(at) == before


def test_a_driver_without_native_xdp_is_said(engine: KernelEngine) -> None:
    with netns.hosts("bare") as (bare,), bare.entered(), pytest.raises(KernelError) as refusal:
        engine.attach(Hook("lo", if_nametoindex("lo"), "rx", "xdp"))
    assert refusal.value.errno == 95


def test_a_clsact_filter_of_another_wiremeter_is_said_and_left_alone(ours: Port, engine: KernelEngine) -> None:
    first = engine.attach(hook(ours, "rx", "clsact"))
    with KernelEngine(plan_tables(CPUS, 256)) as other, pytest.raises(KernelError) as refusal:
        other.attach(hook(ours, "rx", "clsact"))
    assert (refusal.value.call, refusal.value.errno) == ("RTM_NEWTFILTER", 17)
    assert first.is_attached()


def test_a_filter_that_is_refused_leaves_no_qdisc_behind(ours: Port, tmp_path: Path) -> None:
    """The kernel makes the qdisc before it looks at the program."""
    with others(tmp_path, "other_xdp") as fd, pytest.raises(KernelError, match="attaching: Invalid argument"):
        ClsactFilter(fd, if_nametoindex(ours.device), egress=False, what="attaching")
    assert on_device(ours) == NOTHING


def test_an_attachment_is_a_copy_of_an_entry_and_the_meter_is_there_once(engine: KernelEngine) -> None:
    modes: list[tuple[Direction, AttachMode]] = [("rx", "tcx"), ("tx", "tcx"), ("rx", "xdp")]
    began = time.thread_time()
    made = [load_only(engine, direction, mode) for _ in range(10) for direction, mode in modes]
    assert time.thread_time() - began < 1.0  # one meter for XDP, and 30 copies
    infos = [attachment.info() for attachment in made]
    assert len({info.id for info in infos}) == len(made)
    assert max(info.jited_bytes for info in infos) < 500
    assert {info.name for info in infos} == {"wm_tc_ingress", "wm_tc_egress", "wm_xdp"}


def test_a_copy_counts_for_its_attachment_only(engine: KernelEngine) -> None:
    made = [load_only(engine, "rx", "tcx", l2_bytes) for l2_bytes in (14, 0, 14)]
    for times, attachment in enumerate(made, 1):
        attachment.run(FRAME, repeat=times)
    drain = engine.flip()
    seen = drain.counters[:, : records.ROW_UNATTRIBUTED, 0].sum(axis=1)
    assert [int(seen[attachment.slot]) for attachment in made] == [1, 2, 3]
    assert [drain.owners[attachment.slot] for attachment in made] == made
