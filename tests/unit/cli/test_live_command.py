"""The `wiremeter live` command around a made-up source of batches."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from wiremeter.cli import live
from wiremeter.cli.parser import parse as parse_line
from wiremeter.cli.parser import settings_given
from wiremeter.errors import InputError
from wiremeter.flows.batch import FlowBatch, Health
from wiremeter.flows.filter import compile_filter
from wiremeter.settings.catalogue import PLAIN_TOP, Live
from wiremeter.settings.words import SORT_KEYS, VIEWS

from ..live_batches import SECOND_NS, START_NS, flow, make_batch


class Source:
    """What a Monitor is to the command; gives batches until closed."""

    def __init__(
        self, *, signal_at: int | None = None, health: Health | None = None, device_from: int | None = 1
    ) -> None:
        """device_from: the first batch in which a device is metered; None: none is."""
        self._device_from = device_from
        self.given = 0
        self.is_open = False
        self.is_closed = False
        self._signal_at = signal_at
        self._health = health

    def __enter__(self) -> Self:
        self.is_open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.is_closed = True

    def __iter__(self) -> Iterator[FlowBatch]:
        while not self.is_closed and self.given < 100:
            self.given += 1
            if self._device_from is None or self.given < self._device_from:
                yield make_batch([], devices=(), start_ns=START_NS + self.given * SECOND_NS)
                continue
            flows = [flow("192.0.2.1", "10.0.0.5", 443, port, packets=port) for port in range(1, 21)]
            yield make_batch(flows, start_ns=START_NS + self.given * SECOND_NS, health=self._health)
            if self.given == self._signal_at:
                os.kill(os.getpid(), signal.SIGTERM)

    async def __aiter__(self) -> AsyncIterator[FlowBatch]:
        for batch in iter(self):
            yield batch


def parse(*words: str) -> Live:
    settings = settings_given(parse_line(["live", *words]))
    assert isinstance(settings, Live)
    return settings


def run(*words: str, source: Source | None = None) -> Source:
    source = source or Source()
    assert live.run(parse(*words), lambda _: source) == 0
    assert source.is_open
    assert source.is_closed
    return source


def test_once_prints_one_block_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--once").given == 1
    shown = capsys.readouterr().out
    assert shown.count(" interval ") == 1
    assert shown.count(" flow ") == PLAIN_TOP


def test_count_top_and_sort_hold(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--count", "3", "--top", "2", "--sort", "destination").given == 3
    shown = capsys.readouterr().out
    assert shown.count(" interval ") == 3
    assert shown.count(" flow ") == 6
    assert "10.0.0.5:1 " in shown


def test_json_is_one_document_a_line_and_a_single_one_with_once(capsys: pytest.CaptureFixture[str]) -> None:
    run("--format", "json", "--count", "2")
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [len(document["flows"]) for document in documents] == [10, 10]
    run("--format", "json", "--once", "--filter", "port 7")
    single = json.loads(capsys.readouterr().out)
    assert (single["filter"], single["flows_matched"]) == ("port 7", 1)


def test_without_a_terminal_it_prints_until_a_signal_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert run(source=Source(signal_at=4)).given == 4
    assert capsys.readouterr().out.count(" interval ") == 4
    assert signal.getsignal(signal.SIGTERM) is before


def test_where_no_device_is_metered_it_says_so_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"no device is metered: .* \(asked for: zz\*\)"):
        run("--once", "--interface", "zz*", source=Source(device_from=None))
    assert "no device is metered" in capsys.readouterr().out
    run("--count", "3", "--interface", "zz*", source=Source(device_from=2))


def test_wrong_filter_is_refused_before_anything_is_attached() -> None:
    def open_source(_: Live) -> Source:
        pytest.fail("opened")

    with pytest.raises(InputError, match="prot"):
        live.run(parse("--once", "--filter", "prot 80"), open_source)


@pytest.mark.parametrize("words", [["--top", "0"], ["--count", "-1"], ["--sort", "size"], ["--format", "xml"]])
def test_wrong_flags_are_refused(words: list[str]) -> None:
    with pytest.raises(InputError, match=f"{words[0]} is '{words[1]}', expected"):
        parse(*words)


def test_every_sort_key_is_offered() -> None:
    for key in SORT_KEYS:
        assert parse("--sort", key).sort == key


def test_every_view_is_offered() -> None:
    assert [live._selection(parse("--view", view), compile_filter(""), 10).view for view in VIEWS] == list(VIEWS)


def test_losses_of_one_interval_are_not_told_again_in_the_next(capsys: pytest.CaptureFixture[str]) -> None:
    run("--count", "3", source=Source(health=Health(lost_payloads={"dns": 4})))
    assert capsys.readouterr().out.count("4 payloads lost") == 1
    run("--count", "3", "--format", "json", source=Source(health=Health(lost_payloads={"dns": 4})))
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [len(document["alarms"]) for document in documents] == [1, 0, 0]


def test_metering_flags_are_the_agents_and_come_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WIREMETER_ATTACH", "tcx")
    monkeypatch.setenv("WIREMETER_LOG_LEVEL", "error")  # the agent's, and no matter here
    given = parse("--interface", "eth0", "-i", "veth*,wg0", "--interval", "500ms", "--bpf-stats", "eth1")
    assert given.interfaces == ("eth0", "veth*", "wg0", "eth1")
    assert (given.interval, given.bpf_stats, given.attach) == (0.5, True, "tcx")


def test_only_a_flag_has_it_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WIREMETER_LISTEN", "127.0.0.1:1")
    assert parse().listen is None
    assert parse("--listen", "127.0.0.1:2").listen == ("127.0.0.1", 2)


def test_hidden_screenshot_writes_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "view.svg"
    run("--screenshot", str(path), "--count", "2", "--screenshot-size", "90x30")
    assert path.read_text("utf-8").startswith("<svg")


def test_plain_output_does_not_load_the_terminal_library() -> None:
    script = (
        "import sys; from wiremeter.reports import text, document, findings, selection; "
        "from wiremeter.cli import live; "
        "sys.exit(any(name.split('.')[0] in ('textual', 'rich', 'pyarrow') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_help_alone_loads_neither_numpy_nor_the_terminal_library() -> None:
    script = (
        "import sys; from wiremeter.cli import live; "
        "sys.exit(any(name.split('.')[0] in ('textual', 'numpy') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
