"""The records of a region as dtypes: the mirror of bpf/records.h, checked against every object that is loaded."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from wiremeter.errors import InputError

TALLY = np.dtype([("packets", "u8"), ("bytes", "u8"), ("skbs", "u8")])

#: `unattributed` reasons by number (enum wm_reason).
REASONS = (
    "truncated_l2",
    "truncated_ip",
    "malformed_ip",
    "ip_extension_limit",
    "truncated_l4",
    "table_full",
    "no_region",
)
#: Why a payload is sent, by number (enum wm_source).
SOURCES = ("dns", "tls", "http", "quic", "first")
PROTOCOLS = 257
ROW_IPV4 = 0
ROW_IPV6 = PROTOCOLS
ROW_NON_IP = 2 * PROTOCOLS
ROW_UNATTRIBUTED = ROW_NON_IP + 1
ROWS = ROW_UNATTRIBUTED + len(REASONS)
COUNTERS = np.dtype(
    {"names": ["rows"], "formats": [(TALLY, (ROWS,))], "offsets": [0], "itemsize": -(-ROWS * 24 // 64) * 64}
)

REGION_HEADER = np.dtype(
    [
        ("entries", "u4"),
        ("lines_used", "u4"),
        ("flip_asked", "u4"),
        ("spread_mask", "u4"),
        ("payloads", "u4", (len(SOURCES),)),
        ("lost_payloads", "u4", (len(SOURCES),)),
        ("pad", "u4", (2,)),
    ]
)
LINE_BYTES = 64

CONTEXT_VLAN_SHIFT = 8
CONTEXT_V6_SHIFT = 21
CONTEXT_ATTACHMENT_SHIFT = 22
ATTACHMENTS_MAX = 1023
VLAN_NON_IP = 1
VLAN_TAGGED = 0x1000

_HEAD = np.dtype([("context", "u4"), ("src_port_be", "u2"), ("dst_port_be", "u2")])
_HOT = np.dtype([("packets", "u8"), ("bytes", "u8"), ("last", "u8")])
INSPECTION = np.dtype([("budget", "u1"), ("state", "u1")])
_COLD = np.dtype([("merged", "u8"), ("first", "u8"), ("hash", "u4"), ("tcp_flags", "u2"), ("inspection", INSPECTION)])
FLOW4 = np.dtype([("head", _HEAD), ("src_addr_be", "u4"), ("dst_addr_be", "u4"), ("hot", _HOT), ("cold", _COLD)])
FLOW6 = np.dtype(
    [
        ("head", _HEAD),
        ("src_addr_be", "u8", (2,)),
        ("dst_addr_be", "u8", (2,)),
        ("hot", _HOT),
        ("second_line", "u8"),
        ("cold", _COLD),
        ("pad", "u8", (4,)),
    ]
)
HASH_KEYS = 10
TABLE_SHAPE = np.dtype(
    [
        ("touched_offset", "u4"),
        ("lines_offset", "u4"),
        ("lines_mask", "u4"),
        ("pad", "u4"),
        ("hash_keys", "u8", (HASH_KEYS,)),
    ]
)
#: What the entry programs have in place of an IDENTITY until a copy is made for an attachment.
IDENTITY_MARK = 0x574D4944
IDENTITY = np.dtype([("attachment", "u2"), ("has_ethernet", "u1"), ("is_ingress", "u1")])
CLOCK_READING = np.dtype([("ticks", "u8"), ("monotonic_ns", "u8")])
TEST_PACKET = np.dtype([("time_ns", "u8"), ("wire_bytes", "u4")])
#: The head of a payload's record; `captured` bytes follow it.
PAYLOAD = np.dtype(
    [
        ("time_ns", "u8"),
        ("src_addr", "u1", (16,)),
        ("dst_addr", "u1", (16,)),
        ("src_port", "u2"),
        ("dst_port", "u2"),
        ("seq", "u4"),
        ("bytes", "u4"),
        ("captured", "u2"),
        ("attachment", "u2"),
        ("tcp_flags", "u2"),
        ("protocol", "u1"),
        ("family", "u1"),
        ("source", "u1"),
        ("pad", "u1", (3,)),
    ]
)
PAYLOAD_BYTES_MAX = 4096


def source_bits(sources: Collection[str]) -> int:
    """Sources of payloads as the bits that programs go by."""
    return sum(1 << SOURCES.index(source) for source in sources)


RECENT_FLOWS = 1 << 16
_RECENT_FLOW = np.dtype([("hash", "u4"), ("age", "u2"), ("inspection", INSPECTION)])
RECENT = np.dtype(
    [("tick", "u8"), ("started", "u4", (2,)), ("fragments", "u4", (64,)), ("flows", _RECENT_FLOW, (RECENT_FLOWS,))]
)
FLIP_REQUEST = np.dtype([("cpu", "u4"), ("epoch", "u4")])

STRUCTS = {
    "wm_tally": TALLY,
    "wm_counters": COUNTERS,
    "wm_region_header": REGION_HEADER,
    "wm_flow_head": _HEAD,
    "wm_flow_hot": _HOT,
    "wm_flow_cold": _COLD,
    "wm_flow4": FLOW4,
    "wm_flow6": FLOW6,
    "wm_table_shape": TABLE_SHAPE,
    "wm_identity": IDENTITY,
    "wm_clock_reading": CLOCK_READING,
    "wm_flip_request": FLIP_REQUEST,
    "wm_payload": PAYLOAD,
    "wm_recent": RECENT,
}


#: What of the records is in no struct: how a context is put together, and where things are in a line.
CONSTANTS = {
    "vlan_shift": CONTEXT_VLAN_SHIFT,
    "v6_shift": CONTEXT_V6_SHIFT,
    "attachment_shift": CONTEXT_ATTACHMENT_SHIFT,
    "vlan_non_ip": VLAN_NON_IP,
    "vlan_tagged": VLAN_TAGGED,
    "line_bytes": LINE_BYTES,
    "protocols": PROTOCOLS,
}


def described() -> dict[str, Any]:
    """The layout of all records as plain values: what the BTF of every object that is loaded says as well."""
    structs = {name: _layout(dtype) for name, dtype in STRUCTS.items()}
    return {"structs": structs, "reasons": list(REASONS), "sources": list(SOURCES), "constants": CONSTANTS}


def dtype_described(layout: list[Any]) -> np.dtype[Any]:
    """The dtype of a struct in `described`, perhaps one that other sources had. Raises ValueError or TypeError."""
    itemsize, *members = layout
    return np.dtype(
        {
            "names": [name for name, *_ in members],
            "formats": [
                (dtype_described(of) if isinstance(of, list) else np.dtype(f"u{of}"), tuple(shape))
                for _, _, shape, of in members
            ],
            "offsets": [offset for _, offset, *_ in members],
            "itemsize": itemsize,
        }
    )


def check_against_btf(btf: Any, origin: str) -> None:
    """Compares every struct and the reasons with a compiled object's BTF (wiremeter.libbpf.btf.Btf).

    Raises InputError naming the first difference: such an object must not be read with these dtypes.
    """
    for name, expected in STRUCTS.items():
        found = btf.dtype(name)
        if _layout(found) != _layout(expected):
            raise InputError(
                f"struct {name} in {origin} is not the one this wiremeter reads: {_layout(found)} there, "
                f"{_layout(expected)} here. Build both from the same sources: `make build`"
            )
    for enum, prefix, here in (("wm_reason", "WM_", REASONS), ("wm_source", "WM_SOURCE_", SOURCES)):
        there = [k.removeprefix(prefix).lower() for k, _ in sorted(btf.enum(enum).items(), key=lambda i: i[1])]
        if tuple(there[:-1]) != here:
            raise InputError(f"enum {enum} in {origin} is {there}, here {here}. Build both from the same sources")


def _layout(dtype: np.dtype[Any]) -> list[Any]:
    """Names, offsets, sizes, flattened: what two equal layouts share however they were written."""
    rows: list[Any] = [dtype.itemsize]
    for name in dtype.names or ():
        field, offset = dtype.fields[name][:2]  # type: ignore[index]
        base = field.base
        rows.append((name, offset, field.shape, _layout(base) if base.names else base.itemsize))
    return rows
