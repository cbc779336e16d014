"""Names for a source's batches: what may be read of payloads, and the one place where decoders meet flows."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from wiremeter.datapath import records
from wiremeter.datapath.rows import conversation_hashes
from wiremeter.errors import InputError, WiremeterError
from wiremeter.flows.batch import FlowBatch
from wiremeter.flows.columns import CONNECTIONS
from wiremeter.settings.words import (
    DEFAULT_NAME_KINDS,
    NAME_KINDS,
    PAYLOAD_BYTES_DEFAULT,
    PAYLOAD_BYTES_MAX,
    NameKind,
)

if TYPE_CHECKING:
    from wiremeter.isolation.process import ReaderOptions
    from wiremeter.isolation.reader import IsolatedReader
    from wiremeter.names.domains import DomainCache
    from wiremeter.names.payloads import PayloadBlock
    from wiremeter.names.reader import Audience

log = logging.getLogger(__name__)

#: What DNS said is written down this often, so that a killed process loses no more.
SAVE_SECONDS = 60.0
_STATE_FILE = "domains.jsonl"
#: Devices come and go without end where containers do.
_DEVICE_NAMES_MAX = 4096


@dataclass(frozen=True, slots=True)
class NameOptions:
    """What may be read of payloads.

    kinds: of NAME_KINDS; none: nothing is read. payload_bytes: of one packet's payload at most; 0: nothing is read.
    redact_paths: leave the paths of HTTP requests out. ja4s: fingerprint TLS servers' answers; the method is under the
    FoxIO License 1.1, patent pending, which forbids selling it. state: a directory to keep what DNS said in, or None.
    isolated: payloads are read in a process without privileges, sealed by seccomp (docs/security.md); else in this one.
    most: transactions of a batch, and of names, addresses and waiting questions no more than that are kept either.
    Raises InputError for a value that does not fit.
    """

    kinds: Collection[NameKind] = DEFAULT_NAME_KINDS
    payload_bytes: int = PAYLOAD_BYTES_DEFAULT
    redact_paths: bool = True
    ja4s: bool = False
    state: str | os.PathLike[str] | None = None
    isolated: bool = False
    most: int = 1 << 17

    def __post_init__(self) -> None:
        if unknown := set(self.kinds) - set(NAME_KINDS):
            kinds = ", ".join(NAME_KINDS)
            raise InputError(f"names of {', '.join(sorted(unknown))}: expected some of {kinds}, or none")
        if not 0 <= self.payload_bytes <= PAYLOAD_BYTES_MAX:
            raise InputError(f"{self.payload_bytes} payload bytes: expected from 0 to {PAYLOAD_BYTES_MAX}")

    @property
    def limit(self) -> int:
        """Payload bytes that an engine should send of one packet; 0 where names are off."""
        return self.payload_bytes if set(self.kinds) - {"ptr"} else 0

    @property
    def sources(self) -> frozenset[str]:
        """The payloads that an engine should send, of records.SOURCES."""
        wanted = set(self.kinds) - {"ptr"}
        return frozenset(wanted | {"first"} if wanted - {"dns"} else wanted)


NO_NAMES = NameOptions(kinds=())


class Channel(Protocol):
    """What can be waited for."""

    def fileno(self) -> int: ...


class Names(Protocol):
    """What gives a source's batches their names, if any."""

    def know_own(self, addresses: frozenset[bytes]) -> None:
        """Takes these addresses for one client's."""

    def feed(self, block: PayloadBlock, devices: Mapping[int, int] | None = None) -> None:
        """As Namer.feed."""

    def add(
        self, batch: FlowBatch, payloads: Mapping[str, int], lost: Mapping[str, int], *, last: bool = False
    ) -> FlowBatch:
        """As Naming.add."""

    @property
    def channels(self) -> Sequence[Channel]:
        """Where there may not be room: what is readable as soon as there is, if `look` is called then."""

    def has_room(self) -> bool:
        """Whether `feed` takes a block at once."""

    def look(self) -> None:
        """Takes what was told meanwhile. Never waits."""

    def close(self) -> None:
        """Writes down what is to outlive this process. A second call does nothing."""


def open_names(options: NameOptions) -> Names:
    """What reads the names that `options` allow. Raises InputError where that cannot be isolated as they want it."""
    return Naming(options) if options.limit else NoNaming()


def try_reader(options: NameOptions) -> str:
    """What is in the way of reading payloads in a process without privileges, as by `options`; "" if nothing is."""
    from wiremeter.isolation.process import ReaderEnded, ReaderProcess
    from wiremeter.isolation.reader import WITHOUT_READER

    try:
        with contextlib.closing(ReaderProcess(_reader_options(options))) as reader:
            reader.wait_until_ready()
    except (OSError, ReaderEnded) as error:
        return f"payloads cannot be read in a process without privileges: {error}. {WITHOUT_READER}"
    return ""


def _reader_options(options: NameOptions) -> ReaderOptions:
    from wiremeter.isolation.process import ReaderOptions
    from wiremeter.names.records import QUESTIONS_MAX

    return ReaderOptions(options.redact_paths, options.ja4s, min(QUESTIONS_MAX, options.most))


class NoNaming:
    """Where names are off: batches stay as they are."""

    def know_own(self, addresses: frozenset[bytes]) -> None:
        pass

    def feed(self, block: PayloadBlock, devices: Mapping[int, int] | None = None) -> None:
        pass

    def add(
        self, batch: FlowBatch, payloads: Mapping[str, int], lost: Mapping[str, int], *, last: bool = False
    ) -> FlowBatch:
        return batch

    @property
    def channels(self) -> Sequence[Channel]:
        return ()

    def has_room(self) -> bool:
        return True

    def look(self) -> None:
        pass

    def close(self) -> None:
        pass


class Naming:
    """Reads the payloads of a source and adds names to its batches."""

    def __init__(self, options: NameOptions) -> None:
        """Takes up what DNS said before, if there is a state; one that cannot be read is logged and left.

        Loads the decoders, which takes longer than all else of a meter but the verifier.
        """
        from wiremeter.names.namer import Namer

        self.options = options
        self._state = Path(options.state) / _STATE_FILE if options.state else None
        self._isolated: IsolatedReader | None = None
        self._namer = Namer(
            conversation_hashes,
            options.kinds,
            redact=options.redact_paths,
            ja4s=options.ja4s,
            domains=self._load(),
            most=options.most,
            open_reader=self._isolate if options.isolated else None,
        )
        for reader in self.channels:
            reader.begin()
        self._save_at = time.monotonic() + SAVE_SECONDS
        self._saving: threading.Thread | None = None
        self._payloads: dict[str, int] = {}
        self._lost: dict[str, int] = {}

    def _isolate(self, audience: Audience) -> IsolatedReader:
        from wiremeter.isolation.reader import IsolatedReader

        self._isolated = IsolatedReader(audience, _reader_options(self.options))
        return self._isolated

    @property
    def channels(self) -> Sequence[IsolatedReader]:
        """As Names."""
        return (self._isolated,) if self._isolated else ()

    def has_room(self) -> bool:
        """As Names."""
        return not self._isolated or self._isolated.has_room()

    def look(self) -> None:
        """As Names."""
        if self._isolated:
            self._isolated.look()

    def know_own(self, addresses: frozenset[bytes]) -> None:
        """Takes these addresses for one client's."""
        self._namer.domains.own = addresses

    def feed(self, block: PayloadBlock, devices: Mapping[int, int] | None = None) -> None:
        """As Namer.feed."""
        self._namer.feed(block, devices)

    def add(
        self,
        batch: FlowBatch,
        payloads: Mapping[str, int],
        lost: Mapping[str, int],
        *,
        last: bool = False,
    ) -> FlowBatch:
        """The batch with names, connections and transactions.

        payloads, lost: by source, of this interval. last: end all that is still open.
        """
        for totals, gain in ((self._payloads, payloads), (self._lost, lost)):
            for source, count in gain.items():
                totals[source] = totals.get(source, 0) + count
        self._know_devices(batch)
        close = self._namer.close_last if last else self._namer.close_interval
        named = close(batch.flows, _devices_of(batch), batch.end_ns)
        if self._isolated:
            for source, count in zip(records.SOURCES, self._isolated.take_lost(), strict=False):
                self._payloads[source] = self._payloads.get(source, 0) - count
                self._lost[source] = self._lost.get(source, 0) + count
        self._lost["transactions"] = self._namer.dropped  # read, and then without room in a batch
        self._lost["unread"] = self._namer.lost  # arrived, and then without room to wait for the rest
        self._lost["names"] = self._namer.forgotten  # read, and then without room while their flows were there
        connections = np.array([(a, n, count) for (a, n), count in named.connections.items()], CONNECTIONS)
        if self._state and time.monotonic() >= self._save_at:
            self._save_aside()
        return dataclasses.replace(
            batch,
            names=named.names,
            flow_names=named.flow_names,
            connections=connections,
            transactions=named.transactions,
            health=dataclasses.replace(
                batch.health,
                payloads=dict(self._payloads),
                lost_payloads=dict(self._lost),
                reader_endings=self._isolated.endings if self._isolated else 0,
                reader_fault=self._isolated.fault if self._isolated else "",
            ),
        )

    def _know_devices(self, batch: FlowBatch) -> None:
        """Also of those that are gone, for as long as a question may wait; a number can come back with another name."""
        known = self._namer.device_names
        if len(known) > _DEVICE_NAMES_MAX:
            known = {}
        self._namer.device_names = known | {each.ifindex: each.device for each in batch.attachments}

    def close(self) -> None:
        """Ends the reader; writes down what DNS said, if there is a state. A second call does nothing."""
        if self._isolated:
            self._isolated.close()
        if self._saving:
            self._saving.join()
        if self._state:
            self._save(self._namer.domains)
            self._state = None

    def _save_aside(self) -> None:
        """In a thread of its own: tens of thousands of names take half a second, in which tables would not be read."""
        if self._saving and self._saving.is_alive():
            return
        self._save_at = time.monotonic() + SAVE_SECONDS
        self._saving = threading.Thread(
            target=self._save, args=(self._namer.domains.snapshot(),), name="wiremeter-domains"
        )
        self._saving.start()

    def _save(self, domains: DomainCache) -> None:
        """A failure is logged: metering goes on."""
        assert self._state
        try:
            self._state.parent.mkdir(parents=True, exist_ok=True)
            domains.save(self._state)
        except (OSError, WiremeterError) as error:
            log.warning("what DNS said was not saved", extra={"file": str(self._state), "reason": str(error)})

    def _load(self) -> DomainCache:
        from wiremeter.names.domains import ADDRESSES_MAX, DomainCache

        cache = DomainCache(min(ADDRESSES_MAX, self.options.most))
        if self._state:
            try:
                cache.load(self._state, time.time_ns())
            except WiremeterError as error:
                if not isinstance(error.__cause__, FileNotFoundError):
                    about = {"file": str(self._state), "reason": str(error)}
                    log.warning("what DNS said before was not read", extra=about)
        return cache


def _devices_of(batch: FlowBatch) -> NDArray[np.int64]:
    numbers = np.array([attachment.ifindex for attachment in batch.attachments], np.int64)
    indices = batch.flows["attachment"].astype(np.int64)
    return numbers[indices] if len(numbers) else indices
