"""Passwords before an ASGI application (RFC 7617), against bcrypt hashes."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable

from wiremeter.agent.http import Application, Receive, Scope, Send
from wiremeter.agent.web_config import WebConfig

#: Answers that are remembered: a hash takes long on purpose, and Prometheus asks every few seconds.
_REMEMBERED = 100
#: bcrypt takes no more of a password.
_PASSWORD_BYTES = 72


def guarded(app: Application, config: Callable[[], WebConfig]) -> Application:
    """`app` for those who have a password, where the configuration of the moment names users, and with its headers."""
    passwords = _Passwords()

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        now = config()
        extra = [(name.lower().encode(), value.encode()) for name, value in now.headers]

        async def send_with_headers(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                message = message | {"headers": [*message["headers"], *extra]}  # type: ignore[misc]
            await send(message)

        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if now.users and not await passwords.are_right(now, given):
            said = b"a user and a password are needed\n"
            headers = [
                (b"www-authenticate", b'Basic realm="wiremeter", charset="UTF-8"'),
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", str(len(said)).encode()),
            ]
            await send_with_headers({"type": "http.response.start", "status": 401, "headers": headers})
            await send_with_headers({"type": "http.response.body", "body": said})
            return
        await app(scope, receive, send_with_headers)  # type: ignore[arg-type]

    return guard


class _Passwords:
    """Compares, one at a time and in a thread, and remembers."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(16)  # what is remembered shall not be a fast hash to try passwords on
        self._known: OrderedDict[bytes, bool] = OrderedDict()
        self._one = asyncio.Lock()

    async def are_right(self, config: WebConfig, header: bytes) -> bool:
        found = _credentials(header)
        if found is None:
            return False
        user, password = found
        hashed = config.users.get(user)
        remembered = hashlib.blake2b(
            b"\0".join((user.encode(), (hashed or "").encode(), password)), key=self._key
        ).digest()
        if remembered not in self._known:
            async with self._one:
                # For a user that there is not, another's hash: it shall not be told by the time that takes.
                compared = hashed or next(iter(config.users.values()))
                is_right = await asyncio.to_thread(_is_right, password, compared)
            self._known[remembered] = is_right and hashed is not None
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return self._known[remembered]


def _credentials(header: bytes) -> tuple[str, bytes] | None:
    scheme, _, encoded = header.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        return (user.decode(), password) if colon else None
    except (binascii.Error, UnicodeDecodeError):
        return None


def _is_right(password: bytes, hashed: str) -> bool:
    import bcrypt

    if b"\0" in password:
        return False
    return bcrypt.checkpw(password[:_PASSWORD_BYTES], hashed.encode())
