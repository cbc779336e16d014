"""wiremeter: a meter on the wire. The public names, nothing else."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wiremeter.datapath.naming import NameOptions
    from wiremeter.errors import InputError, KernelError, PermissionNeeded, VerifierError, WiremeterError
    from wiremeter.flows.batch import Attachment, Audit, FlowBatch, Health, KernelCounters, Tally
    from wiremeter.flows.columns import address_text
    from wiremeter.metering.monitor import Monitor
    from wiremeter.synthetic.simulation import simulate

__version__ = "0.1.0"

__all__ = [
    "Attachment",
    "Audit",
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
    "simulate",
]


def __getattr__(name: str) -> Any:
    # At first use: `wiremeter --help` needs no NumPy, and all but Monitor works where there is no libbpf.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    homes = {
        "Monitor": "wiremeter.metering.monitor",
        "NameOptions": "wiremeter.datapath.naming",
        "address_text": "wiremeter.flows.columns",
        "simulate": "wiremeter.synthetic.simulation",
    }
    usual = "wiremeter.errors" if name.endswith(("Error", "Needed")) else "wiremeter.flows.batch"
    home = homes.get(name, usual)
    return getattr(importlib.import_module(home), name)
