"""A ClickHouse server, or a cluster of them, as a backend: by HTTP, with ClickHouse's own client.

Several hosts are tried one after the other: where a call finds none, the next one does. What was asked of a host that
went away is asked of the next; inserts can be, because of their tokens.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import methodcaller
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import clickhouse_connect
import pyarrow as pa
from clickhouse_connect.driver.exceptions import ClickHouseError, Error
from pyarrow import ipc
from urllib3.exceptions import HTTPError

from wiremeter.errors import InputError
from wiremeter.server.store.backend import OnProgress, QueryLimits, Rows, once
from wiremeter.server.store.ddl import Cluster, create, create_in_cluster, ttl
from wiremeter.server.store.engine import refusal
from wiremeter.server.store.errors import StoreError, Unavailable
from wiremeter.server.store.schema import DATABASE, Table
from wiremeter.server.store.sql import shown_url

SCHEME = "clickhouse"
#: Longest wait for an answer's next byte.
_ANSWER_SECONDS = 300
_CONNECT_SECONDS = 5
#: Of all statements: rows are on all replicas when an insert returns, sums of rollups too (in parallel each shard would
#: write to one of its replicas only), and subqueries see all shards.
_SETTINGS: dict[str, str | int] = {
    "distributed_foreground_insert": 1,
    "parallel_distributed_insert_select": 0,
    "distributed_product_mode": "global",
}
#: Errors of a server that say that it, or another node, cannot be reached now: CANNOT_CONNECT, NETWORK_ERROR, ALL_…
_AWAY = frozenset({209, 210, 279, 32, 236, 198, 3})

T = TypeVar("T")


class Address(NamedTuple):
    """What a URL says. hosts: names with their ports. cluster: None for a server alone."""

    hosts: tuple[tuple[str, int], ...]
    user: str
    password: str
    is_secure: bool
    cluster: Cluster | None


def parse_url(url: str) -> Address:
    """Reads `clickhouse://user:password@host:port,host:port/?cluster=NAME&replicated=1&secure=1`.

    Ports are those of HTTP, 8123 or with secure 8443 unless given. Raises InputError.

    >>> parse_url("clickhouse://wm:x@a,b:9000/?cluster=c").hosts
    (('a', 8123), ('b', 9000))
    """
    parts = urlsplit(url)
    shown = shown_url(url)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if parts.scheme != SCHEME or not parts.netloc.rpartition("@")[2]:
        raise InputError(f"{shown} is no store: expected clickhouse://USER:PASSWORD@HOST[:PORT]/, or a directory")
    if parts.path.strip("/") not in ("", DATABASE):
        raise InputError(f"{shown}: the database is always {DATABASE}")
    if unknown := options.keys() - {"cluster", "replicated", "secure"}:
        raise InputError(f"{shown}: there is no option {min(unknown)}; those are cluster, replicated and secure")
    is_secure = options.get("secure") == "1"
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    found = []
    for each in hosts.split(","):
        name, _, port = each.rpartition(":") if ":" in each.rpartition("]")[2] else (each, "", "")
        if port and not port.isdigit():
            raise InputError(f"{shown}: {port} is no port")
        found.append((name.strip("[]"), int(port) if port else 8443 if is_secure else 8123))
    cluster = Cluster(options["cluster"], options.get("replicated") == "1") if "cluster" in options else None
    return Address(tuple(found), unquote(user) or "default", unquote(password), is_secure, cluster)


class Native:
    """The backend of a URL. Raises InputError for a wrong one, Unavailable if no host answers, Refused for a user that
    may not come in."""

    is_alone = False
    restarts = 0

    def __init__(self, url: str) -> None:
        self._address = parse_url(url)
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, int], Any] = {}
        self._first = 0
        self._try(lambda client: client.command("SELECT 1"))

    def define(self, table: Table) -> None:
        cluster = self._address.cluster
        statements = create_in_cluster(table, cluster) if cluster else (create(table),)
        on = f" ON CLUSTER '{cluster.name}'" if cluster and cluster.is_replicated else ""
        for statement in (f"CREATE DATABASE IF NOT EXISTS {DATABASE}{on}", *statements):
            self._everywhere(statement)

    def keep(self, table: Table, days: int) -> None:
        cluster = self._address.cluster
        name = f"{table.name}_local" if cluster else table.name
        on = f" ON CLUSTER '{cluster.name}'" if cluster and cluster.is_replicated else ""
        self._everywhere(f"ALTER TABLE {DATABASE}.{name}{on} MODIFY TTL {ttl(table, days)}")

    def _everywhere(self, statement: str) -> None:
        """Runs a statement that makes or changes tables: at each host of a cluster without Keeper, else at one."""
        cluster = self._address.cluster
        if cluster is None or cluster.is_replicated:
            self._try(methodcaller("command", statement))
            return
        for host in self._address.hosts:
            self._at(host, methodcaller("command", statement))

    def execute(self, sql: str, *, settings: Mapping[str, str | int] | None = None) -> None:
        self._try(lambda client: client.command(sql, settings={**_SETTINGS, **(settings or {})}))

    def insert(self, table: str, columns: Sequence[str], file: Path, *, token: str) -> None:
        def run(client: Any) -> None:
            with file.open("rb") as data:
                client.raw_insert(
                    f"{DATABASE}.{table}",
                    list(columns),
                    data,
                    settings={**_SETTINGS, "insert_deduplication_token": token, "max_partitions_per_insert_block": 0},
                    fmt="ArrowStream",
                )

        self._try(run)

    def query(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        *,
        settings: Mapping[str, str | int] | None = None,
        on_progress: OnProgress | None = None,
    ) -> Rows:
        return self._rows(sql, parameters, {**_SETTINGS, **(settings or {})})

    def one_line(self, sql: str) -> str:
        (row,) = self.query("SELECT formatQuerySingleLine({sql:String}) AS text", {"sql": sql}).records()
        return str(row["text"])

    def query_untrusted(self, text: str, limits: QueryLimits, *, on_progress: OnProgress | None = None) -> Rows:
        # Its answer is bounded, so the server may hold it back until it is whole: an error is one then, and no cut.
        settings = {**_SETTINGS, **limits.settings(), "readonly": 1}
        return self._rows(text, None, settings, {"wait_end_of_query": "1"}, database=DATABASE)

    def close(self) -> None:
        with self._lock:
            clients, self._clients = self._clients, {}
        for client in clients.values():
            with contextlib.suppress(Exception):
                client.close()

    def _rows(
        self,
        sql: str,
        parameters: Mapping[str, object] | None,
        settings: Mapping[str, str | int],
        transport: dict[str, str] | None = None,
        database: str | None = None,
    ) -> Rows:
        def run(client: Any) -> tuple[io.IOBase, Any]:
            stream = client.raw_stream(
                sql,
                parameters=dict(parameters) if parameters else None,
                settings={**settings, **({"database": database} if database else {}), **(transport or {})},
                fmt="ArrowStream",
            )
            return stream, ipc.open_stream(stream)

        stream, reader = self._try(run)
        close = once(stream.close)

        def batches() -> Iterator[pa.RecordBatch]:
            try:
                yield from reader
            except (pa.ArrowInvalid, OSError, HTTPError, Error) as error:
                raise Unavailable(f"the ClickHouse server broke off its answer: {error}") from error
            finally:
                close()

        return Rows(reader.schema, batches(), close)

    def _try(self, call: Callable[[Any], T]) -> T:
        """The call at the first host that answers, beginning with the one that answered last."""
        hosts = self._address.hosts
        problems: list[str] = []
        for step in range(len(hosts)):
            place = (self._first + step) % len(hosts)
            try:
                found = self._at(hosts[place], call)
            except Unavailable as error:
                problems.append(str(error))
            else:
                self._first = place
                return found
        raise Unavailable("; ".join(problems), retry_after=5)

    def _at(self, host: tuple[str, int], call: Callable[[Any], T]) -> T:
        try:
            return call(self._client(host))
        except StoreError:
            raise
        except Error as error:
            code = error.code or 0
            if code in _AWAY or not code:
                raise Unavailable(f"ClickHouse at {host[0]}:{host[1]}: {error}", retry_after=5) from error
            raise refusal(str(error), code) from error
        except (ClickHouseError, HTTPError, OSError, pa.ArrowInvalid) as error:
            raise Unavailable(f"ClickHouse at {host[0]}:{host[1]}: {error}", retry_after=5) from error

    def _client(self, host: tuple[str, int]) -> Any:
        with self._lock:
            if host in self._clients:
                return self._clients[host]
        client = clickhouse_connect.get_client(
            host=host[0],
            port=host[1],
            username=self._address.user,
            password=self._address.password,
            secure=self._address.is_secure,
            connect_timeout=_CONNECT_SECONDS,
            send_receive_timeout=_ANSWER_SECONDS,
            autogenerate_session_id=False,  # calls run beside each other
            query_retries=0,  # other hosts are tried instead
        )
        with self._lock:
            return self._clients.setdefault(host, client)
