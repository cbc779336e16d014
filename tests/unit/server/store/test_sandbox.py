"""SQL of users: what asks is answered, what reaches out, writes or exhausts is refused."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unit.server.store.batches import make_batch, make_table
from wiremeter.server.store import DATABASE, QueryLimits, Refused, SqlRefused, Store, TooMuch
from wiremeter.server.store.allowed import FUNCTIONS, TABLES
from wiremeter.server.store.sandbox import allowed_text
from wiremeter.server.store.store import UNTRUSTED_MAX
from wiremeter.shipment.schema import TABLES as SHIPPED

#: Reads files, or looks for them.
FILES = """
SELECT * FROM file('/etc/passwd', 'LineAsString')
SELECT file('/etc/hostname')
SELECT `file`('/etc/hostname')
SELECT "file"('/etc/hostname')
SELECT file /* x */ ('/etc/hostname')
SELECT * FROM `/etc/passwd`
SELECT * FROM "/etc/passwd"
SELECT * FROM '/etc/passwd'
WITH x AS (SELECT file('/etc/hostname') AS f) SELECT f FROM x
SELECT * FROM (SELECT * FROM file('/etc/passwd', 'LineAsString'))
SELECT device FROM flows WHERE device IN (SELECT line FROM file('/etc/passwd', 'LineAsString'))
SELECT device FROM flows ORDER BY file('/etc/hostname')
SELECT if(1, file('/etc/hostname'), '')
SELECT arrayMap(x -> file(x), ['/etc/hostname'])
SELECT 1 UNION ALL SELECT file('/etc/hostname')
SELECT sumIf(1, file('/etc/hostname') != '')
SELECT * FROM fileCluster('a', '/etc/passwd', 'LineAsString')
SELECT * FROM filesystem('/etc')
SELECT * FROM executable('id', 'TSV', 'a String')
SELECT * FROM sqlite('/tmp/x.db', 't')
SELECT * FROM icebergLocal('/etc')
SELECT * FROM deltaLakeLocal('/etc')
SELECT * FROM input('a String')
SELECT catboostEvaluate('/etc/passwd', 1)
SELECT * FROM loop(file('/etc/passwd'))
SELECT * FROM view(SELECT * FROM file('/etc/passwd'))
"""
#: Reaches other machines.
NETWORK = """
SELECT * FROM url('http://127.0.0.1:PORT/', 'LineAsString')
SELECT * FROM urlCluster('a', 'http://127.0.0.1:PORT/', 'LineAsString')
SELECT * FROM s3('http://127.0.0.1:PORT/b/k', 'LineAsString')
SELECT * FROM gcs('http://127.0.0.1:PORT/b/k', 'LineAsString')
SELECT * FROM azureBlobStorage('http://127.0.0.1:PORT/', 'c', 'b')
SELECT * FROM hdfs('hdfs://127.0.0.1:PORT/a', 'TSV', 'a String')
SELECT * FROM remote('127.0.0.1:PORT', 'system.one')
SELECT * FROM remoteSecure('127.0.0.1:PORT', 'system.one')
SELECT * FROM cluster('default', 'system.one')
SELECT * FROM mysql('127.0.0.1:PORT', 'd', 't', 'u', 'p')
SELECT * FROM postgresql('127.0.0.1:PORT', 'd', 't', 'u', 'p')
SELECT * FROM mongodb('127.0.0.1:PORT', 'd', 't', 'u', 'p', 'a String')
SELECT * FROM redis('127.0.0.1:PORT', 'k', 'k String')
SELECT * FROM odbc('DSN=x', 't')
SELECT * FROM jdbc('jdbc:x', 't')
SELECT * FROM arrowFlight('127.0.0.1:PORT', 'd')
SELECT dictGet('d', 'a', 1)
SELECT * FROM dictionary('d')
SELECT aiGenerateContent('x')
"""
#: Writes, or changes what is.
WRITES = """
SELECT 1 INTO OUTFILE '/tmp/wiremeter-attack'
SELECT 1 INTO OUTFILE '/tmp/wiremeter-attack' FORMAT CSV
SELECT 1 SETTINGS readonly = 0
SELECT 1 SETTINGS max_memory_usage = 0
SELECT 1 FORMAT Null
INSERT INTO flows (device) VALUES ('x')
INSERT INTO FUNCTION file('/tmp/wiremeter-attack', 'CSV', 'a Int8') VALUES (1)
CREATE TABLE t (a Int8) ENGINE = Memory
CREATE FUNCTION f AS (x) -> x
CREATE USER u
DROP TABLE flows
TRUNCATE TABLE flows
ALTER TABLE flows DELETE WHERE 1
DELETE FROM flows WHERE 1
UPDATE flows SET device = 'x' WHERE 1
RENAME TABLE flows TO f
EXCHANGE TABLES flows AND dns
OPTIMIZE TABLE flows FINAL
ATTACH TABLE t
DETACH TABLE flows
BACKUP TABLE flows TO File('/tmp/wiremeter-attack')
RESTORE TABLE flows FROM File('/tmp/wiremeter-attack')
GRANT ALL ON *.* TO default
SET readonly = 0
USE system
SYSTEM SHUTDOWN
SYSTEM STOP MERGES
KILL QUERY WHERE 1
KILL MUTATION WHERE 1
EXECUTE AS default SELECT 1
SELECT 1; DROP TABLE flows
SELECT 1; SELECT 2
SELECT 1 PARALLEL WITH SELECT 2
"""
#: Tells of the machine, of other queries, of tables that are not for readers.
SECRETS = """
SELECT * FROM system.processes
SELECT * FROM system.tables
SELECT * FROM `system`.`users`
SELECT * FROM information_schema.tables
SELECT * FROM merge('system', '.*')
SELECT 1 WHERE 1 IN system.users
SELECT 1 WHERE 'x' IN (quarantine)
SELECT 1 WHERE 'x' IN quarantine
SELECT * FROM quarantine
SELECT * FROM migrations
SELECT system.users.name FROM flows
SELECT hostName()
SELECT fqdn()
SELECT serverUUID()
SELECT currentUser()
SELECT getSetting('max_memory_usage')
SELECT getServerPort('tcp_port')
SELECT getMacro('x')
SELECT @@version
SELECT version()
SELECT * APPLY hostName FROM flows
SELECT * APPLY(hostName) FROM flows
SELECT COLUMNS('.*') APPLY hostName FROM flows
SELECT arrayReduce('sum', [1])
SELECT initializeAggregation('groupArray', 1)
SELECT joinGet('quarantine', 'reason', 1)
SELECT demangle('x')
SELECT addressToLine(1)
SELECT {x:String}
SELECT * FROM flows(device = 'x')
SHOW TABLES
SHOW GRANTS
DESCRIBE TABLE flows
EXPLAIN SELECT 1
EXPLAIN AST SELECT file('/etc/hostname')
EXISTS TABLE flows
CHECK TABLE flows
"""
#: Takes all there is: refused by its words, as it says how.
EXHAUSTS = """
SELECT sleep(3)
SELECT sleepEachRow(3) FROM flows
SELECT count() FROM numbers(100000000000)
SELECT count() FROM numbers_mt(100000000000)
SELECT count() FROM zeros(100000000000)
SELECT * FROM generateRandom('a String')
SELECT * FROM generateSeries(1, 100000000000)
SELECT range(1000000000)
SELECT repeat('x', 1000000000)
SELECT space(1000000000)
SELECT arrayWithConstant(1000000000, 1)
SELECT randomString(1000000000)
WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT count() FROM t
"""


def each(text: str) -> list[str]:
    return text.strip().split("\n")


ATTACKS = [*each(FILES), *each(NETWORK), *each(WRITES), *each(SECRETS), *each(EXHAUSTS)]

ASKED = """
SELECT application, sum(bytes) AS b FROM flows GROUP BY application ORDER BY b DESC LIMIT 3
WITH x AS (SELECT src_addr, count() AS n FROM flows WHERE time > now() - INTERVAL 3 HOUR GROUP BY ALL) SELECT * FROM x
SELECT toStartOfInterval(time, INTERVAL 5 minute) t, countIf(dst_port = 443), quantile(0.9)(bytes) FROM flows GROUP BY t
SELECT f.device, c.packets FROM flows f JOIN counters c ON f.agent = c.agent AND f.device = c.device LIMIT 1
SELECT toIPv4('1.2.3.4'), isIPAddressInRange('1.1.1.1', '1.0.0.0/8'), cutIPv6(src_addr, 0, 1) FROM flows LIMIT 1
SELECT arrayJoin(alpn) a, count() FROM tls GROUP BY a
SELECT arrayMap(x -> x.data, answers) FROM dns LIMIT 1
SELECT sum(bytes) OVER (PARTITION BY device ORDER BY time) s FROM flows LIMIT 2
SELECT 1 UNION ALL SELECT 2
SELECT count(*) FROM flows WHERE NOT (protocol = 6) AND src_addr IN (SELECT dst_addr FROM flows)
SELECT CASE WHEN bytes > 5 THEN 'a' ELSE 'b' END k, count() FROM flows GROUP BY ALL ORDER BY ALL
SELECT device FROM flows WHERE application IN ('tls', 'http') OR domain LIKE '%\\\\_x\\'y%'
SELECT 'file(\\'/etc/passwd\\')', 'INTO OUTFILE', '-- no comment', '/* none */' -- one
SELECT `rows` FROM batches
SELECT time, service_port, rows FROM names_hour
"""


@pytest.fixture(scope="module")
def filled(opened: Store) -> Store:
    opened.insert(make_batch(tables={name: make_table(name, 7, 3) for name in SHIPPED}))
    return opened


@pytest.fixture(scope="module")
def visitors() -> list[object]:
    """Who came to our port: nobody, ever."""
    return []


@pytest.fixture(scope="module")
def port(visitors: list[object]) -> int:
    listening = socket.create_server(("127.0.0.1", 0))

    def welcome() -> None:
        while True:
            visitors.append(listening.accept())

    threading.Thread(target=welcome, daemon=True).start()
    return int(listening.getsockname()[1])


def test_there_are_enough_attacks() -> None:
    assert len(set(ATTACKS)) >= 60


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_refused(filled: Store, port: int, visitors: list[object], attack: str) -> None:
    with pytest.raises((SqlRefused, Refused)) as refused:
        filled.query_untrusted(attack.replace("PORT", str(port))).table()
    assert str(refused.value)
    assert not Path("/tmp/wiremeter-attack").exists()
    assert visitors == []


@pytest.mark.parametrize("question", each(ASKED))
def test_a_question_is_answered(filled: Store, question: str) -> None:
    with filled.query_untrusted(question) as rows:
        assert rows.schema.names


def test_nothing_was_changed(filled: Store) -> None:
    assert filled.query(f"SELECT count() AS n FROM {DATABASE}.flows").records() == [{"n": 7}]


#: Attacks that the connection alone must stop, were their words let pass.
@pytest.mark.parametrize(
    "attack",
    [
        "SELECT * FROM file('/etc/passwd', 'LineAsString')",
        "SELECT * FROM `/etc/passwd`",
        "SELECT * FROM url('http://127.0.0.1:PORT/', 'LineAsString')",
        "SELECT * FROM s3('http://127.0.0.1:PORT/b/k', 'LineAsString')",
        "SELECT * FROM remote('127.0.0.1:PORT', 'system.one')",
        "SELECT * FROM mysql('127.0.0.1:PORT', 'd', 't', 'u', 'p')",
        "SELECT * FROM executable('id', 'TSV', 'a String')",
        "INSERT INTO flows (device) VALUES ('x')",
        "CREATE TABLE t (a Int8) ENGINE = Memory",
        "DROP TABLE flows",
        "SET readonly = 0",
        "SELECT 1 SETTINGS max_memory_usage = 0",
        "SELECT sum(n) FROM (SELECT number AS n FROM numbers(100000000000))",
        "SELECT groupArray(number) FROM numbers(1000000000)",
        "SELECT number FROM numbers(5000000)",
    ],
)
def test_the_connection_refuses_by_itself(filled: Store, port: int, visitors: list[object], attack: str) -> None:
    with pytest.raises(Refused):
        filled.backend.query_untrusted(attack.replace("PORT", str(port)), QueryLimits(seconds=2)).table()
    assert visitors == []


_CROSSED = ", ".join(f"flows {name}" for name in "abcdefghijklm")
_DOUBLED = ", ".join(
    f"{after} AS (SELECT arrayConcat({', '.join(['d'] * 8)}) AS d FROM {before})"
    for before, after in zip("abcdefghijk", "bcdefghijkl", strict=True)
)


@pytest.mark.parametrize(
    "hungry",
    [
        f"SELECT sum(cityHash64(a.bytes, b.bytes, c.bytes, k.bytes)) FROM {_CROSSED}",
        f"WITH a AS (SELECT groupArray(device) AS d FROM flows), {_DOUBLED} SELECT length(d) FROM l",
        f"SELECT a.device FROM {_CROSSED}",
        f"SELECT groupArray(concat(a.text, b.device, c.device)) FROM {_CROSSED.replace('flows a', 'findings a')}",
    ],
)
def test_what_takes_too_much_is_ended_and_the_engine_lives(filled: Store, hungry: str) -> None:
    engine = filled.backend.engine.pid  # type: ignore[attr-defined]
    with pytest.raises((TooMuch, SqlRefused)):
        filled.query_untrusted(hungry, limits=QueryLimits(seconds=2)).table()
    assert filled.query("SELECT 1 AS one").records() == [{"one": 1}]
    assert filled.backend.engine.pid == engine  # type: ignore[attr-defined]


def test_long_deep_and_broken_texts_are_refused(filled: Store) -> None:
    for text in (
        f"SELECT '{'x' * 30_000}'",
        f"SELECT {'[' * 100}1{']' * 100}",
        "SELECT " + "NOT " * 3000 + "1",
        "SELECT " + "1 + " * 5000 + "1",
        "SELECT 'a\0b'",
        "SELECT '",
        "",
        ";",
        "/*",
        "SELECT $$",
    ):
        with pytest.raises((SqlRefused, Refused)):
            filled.query_untrusted(text).table()


def test_only_so_many_queries_of_users_run_at_a_time(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from wiremeter.server.store import Unavailable

    monkeypatch.setattr("wiremeter.server.store.store._UNTRUSTED_WAIT_SECONDS", 0.1)
    first, second = (filled.query_untrusted("SELECT device FROM flows") for _ in range(2))
    with pytest.raises(Unavailable, match="2 queries"):
        filled.query_untrusted("SELECT 1")
    first.close()
    assert filled.query_untrusted("SELECT 1 AS one").records() == [{"one": 1}]
    second.close()


def test_users_do_not_hold_up_rules(filled: Store) -> None:
    with contextlib.ExitStack() as places:
        for _ in range(UNTRUSTED_MAX["users"]):
            places.enter_context(filled.query_untrusted("SELECT 1"))
        assert filled.query_untrusted("SELECT 2 AS two", asker="rules").records() == [{"two": 2}]


HOSTILE = r"""
file url system SELECT FROM ( ) , ' " ` [ ] . ; -- /* */ $$ \ :: -> IN INTO OUTFILE '/etc/passwd' WITH AS x @ @@ { }
WHERE JOIN SETTINGS FORMAT APPLY EXCEPT UNION ALL 1 # ? : = numbers remote executable
"""
WORDS = [*sorted(FUNCTIONS | TABLES), *HOSTILE.split()]


@settings(max_examples=600, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join))
def test_random_words_do_not_get_by(words: str) -> None:
    """Whatever the engine would make of them, what names a function that is not allowed is refused."""
    try:
        text = allowed_text(words, lambda sql: sql)
    except SqlRefused:
        return
    for forbidden in ("file", "url", "remote", "executable", "numbers"):
        assert f"{forbidden} (" not in text.replace(f"'{forbidden} (", "")
