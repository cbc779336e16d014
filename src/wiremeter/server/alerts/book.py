"""What must outlive the server of alerts, in one SQLite file: states, history, silences, and what was told to whom.

Each step is one transaction, so that after a kill all of it holds, or nothing. The store itself would not do: alerts
are told when it is away, too.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from wiremeter.errors import InputError
from wiremeter.server.alerts.silences import Silence
from wiremeter.server.alerts.states import Alert

#: What is kept: so many changes, and so long what is over.
HISTORY_MAX = 100_000
_SILENCES_KEPT_NS = 5 * 86400 * 10**9
#: How long an alert that is over is shown, nanoseconds.
RESOLVED_SHOWN_NS = 15 * 60 * 10**9
_VERSION = 1
_TABLES = """
    CREATE TABLE alerts (rule TEXT, fingerprint TEXT, body BLOB, PRIMARY KEY (rule, fingerprint)) WITHOUT ROWID;
    CREATE TABLE looks (rule TEXT PRIMARY KEY, time_ns INTEGER, problem TEXT) WITHOUT ROWID;
    CREATE TABLE history (id INTEGER PRIMARY KEY, time_ns INTEGER, body BLOB);
    CREATE TABLE silences (id TEXT PRIMARY KEY, body BLOB) WITHOUT ROWID;
    CREATE TABLE told (output TEXT, rule TEXT, fingerprint TEXT, fired_ns INTEGER, time_ns INTEGER, body BLOB,
        PRIMARY KEY (output, rule, fingerprint, fired_ns)) WITHOUT ROWID;
"""


class Look(NamedTuple):
    """A rule's last evaluation that went well, 0 if there was none; problem: why the last one did not, else ""."""

    time_ns: int
    problem: str


class Change(NamedTuple):
    """An alert that fired or was over, and when."""

    time_ns: int
    alert: Alert


class Told(NamedTuple):
    """A firing that was told, and when last."""

    time_ns: int
    alert: Alert


class Book:
    """May be used from any thread. Raises InputError if the file cannot be used."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        try:
            self._database = sqlite3.connect(file, timeout=10, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
            if version == 0:
                self._database.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT;")
        except sqlite3.Error as error:
            raise InputError(f"{file}: what is known of alerts cannot be read: {error}; move the file away") from error
        if version > _VERSION:
            raise InputError(f"{file} was written by a newer wiremeter; use that, or move the file away")

    # --- alerts

    def alerts(self) -> list[Alert]:
        """Those that are pending, firing, or over since a short while."""
        return [_alert(body) for (body,) in self._rows("SELECT body FROM alerts ORDER BY rule, fingerprint")]

    def of_rule(self, rule: str) -> dict[str, Alert]:
        """Those of one rule, by fingerprint."""
        rows = self._rows("SELECT fingerprint, body FROM alerts WHERE rule = ?", rule)
        return {fingerprint: _alert(body) for fingerprint, body in rows}

    def looks(self) -> dict[str, Look]:
        """By rule, how its last evaluation went."""
        return {rule: Look(*rest) for rule, *rest in self._rows("SELECT rule, time_ns, problem FROM looks")}

    def looked(self, rule: str, now_ns: int, alerts: Iterable[Alert]) -> list[Alert]:
        """Writes how the rule's alerts are after an evaluation. Gives those that fired or ended by it."""
        with self._transaction() as database:
            before = {
                fingerprint: _alert(body)
                for fingerprint, body in database.execute("SELECT fingerprint, body FROM alerts WHERE rule = ?", [rule])
            }
            changed = []
            database.execute("DELETE FROM alerts WHERE rule = ?", [rule])
            for alert in alerts:
                if alert.state == "resolved" and now_ns - alert.resolved_ns >= RESOLVED_SHOWN_NS:
                    continue
                body = msgspec.json.encode(alert)
                database.execute("INSERT INTO alerts VALUES (?, ?, ?)", [rule, alert.fingerprint, body])
                known = before.get(alert.fingerprint)
                if alert.state != "pending" and (known is None or known.state != alert.state):
                    changed.append(alert)
                    database.execute("INSERT INTO history (time_ns, body) VALUES (?, ?)", [now_ns, body])
            database.execute("INSERT OR REPLACE INTO looks VALUES (?, ?, '')", [rule, now_ns])
            if changed:
                database.execute("DELETE FROM history WHERE id <= (SELECT max(id) FROM history) - ?", [HISTORY_MAX])
        return changed

    def missed(self, rule: str, problem: str) -> None:
        """Notes that a rule could not be evaluated; its alerts stay as they are."""
        sql = "INSERT INTO looks VALUES (?, 0, ?) ON CONFLICT (rule) DO UPDATE SET problem = excluded.problem"
        with self._transaction() as database:
            database.execute(sql, [rule, problem])

    def forget(self, rule: str) -> None:
        """A rule that is there no more; its alerts were ended before."""
        with self._transaction() as database:
            database.execute("DELETE FROM looks WHERE rule = ?", [rule])

    def history(self, limit: int) -> list[Change]:
        """What fired and ended, the newest first."""
        rows = self._rows("SELECT time_ns, body FROM history ORDER BY id DESC LIMIT ?", limit)
        return [Change(time_ns, _alert(body)) for time_ns, body in rows]

    # --- silences

    def silences(self) -> list[Silence]:
        """All of them, those too that ended lately."""
        found = [msgspec.json.decode(body, type=Silence) for (body,) in self._rows("SELECT body FROM silences")]
        return sorted(found, key=lambda silence: (silence.starts_ns, silence.id))

    def silence(self, silence: Silence) -> None:
        """Writes one, new or changed, and forgets old ones."""
        with self._transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO silences VALUES (?, ?)", [silence.id, msgspec.json.encode(silence)]
            )
            for id, body in database.execute("SELECT id, body FROM silences").fetchall():
                if msgspec.json.decode(body, type=Silence).ends_ns < silence.starts_ns - _SILENCES_KEPT_NS:
                    database.execute("DELETE FROM silences WHERE id = ?", [id])

    # --- what was told

    def told(self, output: str) -> dict[tuple[str, str, int], Told]:
        """By identity, the firings that an output was told, and not yet that they are over."""
        rows = self._rows("SELECT time_ns, body FROM told WHERE output = ?", output)
        return {told.alert.identity: told for told in (Told(time_ns, _alert(body)) for time_ns, body in rows)}

    def tell(self, output: str, now_ns: int, firing: Iterable[Alert], over: Iterable[Alert]) -> None:
        """Notes what an output has been told."""
        with self._transaction() as database:
            for alert in firing:
                values = [output, *alert.identity, now_ns, msgspec.json.encode(alert)]
                database.execute("INSERT OR REPLACE INTO told VALUES (?, ?, ?, ?, ?, ?)", values)
            for alert in over:
                database.execute(
                    "DELETE FROM told WHERE output = ? AND rule = ? AND fingerprint = ? AND fired_ns = ?",
                    [output, *alert.identity],
                )

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._database.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def _rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._database.execute(sql, values).fetchall()


def _alert(body: bytes) -> Alert:
    return msgspec.json.decode(body, type=Alert)
