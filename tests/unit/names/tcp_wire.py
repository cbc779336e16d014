"""A TCP connection whose segments a BlockReader sees, and what it told of it."""

from __future__ import annotations

import numpy as np

from wiremeter.names.block_reader import BlockReader
from wiremeter.names.columns import DnsColumns, Told
from wiremeter.names.known import KnownNames
from wiremeter.names.payloads import Payload, packed
from wiremeter.names.records import NAMELESS, DnsTransaction, FlowKey, FlowName, HttpTransaction, TlsHandshake
from wiremeter.names.transactions import HttpColumns, TlsColumns

SYN, ACK, SYN_ACK, PSH = 0x02, 0x10, 0x12, 0x18

Ended = HttpTransaction | TlsHandshake


class Wire:
    """The clock advances 10 ns a segment. `out`: what ended until now, in the order it was told, HTTP before TLS."""

    def __init__(
        self,
        port: int = 8080,
        client_port: int = 40000,
        *,
        first: str = "client",
        ja4s: bool = False,
        redact: bool = False,
    ) -> None:
        """first: whose packet is the first; "server": an empty one."""
        self.flow = FlowKey(bytes(15) + b"\1", client_port, bytes(15) + b"\2", port, 6, 6)
        self.told: list[Told] = []
        self.reader = BlockReader(lambda raw: self.told.append(Told.of(raw)), 1000, redact=redact, ja4s=ja4s)
        self.seq = {True: 1000, False: 5000}
        self.now_ns = 0
        self.out: list[Ended] = []
        self.dns: list[DnsTransaction] = []
        self.names: list[FlowName] = []
        if first == "server":
            self.raw(False, self.seq[False], b"", flags=ACK)

    def raw(self, from_client: bool, seq: int, data: bytes, *, flags: int = PSH, length: int | None = None) -> None:
        self.now_ns += 10
        flow = self.flow if from_client else self.flow.reversed()
        size = len(data) if length is None else length
        payload = Payload(self.now_ns, flow, seq % (1 << 32), max(size, len(data)), 0, flags, 4, data)
        assert not list(self.reader.read(packed([payload])))
        self.take()

    def take(self) -> list[Told]:
        """What was told since the last time; its transactions and names are kept."""
        self.reader.hand_on()
        told, self.told[:] = list(self.told), []
        for part in told:
            self.out += [*HttpColumns(part.http, part.text, {}), *TlsColumns(part.hellos, part.text, {})]
            self.dns += DnsColumns(part.transactions, part.answers, part.text, {})
            known = KnownNames(1000)
            known.tell(part.names, part.text)
            self.names += known.names(np.arange(len(known)))
        return told

    def shake(self) -> Wire:
        self.raw(True, self.seq[True] - 1, b"", flags=SYN)
        self.raw(False, self.seq[False] - 1, b"", flags=SYN_ACK)
        return self

    def client(self, data: bytes, length: int | None = None) -> Wire:
        return self.say(True, data, length)

    def server(self, data: bytes, length: int | None = None) -> Wire:
        return self.say(False, data, length)

    def say(self, from_client: bool, data: bytes, length: int | None = None) -> Wire:
        self.raw(from_client, self.seq[from_client], data, length=length)
        self.seq[from_client] += len(data) if length is None else length
        return self

    def skip(self, from_client: bool, count: int) -> Wire:
        """Bytes that nobody sends to user space."""
        self.seq[from_client] += count
        return self

    def advance(self, now_ns: int | None = None) -> Wire:
        """Until then nothing more has come."""
        self.reader.advance(self.now_ns if now_ns is None else now_ns, 0)
        self.take()
        return self

    @property
    def name(self) -> FlowName:
        """What is known of the connection."""
        self.advance()
        return self.names[-1] if self.names else NAMELESS

    @property
    def requests(self) -> list[HttpTransaction]:
        """Those that ended."""
        return [one for one in self.out if isinstance(one, HttpTransaction)]

    def end(self) -> list[Ended]:
        """All that ended, with what is open still."""
        self.reader.flush(self.now_ns)
        self.take()
        return self.out


def statuses(records: list[Ended]) -> list[tuple[str | None, int | None]]:
    return [(record.path, record.status) for record in records if isinstance(record, HttpTransaction)]
