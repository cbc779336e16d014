"""Filters of ours at clsact qdiscs, for kernels before tcx: what of them may be taken away, and when.

They outlive the process that made them, and share their qdisc with whoever else uses it: removing it would remove
their filters too. So it goes only when a complete answer of the kernel says that nothing is on it.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from wiremeter.errors import KernelError, WiremeterError
from wiremeter.libbpf.attach import (
    attach_filter,
    detach_filter,
    filter_program,
    make_qdisc,
    program_info,
    program_name,
    remove_qdisc,
)
from wiremeter.linux.holders import program_holder
from wiremeter.linux.netlink import RouteSocket

log = logging.getLogger(__name__)

#: Devices that had no clsact qdisc before this process put a filter on them.
_qdiscs_made: set[int] = set()


class ClsactFilter:
    """A program as clsact filter. The kernel keeps it when the process dies: `remove_stale_filters` is for that."""

    def __init__(self, program_fd: int, ifindex: int, egress: bool, what: str) -> None:
        """Raises KernelError or PermissionNeeded."""
        with RouteSocket() as route:
            # The kernel would take an egress filter, and run it at ingress.
            if route.ingress_qdisc(ifindex) == "ingress":
                raise KernelError(
                    f"{what}: the device has an ingress qdisc, which leaves no place for filters on the way out;"
                    " whoever made it can use clsact in its place, or use --attach capture",
                    call="RTM_GETQDISC",
                    errno=errno.EBUSY,
                )
        self._ifindex, self._egress = ifindex, egress
        self._program = program_info(program_fd).id
        if make_qdisc(ifindex, what):
            _qdiscs_made.add(ifindex)
        try:
            attach_filter(program_fd, ifindex, egress, what)
        except BaseException:
            with _told_if_left(ifindex):
                _remove_if_made(ifindex)
            raise

    @classmethod
    def adopt(cls, program_fd: int, ifindex: int, egress: bool, *, instead_of: int, qdisc_made: bool) -> Self | None:
        """Puts the program in the place of the one of that id; None where that is not there any more.

        Raises KernelError or PermissionNeeded.
        """
        if filter_program(ifindex, egress) != instead_of:
            return None
        attach_filter(program_fd, ifindex, egress, f"replacing the filter on device {ifindex}", replace=True)
        if qdisc_made:
            _qdiscs_made.add(ifindex)
        adopted = cls.__new__(cls)
        adopted._ifindex, adopted._egress, adopted._program = ifindex, egress, program_info(program_fd).id
        return adopted

    @property
    def qdisc_made(self) -> bool:
        """Whether its qdisc is ours."""
        return self._ifindex in _qdiscs_made

    def close(self) -> None:
        """Removes the filter, and the clsact qdisc if we made it and nothing is left on it. A second call does nothing.

        What cannot be removed is logged: a detaching that fails half-way would leave more behind.
        """
        ifindex, self._ifindex = self._ifindex, 0
        if not ifindex:
            return
        with _told_if_left(ifindex):
            if filter_program(ifindex, self._egress) != self._program:
                _qdiscs_made.discard(ifindex)  # gone with its device, whose number may be another's by now
            elif detach_filter(ifindex, self._egress):
                _remove_if_made(ifindex)


@contextmanager
def _told_if_left(ifindex: int) -> Iterator[None]:
    """Logs what fails in the block: there is nobody else to tell, or something worse to be told."""
    try:
        yield
    except WiremeterError as error:
        log.warning(
            "a filter or its clsact qdisc may be left on a device; `wiremeter detach` removes filters of ours",
            extra={"ifindex": ifindex, "error": str(error)},
        )


def _remove_if_made(ifindex: int) -> None:
    if ifindex in _qdiscs_made:
        _remove_if_empty(ifindex)


def remove_stale_filters(ifindex: int) -> list[str]:
    """Removes clsact filters of ours that an earlier process left on a device; returns the directions found.

    Those that a running process holds stay. The qdisc goes with the last of all filters on it.
    Raises KernelError or PermissionNeeded.
    """
    removed = []
    for egress in (False, True):
        program = filter_program(ifindex, egress)
        if program and program_name(program).startswith("wm_") and not program_holder(program):
            detach_filter(ifindex, egress)
            removed.append("tx" if egress else "rx")
    if removed:
        try:
            _remove_if_empty(ifindex)
        except KernelError as error:
            message = f"filters of ours are gone from device {ifindex}, but its clsact qdisc stays: {error}"
            raise KernelError(message, call=error.call, errno=error.errno) from error
    return removed


def _remove_if_empty(ifindex: int) -> None:
    with RouteSocket() as route:
        if any(route.filters(ifindex, egress=egress) for egress in (False, True)):
            return
    remove_qdisc(ifindex)
    _qdiscs_made.discard(ifindex)
