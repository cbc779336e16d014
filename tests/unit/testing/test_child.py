"""What the metering process of a test says went wrong, and whose move that is."""

from __future__ import annotations

import errno
import io

import pytest

from wiremeter.errors import InputError, KernelError, PermissionNeeded, VerifierError, WiremeterError
from wiremeter.testing.child import kind_of
from wiremeter.testing.errors import CannotMeter
from wiremeter.testing.messages import receive, send


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PermissionNeeded("no CAP_BPF"), "refused"),
        (CannotMeter("no user namespaces"), "refused"),
        (KernelError("bpf() is filtered", errno=errno.EPERM), "refused"),
        (KernelError("no such attach type", errno=errno.EOPNOTSUPP), "refused"),
        (InputError("no such device"), "wrong"),
        (KernelError("attach", errno=errno.EINVAL), "broken"),
        (VerifierError("refused", log="", errno=errno.EACCES), "broken"),
        (WiremeterError("anything else"), "broken"),
        (ZeroDivisionError(), "broken"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_only_what_the_machine_refuses_skips_a_test(error: Exception, kind: str) -> None:
    assert kind_of(error) == kind


def test_a_message_that_was_cut_is_the_end() -> None:
    pipe = io.BytesIO()
    send(pipe, ("batch", 1))
    whole = pipe.getvalue()
    assert receive(io.BytesIO(whole)) == ("batch", 1)
    for length in range(len(whole)):
        assert receive(io.BytesIO(whole[:length])) is None
