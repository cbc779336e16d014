"""What can be said of a compiled object before it meters anything: its file, its types, and a trial load."""

from __future__ import annotations

import faulthandler
import multiprocessing
import struct
from dataclasses import dataclass
from pathlib import Path

from wiremeter.datapath import records
from wiremeter.datapath.layout import plan_tables
from wiremeter.datapath.programs import SHARED_MAPS, TC_PROGRAMS, XDP_PROGRAMS, MeterPrograms
from wiremeter.errors import VerifierError, WiremeterError
from wiremeter.libbpf.objects import BpfObject

EM_BPF = 247
_BUILD_IT = "build it with `make build` in a clone, or install a package that has it"
PROGRAMS = (*TC_PROGRAMS, *XDP_PROGRAMS, "wm_read_clock")
MAPS = (*SHARED_MAPS, ".rodata")

#: Forking keeps what is loaded already; this process has no threads when it verifies.
_FORK = multiprocessing.get_context("fork")
_SECONDS_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    passed: None where it was not looked at, and `detail` says why. log: the verifier's, if it refused.
    """

    name: str
    passed: bool | None
    detail: str
    log: str = ""


def verify_apart(path: Path, *, load: bool = True) -> list[Check]:
    """What verify_object finds, in a process of its own: libbpf crashes on some damaged files (1.1 does)."""
    receiving, sending = _FORK.Pipe(duplex=False)

    def verify() -> None:
        faulthandler.disable()  # a crash here is an answer, and needs no trace
        sending.send(verify_object(path, load=load))

    child = _FORK.Process(target=verify)
    child.start()
    sending.close()
    try:
        found: list[Check] = receiving.recv() if receiving.poll(_SECONDS_MAX) else []
    except EOFError:
        found = []
    child.kill()
    child.join()
    damaged = "libbpf crashed, or came to no end, while it read the file: it is damaged, build it again"
    return found or [_elf(path), Check("libbpf", False, damaged)]


def verify_object(path: Path, *, load: bool = True) -> list[Check]:
    """Every check, the failed ones too; later ones are left out where an earlier failure makes them meaningless.

    load: also load every program with tables of the smallest size, which needs root.
    """
    checks = [_elf(path)]
    if checks[0].passed:
        try:
            with BpfObject(path) as opened:
                checks += [_sections(opened), _maps(opened), _types(opened)]
        except WiremeterError as error:
            checks.append(Check("libbpf", False, str(error)))
    if not all(check.passed for check in checks):
        return checks
    if not load:
        return [*checks, Check("load", None, "not tried: needs root")]
    return [*checks, *(_trial_load(path, name) for name in PROGRAMS)]


def _elf(path: Path) -> Check:
    try:
        with path.open("rb") as file:
            header = file.read(20)
    except OSError as error:
        return Check("ELF", False, f"{path}: {error.strerror}; {_BUILD_IT}")
    if header[:4] != b"\x7fELF" or len(header) < 20:
        return Check("ELF", False, f"{path} is no ELF file ({len(header)} bytes read): {_BUILD_IT}")
    order = "<" if header[5] == 1 else ">"
    kind, machine = struct.unpack_from(f"{order}HH", header, 16)
    if machine != EM_BPF:
        return Check("ELF", False, f"machine {machine}, expected {EM_BPF} (BPF): compile with clang -target bpf")
    if kind != 1:
        return Check("ELF", False, f"type {kind}, expected 1 (relocatable): do not link it")
    return Check("ELF", True, f"BPF, relocatable, {path.stat().st_size} bytes")


def _sections(opened: BpfObject) -> Check:
    sections = opened.sections()
    missing = [name for name in PROGRAMS if name not in sections]
    if missing:
        return Check("programs", False, f"missing: {', '.join(missing)}; there are {', '.join(sections) or 'none'}")
    return Check("programs", True, ", ".join(f"{name} ({section})" for name, section in sections.items()))


def _maps(opened: BpfObject) -> Check:
    maps = opened.maps()
    missing = [name for name in MAPS if name not in maps]
    if missing:
        return Check("maps", False, f"missing: {', '.join(missing)}; there are {', '.join(maps) or 'none'}")
    return Check("maps", True, ", ".join(MAPS))


def _types(opened: BpfObject) -> Check:
    try:
        records.check_against_btf(opened.btf, str(opened.path))
    except WiremeterError as error:
        return Check("BTF", False, str(error))
    return Check("BTF", True, f"{len(records.STRUCTS)} records and the reasons are as this wiremeter reads them")


def _trial_load(path: Path, name: str, *, statistics: bool = True) -> Check:
    programs = MeterPrograms(path, plan_tables(1, 256), payload_limit=records.PAYLOAD_BYTES_MAX)
    try:
        with programs.open() as opened:
            opened.load(name, with_frags=programs.with_frags, statistics=statistics)
            cost = next((line for line in opened.verifier_log(name).splitlines() if line.startswith("processed")), "")
            return Check(f"load {name}", True, cost.split(" (limit")[0] or "accepted")
    except VerifierError as error:
        if statistics:  # then the log has the cost and the last words, and not the way there
            return _trial_load(path, name, statistics=False)
        return Check(f"load {name}", False, str(error), error.log)
    except WiremeterError as error:
        return Check(f"load {name}", False, str(error))
