"""The batch document: every key of what `live`, `replay` and `simulate` print as JSON, with its type and meaning.

docs/documents.md and docs/document.schema.json are made from these definitions (`make docs`). Keys may be added within
a version; a key that goes or changes its meaning makes a new SCHEMA_VERSION.

A default of UNSET says that the key is left out where it has no meaning.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from wiremeter.flows.columns import AttachMode, Direction, Mode
from wiremeter.reports.findings import Severity

#: Of this definition; `schema` in every document.
SCHEMA_VERSION = 1

_Packets = Annotated[int, Meta(description="packets on the wire")]
_Bytes = Annotated[int, Meta(description="bytes on the wire")]
_Skbs = Annotated[
    int | UnsetType, Meta(description="kernel buffers that carried them; only in live traffic, captures have none")
]
_Device = Annotated[str, Meta(description="network interface")]
_Direction = Annotated[Direction, Meta(description="as seen from the device")]
_Family = Annotated[Literal["ipv4", "ipv6"], Meta(description="of the outermost IP header")]
_Protocol = Annotated[int, Meta(description="IP protocol number (IANA)")]
_Vlan = Annotated[int | None, Meta(description="id of the outermost VLAN tag; null without one")]
_Flags = Annotated[int, Meta(description="OR of all TCP flags seen (RFC 9293, 3.1)")]
_First = Annotated[int, Meta(description="first packet, nanoseconds since the Unix epoch")]
_Last = Annotated[int, Meta(description="last packet, nanoseconds since the Unix epoch")]
_Time = Annotated[int, Meta(description="nanoseconds since the Unix epoch")]
_Application = Annotated[
    str | UnsetType, Meta(description='"tls", "dns", "ssh", …; "unknown" without evidence; only where names are on')
]
_Domain = Annotated[str | UnsetType | None, Meta(description="lower case, without the last dot; null if none is known")]
_Evidence = Annotated[
    str | UnsetType | None, Meta(description="how it is known: sni, http_host, quic_sni, dns_answer or ptr")
]
_Hello = Annotated[str | None, Meta(description="server name in the hello; null if none was sent or it is hidden")]
_Alpn = Annotated[tuple[str, ...], Meta(description="application protocols that were offered")]
_Ech = Annotated[bool, Meta(description="the hello is encrypted; its sni is the public name")]
_Latency = Annotated[int | None, Meta(description="nanoseconds from request to response; null if not measured")]


class Tally(Struct, frozen=True):
    """How much traffic."""

    packets: _Packets = 0
    bytes: _Bytes = 0
    skbs: _Skbs = UNSET


Protocols = dict[Literal["ipv4", "ipv6"], dict[str, Tally]]


class Source(Struct, frozen=True, kw_only=True):
    """Where the traffic came from."""

    kind: Annotated[Mode, Meta(description="a wire, a file, or made up")]
    files: Annotated[tuple[str, ...] | UnsetType, Meta(description='capture files as named; "-" is standard input')] = (
        UNSET
    )
    mode: Annotated[Literal["simulated"] | UnsetType, Meta(description="only if simulated")] = UNSET
    profile: Annotated[str | UnsetType, Meta(description="kind of simulated traffic")] = UNSET
    seed: Annotated[int | UnsetType, Meta(description="of simulated traffic")] = UNSET
    linktype: Annotated[
        str | UnsetType | None,
        Meta(description="link types of a capture's frames as libpcap names them, joined by commas; null without any"),
    ] = UNSET
    expected: Annotated[
        Expected | UnsetType, Meta(description="what was made of simulated traffic; it was checked")
    ] = UNSET
    assumed_mss: Annotated[
        int | UnsetType,
        Meta(description="only with --assume-mss: packets and bytes of TCP are computed from it, not captured"),
    ] = UNSET
    start_ns: Annotated[
        int | UnsetType, Meta(description="the interval, nanoseconds since the Unix epoch; only with --interval")
    ] = UNSET
    end_ns: Annotated[int | UnsetType, Meta(description="the same, its end")] = UNSET
    problems: Annotated[
        tuple[Problem, ...] | UnsetType, Meta(description="files that could be read in part only; only if there are")
    ] = UNSET


class Expected(Struct, frozen=True):
    """What a simulation made."""

    packets: _Packets
    bytes: _Bytes
    flows: Annotated[int, Meta(description="different flows")]


class Problem(Struct, frozen=True):
    """Why a file could be read in part only."""

    file: Annotated[str, Meta(description="as named")]
    problem: Annotated[str, Meta(description="what is wrong with it, and where")]


class KernelCounters(Struct, frozen=True):
    """What the kernel's own counters of the device gained in the interval."""

    packets: Annotated[int, Meta(description="in whatever the driver counts, see convention")]
    bytes: Annotated[int, Meta(description="the same")]
    drops: Annotated[int, Meta(description="packets that the device dropped")]
    convention: Annotated[str, Meta(description="what the driver counts")]


class Drop(Struct, frozen=True):
    """What the kernel dropped at one place in the interval, by its own counter."""

    place: Annotated[Literal["qdisc", "device"], Meta(description="the queue on the way out, or the device")]
    cause: Annotated[str, Meta(description="which qdisc, such as tbf; of a device dropped, missed or nohandler")]
    packets: Annotated[int, Meta(description="as that counter counts: a super-packet may count once")]
    is_loss: Annotated[
        bool, Meta(description="false where the counter also has what nobody here takes, such as STP and LLDP")
    ]


class Device(Struct, frozen=True, kw_only=True):
    """One device and direction: rate, and the audit `seen = flows + non_ip + unattributed + missing`."""

    device: _Device
    direction: _Direction
    attach_mode: Annotated[AttachMode, Meta(description="how it is metered")]
    packets_per_second: Annotated[float, Meta(description="on the wire")]
    bits_per_second: Annotated[float, Meta(description="on the wire")]
    skbs_per_second: Annotated[float | UnsetType, Meta(description="kernel buffers; only in live traffic")] = UNSET
    seen: Annotated[Tally, Meta(description="all of the interval")]
    flows: Annotated[Tally, Meta(description="of it in flows")]
    non_ip: Annotated[Tally, Meta(description="of it not IP")]
    unattributed: Annotated[dict[str, Tally], Meta(description="of it in no flow, by reason (docs/accounting.md)")]
    missing: Annotated[Tally, Meta(description="what the audit lacks: 0, or the meter has a fault")]
    balanced: Annotated[bool, Meta(description="whether nothing is missing")]
    kernel: Annotated[
        KernelCounters | None, Meta(description="the device's own counters; null if not read over the whole interval")
    ]
    remainders: Annotated[dict[str, int], Meta(description="packets by which they differ from ours, by cause")]
    drops: Annotated[tuple[Drop, ...], Meta(description="one entry for each counter that could be read, 0 included")]
    capture_dropped: Annotated[
        int, Meta(description="kernel buffers lost before they could be counted; only --attach capture can lose any")
    ]


class NameSum(Struct, frozen=True, kw_only=True):
    """Traffic of one application, domain or host, or of all that are not shown."""

    application: Annotated[
        str | UnsetType, Meta(description='among applications; "unknown" for the flows without evidence')
    ] = UNSET
    domain: Annotated[str | UnsetType | None, Meta(description="among domains; null for the flows without one")] = UNSET
    host: Annotated[str | UnsetType, Meta(description="among hosts: its address")] = UNSET
    packets: _Packets
    bytes: _Bytes
    skbs: _Skbs = UNSET
    rx: Annotated[Tally, Meta(description="of it received")]
    tx: Annotated[Tally, Meta(description="of it sent")]
    flows: Annotated[int, Meta(description="how many")]
    connections: Annotated[
        int | None,
        Meta(description="TCP and QUIC connections that began; null where a filter is set, and of hosts"),
    ]


class DnsSum(Struct, frozen=True, kw_only=True):
    """What became of one DNS question, or of all."""

    query: Annotated[str | UnsetType, Meta(description="name asked for; only of one question")] = UNSET
    qtype: Annotated[str | UnsetType, Meta(description="record type asked for; the same")] = UNSET
    queries: Annotated[int, Meta(description="questions seen, retries included")]
    retries: Annotated[int, Meta(description="of them asked before, with the same id")]
    unanswered: Annotated[int, Meta(description="of them without a response")]
    rcodes: Annotated[dict[str, int], Meta(description="responses by code, most frequent first")]
    latency_median_ns: Annotated[int | None, Meta(description="from query to response; null if none was measured")]
    latency_max_ns: Annotated[int | None, Meta(description="the same, the longest")]


class DnsSummary(DnsSum, frozen=True, kw_only=True):
    """DNS of all flows, whatever the filter."""

    questions: Annotated[tuple[DnsSum, ...], Meta(description="those most asked")]


class Flow(Struct, frozen=True, kw_only=True):
    """Packets of one direction with the same addresses, protocol, ports and VLAN."""

    device: Annotated[str | UnsetType, Meta(description="only in live traffic: captures do not tell")] = UNSET
    direction: Annotated[Direction | UnsetType, Meta(description="the same")] = UNSET
    family: _Family
    protocol: _Protocol
    src_addr: Annotated[str, Meta(description="source address")]
    src_port: Annotated[int, Meta(description="0 where there is none: no TCP, UDP or SCTP, or not the first fragment")]
    dst_addr: Annotated[str, Meta(description="destination address")]
    dst_port: Annotated[int, Meta(description="as src_port")]
    vlan: _Vlan
    packets: _Packets
    bytes: _Bytes
    skbs: _Skbs = UNSET
    first_ns: _First
    last_ns: _Last
    tcp_flags: _Flags
    application: _Application = UNSET
    domain: _Domain = UNSET
    domain_source: _Evidence = UNSET


class Conversation(Struct, frozen=True, kw_only=True):
    """A flow and its reverse on one device."""

    device: Annotated[str | UnsetType, Meta(description="only in live traffic")] = UNSET
    family: _Family
    protocol: _Protocol
    local_addr: Annotated[str, Meta(description="source of what is sent; in captures, the end that sent first")]
    local_port: Annotated[int, Meta(description="0 where there is none")]
    remote_addr: Annotated[str, Meta(description="the other end")]
    remote_port: Annotated[int, Meta(description="0 where there is none")]
    vlan: _Vlan
    rx: Annotated[Tally, Meta(description="received")]
    tx: Annotated[Tally, Meta(description="sent")]
    first_ns: _First
    last_ns: _Last
    tcp_flags: _Flags
    application: _Application = UNSET
    domain: _Domain = UNSET
    domain_source: _Evidence = UNSET


class FlowKey(Struct, frozen=True):
    """Which flow, from client to server."""

    src_addr: Annotated[str, Meta(description="client")]
    src_port: Annotated[int, Meta(description="of the client")]
    dst_addr: Annotated[str, Meta(description="server")]
    dst_port: Annotated[int, Meta(description="of the server")]
    protocol: _Protocol


class DnsAnswer(Struct, frozen=True):
    """One resource record."""

    name: Annotated[str, Meta(description="owner")]
    type: Annotated[str, Meta(description="record type")]
    ttl: Annotated[int, Meta(description="seconds")]
    data: Annotated[str, Meta(description="as in a zone file")]


class Dns(Struct, frozen=True):
    """One DNS question, with its response if there was one."""

    query: Annotated[str, Meta(description="name asked for")]
    qtype: Annotated[str, Meta(description="record type asked for")]
    rcode: Annotated[int | None, Meta(description="response code; null without a response")]
    latency_ns: _Latency
    answers: Annotated[tuple[DnsAnswer, ...], Meta(description="answer section")]
    time_ns: _Time
    retry: Annotated[bool, Meta(description="the same question was asked before on this flow, with the same id")]
    flow: FlowKey
    device: Annotated[str | UnsetType, Meta(description="only in live traffic: captures do not tell")] = UNSET


class Tls(Struct, frozen=True):
    """One TLS handshake."""

    sni: _Hello
    version: Annotated[str | None, Meta(description="the server's choice, else the highest that was offered")]
    alpn: _Alpn
    ja4: Annotated[str | None, Meta(description="fingerprint of the client; null if the hello was not there whole")]
    ech: _Ech
    cipher: Annotated[str | None, Meta(description="the server's choice")]
    alpn_chosen: Annotated[str | None, Meta(description="the server's choice")]
    ja4s: Annotated[str | None, Meta(description="fingerprint of the server, where asked for")]
    time_ns: _Time
    flow: FlowKey
    device: Annotated[str | UnsetType, Meta(description="only in live traffic: captures do not tell")] = UNSET


class Quic(Struct, frozen=True):
    """One QUIC handshake."""

    sni: _Hello
    version: Annotated[str, Meta(description='"1" or "2"')]
    alpn: _Alpn
    ja4: Annotated[str | None, Meta(description="fingerprint of the client")]
    ech: _Ech
    time_ns: _Time
    flow: FlowKey
    device: Annotated[str | UnsetType, Meta(description="only in live traffic: captures do not tell")] = UNSET


class Http(Struct, frozen=True):
    """One HTTP request, with its final status if that was seen."""

    method: Annotated[str | None, Meta(description="null: only the response was seen")]
    host: Annotated[str | None, Meta(description="host asked for")]
    path: Annotated[str | None, Meta(description="with its query; null where paths are left out")]
    status: Annotated[int | None, Meta(description="null: no response was seen")]
    latency_ns: _Latency
    version: Annotated[str, Meta(description='"1.0", "1.1" or "2"')]
    time_ns: _Time
    flow: FlowKey
    device: Annotated[str | UnsetType, Meta(description="only in live traffic: captures do not tell")] = UNSET


class Finding(Struct, frozen=True):
    """Something to know about the interval, and what to do."""

    kind: Annotated[str, Meta(description="what it is; these words stay")]
    severity: Annotated[
        Severity,
        Meta(description="fault: counts are wrong or lost; note: how to read them"),
    ]
    device: Annotated[str, Meta(description='"" if about all')]
    direction: Annotated[str, Meta(description='"" if about both')]
    reason: Annotated[
        str,
        Meta(
            description="of unattributed packets, which payloads were lost, why a reader ended, the MTU that "
            "super-packets exceed, the MSS that was assumed; else empty"
        ),
    ]
    packets: Annotated[int, Meta(description="how many it concerns; 0 where that has no number")]
    bytes: Annotated[int, Meta(description="the same")]
    text: Annotated[str, Meta(description="a line for people")]


class ProgramStats(Struct, frozen=True):
    """Cost of one program, from the kernel's BPF statistics."""

    device: _Device
    direction: _Direction
    run_ns: Annotated[int, Meta(description="nanoseconds since it was loaded")]
    runs: Annotated[int, Meta(description="how often it ran")]


class Health(Struct, frozen=True, kw_only=True):
    """The meter's own state at the end of the interval; counts are since it started."""

    flips: Annotated[int, Meta(description="how often the tables were read")]
    early_flips: Annotated[int, Meta(description="of them because a table was nearly full")]
    table_lines: Annotated[int, Meta(description="lines of one CPU's table")]
    table_peak_lines: Annotated[int, Meta(description="most in use in this interval")]
    table_bytes: Annotated[int, Meta(description="memory of all tables")]
    regions: Annotated[int, Meta(description="CPUs with a table")]
    drain_seconds: Annotated[float, Meta(description="reading and merging in this interval")]
    grace_seconds: Annotated[float, Meta(description="waiting for the kernel before reading, in this interval")]
    displaced: Annotated[tuple[str, ...], Meta(description='"device direction" where another program runs first')]
    attaching: Annotated[int, Meta(description="devices that match and wait to be attached")]
    clock_step_seconds: Annotated[float, Meta(description="by which the system's clock was set in this interval")]
    programs: Annotated[tuple[ProgramStats, ...], Meta(description="only with --bpf-stats")]
    payloads: Annotated[dict[str, int], Meta(description="payloads read for names, by source")]
    lost_payloads: Annotated[dict[str, int], Meta(description="payloads lost, by source")]
    reader_endings: Annotated[
        int, Meta(description="processes that read payloads and ended without being asked (docs/security.md)")
    ]


class Document(Struct, frozen=True, kw_only=True):
    """One batch. From `applications` on it holds what passes the filter; what is above is all traffic."""

    schema: Annotated[int, Meta(description="version of this definition")] = SCHEMA_VERSION
    source: Source
    mode: Annotated[Mode, Meta(description="as source.kind")]
    start_time: Annotated[str, Meta(description="RFC 3339, UTC, nanoseconds")]
    end_time: Annotated[str, Meta(description="the same")]
    seconds: Annotated[float, Meta(description="between the two")]
    balanced: Annotated[bool, Meta(description="whether every audit adds up")]
    seen: Annotated[
        Tally, Meta(description="all traffic: flows + families.non_ip + unattributed, exactly, packets and bytes")
    ]
    families: Annotated[
        dict[Literal["ipv4", "ipv6", "non_ip"], Tally],
        Meta(description="by the first IP header behind Ethernet and VLAN tags. Frames cut before it are in none"),
    ]
    protocols: Annotated[
        Protocols,
        Meta(description='by family and IP protocol number; "unknown" where the header is too damaged to tell'),
    ]
    ethertypes: Annotated[
        dict[str, Tally],
        Meta(
            description="frames that are not IP, by the type behind the VLAN tags, such as 0x0806; llc: an 802.3 "
            "length; none: neither; other: more types than the table had room for"
        ),
    ]
    unattributed: Annotated[dict[str, Tally], Meta(description="in no flow, by reason (docs/accounting.md)")]
    devices: Annotated[
        tuple[Device, ...], Meta(description="each device and direction; a capture counts as one device's rx")
    ]
    filter: Annotated[str, Meta(description='filter expression, "" if none')]
    applications: Annotated[
        tuple[NameSum, ...] | UnsetType, Meta(description="largest first; only where names are on")
    ] = UNSET
    applications_other: Annotated[NameSum | UnsetType, Meta(description="sum of those not shown")] = UNSET
    domains: Annotated[tuple[NameSum, ...] | UnsetType, Meta(description="the same, by domain")] = UNSET
    domains_other: Annotated[NameSum | UnsetType, Meta(description="sum of those not shown")] = UNSET
    dns_summary: Annotated[DnsSummary | UnsetType, Meta(description="only where names are on")] = UNSET
    hosts: Annotated[
        tuple[NameSum, ...] | UnsetType,
        Meta(description="flows by their other end (in captures by their source); only with --view hosts"),
    ] = UNSET
    hosts_other: Annotated[NameSum | UnsetType, Meta(description="sum of those not shown")] = UNSET
    flows_total: Annotated[int, Meta(description="flows in the interval")]
    flows_matched: Annotated[int, Meta(description="of them those that pass the filter")]
    matched: Annotated[Tally, Meta(description="sum of those")]
    matched_protocols: Annotated[
        Protocols | UnsetType, Meta(description="the same by protocol; only where a filter is set")
    ] = UNSET
    flows: Annotated[
        tuple[Flow, ...] | UnsetType,
        Meta(
            description="replay and simulate: all, by family, source, destination, protocol, ports and VLAN; "
            "live: the first --top in the order of --sort"
        ),
    ] = UNSET
    conversations: Annotated[tuple[Conversation, ...] | UnsetType, Meta(description="in their place if asked for")] = (
        UNSET
    )
    dns: Annotated[
        tuple[Dns, ...] | UnsetType,
        Meta(description="transactions of all flows in order of time; only where names are on, and not in live"),
    ] = UNSET
    tls: Annotated[tuple[Tls, ...] | UnsetType, Meta(description="the same, TLS")] = UNSET
    quic: Annotated[tuple[Quic, ...] | UnsetType, Meta(description="the same, QUIC")] = UNSET
    http: Annotated[tuple[Http, ...] | UnsetType, Meta(description="the same, HTTP")] = UNSET
    alarms: Annotated[tuple[Finding, ...], Meta(description="what to know about this interval, the worst first")]
    health: Annotated[Health | UnsetType, Meta(description="the meter itself; only in live traffic")] = UNSET
