"""The host's own addresses, as the kernel tells them."""

from __future__ import annotations

import ipaddress
import os

import pytest

from hosts import netns
from wiremeter.linux.addresses import own_addresses


def packed(*texts: str) -> set[bytes]:
    return {ipaddress.ip_address(text).packed for text in texts}


@pytest.mark.kernel
@pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces, which needs root")
def test_addresses_of_both_families_and_of_our_end_of_a_tunnel_only() -> None:
    with netns.hosts("solo") as (solo,):
        with solo.entered():
            netns.sysctl("ipv6/conf/default/disable_ipv6", 0)
        solo.ip(
            "link add d0 type veth peer name d1",
            "addr add 10.1.2.3/8 dev d0",
            "addr add 10.9.0.1 peer 10.9.0.2/32 dev d0",
            "addr add 2001:db8::7/64 dev d0 nodad",
            "addr add 192.0.2.9/32 dev lo",
            "link set lo up",
        )
        with solo.entered():
            found = own_addresses()
    ours = packed("::ffff:127.0.0.1", "::ffff:10.1.2.3", "::ffff:10.9.0.1", "2001:db8::7", "::ffff:192.0.2.9")
    assert found - packed("::1") == ours


@pytest.mark.kernel
@pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces, which needs root")
def test_a_namespace_whose_devices_are_all_down_has_none() -> None:
    with netns.hosts("solo") as (solo,):
        solo.ip("link set lo down", "addr flush dev lo")
        with solo.entered():
            assert own_addresses() == frozenset()
