"""Command lines as nobody would type them: any options, any streams, any locale, any signal at any time.

Each run is a process. Most are forked from this one, where all modules are read already, so that a run costs some
milliseconds and signals hit the command instead of imports; the others are started anew. A run fails when it leaves a
traceback, ends with a status that has no meaning, or does not end.

    python -m fuzz.command_line --runs 5000 --seed 1
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import pty
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from captures.build import SECOND, Record, ethernet, pcap, udp
from wiremeter.settings.catalogue import COMMANDS
from wiremeter.settings.setting import Setting, settings_of

#: A run that has not ended by then is asked to, and after as much again it has failed.
PATIENCE = 20.0
#: One in so many runs is a process that is started anew.
ANEW = 12

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGWINCH, signal.SIGTSTP)
_LOCALES = ("utf-8", "ascii", "latin-1", "euc-jp", "cp1252")
_STATUSES = {0, 1, 2, 129, 130, 141, 143}
_CLONE_NEWNET = 0x40000000

_ODD = (
    "",
    " ",
    "\0x"[1:],
    "\x1b[2J",
    "\u202e",
    "ü",
    "\udcff",
    "-",
    "--",
    "-1",
    "0",
    "1e400",
    "nan",
    "9" * 40,
    "a" * 5000,
)
_GOOD = {
    "interfaces": ("lo", "auto", "*", "zz*", "lo,auto", "nope0"),
    "interval": ("50ms", "0.2", "1s"),
    "flow_table": ("256", "4096", "default"),
    "payload_bytes": ("0", "1", "4096"),
    "max_devices": ("1", "3"),
    "listen": ("off", "127.0.0.1:0", "[::1]:0", "203.0.113.1:80", "nowhere.invalid:1"),
    "filter": ("tcp", "not (udp or port 53)", "host", "domain '*'", "(" * 3000, "and"),
    "count": ("1", "2"),
    "top": ("0", "1", "5"),
    "seconds": ("0", "0.1", "2"),
    "packets_per_second": ("1", "1000", "0"),
    "seed": ("7",),
    "hosts": ("1", "9"),
    "ipv6": ("0", "0.5", "2"),
    "vlan": ("0", "77"),
    "mtu": ("576", "9216"),
    "assume_mss": ("1460",),
    "domains": ("0", "3"),
    "screenshot_size": ("80x24", "1x1"),
}


@dataclass(frozen=True, slots=True)
class Run:
    """What is done: `streams` are the states of the three standard streams; `after` seconds comes the signal."""

    words: tuple[str, ...]
    streams: tuple[str, str, str]
    locale: str
    environment: tuple[tuple[str, str], ...]
    signal: signal.Signals | None
    after: float
    is_anew: bool


class CommandLines:
    """Makes runs; the same seed makes the same ones."""

    def __init__(self, seed: int, directory: Path) -> None:
        self._random = random.Random(seed)
        self._files = _files(directory)
        self._directory = directory

    def next(self) -> Run:
        """One more."""
        choose = self._random
        words = self._words()
        lasts = words[:1] in (("agent",), ("live",)) or "--listen" in words
        number = choose.choice(_SIGNALS) if choose.random() < (0.7 if lasts else 0.4) else None
        environment = []
        if choose.random() < 0.15:
            setting = choose.choice([each for each in settings_of(COMMANDS["agent"]).values() if each.is_configurable])
            environment.append((f"WIREMETER_{setting.name.upper()}", self._value(setting).replace("\0", "")))
        return Run(
            words,
            (self._stream(), self._stream(), self._stream()),
            choose.choice(_LOCALES),
            tuple(environment),
            number,
            choose.choice((0.0, 0.01, 0.1, 0.5, 1.0)) * choose.random(),
            choose.randrange(ANEW) == 0,
        )

    def _stream(self) -> str:
        return self._random.choices(("file", "null", "closed", "full", "broken", "terminal"), (8, 4, 2, 2, 2, 2))[0]

    def _words(self) -> tuple[str, ...]:
        choose = self._random
        first = choose.random()
        if first < 0.05:
            return tuple(choose.choice((*_ODD, *COMMANDS, "--help", "-V")) for _ in range(choose.randrange(4)))
        if first < 0.1:
            shell = choose.choice(("bash", "zsh", "fish", "csh"))
            return choose.choice((("help",), ("help", choose.choice(list(COMMANDS))), ("completion", shell), ("liv",)))
        name = choose.choice(list(COMMANDS))
        settings = [each for each in settings_of(COMMANDS[name]).values() if each.name != "debug"]  # it asks for them
        words = [name]
        if name == "live" and choose.random() < 0.8:
            words += choose.choice((["--once"], ["-c", "2"], ["--json", "-c", "1"]))
        if any(each.name == "interval" for each in settings) and choose.random() < 0.8:
            words += ["--interval", choose.choice(_GOOD["interval"])]
        for setting in settings:
            if setting.takes_words and choose.random() < 0.9:
                words.append(self._value(setting))
        for setting in choose.sample(settings, min(len(settings), choose.choice((0, 1, 2, 3, 6)))):
            words += self._flag(setting)
        if choose.random() < 0.03:
            words.insert(choose.randrange(1, len(words) + 1), choose.choice(("--bogus", *_ODD)))
        return tuple(word.replace("\0", "") for word in words)

    def _flag(self, setting: Setting) -> Iterator[str]:
        shorthands = [*setting.shorthands, *setting.hidden_shorthands]
        if shorthands and self._random.random() < 0.3:
            yield self._random.choice(shorthands)
        elif setting.is_switch:
            yield self._random.choice([flag for flag in (setting.flag, setting.short) if flag])
        else:
            yield setting.flag
            yield self._value(setting)

    def _value(self, setting: Setting) -> str:
        choose = self._random
        if choose.random() < 0.08:
            return choose.choice(_ODD)
        if setting.name in ("files", "program", "programs"):
            return choose.choice(self._files)
        if setting.name in ("write", "screenshot"):
            return str(self._directory / choose.choice(("made", "none/made", ".")))
        if setting.name == "state_dir":
            return choose.choice((str(self._directory / "state"), self._files[0], "none"))
        if setting.values.choices:
            return choose.choice(setting.values.choices)
        return choose.choice(_GOOD.get(setting.name, ("0", "1", "4096", "x")))


def _files(directory: Path) -> list[str]:
    """Paths of captures that are whole, cut, empty or none."""
    whole = pcap([Record(ethernet(udp()), 1_700_000_000 * SECOND + n) for n in range(50)])
    (directory / "whole.pcap").write_bytes(whole)
    (directory / "cut.pcap").write_bytes(whole[:-7])
    (directory / "empty.pcap").write_bytes(b"")
    odd = os.fsencode(directory) + b"/odd\xff\x1b\xe2\x80\xae.pcap"
    Path(os.fsdecode(odd)).write_bytes(whole)
    (directory / "bomb.yaml").write_text("names: " + "[" * 30_000)
    names = ("whole.pcap", "whole.pcap", "cut.pcap", "empty.pcap", "bomb.yaml", "missing", ".")
    return [*(str(directory / name) for name in names), os.fsdecode(odd), "/proc/self/mem", "-"]


def perform(run: Run, directory: Path) -> str:
    """What went wrong in a run; "" if nothing did."""
    found = directory / "traceback"
    found.unlink(missing_ok=True)
    heard = [directory / name for name in ("out", "err")]
    for path in heard:
        path.write_bytes(b"")
    # Until the command has begun, Ctrl-C would hit what is ours.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    process = _started(run, directory) if run.is_anew else _forked(run, directory, found)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    status = _ended(process, run)
    for path in (*heard, found):
        text = path.read_bytes() if path.exists() else b""
        if b"Traceback" in text and not _is_pythons_own(run, text):
            return text.decode(errors="replace")
    if status is None:
        return "it did not end"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return "" if number in (run.signal, signal.SIGTERM, signal.SIGHUP) else f"it was ended by signal {number}"
    code = os.WEXITSTATUS(status)
    return "" if code in _STATUSES else f"its status is {code}"


def _is_pythons_own(run: Run, text: bytes) -> bool:
    """Ctrl-C before Python has come to our first line, where nobody can catch it."""
    return run.is_anew and run.signal == signal.SIGINT and b"KeyboardInterrupt" in text and b"wiremeter/cli" not in text


def _ended(pid: int, run: Run) -> int | None:
    """The status as wait() has it, or None if it did not end in time. It is asked to end if it does not by itself."""
    began = time.monotonic()
    due = [(run.after, run.signal)] if run.signal else []
    due += [(run.after + 0.2, signal.SIGCONT)] if run.signal == signal.SIGTSTP else []
    due += [(PATIENCE / 10, signal.SIGTERM), (PATIENCE, signal.SIGKILL)]
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status if time.monotonic() - began < PATIENCE else None
        if time.monotonic() - began >= due[0][0] and len(due) > 0:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, due.pop(0)[1])
            due = due or [(PATIENCE * 2, signal.SIGKILL)]
        time.sleep(0.002)


def _started(run: Run, directory: Path) -> int:
    """A new Python."""
    encoding = {"PYTHONIOENCODING": run.locale} if run.locale != "utf-8" else {"LC_ALL": "C", "PYTHONUTF8": "0"}
    environment = {**os.environ, **encoding, **dict(run.environment)}
    environment.pop("PYTEST_CURRENT_TEST", None)
    pid = os.fork()
    if not pid:
        try:
            os.setsid()
            os.chdir(directory)
            _set_streams(run, directory)
            words = [sys.executable, "-m", "wiremeter", *run.words]
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
            os.execve(sys.executable, words, environment)
        finally:
            os._exit(99)
    return pid


def _forked(run: Run, directory: Path, found: Path) -> int:
    """The command in a copy of this process, with streams as a new Python makes them."""
    pid = os.fork()
    if pid:
        return pid
    status = 99
    try:
        os.setsid()
        os.chdir(directory)  # what it writes under a name like "-1" lands here
        os.environ.update(run.environment)
        _set_streams(run, directory)
        for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
            errors = "backslashreplace" if number == 2 else "strict"
            try:
                os.fstat(number)
                made: IO[str] | None = open(  # noqa: SIM115
                    number, mode, encoding=run.locale, errors=errors, closefd=False
                )
            except OSError:
                made = None
            setattr(sys, name, made)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = ["wiremeter", *run.words]
        from wiremeter.__main__ import main

        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
            status = main()
        except KeyboardInterrupt:  # between this line and the first of theirs
            status = 130
        except SystemExit as end:
            status = int(end.code or 0)
        except BaseException:
            found.write_text(traceback.format_exc())
        for stream in (sys.stdout, sys.stderr):
            try:
                if stream:
                    stream.flush()
            except (OSError, ValueError):
                status = 120  # as Python itself
    finally:
        os._exit(status)


def _set_streams(run: Run, directory: Path) -> None:
    """Puts the three streams into their states."""
    opened = []
    for number, state in enumerate(run.streams):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY
        if state == "terminal":
            opened.append(pty.openpty()[1])
        elif state == "broken":
            reading, writing = os.pipe()
            os.close(writing if number == 0 else reading)
            opened.append(reading if number == 0 else writing)
        elif state == "full":
            opened.append(os.open("/dev/full", flags))
        elif state == "file" and number:
            opened.append(os.open(directory / ("out", "err")[number - 1], flags | os.O_APPEND))
        else:
            opened.append(os.open("/dev/null", flags))
    for number, descriptor in enumerate(opened):
        os.dup2(descriptor, number)
    for number, state in enumerate(run.streams):
        if state == "closed":
            os.close(number)
    os.closerange(3, 256)


def isolate() -> None:
    """A network namespace of our own for all runs, if we may: what is attached and detached is nobody else's."""
    if os.geteuid() == 0 and ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) == 0:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def fuzz(runs: int, seed: int, directory: Path, *, say: bool = False) -> list[tuple[Run, str]]:
    """Performs `runs` runs; returns those that failed, each with why."""
    import wiremeter.agent.loop
    import wiremeter.captures.replay
    import wiremeter.cli.doctor
    import wiremeter.cli.main
    import wiremeter.metering.monitor
    import wiremeter.sinks.prometheus
    import wiremeter.synthetic.simulation
    import wiremeter.tui.app  # noqa: F401  so that forked runs have it

    made = CommandLines(seed, directory)
    failed = []
    kinds: Counter[str] = Counter()
    for number in range(runs):
        run = made.next()
        kinds["anew" if run.is_anew else "forked"] += 1
        kinds["with a signal"] += run.signal is not None
        if why := perform(run, directory):
            failed.append((run, why))
            if say:
                print(f"run {number}: {run}\n{why}\n", flush=True)
        if say and number % 250 == 249:
            print(f"{number + 1} runs, {len(failed)} failed; {dict(kinds)}", flush=True)
    return failed


def main(argv: Sequence[str] | None = None) -> int:
    """Runs it; the exit status says whether a run failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=None)
    args = parser.parse_args(argv)
    seed = random.SystemRandom().getrandbits(32) if args.seed is None else args.seed
    print(f"seed {seed}", flush=True)
    isolate()
    with tempfile.TemporaryDirectory(prefix="wiremeter-fuzz") as directory:
        failed = fuzz(args.runs, seed, Path(directory), say=True)
    print(f"{args.runs} runs, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
