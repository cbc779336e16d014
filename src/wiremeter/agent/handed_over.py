"""Which batches of pinned tables the shipper has got: so that the next agent hands over the rest, and no more.

The spool says by the number of its last batch whether it has one. What it has to be compared with is written down
before each batch is handed over. That outlives the process and need not outlive the host: pinned tables do not either.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Protocol

from wiremeter.flows.batch import FlowBatch, Mark

log = logging.getLogger(__name__)

#: A disk that takes longer is not waited for: if the agent is killed then, the batch may be lost to the server.
WAIT_SECONDS = 5.0


class Shipping(Protocol):
    """What a Shipper is here."""

    @property
    def next_number(self) -> int | None: ...

    def write(self, batch: FlowBatch) -> None: ...

    def wait_written(self, seconds: float) -> None: ...


class HandedOver:
    """Hands over each batch once, whoever is killed when. Where batches wait in memory, none twice."""

    def __init__(self, shipper: Shipping, path: Path) -> None:
        self._shipper = shipper
        self._path = path
        self._until = self._read()

    def write(self, batch: FlowBatch) -> None:
        """Returns when the batch is in the spool. One that is there since an earlier life is not handed over again."""
        mark, until = batch.mark, self._until
        if mark is None:
            self._shipper.write(batch)
            return
        if until and until.tables == mark.tables and mark.flip <= until.flip:
            return
        self._note({"before": until, "handing": mark, "number": self._shipper.next_number})
        self._shipper.write(batch)
        self._shipper.wait_written(WAIT_SECONDS)
        self._until = mark

    def _read(self) -> Mark | None:
        try:
            noted = json.loads(self._path.read_bytes())
            now, then = self._shipper.next_number, noted["number"]
            is_there = now is None or then is None or now > then
            mark = noted["handing"] if is_there else noted["before"]
            return Mark(*mark) if mark else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.error(
                "which batches were handed to the shipper cannot be read: some may be shipped twice",
                extra={"path": str(self._path), "why": str(error)},
            )
            return None

    def _note(self, noted: dict[str, object]) -> None:
        part = self._path.with_suffix(".tmp")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            part.write_text(json.dumps(noted))
            part.rename(self._path)
        except OSError as error:
            log.error(
                "which batch is handed to the shipper cannot be written down: it may be shipped twice",
                extra={"path": str(self._path), "why": error.strerror},
            )
