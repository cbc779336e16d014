"""A Reader that reads in a process without power, and outlives it: what one took along is counted, another begins."""

from __future__ import annotations

import contextlib
import logging
import select
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wiremeter.errors import InputError
from wiremeter.isolation.process import ReaderEnded, ReaderOptions, ReaderProcess
from wiremeter.names.payloads import ATTACHMENT_AT, SOURCE_AT, PayloadBlock

if TYPE_CHECKING:
    from wiremeter.names.reader import Audience

log = logging.getLogger(__name__)

#: A reader that ended after less than this is followed by the next only after a pause, twice as long each time.
STEADY_SECONDS = 60.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0
#: What to do where no reader can be had.
WITHOUT_READER = (
    "Allow that, or read no names (--names none), or have this process read them, with all it may do (--no-isolate)"
)
_SOURCES, _ATTACHMENTS = 256, 1 << 16


class IsolatedReader:
    """As names.reader.Reader, for one thread at a time."""

    def __init__(self, audience: Audience, options: ReaderOptions, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts a reader; `begin` says whether it is sealed."""
        self._audience = audience
        self._options = options
        self._clock = clock
        self._waiting = select.epoll()
        self._unsure = np.zeros(_SOURCES, np.int64)  # fed, and perhaps not told yet
        self._lost = np.zeros(_SOURCES, np.int64)
        #: Readers that ended without being asked, and why the last one did.
        self.endings = 0
        self.fault = ""
        self._pause = 0.0
        self._start_at = clock()
        self._process: ReaderProcess | None = None
        self._start()

    def begin(self) -> None:
        """Waits until the first reader is sealed. Raises InputError where this host does not allow it."""
        try:
            if self._process:
                self._process.wait_until_ready()
        except ReaderEnded as ended:
            self._let_go()
            self.fault = str(ended)
        if not self._process:
            self.close()
            raise InputError(f"payloads cannot be read in a process without privileges: {self.fault}. {WITHOUT_READER}")

    @property
    def pid(self) -> int | None:
        """Of the reader that there is, if any."""
        return self._process.pid if self._process else None

    def fileno(self) -> int:
        """Readable when `look` should be called: there may be room again."""
        return self._waiting.fileno()

    def look(self) -> None:
        """Takes what was told. Never waits."""
        with self._burying():
            if self._process:
                self._process.look(self._audience)

    def has_room(self) -> bool:
        """Whether a block can be fed without waiting. Where no reader is to be had it is lost, and needs no room."""
        self._tend()
        return self._process is None or self._process.has_room()

    def feed(self, block: PayloadBlock, devices: Mapping[int, int] | None = None) -> None:
        """As Reader.feed; what is told comes later, in `look` or with the next `advance`."""
        if not len(block):
            return
        self._tend()
        counts = _by_source(block, devices)
        if not self._process:
            self._lost += counts
            return
        self._unsure += counts
        with self._burying():
            self._process.feed(block, devices, self._audience)

    def advance(self, end_ns: int) -> None:
        """As Reader.advance."""
        self._advance(end_ns, is_last=False)

    def end(self, end_ns: int) -> None:
        """As Reader.end."""
        self._advance(end_ns, is_last=True)

    def take_lost(self) -> list[int]:
        """Payloads lost since the last call, with a reader or as there was none, by the number of their source."""
        lost, self._lost = self._lost, np.zeros_like(self._lost)
        return lost.tolist()  # type: ignore[no-any-return,unused-ignore]

    def close(self) -> None:
        """Ends the reader. A second call does nothing."""
        self._let_go()
        self._waiting.close()

    def _advance(self, end_ns: int, *, is_last: bool) -> None:
        self._tend()
        if not self._process:
            return
        with self._burying():
            self._process.advance(end_ns, self._audience, is_last=is_last)
            self._unsure[:] = 0

    # --- one after the other

    def _start(self) -> None:
        try:
            self._process = ReaderProcess(self._options)
        except OSError as error:
            self._bury(f"it could not be started ({error})")
            return
        self._start_at = self._clock()
        self._waiting.register(self._process, select.EPOLLIN)

    def _tend(self) -> None:
        """Has another begin where one is due."""
        if not self._process and self._clock() >= self._start_at:
            self._start()

    @contextlib.contextmanager
    def _burying(self) -> Iterator[None]:
        try:
            yield
        except ReaderEnded as ended:
            self._bury(str(ended))

    def _bury(self, why: str) -> None:
        """The reader is no more: what was fed to it is lost, and another begins, in a while where they end often."""
        lived = self._clock() - self._start_at
        self._let_go()
        lost = int(self._unsure.sum())
        self._lost += self._unsure
        self._unsure[:] = 0
        self.endings += 1
        self.fault = why
        self._pause = (
            0.0 if lived >= STEADY_SECONDS else min(max(2 * self._pause, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
        )
        self._start_at = self._clock() + self._pause
        log.warning(
            "the reader of payloads ended: names may be missing, all counts hold; another begins",
            extra={"reason": why, "payloads": lost, "seconds": self._pause},
        )

    def _let_go(self) -> None:
        if self._process:
            self._process.close()  # which takes it out of `_waiting`
            self._process = None


def _by_source(block: PayloadBlock, devices: Mapping[int, int] | None) -> NDArray[np.int64]:
    """How many payloads of each source there are, of those attachments that are read."""
    data, offsets = np.frombuffer(block.data, np.uint8), np.frombuffer(block.offsets, np.int64)
    sources = data[offsets + SOURCE_AT]
    if devices is not None:
        is_read = np.zeros(_ATTACHMENTS, np.bool_)
        is_read[list(devices)] = True
        at = offsets + ATTACHMENT_AT  # little-endian, as all that can be sealed
        sources = sources[is_read[data[at] + (data[at + 1].astype(np.intp) << 8)]]
    return np.bincount(sources, minlength=_SOURCES)
