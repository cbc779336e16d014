"""The parts of the interactive view above and beside the flow table, as text of a given width."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.text import Text

from wiremeter.flows.batch import Audit, FlowBatch, Tally
from wiremeter.flows.dns import RecentDns
from wiremeter.flows.recent import WINDOWS, DeviceSums
from wiremeter.flows.top import DeviceRate, History, ProtocolTotal
from wiremeter.reports.cells import bar, clock_time, elide, printable, sparkline
from wiremeter.reports.findings import Finding
from wiremeter.reports.selection import Selected, Selection
from wiremeter.reports.units import CELL_WIDTH, cell, count, percent, rate_text
from wiremeter.tui import palette

_RATE_WIDTH = 8


def rate_units(selection: Selection) -> str:
    """What amounts on screen are in."""
    return "byte/s" if selection.in_bytes else "bit/s"


def top_line(batch: FlowBatch, width: int, *, host: str, paused: bool) -> Text:
    """Who, when, and how the meter does."""
    health = batch.health
    line = Text(" wiremeter ", palette.TITLE, no_wrap=True, end="")
    line.append(f"{host}  {clock_time(batch.end_ns)} ", palette.TITLE_SOFT)
    if batch.mode != "live":
        line.append(f" {batch.mode.upper()} ", palette.LOUD)
    if paused:
        line.append(" PAUSED ", palette.LOUD)
    right = f"{count(len(batch.flows))} flows in {batch.seconds:.1f} s"
    if health.table_lines:
        right += f"  table {percent(health.table_peak_lines, health.table_lines).strip()}"
    if width >= 110:
        right += f"  early flips {count(health.early_flips)}  drain {health.drain_seconds * 1e3:.1f} ms"
    if line.cell_len + len(right) + 2 > width:
        right = right.partition("  ")[0]
    line.append(f"{right} ".rjust(max(0, width - line.cell_len)), palette.TITLE_SOFT)
    line.truncate(width)
    return line


# --- devices


#: Columns of the device panel that there may be no room for, the most useful first, and their widths.
_OPTIONAL = {
    "dropped": 8,
    "averages": len(WINDOWS) * (CELL_WIDTH + 1),
    "peak": CELL_WIDTH + 1,
    "total": CELL_WIDTH + 2,
    "skbs": _RATE_WIDTH + 1,
    "cost": 7,
    "kernel": 31,
}
_HISTORY_WIDTHS = (8, 60)


@dataclass(frozen=True, slots=True)
class _DeviceColumns:
    """Which columns the device panel has, and how wide."""

    device: int
    mode: int
    history: int
    optional: frozenset[str]

    @classmethod
    def fit(cls, rates: Sequence[DeviceRate], width: int) -> _DeviceColumns:
        device = min(15, max([len("device"), *(len(rate.device) for rate in rates)]))
        mode = max([len("attach"), *(len(rate.mode) for rate in rates)])
        least, most = _HISTORY_WIDTHS
        left = width - (1 + device + 1 + mode + 1 + 3 + 2 * (_RATE_WIDTH + 1) + 1 + 8 + 6 + 2)
        optional = set()
        for name, needed in _OPTIONAL.items():
            has_any = name != "cost" or any(rate.ns_per_run is not None for rate in rates)
            if has_any and left - needed >= least:
                optional.add(name)
                left -= needed
        return cls(device, mode, min(most, max(4, left)), frozenset(optional))


def device_panel(
    rates: Sequence[DeviceRate],
    history: History,
    sums: DeviceSums,
    width: int,
    rows: int,
    selection: Selection,
    *,
    logarithmic: bool = False,
) -> list[Text]:
    """One line for each device and direction, below a header; at most `rows` lines.

    Where there are more, the one selected and the busiest of the recorded history stay; a last line says how many
    do not. logarithmic: each bar of the history is ten times the one below.
    """
    columns = _DeviceColumns.fit(rates, width)
    shown = list(rates)
    if len(shown) > rows - 1:
        busy = _busiest(rates, history, max(1, (rows - 2) // 2), selection.device)
        shown = [rate for rate in rates if rate.device in busy]
    lines = [_device_header(columns, selection)]
    lines += [_device_line(rate, history, sums, columns, selection, logarithmic=logarithmic) for rate in shown]
    hidden = len({rate.device for rate in rates}) - len({rate.device for rate in shown})
    if hidden:
        lines.append(Text(f" and {hidden} quieter devices (d shows one alone, a the audit of all)", palette.FAINT))
    return lines


def _busiest(rates: Iterable[DeviceRate], history: History, n: int, selected: str | None) -> set[str]:
    sums: dict[str, float] = {}
    for rate in rates:
        sums[rate.device] = sums.get(rate.device, 0) + float(history.of(rate.device, rate.direction).sum())
    return set(sorted(sums, key=lambda device: (device != selected, -sums[device], device))[:n])


def _device_header(columns: _DeviceColumns, selection: Selection) -> Text:
    has = columns.optional
    line = Text(no_wrap=True, style=palette.HEADER, end="")
    line.append(f" {'device':{columns.device}} {'attach':{columns.mode}}    ")
    line.append(f"{rate_units(selection):>{_RATE_WIDTH}} {'packet/s':>{_RATE_WIDTH}} ")
    if "skbs" in has:
        line.append(f"{'skb/s':>{_RATE_WIDTH}} ")
    labels = [f"{window:g} s" for window in WINDOWS] if "averages" in has else []
    for label in [*labels, *(["peak"] if "peak" in has else [])]:
        line.append(f"{label:>{CELL_WIDTH}} ")
    if "total" in has:
        line.append(f"{'total B':>{CELL_WIDTH + 1}} ")
    if "cost" in has:
        line.append("ns/run ")
    line.append(f" {'history':{columns.history}} ")
    line.append(f"{'unattr.':>7} ")
    if "dropped" in has:
        line.append("dropped ")
    line.append("audit ")
    if "kernel" in has:
        line.append("device counter differs by")
    return line


def _device_line(
    rate: DeviceRate,
    history: History,
    sums: DeviceSums,
    columns: _DeviceColumns,
    selection: Selection,
    *,
    logarithmic: bool,
) -> Text:
    past, has = history.of(rate.device, rate.direction), columns.optional
    per_unit = 1 / 8 if selection.in_bytes else 1.0
    is_picked = selection.device == rate.device
    line = Text(no_wrap=True, end="")
    name = elide(printable(rate.device), columns.device) if rate.direction == "rx" else ""
    line.append("▸" if is_picked and name else " ", palette.WARNING)
    line.append(f"{name:{columns.device}} ", palette.STRONG)
    line.append(f"{rate.mode:{columns.mode}} ", palette.WARNING if rate.mode == "xdp-generic" else palette.FAINT)
    line.append(f"{rate.direction} ", palette.DIRECTION[rate.direction])
    _append_number(line, cell(rate.bits_per_second * per_unit))
    _append_number(line, cell(rate.packets_per_second))
    if "skbs" in has:
        _append_number(line, cell(rate.skbs_per_second))
    averages = sums.averages(rate.device, rate.direction) if "averages" in has else []
    for value in [*averages, *([sums.peak(rate.device, rate.direction)] if "peak" in has else [])]:
        _append_number(line, cell(value * per_unit), CELL_WIDTH)
    if "total" in has:
        _append_number(line, cell(sums.bytes(rate.device, rate.direction)), CELL_WIDTH + 1)
    if "cost" in has:
        line.append(f"{'' if rate.ns_per_run is None else round(rate.ns_per_run):>6} ", palette.PLAIN)
    line.append(f" {sparkline(past, columns.history, logarithmic=logarithmic)} ", palette.HISTORY[rate.direction])
    lost = sum(tally.packets for tally in rate.audit.unattributed.values())
    line.append(f"{_short_count(lost):>7} ", palette.WARNING if lost else palette.FAINT)
    if "dropped" in has:
        dropped = rate.audit.dropped
        line.append(f"{_short_count(dropped):>7} ", palette.WARNING if dropped else palette.FAINT)
    line.append(*((" ok  ", palette.GOOD) if rate.audit.balanced else (" OFF ", palette.FAULT)))
    if "kernel" in has:
        line.append(f" {elide(remainders_text(rate.audit), _OPTIONAL['kernel'] - 1)}", palette.FAINT)
    return line


def _short_count(value: int) -> str:
    """In seven characters.

    >>> _short_count(12_345), _short_count(1_234_567)
    ('12,345', '1.23 M')
    """
    return f"{value:,}" if value < 1_000_000 else rate_text(value, "")


def _append_number(line: Text, number: str, width: int = _RATE_WIDTH) -> None:
    line.append(f"{number:>{width}} ", palette.of_number(number))


def remainders_text(audit: Audit) -> str:
    """By what the kernel's own counter differs from ours, by cause, the largest first; "" if it was not read."""
    if audit.kernel is None:
        return ""
    named = sorted(audit.remainders.items(), key=lambda item: -abs(item[1]))
    return "  ".join(f"{cause} {packets:+,}" for cause, packets in named if packets) or "nothing"


# --- alarms


def alarm_lines(
    entries: Sequence[tuple[Finding, int | None]], notes: Sequence[Finding], width: int, rows: int
) -> list[Text]:
    """What must be said aloud, in at most `rows` lines; what is over is quiet and says when it was last seen."""
    lines = []
    for alarm, ended_ns in entries:
        if ended_ns is None:
            style = palette.FAULT if alarm.severity == "fault" else palette.WARNING
            lines.append(Text(elide_end(f" ! {alarm.text}", width), style, no_wrap=True, end=""))
        else:
            text = f"   {clock_time(ended_ns)} {alarm.text}"
            lines.append(Text(elide_end(text, width), palette.NOTE, no_wrap=True, end=""))
    if len(lines) > rows:
        hidden = len(lines) - rows + 1
        lines = lines[: rows - 1]
        lines.append(Text(f"   and {hidden} more: a shows the audit, x clears what is over", palette.NOTE, end=""))
    for note in notes[: rows - len(lines)]:
        lines.append(Text(elide_end(f"   {note.text}", width), palette.NOTE, no_wrap=True, end=""))
    return lines


def elide_end(text: str, width: int) -> str:
    """`text` in at most `width` characters.

    >>> elide_end("too long", 5)
    'too …'
    """
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


# --- protocols


def protocol_line(totals: Sequence[ProtocolTotal], width: int, selection: Selection) -> Text:
    """As many protocols as fit in one line, with their shares."""
    whole, by_packets = _whole(totals, selection)
    line = Text(no_wrap=True, end="").append(" protocols  ", palette.HEADER)
    for total in totals:
        amount = total.tally.packets if by_packets else total.tally.bytes
        name = _protocol_text(total)
        share = percent(amount, whole).strip()
        if line.cell_len + len(name) + len(share) + 3 > width:
            break
        line.append(f"{name} ", palette.PLAIN).append(f"{share}   ", palette.FAINT)
    if not totals:
        line.append("no traffic", palette.FAINT)
    return line


def protocol_panel(
    totals: Sequence[ProtocolTotal], seconds: float, width: int, rows: int, selection: Selection
) -> list[Text]:
    """Protocols with shares and rates, one a line below a header; at most `rows` lines."""
    whole, by_packets = _whole(totals, selection)
    largest = max((t.tally.packets if by_packets else t.tally.bytes for t in totals), default=0)
    name_width = 12
    bar_width = max(3, width - name_width - 2 * (CELL_WIDTH + 1) - 4)
    unit = "packet/s" if by_packets else rate_units(selection)
    lines = [
        Text(f"{'protocols':{name_width + bar_width + 2}}{'share':>{CELL_WIDTH + 1}} {unit:>8}", palette.HEADER, end="")
    ]
    for total in totals[: max(0, rows - 1)]:
        amount = total.tally.packets if by_packets else total.tally.bytes
        per_second = amount / seconds if seconds > 0 else 0.0
        number = cell(per_second if by_packets or selection.in_bytes else per_second * 8)
        line = Text(no_wrap=True, end="")
        line.append(f"{elide(_protocol_text(total), name_width):{name_width}} ", palette.PLAIN)
        line.append(f"{bar(amount / largest if largest else 0, bar_width)} ", palette.BAR)
        line.append(f"{percent(amount, whole)} ", palette.PLAIN)
        line.append(f"{number:>8}", palette.of_number(number))
        lines.append(line)
    return lines


def _whole(totals: Sequence[ProtocolTotal], selection: Selection) -> tuple[int, bool]:
    by_packets = selection.sort == "packets"
    return sum(t.tally.packets if by_packets else t.tally.bytes for t in totals), by_packets


def _protocol_text(total: ProtocolTotal) -> str:
    """tcp over IPv4 is plain tcp, as everywhere; IPv6 is said.

    >>> _protocol_text(ProtocolTotal("ipv6", "tcp", Tally()))
    'ipv6 tcp'
    """
    return f"ipv6 {total.protocol}" if total.family == "ipv6" else total.protocol


# --- above and below the table


def flows_title(selected: Selected, batch: FlowBatch, width: int, selection: Selection) -> Text:
    """What the table of flows shows: how much of what, in which order."""
    right = "" if selection.is_whole else _part_of_whole(selected, batch, selection)
    line = _title("conversations" if selection.pairs else "flows", selection.sort, selection)
    return _with_right(_append_choice(line, selection), right, width)


def totals_title(count_of: int, selected: Selected, batch: FlowBatch, width: int, selection: Selection) -> Text:
    """The same for the table of domains or applications, which has `count_of` rows."""
    right = f"{count(count_of)} {selection.view}"
    if not selection.is_whole:
        right += f" of {_part_of_whole(selected, batch, selection)}"
    line = _title(selection.view, selection.total_sort, selection)
    return _with_right(_append_choice(line, selection), right, width)


def dns_title(recent: RecentDns, width: int, selection: Selection) -> Text:
    """The same for the table of DNS questions. They are those of all flows: a filter does not apply, and says so."""
    line = _title("DNS questions", selection.dns_sort, selection)
    if not selection.is_whole:
        line.append("  of all flows, not only those selected", palette.WARNING)
    kept = "" if recent.kept == recent.seen else f"the latest {count(recent.kept)} of "
    return _with_right(line, f"{kept}{count(recent.seen)} in the last {recent.seconds:.0f} s", width)


def _title(noun: str, sort: str, selection: Selection) -> Text:
    unit = {"bytes": rate_units(selection), "packets": "packet/s"}.get(sort, sort)
    line = Text(no_wrap=True, end="")
    line.append(f" {noun}", palette.STRONG)
    line.append(f" by {unit}{', reversed' if selection.reverse else ''}", palette.FAINT)
    return line


def _append_choice(line: Text, selection: Selection) -> Text:
    if selection.device:
        line.append("  device ", palette.FAINT).append(selection.device, palette.WARNING)
    if selection.filter.text:
        line.append("  filter ", palette.FAINT).append(selection.filter.text, palette.WARNING)
    return line


def _part_of_whole(selected: Selected, batch: FlowBatch, selection: Selection) -> str:
    amount = selected.total.bytes * (1 if selection.in_bytes else 8) / (batch.seconds or 1.0)
    flows = f"{count(selected.matched)} of {count(len(batch.flows))} flows"
    return f"{flows}, {rate_text(amount, rate_units(selection))}"


def _with_right(line: Text, right: str, width: int) -> Text:
    """`right` at the end of the line, if there is room beside something of the rest."""
    room = width - len(right) - 2
    if right and room > 20:
        if line.cell_len > room:
            line.truncate(room, overflow="ellipsis")
        line.append(f"{right} ".rjust(width - line.cell_len), palette.PLAIN)
    line.truncate(width, overflow="ellipsis")
    return line


def audit_lines(rates: Sequence[DeviceRate]) -> list[Text]:
    """The audit of each device and direction in full: seen = flows + non-IP + unattributed by reason."""
    lines = [Text(f"{'':28}{'packets':>14}{'bytes':>18}{'skbs':>13}", palette.HEADER)]
    for rate in rates:
        audit = rate.audit
        head = Text(f"{audit.device} ", palette.STRONG)
        head.append(f"{audit.direction} ", palette.DIRECTION[audit.direction]).append(rate.mode, palette.FAINT)
        lines += [head, _tally_line("seen", audit.seen, palette.STRONG)]
        lines += [_tally_line("= flows", audit.flows), _tally_line("+ not IP", audit.non_ip)]
        for reason, tally in audit.unattributed.items():
            style = palette.WARNING if tally.packets else palette.PLAIN
            lines.append(_tally_line(f"+ unattributed, {reason}", tally, style))
        style = palette.GOOD if audit.balanced else palette.FAULT
        lines.append(_tally_line("missing", audit.missing, style))
        if audit.capture_dropped:
            lines.append(Text(f"  {'lost by the capture':40}{audit.capture_dropped:>31,}", palette.FAULT))
        if audit.kernel:
            numbers = f"{audit.kernel.packets:>14,}{audit.kernel.bytes:>18,}"
            lines.append(Text(f"  {'device counter':26}{numbers}", palette.FAINT))
            for cause, packets in audit.remainders.items():
                if packets:
                    lines.append(Text(f"    differs by {cause:15}{packets:>+14,}", palette.FAINT))
            lines.append(Text(f"    counts {audit.kernel.convention}; drops {audit.kernel.drops:,}", palette.FAINT))
        for drop in audit.drops:
            if drop.packets:
                amount = f"{f'dropped by {drop.place}, {drop.cause}':26}{drop.packets:>14,}"
                style, remark = (palette.WARNING, "") if drop.is_loss else (palette.FAINT, "  no loss")
                lines.append(Text(f"  {amount}{remark}", style))
        lines.append(Text())
    return lines


def _tally_line(name: str, tally: Tally, style: str = palette.PLAIN) -> Text:
    return Text(f"  {name:26}{tally.packets:>14,}{tally.bytes:>18,}{tally.skbs:>13,}", style, no_wrap=True)
