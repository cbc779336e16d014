"""Tokens in a file: shown once as they are made, kept as hashes, and read again when the file has changed."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import re
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import msgspec

from wiremeter.errors import InputError, PermissionNeeded
from wiremeter.files import write_whole
from wiremeter.server.access.principal import Principal
from wiremeter.settings.words import TOKEN_RIGHTS, TokenRight
from wiremeter.shipment.identity import AGENT_ID

_FORMAT, _VERSION = "wiremeter tokens", 1
#: `wm_` marks them for those who search repositories for secrets; then the token's id, and 256 random bits.
_TOKEN = re.compile(r"wm_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")
#: How often the file is looked at, at most.
LOOK_SECONDS = 1.0


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """One token. id: 8 hexadecimal digits, no secret. hash: SHA-256 of the secret part, in hexadecimal: a random
    secret of 256 bits needs no slow hash. agent: the only one it writes for. created, revoked: Unix time in seconds."""

    id: str
    name: str
    rights: list[TokenRight]
    hash: str
    agent: str | None = None
    created: int = 0
    revoked: int | None = None

    @property
    def principal(self) -> Principal:
        """Who shows it."""
        return Principal(f"token {self.id} ({self.name})", frozenset(self.rights), self.agent)


class _File(msgspec.Struct, kw_only=True):
    format: str = _FORMAT
    version: int = _VERSION
    tokens: list[Token] = []


class TokenFile:
    """The tokens of a file, which may not be there yet. May be used from any thread, and by several processes."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._looked = -LOOK_SECONDS
        self._state: tuple[int, int, int] | None = None
        self._by_id: dict[str, Token] = {}

    def find(self, text: str) -> Principal | None:
        """Who shows this token; None for one that is not known, or revoked. Raises InputError for a damaged file."""
        matched = _TOKEN.fullmatch(text)
        with self._lock:
            self._look()
            token = self._by_id.get(matched[1]) if matched else None
        # Compared in any case, so that time tells nobody which ids there are.
        is_right = hmac.compare_digest(_hash(matched[2] if matched else ""), token.hash if token else "")
        return token.principal if token and is_right and token.revoked is None else None

    def all(self) -> list[Token]:
        """Every token, revoked ones too, the oldest first. Raises InputError for a file that cannot be read."""
        return self._read().tokens

    def create(self, name: str, rights: Collection[TokenRight], agent: str | None = None) -> tuple[Token, str]:
        """A new token, and its text, which is nowhere else. Raises InputError for what cannot be, or not be written."""
        if not name or len(name) > 80 or not name.isprintable():
            raise InputError("a token needs a name of at most 80 printable characters, to know it by")
        if not rights or set(rights) - set(TOKEN_RIGHTS):
            raise InputError(f"a token needs rights: some of {', '.join(TOKEN_RIGHTS)}")
        if agent is not None and not AGENT_ID.fullmatch(agent):
            raise InputError(f"{agent!r} cannot be an agent's id: letters, digits, dot, dash and underscore")
        if agent is not None and "write" not in rights:
            raise InputError(f"a token for the agent {agent} needs the right to write")
        secret = secrets.token_urlsafe(32)
        with self._changing() as file:
            taken = {token.id for token in file.tokens}
            id = next(id for id in iter(lambda: secrets.token_hex(4), "") if id not in taken)
            token = Token(
                id=id,
                name=name,
                rights=[right for right in TOKEN_RIGHTS if right in rights],
                hash=_hash(secret),
                agent=agent,
                created=int(time.time()),
            )
            file.tokens.append(token)
        return token, f"wm_{id}_{secret}"

    def revoke(self, id: str) -> Token:
        """Has a token count no more, within LOOK_SECONDS where a server runs. Raises InputError for one not known."""
        with self._changing() as file:
            for place, token in enumerate(file.tokens):
                if token.id == id:
                    if token.revoked is None:
                        file.tokens[place] = msgspec.structs.replace(token, revoked=int(time.time()))
                    return file.tokens[place]
        raise InputError(f"{self._path}: there is no token {id}; `wiremeter token list` shows them")

    def _look(self) -> None:
        now = self._clock()
        if now - self._looked < LOOK_SECONDS:
            return
        try:
            found = self._path.stat()
            state = (found.st_ino, found.st_mtime_ns, found.st_size)
        except FileNotFoundError:
            self._state, self._by_id = None, {}
            state = None
        except OSError as error:
            raise InputError(f"{self._path}: the tokens cannot be read: {error.strerror}") from error
        if state != self._state:
            self._by_id = {token.id: token for token in self._read().tokens}
            self._state = state
        self._looked = now  # only now: as long as the file cannot be read, nobody is let in

    def _read(self) -> _File:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return _File()
        except OSError as error:
            raise InputError(f"{self._path}: the tokens cannot be read: {error.strerror}") from error
        try:
            file = msgspec.json.decode(content, type=_File)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InputError(f"{self._path}: not a file of tokens: {error}") from error
        if (file.format, file.version) != (_FORMAT, _VERSION):
            raise InputError(f"{self._path}: not a file of tokens that this wiremeter reads")
        return file

    @contextlib.contextmanager
    def _changing(self) -> Iterator[_File]:
        """The file as it is now; what the block makes of it is written whole or not at all, by one at a time."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(self._path.with_name(f".{self._path.name}.lock"), "wb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                file = self._read()
                yield file
                write_whole(self._path, msgspec.json.format(msgspec.json.encode(file)), keep_owner=True)
        except PermissionError as error:
            raise PermissionNeeded(f"{self._path}: the tokens cannot be written: {error.strerror}; use sudo") from error
        except OSError as error:
            raise InputError(f"{self._path}: the tokens cannot be written: {error.strerror}") from error


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
