"""Names of addresses by client, learned from DNS answers."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from addresses import address
from wiremeter.errors import InputError
from wiremeter.names.domains import HOLD_NS, MAX_TTL_S, DomainCache
from wiremeter.names.records import DnsAnswer, DnsTransaction, FlowKey

from .dns_messages import teach

S = 1_000_000_000
NOW = 1_700_000_000 * S


CLIENT, OTHER, SITE, SITE6 = map(address, ("10.0.0.1", "10.0.0.2", "192.0.2.1", "2001:db8::1"))


def answered(
    query: str,
    *answers: tuple[str, str, int, str],
    qtype: str = "A",
    client: bytes = CLIENT,
    rcode: int | None = 0,
) -> DnsTransaction:
    flow = FlowKey(client, 40000, address("10.0.0.53"), 53, 17, 4)
    return DnsTransaction(NOW, flow, query, qtype, rcode, 1000, tuple(DnsAnswer(*answer) for answer in answers))


def announced(*answers: tuple[str, str, int, str], group: str = "224.0.0.251", port: int = 5353) -> DnsTransaction:
    flow = FlowKey(address("10.0.0.7"), port, address(group), port, 17, 4)
    records = tuple(DnsAnswer(*answer) for answer in answers)
    return DnsTransaction(NOW, flow, records[0].name, records[0].type, 0, None, records, has_query=False)


def cache_of(*transactions: DnsTransaction, capacity: int = 100) -> DomainCache:
    cache = DomainCache(capacity)
    for transaction in transactions:
        teach(cache, NOW, transaction)
    return cache


SIMPLE = answered("WWW.Example.com", ("www.example.com", "A", 60, "192.0.2.1"))


# --- learning


def test_address_has_the_name_its_client_asked_for_in_lower_case() -> None:
    cache = cache_of(SIMPLE)
    assert cache.lookup(CLIENT, SITE, NOW) == "www.example.com"
    assert cache.lookup(OTHER, SITE, NOW) is None
    assert cache.lookup(SITE, CLIENT, NOW) is None


def test_name_is_the_one_before_all_cnames_in_whatever_order() -> None:
    chain = (
        ("edge.example.net", "A", 20, "192.0.2.1"),
        ("CDN.example.net", "CNAME", 300, "edge.example.net"),
        ("edge.example.net", "AAAA", 20, "2001:db8::1"),
        ("www.example.com", "CNAME", 300, "cdn.example.net"),
    )
    cache = cache_of(answered("www.example.com", *chain))
    assert cache.lookup(CLIENT, SITE, NOW) == "www.example.com"
    assert cache.lookup(CLIENT, SITE6, NOW) == "www.example.com"


def test_cnames_in_a_circle_end() -> None:
    circle = (("a.example", "CNAME", 1, "b.example"), ("b.example", "CNAME", 1, "a.example"))
    assert len(cache_of(answered("a.example", *circle))) == 0


def test_records_that_do_not_belong_to_the_question_are_left_alone() -> None:
    cache = cache_of(answered("a.example", ("bank.example", "A", 60, "192.0.2.1")))
    assert len(cache) == 0


def test_hints_of_https_records_are_addresses() -> None:
    data = '1 . alpn="h2,h3" ipv4hint="192.0.2.1,192.0.2.2" port="443" ipv6hint="2001:db8::1"'
    cache = cache_of(
        answered("www.example.com", ("www.example.com", "HTTPS", 60, data), qtype="HTTPS"),
        answered(
            "_8443._https.b.example", ("_8443._https.b.example", "SVCB", 60, "1 . ipv4hint=192.0.2.3"), qtype="SVCB"
        ),
    )
    for text in ("192.0.2.1", "192.0.2.2", "2001:db8::1"):
        assert cache.lookup(CLIENT, address(text), NOW) == "www.example.com"
    assert cache.lookup(CLIENT, address("192.0.2.3"), NOW) == "b.example"


@pytest.mark.parametrize(
    "transaction",
    [
        answered("a.example", rcode=3),
        answered("a.example", rcode=None),
        answered("a.example", ("a.example", "A", 60, "192.0.2.1"), rcode=2),
        answered("a.example", ("a.example", "A", 60, "\\# 3 616263")),
        answered("a.example", ("a.example", "HTTPS", 60, "\\# 10 00010000040003c00002"), qtype="HTTPS"),
        answered("a.example", ("a.example", "TXT", 60, '"192.0.2.1"'), qtype="TXT"),
        answered(".", (".", "A", 60, "192.0.2.1")),
        answered("\\255" * 63, ("\\255" * 63 + ".a", "A", 60, "192.0.2.1")),
        answered("\\255" * 63 + ".a", ("\\255" * 63 + ".a", "A", 60, "192.0.2.1")),
    ],
)
def test_what_names_no_host_or_address_teaches_nothing(transaction: DnsTransaction) -> None:
    assert len(cache_of(transaction)) == 0


def test_latest_name_of_an_address_is_the_one_that_counts() -> None:
    cache = cache_of(SIMPLE, answered("b.example", ("b.example", "A", 60, "192.0.2.1")))
    assert cache.lookup(CLIENT, SITE, NOW) == "b.example"
    assert len(cache) == 1


def test_announcement_teaches_every_client_and_each_record_stands_for_itself() -> None:
    cache = cache_of(
        announced(("_ipp._tcp.local", "PTR", 120, "x._ipp._tcp.local"), ("Printer.local", "A", 120, "192.0.2.1"))
    )
    assert cache.lookup(CLIENT, SITE, NOW) == cache.lookup(OTHER, SITE, NOW) == "printer.local"


def test_clients_own_question_goes_before_an_announcement() -> None:
    cache = cache_of(SIMPLE, announced(("printer.local", "A", 120, "192.0.2.1")))
    assert (cache.lookup(CLIENT, SITE, NOW), cache.lookup(OTHER, SITE, NOW)) == ("www.example.com", "printer.local")


def test_announcement_that_withdraws_a_record_teaches_nothing() -> None:
    assert len(cache_of(announced(("printer.local", "A", 0, "192.0.2.1")))) == 0


def test_response_that_one_host_sent_to_a_question_to_all_teaches_the_one_who_asked() -> None:
    flow = FlowKey(CLIENT, 50000, address("224.0.0.252"), 5355, 17, 4)
    records = (DnsAnswer("printer", "A", 30, "192.0.2.1"),)
    cache = cache_of(DnsTransaction(NOW, flow, "printer", "A", 0, 1000, records))
    assert (cache.lookup(CLIENT, SITE, NOW), cache.lookup(OTHER, SITE, NOW)) == ("printer", None)


# --- PTR records


@pytest.mark.parametrize(
    ("owner", "text"),
    [
        ("1.2.0.192.in-addr.arpa", "192.0.2.1"),
        ("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.IP6.ARPA", "2001:db8::1"),
    ],
)
def test_ptr_record_answers_on_request_only(owner: str, text: str) -> None:
    cache = cache_of(answered(owner, (owner, "PTR", 60, "Host.example.net"), qtype="PTR"))
    assert cache.lookup_ptr(address(text), NOW) == "host.example.net"
    assert cache.lookup_ptr(address(text), NOW + HOLD_NS + 1) is None
    assert cache.lookup(CLIENT, address(text), NOW) is None


def test_ptr_record_behind_a_cname_belongs_to_the_address_that_was_asked_for() -> None:
    owner, zone = "1.2.0.192.in-addr.arpa", "1.0/25.2.0.192.in-addr.arpa"
    cache = cache_of(answered(owner, (owner, "CNAME", 60, zone), (zone, "PTR", 60, "host.example.net"), qtype="PTR"))
    assert cache.lookup_ptr(SITE, NOW) == "host.example.net"


@pytest.mark.parametrize(
    "owner", ["arpa", "in-addr.arpa", "2.0.192.in-addr.arpa", "a.2.0.192.in-addr.arpa", "1.ip6.arpa", "x"]
)
def test_other_owners_of_ptr_records_are_no_addresses(owner: str) -> None:
    cache = cache_of(answered(owner, (owner, "PTR", 60, "host.example.net"), qtype="PTR"))
    assert cache.lookup_ptr(SITE, NOW) is None


# --- time


def test_short_ttl_holds_for_the_minimum_and_no_longer() -> None:
    assert cache_of(SIMPLE).lookup(CLIENT, SITE, NOW + HOLD_NS) == "www.example.com"
    assert cache_of(SIMPLE).lookup(CLIENT, SITE, NOW + HOLD_NS + 1) is None


def test_long_ttl_is_honoured_up_to_its_limit() -> None:
    day = 86_400
    cache = cache_of(
        answered("a.example", ("a.example", "A", day, "192.0.2.1")),
        answered("b.example", ("b.example", "A", 2**31 - 1, "192.0.2.2")),
    )
    assert cache.lookup(CLIENT, SITE, NOW + day * S) == "a.example"
    assert cache.lookup(CLIENT, address("192.0.2.2"), NOW + MAX_TTL_S * S + 1) is None


def test_connection_that_lasts_keeps_its_name() -> None:
    cache, many = cache_of(SIMPLE), cache_of(SIMPLE)
    for step in range(1, 10):
        time_ns = NOW + step * HOLD_NS
        assert cache.lookup(CLIENT, SITE, time_ns) == "www.example.com"
        assert names_of(many, [CLIENT], [SITE], time_ns) == ["www.example.com"]
    assert cache.lookup(CLIENT, SITE, time_ns + HOLD_NS + 1) is None
    assert names_of(many, [CLIENT], [SITE], time_ns + HOLD_NS + 1) == [""]


def test_connection_seen_slightly_before_its_answer_has_a_name() -> None:
    assert cache_of(SIMPLE).lookup(CLIENT, SITE, NOW - S) == "www.example.com"


# --- bounds


def learn_numbered(cache: DomainCache, numbers: Iterable[int], time_ns: int = NOW) -> None:
    for n in numbers:
        text = f"198.18.{n // 256}.{n % 256}"
        teach(cache, time_ns + n, answered(f"n{n}.example", (f"n{n}.example", "A", 60, text)))


def numbered(n: int) -> bytes:
    return address(f"198.18.{n // 256}.{n % 256}")


def test_least_recently_learned_or_used_go_first_and_are_counted() -> None:
    cache = DomainCache(160)
    learn_numbered(cache, range(160))
    assert cache.lookup(CLIENT, numbered(0), NOW + 1000) == "n0.example"
    learn_numbered(cache, [200])
    assert cache.evictions == 10
    assert cache.lookup(CLIENT, numbered(0), NOW + 1000) == "n0.example"
    gone = [n for n in range(160) if cache.lookup(CLIENT, numbered(n), NOW + 1000) is None]
    assert gone == list(range(1, 11))


def test_what_is_over_goes_before_anything_else_and_is_not_counted() -> None:
    cache = DomainCache(4)
    learn_numbered(cache, range(3))
    learn_numbered(cache, [3], NOW + HOLD_NS)
    learn_numbered(cache, [4], NOW + HOLD_NS + S)
    assert (len(cache), cache.evictions) == (2, 0)
    assert cache.lookup(CLIENT, numbered(3), NOW + HOLD_NS + S) == "n3.example"


def test_cache_never_grows_over_its_capacity() -> None:
    cache = DomainCache(16)
    for n in range(500):
        learn_numbered(cache, [n])
        owner = f"{n % 256}.{n // 256}.18.198.in-addr.arpa"
        teach(cache, NOW, answered(owner, (owner, "PTR", 60, "host.example"), qtype="PTR"))
        assert len(cache) <= 16
    assert cache.lookup_ptr(numbered(499), NOW) == "host.example"
    assert cache.lookup_ptr(numbered(483), NOW) is None
    assert cache.evictions >= 2 * (500 - 16)


def test_cache_for_one_works() -> None:
    cache = DomainCache(1)
    learn_numbered(cache, range(3))
    assert cache.lookup(CLIENT, numbered(2), NOW) == "n2.example"
    assert names_of(cache, [CLIENT], [numbered(2)]) == ["n2.example"]


# --- many at once


def addresses(rows: list[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(rows), np.uint8).reshape(-1, 16)


def names_of(
    cache: DomainCache, src: list[bytes], dst: list[bytes], time_ns: int = NOW, is_client: list[bool] | None = None
) -> list[str]:
    known = None if is_client is None else np.array(is_client, np.bool_)
    numbers, names = cache.lookup_many(addresses(src), addresses(dst), time_ns, src_is_client=known)
    assert names[0] == ""
    assert len(set(names)) == len(names)
    return [names[number] for number in numbers.tolist()]


def test_both_flows_of_a_conversation_have_its_name() -> None:
    cache = cache_of(SIMPLE)
    assert names_of(cache, [CLIENT, SITE, OTHER, CLIENT], [SITE, CLIENT, SITE, OTHER]) == [
        "www.example.com",
        "www.example.com",
        "",
        "",
    ]


def test_addresses_of_one_name_share_a_number() -> None:
    cache = cache_of(answered("a.example", ("a.example", "A", 9, "192.0.2.1"), ("a.example", "A", 9, "192.0.2.2")))
    numbers, names = cache.lookup_many(addresses([CLIENT] * 2), addresses([SITE, address("192.0.2.2")]), NOW)
    assert (numbers.tolist(), names) == ([1, 1], ("", "a.example"))


def test_announced_names_are_for_flows_whose_client_is_known() -> None:
    cache = cache_of(announced(("printer.local", "A", 120, "192.0.2.1")))
    assert names_of(cache, [CLIENT, SITE], [SITE, CLIENT]) == ["", ""]
    assert names_of(cache, [CLIENT, SITE], [SITE, CLIENT], is_client=[True, True]) == ["printer.local", ""]


def test_server_that_once_asked_for_its_client_is_not_the_client_where_it_is_known() -> None:
    cache = cache_of(answered("laptop.example", ("laptop.example", "A", 60, "10.0.0.1"), client=SITE))
    assert names_of(cache, [CLIENT], [SITE], is_client=[True]) == [""]
    assert names_of(cache, [CLIENT], [SITE], is_client=[False]) == ["laptop.example"]


def test_no_flows_and_no_names_are_fine() -> None:
    assert names_of(DomainCache(), [], []) == []
    assert names_of(DomainCache(), [CLIENT], [SITE]) == [""]
    assert names_of(cache_of(SIMPLE), [], []) == []


def test_rows_of_a_larger_array_can_be_looked_up() -> None:
    flows = np.zeros(2, [("port", "u2"), ("src", "u1", (16,)), ("dst", "u1", (16,))])
    flows["src"], flows["dst"] = addresses([CLIENT] * 2), addresses([SITE, OTHER])
    numbers, names = cache_of(SIMPLE).lookup_many(flows["src"], flows["dst"], NOW)
    assert [names[n] for n in numbers] == ["www.example.com", ""]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20), st.integers(0, 5)), max_size=60), st.integers(1, 30))
def test_many_lookups_give_what_single_ones_give(learned: list[tuple[int, int, int]], capacity: int) -> None:
    cache = DomainCache(capacity)
    clients = [address(f"10.0.0.{n}") for n in range(4)]
    servers = [address(f"192.0.2.{n}") for n in range(21)]
    pairs = [(client, server) for client in clients for server in servers]
    src, dst = [list(side) for side in zip(*pairs, strict=True)]
    for step, (client, server, name) in enumerate(learned):
        record = (f"n{name}.example", "A", 60, f"192.0.2.{server}")
        teach(cache, NOW + step, answered(f"n{name}.example", record, client=clients[client]))
        if step % 10 == 0:
            names_of(cache, src, dst)
    single = [cache.lookup(client, server, NOW) or "" for client, server in pairs]
    assert names_of(cache, src, dst) == names_of(cache, dst, src) == single


# --- across restarts


def test_saved_cache_is_whole_again_and_private(tmp_path: Path) -> None:
    path = tmp_path / "domains"
    cache = cache_of(
        SIMPLE, answered("1.2.0.192.in-addr.arpa", ("1.2.0.192.in-addr.arpa", "PTR", 60, "h.example"), qtype="PTR")
    )
    cache.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["domains"]
    restarted = DomainCache()
    assert restarted.load(path, NOW + S) == 2
    assert restarted.lookup(CLIENT, SITE, NOW + S) == "www.example.com"
    assert restarted.lookup_ptr(SITE, NOW + S) == "h.example"


def test_what_is_over_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "domains"
    learned = cache_of(SIMPLE, answered("b.example", ("b.example", "A", 86_400, "192.0.2.2")))
    learned.save(path)
    restarted = DomainCache()
    assert restarted.load(path, NOW + HOLD_NS + 1) == 1
    assert restarted.lookup(CLIENT, address("192.0.2.2"), NOW + HOLD_NS + 1) == "b.example"


def test_loading_leaves_what_is_known_already(tmp_path: Path) -> None:
    path = tmp_path / "domains"
    cache_of(SIMPLE).save(path)
    cache = cache_of(answered("new.example", ("new.example", "A", 60, "192.0.2.1")))
    assert cache.load(path, NOW) == 0
    assert cache.lookup(CLIENT, SITE, NOW) == "new.example"


def test_smaller_cache_keeps_what_was_used_last(tmp_path: Path) -> None:
    path = tmp_path / "domains"
    cache = DomainCache(100)
    learn_numbered(cache, range(100))
    cache.save(path)
    small = DomainCache(60)
    small.load(path, NOW + S)
    assert small.lookup(CLIENT, numbered(99), NOW + S) == "n99.example"
    assert small.lookup(CLIENT, numbered(0), NOW + S) is None


def test_clock_that_was_set_back_does_not_make_names_hold_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "domains"
    cache_of(SIMPLE).save(path)
    earlier = NOW - 365 * 86_400 * S
    cache = DomainCache()
    assert cache.load(path, earlier) == 1
    assert cache.lookup(CLIENT, SITE, earlier + MAX_TTL_S * S + 1) is None


@given(
    st.lists(
        st.tuples(
            st.binary(min_size=16, max_size=16),
            st.ip_addresses(),
            st.text("abc-_\\", min_size=2, max_size=30).map(lambda name: name.replace("\\", "\\\\")),
            st.integers(0, 2**31),
        ),
        max_size=20,
    )
)
def test_round_trip_through_a_file_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, learned: list[tuple[bytes, object, str, int]]
) -> None:
    path = tmp_path_factory.mktemp("cache") / "domains"
    cache = DomainCache(50)
    for client, server, name, ttl in learned:
        rdtype = "AAAA" if ":" in str(server) else "A"
        teach(cache, NOW, answered(name, (name, rdtype, ttl, str(server)), client=client))
    cache.save(path)
    again = DomainCache(50)
    assert again.load(path, NOW) == len(cache)
    for client, server, _, _ in learned:
        pair = client, address(str(server))
        for later in (NOW, NOW + HOLD_NS + S):
            assert again.lookup(*pair, later) == cache.lookup(*pair, later)


def damage(content: bytes) -> dict[str, bytes]:
    header, _, rows = content.partition(b"\n")
    older = msgspec.json.decode(header) | {"version": 99}
    return {
        "empty": b"",
        "cut": content[:-5],
        "without rows": header + b"\n",
        "bit flipped": content[:-20] + bytes([content[-20] ^ 1]) + content[-19:],
        "foreign JSON": b'{"format": "else", "version": 1, "entries": 0, "crc32": 0}\n',
        "foreign bytes": bytes(range(256)),
        "another version": msgspec.json.encode(older) + b"\n" + rows,
        "too long": header + b"\n" + rows + b" " * 1_000_000,
    }


@pytest.mark.parametrize("kind", list(damage(b'{"version":1}\n' + bytes(30))))
def test_damaged_or_foreign_file_is_refused_by_name_and_nothing_is_lost(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "domains"
    other = cache_of(answered("b.example", ("b.example", "A", 60, "192.0.2.2")))
    other.save(path)
    path.write_bytes(damage(path.read_bytes())[kind])
    cache = cache_of(SIMPLE)
    with pytest.raises(InputError, match=str(path)):
        cache.load(path, NOW)
    assert (len(cache), cache.lookup(CLIENT, SITE, NOW)) == (1, "www.example.com")


def test_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        DomainCache().load(tmp_path / "domains", NOW)


@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "of another", "writable by others", "link to a fifo"])
def test_what_another_may_have_written_is_not_believed_and_nothing_waits(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "domains"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link to a fifo":
        os.mkfifo(tmp_path / "fifo")
        path.symlink_to(tmp_path / "fifo")
    elif kind == "directory":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        cache_of(SIMPLE).save(path)
        if kind == "of another":
            if os.geteuid():
                pytest.skip("only root can give a file away")
            os.chown(path, 12345, -1)
        else:
            path.chmod(0o620)
    cache = DomainCache()
    with pytest.raises(InputError, match=f"{path}: the domain cache "):
        cache.load(path, NOW)
    assert len(cache) == 0


def test_failed_save_leaves_the_former_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "domains"
    cache_of(SIMPLE).save(path)
    before = path.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(InputError, match="No space left"):
        DomainCache().save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["domains"]


def test_the_addresses_of_one_host_are_one_client() -> None:
    own4, own6 = CLIENT, bytes.fromhex("20010db8" + "00" * 11 + "07")
    cache = DomainCache()
    cache.own = frozenset({own4, own6})
    asked = DnsTransaction(
        NOW,
        FlowKey(own4, 5000, OTHER, 53, 17, 4),
        "site.example",
        "AAAA",
        0,
        1000,
        (DnsAnswer("site.example", "AAAA", 60, "2001:db8::99"),),
    )
    teach(cache, NOW, asked)
    server = bytes.fromhex("20010db8" + "00" * 11 + "99")
    stranger = bytes.fromhex("20010db8" + "00" * 11 + "08")
    assert cache.lookup(own6, server, NOW) == "site.example"
    assert cache.lookup(stranger, server, NOW) is None
    pairs = [(own6, server), (server, own6), (stranger, server), (server, own4), (own4, own6)]
    src, dst = (np.frombuffer(b"".join(pair[side] for pair in pairs), "u1").reshape(-1, 16) for side in (0, 1))
    numbers, names = cache.lookup_many(src, dst, NOW)
    assert [names[number] for number in numbers] == ["site.example", "site.example", "", "site.example", ""]


@pytest.mark.parametrize("places", [(7, 15), (0, 8), (3, 7), (15, 14), (11, 3)])
def test_nobody_can_choose_addresses_that_share_a_hash(places: tuple[int, int]) -> None:
    """Of a sum of products 65,536 addresses that differ in bytes 7 and 15 had 256 hashes, whatever the keys."""
    numbers = np.arange(1 << 16)
    chosen = np.zeros((len(numbers), 16), np.uint8)
    chosen[:, places[0]], chosen[:, places[1]] = numbers & 255, numbers >> 8
    cache = DomainCache()
    one = np.zeros_like(chosen)
    for pair in ((chosen, one), (one, chosen), (chosen, chosen)):
        hashes = cache._hashes(np.concatenate(pair, axis=1).view(np.uint64))
        assert len(np.unique(hashes)) == len(numbers)
        assert np.bincount((hashes >> np.uint64(48)).astype(np.intp)).max() <= 16  # 1 on the average
