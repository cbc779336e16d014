"""Three agents' traffic with known totals, as agents send it: what the page is shown with, in tests and in pictures."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from unit.live_batches import flow, make_batch, packed
from unit.server.running import RunningServer
from wiremeter.flows.batch import FlowBatch, Tally
from wiremeter.names.records import (
    DnsAnswer,
    DnsTransaction,
    FlowKey,
    FlowName,
    HttpTransaction,
    QuicHandshake,
    TlsHandshake,
    Transactions,
)
from wiremeter.shipment.heartbeat import Device, Heartbeat, Host, Spool, Told, to_json
from wiremeter.shipment.identity import About, Identity
from wiremeter.sinks.shipping.encode import encode

S_NS = 10**9
MINUTE_NS = 60 * S_NS
BOOT = str(uuid.UUID(int=9))


@dataclass(frozen=True, slots=True)
class Peer:
    """A service that an agent's host talks to. megabytes: in a usual minute, to and from it."""

    agent: str
    own: str
    server: str
    port: int
    name: FlowName
    megabytes: tuple[float, float]
    protocol: int = 6


def _tls(domain: str) -> FlowName:
    return FlowName(
        *("tls", domain, "sni", "1.3", "TLS_AES_128_GCM_SHA256", "h2"),
        ja4="t13d1516h2_8daaf6152771_b186095e22b6",
        ja4s="t130200_1301_234ea6891581",
    )


PEERS = (
    Peer("web-1", "10.1.0.11", "203.0.113.20", 443, _tls("cdn.example.net"), (38.0, 2.1)),
    Peer("web-1", "10.1.0.11", "203.0.113.44", 443, FlowName("quic", "video.example.com", "quic_sni"), (61.0, 3.3), 17),
    Peer("web-1", "10.1.0.11", "10.1.0.21", 5432, FlowName("postgresql"), (12.0, 7.5)),
    Peer("web-1", "10.1.0.11", "10.1.0.22", 6379, FlowName("redis"), (4.5, 3.9)),
    Peer("web-1", "10.1.0.11", "198.51.100.7", 80, FlowName("http", "deb.example.org", "http_host"), (9.0, 0.3)),
    Peer("db-1", "10.1.0.21", "10.1.0.31", 9000, FlowName("tls", "backup.corp.example", "sni"), (0.8, 44.0)),
    Peer("db-1", "10.1.0.21", "10.1.0.5", 22, FlowName("ssh"), (0.4, 1.9)),
    Peer("edge-1", "2001:db8:5::8", "2001:db8:9::1", 443, _tls("api.example.com"), (17.0, 6.0)),
    Peer("edge-1", "10.2.0.8", "10.2.0.53", 53, FlowName("dns"), (0.6, 0.3), 17),
    Peer("edge-1", "10.2.0.8", "192.0.2.99", 51820, FlowName("unknown"), (14.0, 13.0), 17),
)
AGENTS = ("web-1", "db-1", "edge-1")
#: What a hostile neighbour may call itself.
HOSTILE = (
    "<img src=x onerror=alert(1)>.example",
    "<script>document.title='taken'</script>",
    "\u202egpj.exe.example",
    "a" * 253,
)


def minute(
    agent: str, start_ns: int, *, part: float = 1.0, more: Sequence[Mapping[str, Any]] = (), seconds: int = 60
) -> FlowBatch:
    """One minute of an agent's traffic, unless told otherwise; the same time of day makes the same.

    part: of its usual amount.
    """
    rng = np.random.default_rng([start_ns // S_NS % 86400, AGENTS.index(agent)])  # days are alike
    wave = 1 + 0.3 * np.sin(start_ns / S_NS / 3600 * 2 * np.pi)
    flows: list[Mapping[str, Any]] = [*more]
    for peer in (one for one in PEERS if one.agent == agent):
        for client in range(2):
            port = int(rng.integers(32768, 61000))
            for direction, megabytes in zip(("rx", "tx"), peer.megabytes, strict=True):
                size = 1400 if megabytes > 1 else 180
                packets = max(1, int(part * wave * megabytes * 1e6 * rng.uniform(0.6, 1.4) / (client + 1) / size))
                ends = (peer.server, peer.own, peer.port, port)
                if direction == "tx":
                    ends = (peer.own, peer.server, port, peer.port)
                flags = 0x1B if peer.protocol == 6 else 0
                flows.append(
                    flow(
                        *ends,
                        protocol=peer.protocol,
                        direction=direction,
                        packets=packets,
                        size=size,
                        tcp_flags=flags,
                        name=peer.name,
                    )
                )
    lost = {("eth0", "rx"): {"table_full": Tally(3, 300, 3)}} if agent == "edge-1" else None
    return make_batch(
        flows,
        devices={"eth0": "tcx", "lo": "tcx"},
        non_ip={("eth0", "rx"): [(0x0806, 4)]},
        unattributed=lost,
        start_ns=start_ns,
        seconds=seconds,
        transactions=_transactions(agent, start_ns, rng),
    )


def _transactions(agent: str, start_ns: int, rng: np.random.Generator) -> Transactions:
    if agent == "db-1":
        return Transactions()

    def key(server: str, port: int, protocol: int) -> FlowKey:
        own = "10.1.0.11" if agent == "web-1" else "10.2.0.8"
        return FlowKey(packed(own), int(rng.integers(32768, 61000)), packed(server), port, protocol, 4)

    def at() -> int:
        return start_ns + int(rng.integers(0, 60 * S_NS))

    def latency(median_ms: float) -> int:
        return int(median_ms * 1e6 * rng.lognormal(0, 0.6))

    dns, http, tls, quic = [], [], [], []
    for query, rcode in (
        *(("cdn.example.net", 0), ("api.example.com", 0), ("deb.example.org", 0)),
        *(("old.example.org", 3), ("broken.example.com", 2)),
    ):
        for server, median in (("10.2.0.53", 1.2), ("198.51.100.53", 24.0)):
            answers = () if rcode else (DnsAnswer(query, "A", 300, "203.0.113.20"),)
            dns.append(
                DnsTransaction(at(), key(server, 53, 17), query, "A", rcode, latency(median), answers, device="eth0")
            )
    dns.append(DnsTransaction(at(), key("198.51.100.53", 53, 17), "slow.example.com", "AAAA", device="eth0"))
    for path, status, median in (
        ("/debian/Release", 200, 8.0),
        ("/pool/x.deb", 200, 30.0),
        ("/missing", 404, 5.0),
        ("/broken", 503, 90.0),
    ):
        http.append(
            HttpTransaction(
                at(),
                key("198.51.100.7", 80, 6),
                "1.1",
                "GET",
                "deb.example.org",
                path,
                status,
                latency(median),
                device="eth0",
            )
        )
    for sni, version, cipher in (
        ("cdn.example.net", "1.3", "TLS_AES_128_GCM_SHA256"),
        ("api.example.com", "1.3", "TLS_AES_256_GCM_SHA384"),
        ("legacy.example.org", "1.2", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
    ):
        tls.append(
            TlsHandshake(
                at(),
                key("203.0.113.20", 443, 6),
                sni,
                version,
                ("h2",),
                "t13d1516h2_8daaf6152771_b186095e22b6",
                cipher=cipher,
                alpn_chosen="h2",
                device="eth0",
            )
        )
    quic.append(QuicHandshake(at(), key("203.0.113.44", 443, 17), "video.example.com", "1", ("h3",), device="eth0"))
    return Transactions(tuple(dns), tuple(tls), tuple(quic), tuple(http))


def hostile_flows() -> list[Mapping[str, Any]]:
    """Flows whose names are attacks."""
    return [
        flow("203.0.113.66", "10.1.0.11", 443, 40000 + number, packets=10, size=1000, name=FlowName("tls", name, "sni"))
        for number, name in enumerate(HOSTILE)
    ]


def heartbeat(agent: str, number: int) -> Heartbeat:
    """Of a host that is well, but for edge-1."""
    told = [
        Told(
            severity="warning",
            kind="table_peak",
            text="the flow table was 91 % full",
            advice="raise --max-flows to 262144",
            device="eth0",
            direction="rx",
        )
    ]
    return Heartbeat(
        agent=agent,
        boot=BOOT,
        version="0.4.0",
        started_ns=time.time_ns() - 86400 * S_NS,
        uptime_seconds=86400.0 * (number + 1),
        interval_seconds=60.0,
        settings_hash="4f1d9a",
        clock_ns=time.time_ns(),
        spool=Spool(batches=0, bytes=0),
        host=Host(hostname=f"{agent}.corp.example", kernel="6.12.9", os="Debian GNU/Linux 12"),
        devices=[
            Device(
                name="eth0",
                ifindex=2,
                attach={"rx": "tcx", "tx": "tcx"},
                addresses=["10.1.0.11/24"],
                mac="02:00:00:00:00:01",
                speed_mbits=10000,
                mtu=1500,
                driver="virtio_net",
            )
        ],
        findings=told if agent == "edge-1" else [],
    )


def send(server: RunningServer, agent: str, sequence: int, batch: FlowBatch, *, token: str | None = None) -> None:
    """As its agent."""
    about = About(
        identity=Identity(agent, BOOT, sequence),
        mode="live",
        start_ns=batch.start_ns,
        end_ns=batch.end_ns,
        version="0.4.0",
    )
    reply = server.ask("/v1/batches", encode(batch, about), token=token)
    assert reply.status == 200, reply.body


@dataclass(frozen=True, slots=True)
class Traffic:
    """Minutes of all agents up to `end_ns`, and the same of earlier days. All sums are known.

    has_hostile: in one of the minutes there are HOSTILE names.
    """

    end_ns: int
    minutes: int
    earlier_days: Sequence[int] = ()
    has_hostile: bool = True

    @classmethod
    def until_now(cls, minutes: int, earlier_days: Sequence[int] = (), *, has_hostile: bool = True) -> Self:
        """Whole minutes, of which the last has just ended."""
        return cls(time.time_ns() // MINUTE_NS * MINUTE_NS, minutes, earlier_days, has_hostile)

    @property
    def question(self) -> str:
        """Its range, as a URL has it."""
        seconds = self.end_ns // S_NS
        return f"from={seconds - 60 * self.minutes}&to={seconds}"

    def batches(self, days: int = 0) -> Iterator[tuple[str, FlowBatch]]:
        """Of a day, by agent."""
        for number in range(self.minutes):
            start_ns = self.end_ns - days * 86400 * S_NS - (self.minutes - number) * MINUTE_NS
            more = hostile_flows() if number == 1 and not days and self.has_hostile else ()
            for agent in AGENTS:
                yield agent, minute(agent, start_ns, part=0.8 if days else 1.0, more=more if agent == "web-1" else ())

    def send(self, server: RunningServer, *, token: str | None = None) -> None:
        """All of it, as the agents would, and what these say of themselves."""
        sequences = dict.fromkeys(AGENTS, 0)
        with ThreadPoolExecutor(16) as pool:  # the store takes together what waits for it at a time
            sent = []
            for days in (*self.earlier_days, 0):
                for agent, batch in self.batches(days):
                    sent.append(pool.submit(send, server, agent, sequences[agent], batch, token=token))
                    sequences[agent] += 1
            for one in sent:
                one.result()
        for number, agent in enumerate(AGENTS):
            assert server.ask("/v1/heartbeats", to_json(heartbeat(agent, number)), token=token).status == 200

    def audit(self) -> dict[str, int]:
        """Packets that were seen, and where they went."""
        found: Counter[str] = Counter()
        for _, batch in self.batches():
            for each in batch.audit:
                found["seen"] += each.seen.packets
                found["flows"] += each.flows.packets
                found["unattributed"] += sum(tally.packets for tally in each.unattributed.values())
        return dict(found)
