"""From a profile and a seed to packets as columns of numbers: who sends what to whom, and when."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from wiremeter.synthetic.frames import (
    ANYWHERE_MAX,
    ICMP,
    IPV4_ANYWHERE,
    IPV4_HOSTS,
    IPV4_SERVERS,
    NOT_IP,
    TCP,
    UDP,
    Packets,
)
from wiremeter.synthetic.profiles import FULL, OF_SERVER, Exchange

_NUMBERS = {"tcp": TCP, "udp": UDP, "icmp": ICMP, "arp": NOT_IP}
#: Headers from IP on, by protocol and IP version; what the MTU leaves is payload.
_IP_BYTES = {4: 20, 6: 40}
_L4_BYTES = {TCP: 20, UDP: 8, ICMP: 8, NOT_IP: 0}
#: Packets that are made at a time. A conversation does not outlast them, unless its kind lasts.
_SLICE = 1 << 16
#: Ephemeral ports, as Linux has them.
_EPHEMERAL = (32768, 60999)
_LASTING_PORT = 61000
_MOST_ROUNDS = 5000
#: A part of the way round the circle that never comes back to where it was: spreads a few things evenly.
_GOLDEN = 0.6180339887498949


class Traffic:
    """Packets of a mix of exchanges, in slices. The same arguments give the same packets."""

    def __init__(
        self, exchanges: tuple[Exchange, ...], *, seed: int, packets: int, packets_per_second: float, start_ns: int,
        hosts: int, ipv6: float, mtu: int,
    ) -> None:  # fmt: skip
        """packets: how many in all. hosts: clients; there is a server for every four. ipv6: part of conversations."""
        self._exchanges = exchanges
        self._chance = np.random.default_rng(seed)
        self._packets = packets
        self._rate = packets_per_second
        self._start_ns = start_ns
        self._hosts = hosts
        self._servers = max(1, hosts // 4)
        self._ipv6 = ipv6
        self._mtu = mtu
        shares = np.array([exchange.share for exchange in exchanges])
        self._shares = shares / shares.sum()
        self._mean_packets = float(self._shares @ [exchange.mean_packets for exchange in exchanges])
        self._sent = np.zeros((len(exchanges), 1 + max(e.lasting for e in exchanges), 2), np.uint32)
        self._columns()

    def _columns(self) -> None:
        """The exchanges as columns, so that a packet's step is looked up by number."""
        kinds = self._exchanges
        self._protocol = np.array([_NUMBERS[kind.protocol] for kind in kinds], np.uint8)
        self._opening, self._body, self._closing = (
            np.array([len(getattr(kind, part)) for kind in kinds]) for part in ("opening", "body", "closing")
        )
        self._lasting = np.array([kind.lasting for kind in kinds])
        steps = [step for kind in kinds for step in kind.opening + kind.body + kind.closing]
        self._first_step = np.cumsum([0, *(self._opening + self._body + self._closing)[:-1]])
        self._step_sender = np.array([step.sender == "server" for step in steps])
        self._step_flags = np.array([step.flags for step in steps], np.uint16)
        self._step_least = np.array([step.least for step in steps])
        self._step_most = np.array([step.most for step in steps])

    def slices(self) -> Iterator[Packets]:
        """All packets in order of time, a few thousand at a time."""
        for first in range(0, self._packets, _SLICE):
            yield self._slice(first, min(_SLICE, self._packets - first))

    def _slice(self, first: int, count: int) -> Packets:
        chance = self._chance
        kind, length = self._conversations(count)
        server, client, sport, is_ipv6, member = self._ends(kind)
        starts = np.cumsum(length) - length
        talk = np.repeat(np.arange(len(kind)), length)[:count]
        step, place = self._steps(kind[talk], np.arange(count) - starts[talk], length[talk])

        # A conversation begins anywhere in the slice and goes on through a part of what is left of it.
        begin, part = chance.random((2, len(kind)))
        order = np.argsort(begin[talk] + (1 - begin[talk]) * part[talk] * place, kind="stable")
        talk, step = talk[order], step[order]
        of_kind = kind[talk]
        protocol, back, flags = self._protocol[of_kind], self._step_sender[step], self._step_flags[step]
        payload = self._payloads(step, protocol, is_ipv6[talk])
        seq, ack = self._sequence(of_kind, talk, member[talk], back, payload, flags)
        since_ns = (first + np.arange(count) + chance.random(count)) * (1e9 / self._rate)
        if not first:
            since_ns[0] = 0
        ends = self._addresses(kind, client, server)
        return Packets(
            times_ns=since_ns.astype(np.uint64) + np.uint64(self._start_ns),
            protocol=protocol,
            is_ipv6=is_ipv6[talk],
            is_from_server=back,
            client_addr=ends[0][talk],
            server_addr=ends[1][talk],
            client_port=sport[talk].astype(np.uint16),
            server_port=self._server_ports(kind, server)[talk],
            payload=payload.astype(np.uint32),
            flags=flags,
            seq=seq,
            ack=ack,
            number=np.arange(first, first + count).astype(np.uint32),
            flow=self._flows(kind, client, server, sport, is_ipv6)[talk] * 2 + back,
        )

    def _conversations(self, count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Kind and number of packets of as many conversations as fill a slice."""
        kinds: list[NDArray[np.intp]] = []
        lengths: list[NDArray[np.intp]] = []
        missing = count
        while missing > 0:
            some = int(missing / self._mean_packets) + 16
            kind = self._chance.choice(len(self._exchanges), some, p=self._shares)
            means = np.array([max(exchange.rounds, 1.0) for exchange in self._exchanges])[kind]
            rounds = np.minimum(self._chance.geometric(1 / means), _MOST_ROUNDS)
            length = self._opening[kind] + self._body[kind] * rounds + self._closing[kind]
            kinds.append(kind)
            lengths.append(length)
            missing -= int(length.sum())
        kind, length = np.concatenate(kinds), np.concatenate(lengths)
        used = int(np.searchsorted(np.cumsum(length), count)) + 1
        return kind[:used], length[:used]

    def _ends(
        self, kind: NDArray[np.intp]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
        """Server, client, client port, whether it is IPv6, and for a kind that lasts which of its conversations."""
        chance, count = self._chance, len(kind)
        limits = np.array([min(e.servers or self._servers, self._servers) for e in self._exchanges])[kind]
        clients = np.array([ANYWHERE_MAX if e.sources == "anywhere" else self._hosts for e in self._exchanges])[kind]
        server = (chance.random(count) * limits).astype(np.int64)
        client = (chance.random(count) * clients).astype(np.int64)
        sport = chance.integers(_EPHEMERAL[0], _EPHEMERAL[1] + 1, count)
        is_ipv6 = chance.random(count) < self._ipv6
        lasting = self._lasting[kind]
        member = (chance.random(count) * lasting).astype(np.int64)
        lasts = lasting > 0
        server, client = np.where(lasts, member % limits, server), np.where(lasts, member % clients, client)
        sport = np.where(lasts, _LASTING_PORT + member, sport)
        is_ipv6 = np.where(lasts, (member + 1) * _GOLDEN % 1 < self._ipv6, is_ipv6)
        protocol = self._protocol[kind]
        server, is_ipv6 = np.where(protocol == NOT_IP, 0, server), is_ipv6 & (protocol != NOT_IP)
        return server, client, sport, is_ipv6, member

    def _steps(
        self, kind: NDArray[np.intp], place: NDArray[np.intp], length: NDArray[np.intp]
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """The number of each packet's step, and how far its conversation has come, from 0 up to 1."""
        opening, body, closing = self._opening[kind], self._body[kind], self._closing[kind]
        in_body = opening + (place - opening) % np.maximum(body, 1)
        in_closing = opening + body + place - (length - closing)
        step = np.where(place < opening, place, np.where(place >= length - closing, in_closing, in_body))
        return self._first_step[kind] + step, place / length

    def _payloads(
        self, step: NDArray[np.intp], protocol: NDArray[np.uint8], is_ipv6: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        headers = np.zeros(18, np.int64)
        for number, size in _L4_BYTES.items():
            headers[number] = size
        room = self._mtu - headers[protocol] - np.where(is_ipv6, _IP_BYTES[6], _IP_BYTES[4])
        most = np.minimum(self._step_most[step], room)
        least = np.where(self._step_least[step] == FULL, room, np.minimum(self._step_least[step], most))
        drawn = self._chance.random(len(step))
        payload: NDArray[np.int64] = (least + drawn * (most - least + 1)).astype(np.int64)
        return payload

    def _sequence(
        self, kind: NDArray[np.intp], talk: NDArray[np.intp], member: NDArray[np.int64], back: NDArray[np.bool_],
        payload: NDArray[np.int64], flags: NDArray[np.uint16],
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:  # fmt: skip
        """TCP sequence and acknowledgement numbers: what each side has sent before, SYN and FIN being one each."""
        lasts = self._lasting[kind] > 0
        members = self._sent.shape[1]
        group = np.where(lasts, kind * members + member, talk + len(self._exchanges) * members)
        order = np.argsort(group, kind="stable")
        in_order = group[order]
        is_first = np.concatenate(([True], in_order[1:] != in_order[:-1]))
        starts = np.flatnonzero(is_first)[np.cumsum(is_first) - 1]
        takes = payload + (flags & 0x01) + (flags >> 1 & 0x01)
        before = np.zeros((2, len(talk)), np.int64)
        for side in (0, 1):
            sent = np.where(back == side, takes, 0)
            total = np.cumsum(sent[order])
            until = total - sent[order]
            base = self._sent[kind, member, side] * lasts
            before[side, order] = until - until[starts] + base[order]
        np.add.at(self._sent, (kind[lasts], member[lasts], back[lasts].astype(int)), takes[lasts].astype(np.uint32))
        # Initial numbers that differ, from what the conversation is.
        isn = (group * 2654435761) & 0x7FFFFFFF
        of_client, of_server = before[0] + isn, before[1] + (isn ^ 0x5BD1E995)
        acknowledges = (flags & 0x10) != 0
        seq = np.where(back, of_server, of_client) & 0xFFFFFFFF
        ack = np.where(back, of_client, of_server) * acknowledges & 0xFFFFFFFF
        return seq.astype(np.uint32), ack.astype(np.uint32)

    def _addresses(
        self, kind: NDArray[np.intp], client: NDArray[np.int64], server: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        first = np.array([IPV4_ANYWHERE if e.sources == "anywhere" else IPV4_HOSTS for e in self._exchanges])
        return (client + first[kind]).astype(np.uint32), (server + IPV4_SERVERS).astype(np.uint32)

    def _server_ports(self, kind: NDArray[np.intp], server: NDArray[np.int64]) -> NDArray[np.uint16]:
        ports = np.array([exchange.port for exchange in self._exchanges])[kind]
        return np.where(ports == OF_SERVER, 1024 + server * 7919 % 30000, ports).astype(np.uint16)

    def _flows(
        self, kind: NDArray[np.intp], client: NDArray[np.int64], server: NDArray[np.int64], sport: NDArray[np.int64],
        is_ipv6: NDArray[np.bool_],
    ) -> NDArray[np.int64]:  # fmt: skip
        """A number for each conversation made of all that its flows' keys are made of, so that equal keys are equal
        numbers: 61 bits for at most 32 kinds, 2^22 clients and 2^16 servers."""
        protocol = self._protocol[kind]
        port = np.where((protocol == TCP) | (protocol == UDP), sport, 0)
        number = kind.astype(np.int64)
        for part, size in ((is_ipv6, 2), (port, 1 << 16), (client, 1 << 22), (server, 1 << 16)):
            number = number * size + part
        return np.where(protocol == NOT_IP, -1, number)
