"""What counts the frames of a capture: the protocol, and the host engine as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from wiremeter.captures.file import Frames
from wiremeter.datapath.drain import Drain
from wiremeter.datapath.host import HostEngine
from wiremeter.datapath.layout import plan_tables
from wiremeter.datapath.naming import NO_NAMES, NameOptions
from wiremeter.names.payloads import PayloadBlock

#: Lines of the host engine's table: some 140 MiB, of which it takes what it uses.
TABLE_LINES = 1 << 21

#: What takes payloads that a name may be read from; a block is valid during the call.
OnPayloads = Callable[[PayloadBlock], None]


class FrameMeter(Protocol):
    """An engine that counts frames of captures."""

    #: Frames that the engine asked for cannot take and that the host engine has counted, by reason.
    counted_by_host: dict[str, int]
    #: Lines and bytes of its tables, for FlowBatch.health.
    table_lines: int
    table_bytes: int

    def count(self, frames: Frames) -> int:
        """Counts from the first on; returns how many. Fewer than all where a flip is due."""

    def flip(self) -> list[tuple[Drain, dict[int, int]]]:
        """All counts since the last flip, with the id of the attachment that each slot counted for."""

    def close(self) -> None:
        """Frees what it holds."""


class HostMeter:
    """The host engine as a FrameMeter."""

    def __init__(
        self,
        seed: int | None = None,
        table_lines: int | None = None,
        names: NameOptions = NO_NAMES,
        on_payloads: OnPayloads | None = None,
    ) -> None:
        """table_lines: of its table; by default TABLE_LINES. names, on_payloads: which payloads go where."""
        self._engine = HostEngine(
            plan_tables(1, table_lines or TABLE_LINES, attachments=2),
            seed=seed,
            payload_limit=names.limit,
            payload_sources=names.sources,
            on_payloads=on_payloads,
        )
        self._slot = self._engine.attach("capture")
        self.counted_by_host: dict[str, int] = {}
        self.table_lines = self._engine.plan.lines
        self.table_bytes = self._engine.plan.region_bytes

    def count(self, frames: Frames) -> int:
        return self._engine.count(self._slot, *frames)

    def flip(self) -> list[tuple[Drain, dict[int, int]]]:
        return [(self._engine.flip(), {self._slot: 0})]

    def close(self) -> None:
        pass
