"""What a Monitor tells of names while a test's peers talk: transactions, names and bytes of flows, metrics, losses."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from wiremeter.sinks.families import OF_NAMES

from .devices import Port, settle
from .measure import FLOW_TABLE, Attach, Board, Meter, flow_of_row, running
from .wire import Count, Flow

if TYPE_CHECKING:
    from wiremeter.flows.batch import FlowBatch
    from wiremeter.names.records import FlowKey, FlowName, Transactions

#: Longer than of other meters: a part of each is there to read payloads in, also on a busy machine.
INTERVAL_SECONDS = 1.0
#: One batch, from attaching to closing: no conversation lies in two of them.
ONE_INTERVAL = 3600.0


class NamedFlow(NamedTuple):
    """A flow of one batch, on one device in one direction."""

    flow: Flow
    direction: str
    name: FlowName
    counted: Count


@dataclass(frozen=True)
class Told:
    """All that the batches told, in order. `metrics`: value by name and labels (sinks.name_totals), of all together."""

    transactions: tuple[Transactions, ...]
    flows: tuple[NamedFlow, ...]
    connections: Mapping[FlowName, int]
    metrics: Mapping[tuple[str, tuple[str, ...]], int]
    payloads: Mapping[str, int]
    lost: Mapping[str, int]
    has_names: bool
    batches: int

    def all(self, kind: str) -> list[Any]:
        """Transactions of "dns", "tls", "quic" or "http"."""
        return [one for transactions in self.transactions for one in getattr(transactions, kind)]

    def name(self, flow: Flow) -> FlowName:
        """The last that was said of a flow or of the one that answers it."""
        return next(each.name for each in reversed(self.flows) if each.flow in (flow, flow.reverse()))

    def names_on_port(self, port: int) -> set[FlowName]:
        """What was last said of each conversation with a server's port."""
        flows = {each.flow for each in self.flows if each.flow.dport == port}
        return {self.name(flow) for flow in flows}

    def by_domain(self) -> dict[str | None, Count]:
        """Packets and bytes of both directions."""
        sums: dict[str | None, Count] = {}
        for each in self.flows:
            sums[each.name.domain] = sums.get(each.name.domain, Count()).plus(each.counted)
        return sums

    def metric(self, name: str, *by: str) -> dict[tuple[str, ...], int]:
        """A metric's sums by some labels, without those that are 0; by default all but device and server."""
        (labels,) = (family.labels for family in OF_NAMES if family.name == name)
        kept = [labels.index(label) for label in (by or labels) if by or label not in ("device", "server")]
        sums: Counter[tuple[str, ...]] = Counter()
        for (metric, values), value in self.metrics.items():
            if metric == name and value:
                sums[tuple(values[at] for at in kept)] += value
        return dict(sums)


class Listener(Meter):
    """A running Monitor that reads names. `told` is there once the `listening` block is left."""

    _told: Told | None = None

    @property
    def told(self) -> Told:
        """What it said."""
        assert self._told, "the meter still runs: ask after the listening block"
        return self._told

    def finish(self) -> None:
        """Take what a stopped monitor said."""
        self._told = pickle.loads(self._job.result(20))
        self._board.close()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The monitor's process does nothing while the block runs; its programs go on."""
        os.kill(self._job.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._job.pid, signal.SIGCONT)


@contextmanager
def listening(
    port: Port, *more: Port, attach: Attach = "tcx", interval: float = INTERVAL_SECONDS, **options: Any
) -> Iterator[Listener]:
    """A Monitor on ports of one host around what the block sends; when that has settled, it is closed.

    options: of NameOptions.
    """
    import wiremeter.metering.monitor  # noqa: F401  here, so that the forked process need not

    board = Board()
    devices = tuple(each.device for each in (port, *more))
    listener = Listener(port.host.start(_listen, devices, attach, interval, options, board), board)
    with running(listener):
        yield listener
        settle(port, *more)


def _listen(
    devices: tuple[str, ...], attach: Attach, interval: float, options: Mapping[str, Any], board: Board
) -> bytes:
    """The monitor's process: posts when it is attached, and closes the monitor when it is told to stop."""
    from wiremeter import Monitor
    from wiremeter.datapath.naming import NameOptions
    from wiremeter.sinks.name_totals import NameTotals

    batches: list[FlowBatch] = []
    totals = NameTotals(100, 20)
    names = NameOptions(**options)
    with Monitor(*devices, interval=interval, attach=attach, flow_table=FLOW_TABLE, names=names) as monitor:
        board["attached"] = 1
        threading.Thread(target=_close_when_told, args=(board, monitor.close), daemon=True).start()
        for batch in monitor:
            batches.append(batch)
            totals.add(batch)
            board["last_start_ns"] = batch.start_ns
    return pickle.dumps(
        Told(
            transactions=tuple(batch.transactions for batch in batches),
            flows=tuple(flow for batch in batches for flow in _flows_of(batch)),
            connections=_connections_of(batches),
            metrics={(metric, (device, *labels)): value for metric, device, labels, value in totals.counters()},
            payloads=batches[-1].health.payloads,
            lost=batches[-1].health.lost_payloads,
            has_names=all(batch.flow_names is not None for batch in batches),
            batches=len(batches),
        )
    )


def _close_when_told(board: Board, close: Callable[[], None]) -> None:
    while not board["stop_ns"]:
        time.sleep(0.002)
    close()


def _flows_of(batch: FlowBatch) -> Iterator[NamedFlow]:
    assert all(entry.balanced for entry in batch.audit)
    numbers = [0] * len(batch.flows) if batch.flow_names is None else batch.flow_names.tolist()
    for row, number in zip(batch.flows, numbers, strict=True):
        direction = batch.attachments[row["attachment"]].direction
        yield NamedFlow(flow_of_row(row), direction, batch.names[number], Count(int(row["packets"]), int(row["bytes"])))


def _connections_of(batches: list[FlowBatch]) -> dict[FlowName, int]:
    begun: Counter[FlowName] = Counter()
    for batch in batches:
        for row in batch.connections:
            begun[batch.names[row["name"]]] += int(row["count"])
    return dict(begun)


def flow_of_key(key: FlowKey) -> Flow:
    """A transaction's flow in the form that captures and senders use."""
    from wiremeter.flows.columns import address_text

    return Flow(
        key.family, key.protocol, address_text(key.src_addr), key.src_port, address_text(key.dst_addr), key.dst_port
    )
