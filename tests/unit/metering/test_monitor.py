"""What a Monitor refuses before anything is opened."""

from __future__ import annotations

from typing import Any

import pytest

from wiremeter.errors import InputError
from wiremeter.metering.monitor import Monitor


@pytest.mark.parametrize("wrong", [{"max_flows": 0}, {"max_devices": 0}, {"max_devices": -1}])
def test_there_is_room_for_something(wrong: Any) -> None:
    with pytest.raises(InputError, match="above 0"):
        Monitor("eth0", **wrong)
