"""What can go wrong with a store, by whose move it is."""

from __future__ import annotations

from wiremeter.errors import WiremeterError


class StoreError(WiremeterError):
    """Base of what a store raises on purpose."""


class Conflict(StoreError):
    """A batch has the identity of one that is stored, and other content. It will never be taken."""


class Refused(StoreError):
    """The engine understood and said no: the statement, or the rows, are wrong. Trying again will not help.

    code: ClickHouse's number of the error, 0 where it gave none.
    """

    def __init__(self, message: str, *, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class TooMuch(Refused):
    """A query went beyond its limits of time, memory or rows; the text says which."""


class Unavailable(StoreError):
    """The store cannot do it now; nothing was acknowledged. Try again.

    retry_after: seconds after which that makes sense.
    """

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after
