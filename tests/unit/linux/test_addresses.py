"""The host's own addresses, as procfs shows them."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from wiremeter.linux.addresses import own_addresses

FIB_TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.0.0.0/8 2 0 2
        |-- 10.1.0.0
           /16 link UNICAST
        |-- 10.1.2.3
           /32 host LOCAL
        |-- 10.1.255.255
           /32 link BROADCAST
"""
IF_INET6 = "fe80000000000000d4a1fffffe000001 02 40 20 80     eth0\n20010db8000000000000000000000007 02 40 00 80 eth0\n"


def test_local_addresses_of_both_families(tmp_path: Path) -> None:
    (tmp_path / "fib_trie").write_text(FIB_TRIE)
    (tmp_path / "if_inet6").write_text(IF_INET6)
    found = own_addresses(tmp_path)
    assert found == {
        ipaddress.ip_address(text).packed for text in ("::ffff:10.1.2.3", "fe80::d4a1:ffff:fe00:1", "2001:db8::7")
    }


def test_where_the_kernel_shows_nothing_there_are_none(tmp_path: Path) -> None:
    assert own_addresses(tmp_path) == frozenset()
