"""A meter whose batches also go to /metrics: what `wiremeter live --listen` shows, Prometheus sees."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from wiremeter.agent.loop import served
from wiremeter.agent.vitals import Vitals
from wiremeter.flows.batch import FlowBatch
from wiremeter.settings import Listen
from wiremeter.sinks.prometheus import PrometheusSink

if TYPE_CHECKING:
    from wiremeter.metering.monitor import Monitor


class Exposed:
    """Hands on what `source` yields, each batch after the metrics have it. Opens and closes the source."""

    def __init__(
        self,
        source: Monitor,
        listen: Listen,
        interval: float,
        sink: PrometheusSink,
        web_config_file: str | None = None,
    ) -> None:
        """interval: seconds between batches. sink: what shall be shown at /metrics. web_config_file: to whom."""
        self._source = source
        self._listen, self._web_config_file = listen, web_config_file
        self._sink = sink
        self._vitals = Vitals(interval)
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            web = self._web_config_file
            opening.enter_context(served(self._listen, self._sink, self._vitals, web_config_file=web))
            opening.enter_context(self._source)
            self._vitals.attached(len(self._source.attachments))
            self._resources = opening.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._resources.close()

    def close(self) -> None:
        """Asks the source to end."""
        self._source.close()

    def __iter__(self) -> Iterator[FlowBatch]:
        for batch in self._source:
            yield self._expose(batch)

    async def __aiter__(self) -> AsyncIterator[FlowBatch]:
        async for batch in self._source:
            yield self._expose(batch)

    def _expose(self, batch: FlowBatch) -> FlowBatch:
        self._sink.write(batch)
        self._vitals.batch_arrived(len(batch.attachments))
        return batch
