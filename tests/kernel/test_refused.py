"""What the engine cannot work with is refused with whose move it is, and leaves nothing in the kernel."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from hosts import leaks, netns
from wiremeter import Monitor
from wiremeter.cli import main as command
from wiremeter.datapath.engine import Hook
from wiremeter.datapath.kernel import KernelEngine
from wiremeter.datapath.layout import TablePlan, plan_tables
from wiremeter.datapath.naming import NameOptions
from wiremeter.datapath.programs import default_program
from wiremeter.datapath.records import IDENTITY_MARK, PAYLOAD_BYTES_MAX
from wiremeter.datapath.trial import Trial, try_programs
from wiremeter.datapath.verification import verify_object
from wiremeter.errors import InputError, KernelError, PermissionNeeded, VerifierError, WiremeterError
from wiremeter.flows.columns import AttachMode, Direction
from wiremeter.libbpf.objects import BpfObject

from .bench import CPUS, load_only
from .capabilities import CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_SYS_ADMIN, give_up
from .programs import changed_meter, compile_bpf
from .sandbox import SYS_BPF, refuse

pytestmark = pytest.mark.kernel


@pytest.fixture(autouse=True)
def nothing_left_by_the_test() -> Iterator[None]:
    with leaks.nothing_left():
        yield


def make_engine(program: Path | None = None) -> KernelEngine:
    """With the smallest tables."""
    return KernelEngine(plan_tables(CPUS, 256), program)


# Not permitted -------------------------------------------------------------------------------------------------------


def engine_without(capabilities: Collection[int]) -> tuple[str, str]:
    """What making an engine and loading its programs raises without some capabilities: class and text."""
    give_up(capabilities)
    try:
        with make_engine() as engine:
            load_only(engine, "rx", "tcx")
            load_only(engine, "rx", "xdp")
    except WiremeterError as error:
        return type(error).__name__, str(error)
    return "", ""


def monitor_without(capabilities: Collection[int]) -> tuple[str, str]:
    """The same of a Monitor, which looks before it loads."""
    give_up(capabilities)
    try:
        with Monitor("lo", flow_table=256):
            return "", ""
    except WiremeterError as error:
        return type(error).__name__, str(error)


@pytest.mark.parametrize(
    ("attempt", "missing"),
    [
        (engine_without, {CAP_BPF: "CAP_BPF", CAP_NET_ADMIN: "CAP_NET_ADMIN", CAP_PERFMON: "CAP_PERFMON"}),
        (engine_without, {CAP_BPF: "CAP_BPF"}),
        (engine_without, {CAP_NET_ADMIN: "CAP_NET_ADMIN"}),
        (monitor_without, {CAP_BPF: "CAP_BPF", CAP_NET_ADMIN: "CAP_NET_ADMIN", CAP_PERFMON: "CAP_PERFMON"}),
        (monitor_without, {CAP_BPF: "CAP_BPF"}),
        (monitor_without, {CAP_NET_ADMIN: "CAP_NET_ADMIN"}),
        (monitor_without, {CAP_PERFMON: "CAP_PERFMON"}),
    ],
)
def test_a_missing_capability_is_named(
    attempt: Callable[[Collection[int]], tuple[str, str]], missing: dict[int, str]
) -> None:
    kind, text = netns.fork(attempt, {*missing, CAP_SYS_ADMIN}).result()
    assert kind == PermissionNeeded.__name__, text
    assert all(name in text for name in missing.values())


def test_the_capabilities_that_are_asked_for_suffice() -> None:
    others = [number for number in range(41) if number not in (CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON)]
    assert netns.fork(engine_without, others).result() == ("", "")


# Refused by a sandbox -------------------------------------------------------------------------------------------------


def monitor_where_bpf_is(error: int) -> tuple[str, str]:
    """What opening a Monitor raises for a process with all capabilities whose bpf() calls are answered so."""
    refuse(SYS_BPF, error)
    try:
        with Monitor("lo", flow_table=256):
            return "", ""
    except WiremeterError as refusal:
        return type(refusal).__name__, str(refusal)


@pytest.mark.parametrize("error", [errno.EPERM, errno.EACCES, errno.ENOSYS])
def test_who_is_root_and_refused_all_the_same_is_not_advised_to_be_root(error: int) -> None:
    kind, text = netns.fork(monitor_where_bpf_is, error).result()
    assert kind == KernelError.__name__
    assert os.strerror(error) in text
    assert "seccomp" in text
    assert "--attach capture" in text
    assert "as root" not in text


def trial_where_bpf_is(error: int) -> Trial:
    refuse(SYS_BPF, error)
    return try_loading()


def try_loading(*hooks: tuple[Direction, AttachMode], program: Path | None = None) -> Trial:
    return try_programs(program, hooks or [("rx", "tcx")], plan_tables(CPUS), NameOptions(), load=True)


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS])
def test_a_trial_tells_what_metering_would(error: int) -> None:
    trial = netns.fork(trial_where_bpf_is, error).result()
    assert trial.seconds is None
    assert trial.problem.startswith("this kernel does not take the programs: loading ")
    assert "seccomp" in trial.problem


def test_a_trial_loads_all_that_is_asked_for_and_leaves_nothing() -> None:
    trial = try_loading(("rx", "xdp"), ("rx", "tcx"), ("tx", "tcx"))
    assert trial.problem == ""
    assert trial.seconds


def test_a_trial_misses_an_object_that_was_not_installed(tmp_path: Path) -> None:
    for load in (False, True):
        trial = try_programs(tmp_path / "none.o", [("rx", "tcx")], plan_tables(CPUS), NameOptions(), load=load)
        assert "none.o" in trial.problem
        assert "make build" in trial.problem


def allow_files(count: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))


def monitor_with_files(count: int) -> str:
    allow_files(count)
    try:
        with Monitor("lo", flow_table=256):
            return ""
    except (WiremeterError, OSError) as error:
        return f"{type(error).__name__}: {error}"


def test_too_few_files_are_said_wherever_they_run_out() -> None:
    open_now = len(os.listdir("/proc/self/fd"))
    problems = {count: netns.fork(monitor_with_files, open_now + count).result() for count in range(2, 60)}
    refused = {count: problem for count, problem in problems.items() if problem}
    assert len(refused) > 10
    for count, problem in refused.items():
        # The command adds what to do to an OSError of this number.
        is_told = problem.startswith("KernelError: ") and "let this process open more files (ulimit -n" in problem
        assert is_told or problem == "OSError: [Errno 24] Too many open files", (count, problem)


def doctor_with_files(count: int) -> int:
    allow_files(count)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        return command.main(["doctor", "--interface", "lo"])


def test_doctor_knows_how_many_files_there_may_be() -> None:
    assert netns.fork(doctor_with_files, 20).result() == 1
    assert netns.fork(doctor_with_files, 200).result() == 0


# Too large -----------------------------------------------------------------------------------------------------------


def test_tables_larger_than_the_machine_are_refused_with_the_size_to_change() -> None:
    region_bytes = TablePlan(1 << 20, 1, 64).region_bytes
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with pytest.raises(KernelError, match="--flow-table") as refusal:
        KernelEngine(TablePlan(1 << 20, memory_bytes // region_bytes + 1, 64))
    assert refusal.value.errno == 12


# Not our object ------------------------------------------------------------------------------------------------------


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere.bpf.o: build it .* or name another with --program"):
        make_engine(tmp_path / "nowhere.bpf.o")


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF", bytes(4096)], ids=repr)
def test_a_file_that_is_no_bpf_object_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "some.o").write_bytes(content)
    with pytest.raises(InputError, match=r"some.o is not a BPF object that libbpf can read: \w+"):
        make_engine(tmp_path / "some.o")


def test_an_elf_file_of_another_machine_is_refused() -> None:
    with pytest.raises(InputError, match="is not a BPF object that libbpf can read"):
        make_engine(Path("/proc/self/exe").resolve())


def test_an_object_cut_short_is_refused(tmp_path: Path) -> None:
    whole = default_program().read_bytes()
    (tmp_path / "cut.o").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.o"):
        make_engine(tmp_path / "cut.o")


OTHER = (
    '#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\nSEC("tc") int other(struct __sk_buff *skb) { return 0; }\n'
)


def test_an_object_without_btf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.c").write_text(OTHER)
    with pytest.raises(InputError, match=r"other\.o carries no BTF: compile it with `clang -g`"):
        make_engine(compile_bpf(tmp_path / "other.c", tmp_path / "other.o", btf=False))


def test_somebody_elses_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.c").write_text(OTHER)
    with pytest.raises(InputError, match=r"not built from wiremeter's records\.h"):
        make_engine(compile_bpf(tmp_path / "other.c", tmp_path / "other.o"))


CHANGED: dict[str, tuple[str, str, str, str]] = {
    "two members changed places": (
        "records.h", "__u64 packets;\n\t__u64 bytes;", "__u64 bytes;\n\t__u64 packets;", "wm_tally",
    ),
    "a member has another size": (
        "records.h", "__u16 tcp_flags; /* all", "__u8 tcp_flags; __u8 more; /* all", "wm_flow_cold",
    ),
    "a member has another name": ("records.h", "__u32 cpu;", "__u32 cpu_number;", "wm_flip_request"),
    "there are more reasons": ("records.h", "\tWM_REASONS,", "\tWM_BORED,\n\tWM_REASONS,", "wm_counters|reasons"),
    "the reasons have another order": (
        "records.h", "\tWM_TRUNCATED_L2,", "\tWM_NO_REGION_,\n\tWM_TRUNCATED_L2 = 0,", "reasons",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "named"), CHANGED.values(), ids=CHANGED)
def test_an_object_with_other_records_is_refused_before_anything_is_misread(
    file: str, old: str, new: str, named: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=named) as refusal:
        make_engine(changed_meter(tmp_path, file, old, new))
    assert "make build" in str(refusal.value) or "same sources" in str(refusal.value)


def test_an_object_without_one_of_our_constants_is_refused(tmp_path: Path) -> None:
    changed = changed_meter(
        tmp_path, "kernel/settings.h", "const volatile __u32 wm_test_runs;", "#define wm_test_runs 0\n"
    )
    with pytest.raises(InputError, match="'wm_test_runs'"):
        make_engine(changed)


def test_an_object_without_one_of_our_programs_is_refused(tmp_path: Path) -> None:
    changed = changed_meter(tmp_path, "wiremeter.bpf.c", "int wm_tc_egress(", "int wm_tc_elsewhere(")
    with pytest.raises(InputError, match=r"'wm_tc_egress'.*wm_tc_elsewhere"):
        make_engine(changed)


# Refused by the verifier ---------------------------------------------------------------------------------------------

INVALID: dict[str, tuple[str, str]] = {
    "tc": (
        "int wm_meter_tc(struct __sk_buff *skb)\n{",
        "\n\tif (*(volatile char *)(long)skb->data)\n\t\treturn 0;",
    ),
    "XDP": (
        "int wm_meter_xdp(struct xdp_md *xdp)\n{",
        "\n\tif (*(volatile char *)(long)xdp->data)\n\t\treturn XDP_DROP;",
    ),
}


def attach_at_xdp(program: Path) -> None:
    """An engine loads the meter for tc at once, the one for XDP where it is needed."""
    with make_engine(program) as engine:
        try:
            load_only(engine, "rx", "xdp")
        finally:
            assert engine.attachments == []


@pytest.mark.parametrize(("entry", "fault"), INVALID.values(), ids=INVALID)
def test_the_verifiers_refusal_comes_with_its_log(entry: str, fault: str, tmp_path: Path) -> None:
    program = entry.removeprefix("int ").partition("(")[0]
    changed = changed_meter(tmp_path, "wiremeter.bpf.c", entry, entry + fault)
    with pytest.raises(VerifierError, match=f"refused {program} of ") as refusal:
        attach_at_xdp(changed)
    assert "invalid access to packet" in refusal.value.log
    assert len(refusal.value.log.splitlines()) > 3
    assert refusal.value.errno == 13


def test_verify_shows_the_instructions_that_led_to_a_refusal(tmp_path: Path) -> None:
    entry, fault = INVALID["tc"]
    refused = {
        check.name: check.log
        for check in verify_object(changed_meter(tmp_path, "wiremeter.bpf.c", entry, entry + fault), load=True)
        if check.passed is False
    }
    assert refused.keys() == {"load wm_meter_tc"}
    assert "if (*(volatile char *)(long)skb->data)" in refused["load wm_meter_tc"]


def test_what_is_verified_is_what_meters(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, int]] = []
    as_asked = BpfObject.set_constants

    def set_constants(self: BpfObject, values: Mapping[str, int | np.void]) -> None:
        told.append({name: value for name, value in values.items() if isinstance(value, int)})
        as_asked(self, values)

    monkeypatch.setattr(BpfObject, "set_constants", set_constants)
    with KernelEngine(plan_tables(1, 256), payload_limit=PAYLOAD_BYTES_MAX):
        metering = told.pop()
    assert all(check.passed for check in verify_object(default_program(), load=True))
    assert told == [metering] * len(told)
    assert len(told) > 1


def test_verifying_the_meter_stays_within_bounds() -> None:
    """Clang turned a comparison back into a branch a word: half as much again to verify, and to wait for at a start."""
    costs = {check.name: check.detail for check in verify_object(default_program(), load=True)}
    assert costs["load wm_meter_tc"].startswith("processed ")
    assert int(costs["load wm_meter_tc"].split()[1]) < 130_000


COPIED = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

SEC("tc") int copied(struct __sk_buff *skb)
{
	int number;

	asm volatile("%0 = %1" : "=r"(number) : "i"(0x574d4944));
	return number == 7 ? *(volatile char *)(long)skb->data : 0; /* only a copy with 7 gets there */
}
"""


@pytest.fixture
def copied(tmp_path: Path) -> Iterator[BpfObject]:
    """A program that is loaded, and can be copied."""
    (tmp_path / "copied.bpf.c").write_text(COPIED)
    with BpfObject(compile_bpf(tmp_path / "copied.bpf.c", tmp_path / "copied.bpf.o")) as opened:
        opened.load("copied")
        yield opened


def test_a_copy_that_the_verifier_refuses_comes_with_its_log(copied: BpfObject) -> None:
    with pytest.raises(VerifierError, match=r"refused copied of ") as refusal:
        copied.copy_program("copied", IDENTITY_MARK, 7)
    assert "invalid access to packet" in refusal.value.log
    assert refusal.value.errno == errno.EACCES
    os.close(copied.copy_program("copied", IDENTITY_MARK, 8))


def test_a_program_without_a_place_for_a_copys_constant_is_an_input_error(copied: BpfObject) -> None:
    with pytest.raises(InputError, match=r"copied of .* no place for the constant"):
        copied.copy_program("copied", IDENTITY_MARK + 1, 7)


def test_more_attachments_than_there_is_room_for_are_an_input_error() -> None:
    with KernelEngine(plan_tables(CPUS, 256, attachments=2)) as engine:
        load_only(engine, "rx", "tcx")
        load_only(engine, "tx", "tcx")
        with pytest.raises(InputError, match="made for 1 devices"):
            engine.attach(Hook("eth7", 7, "rx", "tcx", load_only=True))
