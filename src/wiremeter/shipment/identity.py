"""The identity of a batch: what makes sending it twice the same as sending it once."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from wiremeter.errors import InputError
from wiremeter.shipment.schema import FORMAT

#: What an agent may be called: words that are safe in a path, a URL, a label and a certificate's URN.
AGENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
#: In the certificate of an agent, its subject alternative name is the URI with its id behind this.
AGENT_URN = "urn:wiremeter:agent:"

_PREFIX = "wiremeter."
#: Below 2^63: nanoseconds since the Unix epoch have 19 digits.
_NUMBER = re.compile(r"[0-9]{1,18}|[1-8][0-9]{18}")
#: Reasons that `dropped` may tell of; a peer's metadata is not to fill memory.
_REASONS_MAX = 64


class Identity(NamedTuple):
    """Which batch it is.

    agent: matches AGENT_ID, and stays over restarts and reinstallation. boot: a UUID, made when an agent begins to
    count sequences from 0, and never used again. sequence: from 0, one more with each batch; one that is missing was
    dropped.
    """

    agent: str
    boot: str
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What the schema metadata of a batch's first table says, beside its name.

    mode: live, or simulated. start_ns, end_ns: the interval, nanoseconds since the Unix epoch, by the agent's clock.
    version: of the agent. dropped: batches of this boot that the agent gave up, by reason, up to when this one was
    made; they only grow.
    """

    identity: Identity
    mode: str
    start_ns: int
    end_ns: int
    version: str
    dropped: Mapping[str, int] = field(default_factory=dict)

    def to_metadata(self) -> dict[str, str]:
        """Keys and values for the schema of the first table."""
        found = {
            "format": FORMAT,
            **self.identity._asdict(),
            "mode": self.mode,
            "start_ns": self.start_ns,
            "end_ns": self.end_ns,
            "version": self.version,
        }
        if self.dropped:
            found["dropped"] = json.dumps(dict(self.dropped), separators=(",", ":"))
        return {_PREFIX + key: str(value) for key, value in found.items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Self:
        """Read back; other keys are passed over. Raises InputError, which names the key that is missing or wrong.

        >>> about = About(identity=Identity("web-1", new_boot(), 7), mode="live", start_ns=0, end_ns=5, version="1.0")
        >>> About.from_metadata(about.to_metadata()) == about
        True
        """

        def text(key: str, pattern: re.Pattern[str] | None = None) -> str:
            value = metadata.get(_PREFIX + key)
            if value is None:
                raise InputError(f"the batch's metadata lacks {_PREFIX}{key}")
            if pattern and not pattern.fullmatch(value):
                raise InputError(f"the batch's {_PREFIX}{key} is {value[:80]!r}, which cannot be")
            return value

        if text("format") != FORMAT:
            raise InputError(f"the batch has format {text('format')[:80]!r}, this is for format {FORMAT}")
        start_ns, end_ns = int(text("start_ns", _NUMBER)), int(text("end_ns", _NUMBER))
        if end_ns < start_ns:
            raise InputError(f"the batch ends at {end_ns}, before it begins at {start_ns}")
        return cls(
            identity=Identity(text("agent", AGENT_ID), text("boot", _UUID), int(text("sequence", _NUMBER))),
            mode=text("mode", _MODE),
            start_ns=start_ns,
            end_ns=end_ns,
            version=text("version", _VERSION),
            dropped=_dropped(metadata.get(_PREFIX + "dropped", "{}")),
        )


_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MODE = re.compile(r"live|capture|simulated")
_VERSION = re.compile(r"[ -~]{1,80}")
_REASON = re.compile(r"[a-z0-9_]{1,40}")


def _dropped(text: str) -> dict[str, int]:
    wrong = InputError(f"the batch's {_PREFIX}dropped is {text[:80]!r}, expected numbers by reason")
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise wrong from None
    if not isinstance(found, dict) or len(found) > _REASONS_MAX:
        raise wrong
    if not all(_REASON.fullmatch(reason) and type(n) is int and 0 <= n < 1 << 63 for reason, n in found.items()):
        raise wrong
    return found


def new_boot() -> str:
    """A boot that there never was before."""
    return str(uuid.uuid4())


def content_digest(content: bytes | memoryview) -> str:
    """The Content-Digest header of `content` as it is sent (RFC 9530).

    >>> content_digest(b"")
    'sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:'
    """
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


def read_content_digest(header: str) -> bytes:
    """The SHA-256 in a Content-Digest header, 32 bytes; other algorithms beside it are passed over.

    Raises InputError if there is none that can be read.

    >>> read_content_digest(content_digest(b"x")) == hashlib.sha256(b"x").digest()
    True
    """
    for member in header.split(","):
        algorithm, _, value = member.strip().partition("=")
        matched = re.fullmatch(r":([A-Za-z0-9+/]{43}=):", value)
        if algorithm == "sha-256" and matched:
            return base64.b64decode(matched[1])
    raise InputError("Content-Digest holds no sha-256 (RFC 9530): expected sha-256=:BASE64:")
