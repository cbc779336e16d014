"""Who asks, as far as the server knows, and what that permits."""

from __future__ import annotations

from dataclasses import dataclass

from wiremeter.settings.words import TOKEN_RIGHTS, TokenRight


@dataclass(frozen=True, slots=True)
class Principal:
    """name: for logs. rights: what may be done. agent: the only agent it may write for; None: for any."""

    name: str
    rights: frozenset[TokenRight]
    agent: str | None = None

    def may(self, right: TokenRight) -> bool:
        """Whether it has a right.

        >>> Principal("alice", frozenset({"admin"})).may("read"), Principal("a", frozenset({"read"})).may("write")
        (True, False)
        """
        return right in self.rights or (right == "read" and "admin" in self.rights)

    def may_write_for(self, agent: str) -> bool:
        """Whether batches of that agent may come from here."""
        return self.may("write") and self.agent in (None, agent)


#: Where authentication is off, which is only on loopback unless somebody said otherwise in words.
ANYONE = Principal("anyone", frozenset(TOKEN_RIGHTS))
