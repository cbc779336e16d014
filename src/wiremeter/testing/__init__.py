"""Assertions about network traffic in tests: what a program sent, asked and received, counted by the meter.

    from wiremeter.testing import Namespace

    with Namespace() as network:                        # a network of its own, with a loopback device; no root needed
        network.run(["my-program", "--once"])
        assert network.traffic.dns(name="db.internal").count == 1
        assert network.traffic.total("tcp port 5432").packets > 0

`meter` meters a network that is there already: that of this process, of another one, or a named one.
For pytest there are fixtures: `pytest_plugins = ["wiremeter.testing.fixtures"]`; see docs/testing.md.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wiremeter.testing.errors import CannotMeter, TrafficLost
    from wiremeter.testing.namespace import Namespace, meter
    from wiremeter.testing.traffic import Amount, Found, Traffic

# At first use: the process that goes into a user namespace may have no other thread, and NumPy starts some.
_HOMES = {
    "Amount": "traffic",
    "CannotMeter": "errors",
    "Found": "traffic",
    "Namespace": "namespace",
    "Traffic": "traffic",
    "TrafficLost": "errors",
    "meter": "namespace",
}

__all__ = ["Amount", "CannotMeter", "Found", "Namespace", "Traffic", "TrafficLost", "meter"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__})
