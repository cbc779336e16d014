"""The seal: after it a process has no privilege, and can only compute and talk over the descriptors it has."""

from __future__ import annotations

import contextlib
import os
import resource

from wiremeter.errors import InputError

try:
    from wiremeter.isolation import _seal  # type: ignore[attr-defined,unused-ignore]
except ImportError as error:  # pragma: no cover - only without a build
    raise InputError(f"the seal is not built ({error}): run `make build`, or `pip install .`") from error

#: Nobody's user and group number (kernel.overflowuid).
NOBODY = 65534
#: More memory than reading payloads ever took, by far.
_DATA_BYTES = 512 << 20
_LIMITS = {
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_FSIZE: 0,
    resource.RLIMIT_NOFILE: 0,
    resource.RLIMIT_NPROC: 0,
    resource.RLIMIT_DATA: _DATA_BYTES,
}


def seal() -> None:
    """Seals this process, for good. Everything it will need has been loaded.

    Raises OSError, saying what this host refuses.
    """
    for what, most in _LIMITS.items():
        resource.setrlimit(what, (most, most))
    _seal.lib.wm_empty_bounding_set()
    if os.geteuid() == 0:
        # Also where files are root's: without capabilities root still owns them. Not where nobody has a number.
        with contextlib.suppress(OSError):
            os.setgroups(())
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
    _check(_seal.lib.wm_drop_capabilities(), "dropping capabilities (capset)")
    _check(_seal.lib.wm_renounce(), "renouncing privileges (no_new_privs)")
    _check(_seal.lib.wm_forbid_calls(), "forbidding system calls (seccomp)")


def _check(number: int, what: str) -> None:
    if number:
        raise OSError(number, f"{what}: {os.strerror(number)}")
