"""What live metering asks of an engine, whatever it counts with: the kernel's programs, or packet sockets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from wiremeter.flows.columns import AttachMode, Direction

if TYPE_CHECKING:
    from wiremeter.datapath.drain import Drain
    from wiremeter.datapath.layout import TablePlan
    from wiremeter.flows.batch import Mark
    from wiremeter.names.payloads import PayloadBlock


@dataclass(frozen=True, slots=True)
class Hook:
    """Where to attach: one device in one direction.

    l2_bytes: 14 with an Ethernet header, else 0. vlan_from_driver: at XDP, ask the driver for the tag it has stripped.
    load_only: load the program of this mode without attaching it, for test runs.
    """

    device: str
    ifindex: int
    direction: Direction
    mode: AttachMode
    l2_bytes: int = 14
    vlan_from_driver: bool = False
    load_only: bool = False


class Lasts(NamedTuple):
    """About tables that outlive the process. tables: what they are called. told_until_ns: the end of what agents before
    this one have told of them, nanoseconds since the Unix epoch; 0 where nobody has."""

    tables: str
    told_until_ns: int


class ProgramInfo(Protocol):
    """What the kernel knows of a loaded program; run time and count only grow while BPF statistics are on."""

    @property
    def id(self) -> int:
        """The kernel's number for it."""

    @property
    def name(self) -> str:
        """Up to 15 characters."""

    @property
    def run_ns(self) -> int:
        """Nanoseconds in all runs."""

    @property
    def runs(self) -> int:
        """How often it ran."""


class LiveAttachment(Protocol):
    """One device in one direction.

    slot: where the tables count for it, until the engine has taken its last counts: then it may be another's.
    """

    slot: int

    @property
    def hook(self) -> Hook:
        """Where it is."""

    def is_first(self) -> bool:
        """Whether no other program comes before ours."""

    def is_attached(self) -> bool:
        """Whether it still counts what it was attached to."""

    def info(self) -> ProgramInfo:
        """About its program. Raises InputError where there is none."""


class FlipRequests(Protocol):
    """What there is to wait for between flips."""

    def fileno(self) -> int:
        """Readable when `take` should be called."""

    def take(self) -> object:
        """True (or what counts as true) where a table is filling, so that a flip is due before the interval ends."""


class LiveEngine(Protocol):
    """Tables, and what fills them. One thread may prepare, attach and release while another flips."""

    @property
    def plan(self) -> TablePlan:
        """Sizes of the tables."""

    @property
    def table_bytes(self) -> int:
        """Memory of the tables and whatever else holds packets or counts."""

    @property
    def flips(self) -> int:
        """Since the beginning."""

    @property
    def flip_requests(self) -> FlipRequests:
        """To be waited for along with the end of the interval."""

    @property
    def payload_rings(self) -> Sequence[Any]:
        """Where payloads wait that a name may be read from; empty where names are off. Each has a fileno."""

    @property
    def lasts(self) -> Lasts | None:
        """What outlives the process; None where nothing does: then it is all taken off at the end."""

    @property
    def adopted(self) -> Sequence[Any]:
        """Attachments that agents before this one have made, whether they can still count or not."""

    def take_recovered(self) -> list[Drain]:
        """What agents before this one have read and not told, or not read; oldest first."""

    def told(self, mark: Mark) -> None:
        """All up to there was told: no agent after this one will tell it again."""

    def take_payloads(self, ring: Any) -> PayloadBlock:
        """The oldest payloads that wait in one of `payload_rings`, not all if they are many; none: no offsets."""

    def prepare(self, hook: Hook) -> None:
        """Loads what takes long to load before the first `attach` of its kind. Raises WiremeterError."""

    def attach(self, hook: Hook) -> LiveAttachment:
        """Begins to count. Raises WiremeterError."""

    @property
    def attachments(self) -> Sequence[Any]:
        """Those that are attached now."""

    def release(self, attachment: Any) -> None:
        """Ends counting; what was counted comes with the next flips."""

    def holds(self, attachment: Any) -> bool:
        """Whether counts of `attachment` may still come."""

    def flip(self, turned: Callable[[], None] | None = None) -> Drain:
        """All that was counted since the last flip. turned: called at the moment from which on packets belong to the
        next one, before anything that takes time."""
