"""What synthetic traffic consists of: the exchanges of each profile, as data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from wiremeter.errors import InputError
from wiremeter.settings.words import SimulatedProtocol

Sender = Literal["client", "server"]
Sources = Literal["hosts", "anywhere"]

#: As much payload as the MTU has room for.
FULL = 0xFFFF
#: `port` of exchanges of which each server listens on a port of its own.
OF_SERVER = -1

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10


class Step(NamedTuple):
    """One packet of an exchange; its payload has from `least` to `most` bytes, uniformly."""

    sender: Sender
    flags: int = 0
    least: int = 0
    most: int = 0


@dataclass(frozen=True, slots=True)
class Exchange:
    """A kind of conversation: `opening`, then `body` again and again (`rounds` times on average), then `closing`.

    share: weight in the number of conversations that begin. port: the server's. sources: the client is one of the
    hosts, or any of four million addresses. servers: at most so many, 0 for as many as there are.
    lasting: not 0: there are only so many conversations of this kind, which last as long as the simulation.
    Within a profile no two exchanges share protocol, port and sources, so that they never share a flow.
    """

    protocol: SimulatedProtocol
    port: int
    share: float
    opening: tuple[Step, ...] = ()
    body: tuple[Step, ...] = ()
    rounds: float = 0.0
    closing: tuple[Step, ...] = ()
    sources: Sources = "hosts"
    servers: int = 0
    lasting: int = 0

    @property
    def mean_packets(self) -> float:
        """Packets of one conversation, on average."""
        return len(self.opening) + len(self.body) * self.rounds + len(self.closing)


@dataclass(frozen=True, slots=True)
class Profile:
    """A kind of traffic. ipv6: part of the conversations that use IPv6, unless another is asked for."""

    name: str
    summary: str
    ipv6: float
    exchanges: tuple[Exchange, ...]


_HANDSHAKE = (Step("client", SYN), Step("server", SYN | ACK), Step("client", ACK))
_GOODBYE = (Step("client", FIN | ACK), Step("server", FIN | ACK), Step("client", ACK))
_DOWNLOAD = (Step("server", ACK, FULL, FULL), Step("server", ACK | PSH, 300, FULL), Step("client", ACK))


def _request(least: int, most: int) -> tuple[Step, ...]:
    return (Step("client", PSH | ACK, least, most), Step("server", ACK))


def _ask(query: tuple[int, int], answer: tuple[int, int]) -> tuple[Step, ...]:
    """A datagram and its answer."""
    return (Step("client", 0, *query), Step("server", 0, *answer))


_DNS = Exchange("udp", 53, 1, _ask((32, 60), (60, 480)))
_PING = Exchange("icmp", 0, 1, body=_ask((56, 56), (56, 56)), rounds=4)
_ARP = Exchange("arp", 0, 1, _ask((0, 0), (0, 0)))


def _at(exchange: Exchange, share: float) -> Exchange:
    return replace(exchange, share=share)


_ALL = (
    Profile(
        "web",
        "HTTPS and HTTP downloads, QUIC, and the DNS look-ups before them",
        0.3,
        (
            Exchange("tcp", 443, 6, _HANDSHAKE + _request(300, 900), _DOWNLOAD, 8, _GOODBYE),
            Exchange("tcp", 80, 1, _HANDSHAKE + _request(120, 700), _DOWNLOAD, 4, _GOODBYE),
            Exchange(
                "udp",
                443,
                2,
                _ask((1200, 1200), (1200, 1200)),
                (Step("server", 0, 900, 1350), Step("server", 0, 900, 1350), Step("client", 0, 30, 45)),
                10,
            ),
            _at(_DNS, 6),
            _at(_ARP, 0.3),
        ),
    ),
    Profile(
        "dns",
        "look-ups by the thousand, a few of them over TCP",
        0.2,
        (
            _at(_DNS, 40),
            Exchange("tcp", 53, 1, _HANDSHAKE + _request(32, 60), (Step("server", PSH | ACK, 600, FULL),), 2, _GOODBYE),
            Exchange("udp", 5353, 1, _ask((32, 60), (60, 300))),
            _at(_PING, 0.2),
        ),
    ),
    Profile(
        "syn-flood",
        "SYNs to one server from addresses that are never seen again, among a little ordinary traffic",
        0.0,
        (
            Exchange("tcp", 80, 200, (Step("client", SYN),), sources="anywhere", servers=1),
            Exchange("tcp", 443, 1, _HANDSHAKE + _request(300, 900), _DOWNLOAD, 2, _GOODBYE),
            _at(_DNS, 1),
        ),
    ),
    Profile(
        "elephant-and-mice",
        "four bulk transfers that carry nearly all bytes, and a swarm of short requests",
        0.25,
        (
            Exchange("tcp", 5201, 1, (), _DOWNLOAD, 300, lasting=4),
            Exchange(
                "tcp", 443, 12, _HANDSHAKE + _request(80, 500), (Step("server", PSH | ACK, 80, 1200),), 2, _GOODBYE
            ),
            _at(_DNS, 12),
        ),
    ),
    Profile(
        "many-small-flows",
        "datagrams between ever new pairs of ports, one to three a flow",
        0.25,
        (
            Exchange("udp", OF_SERVER, 20, (Step("client", 0, 20, 200),), (Step("client", 0, 20, 200),), 1),
            Exchange("tcp", OF_SERVER, 5, (Step("client", SYN), Step("server", RST | ACK))),
            _at(_DNS, 5),
        ),
    ),
    Profile(
        "iot",
        "small messages of many devices: MQTT, CoAP, NTP, pings and ARP",
        0.5,
        (
            Exchange("tcp", 1883, 1, _HANDSHAKE + _request(20, 60), _request(2, 120), 6, _GOODBYE),
            Exchange("udp", 5683, 6, _ask((8, 40), (4, 90))),
            Exchange("udp", 123, 2, _ask((48, 48), (48, 48))),
            _at(_DNS, 2),
            _at(_PING, 1),
            _at(_ARP, 2),
        ),
    ),
)

PROFILES = {profile.name: profile for profile in _ALL}


def find_profile(name: str) -> Profile:
    """The profile of that name. Raises InputError if there is none.

    >>> find_profile("dns").exchanges[0].port
    53
    """
    if name not in PROFILES:
        raise InputError(f"there is no profile {name!r}: it must be one of {', '.join(PROFILES)}")
    return PROFILES[name]
