"""The process that meters for a test: it goes into the network, meters, and hands batches over on its output.

A process of its own, because only one with a single thread can enter a user namespace, and a test has more.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import traceback
from typing import Any, BinaryIO, Literal

from wiremeter.errors import InputError, KernelError, PermissionNeeded, VerifierError, WiremeterError
from wiremeter.testing.errors import CannotMeter
from wiremeter.testing.messages import receive, send

#: What the kernel says where a call is forbidden, unknown or beyond what the machine grants.
_REFUSALS = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


def main() -> None:
    """Reads what to do from standard input, then meters until that ends."""
    told, output = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing else may come between the batches
    options: dict[str, Any] = receive(told)
    try:
        _meter(options, told, output)
    except Exception as error:
        send(output, (kind_of(error), str(error) if isinstance(error, WiremeterError) else traceback.format_exc()))
    else:
        send(output, ("finished",))


def kind_of(error: Exception) -> Literal["refused", "wrong", "broken"]:
    """Whose move an error is: this machine's, which does not allow it; the test's, which asked wrongly; or ours."""
    if isinstance(error, (PermissionNeeded, CannotMeter)):
        return "refused"
    if isinstance(error, KernelError) and not isinstance(error, VerifierError) and error.errno in _REFUSALS:
        return "refused"
    return "wrong" if isinstance(error, InputError) else "broken"


def _meter(options: dict[str, Any], told: BinaryIO, output: BinaryIO) -> None:
    from wiremeter.testing import kernel

    if options["network"] is None:
        kernel.make_network(own_user=options["own_user"])
    elif options["network"]:
        kernel.enter_network(options["network"])
    send(output, ("made",))  # the namespace is there from now on, whatever becomes of the meter
    from wiremeter.datapath.naming import NameOptions
    from wiremeter.linux.host import read_host
    from wiremeter.metering.attach_policy import capture_problems, host_problems
    from wiremeter.metering.monitor import Monitor

    host = read_host()
    if problems := capture_problems(host) if options["attach"] == "capture" else host_problems(host):
        raise CannotMeter(" ".join(problems))
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
