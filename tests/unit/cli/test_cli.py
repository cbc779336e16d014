"""The command line: what it takes, what it says, how it exits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Protocol

import pytest

from wiremeter import __version__
from wiremeter.agent import loop
from wiremeter.cli import main
from wiremeter.cli.parser import build_parser, commands_of, parse, settings_given
from wiremeter.errors import InputError, KernelError, PermissionNeeded, VerifierError
from wiremeter.settings import Listen, Settings
from wiremeter.settings.catalogue import COMMANDS
from wiremeter.settings.setting import settings_of

#: What a subcommand does.
Run = Callable[[Any], int]


class RunWith(Protocol):
    """Runs a function in place of a subcommand; gives the exit status."""

    def __call__(self, function: Run, *arguments: str) -> int: ...


@pytest.fixture
def run_with(monkeypatch: pytest.MonkeyPatch) -> RunWith:
    """Runs a function in place of the subcommand `detach`; gives the exit status."""

    def run(function: Run, *arguments: str) -> int:
        monkeypatch.setattr(main, "command_named", lambda name: function)
        return main.main(["detach", *arguments])

    return run


def raising(error: BaseException) -> Run:
    def run(settings: Any) -> int:
        raise error

    return run


def test_the_exit_status_is_the_subcommands(run_with: RunWith) -> None:
    assert run_with(lambda settings: 0) == 0
    assert run_with(lambda settings: 3) == 3


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("no device eth9"), 2),
        (PermissionNeeded("needs CAP_BPF"), 1),
        (KernelError("refused", call="bpf", errno=1), 1),
    ],
)
def test_an_error_is_one_message_and_a_status(
    run_with: RunWith, capsys: pytest.CaptureFixture[str], error: BaseException, status: int
) -> None:
    assert run_with(raising(error)) == status
    captured = capsys.readouterr()
    assert captured.err == f"wiremeter: {error}\n"
    assert captured.out == ""


def test_with_debug_the_traceback_is_shown_too(run_with: RunWith, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_with(raising(InputError("no device eth9")), "--debug") == 2
    text = capsys.readouterr().err
    assert "Traceback" in text
    assert text.endswith("wiremeter: no device eth9\n")


def test_a_verifier_refusal_shows_the_end_of_its_log(run_with: RunWith, capsys: pytest.CaptureFixture[str]) -> None:
    log = "\n".join(f"line {number}" for number in range(100)) + "\nR1 invalid mem access\n"
    assert run_with(raising(VerifierError("the verifier refused tc_rx", log=log))) == 1
    text = capsys.readouterr().err
    assert text.startswith(
        "wiremeter: the verifier refused tc_rx\nthe verifier's log:\n... (61 lines before)\nline 61\n"
    )
    assert text.endswith("R1 invalid mem access\n")


def test_ctrl_c_is_quiet(run_with: RunWith, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_with(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr() == ("", "")


def test_a_fault_of_ours_is_not_hidden(run_with: RunWith) -> None:
    with pytest.raises(ZeroDivisionError):
        run_with(lambda settings: 1 // 0)


def wiremeter(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process of its own."""
    line = [sys.executable, "-m", "wiremeter", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)


def test_the_version_is_the_packages() -> None:
    done = wiremeter("--version")
    assert (done.returncode, done.stdout) == (0, f"wiremeter {__version__}\n")


def test_help_names_every_command() -> None:
    text = wiremeter("--help").stdout
    for name in ("live", "agent", "doctor", "verify", "detach"):
        assert f"\n    {name} " in text


def test_without_a_command_the_usage_is_shown() -> None:
    done = wiremeter()
    assert done.returncode == 2
    assert done.stderr.startswith("wiremeter: a command is missing: live, ")
    assert "usage: wiremeter COMMAND" in done.stderr


def test_a_reader_that_goes_away_is_no_error() -> None:
    program = (
        "import sys\n"
        "from wiremeter.cli import main\n"
        "def run(settings):\n"
        "    for n in range(100_000): print('x' * 100)\n"
        "    return 0\n"
        "main.command_named = lambda name: run\n"
        "sys.exit(main.main(['detach']))\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert writer.stdout
    assert writer.stderr
    writer.stdout.readline()
    writer.stdout.close()
    assert writer.stderr.read() == b""
    writer.stderr.close()
    assert writer.wait(10) == 141


def test_the_agent_imports_no_user_interface_and_no_arrow() -> None:
    program = (
        "import sys\n"
        "from wiremeter.cli import main\n"
        "from wiremeter.agent import loop, logs\n"
        "print([name for name in ('textual', 'rich', 'pyarrow', 'yaml', 'msgspec') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def agents(line: str) -> Settings:
    """The settings that a command line of the agent gives."""
    settings = settings_given(parse(["agent", *line.split()]))
    assert isinstance(settings, Settings)
    return settings


def test_every_setting_has_a_flag_with_help() -> None:
    parsers = commands_of(build_parser())
    for name, kind in COMMANDS.items():
        documented = {action.dest for action in parsers[name]._actions if action.help}
        assert {each.name for each in settings_of(kind).values() if each.is_configurable} <= documented, name


def test_flags_become_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WIREMETER_LOG_LEVEL", "error")
    line = (
        "--interface eth0 --interface veth*,wg0 --interval 500ms --program x.o --attach tcx --flow-table 1024"
        " --max-devices 4 --listen [::1]:80 --debug --log-format json --no-bpf-stats"
    )
    assert agents(line) == Settings(
        interfaces=("eth0", "veth*", "wg0"),
        interval=0.5,
        program="x.o",
        attach="tcx",
        flow_table=1024,
        max_devices=4,
        listen=Listen("::1", 80),
        log_level="error",
        log_format="json",
        debug=True,
    )


def test_a_switch_can_be_turned_off_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WIREMETER_DEBUG", "yes")
    assert agents("").debug is True
    assert agents("--no-debug").debug is False


def test_flags_are_not_abbreviated() -> None:
    with pytest.raises(SystemExit):
        agents("--inter 5")


def test_a_wrong_setting_is_told_with_its_flag() -> None:
    done = wiremeter("agent", "--interval", "soon")
    assert done.returncode == 2
    assert (
        done.stderr == "wiremeter: --interval is 'soon', expected seconds from 0.05 to 3600, such as 5, 5s or 500ms\n"
    )


@pytest.fixture
def failing_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(settings: Settings, **more: object) -> None:
        raise PermissionNeeded("metering needs CAP_BPF")

    monkeypatch.setattr(loop, "run", fail)


def test_an_agent_that_cannot_start_says_why(failing_loop: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["agent"]) == 1
    assert capsys.readouterr().err == "wiremeter: metering needs CAP_BPF\n"


def test_an_agent_with_json_logs_says_so_in_json(failing_loop: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["agent", "--log-format", "json"]) == 1
    entry = json.loads(capsys.readouterr().err)
    assert (entry["level"], entry["message"]) == ("error", "metering needs CAP_BPF")
