"""`wiremeter doctor`: what it says of hosts and devices made by hand, and its exit status."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace

import pytest

from hosts import netns
from wiremeter.cli import doctor
from wiremeter.cli.doctor import Diagnosis, as_json, as_text, diagnose
from wiremeter.cli.parser import parse, settings_given
from wiremeter.datapath.hooks import AttachedProgram
from wiremeter.datapath.trial import Trial
from wiremeter.linux.devices import ARPHRD_LOOPBACK, Device
from wiremeter.linux.host import HostFacts
from wiremeter.linux.netlink_messages import XdpSlot, XdpSupport
from wiremeter.settings.catalogue import Doctor

GIB = 1 << 30
HOST = HostFacts(
    "6.8.0-45-generic",
    (6, 8, 0),
    capabilities=frozenset({"CAP_NET_ADMIN", "CAP_SYS_ADMIN"}),
    online_cpus=4,
    cpu_numbers=4,
    possible_cpus=8,
    ram_bytes=16 * GIB,
    available_bytes=8 * GIB,
)
LO = Device("lo", 1, arphrd=ARPHRD_LOOPBACK)
ETH0 = Device(
    "eth0",
    2,
    driver="ixgbe",
    parent="0000:00:03.0",
    parent_bus="pci",
    rx_queues=4,
    tx_queues=4,
    xdp_support=XdpSupport(frozenset({"basic"}), frozenset()),
    features={"rx-gro": True, "rx-vlan-hw-parse": True},
    fixed_features=frozenset({"rx-gro"}),
)
CAN = Device("can0", 3, arphrd=280)
DEVICES = (LO, ETH0, CAN)


def look(*patterns: str, host: HostFacts = HOST, default_route: Sequence[int] = (2,), **more: object) -> Diagnosis:
    return diagnose(host, DEVICES, default_route, patterns=patterns or ("auto",), **more)  # type: ignore[arg-type]


def text_of(diagnosis: Diagnosis) -> str:
    """The text with its line breaks taken out."""
    return " ".join(as_text(diagnosis, width=100).split())


def test_a_good_host_works_and_says_how() -> None:
    diagnosis = look()
    assert diagnosis.works
    text = text_of(diagnosis)
    assert "kernel 6.8.0-45-generic" in text
    assert "4 online of 8 possible" in text
    assert "16.0 GiB, 8.0 GiB available, no cgroup limit" in text
    assert "driver ixgbe (pci 0000:00:03.0), 4 rx and 4 tx queues" in text
    assert "on: rx-gro (fixed), rx-vlan-hw-parse" in text
    assert "attach rx tcx, tx tcx" in text
    assert "because not native XDP: the hardware takes VLAN tags off" in text
    assert "if xdp-generic" in text
    assert text.endswith("Metering will work.")


def test_the_tables_memory_is_predicted() -> None:
    diagnosis = look(lines=1 << 16)
    assert diagnosis.tables
    assert diagnosis.tables.regions == 4
    text = text_of(diagnosis)
    assert "2 epochs × 4 CPUs × 65,536 lines" in text
    assert "s for the kernel to hand it out" in text
    assert "names 8.5 MiB more" in text
    assert as_json(diagnosis)["flow_tables"]["bytes"] == diagnosis.tables.bytes


def test_tables_that_do_not_fit_are_a_problem() -> None:
    diagnosis = look(lines=1 << 22, host=replace(HOST, cgroup_limit_bytes=GIB))
    assert not diagnosis.works
    assert "choose a smaller --flow-table" in text_of(diagnosis)


def test_missing_capabilities_are_a_problem_told_once() -> None:
    diagnosis = look(host=replace(HOST, capabilities=frozenset()))
    assert not diagnosis.works
    text = text_of(diagnosis)
    assert "capabilities lacks CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON" in text
    assert text.count("Run it as root") == 1
    assert "attach rx tcx, tx tcx" in text


def test_where_programs_cannot_be_attached_the_fallback_is_named_with_its_cost() -> None:
    confined = replace(HOST, capabilities=frozenset({"CAP_NET_RAW"}))
    diagnosis = look(host=confined)
    assert not diagnosis.works
    assert text_of(diagnosis).endswith(f"{diagnosis.instead}")
    assert "--attach capture would work here" in as_json(diagnosis)["instead"]
    capture = look(host=confined, requested="capture", lines=1 << 16)
    assert capture.works
    text = text_of(capture)
    assert "attach rx capture, tx capture" in text
    assert "65,536 lines" in text
    assert "32.0 MiB for each device" in text


def test_an_older_kernel_says_what_it_lacks() -> None:
    text = text_of(look(host=replace(HOST, kernel_release="6.1.0", kernel_version=(6, 1, 0))))
    assert "lacks tcx: attach at tc by links that die with the process (Linux 6.6)" in text
    assert "attach rx clsact, tx clsact" in text


def test_an_unknown_device_is_a_problem_and_the_others_are_shown() -> None:
    diagnosis = look("eth1", "eth0")
    assert not diagnosis.works
    assert [each.device.name for each in diagnosis.devices] == ["eth0"]
    assert "no device is called eth1; did you mean eth0?" in text_of(diagnosis)


def test_a_named_device_that_cannot_be_parsed_is_a_problem() -> None:
    diagnosis = look("can0", "eth0")
    assert not diagnosis.works
    assert "can0 cannot be metered" in text_of(diagnosis)


def test_a_device_that_a_glob_matches_in_passing_is_left_out() -> None:
    diagnosis = look("*")
    assert diagnosis.works
    assert text_of(diagnosis).endswith("Metering will work, without can0.")


def test_a_glob_that_matches_nothing_now_does_not_work_now() -> None:
    diagnosis = look("wg*")
    assert not diagnosis.works
    assert "no device matches wg* now; one that comes later would be metered" in text_of(diagnosis)


def test_what_is_on_the_hooks_is_shown_if_it_can_be_asked_for() -> None:
    found = [
        AttachedProgram("xdp", 6, "xdp_dispatcher"),
        AttachedProgram("tcx ingress", 7, "filter"),
        AttachedProgram("tcx egress", 8, "wm_egress", True),
        AttachedProgram("clsact egress", 9, ""),
        AttachedProgram("clsact ingress", 0, "flower"),
    ]
    diagnosis = look(programs=lambda ifindex: found if ifindex == 2 else [])
    text = text_of(diagnosis)
    assert "XDP slot xdp xdp_dispatcher (id 6)" in text
    assert "tc programs tcx ingress filter (id 7), tcx egress wm_egress (id 8, ours)" in text
    assert "clsact egress unnamed (id 9), clsact ingress flower" in text
    data = as_json(diagnosis)["devices"][0]
    assert [each["name"] for each in data["xdp_programs"]] == ["xdp_dispatcher"]
    assert [each["name"] for each in data["tc_programs"]] == ["filter", "wm_egress", "", "flower"]
    assert "tc programs" not in text_of(look())
    assert "tc programs none" in text_of(look("lo", programs=lambda _: []))
    assert as_json(look(programs=lambda _: None))["devices"][0]["tc_programs"] is None


def test_a_program_in_the_xdp_slot_is_shown() -> None:
    taken = replace(ETH0, xdp=XdpSlot("xdp", (42,)))
    diagnosis = diagnose(HOST, [taken], [2], requested="xdp")
    text = text_of(diagnosis)
    assert "XDP slot xdp, program id 42" in text
    assert "It stays in use by whoever attached it: use --attach auto or tcx" in text
    assert "xdp off" not in text
    assert not diagnosis.works


def test_lines_keep_to_the_width() -> None:
    for width in (60, 80, 120):
        assert max(map(len, as_text(look("*"), width=width).splitlines())) <= width


def test_json_holds_the_same_and_survives_the_trip() -> None:
    diagnosis = look("*")
    data = json.loads(json.dumps(as_json(diagnosis)))
    assert data["works"] is True
    assert [device["device"] for device in data["devices"]] == ["lo", "eth0", "can0"]
    eth0 = data["devices"][1]
    assert eth0["attach"] == {"rx": "tcx", "tx": "tcx"}
    assert set(eth0["costs"]) == {"xdp", "xdp-generic", "capture"}
    assert eth0["offloads"]["rx-vlan-hw-parse"] is True
    assert data["devices"][2]["works"] is False
    assert data["host"]["kernel_features"]["tcx"] is True


def arguments(*argv: str) -> Doctor:
    settings = settings_given(parse(["doctor", *argv]))
    assert isinstance(settings, Doctor)
    return settings


@pytest.fixture
def fabricated_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "read_host", lambda: replace(HOST, capabilities=HOST.capabilities | {"CAP_NET_RAW"}))
    monkeypatch.setattr(doctor, "read_devices", lambda: DEVICES)
    monkeypatch.setattr(doctor, "read_default_route", lambda: frozenset({2}))
    monkeypatch.setattr(doctor, "try_programs", lambda *_, **__: Trial(seconds=0.5))


def test_programs_that_the_kernel_refuses_are_a_problem_and_capture_is_advised() -> None:
    asked: list[object] = []

    def refuse(**arguments: object) -> Trial:
        asked.append(arguments)
        return Trial("this kernel does not take the programs: Operation not permitted")

    diagnosis = look("eth0", "lo", try_loading=refuse)
    assert not diagnosis.works
    text = text_of(diagnosis)
    assert "programs refused" in text
    assert "Metering will not work: - this kernel does not take the programs: Operation not permitted" in text
    assert "--attach capture would work" not in text  # HOST lacks CAP_NET_RAW
    assert asked == [{"hooks": (("rx", "tcx"), ("tx", "tcx")), "plan": diagnosis.tables, "load": True}]
    data = as_json(diagnosis)["trial"]
    assert data == {"tried": False, "seconds": None, "problem": diagnosis.problems[0]}
    able = replace(HOST, capabilities=HOST.capabilities | {"CAP_NET_RAW"})
    assert "--attach capture would work" in text_of(look("lo", host=able, try_loading=refuse))


def test_programs_that_the_kernel_takes_are_said_to_be() -> None:
    diagnosis = look(try_loading=lambda **_: Trial(seconds=1.25))
    assert diagnosis.works
    assert "programs this kernel takes them: loaded in 1.2 s" in text_of(diagnosis)


def test_programs_are_not_loaded_where_it_is_known_to_be_vain() -> None:
    asked: list[bool] = []

    def note(*, load: bool, **_: object) -> Trial:
        asked.append(load)
        return Trial()

    diagnosis = look(host=replace(HOST, capabilities=frozenset()), try_loading=note)
    assert "programs there; not loaded to try them, because of the problems below" in text_of(diagnosis)
    look(requested="capture", try_loading=note)
    assert asked == [False]


def test_more_devices_than_there_is_room_for_are_a_problem_where_they_are_asked_for() -> None:
    diagnosis = look("eth0", "lo", max_devices=1)
    assert not diagnosis.works
    assert "2 devices are asked for, and there is room for 1: raise --max-devices" in text_of(diagnosis)
    diagnosis = look("*", max_devices=1)
    assert diagnosis.works
    assert as_json(diagnosis)["devices_without_room"] == 1
    assert text_of(diagnosis).endswith("There is no room for 1 of them: raise --max-devices.")
    assert as_json(look("*"))["devices_without_room"] == 0


def test_without_names_less_memory_will_do() -> None:
    small = replace(HOST, ram_bytes=90 << 20)
    assert not look(host=small).works
    diagnosis = look(host=small, reads_payloads=False)
    assert diagnosis.works
    assert "for payloads on their way" not in text_of(diagnosis)
    assert as_json(diagnosis)["flow_tables"]["names_bytes"] == 0


def test_capabilities_are_those_of_the_mode_that_is_asked_for() -> None:
    confined = replace(HOST, capabilities=frozenset({"CAP_NET_RAW"}))
    assert as_json(look(host=confined))["host"]["missing_capabilities"] == ["CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON"]
    capture = look(host=confined, requested="capture")
    assert as_json(capture)["host"]["missing_capabilities"] == []
    assert "capabilities all that are needed" in text_of(capture)
    able = look(requested="capture")
    assert as_json(able)["host"]["missing_capabilities"] == ["CAP_NET_RAW"]
    assert "capabilities lacks CAP_NET_RAW" in text_of(able)


def test_too_few_open_files_are_a_problem() -> None:
    diagnosis = look("eth0", "lo", open_files_limit=20)
    assert not diagnosis.works
    assert "this process may open 20 files, and metering takes about 72" in text_of(diagnosis)
    assert "ulimit -n" in text_of(diagnosis)
    diagnosis = look(open_files_limit=1024)
    assert diagnosis.works
    assert "open files 1,024 allowed, about 68 needed" in text_of(diagnosis)


@pytest.mark.usefixtures("fabricated_host")
@pytest.mark.parametrize(
    ("argv", "status"),
    [
        ((), 0),
        (("--interface", "eth0", "--interface", "lo"), 0),
        (("--interface", "eth7"), 1),
        (("--interface", "can0"), 1),
        (("--interface", "lo", "--attach", "xdp-generic"), 0),
        (("--interface", "eth0", "--max-devices", "5000"), 1),
        (("--attach", "capture"), 0),
        (("--attach", "capture", "--bpf-stats"), 1),
        (("--attach", "capture", "--program", "x.o"), 1),
    ],
)
def test_the_exit_status_says_whether_metering_will_work(
    argv: tuple[str, ...], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor.run(arguments(*argv)) == status
    assert ("Metering will work" in capsys.readouterr().out) == (status == 0)


@pytest.mark.usefixtures("fabricated_host")
def test_json_is_asked_for_by_format(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.run(arguments("--format", "json")) == 0
    assert json.loads(capsys.readouterr().out)["works"] is True


def test_loopback_can_be_looked_at_without_privilege(capsys: pytest.CaptureFixture[str]) -> None:
    doctor.run(arguments("--interface", "lo"))
    assert "loopback shows each packet twice" in " ".join(capsys.readouterr().out.split())


@pytest.mark.kernel
@pytest.mark.skipif(os.geteuid() != 0, reason="makes a network namespace, which needs root")
def test_a_namespace_without_a_network_has_nothing_to_meter(capsys: pytest.CaptureFixture[str]) -> None:
    with netns.hosts("solo") as (solo,), solo.entered():
        assert doctor.run(arguments()) == 1
    assert "there is no default route" in " ".join(capsys.readouterr().out.split())


def test_who_reads_payloads_is_tried_and_said() -> None:
    sealed = look(try_reading=lambda: "")
    assert "payloads read in a process without privileges: one was started and sealed to try" in text_of(sealed)
    assert as_json(sealed)["payloads"] == {"read": True, "isolated": True, "problem": ""}
    here = look()
    assert "payloads read in the process that meters, with all it may do" in text_of(here)
    assert as_json(here)["payloads"] == {"read": True, "isolated": False, "problem": ""}
    assert "payloads" not in text_of(look(reads_payloads=False)).replace("payloads on their way", "")


@pytest.mark.parametrize("requested", ["auto", "capture"])
def test_a_host_that_allows_no_reader_does_not_work(requested: str) -> None:
    host = replace(HOST, capabilities=HOST.capabilities | {"CAP_NET_RAW"})
    diagnosis = look(host=host, requested=requested, try_reading=lambda: "payloads cannot be read: no seccomp")
    assert not diagnosis.works
    assert "payloads cannot be read; the end of this says why" in text_of(diagnosis)
    assert "payloads cannot be read: no seccomp" in text_of(diagnosis)
