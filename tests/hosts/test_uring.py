"""What io_uring sends goes the same way as what system calls send."""

from __future__ import annotations

import pytest

from . import devices, senders, uring
from .capture import Capture
from .measure import metering_ends

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not uring.is_available(), reason="this kernel has no io_uring, or does not let us use it"),
]


@pytest.mark.parametrize("family", [4, 6])
def test_datagrams_by_io_uring_are_all_counted(family: int) -> None:
    with devices.pair(v6=True) as (client, server), senders.sinks(server):
        devices.settle(client, server)
        with Capture(server.host, "eth0", "in") as captured, metering_ends(client, server) as (ours, theirs):
            sent = uring.udp_io_uring(client, server.address(family), 1000)
    assert captured.traffic() == sent
    ours["eth0", "tx"].assert_is(sent)
    theirs["eth0", "rx"].assert_is(sent)
