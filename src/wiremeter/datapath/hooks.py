"""What is on a device's hooks, whoever put it there."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from wiremeter.errors import InputError, KernelError, WiremeterError
from wiremeter.linux.netlink import RouteSocket


class AttachedProgram(NamedTuple):
    """What was found on a device.

    hook: "xdp", "xdp-generic", or such as "tcx ingress", "clsact egress".
    id: of the BPF program; 0 for a filter that is none, whose name is its kind, such as "flower".
    name: "" where this process may not see it. is_ours: a wiremeter put it there.
    """

    hook: str
    id: int
    name: str
    is_ours: bool = False


#: What is on a device's hooks by ifindex, or None where the kernel would not say.
ProgramQuery = Callable[[int], Sequence[AttachedProgram] | None]


def program_query() -> ProgramQuery | None:
    """What asks the kernel for all that is on the hooks of a device; None where the binding is missing."""
    try:
        from wiremeter.libbpf import attach
    except InputError:
        return None

    def xdp(ifindex: int) -> Iterator[tuple[str, int, str]]:
        for hook, program in zip(("xdp", "xdp-generic"), attach.xdp_programs(ifindex), strict=True):
            if program:
                yield hook, program, attach.program_name(program)

    def tcx(ifindex: int) -> Iterator[tuple[str, int, str]]:
        for hook, side in (("tcx ingress", attach.TCX_INGRESS), ("tcx egress", attach.TCX_EGRESS)):
            try:
                programs = attach.tcx_programs(ifindex, side)
            except KernelError as error:
                if error.errno == errno.EINVAL:  # no tcx before Linux 6.6
                    return
                raise
            for program in programs:
                yield hook, program, attach.program_name(program)

    def clsact(ifindex: int) -> Iterator[tuple[str, int, str]]:
        with RouteSocket() as route:
            # The older qdisc "ingress" has one side only, and shows it whichever is asked for.
            hooks = {"clsact": ("clsact ingress", "clsact egress"), "ingress": ("ingress",)}
            for hook in hooks.get(route.ingress_qdisc(ifindex), ()):
                for filter_ in route.filters(ifindex, egress=hook.endswith("egress")):
                    program = filter_.program_id
                    # The kernel keeps what the filter was called: by libbpf "program:[id]", by tc "file:[section]".
                    called = filter_.name.partition(":[")[0]
                    name = (attach.program_name(program) or called) if program else filter_.kind
                    yield hook, program, name

    def query(ifindex: int) -> Sequence[AttachedProgram] | None:
        try:
            # Once each: a "u32" filter comes with its hash tables, all of one kind and place.
            found = dict.fromkeys(each for kind in (xdp, tcx, clsact) for each in kind(ifindex))
        except WiremeterError:
            return None
        return [AttachedProgram(hook, number, name, name.startswith("wm_")) for hook, number, name in found]

    return query
