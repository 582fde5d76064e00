# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Indexes and the constraints that rest on them, built by ourselves: as soon as a table has its rows, several at once, dearest first.

Primary keys and unique constraints become ``ADD CONSTRAINT ... USING INDEX``, so that their index is built beside the table's others
(CREATE INDEX shares its lock, ALTER TABLE does not). A table's constraints come after the last of its indexes. Everything is found
again when the work is taken up later; an invalid index is dropped and built anew.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
import typing as t

from ..postgres.catalog import Table
from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_ident, quote_qualified
from ..spec import Endpoint, MigrationSpec
from .indexwork import IndexWork
from .pool import TargetPool
from .progress import Progress

PG_CLASS, PG_CONSTRAINT = 1259, 2606
"""OIDs of the catalogs themselves, as an archive's table of contents has them."""

WEIGHT = {"gin": 3.0, "gist": 4.0, "spgist": 3.0, "brin": 0.2}
"""Cost of a byte of index against one of a B-tree, for the order alone."""

SMALL = 8 << 20
SMALL_TABLE = 8 << 20
GROUP = 50
"""Up to so many bytes of indexes and of table, tables are served in groups of so many."""

LEAST_MEMORY, MOST_MEMORY = 256 << 10, 2 << 20
"""kB: what a builder gets at least where the server's memory is not known, and at most."""

_INDEXES = """
    SELECT i.indrelid, i.indexrelid, n.nspname::text, t.relname::text, c.relname::text, pg_get_indexdef(i.indexrelid), i.indisvalid,
           coalesce(con.oid, 0), coalesce(con.contype::text, ''), pg_get_constraintdef(con.oid), coalesce(con.condeferrable, false),
           coalesce(con.condeferred, false), i.indisclustered, i.indisreplident, coalesce(pg_relation_size(i.indexrelid), 0),
           am.amname::text,
           coalesce(s.spcname::text, ''),
           ARRAY(SELECT a.attnum || ' SET STATISTICS ' || a.attstattarget FROM pg_attribute a
                  WHERE a.attrelid = i.indexrelid AND a.attstattarget >= 0)
      FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
      JOIN pg_namespace n ON n.oid = t.relnamespace
      JOIN pg_am am ON am.oid = c.relam
      LEFT JOIN pg_tablespace s ON s.oid = c.reltablespace
      LEFT JOIN pg_constraint con ON con.conindid = i.indexrelid AND con.conrelid = i.indrelid AND con.contype IN ('p', 'u', 'x')
     WHERE i.indrelid = ANY(%s) ORDER BY i.indexrelid"""

_PRESENT = """
    SELECT n.nspname::text, c.relname::text, i.indisvalid,
           EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = c.oid AND k.contype IN ('p', 'u', 'x'))
      FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname NOT IN ('pg_catalog', 'pg_toast', 'information_schema')"""


@dataclasses.dataclass(frozen=True)
class Index:
    """One index of the source. ``contype`` is ``p``, ``u``, ``x`` where a constraint rests on it, else empty; ``tablespace`` where it
    is built on the target, empty for the default one."""

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
    tablespace: str
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
        return self._placed(self.definition.replace(" INDEX ", " INDEX IF NOT EXISTS ", 1))

    def _placed(self, statement: str) -> str:
        """``statement`` so that what it builds lies in :attr:`tablespace`."""
        if not self.tablespace:
            return statement
        return f"SET default_tablespace = {quote_ident(self.tablespace)}; {statement}; RESET default_tablespace"

    def attach(self) -> str:
        """The constraint, or an empty string."""
        if not self.contype:
            return ""
        head = f"ALTER TABLE ONLY {self.relation} ADD CONSTRAINT {quote_ident(self.name)} "
        if self.whole:
            return self._placed(head + str(self.condef))
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


def read_indexes(conn: psycopg.Connection[t.Any], table_oids: t.Sequence[int], tablespaces: t.Mapping[str, str]) -> list[Index]:
    """The valid indexes of these tables; pg_dump too leaves the others out.

    :param tablespaces: of the source to those of the target.
    """
    rows = conn.execute(_INDEXES, [list(table_oids)]).fetchall()
    indexes = []
    for *fields, space, statistics in rows:
        everything: list[t.Any] = [*fields, tablespaces.get(space, ""), tuple(statistics)]
        indexes.append(Index(*everything))
    return [index for index in indexes if index.valid]


def covered(indexes: t.Iterable[Index]) -> set[tuple[int, int]]:
    """Catalog and OID of the archive's entries that :class:`IndexBuilder` makes unnecessary."""
    return {(PG_CONSTRAINT, i.constraint_oid) if i.contype else (PG_CLASS, i.oid) for i in indexes}


def builder_resources(jobs: int, vcores: int, memory_gb: int, shared: int, own: int) -> dict[str, str]:
    """Memory and parallel workers of one of ``jobs`` builders, as settings.

    A server's size cannot be asked for. Where the inventory does not say it, ``shared_buffers`` is taken for a quarter of the memory by
    the manual's advice (20.4.1), and each builder gets at least 256 MB. All builders together get an eighth of the memory, each at least
    what the server would give it. CPUs are shared evenly, the builder itself among its processes, and one builder alone leaves a CPU to
    others; where they are not known, the server's own default stays.

    :param vcores: CPUs of the target, 0: not known. :param memory_gb: its memory in GB, 0: not known.
    :param shared: its ``shared_buffers`` in kB. :param own: its ``maintenance_work_mem`` in kB.
    """
    jobs = max(1, jobs)
    memory = min(MOST_MEMORY, (memory_gb << 20 if memory_gb else shared * 4) // 8 // jobs)
    settings = {"maintenance_work_mem": f"{max(own, memory if memory_gb else max(memory, LEAST_MEMORY))}kB"}
    if vcores:
        settings["max_parallel_maintenance_workers"] = str(max(0, min(vcores // jobs, vcores - 1) - 1))
    return settings


def session_setup(conn: psycopg.Connection[t.Any], target: Endpoint, jobs: int) -> str:
    """Settings for sessions that build: see :func:`builder_resources`, and no wait for the disk at each commit."""
    row = conn.execute(
        "SELECT max(setting::bigint) FILTER (WHERE name = 'shared_buffers') * 8, max(setting::bigint) FILTER (WHERE name ~ '^maint')"
        " FROM pg_settings WHERE name IN ('shared_buffers', 'maintenance_work_mem')"
    ).fetchone()
    shared, own = (int(v or 0) for v in row or (0, 0))
    vcores = target.vcores if conn.info.server_version >= 110000 else 0  # builds are not parallel before
    wanted = {
        **builder_resources(jobs, vcores, target.memory_gb, shared, own),
        "synchronous_commit": "off",
        "lock_timeout": "10min",
        "client_min_messages": "warning",
    }
    return "; ".join(f"SET {name} = '{value}'" for name, value in wanted.items())


class IndexBuilder:
    """Builds ``indexes`` on the target, each table's when :meth:`table_complete` says so, and has the table analyzed behind them.

    Small tables are served in groups, one message and one transaction for each: with thousands of tables round trips and commits cost
    more than the work. A large table's indexes are tasks of their own, so that several are built at once.
    """

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
        self._small: collections.deque[_Job] = collections.deque()
        self._left: dict[int, int] = {}
        self._present = {(schema, name): (valid, constrained) for schema, name, valid, constrained in control.execute(_PRESENT)}
        jobs = spec.copy.index_jobs
        progress.set(indexes_total=len(indexes), indexes_done=0)
        self._work = IndexWork(indexes, jobs, progress)
        self.pool = TargetPool(spec.target, database, jobs, "index", session_setup(control, spec.target, jobs), stop)

    def table_complete(self, table: Table) -> None:
        """``table`` has all its rows: build its indexes, then ANALYZE it."""
        job = _Job(table, tuple(self._by_table.pop(table.oid, ())))
        built = [i for i in job.indexes if self._is_built(i)]
        self._work.found(built)
        self._work.ready(i for i in job.indexes if i not in built)
        todo = [i for i in job.indexes if not i.whole and i not in built]
        if table.bytes <= SMALL_TABLE and sum(i.bytes for i in todo) <= SMALL:
            self._small.append(job)
            self.pool.submit(sum(i.cost for i in job.indexes), "build the indexes of small tables", self._build_group)
        elif not todo:
            self.pool.submit(sum(i.cost for i in job.indexes), f"add the constraints of {table.label}", self._finisher(job))
        else:
            self._left[table.oid] = len(todo)
            for index in todo:
                self.pool.submit(index.cost, f"build the index {index.name} of {table.label}", self._builder(job, index))

    # -- small tables

    def _build_group(self, conn: psycopg.Connection[t.Any]) -> None:
        """The small tables that wait, up to :data:`GROUP`. If one fails, each becomes a task of its own, so that the error names it."""
        with self._lock:
            jobs = [self._small.popleft() for dummy in range(min(GROUP, len(self._small)))]
        if not jobs:
            return
        try:
            self._build_all(conn, jobs)
        except psycopg.Error:
            for job in jobs:
                doing = f"build the indexes of {job.table.label}"
                self.pool.submit(1, doing, lambda conn, job=job: self._build_all(conn, [job]))  # type: ignore[misc]

    def _build_all(self, conn: psycopg.Connection[t.Any], jobs: t.Sequence[_Job]) -> None:
        with conn.transaction():
            have = _constraints(conn, [job.table.qualified for job in jobs if job.indexes])
            statements: list[str] = []
            for job in jobs:
                statements += [s for i in job.indexes if not i.whole for s in self._creation(i)]
                statements += _attachments(job.indexes, have)
            statements += analyze_statements(conn, [job.table.qualified for job in jobs])
            if statements:
                fresh = [i for job in jobs for i in job.indexes if not self._is_built(i)]
                self._work.build(fresh, lambda: conn.execute("; ".join(statements).encode()))
        self._progress.add(indexes_done=sum(len(job.indexes) for job in jobs))

    # -- large tables

    def _builder(self, job: _Job, index: Index) -> t.Callable[[psycopg.Connection[t.Any]], None]:
        def build(conn: psycopg.Connection[t.Any]) -> None:
            self._work.build([index], lambda: conn.execute("; ".join(self._creation(index)).encode()))
            with self._lock:
                self._left[job.table.oid] -= 1
                finished = not self._left[job.table.oid]
            if finished:
                self.pool.submit(float("inf"), f"add the constraints of {job.table.label}", self._finisher(job))

        return build

    def _is_built(self, index: Index) -> bool:
        """Was it there, and valid, when this run began?"""
        return bool(self._present.get((index.schema, index.name), (False, False))[0])

    def _creation(self, index: Index) -> list[str]:
        """CREATE INDEX; what a killed build left half-made goes first."""
        there = self._present.get((index.schema, index.name))
        broken = there is not None and not there[0]
        return [*([f"DROP INDEX IF EXISTS {quote_qualified(index.schema, index.name)}"] if broken else []), index.create()]

    def _finisher(self, job: _Job) -> t.Callable[[psycopg.Connection[t.Any]], None]:
        """The task after a large table's last index: its constraints and marks in one transaction, then statistics in two stages."""

        def finish(conn: psycopg.Connection[t.Any]) -> None:
            with conn.transaction():
                statements = _attachments(job.indexes, _constraints(conn, [job.table.qualified]))
                if statements:
                    whole = [i for i in job.indexes if i.whole and not self._is_built(i)]
                    self._work.build(whole, lambda: conn.execute("; ".join(statements).encode()))
            self._progress.add(indexes_done=len(job.indexes))
            quick = analyze_statements(conn, [job.table.qualified])
            conn.execute("; ".join(["SET default_statistics_target = 1", *quick, "RESET default_statistics_target"]).encode())
            self.pool.submit(0, f"analyze {job.table.label}", analysis(job.table.qualified))

        return finish


@dataclasses.dataclass(frozen=True)
class _Job:
    """What a complete table still needs."""

    table: Table
    indexes: tuple[Index, ...]


def _constraints(conn: psycopg.Connection[t.Any], relations: t.Sequence[str]) -> set[tuple[str, str, str]]:
    """Schema, table and name of the constraints with an index that these tables have already."""
    if not relations:
        return set()
    rows = conn.execute(
        "SELECT n.nspname::text, c.relname::text, k.conname::text FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE k.conrelid = ANY(%s::regclass[]) AND k.contype IN ('p', 'u', 'x')",
        [list(relations)],
    )
    return {(row[0], row[1], row[2]) for row in rows}


def _attachments(indexes: t.Sequence[Index], have: t.Collection[tuple[str, str, str]]) -> list[str]:
    """The constraints that are missing, and what else is remembered of the indexes."""
    statements = [i.attach() for i in indexes if i.contype and (i.schema, i.table, i.name) not in have]
    return statements + [mark for i in indexes for mark in i.marks()]


def analyze_statements(conn: psycopg.Connection[t.Any], names: t.Sequence[str]) -> list[str]:
    """ANALYZE for the tables ``names`` (qualified); before version 11 it takes one table only."""
    if not names:
        return []
    if conn.info.server_version < 110000:
        return [f"ANALYZE {name}" for name in names]
    return ["ANALYZE " + ", ".join(names)]


def analysis(name: str, command: str = "ANALYZE") -> t.Callable[[psycopg.Connection[t.Any]], None]:
    """The task that makes the statistics of the table ``name`` (qualified) with ``command``."""

    def run(conn: psycopg.Connection[t.Any]) -> None:
        conn.execute(f"{command} {name}".encode())

    return run
