"""`wiremeter verify`: what it says of objects that are whole, damaged, or none."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from wiremeter.cli.main import main
from wiremeter.datapath.programs import default_program

MUTANTS = 150


def test_the_object_that_came_along_is_good(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--no-load", "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert [check["name"] for check in report["checks"]] == ["ELF", "programs", "maps", "BTF", "load"]
    assert [check["passed"] for check in report["checks"]] == [True, True, True, True, None]


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"\x7fELF" + bytes(8), b"\x7fELF" + bytes(60), b"text" * 10])
def test_what_is_no_object_is_told(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.o"
    path.write_bytes(content)
    assert main(["verify", str(path)]) == 1
    assert "FAILED  ELF" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "none.o"), "--program", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "No such file" in out
    assert "Is a directory" in out


@pytest.mark.slow
def test_a_mutated_object_is_told_and_never_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """libbpf 1.1 crashes on about one in a hundred of these."""
    whole = default_program().read_bytes()
    random_ = random.Random(7)
    path = tmp_path / "x.o"
    for _ in range(MUTANTS):
        mutant = bytearray(whole)
        for _ in range(random_.choice([1, 2, 8, 64])):
            reach = random_.choice([len(mutant), 4096])
            mutant[random_.randrange(reach)] = random_.randrange(256)
        path.write_bytes(mutant if random_.random() < 0.8 else mutant[: random_.randrange(len(mutant))])
        assert main(["verify", "--no-load", str(path)]) in (0, 1)
        captured = capsys.readouterr()
        assert captured.err == ""
        assert captured.out.startswith(f"{path}\n  ")
