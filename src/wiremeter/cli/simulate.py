"""`wiremeter simulate`: synthetic traffic with known totals through the datapath that meters live traffic."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wiremeter.flows.batch import FlowBatch
    from wiremeter.settings.catalogue import Simulate
    from wiremeter.synthetic.simulation import Simulation


def run(settings: Simulate) -> int:
    """Makes the traffic and prints what the meter found.

    Raises InputError for a flag out of range, WiremeterError if the meter did not find what was made.
    """
    from wiremeter.synthetic.simulation import Simulation

    if settings.listen and settings.interval is None:
        settings = dataclasses.replace(settings, interval=1.0)
    simulation = Simulation(
        settings.profile,
        settings.seed,
        seconds=settings.seconds,
        packets_per_second=settings.packets_per_second,
        hosts=settings.hosts,
        protocols=settings.protocols,
        ipv6=settings.ipv6,
        vlan=settings.vlan,
        mtu=settings.mtu,
        interval=settings.interval,
        write=settings.write,
        table_lines=settings.flow_table,
    )
    write = _write_json if settings.format == "json" else _write_text
    with _exposed(settings) as expose:
        for batch in simulation:
            expose(batch)
            write(batch, simulation, settings)
    return 0


@contextlib.contextmanager
def _exposed(settings: Simulate) -> Iterator[Callable[[FlowBatch], None]]:
    """What each batch is given to: with --listen /metrics, where it appears when its interval has passed."""
    if settings.listen is None or settings.interval is None:
        yield lambda batch: None
        return
    from wiremeter import __version__
    from wiremeter.agent import logs
    from wiremeter.agent.loop import served
    from wiremeter.agent.vitals import Vitals
    from wiremeter.sinks.prometheus import PrometheusSink
    from wiremeter.synthetic.simulation import START_NS

    logs.configure()
    sink, vitals = PrometheusSink(__version__, mode="simulated"), Vitals(settings.interval)
    with served(settings.listen, sink, vitals):
        vitals.attached(1)
        started = time.monotonic()

        def expose(batch: FlowBatch) -> None:
            due = started + (batch.end_ns - START_NS) / 1e9
            time.sleep(max(0.0, due - time.monotonic()))
            sink.write(batch)
            vitals.batch_arrived(1)

        yield expose


def _write_json(batch: FlowBatch, simulation: Simulation, settings: Simulate) -> None:
    from msgspec import UNSET

    from wiremeter.reports.document import document_lines
    from wiremeter.reports.schema import Expected, Source
    from wiremeter.reports.selection import EVERYTHING

    expected = simulation.expected
    source = Source(
        kind="simulated",
        mode="simulated",
        profile=settings.profile,
        seed=settings.seed,
        linktype="EN10MB",
        expected=Expected(expected.packets, expected.bytes, expected.flows),
        start_ns=UNSET if settings.interval is None else batch.start_ns,
        end_ns=UNSET if settings.interval is None else batch.end_ns,
    )
    sys.stdout.writelines(document_lines(batch, EVERYTHING, source))
    sys.stdout.flush()


def _write_text(batch: FlowBatch, simulation: Simulation, settings: Simulate) -> None:
    from wiremeter.reports.selection import Selection, select
    from wiremeter.reports.summary import summary

    title = f"profile {settings.profile}, seed {settings.seed}"
    expected = simulation.expected
    selection = Selection(limit=settings.top)
    lines = summary(batch, select(batch, selection), selection, title, "EN10MB")
    sys.stdout.writelines(f"{line}\n" for line in lines)
    print(f"simulated: {expected.packets} packets, {expected.bytes} bytes, {expected.flows} flows; all metered")
    print(flush=True)
