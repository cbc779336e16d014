"""wiremeter detach: remove what a killed wiremeter left on devices."""

from __future__ import annotations

import argparse
import json
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Adds `wiremeter detach` to the command line."""
    parser = subparsers.add_parser(
        "detach",
        help="remove filters that a killed wiremeter left on devices",
        description="Links for XDP and tcx end with the process that made them. Only clsact filters, used on kernels "
        "before 6.6, can outlive it; this removes those that no running process holds. Needs root.",
    )
    parser.add_argument("--interface", action="append", metavar="NAME", help="only this device; repeatable (all)")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="output (%(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Removes and reports. Exit status 0 also when there was nothing to remove."""
    from wiremeter.datapath.clsact import remove_stale_filters
    from wiremeter.linux.devices import read_devices, select_devices

    removed = [
        {"device": device.name, "direction": direction}
        for device in select_devices(args.interface or ["*"], read_devices(), ())
        for direction in remove_stale_filters(device.ifindex)
    ]
    if args.format == "json":
        print(json.dumps({"removed": removed}))
    else:
        for filter_ in removed:
            print(f"removed a filter from {filter_['device']} {filter_['direction']}")
        if not removed:
            print("nothing to remove")
    return 0
