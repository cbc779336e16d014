"""wiremeter verify: check the compiled objects."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from wiremeter.cli.streams import shown

if TYPE_CHECKING:
    from wiremeter.settings.catalogue import Verify

_MARKS = {True: "ok", False: "FAILED", None: "skipped"}


def run(settings: Verify) -> int:
    """Checks each object and reports."""
    from wiremeter.datapath.programs import default_program
    from wiremeter.datapath.verification import verify_apart

    load = os.geteuid() == 0 and not settings.no_load
    reports = {path: verify_apart(path, load=load) for path in map(Path, settings.programs or [default_program()])}
    if settings.format == "json":
        print(json.dumps([{"file": str(f), "checks": [dataclasses.asdict(c) for c in r]} for f, r in reports.items()]))
    else:
        for path, checks in reports.items():
            print(shown(str(path)))
            for check in checks:
                print(f"  {_MARKS[check.passed]:<8}{check.name:<20}{check.detail}")
                if settings.log and check.log:
                    print(check.log)
    return 0 if all(check.passed is not False for checks in reports.values() for check in checks) else 1
