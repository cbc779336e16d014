"""Screens above the interactive view: help, and the audit in full."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from wiremeter.tui import palette

KEYS = (
    ("/  f", "filter the flows; empty shows all again"),
    ("v  V", "next table: flows, domains, applications, DNS, hosts; also 1 to 5"),
    ("s  S", "sort by another column: bytes, packets, source, domain, …"),
    ("r  <  >", "reverse the order; by source; by destination"),
    ("o", "hold the order of rows as it is, or let it go"),
    ("T", "further columns: averages over 2, 10 and 40 s, totals, flags"),
    ("L", "history on a logarithmic scale"),
    ("c", "conversations (a flow and its reverse) or flows"),
    ("d  D", "one device after the other, then all again"),
    ("b", "bit/s or byte/s"),
    ("n", "services by name, or port numbers"),
    ("up down, j k", "pick a row and see it in full; Esc lets it go"),
    ("space  P", "pause; the meter counts on"),
    ("a", "all alarms; audit of each device"),
    ("x", "clear alarms that are over"),
    ("Ctrl-Z", "back to the shell; fg returns, and the kernel has counted on"),
    ("q", "quit and detach"),
)
#: Keys of iftop's that have no meaning here, and what has it instead.
ELSEWHERE = {
    "p": "ports are part of a flow; 5 shows hosts, without ports",
    "t": "c joins both directions in one line; the filters rx and tx show one of them",
    "B": "T shows averages over 2, 10 and 40 s beside the rate; b is for bytes",
}
_FILTERS = (
    ("host 10.0.0.1", "either end; also src host, dst host"),
    ("net 10.0.0.0/8", "IPv4 or IPv6; also src net, dst net"),
    ("port 443 or 80", "also src port, tcp port 22, portrange 8000-8099"),
    ("tcp  udp  icmp6", "and others by name; proto 47 by number"),
    ("ip  ip6", "family"),
    ("vlan 77", "outermost tag; vlan alone: any"),
    ("dev eth0  rx  tx", "device and direction; dev 'veth*' for several"),
    ("domain example.com", "and all beneath it; domain '*cdn*'; domain '*' any at all"),
    ("app tls or http", "application, by what was said, not by port"),
    ("and or not ( )", "from left to right as in tcpdump; parentheses to group"),
)
_WORDS = (
    ("packet/s, bit/s", "on the wire: a 64 KiB buffer counts as its segments"),
    ("skb/s", "the kernel's buffers that carried them"),
    ("2 s, 10 s, 40 s", "averages; of flows and names, among the 4,096 largest of each interval"),
    ("peak, total B", "since the start; of flows, since they were first seen"),
    ("unattributed", "packets seen and counted, but in no flow"),
    ("dropped", "by a queue or the device, as the kernel counts; a shows where"),
    ("hosts", "flows by their other end, so that each counts once"),
    ("domain", "as the flow itself said; ~ as a DNS answer said of its address"),
    ("proto", "the application, where it is known"),
    ("audit", "ok: seen = flows + not IP + unattributed, to the byte"),
    ("tx", "handed to the device by the stack; a queue may drop it yet"),
    ("several devices", "a packet counts on each it passes (bridge, VLAN, …)"),
)


class Sheet(ModalScreen[None]):
    """A page of text over the view; Esc, q or its own key closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("escape", "dismiss_sheet"),
        ("q", "dismiss_sheet"),
        ("a", "dismiss_sheet"),
        ("question_mark", "dismiss_sheet"),
    ]

    def __init__(self, title: str, text: Text) -> None:
        super().__init__()
        self._title = title
        self._text = text

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="sheet") as sheet:
            sheet.border_title = self._title
            sheet.border_subtitle = "Esc closes"
            yield Static(self._text, id="sheet-text")

    def show(self, text: Text) -> None:
        """Replace the text."""
        self.query_one("#sheet-text", Static).update(text)

    def action_dismiss_sheet(self) -> None:
        self.dismiss()


class AuditSheet(Sheet):
    """The audit; it goes on with each batch."""


def help_text() -> Text:
    """Keys, filters and words."""
    text = Text()
    for title, entries in (("Keys", KEYS), ("Filters, as in tcpdump", _FILTERS), ("Words", _WORDS)):
        text.append(f"{title}\n", palette.STRONG)
        for name, meaning in entries:
            text.append(f"  {name:20}", palette.WARNING).append(f"{meaning}\n", palette.PLAIN)
        text.append("\n")
    text.rstrip()
    return text
