"""A meter on the wire: exact host network traffic as arrays.

Three sources give the same batches:

    Monitor("eth0")             live traffic of this host, as a context manager; needs the rights to use BPF
    replay("traffic.pcap")      capture files, without privileges
    simulate("web")             synthetic traffic with known totals, marked as simulated

Each yields a FlowBatch for an interval: `flows`, a NumPy array with a row a flow; `audit`, what was seen and where it
went; names and transactions. `to_arrow()`, `to_polars()`, `to_pandas()` and `to_duckdb()` hand it on, and `filter=`, or
`batch.filter("tcp port 443")`, leaves flows out. For tests there is wiremeter.testing.
`connect(url)` asks a server of a fleet; its answers are Arrow tables.

    import wiremeter

    with wiremeter.Monitor("eth0", interval="1s") as monitor:
        for batch in monitor:
            print(len(batch.flows), batch.audit)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wiremeter.captures.replay import replay
    from wiremeter.client.connection import connect
    from wiremeter.datapath.naming import NameOptions
    from wiremeter.errors import InputError, KernelError, PermissionNeeded, VerifierError, WiremeterError
    from wiremeter.flows.batch import Attachment, Audit, Drop, FlowBatch, Health, KernelCounters, Tally
    from wiremeter.flows.columns import address_text
    from wiremeter.metering.monitor import Monitor
    from wiremeter.synthetic.simulation import simulate

__version__ = "0.1.0"

# At first use: `wiremeter --help` needs no NumPy, and all but Monitor works where there is no libbpf.
_HOMES = {
    "Attachment": "flows.batch",
    "Audit": "flows.batch",
    "Drop": "flows.batch",
    "FlowBatch": "flows.batch",
    "Health": "flows.batch",
    "InputError": "errors",
    "KernelCounters": "flows.batch",
    "KernelError": "errors",
    "Monitor": "metering.monitor",
    "NameOptions": "datapath.naming",
    "PermissionNeeded": "errors",
    "Tally": "flows.batch",
    "VerifierError": "errors",
    "WiremeterError": "errors",
    "address_text": "flows.columns",
    "connect": "client.connection",
    "replay": "captures.replay",
    "simulate": "synthetic.simulation",
}

__all__ = [
    "Attachment",
    "Audit",
    "Drop",
    "FlowBatch",
    "Health",
    "InputError",
    "KernelCounters",
    "KernelError",
    "Monitor",
    "NameOptions",
    "PermissionNeeded",
    "Tally",
    "VerifierError",
    "WiremeterError",
    "address_text",
    "connect",
    "replay",
    "simulate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__})
