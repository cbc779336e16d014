"""Completion in real shells, and man pages as mandoc and man see them."""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from scripts import manual

from wiremeter.cli.completion import script
from wiremeter.cli.parser import SHELLS
from wiremeter.settings.catalogue import COMMANDS
from wiremeter.settings.words import SORT_KEYS

#: What is typed before TAB, and words that must, and must not, be offered then.
CASES = [
    ("wiremeter li", {"live"}, {"agent"}),
    ("wiremeter live --s", {"--sort", "--services", "--state-dir"}, {"--filter", "--screenshot"}),
    ("wiremeter live --sort ", set(SORT_KEYS), {"live"}),
    ("wiremeter live l", {"lo"}, {"live"}),
    ("wiremeter live -i l", {"lo"}, {"live"}),
    ("wiremeter agent --once --interface l", {"lo"}, set()),
    ("wiremeter replay --engine ", {"host", "kernel"}, set()),
    ("wiremeter replay /etc/hostn", {"/etc/hostname"}, set()),
    ("wiremeter agent --config /etc/hostn", {"/etc/hostname"}, set()),
    ("wiremeter help ag", {"agent"}, {"live"}),
    ("wiremeter completion ", set(SHELLS), set()),
]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The script of each shell, in a file."""
    made = {}
    for shell in SHELLS:
        made[shell] = tmp_path_factory.mktemp("completion") / "_wiremeter"
        made[shell].write_text(script(shell))
    return made


def needs(program: str) -> None:
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_can_read_its_script(shell: str, scripts: dict[str, Path]) -> None:
    needs(shell)
    subprocess.run([shell, "-n", scripts[shell]], check=True)


@pytest.mark.parametrize(("typed", "offered", "not_offered"), CASES)
def test_bash_completes(typed: str, offered: set[str], not_offered: set[str], scripts: dict[str, Path]) -> None:
    words = typed.split(" ")
    # What bash does at TAB: the function of `complete -F` gets the words and answers in COMPREPLY.
    program = """
        source "$1"; shift
        handler=$(complete -p wiremeter); handler=${handler#*-F }; handler=${handler%% *}
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
        "$handler" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "-c", program, "bash", scripts["bash"], *words], capture_output=True, text=True, check=True
    )
    found = {word.strip() for word in done.stdout.splitlines()}
    assert done.stderr == ""
    assert offered <= found
    assert not not_offered & found


@pytest.mark.parametrize(("typed", "offered", "not_offered"), CASES)
def test_fish_completes(typed: str, offered: set[str], not_offered: set[str], scripts: dict[str, Path]) -> None:
    needs("fish")
    program = f"source {scripts['fish']}; complete -C '{typed}'"
    done = subprocess.run(["fish", "--no-config", "-c", program], capture_output=True, text=True, check=True)
    found = {line.split("\t")[0] for line in done.stdout.splitlines()}
    assert offered <= found
    assert not not_offered & found


def test_zsh_completes_at_tab(scripts: dict[str, Path], tmp_path: Path) -> None:
    """zsh completes only in its line editor, so a real one is typed into."""
    needs("zsh")
    child, terminal = pty.fork()
    if not child:
        os.execvpe("zsh", ["zsh", "-f", "-i"], {**os.environ, "TERM": "dumb", "HOME": str(tmp_path), "PS1": "% "})
    shown = ""
    try:
        os.set_blocking(terminal, False)

        def type_and_see(typed: str, expected: str) -> bool:
            nonlocal shown
            shown = ""
            os.write(terminal, typed.encode())
            end = time.monotonic() + 60
            while expected not in shown and time.monotonic() < end:
                time.sleep(0.05)
                with contextlib.suppress(BlockingIOError):
                    shown += os.read(terminal, 1 << 16).decode(errors="replace")
            return expected in shown

        begin = f"fpath=({scripts['zsh'].parent} $fpath); autoload -Uz compinit; compinit -D -u; print be''gun\n"
        assert type_and_see(begin, "begun"), shown
        assert type_and_see("wiremeter liv\t", "wiremeter live "), shown
        assert type_and_see("--sort sou\t", "source"), shown
        assert type_and_see("--interval 1s --attach tc\t", "tcx"), shown
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(terminal)


@pytest.fixture(scope="module")
def man(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the man pages."""
    directory = tmp_path_factory.mktemp("man")
    for name, text in manual.pages().items():
        (directory / name).write_text(text, "utf-8")
    return directory


def test_there_is_a_page_for_every_command(man: Path) -> None:
    assert {path.name for path in man.iterdir()} == {"wiremeter.1", *(f"wiremeter-{name}.1" for name in COMMANDS)}


def test_mandoc_and_groff_find_nothing_wrong(man: Path) -> None:
    needs("mandoc")
    needs("man")
    for page in man.iterdir():
        lint = subprocess.run(
            ["mandoc", "-T", "lint", "-W", "warning", page], capture_output=True, text=True, check=False
        )
        assert (lint.returncode, lint.stdout) == (0, "")
        shown = subprocess.run(
            ["man", "--warnings", "-E", "UTF-8", "-l", page],
            env={**os.environ, "MANWIDTH": "100", "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert shown.stderr == ""
        assert "EXIT STATUS" in shown.stdout


def test_a_page_says_what_help_says(man: Path) -> None:
    needs("mandoc")
    page = subprocess.run(
        ["mandoc", "-T", "utf8", "-O", "width=200", man / "wiremeter-live.1"],
        capture_output=True,
        text=True,
        check=True,
    )
    text = subprocess.run(["col", "-b"], input=page.stdout, capture_output=True, text=True, check=True).stdout
    assert "-f EXPRESSION, --filter EXPRESSION" in text
    assert "WIREMETER_INTERVAL" in text
    assert "wiremeter live --filter 'tcp and not port 22' --sort packets" in text
    assert "screenshot" not in text
