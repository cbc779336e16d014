"""Names of IP protocols and ethertypes, the same in metrics, JSON and on screen."""

from __future__ import annotations

from wiremeter.flows.columns import ETHERTYPE_LLC, ETHERTYPE_NONE, ETHERTYPE_OTHER, PROTOCOL_UNKNOWN

# IANA "Protocol Numbers", shortened where the registry's keyword is not the name people use.
_PROTOCOLS = {
    0: "hopopt",
    1: "icmp",
    2: "igmp",
    4: "ipip",
    6: "tcp",
    8: "egp",
    17: "udp",
    33: "dccp",
    41: "ipv6",
    43: "ipv6_route",
    44: "ipv6_frag",
    46: "rsvp",
    47: "gre",
    50: "esp",
    51: "ah",
    58: "icmpv6",
    59: "ipv6_nonxt",
    60: "ipv6_opts",
    88: "eigrp",
    89: "ospf",
    94: "ipip94",
    97: "etherip",
    103: "pim",
    108: "ipcomp",
    112: "vrrp",
    115: "l2tp",
    132: "sctp",
    135: "mobility",
    136: "udplite",
    137: "mpls_in_ip",
    139: "hip",
    140: "shim6",
    143: "ethernet",
    PROTOCOL_UNKNOWN: "unknown",
}
_NUMBERS = {name: number for number, name in _PROTOCOLS.items() if number != PROTOCOL_UNKNOWN} | {"icmp6": 58}

# IEEE "EtherType" registry; the last three are ours, for frames that carry no usable ethertype.
_ETHERTYPES = {
    0x0806: "arp",
    0x0842: "wake_on_lan",
    0x8035: "rarp",
    0x8100: "vlan",
    0x8137: "ipx",
    0x8809: "slow",
    0x8847: "mpls",
    0x8848: "mpls_multicast",
    0x8863: "pppoe_discovery",
    0x8864: "pppoe",
    0x888E: "eapol",
    0x88A2: "aoe",
    0x88A8: "vlan_service",
    0x88CC: "lldp",
    0x88E5: "macsec",
    0x88F7: "ptp",
    0x8906: "fcoe",
    0x8914: "fcoe_init",
    0x8915: "roce",
    0x9000: "loopback_test",
    ETHERTYPE_LLC: "llc",
    ETHERTYPE_NONE: "none",
    ETHERTYPE_OTHER: "other",
}


def protocol_name(number: int) -> str:
    """The name of an IP protocol, or its number as text where it has no usual name.

    >>> protocol_name(6), protocol_name(58), protocol_name(200), protocol_name(256)
    ('tcp', 'icmpv6', '200', 'unknown')
    """
    return _PROTOCOLS.get(number, str(number))


def protocol_number(name: str) -> int | None:
    """The number of a protocol given by name or number; None if there is no such protocol.

    >>> protocol_number("gre"), protocol_number("icmp6"), protocol_number("47"), protocol_number("300")
    (47, 58, 47, None)
    """
    if name.isascii() and name.isdigit():
        number = int(name)
        return number if number <= 255 else None
    return _NUMBERS.get(name.lower())


def ethertype_name(ethertype: int) -> str:
    """The name of an ethertype, or its number in hexadecimal where it has no usual name.

    >>> ethertype_name(0x0806), ethertype_name(0x1234)
    ('arp', '0x1234')
    """
    return _ETHERTYPES.get(ethertype, f"0x{ethertype:04x}")
