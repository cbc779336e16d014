"""`wiremeter live`: what crosses the wire now, as a table in the terminal, as text or as JSON."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from wiremeter.flows.batch import FlowBatch
    from wiremeter.reports.selection import Selection

#: Flows that the interactive view keeps ready to be scrolled through, and the other formats show.
INTERACTIVE_TOP = 200
PLAIN_TOP = 10

_METERING = (
    *("interfaces", "interval", "attach", "program", "flow_table", "max_devices", "bpf_stats", "listen"),
    *("names", "payload_bytes"),
)
_SORTS = ("bytes", "packets", "source", "destination", "protocol", "domain")
_VIEWS = ("flows", "domains", "applications", "dns")

_EPILOG = """\
In a terminal it is interactive: ? shows the keys, q quits. Without a terminal, or with --once, --count or --format,
it prints a block of lines each interval; each begins with the time and what it is: interval, device, alarm, note,
protocol, application, domain, dns, flow, conversation. --format json prints a JSON document a line (with --once,
one document).

filters, as in tcpdump (pcap-filter):
  host 10.0.0.1      net 10.0.0.0/8     port 443 or 80     portrange 8000-8099
  src host ...       dst net ...        tcp dst port 22    proto 47
  tcp udp icmp6 ...  ip ip6             vlan, vlan 77      dev eth0    rx tx
  domain example.com (and all beneath it)    domain '*cdn*'    app tls or http
  and or not ( )     from left to right; parentheses to group

Totals over stacked devices (a bridge and its ports, VXLAN over eth0) add up to more than the wire: a packet
counts on each device it passes.

examples:
  wiremeter live --filter 'tcp and not port 22' --sort packets
  wiremeter live --once --format json | jq '.devices[] | {device, direction, bits_per_second}'
  wiremeter live --format text --interval 10 | grep ' alarm '
"""


class BatchSource(Protocol):
    """What a wiremeter.Monitor is to this command."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> object: ...
    def __iter__(self) -> Iterator[FlowBatch]: ...
    def __aiter__(self) -> AsyncIterator[FlowBatch]: ...
    def close(self) -> None: ...


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Adds the subcommand and its flags; those of metering leave no trace if not given, as in `agent`."""
    parser = subparsers.add_parser(
        "live",
        help="show live what crosses the wire: devices, flows, names",
        description="Show live what crosses the wire: device rates, top flows, protocols, domains and DNS, and what "
        "was not counted.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    shown = parser.add_argument_group("what is shown")
    add = shown.add_argument
    add("--filter", default="", metavar="EXPRESSION", help="only flows that match, such as 'tcp and port 443'")
    add("--sort", choices=_SORTS, default="bytes", help="order of flows (default bytes)")
    add(
        "--top", type=_positive, metavar="N", help=f"flows to show (default {PLAIN_TOP}; interactive {INTERACTIVE_TOP})"
    )
    add("--conversations", action="store_true", help="a flow and its reverse in one line")
    add("--bytes", action="store_true", help="byte/s instead of bit/s")
    add("--services", action="store_true", help="services by name instead of port numbers")
    add("--view", choices=_VIEWS, default="flows", help="what the interactive table begins with (default flows)")
    add("--format", choices=("text", "json"), help="print this instead of the interactive view")
    add("--once", action="store_true", help="print one interval and end")
    add("--count", type=_positive, metavar="N", help="print N intervals and end")
    add("--screenshot", metavar="FILE", help=argparse.SUPPRESS)  # an SVG of the view after --count intervals
    add("--screenshot-size", type=_size, default=(120, 36), metavar="COLSxLINES", help=argparse.SUPPRESS)

    metering = parser.add_argument_group("what is metered")
    add = metering.add_argument
    add(
        "--interface",
        dest="interfaces",
        action="append",
        metavar="NAME",
        default=argparse.SUPPRESS,
        help="device, glob such as 'veth*', or auto: what carries the default routes (default). Repeatable",
    )
    add("--interval", metavar="TIME", default=argparse.SUPPRESS, help="such as 1, 5s, 500ms (default 1s)")
    add(
        "--attach",
        metavar="HOW",
        default=argparse.SUPPRESS,
        help="auto (default), xdp, xdp-generic, tcx or capture; `wiremeter doctor` explains",
    )
    add("--program", metavar="FILE", default=argparse.SUPPRESS, help="another compiled object than our own")
    add(
        "--flow-table",
        metavar="LINES",
        default=argparse.SUPPRESS,
        help="lines in each CPU's flow table, a power of two (default: by memory)",
    )
    add(
        "--names",
        metavar="KINDS",
        default=argparse.SUPPRESS,
        help="read names from payloads: some of dns,tls,http,quic (default: all), ptr; or none",
    )
    add(
        "--payload-bytes",
        metavar="N",
        default=argparse.SUPPRESS,
        help="of one packet's payload that are looked at, at most (default 2048; 0: none)",
    )
    add("--max-devices", metavar="N", default=argparse.SUPPRESS, help="most devices at a time (default 32)")
    add(
        "--bpf-stats",
        action=argparse.BooleanOptionalAction,
        default=argparse.SUPPRESS,
        help="have the kernel time the programs; costs some ns a packet (default: off)",
    )
    add(
        "--listen",
        metavar="HOST:PORT",
        default=argparse.SUPPRESS,
        help="also serve /metrics, /healthz and /readyz there (default: off)",
    )


def run(args: argparse.Namespace, open_source: Callable[[argparse.Namespace], BatchSource] | None = None) -> int:
    """Runs the command; returns its exit status.

    open_source: makes the source of batches, by default a Monitor.
    Raises WiremeterError, InputError for a filter or a flag that is wrong.
    """
    is_view = _is_interactive(args)
    selection = _selection(args, INTERACTIVE_TOP if is_view or args.screenshot else PLAIN_TOP)
    with (open_source or _open_monitor)(args) as source:
        if args.screenshot:
            return _screenshot(source, args, selection)
        if is_view:
            return _view(source, selection)
        return _print(source, args, selection)


def _is_interactive(args: argparse.Namespace) -> bool:
    if args.once or args.count or args.format or args.screenshot:
        return False
    # The view is drawn on standard error, keys come from standard input.
    return all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)) and os.environ.get("TERM") != "dumb"


def _selection(args: argparse.Namespace, default_top: int) -> Selection:
    from wiremeter.flows.filter import compile_filter
    from wiremeter.reports.selection import Selection

    return Selection(
        sort=args.sort,
        limit=args.top or default_top,
        filter=compile_filter(args.filter.strip()),
        pairs=args.conversations,
        in_bytes=args.bytes,
        services=args.services,
        view=args.view,
        total_sort="packets" if args.sort == "packets" else "bytes",
    )


def _open_monitor(args: argparse.Namespace) -> BatchSource:
    from wiremeter.agent.dedicated import dedicate_process
    from wiremeter.agent.naming import name_options
    from wiremeter.metering.monitor import Monitor
    from wiremeter.settings import load_settings

    flags = {name: value for name, value in vars(args).items() if name in _METERING}
    if "interfaces" in flags:
        flags["interfaces"] = ",".join(flags["interfaces"])
    settings = load_settings({"listen": "off"} | flags)
    dedicate_process()
    monitor = Monitor(
        *settings.interfaces,
        interval=settings.interval,
        attach=settings.attach,
        flow_table=settings.flow_table,
        program=settings.program,
        bpf_stats=settings.bpf_stats,
        max_devices=settings.max_devices,
        names=name_options(settings),
        urgent=True,
    )
    if settings.listen is None:
        return monitor
    from wiremeter.agent.exposed import Exposed

    return Exposed(monitor, settings.listen, settings.interval)


def _view(source: BatchSource, selection: Selection) -> int:
    from wiremeter.tui.app import LiveApp

    app = LiveApp(source, selection)
    app.run()
    if app.failure is not None:
        raise app.failure
    return app.return_code or 0


def _screenshot(source: BatchSource, args: argparse.Namespace, selection: Selection) -> int:
    from wiremeter.tui.app import save_screenshot

    intervals = args.count or 1
    save_screenshot(source, args.screenshot, intervals=intervals, size=args.screenshot_size, selection=selection)
    return 0


def _print(source: BatchSource, args: argparse.Namespace, selection: Selection) -> int:
    """A block each interval until the source ends, enough were printed, or a signal comes."""
    write = _json_writer(selection, is_single=args.once) if args.format == "json" else _text_writer(selection)
    left = 1 if args.once else args.count
    with _closing_on_signals(source):
        for batch in source:
            sys.stdout.write(write(batch))
            sys.stdout.flush()
            left = left and left - 1
            if left == 0:
                break
    return 0


def _text_writer(selection: Selection) -> Callable[[FlowBatch], str]:
    from wiremeter.flows.batch import Health
    from wiremeter.reports.text import text_block

    before = Health()

    def write(batch: FlowBatch) -> str:
        nonlocal before
        text = text_block(batch, selection, before)
        before = batch.health
        return text

    return write


def _json_writer(selection: Selection, *, is_single: bool) -> Callable[[FlowBatch], str]:
    import msgspec

    from wiremeter.flows.batch import Health
    from wiremeter.reports.document import document, to_json

    before = Health()

    def write(batch: FlowBatch) -> str:
        nonlocal before
        text = to_json(document(batch, selection, before=before))
        before = batch.health
        return (msgspec.json.format(text, indent=2) if is_single else text) + "\n"

    return write


@contextlib.contextmanager
def _closing_on_signals(source: BatchSource) -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP end the source, so that what was begun is printed and all is detached."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    try:
        before = {number: signal.signal(number, lambda *_: source.close()) for number in signals}
    except ValueError:  # not in the main thread: who runs us there handles signals
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    columns, _, lines = text.partition("x")
    try:
        return _positive(columns), _positive(lines)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; expected such as 120x36") from None
