"""`python -m benchmarks.compare.names`: names out of one capture of web traffic, by wiremeter and by nDPI.

nDPI twice: its own reader, and nfstream, which reads flows in Python. All read the same file, alone, in turn, and write
each flow with its name and application.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path

from benchmarks.compare.cgroups import Group
from benchmarks.compare.meters import WIREMETER
from benchmarks.compare.web import FRAMES, write_web_traffic
from wiremeter.errors import WiremeterError

#: Of the capture; 37 frames each.
CONNECTIONS, CONNECTIONS_QUICK = 20_000, 5_000
_SAMPLE_SECONDS = 0.1
OURS = "wiremeter, names on"
_LONGEST_SECONDS = 600

#: One conversation: its protocol and both ends, in their order.
Key = tuple[int, tuple[tuple[str, int], ...]]
#: Its name and its application; empty where there is none.
Name = tuple[str, str]

_NFSTREAM = """
import csv, sys
from nfstream import NFStreamer
rows = csv.writer(open(sys.argv[2], "w"))
for flow in NFStreamer(source=sys.argv[1], n_meters=1):
    ends = flow.protocol, flow.src_ip, flow.src_port, flow.dst_ip, flow.dst_port
    rows.writerow((*ends, flow.requested_server_name, flow.application_name))
"""


@dataclass(frozen=True)
class Reader:
    """What reads a capture for names. command: given the capture and where to write. missing: why it is left out."""

    text: str
    command: Callable[[Path, Path], Sequence[str | Path]]
    read: Callable[[Path], Iterator[tuple[Key, Name]]]
    version: str
    missing: str = ""


@dataclass(frozen=True)
class NamesRun:
    """What one of them took, and told. named: conversations with a name. same_names, same_applications: how many of
    those that wiremeter knows too are the same, and of how many."""

    text: str
    version: str
    packets_per_second: float
    cpu_seconds: float
    memory_bytes: int
    conversations: int
    named: int
    same_names: tuple[int, int]
    same_applications: tuple[int, int]


def key_of(protocol: int, src: str, src_port: int, dst: str, dst_port: int) -> Key:
    """
    >>> key_of(6, "10.0.0.2", 80, "10.0.0.1", 4000) == key_of(6, "10.0.0.1", 4000, "10.0.0.2", 80)
    True
    """
    return protocol, tuple(sorted(((str(ip_address(src)), src_port), (str(ip_address(dst)), dst_port))))


def application_of(theirs: str) -> str:
    """nDPI's word for an application, whose first part is the protocol, as wiremeter has it.

    >>> application_of("TLS.Google"), application_of("DNS"), application_of("Unknown")
    ('tls', 'dns', '')
    """
    protocol = theirs.split(".")[0].lower()
    return "" if protocol == "unknown" else protocol


def wiremeter_flows(output: Path) -> Iterator[tuple[Key, Name]]:
    """What our document says of each flow."""
    for flow in json.loads(output.read_bytes())["flows"]:
        application = flow.get("application") or ""
        key = key_of(flow["protocol"], flow["src_addr"], flow["src_port"], flow["dst_addr"], flow["dst_port"])
        yield key, (flow.get("domain") or "", "" if application == "unknown" else application)


def ndpi_flows(output: Path) -> Iterator[tuple[Key, Name]]:
    """What ndpiReader's table says of each conversation."""
    with output.open(newline="", errors="replace") as file:
        for row in csv.DictReader(file):
            ends = row["src_ip"], int(row["src_port"]), row["dst_ip"], int(row["dst_port"])
            yield key_of(int(row["protocol"]), *ends), (row["server_name_sni"], application_of(row["ndpi_proto"]))


def nfstream_flows(output: Path) -> Iterator[tuple[Key, Name]]:
    """What the program above writes of each conversation."""
    with output.open(newline="") as file:
        for protocol, src, src_port, dst, dst_port, name, application in csv.reader(file):
            yield key_of(int(protocol), src, int(src_port), dst, int(dst_port)), (name, application_of(application))


def readers() -> list[Reader]:
    """wiremeter first, which the others are compared with."""

    def replay(*options: str) -> Callable[[Path, Path], Sequence[str | Path]]:
        # The shell opens the output, so that nothing of it passes through here.
        words = f'exec "$0" replay --format json {" ".join(options)} "$1" >"$2"'
        return lambda capture, output: ("sh", "-c", words, WIREMETER, capture, output)

    ours = _version("wiremeter")
    has_reader = shutil.which("ndpiReader")
    has_nfstream = find_spec("nfstream")
    return [
        Reader(OURS, replay(), wiremeter_flows, ours),
        Reader("wiremeter, names off", replay("--names", "none"), wiremeter_flows, ours),
        Reader(
            "ndpiReader",
            lambda capture, output: ("ndpiReader", "-q", "-i", capture, "-C", output),
            ndpi_flows,
            _ndpi_version() if has_reader else "",
            "" if has_reader else "not installed: apt-get install libndpi-bin",
        ),
        Reader(
            "nfstream",
            lambda capture, output: (sys.executable, "-c", _NFSTREAM, capture, output),
            nfstream_flows,
            _version("nfstream"),
            "" if has_nfstream else "not installed: pip install 'wiremeter[compare]'",
        ),
    ]


def compare_names(
    connections: int, folder: Path, failures: dict[str, str], say: Callable[[str], None]
) -> Iterator[NamesRun]:
    """A run of each that is there. failures: those that are left out, and why."""
    capture = folder / "web.pcap"
    write_web_traffic(capture, connections)
    known: dict[Key, Name] = {}
    for reader in readers():
        if reader.missing:
            failures[reader.text] = reader.missing
            continue
        say(f"names: {reader.text}")
        try:
            seconds, cpu_seconds, memory_bytes, told = _run(reader, capture, folder / "told")
        except (WiremeterError, OSError, ValueError) as error:
            failures[reader.text] = str(error)
            continue
        known = told if reader.text == OURS else known
        yield NamesRun(
            reader.text,
            reader.version,
            connections * FRAMES / seconds,
            cpu_seconds,
            memory_bytes,
            len(told),
            sum(1 for name, _ in told.values() if name),
            agreement(known, told, 0),
            agreement(known, told, 1),
        )


def agreement(ours: Mapping[Key, Name], theirs: Mapping[Key, Name], part: int) -> tuple[int, int]:
    """Of how many conversations both know a name (0) or an application (1): the same, and all."""
    both = [(ours[key][part], theirs[key][part]) for key in ours.keys() & theirs.keys()]
    known = [(mine.lower(), other.lower()) for mine, other in both if mine and other]
    return sum(mine == other for mine, other in known), len(known)


def _run(reader: Reader, capture: Path, output: Path) -> tuple[float, float, int, dict[Key, Name]]:
    """Seconds, CPU seconds, the most resident memory that was seen, and what was told."""
    output.unlink(missing_ok=True)
    with Group(f"names-{time.monotonic_ns()}") as group, tempfile.TemporaryFile() as errors:
        started = time.monotonic()
        process = subprocess.Popen(
            reader.command(capture, output), stdout=subprocess.DEVNULL, stderr=errors, preexec_fn=group.enter
        )
        memory_bytes = 0
        while process.poll() is None:
            memory_bytes = max(memory_bytes, group.memory_bytes())
            if time.monotonic() - started > _LONGEST_SECONDS:
                process.kill()
            time.sleep(_SAMPLE_SECONDS)
        seconds = time.monotonic() - started
        if process.returncode:
            errors.seek(0)
            raise WiremeterError(f"ended with {process.returncode}: {errors.read()[-300:].decode(errors='replace')}")
        cpu_seconds = group.cpu_seconds()
    told: dict[Key, Name] = {}
    for key, (name, application) in reader.read(output):  # a flow of each direction, or one of both
        before = told.get(key, ("", ""))
        told[key] = before[0] or name, before[1] or application
    return seconds, cpu_seconds, memory_bytes, told


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _ndpi_version() -> str:
    words = subprocess.run(("ndpiReader", "-h"), capture_output=True, text=True, check=False).stdout
    return next((line.removeprefix("Welcome to nDPI ") for line in words.splitlines() if "nDPI" in line), "")


HEADS = ("", "version", "packets/s", "CPU", "memory", "conversations", "named", "same name", "same application")


def cells(run: NamesRun) -> tuple[str, ...]:
    """A row under HEADS."""

    def share(same: tuple[int, int]) -> str:
        return f"{same[0]:,} of {same[1]:,}"

    return (
        run.text,
        run.version,
        f"{run.packets_per_second:,.0f}",
        f"{run.cpu_seconds:.1f} s",
        f"{run.memory_bytes / 1e6:.0f} MB",
        f"{run.conversations:,}",
        f"{run.named:,}",
        share(run.same_names),
        share(run.same_applications),
    )


def main() -> int:
    """Compares names alone; prints a table, and JSON with --json."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare.names", description=__doc__)
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help="of the capture (default %(default)s)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if os.geteuid():
        print("each has a cgroup of its own: run it as root", file=sys.stderr)
        return 1
    failures: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="wiremeter-names-") as folder:
        runs = list(compare_names(args.connections, Path(folder), failures, lambda what: None))
    if args.json:
        print(json.dumps([asdict(run) for run in runs], indent=1))
    else:
        for row in (HEADS, *map(cells, runs)):
            print(" | ".join(row))
    for who, why in failures.items():
        print(f"left out: {who}: {why}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
