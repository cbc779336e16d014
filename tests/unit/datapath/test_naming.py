"""What joins decoders and batches: options, and the state that outlives a restart."""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wiremeter.datapath import naming
from wiremeter.datapath.naming import NO_NAMES, NameOptions, Naming
from wiremeter.errors import InputError
from wiremeter.flows.batch import Attachment, FlowBatch
from wiremeter.flows.columns import COUNTER, ETHERTYPE_COUNTER, FLOW, empty_rows
from wiremeter.names.records import DnsAnswer, DnsTransaction, FlowKey

from ..names.dns_messages import teach

CLIENT, SERVER, RESOLVER = (bytes(10) + b"\xff\xff" + bytes([10, 0, 0, n]) for n in (1, 2, 53))


def batch_of_one_flow() -> FlowBatch:
    """10.0.0.1:40000 > 10.0.0.2:443, now."""
    now_ns = time.time_ns()
    flows = np.zeros(1, FLOW)
    flows["src_addr"], flows["dst_addr"] = np.frombuffer(CLIENT, "u1"), np.frombuffer(SERVER, "u1")
    flows["src_port"], flows["dst_port"], flows["protocol"], flows["family"] = 40000, 443, 6, 4
    flows["first_ns"] = flows["last_ns"] = now_ns
    attachments = (Attachment(0, "eth0", 2, "tx", "tcx"),)
    return FlowBatch(now_ns - 10**9, now_ns, attachments, flows, empty_rows(COUNTER), empty_rows(ETHERTYPE_COUNTER), ())


def tell(names: Naming) -> None:
    """10.0.0.1 asked for site.example and was told 10.0.0.2."""
    flow = FlowKey(CLIENT, 5000, RESOLVER, 53, 17, 4)
    answers = (DnsAnswer("site.example", "A", 300, "10.0.0.2"),)
    asked = DnsTransaction(time.time_ns(), flow, "site.example", "A", 0, 1000, answers)
    teach(names._namer.domains, asked.time_ns, asked)


def domain(names: Naming) -> tuple[str | None, str | None]:
    batch = names.add(batch_of_one_flow(), {}, {})
    assert batch.flow_names is not None
    name = batch.names[batch.flow_names[0]]
    return name.domain, name.domain_source


def test_what_dns_said_outlives_a_restart(tmp_path: Path) -> None:
    before = Naming(NameOptions(state=tmp_path / "state"))
    tell(before)
    assert domain(before) == ("site.example", "dns_answer")
    before.close()
    assert domain(Naming(NameOptions(state=tmp_path / "state"))) == ("site.example", "dns_answer")
    assert domain(Naming(NameOptions())) == (None, None)


def test_it_is_saved_now_and_then_while_metering_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "SAVE_SECONDS", 0.0)
    names = Naming(NameOptions(state=tmp_path))
    tell(names)
    domain(names)
    assert names._saving
    names._saving.join()
    assert domain(Naming(NameOptions(state=tmp_path))) == ("site.example", "dns_answer")


def test_a_state_that_cannot_be_read_is_told_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "domains.jsonl").write_text("no state at all")
    with caplog.at_level(logging.WARNING):
        assert domain(Naming(NameOptions(state=tmp_path))) == (None, None)
    assert "was not read" in caplog.text


def test_a_state_that_another_may_have_written_is_told_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo(tmp_path / "domains.jsonl")
    with caplog.at_level(logging.WARNING):
        assert domain(Naming(NameOptions(state=tmp_path))) == (None, None)
    (record,) = caplog.records
    assert "no regular file" in record.__dict__["reason"]


def test_a_state_that_is_not_there_yet_is_nothing_to_tell(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Naming(NameOptions(state=tmp_path / "later"))
    assert not caplog.records


def test_a_state_that_cannot_be_written_is_told_and_metering_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    names = Naming(NameOptions(state=tmp_path / "file" / "below"))
    tell(names)
    with caplog.at_level(logging.WARNING):
        names.close()
    assert "was not saved" in caplog.text
    assert domain(names) == ("site.example", "dns_answer")


def test_payload_counts_add_up_over_the_intervals() -> None:
    names = Naming(NameOptions())
    names.add(batch_of_one_flow(), {"dns": 2}, {"dns": 1})
    batch = names.add(batch_of_one_flow(), {"dns": 3, "tls": 1}, {})
    assert batch.health.payloads == {"dns": 5, "tls": 1}
    assert batch.health.lost_payloads == {"dns": 1, "transactions": 0, "unread": 0, "names": 0}


@pytest.mark.parametrize(
    ("options", "said"), [({"kinds": ("dns", "smell")}, "smell"), ({"payload_bytes": 4097}, "4096")]
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        NameOptions(**options)


def test_sources_follow_from_the_kinds() -> None:
    assert NameOptions(kinds=["dns"]).sources == {"dns"}
    assert NameOptions(kinds=("tls", "ptr")).sources == {"tls", "first"}
    assert NO_NAMES.limit == NameOptions(payload_bytes=0).limit == NameOptions(kinds=["ptr"]).limit == 0


def test_a_reader_can_be_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    assert naming.try_reader(NameOptions(isolated=True)) == ""
    monkeypatch.setattr(sys, "executable", "/nowhere")
    refused = naming.try_reader(NameOptions(isolated=True))
    assert "/nowhere" in refused
    assert "--no-isolate" in refused


def test_names_end_their_reader() -> None:
    names = Naming(NameOptions(isolated=True))
    (reader,) = names.channels
    of_process = Path(f"/proc/{reader.pid}")
    assert of_process.exists()
    names.close()
    names.close()
    assert not of_process.exists()
