"""Flows as a pyarrow Table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wiremeter.errors import InputError
from wiremeter.flows.batch import VLAN_NONE, FlowBatch

if TYPE_CHECKING:
    import pyarrow as pa


def table_from_batch(batch: FlowBatch) -> pa.Table:
    """The flows of a batch as a pyarrow Table, one row a flow, columns as FlowBatch.to_arrow says.

    family and protocol are uint8, as in FLOW; ports are uint16 in host order; tcp_flags uint16; packets, bytes and
    skbs uint64. The schema's metadata holds `wiremeter.mode` (live, capture or simulated), `wiremeter.start_ns` and
    `wiremeter.end_ns`.
    Raises InputError if pyarrow is not installed.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise InputError("to_arrow needs pyarrow, which is not installed: pip install 'wiremeter[arrow]'") from error

    flows = batch.flows
    attachment = flows["attachment"].astype("i4")

    def dictionary(values: list[str]) -> Any:
        names = sorted(set(values))
        codes = np.array([names.index(value) for value in values], "i4")
        indices = codes[attachment] if len(codes) else attachment
        return pa.DictionaryArray.from_arrays(pa.array(indices), pa.array(names, pa.string()))

    def addresses(column: str) -> Any:
        packed = np.ascontiguousarray(flows[column])
        return pa.Array.from_buffers(pa.binary(16), len(packed), [None, pa.py_buffer(packed)])

    def times(column: str) -> Any:
        return pa.array(flows[column].astype("i8"), pa.timestamp("ns", "UTC"))

    def numbers(column: str, mask: NDArray[np.bool_] | None = None) -> Any:
        return pa.array(np.ascontiguousarray(flows[column]), mask=mask)

    columns = {
        "device": dictionary([a.device for a in batch.attachments]),
        "direction": dictionary([a.direction for a in batch.attachments]),
        "family": numbers("family"),
        "vlan": numbers("vlan", flows["vlan"] == VLAN_NONE),
        "protocol": numbers("protocol"),
        "src_addr": addresses("src_addr"),
        "dst_addr": addresses("dst_addr"),
        "src_port": numbers("src_port"),
        "dst_port": numbers("dst_port"),
        "packets": numbers("packets"),
        "bytes": numbers("bytes"),
        "skbs": numbers("skbs"),
        "tcp_flags": numbers("tcp_flags"),
        "first_time": times("first_ns"),
        "last_time": times("last_ns"),
    }
    about = {"mode": batch.mode, "start_ns": str(batch.start_ns), "end_ns": str(batch.end_ns)}
    return pa.table(columns).replace_schema_metadata({f"wiremeter.{key}": value for key, value in about.items()})
