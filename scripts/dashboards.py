"""Writes the Grafana dashboards in packaging/grafana/dashboards (`make docs`), for Prometheus and for ClickHouse.

What they show is the table below. Grafana's own types (grafana-foundation-sdk) make JSON of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog import variants
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    VariableOption,
    VariableRefresh,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

PLACE = Path(__file__).parents[1] / "packaging" / "grafana" / "dashboards"
Source = Literal["prometheus", "clickhouse"]
#: Grafana's names of the data sources.
PLUGINS: dict[Source, str] = {"prometheus": "prometheus", "clickhouse": "grafana-clickhouse-datasource"}
Kind = Literal["lines", "areas", "number", "table"]


class Panel(NamedTuple):
    """One panel. promql: expressions with their legends; sql: one query; either may be missing, where there is none."""

    title: str
    unit: str
    kind: Kind
    about: str
    promql: tuple[tuple[str, str], ...] = ()
    sql: str = ""


class Board(NamedTuple):
    """One dashboard: rows of panels."""

    title: str
    rows: dict[str, tuple[Panel, ...]]


_HOST = 'instance=~"$instance"'
_DEVICE = f'{_HOST},device=~"$device"'
_ANY_AGENT = 'agent!=""'
_LISTED = f'{_DEVICE},domain!="former"'
_AGENTS = "agent IN (${agent:singlequote})"
_DEVICES = f"{_AGENTS} AND device IN (${{device:singlequote}})"
_ALL = VariableOption(selected=True, text=["All"], value=["$__all"])
_OF_TIME = "$__timeFilter(time) AND batch_mode = 'live'"


def _rate(metric: str, labels: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def _series(columns: str, amount: str, table: str, where: str, by: str) -> str:
    """A time series by `by`, names of `columns`."""
    return (
        f"SELECT $__timeInterval(time) AS at, {columns}, {amount} AS value FROM wiremeter.{table} "
        f"WHERE {_OF_TIME} AND {where} GROUP BY at, {by} ORDER BY at"
    )


def _top(column: str, name: str, table: str, where: str, amount: str = "bytes") -> str:
    return (
        f"SELECT {column} AS {name}, sum({amount}) AS {amount} FROM wiremeter.{table} "
        f"WHERE {_OF_TIME} AND {where} GROUP BY {name} ORDER BY {amount} DESC LIMIT 20"
    )


def _received(columns: str, by: str) -> str:
    """A time series of batches, by when they came."""
    return (
        f"SELECT $__timeInterval(received) AS at, {columns} FROM wiremeter.batches "
        f"WHERE $__timeFilter(received) AND {_AGENTS} GROUP BY {by} ORDER BY at"
    )


def _address(column: str) -> str:
    return f"replaceRegexpOne(toString({column}), '^::ffff:', '')"


def _quantiles(metric: str, labels: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        (f"histogram_quantile({q}, sum by (le) (rate({metric}_bucket{{{labels}}}[$__rate_interval])))", f"{q:.0%}")
        for q in (0.5, 0.95, 0.99)
    )


def _latency(table: str) -> str:
    return (
        "SELECT $__timeInterval(time) AS at, quantile(0.5)(latency_ns) / 1e9 AS `50 %`, "
        "quantile(0.95)(latency_ns) / 1e9 AS `95 %`, quantile(0.99)(latency_ns) / 1e9 AS `99 %` "
        f"FROM wiremeter.{table} WHERE {_OF_TIME} AND {_DEVICES} AND latency_ns IS NOT NULL GROUP BY at ORDER BY at"
    )


_BITS = "sum(bytes) * 8 / $__interval_s"
_PACKETS = "sum(packets) / $__interval_s"
_COUNT = "count() / $__interval_s"
_PROTOCOL = (
    "multiIf(family = 0, 'not IP', protocol = 6, 'tcp', protocol = 17, 'udp', protocol IN (1, 58), 'icmp', "
    "toString(protocol)) AS name"
)

BOARDS: dict[str, Board] = {
    "fleet": Board(
        "wiremeter: fleet",
        {
            "Traffic": (
                Panel(
                    "Traffic by agent",
                    "bps",
                    "areas",
                    "What all devices of an agent saw, both ways. A packet counts on each device that it passes.",
                    ((f"{_rate('network_bytes_total', _ANY_AGENT, 'agent')} * 8", "{{agent}}"),),
                    _series("agent", _BITS, "counters", _AGENTS, "agent"),
                ),
                Panel(
                    "Packets by agent",
                    "pps",
                    "areas",
                    "On the wire.",
                    ((_rate("network_packets_total", _ANY_AGENT, "agent"), "{{agent}}"),),
                    _series("agent", _PACKETS, "counters", _AGENTS, "agent"),
                ),
                Panel(
                    "Traffic by protocol",
                    "bps",
                    "areas",
                    "Of all agents.",
                    ((f"{_rate('network_bytes_total', _ANY_AGENT, 'protocol')} * 8", "{{protocol}}"),),
                    _series(_PROTOCOL, _BITS, "counters", _AGENTS, "name"),
                ),
                Panel(
                    "Domains with most traffic",
                    "decbytes",
                    "table",
                    "An empty name: it is not known.",
                    (),
                    _top("domain", "name", "flows", _AGENTS),
                ),
            ),
            "Agents": (
                Panel(
                    "Agents by state",
                    "short",
                    "lines",
                    "away: nothing was heard lately.",
                    (("wiremeter_server_agents", "{{state}}"),),
                    "",
                ),
                Panel(
                    "Batches that wait at agents",
                    "short",
                    "lines",
                    "Should fall to about none, unless the server is away.",
                    (("wiremeter_agent_spool_batches", "{{agent}}"),),
                    "SELECT agent, argMax(JSONExtractUInt(heartbeat, 'spool', 'batches'), seen) AS batches, "
                    "max(seen) AS heard FROM wiremeter.agents GROUP BY agent ORDER BY batches DESC",
                ),
                Panel(
                    "Clock skew",
                    "s",
                    "lines",
                    "Above 0: the agent's clock is ahead of the server's.",
                    (("wiremeter_agent_clock_skew_seconds", "{{agent}}"),),
                    "",
                ),
                Panel(
                    "Batches stored",
                    "short",
                    "lines",
                    "A second, by agent.",
                    ((_rate("wiremeter_server_batches_total", "", "outcome"), "{{outcome}}"),),
                    _received("agent, count() / $__interval_s AS value", "at, agent"),
                ),
                Panel(
                    "Alerts",
                    "short",
                    "lines",
                    "Of the server: `wiremeter alert` lists them.",
                    (("wiremeter_alerts", "{{state}}"),),
                    "",
                ),
            ),
        },
    ),
    "host": Board(
        "wiremeter: host",
        {
            "Devices": (
                Panel(
                    "Traffic by device and direction",
                    "bps",
                    "lines",
                    "Bytes of frames on the wire.",
                    (
                        (
                            f"{_rate('network_bytes_total', _DEVICE, 'instance, device, direction')} * 8",
                            "{{instance}} {{device}} {{direction}}",
                        ),
                    ),
                    _series("agent, device, direction", _BITS, "counters", _DEVICES, "agent, device, direction"),
                ),
                Panel(
                    "Packets by device and direction",
                    "pps",
                    "lines",
                    "A super-packet counts as the packets that it is on the wire.",
                    (
                        (
                            _rate("network_packets_total", _DEVICE, "instance, device, direction"),
                            "{{instance}} {{device}} {{direction}}",
                        ),
                    ),
                    _series("agent, device, direction", _PACKETS, "counters", _DEVICES, "agent, device, direction"),
                ),
                Panel(
                    "Packets in a kernel buffer",
                    "short",
                    "lines",
                    "Above 1 where offloads (TSO, GRO) work.",
                    (
                        (
                            f"{_rate('network_packets_total', _DEVICE, 'device, direction')} / "
                            f"{_rate('network_skbs_total', _DEVICE, 'device, direction')}",
                            "{{device}} {{direction}}",
                        ),
                    ),
                    _series(
                        "device, direction",
                        "sum(packets) / sum(skbs)",
                        "counters",
                        f"{_DEVICES} AND skbs > 0",
                        "device, direction",
                    ),
                ),
                Panel(
                    "Traffic by protocol",
                    "bps",
                    "areas",
                    "IPv4 and IPv6 together.",
                    ((f"{_rate('network_bytes_total', _DEVICE, 'protocol')} * 8", "{{protocol}}"),),
                    _series(_PROTOCOL, _BITS, "counters", _DEVICES, "name"),
                ),
                Panel(
                    "Traffic by family",
                    "bps",
                    "areas",
                    "IPv4, IPv6, and what is neither.",
                    ((f"{_rate('network_bytes_total', _DEVICE, 'family')} * 8", "{{family}}"),),
                    _series(
                        "multiIf(family = 4, 'ipv4', family = 6, 'ipv6', 'non_ip') AS name",
                        _BITS,
                        "counters",
                        _DEVICES,
                        "name",
                    ),
                ),
            ),
            "Who and what": (
                Panel(
                    "Traffic by application",
                    "bps",
                    "areas",
                    "By what was said, not by port; unknown where nothing was.",
                    ((f"{_rate('network_application_bytes_total', _DEVICE, 'application')} * 8", "{{application}}"),),
                    _series("application", _BITS, "flows", _DEVICES, "application"),
                ),
                Panel(
                    "Domains with most traffic",
                    "bps",
                    "areas",
                    "Those that are listed; docs/metrics.md says which are.",
                    (
                        (
                            f"topk(10, {_rate('network_domain_bytes_total', _LISTED, 'domain')}) * 8",
                            "{{domain}}",
                        ),
                    ),
                    _top("domain", "name", "flows", _DEVICES),
                ),
                Panel(
                    "Connections by domain",
                    "cps",
                    "lines",
                    "TCP and QUIC connections that began.",
                    (
                        (
                            f"topk(10, {_rate('network_domain_connections_total', _LISTED, 'domain')})",
                            "{{domain}}",
                        ),
                    ),
                    "",
                ),
                Panel(
                    "Sources with most traffic",
                    "decbytes",
                    "table",
                    "Addresses are in the store alone; as labels there would be too many.",
                    (),
                    _top(_address("src_addr"), "source", "flows", _DEVICES),
                ),
                Panel(
                    "Destinations with most traffic",
                    "decbytes",
                    "table",
                    "",
                    (),
                    _top(_address("dst_addr"), "destination", "flows", _DEVICES),
                ),
                Panel(
                    "Services with most traffic",
                    "decbytes",
                    "table",
                    "The lower of both ports.",
                    (),
                    _top("service_port", "port", "flows", _DEVICES),
                ),
            ),
        },
    ),
    "dns-http": Board(
        "wiremeter: DNS, HTTP and TLS",
        {
            "DNS": (
                Panel(
                    "Questions",
                    "reqps",
                    "areas",
                    "By type, retries included.",
                    ((_rate("network_dns_queries_total", _DEVICE, "qtype"), "{{qtype}}"),),
                    _series("qtype", _COUNT, "dns", f"{_DEVICES} AND has_query", "qtype"),
                ),
                Panel(
                    "Responses by code",
                    "reqps",
                    "areas",
                    "NXDOMAIN is an answer; SERVFAIL and REFUSED are trouble.",
                    ((_rate("network_dns_responses_total", _DEVICE, "rcode"), "{{rcode}}"),),
                    _series(
                        "multiIf(rcode = 0, 'NOERROR', rcode = 2, 'SERVFAIL', rcode = 3, 'NXDOMAIN', "
                        "rcode = 5, 'REFUSED', toString(rcode)) AS name",
                        _COUNT,
                        "dns",
                        f"{_DEVICES} AND rcode IS NOT NULL",
                        "name",
                    ),
                ),
                Panel(
                    "Time to the answer",
                    "s",
                    "lines",
                    "Half of the answers, 95 % and 99 % came within this.",
                    _quantiles("network_dns_latency_seconds", _DEVICE),
                    _latency("dns"),
                ),
                Panel(
                    "Questions without an answer",
                    "reqps",
                    "lines",
                    "By server: for 10 s, or until they were asked again.",
                    ((_rate("network_dns_timeouts_total", _DEVICE, "server"), "{{server}}"),),
                    _series(
                        f"{_address('dst_addr')} AS server", _COUNT, "dns", f"{_DEVICES} AND rcode IS NULL", "server"
                    ),
                ),
            ),
            "HTTP": (
                Panel(
                    "Requests by status",
                    "reqps",
                    "areas",
                    "Only HTTP that is not encrypted can be seen.",
                    ((_rate("network_http_requests_total", _DEVICE, "status_class"), "{{status_class}}"),),
                    _series(
                        "if(status IS NULL, 'none', concat(toString(intDiv(status, 100)), 'xx')) AS name",
                        _COUNT,
                        "http",
                        _DEVICES,
                        "name",
                    ),
                ),
                Panel(
                    "Time to the response",
                    "s",
                    "lines",
                    "From the request's last byte that was seen to the response's first.",
                    _quantiles("network_http_latency_seconds", _DEVICE),
                    _latency("http"),
                ),
                Panel(
                    "Hosts with most requests",
                    "short",
                    "table",
                    "",
                    (),
                    "SELECT host, count() AS requests, countIf(status >= 500) AS failed FROM wiremeter.http "
                    f"WHERE {_OF_TIME} AND {_DEVICES} GROUP BY host ORDER BY requests DESC LIMIT 20",
                ),
            ),
            "TLS": (
                Panel(
                    "Handshakes by version",
                    "cps",
                    "areas",
                    "The version that the server chose, else the highest offered.",
                    ((_rate("network_tls_handshakes_total", _DEVICE, "version"), "{{version}}"),),
                    _series("version", _COUNT, "tls", _DEVICES, "version"),
                ),
                Panel(
                    "Names with most handshakes",
                    "short",
                    "table",
                    "As clients say them.",
                    (),
                    f"SELECT sni, count() AS handshakes FROM wiremeter.tls WHERE {_OF_TIME} AND {_DEVICES} "
                    "GROUP BY sni ORDER BY handshakes DESC LIMIT 20",
                ),
            ),
        },
    ),
    "meter": Board(
        "wiremeter: the meter's health",
        {
            "Is all of it there": (
                Panel(
                    "Packets unaccounted for",
                    "short",
                    "number",
                    "Always 0, or the meter has a fault.",
                    ((f"sum(network_unaccounted_packets_total{{{_HOST}}})", ""),),
                    "SELECT sum(missing) AS value FROM ("
                    "SELECT toInt64(seen_packets) - toInt64(flows_packets) - toInt64(non_ip_packets) AS missing "
                    f"FROM wiremeter.audit WHERE {_OF_TIME} AND {_AGENTS} "
                    "UNION ALL SELECT -packets AS missing FROM wiremeter.audit_reasons "
                    f"WHERE {_OF_TIME} AND {_AGENTS} AND kind = 'unattributed')",
                ),
                Panel(
                    "Packets in no flow, by reason",
                    "pps",
                    "lines",
                    "docs/accounting.md has the reasons.",
                    ((_rate("network_unattributed_packets_total", _HOST, "reason"), "{{reason}}"),),
                    _series("reason", _PACKETS, "audit_reasons", f"{_AGENTS} AND kind = 'unattributed'", "reason"),
                ),
                Panel(
                    "Seen, and in flows",
                    "pps",
                    "lines",
                    "The difference is what is not IP, and what is in no flow.",
                    (
                        (f"sum(rate(network_seen_packets_total{{{_HOST}}}[$__rate_interval]))", "seen"),
                        (_rate("network_attributed_packets_total", _HOST, "part"), "{{part}}"),
                    ),
                    "SELECT $__timeInterval(time) AS at, sum(seen_packets) / $__interval_s AS seen, "
                    "sum(flows_packets) / $__interval_s AS flows, sum(non_ip_packets) / $__interval_s AS non_ip "
                    f"FROM wiremeter.audit WHERE {_OF_TIME} AND {_AGENTS} GROUP BY at ORDER BY at",
                ),
                Panel(
                    "How devices are metered",
                    "short",
                    "table",
                    "",
                    ((f"wiremeter_attachment_info{{{_HOST}}}", "{{device}} {{direction}} {{mode}}"),),
                    "SELECT agent, device, direction, argMax(mode, time) AS attached FROM wiremeter.devices "
                    f"WHERE $__timeFilter(time) AND {_AGENTS} GROUP BY agent, device, direction ORDER BY agent, device",
                ),
                Panel(
                    "What agents found",
                    "short",
                    "table",
                    "Faults, warnings and notes, and how many intervals had them.",
                    (),
                    "SELECT agent, kind, device, any(severity) AS how, count() AS times, max(time) AS last "
                    f"FROM wiremeter.findings WHERE {_OF_TIME} AND {_AGENTS} "
                    "GROUP BY agent, kind, device ORDER BY last DESC",
                ),
            ),
            "What it takes": (
                Panel(
                    "Flow table, most in use",
                    "percentunit",
                    "lines",
                    "Above three eighths, tables are read early.",
                    ((f"wiremeter_table_peak_lines{{{_HOST}}} / wiremeter_table_lines{{{_HOST}}}", "{{instance}}"),),
                ),
                Panel(
                    "Flows in an interval",
                    "short",
                    "lines",
                    "",
                    (
                        (
                            f"rate(wiremeter_flows_total{{{_HOST}}}[$__rate_interval]) / "
                            f"rate(wiremeter_intervals_total{{{_HOST}}}[$__rate_interval])",
                            "{{instance}}",
                        ),
                    ),
                    "SELECT $__timeInterval(start) AS at, agent, avg(flows) AS value FROM wiremeter.batches "
                    f"WHERE $__timeFilter(start) AND {_AGENTS} GROUP BY at, agent ORDER BY at",
                ),
                Panel(
                    "Reading and merging",
                    "percentunit",
                    "lines",
                    "Part of the time.",
                    ((f"rate(wiremeter_drain_seconds_total{{{_HOST}}}[$__rate_interval])", "{{instance}}"),),
                ),
                Panel(
                    "CPU",
                    "percentunit",
                    "lines",
                    "Of agents and servers, in cores.",
                    ((f"rate(process_cpu_seconds_total{{{_HOST}}}[$__rate_interval])", "{{instance}}"),),
                ),
                Panel(
                    "Memory",
                    "decbytes",
                    "lines",
                    "Resident.",
                    ((f"process_resident_memory_bytes{{{_HOST}}}", "{{instance}}"),),
                ),
                Panel(
                    "Payloads",
                    "pps",
                    "lines",
                    "That names are read from.",
                    ((_rate("wiremeter_payload_events_total", _HOST, "source"), "{{source}}"),),
                ),
            ),
            "Shipping and the store": (
                Panel(
                    "Batches that the server answered",
                    "short",
                    "lines",
                    "A second; known: it had them already.",
                    ((_rate("wiremeter_ship_batches_total", _HOST, "result"), "{{result}}"),),
                ),
                Panel(
                    "Bytes that wait at the agent",
                    "decbytes",
                    "lines",
                    "",
                    (
                        (
                            f"sum by (instance, place) (wiremeter_ship_waiting_bytes{{{_HOST}}})",
                            "{{instance}} {{place}}",
                        ),
                    ),
                ),
                Panel(
                    "Time to the store",
                    "s",
                    "lines",
                    "From the end of an interval to its being stored, by the server's clock.",
                    (),
                    _received("agent, max(toFloat64(received) - toFloat64(`end`)) AS value", "at, agent"),
                ),
                Panel(
                    "The store's disk",
                    "decbytes",
                    "lines",
                    "Below the reserve, the oldest data goes.",
                    (("wiremeter_store_disk_free_bytes", "free"), ("wiremeter_store_disk_reserve_bytes", "reserve")),
                ),
                Panel(
                    "Rows stored",
                    "short",
                    "lines",
                    "A second, of all tables.",
                    (("sum(rate(wiremeter_server_stored_rows_total[$__rate_interval]))", "rows"),),
                    _received("sum(rows) / $__interval_s AS value", "at"),
                ),
            ),
        },
    ),
}


class _Sql(Builder[variants.Dataquery], variants.Dataquery):
    """A query of Grafana's ClickHouse plugin, of which the SDK has no type."""

    def __init__(self, sql: str) -> None:
        self._sql = sql

    def build(self) -> _Sql:
        return self

    def to_json(self) -> dict[str, object]:
        """As the plugin keeps it. format: 0 for time series, 1 for tables."""
        is_table = "$__timeInterval" not in self._sql
        return {
            "refId": "A",
            "datasource": {"type": PLUGINS["clickhouse"], "uid": "${source}"},
            "editorType": "sql",
            "queryType": "table" if is_table else "timeseries",
            "format": 1 if is_table else 0,
            "rawSql": self._sql,
        }


def made(name: str, source: Source) -> str:
    """One dashboard as JSON."""
    board = BOARDS[name]
    builder = (
        dashboard.Dashboard(f"{board.title} ({'Prometheus' if source == 'prometheus' else 'ClickHouse'})")
        .uid(f"wiremeter-{name}-{source}")
        .tags(["wiremeter", source])
        .refresh("30s")
        .time("now-1h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("source").label("Data source").type(PLUGINS[source]))
    )
    for variable in _variables(source):
        builder = builder.with_variable(variable)
    for row, panels in board.rows.items():
        shown = [panel for panel in panels if (panel.promql if source == "prometheus" else panel.sql)]
        builder = builder.with_row(dashboard.Row(row))
        for panel in shown:
            builder = builder.with_panel(_panel(panel, source))
    return json.dumps(builder.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _variables(source: Source) -> Iterator[dashboard.QueryVariable]:
    if source == "prometheus":
        queries = {
            "instance": "label_values(wiremeter_build_info, instance)",
            "device": 'label_values(network_seen_packets_total{instance=~"$instance"}, device)',
        }
    else:
        queries = {
            "agent": "SELECT DISTINCT agent FROM wiremeter.batches WHERE received > now() - 604800 ORDER BY agent",
            "device": "SELECT DISTINCT device FROM wiremeter.devices WHERE time > now() - 86400 ORDER BY device",
        }
    for name, query in queries.items():
        yield (
            dashboard.QueryVariable(name)
            .label(name.capitalize())
            .query(query)
            .datasource(_reference(source))
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .current(_ALL)
        )


def _reference(source: Source) -> DataSourceRef:
    return DataSourceRef(type_val=PLUGINS[source], uid="${source}")


def _panel(panel: Panel, source: Source) -> timeseries.Panel | stat.Panel | table.Panel:
    is_table = panel.kind == "table" or (source == "clickhouse" and "$__timeInterval" not in panel.sql)
    builder: timeseries.Panel | stat.Panel | table.Panel
    if panel.kind == "number":
        builder = stat.Panel().reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    elif is_table:
        builder = table.Panel().show_header(True)
    else:
        legend = common.VizLegendOptions().show_legend(True).display_mode(LegendDisplayMode.LIST)
        tooltip = common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
        builder = timeseries.Panel().legend(legend.placement(LegendPlacement.BOTTOM)).tooltip(tooltip)
        builder = builder.min(0).fill_opacity(20 if panel.kind == "areas" else 0)
        if panel.kind == "areas":
            builder = builder.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    builder = builder.title(panel.title).description(panel.about).unit(panel.unit).datasource(_reference(source))
    builder = builder.height(8).span(12)
    if source == "clickhouse":
        return builder.with_target(_Sql(panel.sql))
    for place, (expression, legend_text) in enumerate(panel.promql):
        query = prometheus.Dataquery().expr(expression).legend_format(legend_text).ref_id(chr(ord("A") + place))
        builder = builder.with_target(query.format(PromQueryFormat.TABLE).instant() if is_table else query)
    return builder


def main() -> None:
    """Writes all of them."""
    for source in PLUGINS:
        for name in BOARDS:
            file = PLACE / source / f"{name}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(made(name, source), "utf-8")


if __name__ == "__main__":
    main()
