"""Who sent a request: by its token, else by the certificate that its connection showed."""

from __future__ import annotations

from collections.abc import Iterable

from wiremeter.errors import WiremeterError
from wiremeter.server.access.principal import ANYONE, Principal
from wiremeter.server.access.tokens import TokenFile
from wiremeter.shipment.identity import AGENT_ID, AGENT_URN


class NotKnown(WiremeterError):
    """A request shows nothing, or nothing that counts."""


class Gate:
    """Tells who sent a request."""

    def __init__(self, tokens: TokenFile, *, is_open: bool) -> None:
        """is_open: who shows nothing may do everything."""
        self._tokens = tokens
        self._is_open = is_open

    @property
    def is_open(self) -> bool:
        """Whether who shows nothing may do everything."""
        return self._is_open

    def principal(self, authorization: str | None, certificate_uris: Iterable[str] = ()) -> Principal:
        """Who it is. authorization: the header. certificate_uris: of the client's certificate, which was verified.

        Raises NotKnown, whose text tells no more than the client has said itself.
        """
        if authorization is not None:
            scheme, _, token = authorization.partition(" ")
            if scheme.lower() != "bearer":
                raise NotKnown("expected Authorization: Bearer TOKEN")
            found = self._tokens.find(token.strip())
            if found is None:
                raise NotKnown("the token is not known, or was revoked")
            return found
        for uri in certificate_uris:
            agent = uri.removeprefix(AGENT_URN)
            if agent != uri and AGENT_ID.fullmatch(agent):
                return Principal(f"certificate of {agent}", frozenset({"write"}), agent)
        if self._is_open:
            return ANYONE
        raise NotKnown("a token is needed: Authorization: Bearer TOKEN (`wiremeter token create` makes one)")
