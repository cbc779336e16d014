"""Others' captures, read in a process without power: every decoder does its work behind the seal."""

from __future__ import annotations

from typing import Any

import pytest

from wiremeter.captures.replay import CaptureReplay
from wiremeter.datapath.naming import NameOptions

from .test_expected import CAPTURES
from .test_names import FUZZED, TOLD


def told(name: str, *, isolated: bool) -> tuple[list[Any], dict[str, int]]:
    """What each batch has of names and transactions; and the payloads that were lost."""
    names = NameOptions(redact_paths=False, ja4s=True, isolated=isolated)
    batches = list(CaptureReplay([CAPTURES / name], names=names, interval=1.0))
    read = []
    for batch in batches:
        assert batch.flow_names is not None
        of_flows = [batch.names[number] for number in batch.flow_names.tolist()]
        read.append((of_flows, batch.connections.tolist(), batch.transactions))
    return read, dict(batches[-1].health.lost_payloads)


@pytest.mark.parametrize("name", [*TOLD, FUZZED] if TOLD else [])
def test_the_same_is_told(name: str) -> None:
    assert told(name, isolated=True) == told(name, isolated=False)
