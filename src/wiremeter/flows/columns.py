"""The columns of what a batch holds: dtypes of its arrays, and the numbers and words in them."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Direction = Literal["rx", "tx"]
Mode = Literal["live", "capture", "simulated"]
AttachMode = Literal["xdp", "xdp-generic", "tcx", "clsact", "capture", "none"]
TransactionKind = Literal["dns", "tls", "quic", "http"]
#: How addresses stand in a table: 16 bytes in network order, IPv4 as v4-mapped; as people write them; or as the Arrow
#: type flows.ip_type, whose values are `ipaddress` objects in Python.
AddressForm = Literal["bytes", "text", "ip"]

#: `protocol` of packets whose IP header was too damaged to name one.
PROTOCOL_UNKNOWN = 256
#: `vlan` of flows without a tag.
VLAN_NONE = 0xFFFF
#: `family` in counters: 4, 6, or 0 for frames that are not IP.
FAMILY_NAMES = {4: "ipv4", 6: "ipv6", 0: "non_ip"}

#: One row a flow. Addresses are 16 bytes in network order, IPv4 as v4-mapped; ports in host order, 0 where there
#: is none; `vlan` the outermost tag's id or VLAN_NONE; times in nanoseconds since the Unix epoch; `packets` and
#: `bytes` as on the wire, `skbs` as the kernel saw them; `tcp_flags` the OR of all flags seen (RFC 9293, 3.1).
#: `attachment` is an index into FlowBatch.attachments.
FLOW = np.dtype(
    [
        ("src_addr", "u1", (16,)),
        ("dst_addr", "u1", (16,)),
        ("src_port", "u2"),
        ("dst_port", "u2"),
        ("attachment", "u2"),
        ("vlan", "u2"),
        ("tcp_flags", "u2"),
        ("protocol", "u1"),
        ("family", "u1"),
        ("hash", "u4"),
        ("packets", "u8"),
        ("bytes", "u8"),
        ("skbs", "u8"),
        ("first_ns", "u8"),
        ("last_ns", "u8"),
    ]
)

#: One row for each attachment, family and protocol that was seen; families and protocols as above.
COUNTER = np.dtype(
    [
        ("attachment", "u2"),
        ("family", "u1"),
        ("protocol", "u2"),
        ("packets", "u8"),
        ("bytes", "u8"),
        ("skbs", "u8"),
    ]
)

#: One row for each attachment and ethertype of frames that are not IP. `ethertype` is the number on the wire;
#: ETHERTYPE_LLC for 802.3 length frames, ETHERTYPE_NONE on devices without one, ETHERTYPE_OTHER for frames whose
#: detail found no room in the table (their total is exact all the same).
ETHERTYPE_COUNTER = np.dtype(
    [("attachment", "u2"), ("ethertype", "u4"), ("packets", "u8"), ("bytes", "u8"), ("skbs", "u8")]
)
ETHERTYPE_LLC = 0x10000
ETHERTYPE_NONE = 0x10001
ETHERTYPE_OTHER = 0x10002

#: Connections that began: one row for each attachment and name. `attachment` is that of the connection's first packet,
#: so its direction says who opened it; `name` is an index into FlowBatch.names.
CONNECTIONS = np.dtype([("attachment", "u2"), ("name", "u4"), ("count", "u8")])


def address_text(address: bytes | NDArray[np.uint8]) -> str:
    """The usual text of a 16-byte address in network order; v4-mapped ones as IPv4 (RFC 4291, 2.5.5.2).

    >>> address_text(bytes.fromhex("00000000000000000000ffffc0000201"))
    '192.0.2.1'
    >>> address_text(bytes.fromhex("20010db8000000000000000000000001"))
    '2001:db8::1'
    """
    packed = bytes(address)
    if packed[:12] == b"\0" * 10 + b"\xff\xff":
        return str(ipaddress.IPv4Address(packed[12:]))
    return str(ipaddress.IPv6Address(packed))


def packet_address_text(address: bytes, family: int) -> str:
    """The text of an address of a packet of that family: in one of IPv6, a v4-mapped address is no IPv4 address.

    >>> mapped = bytes.fromhex("00000000000000000000ffffc0000201")
    >>> packet_address_text(mapped, 4), packet_address_text(mapped, 6)
    ('192.0.2.1', '::ffff:192.0.2.1')
    """
    return socket.inet_ntop(socket.AF_INET, address[12:]) if family == 4 else socket.inet_ntop(socket.AF_INET6, address)


def empty_rows(dtype: np.dtype[Any]) -> NDArray[np.void]:
    """No rows of `dtype`."""
    return np.zeros(0, dtype)
