# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What the target itself knows of its migration: the schema ``pg_migration`` in each migrated database.

``step`` holds what is done once, ``chunk`` one row for each chunk copied, ``progress`` the position of the change stream. Rows of
``chunk`` and ``progress`` are written in the same transaction as the data they speak of, so that what a restarted service reads is
what the target really has (laws 3 and 8). Replication origins would need a superuser; a table needs nothing.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ..postgres.drivers import psycopg
from ..postgres.identifiers import SCHEMA
from ..postgres.lsn import parse_lsn

NOT_OURS = "not ours"
"""Step of a ledger in a database that no migration made, and that is never ours to drop: a source that a way back leads to, or a target
whose schema was present."""

SERVES = "serves"
"""Step of a ledger in a database that a cutover has made complete: writers may be there, or may be led there at any moment. It is never
dropped, whatever becomes of the migration."""

COMPLETING = "completing"
"""Step of a ledger beside :data:`SERVES`, where a fence stood: once that was lifted nobody was led there, and both are taken back."""

_CREATE = f"""
CREATE SCHEMA IF NOT EXISTS {SCHEMA};
REVOKE ALL ON SCHEMA {SCHEMA} FROM PUBLIC;
CREATE TABLE IF NOT EXISTS {SCHEMA}.migration (
    one boolean PRIMARY KEY DEFAULT true CHECK (one), key text NOT NULL, created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE IF NOT EXISTS {SCHEMA}.step (name text PRIMARY KEY, done_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE IF NOT EXISTS {SCHEMA}.chunk (
    relation text NOT NULL, chunk int NOT NULL, chunks int NOT NULL, start_lsn pg_lsn NOT NULL,
    rows bigint NOT NULL, bytes bigint NOT NULL, done_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (relation, chunk));
CREATE TABLE IF NOT EXISTS {SCHEMA}.progress (
    lane int PRIMARY KEY, commit_lsn pg_lsn NOT NULL, end_lsn pg_lsn NOT NULL, commit_time timestamptz,
    updated_at timestamptz NOT NULL DEFAULT now());
"""

_CREATE_DIVIDED = f"CREATE TABLE IF NOT EXISTS {SCHEMA}.divided (relation text PRIMARY KEY)"

MARK_CHUNK = (
    f"INSERT INTO {SCHEMA}.chunk (relation, chunk, chunks, start_lsn, rows, bytes)"
    " VALUES ($1::text, $2::int, $3::int, ($4::text)::pg_lsn, $5::bigint, $6::bigint)"
)
"""For asyncpg, inside the target transaction of the chunk."""

FIND_CHUNKS = (
    f"SELECT relation, chunk, chunks, rows, bytes FROM {SCHEMA}.chunk WHERE start_lsn = ($1::text)::pg_lsn AND relation = ANY($2::text[])"
)
"""For asyncpg: which chunks are done under the snapshot of a start LSN."""

FORGET_CHUNKS = f"DELETE FROM {SCHEMA}.chunk WHERE relation = $1::text"
"""For asyncpg, in the transaction that empties a table before it is copied again."""


@dataclasses.dataclass(frozen=True)
class DoneChunk:
    """One chunk whose rows are on the target. ``relation`` is qualified and quoted, ``bytes`` those of the COPY stream."""

    relation: str
    chunk: int
    chunks: int
    start_lsn: int
    rows: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Lanes:
    """How changes are applied: for each lane its position (commit LSN, end LSN, time of the last commit), and the qualified names of the
    tables that are divided by key."""

    positions: list[tuple[str, str, str | None]]
    divided: list[str]


class Ledger:
    """The schema ``pg_migration`` of one database on the target."""

    def __init__(self, conn: psycopg.Connection[t.Any]) -> None:
        self._conn = conn

    def create(self, key: str) -> None:
        """Make schema and tables for the migration ``key``; what is there already stays."""
        with self._conn.transaction():
            self._conn.execute(_CREATE)
            self._conn.execute(f"INSERT INTO {SCHEMA}.migration (key) VALUES (%s) ON CONFLICT DO NOTHING", [key])

    def owner(self) -> str | None:
        """Key of the migration that made this database; None where there is no ledger."""
        if not self._exists():
            return None
        row = self._conn.execute(f"SELECT key FROM {SCHEMA}.migration").fetchone()
        return row[0] if row else None

    def step_done(self, name: str) -> bool:
        """Was :meth:`mark_step` called with ``name``?"""
        if not self._exists():
            return False
        return self._conn.execute(f"SELECT FROM {SCHEMA}.step WHERE name = %s", [name]).fetchone() is not None

    def mark_step(self, name: str) -> None:
        """Remember that the step ``name`` is done for good."""
        self._conn.execute(f"INSERT INTO {SCHEMA}.step (name) VALUES (%s) ON CONFLICT DO NOTHING", [name])

    def forget_step(self, name: str) -> None:
        """The step ``name`` was taken back."""
        self._conn.execute(f"DELETE FROM {SCHEMA}.step WHERE name = %s", [name])

    def droppable(self) -> bool:
        """Did the migration make this database, and was nobody led to it yet?"""
        return not (self.step_done(NOT_OURS) or self.step_done(SERVES))

    def chunks(self) -> list[DoneChunk]:
        """All chunks that are done."""
        if not self._exists():
            return []
        rows = self._conn.execute(f"SELECT relation, chunk, chunks, start_lsn::text, rows, bytes FROM {SCHEMA}.chunk").fetchall()
        return [DoneChunk(r[0], r[1], r[2], parse_lsn(r[3]), r[4], r[5]) for r in rows]

    def start_lsns(self) -> dict[str, int]:
        """For each table copied whole: the LSN from which the stream applies to it (law 8)."""
        seen: dict[str, list[DoneChunk]] = {}
        for chunk in self.chunks():
            seen.setdefault(chunk.relation, []).append(chunk)
        return {relation: done[0].start_lsn for relation, done in seen.items() if len(done) == done[0].chunks}

    def open_lanes(self, lanes: int, divided: t.Sequence[str]) -> Lanes:
        """The lanes as they are to be used: ``lanes`` of them with ``divided`` tables, if all stand at one position; else as they were
        left, because what is missing in some must fall to the same lanes again. Waits for sessions that still apply."""
        with self._conn.transaction():
            self._conn.execute(_CREATE_DIVIDED)
            found = self._positions("ORDER BY lane FOR UPDATE")
            if len({end for dummy, end, dummy2 in found}) > 1:
                rows = self._conn.execute(f"SELECT relation FROM {SCHEMA}.divided").fetchall()
                return Lanes(found, [row[0] for row in rows])
            first = found[0] if found else ("0/0", "0/0", None)
            self._conn.execute(f"DELETE FROM {SCHEMA}.progress WHERE lane >= %s", [lanes])
            self._conn.execute(
                f"INSERT INTO {SCHEMA}.progress (lane, commit_lsn, end_lsn, commit_time)"
                " SELECT g, %s::pg_lsn, %s::pg_lsn, %s::timestamptz FROM generate_series(0, %s - 1) g ON CONFLICT DO NOTHING",
                [*first, lanes],
            )
            self._conn.execute(f"DELETE FROM {SCHEMA}.divided")
            self._conn.execute(f"INSERT INTO {SCHEMA}.divided SELECT unnest(%s::text[])", [list(divided)])
            return Lanes([first] * lanes, list(divided))

    def _positions(self, order: str) -> list[tuple[str, str, str | None]]:
        query = f"SELECT commit_lsn::text, end_lsn::text, commit_time::text FROM {SCHEMA}.progress {order}"
        return [(row[0], row[1], row[2]) for row in self._conn.execute(query.encode()).fetchall()]

    def drop(self) -> None:
        """Remove the ledger: the migration of this database is over."""
        self._conn.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")

    def _exists(self) -> bool:
        row = self._conn.execute("SELECT pg_catalog.to_regclass(%s) IS NOT NULL", [f"{SCHEMA}.migration"]).fetchone()
        return bool(row and row[0])
