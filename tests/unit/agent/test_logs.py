"""What a log line looks like."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from wiremeter.agent import logs

log = logging.getLogger("wiremeter.test")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """What is logged while the test runs."""
    before = logging.getLogger("wiremeter").level
    yield io.StringIO()
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if getattr(handler, "of_wiremeter", False)]:
        root.removeHandler(handler)
    logging.getLogger("wiremeter").setLevel(before)


def test_text_is_one_line_with_time_level_message_and_fields(stream: io.StringIO) -> None:
    logs.configure("info", "text", stream)
    log.info("attached", extra={"device": "eth0", "ifindex": 2, "took": 0.123456789, "why": "no driver support"})
    time, rest = stream.getvalue().split(" ", 1)
    assert len(time) == len("2025-11-22T14:31:00.123Z")
    assert time.endswith("Z")
    assert rest == 'INFO attached device=eth0 ifindex=2 took=0.123457 why="no driver support"\n'


def test_json_is_an_object_a_line(stream: io.StringIO) -> None:
    logs.configure("info", "json", stream)
    log.warning("displaced", extra={"device": "eth0", "packets": 7, "listen": {1: 2}})
    log.info("second")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "warning",
        "logger": "wiremeter.test",
        "message": "displaced",
        "device": "eth0",
        "packets": 7,
        "listen": {"1": 2},
    }
    assert second["message"] == "second"


@pytest.mark.parametrize("name", ["a\nINFO forged", "a\x1b[2J", 'a"b', "a=b", "", "a b"])
def test_a_value_cannot_forge_a_line_or_a_field(stream: io.StringIO, name: str) -> None:
    logs.configure("info", "text", stream)
    log.info("device %s", name, extra={"device": name})
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text[:-1].isprintable()
    assert text.rstrip("\n").endswith("device=" + json.dumps(name))


def test_a_value_that_json_does_not_know_is_written_as_text(stream: io.StringIO) -> None:
    logs.configure("info", "json", stream)
    log.info("x", extra={"value": {1, 2} - {2}})
    assert json.loads(stream.getvalue())["value"] == "{1}"


@pytest.mark.parametrize("format", ["text", "json"])
def test_a_traceback_is_kept(stream: io.StringIO, format: str) -> None:
    logs.configure("info", format, stream)
    try:
        raise ValueError("deep")
    except ValueError:
        log.exception("failed")
    text = stream.getvalue()
    if format == "json":
        text = json.loads(text)["exception"]
    assert text.rstrip().endswith("ValueError: deep")


def test_records_below_the_level_are_left_out(stream: io.StringIO) -> None:
    logs.configure("warning", "text", stream)
    log.info("quiet")
    log.warning("loud")
    assert "quiet" not in stream.getvalue()
    assert "WARNING loud" in stream.getvalue()


def test_configuring_again_replaces_the_last(stream: io.StringIO) -> None:
    logs.configure("info", "text", stream)
    logs.configure("debug", "json", stream)
    log.debug("once")
    assert stream.getvalue().count("once") == 1
