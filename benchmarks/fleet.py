"""A fleet's batches for benchmarks of the store: flows as an agent of a busy host has them, without a kernel.

Each agent is a host with some addresses, whose conversations last for several intervals: three of four flows of an
interval were there in the one before. Both directions of a conversation are flows. Peers, applications, domains and
sizes are as unequal as they are in nature (powers and log-normal), and everything follows from the seed.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wiremeter.server.store import Batch, arrow_schema
from wiremeter.shipment.identity import About, Identity

SECOND = 10**9
#: Of the flows of an interval, those that were not there in the one before.
_NEW = 0.25
_PORTS = np.array([443, 80, 53, 22, 5432, 6379, 8080, 9092, 123, 25], "u2")
_APPLICATIONS = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], "i4")
_APPLICATION_NAMES = ["tls", "http", "dns", "ssh", "postgresql", "redis", "http", "kafka", "ntp", "smtp"]
_DOMAINS = 2000


class Agent:
    """One simulated agent. flows: rows of each batch, an even number. interval: nanoseconds."""

    def __init__(self, number: int, flows: int, *, interval: int = 5 * SECOND) -> None:
        self.name = f"host-{number:03}"
        self._number = number
        self._count = flows // 2
        self._interval = interval
        self._rng = np.random.default_rng(number)
        self._boot = str(uuid.UUID(int=number + 1))
        self._sequence = 0
        self._talks = self._begin(self._count)

    def batches(self, start_ns: int) -> Iterator[Batch]:
        """One after the other, the first from `start_ns` on."""
        while True:
            yield self._batch(start_ns + self._sequence * self._interval)

    def _begin(self, count: int) -> dict[str, NDArray[Any]]:
        """New conversations."""
        rng = self._rng
        peers = np.minimum(rng.zipf(1.2, count), 50_000).astype("u4")
        service = np.minimum(rng.zipf(1.6, count) - 1, len(_PORTS) - 1)
        return {
            "peer": peers,
            "own": rng.integers(0, 4, count, "u4"),
            "port": rng.integers(32768, 60999, count, "u2"),
            "service": service,
            "domain": np.where(service < 2, np.minimum(rng.zipf(1.3, count), _DOMAINS), 0).astype("i4"),
            "outgoing": rng.random(count) < 0.3,
        }

    def _batch(self, start_ns: int) -> Batch:
        rng, count = self._rng, self._count
        new = self._begin(int(count * _NEW))
        ended = rng.choice(count, len(new["peer"]), replace=False)
        for name, values in new.items():
            self._talks[name][ended] = values
        flows = pa.Table.from_batches([self._rows(start_ns, ended)])
        about = About(
            identity=Identity(self.name, self._boot, self._sequence),
            mode="simulated",
            start_ns=start_ns,
            end_ns=start_ns + self._interval,
            version="1.0",
        )
        self._sequence += 1
        content = hashlib.sha256(repr(about.identity).encode()).digest()
        return Batch(about=about, content=content, received_ns=about.end_ns, tables={"flows": flows})

    def _rows(self, start_ns: int, fresh: NDArray[Any]) -> pa.RecordBatch:
        rng, talks, count = self._rng, self._talks, self._count
        own, peer = self._addresses(talks["own"], 10), self._addresses(talks["peer"], 100)
        ports = _PORTS[talks["service"]]
        is_udp = np.isin(talks["service"], (2, 8))
        begins = np.zeros(count, "i8")
        begins[fresh] = rng.integers(0, self._interval, len(fresh))
        lasts = begins + (rng.random(count) * (self._interval - begins)).astype("i8")
        packets = np.exp(rng.normal(2.0, 1.6, count)).astype("u8") + 1
        size = rng.integers(66, 1514, count).astype("u8")

        def both(of_client: NDArray[Any], of_server: NDArray[Any]) -> NDArray[Any]:
            """A column of both directions: of the flow to the server, and of the one back."""
            return np.concatenate([of_client, of_server])

        out = talks["outgoing"]
        client_port, server_port = talks["port"], ports
        client = np.where(out[:, None], own, peer)
        server = np.where(out[:, None], peer, own)
        arrays: dict[str, Any] = {
            "device": self._words(np.zeros(2 * count, "i4"), ["eth0"]),
            "direction": self._words(both(out, ~out).astype("i4"), ["rx", "tx"]),
            "family": np.full(2 * count, 4, "u1"),
            "vlan": pa.nulls(2 * count, pa.uint16()),
            "protocol": np.where(both(is_udp, is_udp), 17, 6).astype("u1"),
            "src_addr": self._packed(np.concatenate([client, server])),
            "dst_addr": self._packed(np.concatenate([server, client])),
            "src_port": both(client_port, server_port),
            "dst_port": both(server_port, client_port),
            "packets": both(packets, packets * 2),
            "bytes": both(packets * 80, packets * 2 * size),
            "skbs": both(packets, packets),
            "tcp_flags": np.where(both(is_udp, is_udp), 0, 0x18).astype("u2"),
            "first_time": pa.array(both(begins, begins) + start_ns, pa.timestamp("ns", "UTC")),
            "last_time": pa.array(both(lasts, lasts) + start_ns, pa.timestamp("ns", "UTC")),
            "application": self._words(both(*[_APPLICATIONS[talks["service"]]] * 2), _APPLICATION_NAMES),
            "domain": self._words(
                both(talks["domain"], talks["domain"]),
                ["", *(f"site-{n}.example.com" for n in range(_DOMAINS))],
            ),
        }
        schema = arrow_schema("flows")
        return pa.record_batch(
            [
                pa.array(arrays[field.name], field.type) if field.name in arrays else pa.nulls(2 * count, field.type)
                for field in schema
            ],
            schema=schema,
        )

    def _addresses(self, hosts: NDArray[Any], network: int) -> NDArray[Any]:
        """IPv4 addresses as v4-mapped: the host's own are in 10.0.0.0/8, peers in 100.0.0.0/8. Shape (n, 16)."""
        packed = np.zeros((len(hosts), 16), "u1")
        packed[:, 10:12] = 0xFF
        numbers = hosts.astype("u4") * 2654435761 if network == 100 else hosts + self._number * 256
        packed[:, 12:] = numbers.astype(">u4").view("u1").reshape(-1, 4)
        packed[:, 12] = network
        return packed

    @staticmethod
    def _packed(addresses: NDArray[Any]) -> Any:
        return pa.Array.from_buffers(
            pa.binary(16), len(addresses), [None, pa.py_buffer(np.ascontiguousarray(addresses))]
        )

    @staticmethod
    def _words(indices: NDArray[Any], words: list[str]) -> Any:
        return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(words))
