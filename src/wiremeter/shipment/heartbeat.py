"""What a heartbeat says: JSON, defined once for agents and servers."""

from __future__ import annotations

from typing import Literal

import msgspec

from wiremeter.errors import InputError

#: A heartbeat of a host with a thousand devices has some 300 kB.
BYTES_MAX = 1 << 22


class Spool(msgspec.Struct, frozen=True, kw_only=True):
    """What waits at the agent. oldest_ns: since when, Unix time. dropped: batches given up, by reason, of this boot."""

    batches: int
    bytes: int
    oldest_ns: int | None = None
    dropped: dict[str, int] = {}


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A device that is metered. attach: how, by direction. addresses: with prefix lengths. mac: "" without one."""

    name: str
    ifindex: int
    attach: dict[str, str]
    addresses: list[str] = []
    mac: str = ""
    speed_mbits: int | None = None
    mtu: int | None = None
    driver: str = ""


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """Where the agent runs; None where nothing tells."""

    hostname: str
    kernel: str
    os: str | None = None
    container: str | None = None
    virtual_machine: str | None = None
    kubernetes_node: str | None = None
    cloud_instance: str | None = None


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A finding: what an operator should know now."""

    severity: Literal["fault", "warning", "note"]
    kind: str
    text: str
    advice: str = ""
    device: str = ""
    direction: str = ""


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """One heartbeat. agent, boot: as in identities of batches. started_ns, clock_ns: Unix time by the agent's clock, at
    its start and now, so that the server knows how far that clock is off. interval_seconds: between batches.
    settings_hash: changes when a setting does."""

    agent: str
    boot: str
    version: str
    started_ns: int
    uptime_seconds: float
    interval_seconds: float
    settings_hash: str
    clock_ns: int
    spool: Spool
    host: Host
    devices: list[Device] = []
    findings: list[Told] = []


def to_json(heartbeat: Heartbeat) -> bytes:
    """The body of a request."""
    return msgspec.json.encode(heartbeat)


def from_json(body: bytes) -> Heartbeat:
    """Read back; keys that are not known are passed over. Raises InputError, which says what is wrong.

    >>> from_json(b"{}")
    Traceback (most recent call last):
        ...
    wiremeter.errors.InputError: a heartbeat that cannot be read: Object missing required field `agent`
    """
    if len(body) > BYTES_MAX:
        raise InputError(f"a heartbeat of {len(body):,} bytes: at most {BYTES_MAX:,} are taken")
    try:
        return msgspec.json.decode(body, type=Heartbeat)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InputError(f"a heartbeat that cannot be read: {error}") from error
