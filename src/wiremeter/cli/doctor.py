"""`wiremeter doctor`: what this host can do, what would be attached and why, and what memory it would take."""

from __future__ import annotations

import json
import resource
import shutil
import sys
import textwrap
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from wiremeter.agent.meter import name_options
from wiremeter.datapath.hooks import AttachedProgram, ProgramQuery, program_query
from wiremeter.datapath.layout import CAPTURE_RING_BYTES, DEFAULT_ATTACHMENTS, TablePlan, names_bytes, plan_tables
from wiremeter.datapath.naming import try_reader
from wiremeter.datapath.trial import Trial, try_programs
from wiremeter.errors import MORE_FILES, InputError
from wiremeter.flows.columns import AttachMode, Direction
from wiremeter.linux.devices import AUTO, Device, is_glob, read_default_route, read_devices, select_devices
from wiremeter.linux.host import KERNEL_FEATURES, HostFacts, read_host
from wiremeter.linux.memory import check_memory, least_bytes
from wiremeter.metering.attach_policy import (
    AttachPlan,
    capture_instead,
    capture_problems,
    host_problems,
    plan_attach,
    request_problem,
)
from wiremeter.metering.conventions import convention_of
from wiremeter.settings.words import RequestedMode

if TYPE_CHECKING:
    from wiremeter.datapath.pins import Seen
    from wiremeter.settings.catalogue import Doctor

#: Offloads that decide what XDP sees and how device counters count.
OFFLOADS = (
    "rx-gro",
    "rx-gro-hw",
    "rx-lro",
    "rx-vlan-hw-parse",
    "tx-tcp-segmentation",
    "tx-tcp6-segmentation",
    "tx-udp-segmentation",
)

#: How fast the kernel hands out the tables' memory when they are made: 4.5 GiB took 11 s on a 2-core machine.
_BYTES_PER_SECOND = 4.5 * 2**30 / 11

_LABEL_WIDTH = 16

#: Files that the agent has open while it starts, besides those of its clients: 58 and 4, and some to spare.
_FILES, _FILES_PER_DEVICE = 64, 4


@dataclass(frozen=True, slots=True)
class DeviceDiagnosis:
    """One device: its facts, the plan, what is on its hooks (None: not known), and whether it must work."""

    device: Device
    plan: AttachPlan
    programs: tuple[AttachedProgram, ...] | None
    is_required: bool

    def own_problems(self, host: HostFacts) -> tuple[str, ...]:
        """Its problems without those of the host, which stand in the host's section."""
        common = (*host_problems(host), *capture_problems(host))
        return tuple(problem for problem in self.plan.problems if problem not in common)


class TryLoading(Protocol):
    """`try_programs`, of programs and names that are settled."""

    def __call__(
        self, *, hooks: Collection[tuple[Direction, AttachMode]], plan: TablePlan | None, load: bool
    ) -> Trial: ...


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that doctor says. problems: those of the host and of what was asked for; a device's own are with it.

    instead: what would work where this does not, and what it costs; "" where there is no such thing.
    trial: what came of loading the programs; None where that is not how they meter.
    open_files: how many this process may have, and how many metering takes.
    pins: what is pinned; None where nothing is.
    reading: what is in the way of a process without privileges that reads payloads, "" if nothing is; None: none does.
    """

    host: HostFacts
    tables: TablePlan | None
    devices: tuple[DeviceDiagnosis, ...]
    problems: tuple[str, ...]
    requested: RequestedMode = "auto"
    reads_payloads: bool = True
    instead: str = ""
    trial: Trial | None = None
    open_files: tuple[int, int] | None = None
    reading: str | None = None
    pins: Seen | None = None

    @property
    def without_room(self) -> int:
        """How many devices that could be metered are more than the tables have room for."""
        room = self.tables.attachments // 2 if self.tables else 0
        return max(0, sum(each.plan.works for each in self.devices) - room)

    @property
    def works(self) -> bool:
        """Whether metering will work: for every device that was named or found by `auto`, and for at least one."""
        required = (each.plan.works for each in self.devices if each.is_required)
        return not self.problems and all(required) and any(each.plan.works for each in self.devices)


def run(settings: Doctor, programs: ProgramQuery | None = None) -> int:
    """Prints the diagnosis; returns 0 if metering will work, else 1."""
    names = name_options(settings, isolated=settings.isolate)
    program = Path(settings.program) if settings.program else None
    diagnosis = diagnose(
        read_host(),
        read_devices(),
        read_default_route(),
        patterns=settings.interfaces,
        requested=settings.attach,
        lines=settings.flow_table,
        max_devices=settings.max_devices,
        reads_payloads=settings.reads_payloads,
        request=request_problem(settings.attach, settings.program, bpf_stats=settings.bpf_stats),
        programs=programs or program_query(),
        try_loading=partial(try_programs, program, names=names),
        open_files_limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        try_reading=partial(try_reader, names) if settings.reads_payloads and settings.isolate else None,
    )
    diagnosis = replace(diagnosis, pins=_pinned(settings.pin))
    if settings.format == "json":
        json.dump(as_json(diagnosis), sys.stdout, indent=2)
        print()
    else:
        print(as_text(diagnosis, width=max(60, min(shutil.get_terminal_size().columns, 120))))
    return 0 if diagnosis.works else 1


def diagnose(
    host: HostFacts,
    devices: Sequence[Device],
    default_route: Collection[int],
    *,
    patterns: Sequence[str] = (AUTO,),
    requested: RequestedMode = "auto",
    lines: int | None = None,
    max_devices: int = DEFAULT_ATTACHMENTS // 2,
    reads_payloads: bool = True,
    request: str = "",
    programs: ProgramQuery | None = None,
    try_loading: TryLoading | None = None,
    open_files_limit: int | None = None,
    try_reading: Callable[[], str] | None = None,
) -> Diagnosis:
    """What the facts mean for metering the devices that `patterns` mean, attached as `requested`.

    reads_payloads: names are on, which takes memory. request: what is wrong with what was asked for, "" if nothing.
    try_loading: such as `try_programs`, called only where programs would be loaded. try_reading: such as `try_reader`;
    None: no process of its own reads payloads.
    """
    capturing = requested == "capture"
    problems = list(capture_problems(host) if capturing else host_problems(host))
    problems += [request] if request else []
    try:
        check_memory(host.memory_limit_bytes, with_names=reads_payloads)
    except InputError as error:
        problems.append(str(error))
    tables = None
    cpus = 1 if capturing else host.cpu_numbers
    try:
        tables = plan_tables(cpus, lines, host.memory_limit_bytes or None, 2 * max_devices)
    except InputError as error:
        problems.append(str(error))
    required: set[int] = set()
    for pattern in patterns:
        try:
            named = [] if is_glob(pattern) else select_devices([pattern], devices, default_route)
            required.update(device.ifindex for device in named)
        except InputError as error:
            problems.append(str(error))
    if len(required) > max_devices:
        problems.append(
            f"{len(required)} devices are asked for, and there is room for {max_devices}: raise --max-devices"
        )
    chosen = select_devices(patterns, devices, default_route, strict=False)
    if not chosen and all(is_glob(pattern) for pattern in patterns):
        problems.append(f"no device matches {', '.join(patterns)} now; one that comes later would be metered")
    found = []
    for device in chosen:
        attached = programs(device.ifindex) if programs else None
        plan = plan_attach(device, host, requested, reads_vlan_metadata=True)
        found.append(
            DeviceDiagnosis(device, plan, None if attached is None else tuple(attached), device.ifindex in required)
        )
    reading = try_reading() if try_reading else None
    problems += [reading] if reading else []
    if capturing:
        return Diagnosis(host, tables, tuple(found), tuple(problems), requested, reads_payloads, reading=reading)
    is_barred = bool(host_problems(host))
    trial = None
    if try_loading:
        plans = [each.plan for each in found if each.plan.works]
        rx: list[tuple[Direction, AttachMode]] = [("rx", plan.rx_mode) for plan in plans]
        tx: list[tuple[Direction, AttachMode]] = [("tx", plan.tx_mode) for plan in plans]
        trial = try_loading(hooks=tuple(dict.fromkeys(rx + tx)), plan=tables, load=not is_barred)
        problems += [trial.problem] if trial.problem else []
        is_barred |= bool(trial.problem)
    open_files = None
    if open_files_limit is not None:
        open_files = (open_files_limit, _FILES + _FILES_PER_DEVICE * len(found))
        if open_files[0] < open_files[1]:
            is_barred = False  # what would work instead needs files, too
            problems.append(
                f"this process may open {open_files[0]} files, and metering takes about {open_files[1]}: {MORE_FILES}"
            )
    instead = capture_instead(host) if is_barred else ""
    return Diagnosis(
        host, tables, tuple(found), tuple(problems), requested, reads_payloads, instead, trial, open_files, reading
    )


def as_text(diagnosis: Diagnosis, width: int = 100) -> str:
    """The diagnosis for people, in lines of at most `width` columns."""
    sections = [("host", [*_host_rows(diagnosis.host, diagnosis.requested), *_trial_rows(diagnosis)])]
    if diagnosis.tables:
        sections.append(("flow tables", list(_table_rows(diagnosis))))
    if diagnosis.pins:
        sections.append(("pinned", list(_pin_rows(diagnosis.pins))))
    sections += [(each.device.name, list(_device_rows(each, diagnosis.host))) for each in diagnosis.devices]
    parts = ["\n".join([name, *(_row(label, text, width) for label, text in rows)]) for name, rows in sections]
    return "\n\n".join([*parts, _verdict(diagnosis, width)])


def as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """The diagnosis for programs: plain values only."""
    return {
        "works": diagnosis.works,
        "problems": list(diagnosis.problems),
        "instead": diagnosis.instead,
        "host": _host_json(diagnosis.host, diagnosis.requested),
        "trial": _trial_json(diagnosis.trial) if diagnosis.trial else None,
        "payloads": {
            "read": diagnosis.reads_payloads,
            "isolated": diagnosis.reads_payloads and diagnosis.reading is not None,
            "problem": diagnosis.reading or "",
        },
        "open_files": dict(zip(("allowed", "needed"), diagnosis.open_files, strict=True))
        if diagnosis.open_files
        else None,
        "flow_tables": _tables_json(diagnosis.tables, diagnosis.reads_payloads) if diagnosis.tables else None,
        "pinned": _pins_json(diagnosis.pins) if diagnosis.pins else None,
        "devices_without_room": diagnosis.without_room,
        "devices": [_device_json(each, diagnosis.host) for each in diagnosis.devices],
    }


def allocation_seconds(tables: TablePlan) -> float:
    """How long the kernel will take to hand out the tables' memory, by what was measured."""
    return tables.bytes / _BYTES_PER_SECOND


def _host_rows(host: HostFacts, requested: RequestedMode) -> Iterator[tuple[str, str]]:
    yield "kernel", host.kernel_release or "unknown"
    for feature, since in KERNEL_FEATURES.items():
        if not host.can(feature):
            yield "lacks", f"{since.purpose} (Linux {since.version[0]}.{since.version[1]})"
    yield "BTF", "present" if host.has_btf else "missing"
    missing = host.missing_capabilities_for(requested)
    where = "" if host.is_initial_userns else ", in a user namespace of its own"
    yield "capabilities", (f"lacks {', '.join(missing)}" if missing else "all that are needed") + where
    yield "CPUs", f"{host.online_cpus} online of {host.possible_cpus} possible"
    limit = "no cgroup limit" if host.cgroup_limit_bytes is None else f"cgroup limit {_size(host.cgroup_limit_bytes)}"
    yield "memory", f"{_size(host.ram_bytes)}, {_size(host.available_bytes)} available, {limit}"
    with_names = _size(least_bytes(with_names=True))
    yield "needs", f"{with_names} at the least, {_size(least_bytes(with_names=False))} with --names none"
    yield (
        "BPF JIT",
        {True: "on", False: "off: each packet costs many times more", None: "not visible from here"}[host.jit],
    )
    if host.is_preempt_rt:
        yield "preemption", "PREEMPT_RT"


def _trial_rows(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    trial = diagnosis.trial
    if trial:
        if trial.problem:
            yield "programs", "refused; the end of this says why"
        elif trial.seconds is None:
            yield "programs", "there; not loaded to try them, because of the problems below"
        else:
            yield "programs", f"this kernel takes them: loaded in {trial.seconds:.1f} s to try, and freed"
    if diagnosis.reading is not None:
        sealed = "in a process without privileges: one was started and sealed to try"
        yield "payloads", "cannot be read; the end of this says why" if diagnosis.reading else f"read {sealed}"
    elif diagnosis.reads_payloads:
        yield "payloads", "read in the process that meters, with all it may do"
    if diagnosis.open_files:
        limit, needed = diagnosis.open_files
        yield "open files", f"{limit:,} allowed, about {needed} needed"


def _table_rows(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    tables, host = diagnosis.tables, diagnosis.host
    if not tables:
        return
    if diagnosis.requested == "capture":
        yield "size", f"{tables.lines:,} lines; an IPv4 flow takes 1, an IPv6 flow 2"
        yield "memory", f"{_size(tables.region_bytes)}, of which is taken what is used"
        yield "packet rings", f"{_size(2 * CAPTURE_RING_BYTES)} for each device"
        return
    yield "size", f"2 epochs × {tables.regions} CPUs × {tables.lines:,} lines; an IPv4 flow takes 1, an IPv6 flow 2"
    share = f", {tables.bytes / host.memory_limit_bytes:.1%} of what there is" if host.memory_limit_bytes else ""
    yield "memory", f"{_size(tables.bytes)}, taken at the start{share}"
    if diagnosis.reads_payloads:
        yield "names", f"{_size(names_bytes(tables.regions))} more, for payloads on their way; none with --names none"
    yield "start-up", f"about {allocation_seconds(tables):.1f} s for the kernel to hand it out"


def _pinned(directory: str | None) -> Seen | None:
    try:
        from wiremeter.datapath.pins import DEFAULT_DIRECTORY, look
    except InputError:  # no binding
        return None
    return look(Path(directory) if directory else DEFAULT_DIRECTORY)


def _pin_rows(pins: Seen) -> Iterator[tuple[str, str]]:
    yield "directory", f"{pins.directory}, " + ("an agent runs with it" if pins.is_in_use else "no agent runs with it")
    for tables in pins.tables:
        fits = "the records of this one" if tables.has_our_layout else "other records: the next agent replaces them"
        size = f"{tables.regions} CPUs × {tables.lines:,} lines"
        yield "tables", f"made by wiremeter {tables.wiremeter}, {fits}; {size}, {_size(tables.table_bytes)}"
    yield "links", f"{pins.links}; `wiremeter detach` removes all of it"


def _device_rows(diagnosis: DeviceDiagnosis, host: HostFacts) -> Iterator[tuple[str, str]]:
    device, plan = diagnosis.device, diagnosis.plan
    yield "link", f"{'up' if device.is_up else 'down'}, {_link_layer(device)}, MTU {device.mtu}"
    yield "driver", _driver(device)
    yield "offloads", _offloads(device)
    at_xdp, at_tc = _split(diagnosis.programs)
    if at_xdp:
        yield "XDP slot", _programs(at_xdp)
    else:
        taken = f"{device.xdp.mode}, program id {_ids(device.xdp.program_ids)}"
        yield "XDP slot", "free" if device.xdp.is_free else taken
    if diagnosis.programs is not None:
        yield "tc programs", _programs(at_tc) or "none"
    if plan.rx_mode != "none":
        yield "attach", f"rx {plan.rx_mode}, tx {plan.tx_mode}"
    yield "because", plan.reason
    for mode, cost in plan.costs.items():
        yield f"if {mode}", cost
    if plan.rx_mode != "none":
        yield "its counters", "; ".join(f"{side}: {text}" for side, text in _conventions(diagnosis).items())
    for warning in plan.warnings:
        yield "note", warning
    for problem in diagnosis.own_problems(host):
        yield "problem", problem


def _verdict(diagnosis: Diagnosis, width: int) -> str:
    if diagnosis.works:
        left_out = [each.device.name for each in diagnosis.devices if not each.plan.works]
        but = f", without {', '.join(left_out)}" if left_out else ""
        room = f" There is no room for {diagnosis.without_room} of them: raise --max-devices."
        return f"Metering will work{but}.{room if diagnosis.without_room else ''}"
    problems = list(diagnosis.problems)
    for each in diagnosis.devices:
        problems += each.own_problems(diagnosis.host)
    lines = (textwrap.fill(problem, width, initial_indent="  - ", subsequent_indent="    ") for problem in problems)
    instead = [textwrap.fill(diagnosis.instead, width)] if diagnosis.instead else []
    return "\n".join(["Metering will not work:", *lines, *instead])


def _row(label: str, text: str, width: int) -> str:
    indent = " " * (2 + _LABEL_WIDTH)
    return textwrap.fill(
        text,
        width,
        initial_indent=f"  {label:{_LABEL_WIDTH - 1}} ",
        subsequent_indent=indent,
        break_on_hyphens=False,
    )


def _link_layer(device: Device) -> str:
    if device.unsupported_reason:
        return f"link layer {device.arphrd}"
    return "Ethernet" if device.has_ethernet else "no Ethernet, packets begin at the IP header"


def _driver(device: Device) -> str:
    name = device.driver or device.kind or ("loopback" if device.is_loopback else "unnamed")
    behind = f"{device.parent_bus} {device.parent}".strip() if device.is_physical else "virtual"
    return f"{name} ({behind}), {device.rx_queues} rx and {device.tx_queues} tx queues"


def _offloads(device: Device) -> str:
    fixed = device.fixed_features
    on = [f"{name}{' (fixed)' if name in fixed else ''}" for name in OFFLOADS if device.has(name)]
    return f"on: {', '.join(on)}" if on else "none of those that matter here"


def _split(programs: Sequence[AttachedProgram] | None) -> tuple[list[AttachedProgram], list[AttachedProgram]]:
    """Those at XDP, and those at tc."""
    at_xdp = [each for each in programs or () if each.hook.startswith("xdp")]
    return at_xdp, [each for each in programs or () if each not in at_xdp]


def _programs(programs: Sequence[AttachedProgram]) -> str:
    def named(each: AttachedProgram) -> str:
        if not each.id:
            return f"{each.hook} {each.name}"
        return f"{each.hook} {each.name or 'unnamed'} (id {each.id}{', ours' if each.is_ours else ''})"

    return ", ".join(map(named, programs))


def _conventions(diagnosis: DeviceDiagnosis) -> dict[str, str]:
    device, plan = diagnosis.device, diagnosis.plan
    return {
        "rx": convention_of(device, "rx", plan.rx_mode).text,
        "tx": convention_of(device, "tx", plan.tx_mode).text,
    }


def _ids(program_ids: Sequence[int]) -> str:
    return ", ".join(str(number) for number in program_ids) or "unknown"


def _size(count: int) -> str:
    """A number of bytes with a binary unit.

    >>> _size(5 * 2**30)
    '5.0 GiB'
    """
    amount, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"


def _trial_json(trial: Trial) -> dict[str, Any]:
    return {"tried": trial.seconds is not None, "seconds": trial.seconds, "problem": trial.problem or None}


def _host_json(host: HostFacts, requested: RequestedMode) -> dict[str, Any]:
    return {
        "kernel": host.kernel_release,
        "kernel_features": {feature: host.can(feature) for feature in KERNEL_FEATURES},
        "btf": host.has_btf,
        "preempt_rt": host.is_preempt_rt,
        "capabilities": sorted(host.capabilities),
        "missing_capabilities": list(host.missing_capabilities_for(requested)),
        "initial_user_namespace": host.is_initial_userns,
        "online_cpus": host.online_cpus,
        "possible_cpus": host.possible_cpus,
        "ram_bytes": host.ram_bytes,
        "available_bytes": host.available_bytes,
        "cgroup_limit_bytes": host.cgroup_limit_bytes,
        "jit": host.jit,
        "unprivileged_bpf_disabled": host.unprivileged_bpf_disabled,
    }


def _tables_json(tables: TablePlan, reads_payloads: bool) -> dict[str, Any]:
    return {
        "lines": tables.lines,
        "regions": tables.regions,
        "bytes": tables.bytes,
        "names_bytes": names_bytes(tables.regions) if reads_payloads else 0,
        "allocation_seconds": round(allocation_seconds(tables), 3),
    }


def _pins_json(pins: Seen) -> dict[str, Any]:
    tables = [
        {
            "version": each.wiremeter,
            "layout": each.layout,
            "is_own_layout": each.has_our_layout,
            "lines": each.lines,
            "regions": each.regions,
            "bytes": each.table_bytes,
        }
        for each in pins.tables
    ]
    return {"directory": str(pins.directory), "in_use": pins.is_in_use, "links": pins.links, "tables": tables}


def _device_json(diagnosis: DeviceDiagnosis, host: HostFacts) -> dict[str, Any]:
    device, plan = diagnosis.device, diagnosis.plan
    attached = diagnosis.programs
    at_xdp, at_tc = _split(attached)
    return {
        "device": device.name,
        "ifindex": device.ifindex,
        "up": device.is_up,
        "mtu": device.mtu,
        "kind": device.kind,
        "driver": device.driver,
        "physical": device.is_physical,
        "ethernet": device.has_ethernet,
        "rx_queues": device.rx_queues,
        "tx_queues": device.tx_queues,
        "offloads": {name: device.has(name) for name in OFFLOADS},
        "fixed_offloads": [name for name in OFFLOADS if name in device.fixed_features],
        "xdp_slot": {"mode": device.xdp.mode, "program_ids": list(device.xdp.program_ids)},
        "xdp_features": sorted(device.xdp_support.features) if device.xdp_support else None,
        "xdp_rx_metadata": sorted(device.xdp_support.rx_metadata) if device.xdp_support else None,
        "xdp_programs": None if attached is None else [each._asdict() for each in at_xdp],
        "tc_programs": None if attached is None else [each._asdict() for each in at_tc],
        "attach": {"rx": plan.rx_mode, "tx": plan.tx_mode},
        "reason": plan.reason,
        "costs": dict(plan.costs),
        "counters": _conventions(diagnosis),
        "notes": list(plan.warnings),
        "problems": list(diagnosis.own_problems(host)),
        "works": plan.works,
    }
