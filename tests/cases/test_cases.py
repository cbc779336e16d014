"""Inputs that failed, from public reports about other tools: each with what its README says is right.

They are not part of this repository: they are looked for beside it, and copied before anything is run. What they stand
for has tests with inputs of its own, where the code is.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wiremeter.cli.main import main

CASES = Path(__file__).parents[3] / "shared" / "cases"
FOLDERS = sorted(path.name for path in CASES.glob("*/"))
BIN = Path(sys.executable).parent

_CHECKS: dict[str, Callable[[Path], None]] = {}
_AS_ROOT: set[str] = set()


def case(name: str, *, as_root: bool = False) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """What is right of a folder. It gets a copy of that, beside what the folders share."""

    def register(check: Callable[[Path], None]) -> Callable[[Path], None]:
        _CHECKS[name] = check
        if as_root:
            _AS_ROOT.add(name)
        return check

    return register


def ran(folder: Path, *command: str, cwd: Path | None = None) -> str:
    """All that a command prints, with our wiremeter and our Python first."""
    environment = os.environ | {"WIREMETER": str(BIN / "wiremeter"), "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(
        command,
        cwd=cwd or folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=400,
        check=False,
    )
    return done.stdout.decode("utf-8", "backslashreplace")


def replayed(folder: Path) -> dict[str, Any]:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["replay", "--format", "json", "--no-redact", str(folder / "in.pcap")]) == 0
    document: dict[str, Any] = json.loads(printed.getvalue())
    return document


# --- names


@case("clienthello-fragmented")
def _(folder: Path) -> None:
    found = {one["flow"]["src_port"]: one["sni"] for one in replayed(folder)["tls"]}
    names = [
        *("pq-two-segments", "pq-reordered", "tls-records-of-20", "first-byte-alone", "overlapping-retransmit"),
        *("seq-wrap", "seven-segments", "dozen-segments", "tfo", None, "trailing-dot"),
    ]
    assert found == {46000 + n: name and f"{name}.example.com" for n, name in enumerate(names)}


@case("http-h2c-upgrade-websocket")
def _(folder: Path) -> None:
    found = [(one["host"], one["method"], one["path"], one["status"]) for one in replayed(folder)["http"]]
    assert found == [
        ("h2c.example.com", "GET", "/up", 200),
        ("h2c.example.com", "GET", "/two", 200),
        ("h2c.example.com", "GET", "/three", 404),
        ("ws.example.com", "GET", "/chat", 101),
    ]


@case("http-webdav-methods-keepalive")
def _(folder: Path) -> None:
    methods = {
        "REPORT": 207,
        "MKCOL": 201,
        "PURGE": 200,
        "SEARCH": 200,
        "LOCK": 200,
        "MOVE": 201,
        "COPY": 204,
        "MKCALENDAR": 201,
        "ACL": 200,
        "M-SEARCH": 200,
        "PROPFIND": 207,
        "GET": 200,
    }
    found = [(one["method"], one["status"], one["path"]) for one in replayed(folder)["http"]]
    expected = [(method, status, f"/{n}") for method, status in methods.items() for n in range(20)]
    assert sorted(found) == sorted(expected)


@case("mdns-legacy-unicast")
def _(folder: Path) -> None:
    found = [(one["query"], one["rcode"], one["latency_ns"]) for one in replayed(folder)["dns"]]
    assert found == [("printer.local", 0, 5_000_000)] * 2 + [("pc7", 0, 5_000_000)]


@case("proxy-preludes")
def _(folder: Path) -> None:
    document = replayed(folder)
    found = {one["flow"]["src_port"]: one["host"] for one in document["http"] if one["method"] == "GET"}
    found |= {one["flow"]["src_port"]: one["sni"] for one in document["tls"]}
    names = {
        47000: "v1-own-segment",
        47001: "v1-same-segment",
        47002: "v2-own-segment",
        47003: "v2-same-segment",
        47004: "v1-http-own",
        47005: "v1-http-same",
        47006: "v2-http-same",
        47007: "v2-http-own",
        47010: "socks5",
        47011: "connect",
        47012: "connect-ip",
    }
    assert found == {port: f"{name}.example.com" for port, name in names.items()}


# --- captures


@case("truncated-gzip")
def _(folder: Path) -> None:
    printed = ran(folder, "python", "make.py")
    cut = re.findall(r"recoverable (\d+), tshark \d+, zcat\|wiremeter (\d+), wiremeter (\d+) rc=0", printed)
    assert len(cut) == 6, printed
    assert all(recoverable == piped == ours for recoverable, piped, ours in cut), printed
    whole = dict(re.findall(r"^(\S+) frames 500, .* wiremeter (\d+) wiremeter: ", printed, re.MULTILINE))
    assert (whole["bad-crc"], whole["garbage-behind"]) == ("500", "500")
    assert int(whole["damaged"]) >= 333  # two thirds of the compressed bytes come before the damage
    assert "gzip pipe: output before it closes: True" in printed


@case("live-pipe")
def _(folder: Path) -> None:
    assert "PASS" in ran(folder, "python", "make.py")


# --- devices and counts


@case("auto-default-routes", as_root=True)
def _(folder: Path) -> None:
    rows = re.findall(r"^(.*?) +want (.*?) +got (.*)$", ran(folder, "bash", "run.sh"), re.MULTILINE)
    assert len(rows) == 11
    for situation, want, got in rows:
        if want == "clear error":
            assert got == ""
            continue
        must = set(re.sub(r"\(.*?\)", "", want).split())
        may = {word.strip("(?)") for word in want.split()}
        assert must <= set(got.split()) <= may, situation


@case("device-names", as_root=True)
def _(folder: Path) -> None:
    printed = ran(folder, "bash", "run.sh")
    expositions = re.findall(r"^(\S+) duplicates: (\[.*?\]) tx packets: (\{.*\})$", printed, re.MULTILINE)
    assert [name for name, *_ in expositions] == ["m.txt", "m.om", "m.gz.txt"], printed
    assert "NOT UTF-8" not in printed
    names = ['we"ird', "back\\slash", "💩0", "{le=a}", "v[1]", "b\\xff", "b\\xfe", "o'q", "a,b", "auto", "eth0.100@x"]
    for _name, duplicates, text in expositions:
        assert duplicates == "[]"
        sent = ast.literal_eval(text)
        for number, device in enumerate([*names, "-dash", "any"], 1):
            assert sent[device] >= number, device
    assert "Traceback" not in printed


@case("mpls-superpackets", as_root=True)
def _(folder: Path) -> None:
    seen = re.findall(r"tx seen \{'packets': (\d+), 'bytes': (\d+)", ran(folder, "bash", "run.sh"))
    # Ten segments with the sender's headers: 54 bytes, and 4 of a tag or a label, or 8 of PPPoE.
    assert [(int(packets), int(size)) for packets, size in seen] == [(10, 10_000 + 10 * n) for n in (54, 58, 58, 62)]


# --- where it runs


@case("time-namespace", as_root=True)
def _(folder: Path) -> None:
    inside = ("unshare", "-T", "--monotonic", "1000000", "--boottime", "1000000")
    alone = ("unshare", "-n", "sh", "-c", 'ip link set lo up; exec "$@"', "sh")
    for within in ((), inside):
        printed = ran(folder, *alone, *within, "python", "cases/time-namespace/probe.py", cwd=folder.parents[1])
        offsets = re.findall(r"(?:off by|time off) (\S+)", printed)
        assert len(offsets) > 4, printed
        assert all(0 <= float(offset) <= 1.1 for offset in offsets), printed
        assert "flow to 127.0.0.9 is named named.example.com" in printed


@case("cli-odd-environments", as_root=True)
def _(folder: Path) -> None:
    capture = folder.parent / "08-http-100-continue" / "in.pcap"  # what the script was written beside
    capture.parent.mkdir()
    shutil.copy(folder.parent / "proxy-preludes" / "in.pcap", capture)
    for script in ("run.sh", "run2.sh"):
        lines = (folder / script).read_text().splitlines(keepends=True)
        # It ends processes by their name, which may be others'.
        (folder / script).write_text("".join(line for line in lines if "pgrep" not in line))
        printed = ran(folder, "unshare", "-n", "sh", "-c", f"ip link set lo up; exec bash {script}")
        assert "Traceback" not in printed
        assert "Exception ignored" not in printed
        counted = re.findall(r"\| rc=\d+ (\d+) ", printed)
        assert set(counted) <= {"0"}, printed
        if script == "run.sh":
            assert "bad\\xff.pcap: capture" in printed
            assert "nope\\xff.pcap: No such file or directory" in printed
            assert "cannot write to standard output: No space left on device" in printed
    shutil.rmtree(capture.parent)


@case("sandboxes", as_root=True)
def _(folder: Path) -> None:
    printed = ran(folder, "bash", "run.sh")
    assert "Traceback" not in printed
    sections = dict(re.findall(r"^--- (.*)\n((?:(?!---).*\n?)*)", printed, re.MULTILINE))
    status = {name: text.rstrip().rpartition("rc=")[2] for name, text in sections.items()}
    refused = [
        *("bpf() refused with EPERM (Docker's default seccomp)", "the same, doctor", "bpf() absent: ENOSYS"),
        *("no capabilities at all", "without CAP_PERFMON and CAP_SYS_ADMIN", "no BTF", "no BTF, doctor"),
        *("no /sys at all", "20 file descriptors", "12 file descriptors", "user namespace root"),
        "no AF_NETLINK (socket() EAFNOSUPPORT)",
    ]
    works = [
        *("bpf() refused, --attach capture", "CAP_NET_RAW only, capture", "BPF+NET_ADMIN+PERFMON only"),
        *("no /sys/fs/bpf, read-only /sys, /proc/sys", "read-only everything, no TMPDIR"),
        *("memlock 64 KiB, no SYS_RESOURCE", "address space 300 MB", "time namespace, monotonic + 10^6 s"),
    ]
    assert {name: status[name] for name in works} == dict.fromkeys(works, "0"), printed
    for name in refused:
        assert status[name] in ("1", "2"), name
        assert "wiremeter: " in sections[name] or "--attach capture" in sections[name], sections[name]


# ---


def test_the_cases_are_there() -> None:
    if FOLDERS:
        return
    assert os.environ.get("CI") != "true", f"no cases in {CASES}: CI must run them"
    pytest.skip(f"no cases in {CASES}")


def test_each_case_is_checked() -> None:
    assert set(FOLDERS) <= set(_CHECKS), "a new case: say what is right of it"


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """A copy of all cases that may be written to, with the name under which some scripts look for what they share."""
    copy = tmp_path / "cases"
    shutil.copytree(CASES, copy, copy_function=shutil.copy)
    for path in (copy, *copy.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)
    shutil.copy(copy / "frames.py", copy / "lib.py")
    return copy


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.kernel] if name in _AS_ROOT else []) for name in FOLDERS if name in _CHECKS],
)
def test_case(cases: Path, name: str) -> None:
    _CHECKS[name](cases / name)
