# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The record of every migration that this runtime host knows: one SQLite file, one row a migration (R42 to R45, R68, R83 to R87).

The row is the truth about state and history. Live figures are not in it: the service writes them to ``status.json``, which observers
read without ever taking a lock here.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import sqlite3
import typing as t
from pathlib import Path

from ..errors import Conflict
from ..spec import Endpoint, MigrationSpec
from .clock import mark
from .paths import private
from .states import ACTIVE, START, State, Substate, check_move

_SCHEMA = """
CREATE TABLE IF NOT EXISTS migration (
    key TEXT PRIMARY KEY, name TEXT NOT NULL, target TEXT NOT NULL, digest TEXT NOT NULL, spec TEXT NOT NULL,
    state TEXT NOT NULL, substate TEXT NOT NULL, created TEXT NOT NULL, started TEXT NOT NULL, ended TEXT,
    error TEXT, facts TEXT NOT NULL DEFAULT '{}', UNIQUE (target, name));
CREATE TABLE IF NOT EXISTS event (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, time TEXT NOT NULL, level TEXT NOT NULL, text TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS event_key ON event (key, id);
"""


MARKS = "marks"
"""The fact that holds when a migration ``began`` and ``ended``, see :mod:`.clock`."""


def now() -> str:
    """The present moment as ISO 8601 in UTC with milliseconds."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Catalogue:
    """The file ``HOME/catalogue.db``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextlib.contextmanager
    def _open(self) -> t.Iterator[sqlite3.Connection]:
        conn = sqlite3.connect(private(self._path), timeout=30, isolation_level=None)
        conn.row_factory = sqlite3.Row
        try:
            conn.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;" + _SCHEMA)
            conn.execute("BEGIN IMMEDIATE")
            yield conn
            conn.execute("COMMIT")
        finally:
            conn.close()

    def create(self, spec: MigrationSpec, facts: t.Mapping[str, t.Any] | None = None) -> None:
        """Record a new migration in its first state, with ``facts`` as :meth:`remember` keeps them.

        :raises Conflict: if another one is active on this target (R68) or the name is taken (R45).
        """
        target = target_of(spec.target)
        with self._open() as conn:
            for row in conn.execute("SELECT name, state FROM migration WHERE target = ?", [target]):
                if State(row["state"]) in ACTIVE and row["name"] != spec.name:
                    raise Conflict(
                        f"The migration {row['name']} to this target is {row['state']}; only one can be active at a time.",
                        hint=f"Finish or cancel {row['name']} first.",
                        details={"active": row["name"]},
                    )
                if row["name"] == spec.name:
                    raise Conflict(f"A migration named {spec.name} to this target exists already.", hint="Choose another name.")
            stamp = now()
            conn.execute(
                "INSERT INTO migration (key, name, target, digest, spec, state, substate, created, started, facts)"
                " VALUES (?,?,?,?,?,?,?,?,?,?)",
                [spec.key, spec.name, target, spec.digest(), json.dumps(spec.public()), START[0].value, START[1].value, stamp, stamp]
                + [json.dumps({**(facts or {}), MARKS: {"began": mark()}})],
            )
            self._event(conn, spec.key, "info", point(*START))

    def get(self, key: str) -> dict[str, t.Any] | None:
        """The record ``key``, or None."""
        if not self._path.exists():
            return None
        with self._open() as conn:
            row = conn.execute("SELECT * FROM migration WHERE key = ?", [key]).fetchone()
            return self._record(conn, row) if row else None

    def list(self) -> list[dict[str, t.Any]]:
        """All records, newest first (R74)."""
        if not self._path.exists():
            return []
        with self._open() as conn:
            rows = conn.execute("SELECT * FROM migration ORDER BY started DESC, rowid DESC").fetchall()
            return [self._record(conn, row) for row in rows]

    def move(self, key: str, state: State, substate: Substate, error: dict[str, t.Any] | None = None) -> None:
        """Go to another state, which is an event; to stay in the same is none. An illegal move is refused and changes nothing.

        :raises IllegalTransition: see :func:`.states.check_move`.
        """
        with self._open() as conn:
            row = conn.execute("SELECT state, substate, facts FROM migration WHERE key = ?", [key]).fetchone()
            before = State(row["state"]), Substate(row["substate"])
            check_move(before, (state, substate))
            ended, facts = None, json.loads(row["facts"])
            if state not in ACTIVE:
                ended = now()
                facts[MARKS] = {**facts.get(MARKS, {}), "ended": mark()}
            conn.execute(
                "UPDATE migration SET state = ?, substate = ?, ended = ?, error = ?, facts = ? WHERE key = ?",
                [state.value, substate.value, ended, json.dumps(error) if error else None, json.dumps(facts), key],
            )
            if error or before != (state, substate):
                self._event(conn, key, "error" if error else "info", point(state, substate) + (f": {error['message']}" if error else ""))

    def update_spec(self, spec: MigrationSpec) -> None:
        """Keep the tuning of the newest run; the identity is the same."""
        with self._open() as conn:
            conn.execute("UPDATE migration SET spec = ? WHERE key = ?", [json.dumps(spec.public()), spec.key])

    def remember(self, key: str, **facts: t.Any) -> None:
        """Keep facts such as the validation report or the cutover's result; None forgets one."""
        with self._open() as conn:
            row = conn.execute("SELECT facts FROM migration WHERE key = ?", [key]).fetchone()
            merged = {**json.loads(row["facts"]), **facts}
            conn.execute("UPDATE migration SET facts = ? WHERE key = ?", [json.dumps(merged), key])

    def event(self, key: str, level: str, text: str) -> None:
        """Add a line to the history of ``key``."""
        with self._open() as conn:
            self._event(conn, key, level, text)

    def delete(self, key: str) -> None:
        """Remove an ended migration from the list (R119)."""
        with self._open() as conn:
            conn.execute("DELETE FROM event WHERE key = ?", [key])
            conn.execute("DELETE FROM migration WHERE key = ?", [key])

    @staticmethod
    def _event(conn: sqlite3.Connection, key: str, level: str, text: str) -> None:
        conn.execute("INSERT INTO event (key, time, level, text) VALUES (?,?,?,?)", [key, now(), level, text])

    @staticmethod
    def _record(conn: sqlite3.Connection, row: sqlite3.Row) -> dict[str, t.Any]:
        record = dict(row)
        record["spec"] = json.loads(record["spec"])
        record["facts"] = json.loads(record["facts"])
        record["error"] = json.loads(record["error"]) if record["error"] else None
        events = conn.execute("SELECT time, level, text FROM event WHERE key = ? ORDER BY id DESC LIMIT 50", [record["key"]]).fetchall()
        record["events"] = [dict(e) for e in reversed(events)]
        return record


def point(state: State, substate: Substate) -> str:
    """Both, as events name them."""
    return f"{state.value} / {substate.value}"


def target_of(target: Endpoint) -> str:
    """What counts as one target server."""
    return f"{target.host.lower()}:{target.port}"
