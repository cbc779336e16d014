"""What is on a device's tc hooks: others' programs, ours, and filters that an earlier process left there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from wiremeter.errors import InputError, WiremeterError


class AttachedProgram(NamedTuple):
    """A BPF program found on a device. hook: such as "tcx/ingress"; is_ours: wiremeter put it there."""

    hook: str
    id: int
    name: str
    is_ours: bool = False


#: The programs at a device's tc hooks by ifindex, or None where the kernel would not say.
ProgramQuery = Callable[[int], Sequence[AttachedProgram] | None]


def program_query() -> ProgramQuery | None:
    """What asks the kernel for the programs of a device; None where the binding is missing."""
    try:
        from wiremeter.libbpf.attach import program_name, tc_programs
    except InputError:
        return None

    def query(ifindex: int) -> Sequence[AttachedProgram] | None:
        try:
            found = [(hook, number, program_name(number)) for hook, number in tc_programs(ifindex)]
        except WiremeterError:
            return None
        return [AttachedProgram(hook, number, name, name.startswith("wm_")) for hook, number, name in found]

    return query


def remove_stale_filters(ifindex: int) -> list[str]:
    """Removes clsact filters of ours that an earlier process left on a device; returns the directions found.

    Raises InputError where the binding is missing.
    """
    from wiremeter.libbpf.attach import remove_stale_filters as remove

    return remove(ifindex)
