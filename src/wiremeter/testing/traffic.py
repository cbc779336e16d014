"""Traffic: what came so far, and the questions that a test may ask of it."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar, overload

from wiremeter.flows.batch import Attachment, Audit, FlowBatch
from wiremeter.flows.columns import TransactionKind
from wiremeter.flows.filter import compile_filter
from wiremeter.names.records import DnsTransaction, HttpTransaction, QuicHandshake, TlsHandshake
from wiremeter.testing.errors import TrafficLost

T = TypeVar("T")


class Amount(NamedTuple):
    """Packets and bytes as on the wire, and different flows: a conversation has two."""

    packets: int
    bytes: int
    flows: int


class Found(Sequence[T], Generic[T]):
    """What a question found, in order of time."""

    def __init__(self, items: Sequence[T]) -> None:
        self._items = tuple(items)

    @property
    def count(self) -> int:  # type: ignore[override] # a number is what tests ask for
        """How many."""
        return len(self._items)

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        return self._items[index]

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __repr__(self) -> str:
        return f"{self.count} found: {list(self._items)}"


class Traffic:
    """All traffic since metering began, or since `clear`. Every question waits until what was sent before is counted.

    On loopback each packet counts once, as sent.
    """

    def __init__(self, catch_up: Callable[[], Sequence[FlowBatch]]) -> None:
        """catch_up: gives all batches so far, once they hold what was on the wire when it was called."""
        self._catch_up = catch_up
        self._cleared = 0

    def clear(self) -> None:
        """Forgets what came so far."""
        self._cleared = len(self._catch_up())

    @property
    def batches(self) -> Sequence[FlowBatch]:
        """As the meter gave them.

        Raises TrafficLost where something was lost before it could be counted or read.
        """
        batches = self._catch_up()[self._cleared :]
        audits = [audit for batch in batches for audit in batch.audit if not _is_again(audit)]
        dropped = sum(audit.capture_dropped for audit in audits)
        unattributed = sum(tally.packets for audit in audits for tally in audit.unattributed.values())
        payloads = max((sum(batch.health.lost_payloads.values()) for batch in batches), default=0)
        for count, what in (
            (dropped, "buffers came faster than they could be counted"),
            (unattributed, "packets are in no flow: they are damaged, or the flow table was full"),
            (payloads, "payloads were lost before they could be read"),
        ):
            if count:
                raise TrafficLost(f"{count} {what}, so nothing exact can be said: send less at a time")
        return batches

    def total(self, filter: str = "") -> Amount:
        """The sum of all flows that match; the filter is that of `wiremeter live`, such as "tcp dst port 5432".

        Raises FilterError for one that cannot be read.
        """
        chosen, packets, size, keys = compile_filter(filter), 0, 0, set()
        for batch in self.batches:
            flows = batch.filter(chosen).flows
            for at, attachment in enumerate(batch.attachments):
                if _is_again(attachment):
                    continue
                here = flows[flows["attachment"] == at]
                packets += int(here["packets"].sum())
                size += int(here["bytes"].sum())
                keys |= {
                    (attachment.ifindex, attachment.direction, *row)
                    for row in zip(
                        *(map(bytes, here[f"{side}_addr"]) for side in ("src", "dst")),
                        *(here[name].tolist() for name in ("src_port", "dst_port", "protocol", "vlan")),
                        strict=True,
                    )
                }
        return Amount(packets, size, len(keys))

    def dns(
        self, name: str | None = None, *, qtype: str | None = None, rcode: int | None = None
    ) -> Found[DnsTransaction]:
        """DNS questions that were asked, by the name asked for, which may be a glob such as "*.internal".

        A question that got no answer is told some seconds after it was asked.
        """
        return self._found(
            "dns",
            lambda one: _fits(one.query, name) and qtype in (None, one.qtype) and rcode in (None, one.rcode),
        )

    def tls(self, sni: str | None = None) -> Found[TlsHandshake]:
        """TLS handshakes, by the server's name in the hello."""
        return self._found("tls", lambda one: _fits(one.sni, sni))

    def quic(self, sni: str | None = None) -> Found[QuicHandshake]:
        """QUIC handshakes, by the server's name in the hello."""
        return self._found("quic", lambda one: _fits(one.sni, sni))

    def http(
        self, host: str | None = None, *, method: str | None = None, status: int | None = None, path: str | None = None
    ) -> Found[HttpTransaction]:
        """Requests of HTTP without TLS, by host and path, which may be globs."""
        return self._found(
            "http",
            lambda one: (
                _fits(one.host, host)
                and method in (None, one.method)
                and status in (None, one.status)
                and _fits(one.path, path)
            ),
        )

    def _found(self, kind: TransactionKind, fits: Callable[[T], bool]) -> Found[T]:
        return Found([one for batch in self.batches for one in getattr(batch.transactions, kind) if fits(one)])


def _is_again(one: Attachment | Audit) -> bool:
    """Loopback shows each packet as sent, and again as received."""
    return one.device == "lo" and one.direction == "rx"


def _fits(value: str | None, pattern: str | None) -> bool:
    """Names without regard to case and to a dot at the end."""
    if pattern is None:
        return True
    return value is not None and fnmatch.fnmatchcase(value.lower().rstrip("."), pattern.lower().rstrip("."))
