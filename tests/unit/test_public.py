"""What `import wiremeter` offers, as its users meet it."""

from __future__ import annotations

import builtins
import pydoc
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import wiremeter
from captures.build import SECOND, Record, ethernet, pcap, udp, udp6
from wiremeter.flows.batch import FlowBatch

from .live_batches import flow, make_batch

HOSTILE = "::ffff:192.0.2.1"  # of an IPv6 packet, and no IPv4 address


@pytest.fixture
def batch() -> FlowBatch:
    mapped = flow("2001:db8::1", "2001:db8::2", 1, 2, protocol=17)
    mapped["src_addr"] = [*bytes(10), 255, 255, 192, 0, 2, 1]
    return make_batch([flow("192.0.2.1", "10.0.0.5", 443, 50000, packets=3), mapped])


def test_dir_and_help_show_what_there_is() -> None:
    assert {name for name in dir(wiremeter) if not name.startswith("_")} == set(wiremeter.__all__)
    shown = pydoc.plain(pydoc.render_doc(wiremeter))
    for said in (
        "class Monitor",
        "class FlowBatch",
        "replay(*files",
        "simulate(profile",
        "needs the rights to use BPF",
    ):
        assert said in shown
    with pytest.raises(AttributeError, match="no attribute 'Moniter'"):
        wiremeter.Moniter  # noqa: B018


def test_the_name_alone_loads_nothing_heavy() -> None:
    script = "import sys, wiremeter; dir(wiremeter); sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_replay_reads_files_in_intervals_given_as_text(tmp_path: Path) -> None:
    path = tmp_path / "file.pcap"
    path.write_bytes(pcap([Record(ethernet(packet), n * SECOND) for n, packet in enumerate((udp(), udp6(), udp()))]))
    whole = wiremeter.replay(path)
    assert [len(batch.flows) for batch in whole] == [2]
    assert whole.problems == []
    parts = list(wiremeter.replay(path, interval="2s", filter="ip6"))
    assert [(len(batch.flows), batch.audit[0].seen.packets) for batch in parts] == [(1, 2), (0, 1)]
    with pytest.raises(wiremeter.InputError, match="is no time"):
        wiremeter.replay(path, interval="soon")
    with pytest.raises(wiremeter.InputError, match="prot"):
        wiremeter.replay(path, filter="prot 80")


def test_simulate_and_monitor_take_the_same() -> None:
    batches = list(wiremeter.simulate("dns", seconds=1, packets_per_second=100, interval="500ms", filter="udp"))
    assert len(batches) == 2
    assert all((batch.flows["protocol"] == 17).all() for batch in batches)
    wiremeter.Monitor("eth0", interval="500ms", filter="tcp")
    for wrong in ({"interval": "1 fortnight"}, {"interval": "1ms"}, {"filter": "prot 80"}):
        with pytest.raises(wiremeter.InputError):
            wiremeter.Monitor("eth0", **wrong)  # type: ignore[arg-type]


def test_a_filtered_batch_has_fewer_flows_and_the_same_totals(batch: FlowBatch) -> None:
    only = batch.filter("tcp port 443")
    assert only.flows["src_port"].tolist() == [443]
    assert only.audit == batch.audit
    assert batch.filter("") is batch
    assert len(only.filter("udp").flows) == 0


def test_addresses_are_bytes_or_text(batch: FlowBatch) -> None:
    pytest.importorskip("pyarrow")
    assert batch.to_arrow()["src_addr"][0].as_py() == bytes(10) + b"\xff\xff\xc0\0\2\1"
    assert batch.to_arrow(addresses="text")["src_addr"].to_pylist() == ["192.0.2.1", HOSTILE]
    assert make_batch([]).to_arrow(addresses="text").num_rows == 0


def test_a_batch_goes_to_polars_pandas_and_duckdb(batch: FlowBatch) -> None:
    polars, pandas = pytest.importorskip("polars"), pytest.importorskip("pandas")
    duckdb = pytest.importorskip("duckdb")
    expected = [("192.0.2.1", 443, 3), (HOSTILE, 1, 1)]
    assert batch.to_polars().select("src_addr", "src_port", "packets").rows() == expected
    assert polars.DataFrame(batch).height == 2
    frame = batch.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame[["src_addr", "src_port", "packets"]].itertuples(index=False, name=None)) == expected
    assert batch.to_duckdb().project("src_addr, src_port, packets").fetchall() == expected
    with duckdb.connect() as connection:
        relation = batch.to_duckdb(connection)
        assert relation.aggregate("sum(packets)").fetchall() == [(4,)]


@pytest.mark.parametrize("module", ["pyarrow", "polars", "pandas", "duckdb"])
def test_what_is_not_installed_is_named_with_the_way_to_get_it(
    batch: FlowBatch, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    convert: dict[str, Any] = {
        "pyarrow": batch.to_arrow,
        "polars": batch.to_polars,
        "pandas": batch.to_pandas,
        "duckdb": batch.to_duckdb,
    }
    with pytest.raises(wiremeter.InputError, match=rf"needs {module}, which is not installed: pip install"):
        convert[module]()


def test_the_readme_shows_python_that_is_python() -> None:
    text = (Path(wiremeter.__file__).parents[2] / "README.md").read_text("utf-8")
    builtins.compile(text.split("```python\n")[1].split("```")[0], "README.md", "exec")
