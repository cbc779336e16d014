"""What a reader told, before anybody uses it: places outside their columns are refused.

A reader that was taken over can still lie about names. It cannot make the meter read what is not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wiremeter.isolation.messages import Told
from wiremeter.names.columns import DTYPES

if TYPE_CHECKING:
    from wiremeter.names.reader import Audience

#: Of all that is known of a conversation: WM_CELL_BYTES in bpf/names/cells.h.
NAME_BYTES_MAX = 512
_LAST_NS = (1 << 63) - 1
_LOST_MAX = 1 << 32


class NotCredibleError(Exception):
    """A reader told what none tells that does as it should."""


def pass_on(told: Told, audience: Audience) -> None:
    """Tells `audience`. Raises NotCredibleError before anything is told."""
    _check_columns(told.columns)
    audience.take(told.columns)


def _check_columns(raw: Mapping[str, bytes]) -> None:
    if raw.keys() != DTYPES.keys() | {"text"}:
        raise NotCredibleError("other columns than there are")
    if any(len(raw[name]) % dtype.itemsize for name, dtype in DTYPES.items()):
        raise NotCredibleError("a column that ends within a row")
    columns = {name: np.frombuffer(raw[name], dtype) for name, dtype in DTYPES.items()}
    for name, rows in columns.items():
        fields = rows.dtype.names or ()
        if "time_ns" in fields and (rows["time_ns"] > _LAST_NS).any():
            raise NotCredibleError(f"{name} of no time")
        for what in (field.removesuffix("_at") for field in fields if field.endswith("_at")):
            # A place and its size: x_at and x_bytes in the text, x_at and x in the column x.
            is_text = f"{what}_bytes" in fields
            sizes = rows[f"{what}_bytes" if is_text else what].astype(np.int64)
            if _reach(rows[f"{what}_at"], sizes) > len(raw["text"] if is_text else columns[what]):
                raise NotCredibleError(f"{name} with {what} outside of what was told")
    _check_names(columns["names"])
    if (columns["lost"] > _LOST_MAX).any():
        raise NotCredibleError("more lost than there was")


def _check_names(names: NDArray[np.void]) -> None:
    """The texts of a name lie one behind the other, and as many as there are names are kept for long."""
    lengths = names["query_at"].astype(np.int64) + names["query_bytes"] - names["domain_at"]
    if ((lengths < 0) | (lengths > NAME_BYTES_MAX)).any():
        raise NotCredibleError("a name that is longer than any")


def _reach(begin: NDArray[np.uint32], sizes: NDArray[np.int64]) -> int:
    """Where the last of so many places ends; those of no size are nowhere."""
    return int(np.where(sizes > 0, begin + sizes, 0).max(initial=0))
