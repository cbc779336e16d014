"""A batch as the store takes it, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pyarrow as pa

    from wiremeter.shipment.identity import About
    from wiremeter.shipment.schema import TableName


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One interval of one agent, checked and cast.

    content: SHA-256 of the batch's bytes as they were sent, 32 bytes. received_ns: when it came, server's clock.
    skew_ns: how far the agent's clock is ahead of the server's, None where that is not known.
    tables: each with the columns and types of `arrow_schema(name)`, as `conform` makes them; those without rows may be
    left out.
    """

    about: About
    content: bytes
    received_ns: int
    tables: Mapping[TableName, pa.Table]
    skew_ns: int | None = None

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(table.num_rows for table in self.tables.values())

    @property
    def size_bytes(self) -> int:
        """Memory that the tables take."""
        return sum(table.nbytes for table in self.tables.values())


class Stored(NamedTuple):
    """What became of a batch that is stored. is_new: False if the same was stored before."""

    is_new: bool
