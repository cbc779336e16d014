"""wiremeter detach: remove what a wiremeter left on devices, and what it pinned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wiremeter.settings.catalogue import Detach


def run(settings: Detach) -> int:
    """Removes and reports. Exit status 0 also when there was nothing to remove."""
    from wiremeter.datapath.clsact import remove_stale_filters
    from wiremeter.datapath.pins import DEFAULT_DIRECTORY, Removed, remove_all
    from wiremeter.linux.devices import read_devices, select_devices

    directory = Path(settings.pin) if settings.pin else DEFAULT_DIRECTORY
    # Pins are of all devices together; and a filter whose program is pinned is stale without its pin.
    pinned = remove_all(directory) if settings.interfaces == ("*",) else Removed()
    removed = [
        {"device": device.name, "direction": direction}
        for device in select_devices(settings.interfaces, read_devices(), ())
        for direction in remove_stale_filters(device.ifindex)
    ]
    if settings.format == "json":
        pins = {"directory": str(directory), "links": pinned.links, "tables": len(pinned.tables)}
        print(json.dumps({"removed": removed, "pinned": pins if pinned.tables else None}))
    else:
        if pinned.tables:
            print(f"removed what wiremeter {pinned.tables[-1].wiremeter} pinned at {directory}: {pinned.links} links")
        for filter_ in removed:
            print(f"removed a filter from {filter_['device']} {filter_['direction']}")
        if not removed and not pinned.tables:
            print("nothing to remove")
    return 0
