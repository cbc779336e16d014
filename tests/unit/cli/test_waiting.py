"""The line that says how far an answer is: on terminals alone, and gone when the answer is there."""

from __future__ import annotations

import io

from wiremeter.cli.asking import Waiting


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_is_told_and_then_cleared() -> None:
    terminal, now = Terminal(), [0.0]
    with Waiting(terminal, lambda: now[0]) as waiting:
        waiting.read(10, 100)
        assert terminal.getvalue() == ""  # what takes less than a moment says nothing
        now[0] = 1.0
        waiting.read(1_000_000, 4_000_000)
        waiting.read(1_100_000, 4_000_000)  # not so often
        now[0] = 2.0
        waiting.read(5, 0)
        assert terminal.getvalue().split("\r")[1:] == ["1,000,000 of 4,000,000 (25%) rows read", f"{'5 rows read':38}"]
        assert list(waiting.until_first(iter([{"a": 1}, {"a": 2}]))) == [{"a": 1}, {"a": 2}]
        shown = terminal.getvalue()
    assert shown.endswith(f"\r{' ' * 11}\r")
    assert terminal.getvalue() == shown


def test_what_is_no_terminal_is_told_nothing() -> None:
    file, now = io.StringIO(), [0.0]
    with Waiting(file, lambda: now[0]) as waiting:
        now[0] = 10.0
        waiting.read(1, 2)
    assert file.getvalue() == ""
