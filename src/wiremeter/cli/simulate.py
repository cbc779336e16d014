"""`wiremeter simulate`: synthetic traffic with known totals through the datapath that meters live traffic."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from wiremeter.cli.replay import _interval, _top
from wiremeter.synthetic.profiles import PROFILES

if TYPE_CHECKING:
    from wiremeter.flows.batch import FlowBatch
    from wiremeter.synthetic.simulation import Simulation

_TOP = 10

_EPILOG = """\
profiles:
{profiles}

The same arguments make the same frames, byte for byte. What was made is known by plain sums that share nothing with
the datapath; each interval is checked against them, and a difference ends the command with status 1. Simulated time
goes as fast as it can, with --listen as time goes. All output says `simulated`.

examples:
  wiremeter simulate
  wiremeter simulate --profile syn-flood --packets-per-second 100000 --format json | jq .source.expected
  wiremeter simulate --profile iot --seed 7 --vlan 77 --write iot.pcap && wiremeter replay iot.pcap
"""


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Adds the subcommand and its flags."""
    parser = subparsers.add_parser(
        "simulate",
        help="meter synthetic traffic with known totals, without privileges",
        description="Meter synthetic traffic with known totals through the datapath that meters live traffic.",
        epilog=_EPILOG.format(profiles="\n".join(f"  {name:18} {p.summary}" for name, p in PROFILES.items())),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    made = parser.add_argument_group("what is made")
    add = made.add_argument
    add(
        "--profile",
        choices=tuple(PROFILES),
        default="web",
        help="kind of traffic (default %(default)s)",
        metavar="NAME",
    )
    add("--seed", type=int, default=0, metavar="N", help="another seed makes other traffic (default %(default)s)")
    add("--seconds", type=float, default=10.0, metavar="S", help="simulated time (default %(default)s)")
    add("--packets-per-second", type=float, default=10_000.0, metavar="R", help="rate (default %(default)s)")
    add("--hosts", type=int, default=100, metavar="N", help="clients; a server for every four (default %(default)s)")
    add("--protocols", type=_names, default=(), metavar="LIST", help="only these of tcp,udp,icmp,arp (default: all)")
    add("--ipv6", type=float, metavar="PART", help="part of conversations, 0 to 1 (default: as the profile has it)")
    add("--vlan", type=int, metavar="ID", help="tag all frames with this VLAN (default: no tag)")
    add("--mtu", type=int, default=1500, metavar="BYTES", help="largest IP packet (default %(default)s)")
    add("--write", metavar="FILE", help="also write the frames to this pcap file")
    shown = parser.add_argument_group("what is shown")
    add = shown.add_argument
    add("--interval", type=_interval, metavar="TIME", help="a block or a document for each such time, such as 1s")
    add("--format", choices=("text", "json"), default="text", help="output (default %(default)s)")
    add("--top", type=_top, default=_TOP, metavar="N", help="flows that the text shows (default %(default)s)")
    add("--listen", metavar="HOST:PORT", help="serve /metrics there, in real time, an interval of 1s if none is given")
    add("--flow-table", type=int, metavar="LINES", help="lines of the flow table, a power of two (default: as needed)")


def run(args: argparse.Namespace) -> int:
    """Makes the traffic and prints what the meter found.

    Raises InputError for a flag out of range, WiremeterError if the meter did not find what was made.
    """
    from wiremeter.synthetic.simulation import Simulation

    if args.listen and args.interval is None:
        args.interval = 1.0
    simulation = Simulation(
        args.profile,
        args.seed,
        seconds=args.seconds,
        packets_per_second=args.packets_per_second,
        hosts=args.hosts,
        protocols=args.protocols,
        ipv6=args.ipv6,
        vlan=args.vlan,
        mtu=args.mtu,
        interval=args.interval,
        write=args.write,
        table_lines=args.flow_table,
    )
    write = _write_json if args.format == "json" else _write_text
    with _exposed(args) as expose:
        for batch in simulation:
            expose(batch)
            write(batch, simulation, args)
    return 0


@contextlib.contextmanager
def _exposed(args: argparse.Namespace) -> Iterator[Callable[[FlowBatch], None]]:
    """What each batch is given to: with --listen /metrics, where it appears when its interval has passed."""
    if not args.listen:
        yield lambda batch: None
        return
    from wiremeter import __version__
    from wiremeter.agent import logs
    from wiremeter.agent.loop import served
    from wiremeter.agent.vitals import Vitals
    from wiremeter.settings import load_settings
    from wiremeter.sinks.prometheus import PrometheusSink
    from wiremeter.synthetic.simulation import START_NS

    logs.configure()
    sink, vitals = PrometheusSink(__version__, mode="simulated"), Vitals(args.interval)
    with served(load_settings({"listen": args.listen}).listen, sink, vitals):
        vitals.attached(1)
        started = time.monotonic()

        def expose(batch: FlowBatch) -> None:
            due = started + (batch.end_ns - START_NS) / 1e9
            time.sleep(max(0.0, due - time.monotonic()))
            sink.write(batch)
            vitals.batch_arrived(1)

        yield expose


def _write_json(batch: FlowBatch, simulation: Simulation, args: argparse.Namespace) -> None:
    from msgspec import UNSET

    from wiremeter.reports.document import document_lines
    from wiremeter.reports.schema import Expected, Source
    from wiremeter.reports.selection import EVERYTHING

    expected = simulation.expected
    source = Source(
        kind="simulated",
        mode="simulated",
        profile=args.profile,
        seed=args.seed,
        linktype="EN10MB",
        expected=Expected(expected.packets, expected.bytes, expected.flows),
        start_ns=UNSET if args.interval is None else batch.start_ns,
        end_ns=UNSET if args.interval is None else batch.end_ns,
    )
    sys.stdout.writelines(document_lines(batch, EVERYTHING, source))
    sys.stdout.flush()


def _write_text(batch: FlowBatch, simulation: Simulation, args: argparse.Namespace) -> None:
    from wiremeter.reports.text import summary

    title = f"profile {args.profile}, seed {args.seed}"
    expected = simulation.expected
    sys.stdout.writelines(f"{line}\n" for line in summary(batch, title, "EN10MB", top=args.top))
    print(f"simulated: {expected.packets} packets, {expected.bytes} bytes, {expected.flows} flows; all metered")
    print(flush=True)


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in text.split(","))))
