"""The process that meters for a test: it goes into the network, meters, and hands batches over on its output.

A process of its own, because only one with a single thread can enter a user namespace, and a test has more.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any, BinaryIO

from wiremeter.testing.messages import receive, send


def main() -> None:
    """Reads what to do from standard input, then meters until that ends."""
    told, output = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing else may come between the batches
    options: dict[str, Any] = receive(told)
    try:
        _meter(options, told, output)
    except Exception as error:
        send(output, ("failed", str(error) or type(error).__name__))


def _meter(options: dict[str, Any], told: BinaryIO, output: BinaryIO) -> None:
    from wiremeter.testing import kernel

    if options["network"] is None:
        kernel.make_network(own_user=options["own_user"])
    elif options["network"]:
        kernel.enter(options["network"], kernel.CLONE_NEWNET)
    send(output, ("made",))  # the namespace is there from now on, whatever becomes of the meter
    from wiremeter.datapath.naming import NameOptions
    from wiremeter.metering.monitor import Monitor

    names = NameOptions(redact_paths=False)
    with Monitor(
        *options["interfaces"], interval=options["interval"], attach=options["attach"], names=names
    ) as monitor:

        def close_when_told() -> None:
            told.read()
            monitor.close()

        threading.Thread(target=close_when_told, daemon=True).start()
        send(output, ("ready",))
        for batch in monitor:
            send(output, ("batch", batch))


if __name__ == "__main__":
    main()
