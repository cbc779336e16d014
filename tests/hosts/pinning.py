"""A bpffs of a test's own, and agents that pin in it."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kernel.programs import compile_bpf

from . import netns

PROJECT = Path(__file__).parents[2]
WIREMETER = (str(Path(sys.executable).with_name("wiremeter")),)
_COUNTED = re.compile(r'^network_seen_packets_total\{device="([^"]+)",direction="(rx|tx)"\} (\S+)$', re.M)
_IN_FLOWS = re.compile(
    r'^network_attributed_packets_total\{device="m0",direction="(rx|tx)",part="flows"\} (\S+)$', re.M
)
_LEFT_OUT = re.compile(r"^network_unattributed_packets_total\{[^}]*\} (\S+)$", re.M)

#: What makes flows' records others: in which file, what there is, and what takes its place.
_OTHER_RECORDS = (
    (
        "bpf/records.h",
        "\t__u64 packets;\n\t__u64 bytes;\n\t__u64 last;",
        "\t__u64 bytes;\n\t__u64 packets;\n\t__u64 last;",
    ),
    ("bpf/lib/flow_table.h", "{size->packets, size->bytes, now}", "{size->bytes, size->packets, now}"),
    (
        "wiremeter/datapath/records.py",
        '_HOT = np.dtype([("packets", "u8"), ("bytes", "u8"),',
        '_HOT = np.dtype([("bytes", "u8"), ("packets", "u8"),',
    ),
)
_BUILD = "import runpy; runpy.run_path('wiremeter/datapath/host_build.py')['ffi'].compile(tmpdir='.')"
_OTHER = "import sys; sys.path.insert(0, sys.argv.pop(1)); from wiremeter.__main__ import main; sys.exit(main())"

#: Run with the name of a function, when, and a file.
_KILLING = """
import functools, importlib, os, signal, sys
attribute, when, once = sys.argv[1:4]
del sys.argv[1:4]
module, _, path = attribute.partition(":")
owner, name = path.split(".")
owner = getattr(importlib.import_module(module), owner)
called = getattr(owner, name)

@functools.wraps(called)
def killing(*given, **more):
    if when == "before" and os.path.exists(once):
        os.kill(os.getpid(), signal.SIGKILL)
    result = called(*given, **more)
    if when == "after" and os.path.exists(once):
        os.kill(os.getpid(), signal.SIGKILL)
    return result

setattr(owner, name, killing)
from wiremeter.cli.main import main
sys.exit(main())
"""


@contextmanager
def bpffs(folder: Path) -> Iterator[Path]:
    """A directory to pin in, in a file system that is gone with the block, and all that is pinned with it."""
    mount = folder / "mount"
    mount.mkdir()
    netns.command("mount", "-t", "bpf", "bpf", str(mount))
    try:
        yield mount / "pins"
    finally:
        netns.command("umount", str(mount))


def other_wiremeter(folder: Path) -> tuple[str, ...]:
    """The command of a wiremeter whose tables have other records: built there, of our sources."""
    ignored = shutil.ignore_patterns("__pycache__", "_host.*")
    shutil.copytree(PROJECT / "bpf", folder / "bpf")
    shutil.copytree(PROJECT / "src" / "wiremeter", folder / "wiremeter", ignore=ignored)
    for name, here, there in _OTHER_RECORDS:
        text = (folder / name).read_text()
        assert text.count(here) == 1, f"{name} has no {here!r}: change this test with it"
        (folder / name).write_text(text.replace(here, there))
    source, program = folder / "bpf/wiremeter.bpf.c", folder / "wiremeter/programs/wiremeter.bpf.o"
    compile_bpf(source, program, include=folder / "bpf")
    subprocess.run([sys.executable, "-c", _BUILD], cwd=folder, check=True, capture_output=True)
    return (sys.executable, "-c", _OTHER, str(folder))


class Agent:
    """`wiremeter agent` on device m0 of a namespace, started again and again over the same pins."""

    def __init__(self, host: netns.Host, pins: Path, folder: Path, *more: str) -> None:
        self._host = host
        self._log = folder / "log"
        self._log.touch()
        self.program: tuple[str, ...] = WIREMETER
        self.words = ["--interface", "m0", "--interval", "100ms", "--listen", "127.0.0.1:0", "--names", "none"]
        self.pin = ["--pin", str(pins)]
        self.words += [*self.pin, "--state-dir", str(folder / "state"), *more]
        self._pins = pins
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it meters."""
        seen = self.said.count("attached ")
        with self._host.entered(), self._log.open("ab") as log:
            argv = [*self.program, "agent", *self.words]
            self._process = subprocess.Popen(argv, stderr=log)
        netns.wait_until(lambda: self.ended or self.said.count("attached ") >= seen + 2, "the agent has attached", 30)
        assert not self.ended, self.said

    @property
    def ended(self) -> bool:
        """Whether it has."""
        return self._process is None or self._process.poll() is not None

    def kill(self) -> None:
        """With SIGKILL."""
        assert self._process
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """The clean way."""
        assert self._process
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(30) == 0, self.said

    def kill_itself(self, attribute: str, when: str, once: Path) -> None:
        """Has the next to start kill itself before or after it calls a function, once a file is there."""
        self.program = (sys.executable, "-c", _KILLING, attribute, when, str(once))

    def detach(self) -> str:
        """What `wiremeter detach` says."""
        argv = [*WIREMETER, "detach", *self.pin]
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout

    def pinned(self) -> list[str]:
        """What there is, by its path below the version."""
        return sorted(str(path.relative_to(self._pins / "v1")) for path in self._pins.rglob("*") if path.is_file())

    def close(self) -> None:
        """Whatever state it is in."""
        if self._process:
            with suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()

    @property
    def said(self) -> str:
        """Its log."""
        return self._log.read_text()

    def metrics(self) -> str:
        """What it serves."""
        place = re.findall(r"metrics=(\S+)", self.said)[-1]
        with self._host.entered(), urllib.request.urlopen(place, timeout=10) as answer:
            return str(answer.read().decode())

    def counted(self) -> dict[str, int]:
        """Packets seen, by direction, as /metrics has them."""
        return {direction: int(float(value)) for _, direction, value in _COUNTED.findall(self.metrics())}

    def unattributed(self) -> int:
        """Packets that are in no flow."""
        return sum(int(float(value)) for value in _LEFT_OUT.findall(self.metrics()))

    def attributed_to_flows(self) -> dict[str, int]:
        """Packets that are in flows, by direction."""
        return {direction: int(float(value)) for direction, value in _IN_FLOWS.findall(self.metrics())}

    def wait_for_at_least(self, **packets: int) -> None:
        """Until /metrics has so many: more come meanwhile."""

        def there() -> bool:
            now = self.counted()
            return all(now.get(way, 0) >= count for way, count in packets.items())

        netns.wait_until(there, f"{packets} are counted", 20)

    def wait_for(self, **packets: int) -> None:
        """Until /metrics has exactly so many; never more."""

        def there() -> bool:
            now = self.counted()
            assert all(now.get(way, 0) <= count for way, count in packets.items()), (now, packets, self.said)
            return all(now.get(way, 0) == count for way, count in packets.items())

        try:
            netns.wait_until(there, f"{packets} are counted", 20)
        except TimeoutError as error:
            raise AssertionError(f"{self.counted()} for {packets}\n{self.said}") from error
