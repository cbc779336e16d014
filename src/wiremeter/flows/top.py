"""What a batch says at a glance: device rates and their history, top flows, top conversations, top protocols."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wiremeter.errors import InputError
from wiremeter.flows.batch import Audit, FlowBatch, Tally
from wiremeter.flows.columns import FAMILY_NAMES, AttachMode, Direction, empty_rows
from wiremeter.flows.protocols import ethertype_name, protocol_name
from wiremeter.settings.words import SORT_KEYS, SortKey

#: What protocols can be sorted by.
Amount = Literal["bytes", "packets"]

#: One row a conversation: a flow and its reverse on one device. `local` is the side of the device: the source of
#: what it sends, the destination of what it receives; in captures, which do not tell, the end that sent first.
#: `attachment` is that of one of the two flows; `name` is an index into FlowBatch.names.
CONVERSATION = np.dtype(
    [
        ("local_addr", "u1", (16,)),
        ("remote_addr", "u1", (16,)),
        ("local_port", "u2"),
        ("remote_port", "u2"),
        ("attachment", "u2"),
        ("vlan", "u2"),
        ("tcp_flags", "u2"),
        ("protocol", "u1"),
        ("family", "u1"),
        ("rx_packets", "u8"),
        ("rx_bytes", "u8"),
        ("rx_skbs", "u8"),
        ("tx_packets", "u8"),
        ("tx_bytes", "u8"),
        ("tx_skbs", "u8"),
        ("first_ns", "u8"),
        ("last_ns", "u8"),
        ("name", "u4"),
    ]
)

_NEVER = np.uint64((1 << 64) - 1)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, its bits well mixed: 2^64 divided by the golden ratio

_Column = Callable[[NDArray[np.intp]], NDArray[np.unsignedinteger]]


@dataclass(frozen=True, slots=True)
class DeviceRate:
    """One device and direction in one interval; packets and bits as on the wire."""

    device: str
    direction: Direction
    mode: AttachMode
    packets_per_second: float
    bits_per_second: float
    skbs_per_second: float
    audit: Audit
    ns_per_run: float | None = None  # mean cost of the program since it was loaded, only with BPF statistics on


@dataclass(frozen=True, slots=True)
class ProtocolTotal:
    """What one protocol (or, for frames that are not IP, one ethertype) carried in one interval."""

    family: str
    protocol: str
    tally: Tally


# --- devices


def device_rates(batch: FlowBatch) -> tuple[DeviceRate, ...]:
    """The rate of each device and direction that is attached or was seen, rx before tx, devices in batch order."""
    audits = {(audit.device, audit.direction): audit for audit in batch.audit}
    modes: dict[tuple[str, Direction], AttachMode] = {(a.device, a.direction): a.mode for a in batch.attachments}
    keys = [*modes, *(key for key in audits if key not in modes)]
    order = {device: at for at, device in enumerate(dict.fromkeys(device for device, _ in keys))}
    per_second = 1 / batch.seconds if batch.seconds > 0 else 0.0
    costs = {(p.device, p.direction): p.run_ns / p.runs for p in batch.health.programs if p.runs}
    rates = []
    for key in sorted(keys, key=lambda key: (order[key[0]], key[1])):
        device, direction = key
        audit = audits.get(key) or Audit(device, direction, Tally(), Tally(), Tally(), {})
        rates.append(
            DeviceRate(
                device,
                direction,
                modes.get(key, "none"),
                audit.seen.packets * per_second,
                audit.seen.bytes * 8 * per_second,
                audit.seen.skbs * per_second,
                audit,
                costs.get(key),
            )
        )
    return tuple(rates)


class History:
    """The last rates of each device and direction, in bits per second; a ring of `length` intervals each.

    A device that is gone counts as 0, and is forgotten when nothing but that is left.
    """

    def __init__(self, length: int = 60) -> None:
        self.length = length
        self._rings: dict[tuple[str, Direction], deque[float]] = {}

    def add(self, rates: Iterable[DeviceRate]) -> None:
        """Append one interval."""
        now = {(rate.device, rate.direction): rate.bits_per_second for rate in rates}
        for key in {**self._rings, **now}:
            ring = self._rings.setdefault(key, deque(maxlen=self.length))
            ring.append(now.get(key, 0.0))
            if key not in now and not any(ring):
                del self._rings[key]

    def of(self, device: str, direction: Direction) -> NDArray[np.float64]:
        """The history of one device and direction: shape (n,), n ≤ length, bits per second, oldest first."""
        return np.array(self._rings.get((device, direction), ()), np.float64)


# --- flows and conversations


def top_flow_indexes(
    batch: FlowBatch,
    n: int,
    by: SortKey = "bytes",
    *,
    mask: NDArray[np.bool_] | None = None,
    reverse: bool = False,
) -> NDArray[np.intp]:
    """Where the first `n` flows in the order of `by` stand in batch.flows: shape (≤ n,).

    mask: shape (len(batch.flows),); only flows where it is set are looked at.
    reverse: the other end of the order.
    Equal ones are ordered by their keys, so the answer does not depend on the order of rows in the batch.
    Raises InputError if `by` is none of SORT_KEYS.
    """
    flows, names = batch.flows, batch.name_indexes
    amounts = {"bytes": ("bytes",), "packets": ("packets",)}
    rows = np.arange(len(flows)) if mask is None else np.flatnonzero(mask)
    columns = _columns(flows, by, amounts, ("src", "dst"), reverse, domain=lambda at: _domain_order(batch)[names[at]])
    return _first(columns, rows, n)


def flow_order(flows: NDArray[np.void], mask: NDArray[np.bool_] | None = None) -> NDArray[np.intp]:
    """Where flows stand, by family, source, destination, protocol, ports and VLAN, whatever engine counted them.

    flows: dtype FLOW. mask: shape (len(flows),); only flows where it is set.
    """
    rows = np.arange(len(flows)) if mask is None else np.flatnonzero(mask)
    flows = flows[rows]
    source, destination = (np.ascontiguousarray(flows[name]).view(">u8") for name in ("src_addr", "dst_addr"))
    keys = (
        *(flows[name] for name in ("attachment", "vlan", "dst_port", "src_port", "protocol")),
        *(destination[:, 1], destination[:, 0], source[:, 1], source[:, 0]),
        flows["family"],
    )
    ordered: NDArray[np.intp] = rows[np.lexsort(keys)]
    return ordered


def top_conversations(
    batch: FlowBatch,
    n: int,
    by: SortKey = "bytes",
    *,
    mask: NDArray[np.bool_] | None = None,
    reverse: bool = False,
) -> NDArray[np.void]:
    """The first `n` conversations in the order of `by`, amounts of both directions: shape (≤ n,), dtype CONVERSATION.

    A conversation is a flow and its reverse on the same device and VLAN, or one of them where the other is not there
    or not looked at. mask, reverse: as for top_flow_indexes. `source` sorts by the local address, `destination` by the
    remote one.
    """
    rows = np.arange(len(batch.flows)) if mask is None else np.flatnonzero(mask)
    if by in ("bytes", "packets") and not reverse:
        rows = _of_largest_conversations(batch, rows, n, by)
    pairs = _join(batch, rows)
    amounts = {"bytes": ("rx_bytes", "tx_bytes"), "packets": ("rx_packets", "tx_packets")}
    names = pairs["name"]
    columns = _columns(
        pairs, by, amounts, ("local", "remote"), reverse, domain=lambda at: _domain_order(batch)[names[at]]
    )
    return pairs[_first(columns, np.arange(len(pairs)), n)]


def is_rx(batch: FlowBatch) -> NDArray[np.bool_]:
    """Whether each attachment is of direction rx: shape (len(batch.attachments),)."""
    return np.array([a.direction == "rx" for a in batch.attachments], np.bool_)


def _of_largest_conversations(batch: FlowBatch, rows: NDArray[np.intp], n: int, by: Amount) -> NDArray[np.intp]:
    """Those of `rows` that belong to the `n` largest conversations, or to one as large as the last of them."""
    if len(rows) <= n or n <= 0:
        return rows
    order, starts = group_rows(_conversation_keys(batch, rows))
    sums = np.add.reduceat(batch.flows[by][rows][order], starts)
    if len(sums) <= n:
        return rows
    large = sums >= np.partition(sums, len(sums) - n)[len(sums) - n]
    lengths = np.diff(starts, append=len(order))
    selected: NDArray[np.intp] = rows[order[np.repeat(large, lengths)]]
    return selected


def _join(batch: FlowBatch, rows: NDArray[np.intp]) -> NDArray[np.void]:
    if not len(rows):
        return empty_rows(CONVERSATION)
    flows = batch.flows[rows]
    order, starts = group_rows(_conversation_keys(batch, rows))
    flows = flows[order]
    received = _received(batch, flows)
    first, first_is_rx = flows[starts], received[starts]
    pairs = np.zeros(len(starts), CONVERSATION)
    for side, from_rx, from_tx in (("local", "dst", "src"), ("remote", "src", "dst")):
        rx, tx = f"{from_rx}_addr", f"{from_tx}_addr"
        pairs[f"{side}_addr"] = np.where(first_is_rx[:, None], first[rx], first[tx])
        pairs[f"{side}_port"] = np.where(first_is_rx, first[f"{from_rx}_port"], first[f"{from_tx}_port"])
    for name in ("attachment", "vlan", "protocol", "family"):
        pairs[name] = first[name]
    for name in ("packets", "bytes", "skbs"):
        pairs[f"rx_{name}"] = np.add.reduceat(np.where(received, flows[name], 0), starts)
        pairs[f"tx_{name}"] = np.add.reduceat(np.where(received, 0, flows[name]), starts)
    pairs["tcp_flags"] = np.bitwise_or.reduceat(flows["tcp_flags"], starts)
    pairs["first_ns"] = np.minimum.reduceat(flows["first_ns"], starts)
    pairs["last_ns"] = np.maximum.reduceat(flows["last_ns"], starts)
    # Both flows have the same name; should one have none yet (0), the other's holds.
    pairs["name"] = np.maximum.reduceat(batch.name_indexes[rows][order], starts)
    if batch.mode != "live":
        began = np.minimum.reduceat(np.where(received, _NEVER, flows["first_ns"]), starts)
        _turn_round(pairs, began > pairs["first_ns"])
    return pairs


def _received(batch: FlowBatch, flows: NDArray[np.void]) -> NDArray[np.bool_]:
    """Whether each of some flows came in, shape (len(flows),).

    Captures have one direction for all: there it is the half of a conversation whose source is the greater end.
    """
    if batch.mode == "live":
        received: NDArray[np.bool_] = is_rx(batch)[flows["attachment"]]
        return received
    ends = [
        (
            np.ascontiguousarray(flows["src_addr"]).view(">u8")[:, half],
            np.ascontiguousarray(flows["dst_addr"]).view(">u8")[:, half],
        )
        for half in (0, 1)
    ]
    greater, equal = np.zeros(len(flows), np.bool_), np.ones(len(flows), np.bool_)
    for source, destination in (*ends, (flows["src_port"], flows["dst_port"])):
        greater |= equal & (source > destination)
        equal &= source == destination
    return greater


def _turn_round(pairs: NDArray[np.void], which: NDArray[np.bool_]) -> None:
    """Makes the local end of some conversations the remote one."""
    for one, other in (
        *((f"local_{name}", f"remote_{name}") for name in ("addr", "port")),
        *((f"rx_{name}", f"tx_{name}") for name in ("packets", "bytes", "skbs")),
    ):
        turned = pairs[which]
        pairs[one][which], pairs[other][which] = turned[other], turned[one]


def _domain_order(batch: FlowBatch) -> NDArray[np.uint32]:
    """The place of each of batch.names in the order of domains; those without one stand last."""
    places = {domain: at for at, domain in enumerate(sorted({n.domain for n in batch.names if n.domain is not None}))}
    return np.array([len(places) if n.domain is None else places[n.domain] for n in batch.names], np.uint32)


def _conversation_keys(batch: FlowBatch, rows: NDArray[np.intp]) -> list[NDArray[np.uint64]]:
    """What a flow and its reverse have in common, as columns of shape (len(rows),)."""
    flows = batch.flows[rows]
    received = _received(batch, flows)
    numbers: dict[str, int] = {}
    device_of = np.array([numbers.setdefault(a.device, len(numbers)) for a in batch.attachments], "u8")
    src = np.ascontiguousarray(flows["src_addr"]).view("u8")
    dst = np.ascontiguousarray(flows["dst_addr"]).view("u8")
    local = np.where(received[:, None], dst, src)
    remote = np.where(received[:, None], src, dst)
    local_port = np.where(received, flows["dst_port"], flows["src_port"]).astype("u8")
    remote_port = np.where(received, flows["src_port"], flows["dst_port"]).astype("u8")
    place = device_of[flows["attachment"]] << np.uint64(16) | flows["vlan"]
    kind = flows["protocol"].astype("u8") << np.uint64(8) | flows["family"]
    ends = local_port << np.uint64(48) | remote_port << np.uint64(32) | place
    return [local[:, 0], local[:, 1], remote[:, 0], remote[:, 1], ends, kind]


def group_rows(keys: Sequence[NDArray[np.uint64]]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Sort rows so that equal keys are neighbours: (order, where in it each group starts).

    Sorting one hash is several times faster than sorting six columns; should two keys share a hash, the columns decide.
    """
    hashes = np.zeros(len(keys[0]), "u8")
    for key in keys:
        hashes = (hashes ^ key) * _MULTIPLIER
        hashes ^= hashes >> np.uint64(32)
    order = np.argsort(hashes, kind="stable")
    same = hashes[order][1:] == hashes[order][:-1]
    if not _all_equal(keys, order[1:][same], order[:-1][same]):
        order = np.lexsort(list(keys))
        same = np.all([key[order][1:] == key[order][:-1] for key in keys], axis=0)
    return order, np.flatnonzero(np.concatenate([[True], ~same]))


def _all_equal(keys: Sequence[NDArray[np.uint64]], rows: NDArray[np.intp], others: NDArray[np.intp]) -> bool:
    return all(bool(np.array_equal(key[rows], key[others])) for key in keys)


def _columns(
    rows: NDArray[np.void],
    by: SortKey,
    amounts: Mapping[str, tuple[str, ...]],
    sides: tuple[str, str],
    reverse: bool,
    *,
    domain: _Column,
) -> list[_Column]:
    """The columns that put `rows` in order, most significant first, each ascending."""

    def amount(names: tuple[str, ...]) -> _Column:
        return lambda at: sum((rows[name][at] for name in names[1:]), rows[names[0]][at])

    def address(side: str, half: int) -> _Column:
        return lambda at: rows[f"{side}_addr"][at].view(">u8")[:, half].astype("u8")

    def plain(name: str) -> _Column:
        return lambda at: rows[name][at]

    def ends(*order: str) -> list[_Column]:
        return [column for s in order for column in (address(s, 0), address(s, 1), plain(f"{s}_port"))]

    largest = _descending(amount(amounts["packets" if by == "packets" else "bytes"]))
    source, destination = sides
    places = [plain(name) for name in ("protocol", "attachment", "vlan")]
    match by:
        case "bytes" | "packets":
            first, ties = [largest], [*ends(source, destination), *places]
        case "source":
            first, ties = ends(source), [largest, *ends(destination), *places]
        case "destination":
            first, ties = ends(destination), [largest, *ends(source), *places]
        case "protocol":
            first, ties = [plain("protocol")], [largest, *ends(source, destination), *places]
        case "domain":
            first, ties = [domain], [largest, *ends(source, destination), *places]
        case _:
            raise InputError(f'cannot sort by "{by}"; expected one of {", ".join(SORT_KEYS)}')
    return [*(map(_descending, first) if reverse else first), *ties]


def _descending(column: _Column) -> _Column:
    return lambda at: ~column(at)


def _first(columns: Sequence[_Column], rows: NDArray[np.intp], n: int) -> NDArray[np.intp]:
    """The first `n` of `rows` in lexicographic order of `columns`, without sorting the others.

    Each column in turn settles what lies clearly before its n-th value; only the ties go on to the next.
    """
    chosen = [rows[:0]]
    open_rows, places = rows, max(n, 0)
    for column in columns:
        if len(open_rows) <= places or not places:
            break
        values = column(open_rows)
        limit = np.partition(values, places - 1)[places - 1]
        chosen.append(open_rows[values < limit])
        places -= len(chosen[-1])
        open_rows = open_rows[values == limit]
    picked = np.concatenate([*chosen, open_rows[:places]])
    return picked[np.lexsort([column(picked) for column in reversed(columns)])]


# --- protocols


def top_protocols(batch: FlowBatch, by: Amount = "bytes", *, device: str | None = None) -> list[ProtocolTotal]:
    """All traffic by family and protocol, largest first; frames that are not IP by ethertype. From the counters, so
    it is exact also for packets that are in no flow.

    device: only this one.
    """
    wanted = np.array([device in (None, a.device) for a in batch.attachments], np.bool_)
    totals: dict[tuple[str, str], Tally] = {}
    for row in batch.counters:
        if wanted[row["attachment"]] and row["family"]:
            _add(totals, FAMILY_NAMES[int(row["family"])], protocol_name(int(row["protocol"])), row)
    for row in batch.ethertypes:
        if wanted[row["attachment"]]:
            _add(totals, FAMILY_NAMES[0], ethertype_name(int(row["ethertype"])), row)
    return _largest(totals, by)


def protocols_of_flows(batch: FlowBatch, mask: NDArray[np.bool_], by: Amount = "bytes") -> list[ProtocolTotal]:
    """Like top_protocols, for the flows where `mask` (shape (len(batch.flows),)) is set."""
    kinds = batch.flows["family"].astype("u2") << 8 | batch.flows["protocol"]
    totals: dict[tuple[str, str], Tally] = {}
    for kind in np.flatnonzero(np.bincount(kinds[mask])):
        name = (FAMILY_NAMES[int(kind) >> 8], protocol_name(int(kind) & 0xFF))
        totals[name] = tally_of(batch.flows, mask & (kinds == kind))
    return _largest(totals, by)


def tally_of(rows: NDArray[np.void], mask: NDArray[np.bool_] | None = None) -> Tally:
    """The sum of rows with `packets`, `bytes` and `skbs`, of those where `mask` is set if it is given."""
    chosen = slice(None) if mask is None else mask
    return Tally(*(int(rows[name][chosen].sum()) for name in Tally._fields))


def _add(totals: dict[tuple[str, str], Tally], family: str, protocol: str, row: np.void) -> None:
    tally = Tally(int(row["packets"]), int(row["bytes"]), int(row["skbs"]))
    totals[family, protocol] = totals.get((family, protocol), Tally()).plus(tally)


def _largest(totals: dict[tuple[str, str], Tally], by: Amount) -> list[ProtocolTotal]:
    found = [ProtocolTotal(family, protocol, tally) for (family, protocol), tally in totals.items() if tally.packets]
    found.sort(key=lambda total: (-getattr(total.tally, by), total.family, total.protocol))
    return found
