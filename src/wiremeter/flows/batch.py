"""FlowBatch: everything the meter counted in one interval, as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wiremeter.flows import arrow
from wiremeter.flows.columns import CONNECTIONS, AddressForm, AttachMode, Direction, Mode, TransactionKind
from wiremeter.names.records import NAMELESS, FlowName, Transactions

if TYPE_CHECKING:
    import duckdb
    import pandas
    import polars
    import pyarrow as pa

    from wiremeter.flows.filter import Filter


class Tally(NamedTuple):
    """Wire packets, wire bytes and the kernel buffers that carried them."""

    packets: int = 0
    bytes: int = 0
    skbs: int = 0

    def plus(self, other: Tally) -> Tally:
        """The sum, field by field.

        >>> Tally(1, 60, 1).plus(Tally(2, 120, 1))
        Tally(packets=3, bytes=180, skbs=2)
        """
        return Tally(self.packets + other.packets, self.bytes + other.bytes, self.skbs + other.skbs)


@dataclass(frozen=True, slots=True)
class Attachment:
    """One program on one device in one direction; `id` is ours and stays while ifindex and name may change."""

    id: int
    device: str
    ifindex: int
    direction: Direction
    mode: AttachMode


@dataclass(frozen=True, slots=True)
class KernelCounters:
    """What the kernel's own device counters gained in the interval, by the driver's convention."""

    packets: int
    bytes: int
    drops: int
    convention: str


class Drop(NamedTuple):
    """What the kernel dropped at one place in the interval, by its own counter.

    place: "qdisc", on the way out, or "device", by its counters. cause: of a qdisc, which it is ("tbf"); of a device,
    its counter: "dropped", "missed" (no room in its ring), "nohandler" (a device that is inactive in its bond).
    packets: as that counter counts, so that a super-packet may count once.
    is_loss: whether somebody misses them. At rx the kernel counts as "dropped" also what no protocol of this host takes
    (STP, LLDP, VLANs of others), and on a bond's inactive device all broadcasts: ordinary hosts have these all day.
    """

    place: Literal["qdisc", "device"]
    cause: str
    packets: int
    is_loss: bool = True


@dataclass(frozen=True, slots=True)
class Audit:
    """seen = flows + non-IP + unattributed, for one device and direction and interval: nothing vanishes."""

    device: str
    direction: Direction
    seen: Tally
    flows: Tally
    non_ip: Tally
    unattributed: Mapping[str, Tally]
    kernel: KernelCounters | None = None
    #: packets by which the device counter differs from ours, by cause (metering.conventions.explain_difference).
    remainders: Mapping[str, int] = field(default_factory=dict)
    #: what the kernel dropped, one entry for each counter that could be read, 0 included.
    drops: tuple[Drop, ...] = ()
    #: kernel buffers that came past and were lost before they could be counted: `attach="capture"` alone can lose any.
    capture_dropped: int = 0

    @property
    def dropped(self) -> int:
        """Packets that the kernel dropped and somebody misses, all places together."""
        return sum(drop.packets for drop in self.drops if drop.is_loss)

    @property
    def missing(self) -> Tally:
        """seen − (flows + non-IP + unattributed): all zero, or the meter has a fault."""
        found = self.flows.plus(self.non_ip)
        for tally in self.unattributed.values():
            found = found.plus(tally)
        return Tally(*(a - b for a, b in zip(self.seen, found, strict=True)))

    @property
    def balanced(self) -> bool:
        """Whether nothing is missing."""
        return self.missing == Tally()


@dataclass(frozen=True, slots=True)
class ProgramStats:
    """Run time and count of one attached program, from the kernel's BPF statistics; since it was loaded."""

    device: str
    direction: Direction
    run_ns: int
    runs: int


@dataclass(frozen=True, slots=True)
class Health:
    """The meter's own state at the end of the interval. Counts are since the meter started."""

    flips: int = 0
    early_flips: int = 0
    table_lines: int = 0  # capacity of one CPU's region; an IPv4 flow takes one line, an IPv6 flow two
    table_peak_lines: int = 0  # most lines in use in any region read in this interval
    table_bytes: int = 0  # memory of all regions
    regions: int = 0  # CPUs with a region of their own
    drain_seconds: float = 0.0  # reading and merging in this interval, grace period excluded
    grace_seconds: float = 0.0  # waiting for RCU grace periods in this interval
    displaced: tuple[str, ...] = ()  # "device direction" where another program comes before ours
    attaching: int = 0  # devices that match and wait to be attached
    clock_step_seconds: float = 0.0  # by which the system's clock was set in this interval; times of the next have it
    programs: tuple[ProgramStats, ...] = ()  # only with BPF statistics on
    #: Payloads picked to read names from, by source (records.SOURCES of the datapath): those that arrived, and those
    #: that were lost because nobody took them in time; "transactions": told, and then without room in a batch;
    #: "unread": how often what had arrived found no room to wait for the rest, or was longer than is read; "names":
    #: those that went for want of room while there were flows to bear them. Empty where names are off.
    payloads: Mapping[str, int] = field(default_factory=dict)
    lost_payloads: Mapping[str, int] = field(default_factory=dict)
    #: Processes that read payloads and ended without being asked, and why the last one did.
    reader_endings: int = 0
    reader_fault: str = ""


@dataclass(frozen=True, slots=True)
class SuperPackets:
    """Packets of a capture that were several on the wire, which a file does not say; see captures.super_packets.

    mtu: bytes of the longest IP packet of the link, as far as the capture shows. counted_once: TCP's and UDP's that are
    longer and count as one each. computed: TCP's that were cut into segments of assumed_mss bytes, before that.
    """

    mtu: int
    counted_once: Tally
    computed: Tally
    assumed_mss: int | None = None


class Mark(NamedTuple):
    """How far pinned tables have been read, for the next agent to go on from.

    tables: which they are: another word after a reboot, or after they were taken away. flip: the last one in it; they
    are numbered. end_ns: when that was, nanoseconds since the Unix epoch.
    """

    tables: str
    flip: int
    end_ns: int


@dataclass(frozen=True, slots=True, eq=False)
class FlowBatch:
    """All that was counted between two flips.

    start_ns, end_ns: the interval, nanoseconds since the Unix epoch. Their difference is its length by the monotonic
    clock, also where the system's clock was set meanwhile (health.clock_step_seconds).
    attachments: indexed by the `attachment` column of the arrays.
    flows: shape (n,), dtype FLOW; one row a flow, all CPUs merged.
    counters: shape (k,), dtype COUNTER; IP traffic by family and protocol, and one row (0, 0) for all non-IP frames.
    ethertypes: shape (e,), dtype ETHERTYPE_COUNTER; the non-IP frames in detail.
    audit: one entry for each device and direction.
    names: what is known of conversations; names[0] of those of which nothing is.
    flow_names: shape (n,), uint32: each flow's index into `names`; None where names are off.
    connections: shape (c,), dtype CONNECTIONS; TCP connections and QUIC connections that began in the interval.
    transactions: the DNS questions, TLS and QUIC handshakes and HTTP requests that ended in the interval.
    super_packets: only of captures: those of the interval. Where it has an assumed_mss, packets and bytes are computed.
    mark: only of tables that are pinned: what Monitor.told wants to hear when the batch was told.
    """

    start_ns: int
    end_ns: int
    attachments: tuple[Attachment, ...]
    flows: NDArray[np.void]
    counters: NDArray[np.void]
    ethertypes: NDArray[np.void]
    audit: tuple[Audit, ...]
    health: Health = field(default_factory=Health)
    mode: Mode = "live"
    names: tuple[FlowName, ...] = (NAMELESS,)
    flow_names: NDArray[np.uint32] | None = None
    connections: NDArray[np.void] = field(default_factory=lambda: np.zeros(0, CONNECTIONS))
    transactions: Transactions = field(default_factory=Transactions)
    super_packets: SuperPackets | None = None
    mark: Mark | None = None

    @property
    def seconds(self) -> float:
        """Length of the interval in seconds."""
        return (self.end_ns - self.start_ns) / 1e9

    @property
    def name_indexes(self) -> NDArray[np.uint32]:
        """Each flow's index into `names`: shape (n,); all 0, of which nothing is known, where names are off."""
        return np.zeros(len(self.flows), np.uint32) if self.flow_names is None else self.flow_names

    def filter(self, expression: str | Filter) -> FlowBatch:
        """The batch with only those flows that match, such as "tcp and port 443"; see `wiremeter live --help`.

        What does not hang on single flows is of all traffic as before: counters, audit, connections, transactions.
        Raises FilterError, an InputError, for an expression that cannot be read.

        >>> from wiremeter import simulate
        >>> (batch,) = simulate("dns", seconds=1, packets_per_second=100)
        >>> len(batch.flows), len(batch.filter("icmp").flows), len(batch.filter("").flows)
        (94, 2, 94)
        """
        from wiremeter.flows.filter import compile_filter

        chosen = compile_filter(expression) if isinstance(expression, str) else expression
        if not chosen.text:
            return self
        mask = chosen.mask(self)
        names = None if self.flow_names is None else self.flow_names[mask]
        return replace(self, flows=self.flows[mask], flow_names=names)

    def to_arrow(self, addresses: AddressForm = "bytes") -> pa.Table:
        """The flows as a pyarrow Table, one row a flow.

        Columns: device and direction (dictionary of string), family, vlan (uint16, null without a tag), protocol,
        src_addr, dst_addr (fixed_size_binary(16); dictionary of string if `addresses` is "text"; if it is "ip" the
        extension type `wiremeter.ip`, whose values are `ipaddress` objects), ports, packets, bytes, skbs, tcp_flags,
        first_time and last_time (timestamp[ns, UTC]); and all of FlowName (text as dictionaries), null where names are
        off. Files of Arrow and Parquet keep the type `wiremeter.ip`; what does not know it has its 16 bytes. pyarrow
        does not sort or group by it: use bytes or text for that.
        Raises InputError if pyarrow is not installed, or for another form of addresses.
        """
        return arrow.flow_table(
            self.flows,
            devices=[attachment.device for attachment in self.attachments],
            directions=[attachment.direction for attachment in self.attachments],
            names=self.names,
            flow_names=self.flow_names,
            about=self._about,
            addresses=addresses,
        )

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The flows for all that reads Arrow's PyCapsule interface, such as `polars.DataFrame(batch)`."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def to_polars(self, addresses: AddressForm = "text") -> polars.DataFrame:
        """The flows as a Polars DataFrame, columns as to_arrow has them. Raises InputError without polars."""
        return arrow.needed("polars", "to_polars").from_arrow(self.to_arrow(addresses))  # type: ignore[no-any-return]

    def to_pandas(self, addresses: AddressForm = "text") -> pandas.DataFrame:
        """The flows as a pandas DataFrame, columns as to_arrow has them. Raises InputError without pandas."""
        arrow.needed("pandas", "to_pandas")
        return self.to_arrow(addresses).to_pandas()

    def to_duckdb(self, connection: duckdb.DuckDBPyConnection | None = None) -> duckdb.DuckDBPyRelation:
        """The flows as a DuckDB relation, which SQL can be asked of; addresses are text, so `src_addr::INET` works.

        connection: where, by default DuckDB's own in memory. Raises InputError without duckdb.
        """
        duckdb = arrow.needed("duckdb", "to_duckdb")
        table = self.to_arrow("text")
        return duckdb.from_arrow(table, connection=connection) if connection else duckdb.from_arrow(table)  # type: ignore[no-any-return]

    def transactions_to_arrow(self, kind: TransactionKind, addresses: AddressForm = "bytes") -> pa.Table:
        """The transactions of one kind as a pyarrow Table, one row each: the flow from client to server, and the
        fields of DnsTransaction, TlsHandshake, QuicHandshake or HttpTransaction.

        Columns of all: time (timestamp[ns, UTC]), device (dictionary of string), src_addr, dst_addr
        (fixed_size_binary(16), or string), src_port, dst_port, protocol, family.
        dns: query, qtype, rcode, latency_ns (int64), answers (list of struct: name, type, ttl in seconds, data), retry,
        has_query, cut. tls: sni, version, alpn (list), ja4, ech, cipher, alpn_chosen, ja4s. quic: sni, version, alpn,
        ja4, ech. http: version, method, host, path, status, latency_ns.
        Raises InputError if pyarrow is not installed.
        """
        return arrow.transaction_table(self.transactions, kind, about=self._about, addresses=addresses)

    @property
    def _about(self) -> dict[str, str]:
        about = {"mode": self.mode, "start_ns": str(self.start_ns), "end_ns": str(self.end_ns)}
        if self.super_packets and self.super_packets.assumed_mss:
            about["assumed_mss"] = str(self.super_packets.assumed_mss)
        return about
