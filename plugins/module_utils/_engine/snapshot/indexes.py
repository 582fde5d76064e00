# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Indexes and the constraints that rest on them, built by ourselves: as soon as a table has its rows, several at once, dearest first.

Primary keys and unique constraints become ``ADD CONSTRAINT ... USING INDEX``, so that their index is built beside the table's others
(CREATE INDEX shares its lock, ALTER TABLE does not). A table's constraints come after the last of its indexes. Everything is found
again when the work is taken up later; an invalid index is dropped and built anew.
"""

from __future__ import annotations

import dataclasses
import threading
import typing as t

from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_ident, quote_qualified
from ..spec import MigrationSpec
from .pool import TargetPool
from .progress import Progress

PG_CLASS, PG_CONSTRAINT = 1259, 2606
"""OIDs of the catalogs themselves, as an archive's table of contents has them."""

WEIGHT = {"gin": 3.0, "gist": 4.0, "spgist": 3.0, "brin": 0.2}
"""Cost of a byte of index against one of a B-tree, for the order alone."""

SMALL = 16 << 20
"""Below this many bytes of indexes a table's are built in one message: round trips cost more than the work."""

_INDEXES = """
    SELECT i.indrelid, i.indexrelid, n.nspname::text, t.relname::text, c.relname::text, pg_get_indexdef(i.indexrelid), i.indisvalid,
           coalesce(con.oid, 0), coalesce(con.contype::text, ''), pg_get_constraintdef(con.oid), coalesce(con.condeferrable, false),
           coalesce(con.condeferred, false), i.indisclustered, i.indisreplident, coalesce(pg_relation_size(i.indexrelid), 0),
           am.amname::text,
           ARRAY(SELECT a.attnum || ' SET STATISTICS ' || a.attstattarget FROM pg_attribute a
                  WHERE a.attrelid = i.indexrelid AND a.attstattarget >= 0)
      FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
      JOIN pg_namespace n ON n.oid = t.relnamespace
      JOIN pg_am am ON am.oid = c.relam
      LEFT JOIN pg_constraint con ON con.conindid = i.indexrelid AND con.conrelid = i.indrelid AND con.contype IN ('p', 'u', 'x')
     WHERE i.indrelid = ANY(%s) ORDER BY i.indexrelid"""

_PRESENT = """
    SELECT n.nspname::text, c.relname::text, i.indisvalid,
           EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = c.oid AND k.contype IN ('p', 'u', 'x'))
      FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname NOT IN ('pg_catalog', 'pg_toast', 'information_schema')"""


@dataclasses.dataclass(frozen=True)
class Index:
    """One index of the source. ``contype`` is ``p``, ``u``, ``x`` where a constraint rests on it, else empty."""

    table_oid: int
    oid: int
    schema: str
    table: str
    name: str
    definition: str
    valid: bool
    constraint_oid: int
    contype: str
    condef: str | None
    deferrable: bool
    deferred: bool
    clustered: bool
    replident: bool
    bytes: int
    method: str
    statistics: tuple[str, ...]

    @property
    def relation(self) -> str:
        """Qualified name of the table."""
        return quote_qualified(self.schema, self.table)

    @property
    def cost(self) -> float:
        """For the order: bytes, weighted by access method."""
        return self.bytes * WEIGHT.get(self.method, 1.0)

    @property
    def whole(self) -> bool:
        """Made by ALTER TABLE alone: exclusion constraints, and keys over periods (their index is no B-tree)."""
        return self.contype == "x" or (self.contype in ("p", "u") and self.method != "btree")

    def create(self) -> str:
        """CREATE INDEX; nothing happens where it exists."""
        return self.definition.replace(" INDEX ", " INDEX IF NOT EXISTS ", 1)

    def attach(self) -> str:
        """The constraint, or an empty string."""
        if not self.contype:
            return ""
        head = f"ALTER TABLE ONLY {self.relation} ADD CONSTRAINT {quote_ident(self.name)} "
        if self.whole:
            return head + str(self.condef)
        kind = "PRIMARY KEY" if self.contype == "p" else "UNIQUE"
        timing = (" DEFERRABLE" if self.deferrable else "") + (" INITIALLY DEFERRED" if self.deferred else "")
        return f"{head}{kind} USING INDEX {quote_ident(self.name)}{timing}"

    def marks(self) -> list[str]:
        """What else is remembered of it: clustering, replica identity, statistics targets."""
        marks = [f"ALTER INDEX {quote_qualified(self.schema, self.name)} ALTER COLUMN {s}" for s in self.statistics]
        if self.clustered:
            marks.append(f"ALTER TABLE {self.relation} CLUSTER ON {quote_ident(self.name)}")
        if self.replident:
            marks.append(f"ALTER TABLE ONLY {self.relation} REPLICA IDENTITY USING INDEX {quote_ident(self.name)}")
        return marks


def read_indexes(conn: psycopg.Connection[t.Any], table_oids: t.Sequence[int]) -> list[Index]:
    """The valid indexes of these tables; pg_dump too leaves the others out."""
    rows = conn.execute(_INDEXES, [list(table_oids)]).fetchall()
    indexes = []
    for *fields, statistics in rows:
        everything: list[t.Any] = [*fields, tuple(statistics)]
        indexes.append(Index(*everything))
    return [index for index in indexes if index.valid]


def covered(indexes: t.Iterable[Index]) -> set[tuple[int, int]]:
    """Catalog and OID of the archive's entries that :class:`IndexBuilder` makes unnecessary."""
    return {(PG_CONSTRAINT, i.constraint_oid) if i.contype else (PG_CLASS, i.oid) for i in indexes}


def session_setup(conn: psycopg.Connection[t.Any], jobs: int) -> str:
    """Settings for sessions that build: memory by what the server was given, no wait for the disk at each commit.

    A server's memory cannot be asked for; ``shared_buffers`` is a quarter of it by the manual's advice (20.4.1). All builders
    together get half of that, each at least what the server would give it and 256 MB.
    """
    row = conn.execute(
        "SELECT max(setting::bigint) FILTER (WHERE name = 'shared_buffers') * 8, max(setting::bigint) FILTER (WHERE name ~ '^maint')"
        " FROM pg_settings WHERE name IN ('shared_buffers', 'maintenance_work_mem')"
    ).fetchone()
    shared, own = (int(v or 0) for v in row or (0, 0))
    wanted = max(own, 256 << 10, min(2 << 20, shared // 2 // max(1, jobs)))
    quiet = "SET synchronous_commit = off; SET lock_timeout = '10min'; SET client_min_messages = warning"
    return f"SET maintenance_work_mem = '{wanted}kB'; {quiet}"


class IndexBuilder:
    """Builds ``indexes`` on the target, each table's when :meth:`table_complete` says so."""

    def __init__(
        self,
        spec: MigrationSpec,
        database: str,
        indexes: t.Sequence[Index],
        control: psycopg.Connection[t.Any],
        progress: Progress,
        stop: threading.Event,
    ) -> None:
        self._progress = progress
        self._by_table: dict[int, list[Index]] = {}
        for index in indexes:
            self._by_table.setdefault(index.table_oid, []).append(index)
        self._lock = threading.Lock()
        self._left: dict[int, int] = {}
        self._present = {(schema, name): (valid, constrained) for schema, name, valid, constrained in control.execute(_PRESENT)}
        jobs = spec.copy.index_jobs
        progress.set(indexes_total=len(indexes), indexes_done=0)
        self.pool = TargetPool(spec.target, database, jobs, "index", session_setup(control, jobs), stop)

    def table_complete(self, oid: int) -> None:
        """The table with the source's ``oid`` has all its rows: build its indexes."""
        indexes = self._by_table.pop(oid, [])
        if not indexes:
            return
        todo = [i for i in indexes if not i.whole and not self._present.get((i.schema, i.name), (False, False))[0]]
        last = self._finisher(indexes)
        label = f"{indexes[0].schema}.{indexes[0].table}"
        if not todo or sum(i.bytes for i in todo) <= SMALL:

            def all_at_once(conn: psycopg.Connection[t.Any]) -> None:
                with conn.transaction():
                    for index in todo:
                        self._create(conn, index)
                    last(conn)

            self.pool.submit(sum(i.cost for i in indexes), f"build the indexes of {label}", all_at_once)
            return
        self._left[oid] = len(todo)
        for index in todo:
            self.pool.submit(index.cost, f"build the index {index.name} of {label}", self._builder(oid, index, last, label))

    def _builder(
        self, oid: int, index: Index, last: t.Callable[[psycopg.Connection[t.Any]], None], label: str
    ) -> t.Callable[[psycopg.Connection[t.Any]], None]:
        def build(conn: psycopg.Connection[t.Any]) -> None:
            self._create(conn, index)
            with self._lock:
                self._left[oid] -= 1
                finished = not self._left[oid]
            if finished:
                self.pool.submit(float("inf"), f"add the constraints of {label}", last)

        return build

    def _create(self, conn: psycopg.Connection[t.Any], index: Index) -> None:
        there = self._present.get((index.schema, index.name))
        if there and not there[0]:
            conn.execute(f"DROP INDEX IF EXISTS {quote_qualified(index.schema, index.name)}".encode())
        conn.execute(index.create().encode())

    def _finisher(self, indexes: t.Sequence[Index]) -> t.Callable[[psycopg.Connection[t.Any]], None]:
        """The task after a table's last index: its constraints and marks, in one transaction."""

        def finish(conn: psycopg.Connection[t.Any]) -> None:
            with conn.transaction():
                have = {
                    row[0]
                    for row in conn.execute(
                        "SELECT conname::text FROM pg_constraint WHERE conrelid = %s::regclass AND contype IN ('p', 'u', 'x')",
                        [indexes[0].relation],
                    )
                }
                statements = [i.attach() for i in indexes if i.contype and i.name not in have]
                statements += [mark for i in indexes for mark in i.marks()]
                if statements:
                    conn.execute("; ".join(statements).encode())
            self._progress.add(indexes_done=len(indexes))

        return finish
