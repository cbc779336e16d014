"""What fingers type: the habits of tcpdump and iftop, slips of the keyboard, and where help is looked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from wiremeter import __version__
from wiremeter.cli.main import main
from wiremeter.cli.parser import parse, settings_given
from wiremeter.settings.catalogue import COMMANDS, Live, Replay


def live(line: str) -> Live:
    settings = settings_given(parse(["live", *line.split()]))
    assert isinstance(settings, Live)
    return settings


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("-i eth0", "--interface eth0"),
        ("eth0", "--interface eth0"),
        ("eth0 wg0", "--interface eth0,wg0"),
        ("-i eth0 wg0", "--interface eth0 --interface wg0"),
        ("eth0 -c 3 -f udp", "--interface eth0 --count 3 --filter udp"),
        ("-f tcp", "--filter tcp"),
        ("-c 3", "--count 3"),
        ("--json", "--format json"),
        ("-n", "--no-services"),
        ("--services -n", ""),
        ("-v", "--debug"),
        ("-ieth0", "--interface eth0"),
        ("--interface=eth0", "--interface eth0"),
    ],
)
def test_short_options_are_those_that_fingers_know(typed: str, meant: str) -> None:
    assert live(typed) == live(meant)


def test_a_capture_file_may_come_as_tcpdump_has_it() -> None:
    for line in (["-r", "a.pcap"], ["a.pcap"], ["--read", "a.pcap"]):
        settings = settings_given(parse(["replay", *line]))
        assert isinstance(settings, Replay)
        assert settings.files == ("a.pcap",)


@pytest.mark.parametrize("line", ["-V", "--version", "-v", "live -V", "agent --version"])
def test_the_version(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 0
    assert capsys.readouterr().out == f"wiremeter {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_can_be_asked_for_in_three_ways(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    texts = set()
    for line in (["help", command], [command, "--help"], [command, "-h"]):
        assert main(line) == 0
        texts.add(capsys.readouterr().out)
    (text,) = texts
    assert text.startswith(f"usage: wiremeter {command} [OPTION...]")


def test_help_alone_is_that_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help"]) == main(["--help"]) == 0
    first, second = capsys.readouterr().out.split("usage: ")[1:]
    assert first == second


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("liv", "there is no command liv; did you mean live?"),
        ("sim", "did you mean simulate?"),
        ("hlep", "did you mean help?"),
        ("lo", "to meter a device: wiremeter live lo"),
        ("frobnicate", "those are live, agent, "),
        ("live --conversation", "wiremeter live has no option --conversation; did you mean --conversations?"),
        ("live --fliter=tcp", "did you mean --filter?"),
        ("live -r x.pcap", "it is one of wiremeter replay"),
        ("replay x -i eth0", "it is one of wiremeter live"),
        ("live --filter", "argument -f/--filter: expected one argument"),
        ("help liv", "invalid choice: 'liv'"),
        ("", "a command is missing: live, "),
    ],
)
def test_a_slip_gets_a_hint_and_the_usage_of_the_command_at_hand(
    line: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert hint in err.splitlines()[0]
    command = line.split()[0] if line.split()[:1] and line.split()[0] in COMMANDS else "COMMAND"
    assert f"usage: wiremeter {command}" in err or line.startswith("help")
    assert len(err.splitlines()) == 3


def test_a_file_that_is_typed_as_a_command_is_to_be_replayed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.pcap").write_bytes(b"")
    assert main([str(tmp_path / "a.pcap")]) == 2
    assert f"wiremeter replay {tmp_path / 'a.pcap'}" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["wiremeter", "wiremeter.cli.main"])
def test_python_can_run_it_as_a_module(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "-V"], capture_output=True, text=True, check=True)
    assert done.stdout == f"wiremeter {__version__}\n"


def test_help_loads_neither_numpy_nor_the_terminal_library() -> None:
    script = (
        "import sys; from wiremeter.cli.main import main; assert main(['doctor', '--help']) == 0; "
        "sys.exit(any(name.split('.')[0] in ('textual', 'numpy', 'yaml', 'shtab') for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert done.returncode == 0
