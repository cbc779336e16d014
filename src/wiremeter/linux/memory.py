"""What memory metering takes at the least, and how many flows fit in what this process may use.

Light on purpose: a command asks before it loads what takes the memory, since a process past its cgroup's limit is
killed without a word.
"""

from __future__ import annotations

from wiremeter.errors import InputError

_MIB = 1 << 20
#: What a meter needs. Measured under memory cgroups (v1) on 2 CPUs, in a flood of 30,000 new flows a second on
#: loopback: it took up to 56 MiB without names, 76 MiB with them and 101 MiB where each flow is a DNS question of its
#: own, the reader's process included; below 56 and 68 MiB the kernel killed it at the start.
#: Under version 2 both are enough (`make kernels`, Debian 6.12).
LEAST_BYTES = 80 * _MIB
LEAST_BYTES_WITH_NAMES = 112 * _MIB
#: Flows that a batch may have even then.
LEAST_FLOWS = 1 << 14
#: A row of a batch while it is merged, named and handed on: the row itself is in memory some four times, and what was
#: freed is not all given back.
_BYTES_PER_FLOW = 1024


def least_bytes(*, with_names: bool) -> int:
    """The least memory limit to meter under."""
    return LEAST_BYTES_WITH_NAMES if with_names else LEAST_BYTES


def check_memory(limit_bytes: int, *, with_names: bool) -> None:
    """Raises InputError where metering would not fit. limit_bytes: what this process may use; 0: not known."""
    least = least_bytes(with_names=with_names)
    if not 0 < limit_bytes < least:
        return
    advice = f", or read no names (--names none), which needs {LEAST_BYTES // _MIB} MiB" if with_names else ""
    raise InputError(
        f"this process may use {limit_bytes / _MIB:.0f} MiB of memory (its cgroup's limit, or all there is) and would"
        f" be killed: metering needs {least // _MIB} MiB at least. Raise the limit{advice}"
    )


def flows_that_fit(limit_bytes: int, *, with_names: bool) -> int:
    """How many flows a batch may have, by the memory above the least; LEAST_FLOWS where there is none.

    >>> flows_that_fit(112 << 20, with_names=True), flows_that_fit(1 << 30, with_names=True)
    (16384, 950272)
    """
    above = max(0, limit_bytes - least_bytes(with_names=with_names))
    return LEAST_FLOWS + above // _BYTES_PER_FLOW
