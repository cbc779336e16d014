"""What agents ship of every capture is what Arrow's own library says of it."""

from __future__ import annotations

import pytest

from unit.shipped import rows_of, tables_of
from wiremeter import replay
from wiremeter.shipment.identity import About, Identity, new_boot
from wiremeter.sinks.shipping.encode import encode

from .test_expected import CAPTURES, COUNTED, needs_captures

_KINDS = ("dns", "tls", "quic", "http")


@needs_captures
@pytest.mark.parametrize("name", COUNTED)
def test_shipped_tables_are_those_of_arrow(name: str) -> None:
    for sequence, batch in enumerate(replay(CAPTURES / name)):
        about = About(
            identity=Identity("replayed", new_boot(), sequence),
            mode=batch.mode,
            start_ns=batch.start_ns,
            end_ns=batch.end_ns,
            version="1.0",
        )
        tables = tables_of(encode(batch, about))
        assert rows_of(tables["flows"]) == rows_of(batch.to_arrow())
        for kind in _KINDS:
            expected = batch.transactions_to_arrow(kind).to_pylist()  # type: ignore[arg-type]
            assert (tables[kind].to_pylist() if kind in tables else []) == expected
