"""Standard streams that are closed or full, locales that lack letters, names that are no text: one message, the right
status, and no count lost to whoever still listens."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from captures.build import SECOND, Record, ethernet, pcap, udp

pytestmark = pytest.mark.slow  # each starts the command anew, some in a terminal


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap([Record(ethernet(udp()), 1_700_000_000 * SECOND)]))
    return path


def shell(line: str, file: Path, **environment: str) -> tuple[int, bytes, bytes]:
    """Exit status, standard output and standard error of a line of bash; $W is the command and $F the file."""
    done = subprocess.run(
        ["bash", "-c", line],
        env={**os.environ, "W": f"{sys.executable} -m wiremeter", "F": str(file), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


READING = ["replay $F", "replay --json $F", "simulate --seconds 1"]
EACH = [*READING, "doctor", "--help", "help live", "-V", "completion bash"]


@pytest.mark.parametrize("command", EACH)
def test_a_full_disk_is_one_message(command: str, file: Path) -> None:
    status, _, err = shell(f"$W {command} >/dev/full", file)
    assert (status, err) == (1, b"wiremeter: cannot write to standard output: No space left on device\n")


@pytest.mark.parametrize("command", EACH)
def test_a_closed_standard_output_is_one_message(command: str, file: Path) -> None:
    status, _, err = shell(f"$W {command} >&-", file)
    assert (status, err) == (1, b"wiremeter: cannot write to standard output: it is closed\n")


@pytest.mark.parametrize("closing", ["2>&-", "2>/dev/full", "<&-", "<&- 2>&-"])
@pytest.mark.parametrize("command", [*READING, "--help"])
def test_a_stream_that_is_not_needed_may_be_closed_or_full(command: str, closing: str, file: Path) -> None:
    status, out, err = shell(f"$W {command} {closing}", file)
    assert (status, err) == (0, b"")
    assert out == shell(f"$W {command}", file)[1]


def test_a_mistake_is_a_mistake_though_nobody_can_be_told(file: Path) -> None:
    for line in ("live --interval soon", "replay /nonexistent", "liv"):
        for closing in ("2>&-", "2>/dev/full", ">&- 2>&-", "<&- >&- 2>&-"):
            assert shell(f"$W {line} {closing}", file) == (2, b"", b"")


def test_a_closed_standard_input_is_one_message(file: Path) -> None:
    status, out, err = shell("$W replay - <&-", file)
    assert (status, out) == (2, b"")
    assert err.startswith(b"wiremeter: ")
    assert err.count(b"\n") == 1


def test_a_reader_that_goes_away_is_no_error(file: Path) -> None:
    for command in ("simulate --seconds 2 --interval 100ms", "--help", "completion bash"):
        status, _, err = shell(f"set -o pipefail; $W {command} | head -c 1", file)
        assert (status, err) in ((141, b""), (0, b"")), command


@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "ascii"}]
)
def test_what_the_locale_cannot_write_is_escaped(locale: dict[str, str], file: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(file.parent) + "/ü\u202e".encode() + b"\xff.pcap"))
    odd.write_bytes(file.read_bytes())
    for command in ('replay "$F"', "doctor --help", "simulate --seconds 1"):
        status, _, err = shell(f"$W {command}", odd, **locale)
        assert (status, err) == (0, b""), command
    status, out, err = shell('$W replay --json "$F"', odd, **locale)
    assert (status, err) == (0, b"")
    assert json.loads(out.decode("utf-8"))["source"]["files"][0].endswith("ü\u202e\\xff.pcap")
    status, _, err = shell('$W replay "$F".missing', odd, **locale)
    assert status == 2
    assert err.count(b"\n") == 1
    assert b"\xe2\x80\xae" not in err  # it would turn the direction of what follows


@pytest.mark.parametrize("command", ["replay", "replay --json", "verify", "verify --json"])
def test_a_name_cannot_act_on_the_terminal(command: str, file: Path) -> None:
    odd = file.parent / "a\x1b[2J\x9b31m\u202e.pcap"
    odd.write_bytes(file.read_bytes())
    _, out, err = shell(f'$W {command} "$F"', odd, LC_ALL="C.UTF-8")
    for letter in "\x1b\x9b\u202e":
        assert letter.encode() not in out + err


def test_messages_cannot_move_the_cursor(tmp_path: Path) -> None:
    status, _, err = shell("$W replay $'\\x1b[2J\\u202e\\x07'", tmp_path)
    assert status == 2
    assert err.decode().isprintable() or err.decode()[:-1].isprintable()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("options", [[], ["--interval", "1s"]])
def test_a_replay_that_is_stopped_tells_what_it_has_counted(number: signal.Signals, options: list[str]) -> None:
    """As by Ctrl-C in `tcpdump -w - | wiremeter replay -`."""
    line = [sys.executable, "-m", "wiremeter", "replay", "--json", *options, "-"]
    begun = pcap([Record(ethernet(udp()), 1_700_000_000 * SECOND + n) for n in range(5)])
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin
        process.stdin.write(begun)
        process.stdin.flush()
        _wait_until_read(process)
        process.send_signal(number)
        assert process.stdout
        assert process.stderr
        out, err = process.stdout.read(), process.stderr.read()
        process.stdin.close()
    assert json.loads(out)["seen"]["packets"] == 5
    assert err.decode() == f"wiremeter: stopped by {number.name}; what was read before is counted\n"
    assert process.returncode == 128 + number


def _wait_until_read(process: subprocess.Popen[bytes]) -> None:
    """Until what was written is read, and the next read waits."""
    assert process.stdin
    end = time.monotonic() + 60
    while time.monotonic() < end:
        waiting = fcntl.ioctl(process.stdin, termios.FIONREAD, bytes(4))
        sleeps = " S " in Path(f"/proc/{process.pid}/stat").read_text()
        if waiting == bytes(4) and sleeps:
            time.sleep(0.1)
            return
        time.sleep(0.02)
    pytest.fail("it does not read")
