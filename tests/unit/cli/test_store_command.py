"""`wiremeter store`: what it prints, and what it says when it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unit.server.store.batches import make_batch
from wiremeter.cli.main import main
from wiremeter.server.store import Limits, open_store


@pytest.fixture
def where(tmp_path: Path) -> Path:
    with open_store(str(tmp_path / "store"), limits=Limits(group_seconds=0)) as store:
        store.insert(make_batch(rows=100))
    return tmp_path / "store"


def test_a_store_goes_elsewhere_and_comes_back(where: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "info", "--store", str(where)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("TABLE ")
    assert "flows" in text
    assert main(["store", "compact", "--store", str(where), "--json"]) == 0
    assert {"compacted": "flows"} in map(json.loads, capsys.readouterr().out.splitlines())
    assert main(["store", "export", str(tmp_path / "out"), "--store", str(where)]) == 0
    assert (tmp_path / "out" / "flows.parquet").exists()
    assert main(["store", "backup", str(tmp_path / "all.tar"), "--store", str(where)]) == 0
    assert main(["store", "restore", str(tmp_path / "all.tar"), "--store", str(tmp_path / "new")]) == 0
    capsys.readouterr()
    assert main(["store", "info", "--store", str(tmp_path / "new"), "--json"]) == 0
    tables = {table["name"]: table["rows"] for table in json.loads(capsys.readouterr().out)["tables"]}
    assert (tables["flows"], tables["batches"]) == (100, 1)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["info"], "holds no store"),
        (["restore", "nothing.tar"], "is no file"),
        (["restore"], "expected info, compact"),
        (["shrink"], "expected info, compact"),
    ],
)
def test_what_cannot_be_done_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert main(["store", *words, "--store", str(tmp_path / "none")]) == 2
    assert told in capsys.readouterr().err
