"""wiremeter detach: remove what a killed wiremeter left on devices."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wiremeter.settings.catalogue import Detach


def run(settings: Detach) -> int:
    """Removes and reports. Exit status 0 also when there was nothing to remove."""
    from wiremeter.datapath.clsact import remove_stale_filters
    from wiremeter.linux.devices import read_devices, select_devices

    removed = [
        {"device": device.name, "direction": direction}
        for device in select_devices(settings.interfaces, read_devices(), ())
        for direction in remove_stale_filters(device.ifindex)
    ]
    if settings.format == "json":
        print(json.dumps({"removed": removed}))
    else:
        for filter_ in removed:
            print(f"removed a filter from {filter_['device']} {filter_['direction']}")
        if not removed:
            print("nothing to remove")
    return 0
