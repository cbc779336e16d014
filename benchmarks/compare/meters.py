"""The meters: how each is started on a device, and what it says, in its own words, that it has counted and lost."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Protocol

from benchmarks.compare.cgroups import Group
from benchmarks.namespaces import RECEIVER, Namespace, end_with_parent
from wiremeter.errors import KernelError

ROOT = Path(__file__).parents[2]
WIREMETER = ROOT / ".venv" / "bin" / "wiremeter"
START_SECONDS = 20.0
METRICS = "127.0.0.1:10464"
#: Two intervals of the agent, and a bit.
AGENT_QUIET_SECONDS = 2.4


class Account(NamedTuple):
    """What a meter says so far. lost: what it says it did not count; None where it says nothing of that.

    bpf_ns, bpf_runs: with BPF statistics only.
    """

    packets: int
    bytes: int | None = None
    lost: int | None = None
    bpf_ns: float = 0.0
    bpf_runs: int = 0


class Running(Protocol):
    """A meter at work."""

    def account(self) -> Account | None:
        """What it has counted so far; None where it tells only at its end."""

    def stop(self) -> Account | None:
        """Ends it; what it had counted, where it tells then."""


@dataclass(frozen=True, slots=True)
class Meter:
    """One way of metering.

    missing: why it cannot take part here, "" if it can. tells_at_end: it has to end before it says what it counted.
    quiet_seconds: once it has said the same for so long it has no more to say.
    rounds: in how many it takes part at most; references need fewer. with_statistics: its programs are timed by the
    kernel, so what it costs otherwise is too high. counts_both_directions: in one number.
    """

    name: str
    text: str
    kind: str  # "wiremeter", "old way", "tool" or "none"
    start: Callable[[Namespace, Group, Path], Running]
    version: Callable[[], str]
    missing: str = ""
    tells_at_end: bool = False
    quiet_seconds: float = 1.0
    rounds: int = 99
    with_statistics: bool = False
    counts_both_directions: bool = False
    command: tuple[str, ...] = field(default=())


class _Process:
    """A meter's process in its group and namespace."""

    def __init__(
        self, command: Sequence[str | Path], namespace: Namespace, group: Group, folder: Path, *, stop: signal.Signals
    ) -> None:
        self.folder = folder
        self._stop = stop
        self.output = folder / "output"

        def before() -> None:
            end_with_parent()
            group.enter()

        with namespace.entered(), self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [os.fspath(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                preexec_fn=before,
                env=os.environ | {"PYTHONPATH": os.fspath(ROOT)},
            )

    def said(self) -> str:
        """All that it has printed."""
        return self.output.read_text(errors="replace")

    def wait_for(self, claim: Callable[[], bool], what: str) -> None:
        """Returns once `claim` holds. Raises KernelError if the meter ends before, or takes too long."""
        deadline = time.monotonic() + START_SECONDS
        while not claim():
            if self.process.poll() is not None:
                raise KernelError(f"it ended with {self.process.returncode}: {self.said()[-500:]}", call=what)
            if time.monotonic() > deadline:
                self.end()
                raise KernelError(f"no answer within {START_SECONDS:g} s: {self.said()[-500:]}", call=what)
            time.sleep(0.02)

    def end(self) -> None:
        """Asks it to end, and makes it if it does not."""
        if self.process.poll() is None:
            self.process.send_signal(self._stop)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()


# ---- nothing at all


class _Nothing:
    def account(self) -> Account | None:
        return None

    def stop(self) -> Account | None:
        return None


# ---- wiremeter


class _Wiremeter:
    """`wiremeter agent`, asked at /metrics."""

    def __init__(self, options: Sequence[str], namespace: Namespace, group: Group, folder: Path) -> None:
        self._namespace = namespace
        command: tuple[str | Path, ...] = (
            WIREMETER,
            "agent",
            "--interface",
            RECEIVER,
            "--listen",
            METRICS,
            "--log-level",
            "error",
            *options,
        )
        self._process = _Process(command, namespace, group, folder, stop=signal.SIGTERM)
        self._process.wait_for(self._is_ready, "wiremeter agent")

    def _is_ready(self) -> bool:
        with suppress(OSError):
            return bool(self._get("/readyz")) and bool(self._samples())
        return False

    def _get(self, path: str) -> str:
        with self._namespace.entered(), urllib.request.urlopen(f"http://{METRICS}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def _samples(self) -> dict[str, float]:
        """Sums by metric and, where there is one, direction."""
        found: dict[str, float] = {}
        for line in self._get("/metrics").splitlines():
            matched = re.fullmatch(r"([a-z_]+)(\{(.*)\})? (\S+)", line)
            if not matched:
                continue
            direction = re.search(r'direction="(\w+)"', matched[3] or "")
            key = matched[1] + (f" {direction[1]}" if direction else "")
            found[key] = found.get(key, 0.0) + float(matched[4])
        return found

    def account(self) -> Account | None:
        samples = self._samples()
        lost = samples.get("network_capture_dropped_skbs_total rx", 0.0)
        lost += samples.get("network_unattributed_packets_total rx", 0.0)
        return Account(
            packets=int(samples.get("network_attributed_packets_total rx", 0.0)),
            bytes=int(samples.get("network_attributed_bytes_total rx", 0.0)),
            lost=int(lost),
            bpf_ns=samples.get("wiremeter_program_run_seconds_total rx", 0.0) * 1e9,
            bpf_runs=int(samples.get("wiremeter_program_runs_total rx", 0.0)),
        )

    def stop(self) -> Account | None:
        self._process.end()
        return None


# ---- the old way


class _PythonLoop:
    def __init__(self, library: str, namespace: Namespace, group: Group, folder: Path) -> None:
        command = (sys.executable, "-m", "benchmarks.compare.python_loops", library, RECEIVER)
        self._process = _Process(command, namespace, group, folder, stop=signal.SIGTERM)
        self._process.wait_for(lambda: "ready" in self._process.said(), library)
        time.sleep(0.5)  # scapy says ready before its socket is there

    def account(self) -> Account | None:
        before = self._process.said().count("\n")
        self._process.process.send_signal(signal.SIGUSR1)
        self._process.wait_for(lambda: self._process.said().count("\n") > before, "SIGUSR1")
        told = json.loads(self._process.said().splitlines()[-1])
        return Account(told["packets"], told["bytes"], told["dropped"])

    def stop(self) -> Account | None:
        self._process.end()
        return None


# ---- tools


class _Tcpdump:
    def __init__(self, namespace: Namespace, group: Group, folder: Path) -> None:
        command = ("tcpdump", "-i", RECEIVER, "-n", "-w", "/dev/null")
        self._process = _Process(command, namespace, group, folder, stop=signal.SIGINT)
        self._process.wait_for(lambda: "listening on" in self._process.said(), "tcpdump")

    def account(self) -> Account | None:
        before = self._process.said().count("\n")
        self._process.process.send_signal(signal.SIGUSR1)
        self._process.wait_for(lambda: self._process.said().count("\n") > before, "tcpdump")
        told = self._process.said().splitlines()[-1]
        captured, dropped = re.search(r"(\d+) packets? captured", told), re.search(r"(\d+) packets? dropped", told)
        return Account(int(captured[1]), None, int(dropped[1])) if captured and dropped else None

    def stop(self) -> Account | None:
        self._process.end()
        return None


class _Softflowd:
    def __init__(self, namespace: Namespace, group: Group, folder: Path) -> None:
        self._control = folder / "control"
        at = ("-c", self._control, "-p", folder / "pid")
        command: tuple[str | Path, ...] = ("softflowd", "-i", RECEIVER, "-d", *at, "-m", "2097152")
        self._process = _Process(command, namespace, group, folder, stop=signal.SIGTERM)
        self._process.wait_for(lambda: self._control.exists() and self.account() is not None, "softflowd")

    def account(self) -> Account | None:
        done = subprocess.run(
            ("softflowctl", "-c", self._control, "statistics"), capture_output=True, text=True, timeout=30, check=False
        )
        processed = re.search(r"Packets processed: (\d+)", done.stdout)
        ignored = re.search(r"Ignored packets: (\d+)", done.stdout)
        dropped = re.search(r"Packets dropped by libpcap: (\d+)", done.stdout)
        if not processed:
            return None
        lost = sum(int(found[1]) for found in (ignored, dropped) if found)
        return Account(int(processed[1]), None, lost)

    def stop(self) -> Account | None:
        self._process.end()
        return None


class _Pmacctd:
    """Its plugin writes what it has aggregated when it ends."""

    def __init__(self, namespace: Namespace, group: Group, folder: Path) -> None:
        self._records = folder / "records.csv"
        configuration = folder / "pmacctd.conf"
        configuration.write_text(
            "\n".join(
                (
                    "daemonize: false",
                    f"pcap_interface: {RECEIVER}",
                    "promisc: false",
                    "plugins: print[all]",
                    "aggregate[all]: src_host, dst_host, src_port, dst_port, proto",
                    "print_output[all]: csv",
                    f"print_output_file[all]: {self._records}",
                    "print_output_file_append[all]: true",
                    "print_refresh_time[all]: 3600",
                    "plugin_pipe_size[all]: 67108864",
                    "plugin_buffer_size[all]: 65536",
                    "",
                )
            )
        )
        self._group = group
        self._process = _Process(("pmacctd", "-f", configuration), namespace, group, folder, stop=signal.SIGINT)
        self._process.wait_for(lambda: "cache entries" in self._process.said(), "pmacctd")
        time.sleep(0.5)

    def account(self) -> Account | None:
        return None

    def stop(self) -> Account | None:
        self._process.end()
        deadline = time.monotonic() + 20
        while self._group.pids() and time.monotonic() < deadline:  # the plugin writes on
            time.sleep(0.05)
        packets = size = 0
        if self._records.exists():
            with self._records.open(newline="") as lines:
                for row in csv.DictReader(lines):
                    if row["PACKETS"].isdigit():  # each purge begins with the names of the columns
                        packets += int(row["PACKETS"])
                        size += int(row["BYTES"])
        dropped = re.findall(r"dropped_packets=(\d+)", self._process.said())
        return Account(packets, None, int(dropped[-1]) if dropped else None)


class _Nfpcapd:
    """It writes its flows to files when it ends, and says what it has processed."""

    def __init__(self, namespace: Namespace, group: Group, folder: Path) -> None:
        files = folder / "files"
        files.mkdir()
        command = ("nfpcapd", "-i", RECEIVER, "-w", files, "-t", "3600")
        self._process = _Process(command, namespace, group, folder, stop=signal.SIGINT)
        self._process.wait_for(lambda: "Startup nfpcapd" in self._process.said(), "nfpcapd")
        time.sleep(0.3)

    def account(self) -> Account | None:
        return None

    def stop(self) -> Account | None:
        self._process.end()
        told = self._process.said()
        packets = sum(map(int, re.findall(r"Ident: 'none' Flows: \d+, Packets: (\d+)", told)))
        dropped = re.findall(r"dropped by OS/Buffer: (\d+)", told)
        return Account(packets, None, int(dropped[-1]) if dropped else None)


# ---- which there are


def all_meters(flow_table: int) -> list[Meter]:
    """Every meter, those that cannot take part here with the reason. flow_table: lines, for each of wiremeter's."""
    names_off = ("--names", "none") if "--names" in _help_of_agent() else ()
    table = ("--flow-table", str(flow_table))

    def wiremeter(name: str, text: str, *options: str, statistics: bool = False, missing: str = "") -> Meter:
        command = (*table, *options)
        return Meter(
            name,
            text,
            "wiremeter",
            lambda namespace, group, at: _Wiremeter(command, namespace, group, at),
            _wiremeter_version,
            missing,
            quiet_seconds=AGENT_QUIET_SECONDS,
            rounds=1 if statistics else 99,
            with_statistics=statistics,
            command=("wiremeter", "agent", *command),
        )

    def tool(name: str, package: str, start: Callable[[Namespace, Group, Path], Running], *, at_end: bool) -> Meter:
        missing = "" if shutil.which(name) else f"{name} is not installed (Debian package {package})"
        return Meter(
            name, name, "tool", start, lambda: _debian_version(package), missing, at_end, 1.0, 2, False, True, (name,)
        )

    def loop(library: str, package: str, module: str) -> Meter:
        missing = "" if find_spec(module) else f"{package} is not installed (PyPI)"
        return Meter(
            library,
            f"Python, {package}",
            "old way",
            lambda namespace, group, at: _PythonLoop(library, namespace, group, at),
            lambda: _pypi_version(package),
            missing,
            rounds=2,
            counts_both_directions=True,
            command=("python", "-m", "benchmarks.compare.python_loops", library),
        )

    capture = (*table, "--attach", "capture", *names_off)
    no_names = "" if names_off else "this wiremeter reads no names: its agent has no --names"
    return [
        wiremeter("auto", "wiremeter, auto", "--attach", "auto", *names_off),
        wiremeter("tcx", "wiremeter, tcx", "--attach", "tcx", *names_off),
        wiremeter("tcx-names", "wiremeter, tcx, names on", "--attach", "tcx", missing=no_names),
        wiremeter("xdp", "wiremeter, XDP", "--attach", "xdp", *names_off),
        wiremeter("tcx-stats", "tcx, timed", "--attach", "tcx", "--bpf-stats", *names_off, statistics=True),
        wiremeter("xdp-stats", "XDP, timed", "--attach", "xdp", "--bpf-stats", *names_off, statistics=True),
        wiremeter("names-stats", "names, timed", "--attach", "tcx", "--bpf-stats", statistics=True, missing=no_names),
        Meter(
            "capture",
            "wiremeter, capture",
            "old way",
            lambda namespace, group, at: _Wiremeter(capture, namespace, group, at),
            _wiremeter_version,
            quiet_seconds=AGENT_QUIET_SECONDS,
            command=("wiremeter", "agent", *capture),
        ),
        loop("dpkt", "pcapy-ng", "pcapy"),
        loop("scapy", "scapy", "scapy"),
        tool("tcpdump", "tcpdump", _Tcpdump, at_end=False),
        tool("softflowd", "softflowd", _Softflowd, at_end=False),
        tool("pmacctd", "pmacct", _Pmacctd, at_end=True),
        tool("nfpcapd", "nfdump", _Nfpcapd, at_end=True),
    ]


NOTHING = Meter("none", "no meter", "none", lambda namespace, group, at: _Nothing(), lambda: "")


@contextmanager
def running(meter: Meter, namespace: Namespace, folder: Path) -> Iterator[tuple[Running, Group]]:
    """The meter at work on RECEIVER until the block ends, however that is."""
    with ExitStack() as stack:
        group = stack.enter_context(Group(meter.name))
        at = folder / meter.name
        shutil.rmtree(at, ignore_errors=True)
        at.mkdir(parents=True)
        stack.callback(shutil.rmtree, at, ignore_errors=True)
        started = meter.start(namespace, group, at)
        try:
            yield started, group
        finally:
            started.stop()


def _help_of_agent() -> str:
    return subprocess.run((WIREMETER, "agent", "--help"), capture_output=True, text=True, check=False).stdout


def _wiremeter_version() -> str:
    from wiremeter import __version__

    return __version__


def _debian_version(package: str) -> str:
    query = ("dpkg-query", "--show", "--showformat", "${Version}", package)
    with suppress(OSError):
        return subprocess.run(query, capture_output=True, text=True, check=False).stdout
    return ""


def _pypi_version(package: str) -> str:
    from importlib.metadata import version

    return version(package)
