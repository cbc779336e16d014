"""What clients send to servers in these tests: one table, used to prove the senders, then to prove the meter.

Frames made here go to a stranger's link address: the server's device takes them in, its host does not answer.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from . import frames, senders
from .devices import Port
from .wire import (
    ETH_P_8021AD,
    ETH_P_8021Q,
    ETH_P_ARP,
    ETH_P_IP,
    ETH_P_IPV6,
    FRAGMENT,
    ICMP,
    SCTP,
    UDP,
    UDPLITE,
    Conversation,
    Traffic,
)

Scenario = Callable[[Port, Port], Conversation]

VLAN = ((ETH_P_8021Q, 77),)
QINQ = ((ETH_P_8021AD, 7), (ETH_P_8021Q, 77))
TIMES = 300


def tcp_frame(client: Port, server: Port, tags: tuple[tuple[int, int], ...] = (), family: int = 4) -> bytes:
    """A TCP segment of 100 bytes."""
    packet = frames.tcp(client.address(family), 9000, server.address(family), 9001, bytes(100), flags=0x18)
    return frames.ethernet(frames.STRANGER, client.mac, frames.ethertype(packet), packet, tags)


def ip_frame(client: Port, server: Port, protocol: int, payload: bytes, options: bytes = b"") -> bytes:
    """An IPv4 packet of any protocol."""
    packet = frames.ip(client.ipv4, server.ipv4, protocol, payload, options=options)
    return frames.ethernet(frames.STRANGER, client.mac, ETH_P_IP, packet)


def ipv6_chain_frame(client: Port, server: Port) -> bytes:
    """UDP behind hop-by-hop options, destination options and the header of a first and only fragment (RFC 8200, 4)."""
    padding = bytes([1, 4, 0, 0, 0, 0])  # PadN
    datagram = struct.pack("!HHHH", 9002, 9003, 12, 0) + b"data"
    chain = bytes([60, 0]) + padding + bytes([FRAGMENT, 0]) + padding + struct.pack("!BBHI", UDP, 0, 0, 77)
    packet = frames.ip(client.address(6), server.address(6), 0, chain + datagram)
    return frames.ethernet(frames.STRANGER, client.mac, ETH_P_IPV6, packet)


def arp_frame(client: Port, server: Port) -> bytes:
    """An ARP reply (RFC 826), as short as it may be."""
    body = struct.pack("!HHBBH", 1, ETH_P_IP, 6, 4, 2) + frames.mac_bytes(client.mac) + bytes(4)
    return frames.ethernet(frames.STRANGER, client.mac, ETH_P_ARP, body + frames.mac_bytes(server.mac) + bytes(4))


def llc_frame(client: Port, server: Port) -> bytes:
    """An 802.3 frame: length and LLC header in place of an ethertype."""
    body = b"\x42\x42\x03" + bytes(35)
    return frames.ethernet(frames.STRANGER, client.mac, len(body), body)


def padded_frame(client: Port, server: Port) -> bytes:
    """A datagram of 1 byte, padded to the least length of an Ethernet frame: 60 bytes on the wire."""
    packet = frames.udp(client.ipv4, 9004, server.ipv4, 5001, b"x")
    return frames.ethernet(frames.STRANGER, client.mac, ETH_P_IP, packet).ljust(60, b"\0")


def broadcast_of(port: Port) -> str:
    """The broadcast address of the port's subnet."""
    return port.ipv4.rsplit(".", 1)[0] + ".255"


def _forth(send: Callable[[Port, Port], Traffic]) -> Scenario:
    """A scenario where only the client sends."""
    return lambda client, server: Conversation(send(client, server))


def _raw(make: Callable[[Port, Port], bytes], times: int = TIMES) -> Scenario:
    return _forth(lambda client, server: senders.raw_frames(client, make(client, server), times))


def _super(family: int, payload: int, size: int, tags: tuple[tuple[int, int], ...] = ()) -> Scenario:
    return _forth(
        lambda client, server: senders.vnet_frames(
            client, senders.super_packet(client, server, family, payload, size, tags=tags), 50
        )
    )


def _tcp(family: int, method: senders.Method = "send", size: int = 8_000_000) -> Scenario:
    return lambda client, server: senders.tcp_bulk(client, server, size, family=family, method=method)


#: Frames as they are: the bytes say what they count for.
RAW: dict[str, Scenario] = {
    "raw-tcp": _raw(tcp_frame),
    "raw-tcp-v6": _raw(lambda c, s: tcp_frame(c, s, family=6)),
    "raw-sctp": _raw(lambda c, s: ip_frame(c, s, SCTP, b"\x23\x28\x23\x29" + bytes(24))),
    "raw-udplite": _raw(lambda c, s: ip_frame(c, s, UDPLITE, b"\x23\x28\x23\x29\0\0\0\0" + bytes(24))),
    "raw-icmp": _raw(lambda c, s: ip_frame(c, s, ICMP, bytes(32))),
    "raw-unknown-protocol": _raw(lambda c, s: ip_frame(c, s, 253, bytes(32))),
    "raw-ipv4-options": _raw(lambda c, s: ip_frame(c, s, UDP, b"\x23\x28\x13\x89\0\x0c\0\0data", options=b"\x01" * 8)),
    "raw-ipv6-chain": _raw(ipv6_chain_frame),
    "raw-padded": _raw(padded_frame),
    "raw-arp": _raw(arp_frame),
    "raw-llc": _raw(llc_frame),
    "raw-vlan": _raw(lambda c, s: tcp_frame(c, s, VLAN)),
    "raw-vlan-v6": _raw(lambda c, s: tcp_frame(c, s, VLAN, family=6)),
    "raw-qinq": _raw(lambda c, s: tcp_frame(c, s, QINQ)),
    "tx-ring": _forth(lambda c, s: senders.tx_ring_frames(c, tcp_frame(c, s), 700)),
    "tx-ring-v6": _forth(lambda c, s: senders.tx_ring_frames(c, tcp_frame(c, s, family=6), 700)),
    "tx-ring-vlan": _forth(lambda c, s: senders.tx_ring_frames(c, tcp_frame(c, s, VLAN), 700)),
}

#: Datagrams by way of sockets.
DATAGRAMS: dict[str, Scenario] = {
    "udp-small": _forth(lambda c, s: senders.udp_packets(c, s.ipv4, TIMES)),
    "udp-small-v6": _forth(lambda c, s: senders.udp_packets(c, s.address(6), TIMES)),
    "udp-empty": _forth(lambda c, s: senders.udp_packets(c, s.ipv4, TIMES, 0)),
    "udp-sendmmsg": _forth(lambda c, s: senders.udp_sendmmsg(c, s.ipv4, 20_000)),
    "udp-fragments": _forth(lambda c, s: senders.udp_fragments(c, s.ipv4, 50, 20_000)),
    "udp-fragments-v6": _forth(lambda c, s: senders.udp_fragments(c, s.address(6), 50, 20_000)),
    "multicast": _forth(lambda c, _: senders.udp_packets(c, "239.77.0.1", TIMES)),
    "multicast-v6": _forth(lambda c, _: senders.udp_packets(c, "ff15::77", TIMES)),
    "broadcast": _forth(lambda c, _: senders.udp_packets(c, broadcast_of(c), TIMES)),
}

#: Super-packets: one kernel buffer is many packets on the wire.
SUPER: dict[str, Scenario] = {
    "udp-gso": _forth(lambda c, s: senders.udp_gso(c, s.ipv4, 50, 60_000, 1400)),
    "udp-gso-odd-v6": _forth(lambda c, s: senders.udp_gso(c, s.address(6), 50, 50_001, 1231)),
    "vnet-gso": _super(4, 14_480, 1000),
    "vnet-gso-v6": _super(6, 14_481, 1000),
    "vnet-gso-vlan": _super(4, 14_480, 1000, VLAN),
    "tcp": _tcp(4),
    "tcp-v6": _tcp(6),
    "tcp-sendfile": _tcp(4, "sendfile"),
    "tcp-splice": _tcp(4, "splice"),
}

SCENARIOS = {**RAW, **DATAGRAMS, **SUPER}
