"""What a reader told, before anybody uses it: places outside their columns and flows that are none are refused.

A reader that was taken over can still lie about names. It cannot make the meter read what is not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wiremeter.isolation.messages import Told
from wiremeter.names.columns import DTYPES
from wiremeter.names.records import FlowKey, FlowName, Transaction

if TYPE_CHECKING:
    from wiremeter.names.reader import Audience

_LAST_NS = (1 << 63) - 1
_NUMBERS = {"src_port": 16, "dst_port": 16, "protocol": 8, "family": 8}  # bits


class NotCredibleError(Exception):
    """A reader told what none tells that does as it should."""


def pass_on(told: Told, audience: Audience) -> None:
    """Tells `audience`. Raises NotCredibleError before anything is told."""
    if told.dns:
        _check_columns(told.dns)
    ended: list[tuple[int, Transaction]] = [*told.tls, *told.quic, *told.http]
    _check_transactions(transaction for _, transaction in ended)
    if told.dns:
        audience.take_dns(told.dns)
    for flow, name, time_ns in told.names:
        audience.take_name(FlowKey(*flow), FlowName(*name), time_ns)
    for device, transaction in ended:
        audience.take_ended(device, transaction)


def _check_transactions(transactions: Iterable[Transaction]) -> None:
    for each in transactions:
        flow = each.flow
        if not 0 <= each.time_ns <= _LAST_NS or len(flow.src_addr) != 16 or len(flow.dst_addr) != 16:
            raise NotCredibleError(f"{type(each).__name__} of no time or address")
        if any(not 0 <= getattr(flow, number) < 1 << bits for number, bits in _NUMBERS.items()):
            raise NotCredibleError(f"{type(each).__name__} of no port or protocol")


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


def _reach(begin: NDArray[np.uint32], sizes: NDArray[np.int64]) -> int:
    """Where the last of so many places ends; those of no size are nowhere."""
    return int(np.where(sizes > 0, begin + sizes, 0).max(initial=0))
