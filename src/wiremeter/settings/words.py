"""The words that settings choose from, and the bounds of their numbers: each list once, for all that read it."""

from __future__ import annotations

from typing import Literal, get_args

#: How to attach; "auto" never changes offloads.
RequestedMode = Literal["auto", "xdp", "xdp-generic", "tcx", "capture"]
REQUESTED_MODES: tuple[RequestedMode, ...] = get_args(RequestedMode)

#: What names can be read from. "ptr" names flows by reverse DNS that was seen, too, and only where it is asked for.
NameKind = Literal["dns", "tls", "http", "quic", "ptr"]
NAME_KINDS: tuple[NameKind, ...] = get_args(NameKind)
DEFAULT_NAME_KINDS: tuple[NameKind, ...] = ("dns", "tls", "http", "quic")

#: What flows and conversations can be sorted by; numbers begin with the largest, addresses with the smallest, domains
#: with the first of the alphabet, and those without one come last.
SortKey = Literal["bytes", "packets", "source", "destination", "protocol", "domain"]
SORT_KEYS: tuple[SortKey, ...] = get_args(SortKey)

#: What the interactive view's table can be of.
View = Literal["flows", "domains", "applications", "dns", "hosts"]
VIEWS: tuple[View, ...] = get_args(View)

#: What counts the frames of a capture file.
EngineName = Literal["host", "kernel"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)

#: Segment sizes that may be assumed: from Linux's smallest (TCP_MIN_MSS) to what an IPv4 packet can hold.
ASSUMED_MSS = (88, 65_495)

OutputFormat = Literal["text", "json"]
OUTPUT_FORMATS: tuple[OutputFormat, ...] = get_args(OutputFormat)

LogLevel = Literal["debug", "info", "warning", "error"]
LOG_LEVELS: tuple[LogLevel, ...] = get_args(LogLevel)

#: Kinds of simulated traffic, and the protocols in it.
ProfileName = Literal["web", "dns", "syn-flood", "elephant-and-mice", "many-small-flows", "iot"]
PROFILE_NAMES: tuple[ProfileName, ...] = get_args(ProfileName)
SimulatedProtocol = Literal["tcp", "udp", "icmp", "arp"]
SIMULATED_PROTOCOLS: tuple[SimulatedProtocol, ...] = get_args(SimulatedProtocol)
SIMULATED_HOSTS_MAX = 1 << 16
SIMULATED_MTUS = (576, 9216)

#: Seconds between two batches.
SHORTEST_INTERVAL = 0.05
LONGEST_INTERVAL = 3600.0

#: Flows of one batch; 2^20 are 88 MiB, and several times that while they are merged.
FLOWS_MAX = 1 << 20

#: Lines in the flow table of one CPU, a power of two.
FLOW_TABLE_LINES_MIN = 1 << 8
FLOW_TABLE_LINES_MAX = 1 << 22

#: Bytes of one packet's payload that are looked at (WM_PAYLOAD_BYTES_MAX). The default is a segment's worth, so that a
#: ClientHello or a head is there whole, and of a super-packet its beginning.
PAYLOAD_BYTES_MAX = 4096
PAYLOAD_BYTES_DEFAULT = 2048

#: When a server wants to know who asks.
Authentication = Literal["auto", "on", "off"]
AUTHENTICATIONS: tuple[Authentication, ...] = get_args(Authentication)

#: What a token permits. write: send batches and heartbeats. read: ask. admin: see what was refused, silence alerts, and
#: all of read.
TokenRight = Literal["write", "read", "admin"]
TOKEN_RIGHTS: tuple[TokenRight, ...] = get_args(TokenRight)

#: Of answers of a server: their forms, what is counted, how often a flow counts that several points saw, and the order.
AnswerFormat = Literal["text", "json", "jsonl", "csv", "arrow", "parquet"]
ANSWER_FORMATS: tuple[AnswerFormat, ...] = get_args(AnswerFormat)
Amount = Literal["packets", "bytes", "skbs", "flows"]
AMOUNTS: tuple[Amount, ...] = get_args(Amount)
Once = Literal["none", "observer"]
ONCE: tuple[Once, ...] = get_args(Once)
SearchOrder = Literal["newest", "oldest"]
SEARCH_ORDERS: tuple[SearchOrder, ...] = get_args(SearchOrder)

#: Which of the alert rules that come with a server are in force. sure: those that no network makes wrong.
ShippedRules = Literal["sure", "all", "none"]
SHIPPED_RULES: tuple[ShippedRules, ...] = get_args(ShippedRules)
