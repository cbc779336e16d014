"""Whether this kernel takes the programs: they are loaded as for metering, and freed. Nothing is attached."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wiremeter.datapath.engine import Hook
from wiremeter.datapath.layout import TablePlan
from wiremeter.errors import WiremeterError
from wiremeter.flows.columns import AttachMode, Direction
from wiremeter.settings.words import FLOW_TABLE_LINES_MIN

if TYPE_CHECKING:
    from wiremeter.datapath.naming import NameOptions


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of it. problem: why it would not work, and what to do, or ""; seconds: for loading, None: not tried."""

    problem: str = ""
    seconds: float | None = None


def try_programs(
    program: Path | None,
    hooks: Collection[tuple[Direction, AttachMode]],
    plan: TablePlan | None,
    names: NameOptions,
    *,
    load: bool,
) -> Trial:
    """Looks for the compiled object and whether it is of this version; if `load`, loads the programs for `hooks`, too.

    program: another object than the one that came with the package. plan: of the tables, which are made as small as
    they can be; names: what programs look at. Loading needs the capabilities of metering, and takes about as long.
    """
    try:
        from wiremeter.datapath.kernel import KernelEngine
        from wiremeter.datapath.programs import default_program
        from wiremeter.datapath.verification import verify_apart
    except WiremeterError as error:  # the binding is missing
        return Trial(str(error))
    path = program or default_program()
    for check in verify_apart(path, load=False):
        if check.passed is False:
            return Trial(f"the compiled programs cannot be used: {check.detail}")
    if not load or not plan:
        return Trial()
    smallest = TablePlan(FLOW_TABLE_LINES_MIN, plan.regions, plan.attachments)
    began = time.monotonic()
    try:
        with KernelEngine(smallest, path, payload_limit=names.limit, payload_sources=names.sources) as engine:
            for direction, mode in hooks:
                engine.attach(Hook("a trial", 0, direction, mode, load_only=True))
    except WiremeterError as error:
        return Trial(f"this kernel does not take the programs: {error}")
    return Trial(seconds=time.monotonic() - began)
