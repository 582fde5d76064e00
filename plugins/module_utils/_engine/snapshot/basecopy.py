# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The base copy of one database: schema, rows under one snapshot, indexes and constraints, statistics.

It may be broken off and run again at any point: what the target's ledger or catalog shows as done is not done again. The source's
snapshot is given back when the last row is on the target, before the long work on indexes ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
import typing as t
from pathlib import Path

from ..errors import ConnectionFailed, CopyError, MigrationError
from ..migration.ledger import Ledger
from ..postgres.catalog import Table, read_tables
from ..postgres.drivers import psycopg
from ..postgres.identifiers import SCHEMA
from ..postgres.selection import Selection
from ..postgres.session import application_name, connect, server_errors
from ..spec import MigrationSpec
from . import finish, leftout, plan
from .account import Account
from .budget import jobs_that_fit
from .foreignkeys import ForeignKey, add_foreign_keys, read_foreign_keys
from .formats import Types, choose_format
from .indexes import PG_CONSTRAINT, Index, IndexBuilder, covered, read_indexes, session_setup
from .largeobjects import LargeObjects, count_large_objects
from .locks import LockPatience
from .pool import TargetPool
from .present import PresentSchema
from .progress import Progress
from .relay import Done, Route
from .restraint import Restraint, no_pressure
from .schema import SchemaCopy
from .selected import Selected, select
from .sequences import MARGIN, sync_sequences
from .tables import TableCopy
from .tablespaces import INDEXES, move_to_tablespaces
from .tools import Stopped

RENEWALS = 10
"""How many further snapshots are asked for before a table that is emptied again and again ends the copy."""

USELESS = ("PGM3008", "PGM3009")
"""Errors after which another run needs another snapshot: it has ended, or a table that it shows is not there any more."""

LOCKED = (
    "Somebody holds a lock on a table (pg_locks, mode AccessExclusiveLock): end that session, or run the playbook again when it has ended."
)

LEFTOVER_SECONDS = 60.0
"""How long the server may take to end them."""

OURS = ("relay", "index", "finish tables", "large objects", "base copy", "schema")
"""Purposes of our sessions on both sides; those of a killed run are ended, or their CREATE INDEX would go on."""


class Snapshot(t.Protocol):
    """A snapshot exported on the source, valid until :meth:`close`."""

    snapshot: str
    consistent_point: int

    def close(self) -> None:
        """End it."""


@dataclasses.dataclass(frozen=True)
class CopyJob:
    """What to copy: ``snapshot`` is valid until ``release``; ``start_lsn`` where the stream takes over (any number offline)."""

    spec: MigrationSpec
    database: str
    workdir: Path
    snapshot: str
    start_lsn: int


class BaseCopy:
    """See the module.

    :param report: is given figures that changed, at most every half second.
    :param release: gives the snapshot back; not called where the copy ends before all rows are copied, so that it can be taken up again.
    :param stop: ends :meth:`run` within a second, resumable.
    :param renew: makes another snapshot with its own start LSN (law 8), for tables that were emptied or rewritten on the source
        before they were copied, or whose snapshot was lost; without it such a table ends the copy with an error.
    :param pressure: asks for restraint, from 0 (none) to 1 (no row moves), see :mod:`.restraint`.
    """

    def __init__(
        self,
        job: CopyJob,
        report: t.Callable[[dict[str, t.Any]], None],
        release: t.Callable[[], None],
        stop: threading.Event,
        renew: t.Callable[[], Snapshot] | None = None,
        pressure: t.Callable[[], float] = no_pressure,
    ) -> None:
        self._job = job
        self._spec = job.spec
        self._progress = Progress(report)
        self._release = _Once(release)
        self._stop = stop
        self._renew = renew
        self._restraint = Restraint(job.spec, job.database, pressure, self._progress.note)
        self._patience = LockPatience((job.spec.source, job.spec.target), job.database, self._progress, stop)
        self._formats: dict[str, str] = {}

    def standstill(self) -> float:
        """Seconds since a figure of the copy has changed."""
        return time.monotonic() - self._progress.moved

    def run(self) -> dict[str, t.Any]:
        """Do what is left.

        :return: ``stopped``, ``seconds``, ``notes`` and per table ``rows bytes seconds format chunks``.
        :raises MigrationError: naming what failed; a later run goes on.
        """
        started = time.monotonic()
        copied: list[Done] = []
        stopped = False
        with contextlib.ExitStack() as open_:
            try:
                copied = self._run(open_)
            except Stopped:
                stopped = True
            except psycopg.Error as exc:
                if lost(exc):
                    label = self._spec.target.label(self._job.database)
                    raise ConnectionFailed(
                        f"A session of the base copy was lost ({label} or the source): {' '.join(str(exc).split())}",
                        hint="What is copied stays; the copy goes on by itself when the server answers.",
                        details={"reason": "lost"},
                    ) from exc
                words = exc.diag.message_primary or " ".join(str(exc).split())
                raise CopyError(
                    f"The base copy of {self._job.database} failed: {words} (SQLSTATE {exc.sqlstate or 'none'}).",
                    sqlstate=exc.sqlstate or "",
                    hint=LOCKED if exc.sqlstate == "55P03" else "",
                ) from exc
        self._progress.flush()
        return {
            "stopped": stopped,
            "seconds": round(time.monotonic() - started, 3),
            "notes": self._progress.notes,
            "tables": self._summary(copied),
        }

    def _run(self, open_: contextlib.ExitStack) -> list[Done]:
        spec, database = self._spec, self._job.database
        self._job.workdir.mkdir(parents=True, exist_ok=True)
        control = open_.enter_context(connect(spec.target, database, purpose="base copy"))
        self._end_leftovers(control)
        source = self._under_snapshot(open_, self._job.snapshot)
        spec = self._within_budget(source, control)
        self._progress.set(step="schema")

        def begin() -> None:
            self._begin(source, self._job.snapshot)

        selected, schema = self._patience.run("plan the copy", lambda: self._choose(source, control), begin)
        self._patience.run("dump the schema", lambda: schema.dump(self._job.snapshot))
        schema.apply_pre_data()

        tables = selected.tables
        indexes, keys, matviews = self._patience.run("read indexes and keys", lambda: self._read_rest(source, control, selected), begin)
        empty = sorted(table.label for table in tables if self._stays_empty(table))
        if empty:
            self._progress.note(leftout.UNLOGGED.say(tables=", ".join(empty)))
        alone, trees = finish.analyzed_alone(source, tables)
        builder = IndexBuilder(spec, database, indexes, alone, control, self._progress, self._stop)
        open_.callback(builder.pool.close)

        self._progress.set(step="copy")
        account = Account(self._job.workdir, {x.qualified: (x.label, self._formats[x.qualified]) for x in tables if x.kind == "r"})
        with self._restraint:
            copied = self._copy_rows(open_, source, control, tables, builder, account)
        self._progress.set(step="indexes")
        builder.pool.drain()
        builder.pool.close()
        self._progress.set(step="constraints")
        setup = session_setup(control, spec.target, spec.copy.index_jobs)
        pool = TargetPool(spec.target, database, spec.copy.index_jobs, "finish tables", setup, self._stop)
        open_.callback(pool.close)
        made_here = covered(indexes) | {(PG_CONSTRAINT, key.oid) for key in keys}
        schema.apply_post_data(made_here, lambda: add_foreign_keys(control, pool, keys))
        self._progress.set(step="finish")
        self._finish(control, pool, schema, trees, matviews)
        account.close(Ledger(control).chunks())
        self._progress.set(step="done")
        return copied

    def _within_budget(self, source: psycopg.Connection[t.Any], control: psycopg.Connection[t.Any]) -> MigrationSpec:
        """Take no more sessions than were granted, or than half of what is free on either server."""
        copy = self._spec.copy
        jobs, index_jobs = jobs_that_fit(self._spec, source, control, self._job.database)
        if (jobs, index_jobs) != (copy.jobs, copy.index_jobs):
            self._progress.note(
                f"{jobs} relays and {index_jobs} index builders, not {copy.jobs} and {copy.index_jobs}: there are no sessions for more."
            )
            self._spec = dataclasses.replace(self._spec, copy=dataclasses.replace(copy, jobs=jobs, index_jobs=index_jobs))
        return self._spec

    # -- the plan

    def _choose(self, source: psycopg.Connection[t.Any], control: psycopg.Connection[t.Any]) -> tuple[Selected, SchemaCopy | PresentSchema]:
        """What of the source is copied, and how its schema comes to the target."""
        spec, database = self._spec, self._job.database
        selected = select(source, Selection.of(spec.copy), read_tables(source))
        if spec.copy.present:
            return selected, PresentSchema(spec, database, control, self._progress, selected.tables)
        return selected, SchemaCopy(spec, database, self._job.workdir, source, control, self._progress, self._stop, selected)

    def _read_rest(
        self, source: psycopg.Connection[t.Any], control: psycopg.Connection[t.Any], selected: Selected
    ) -> tuple[list[Index], list[ForeignKey], list[str]]:
        """Indexes and foreign keys to make, materialized views to fill; also decides the tables' formats."""
        spec, tables = self._spec, selected.tables
        made = [] if spec.copy.present else [table.oid for table in tables if table.kind == "r"]
        indexes = read_indexes(source, made, spec.globals.tablespaces)
        ours = {table.qualified for table in tables}
        keys = [] if spec.copy.present else read_foreign_keys(source, control.info.server_version)
        keys = [key for key in keys if key.relation in ours and (PG_CONSTRAINT, key.oid) not in selected.dropped]
        self._choose_formats(source, control, tables)
        return indexes, keys, finish.populated_matviews(source)

    # -- rows

    def _copy_rows(
        self,
        open_: contextlib.ExitStack,
        source: psycopg.Connection[t.Any],
        control: psycopg.Connection[t.Any],
        tables: t.Sequence[Table],
        builder: IndexBuilder,
        account: Account,
    ) -> list[Done]:
        """All rows and large objects; the snapshot is given back when the last of them is on the target, and kept for the next run else."""
        snapshot, start_lsn, release = self._job.snapshot, self._job.start_lsn, self._release
        pending = [table for table in tables if table.kind == "r" and not self._stays_empty(table)]
        for table in tables:
            if self._stays_empty(table):
                builder.table_complete(table)

        def committed(done: Done) -> None:
            account.add(done.planned.table.qualified, done.chunk.number, start_lsn, done.seconds)

        copy = TableCopy(self._spec.copy.jobs, self._progress, self._stop, lambda planned: builder.table_complete(planned.table), committed)
        objects = _InBackground(lambda: self._large_objects(snapshot))
        try:
            for round_ in range(RENEWALS + 1):
                planned = self._planned(source, control, pending, snapshot, start_lsn)
                units = self._units(control, planned, start_lsn, builder, first=round_ == 0)
                source.execute("ROLLBACK")
                lost = copy.run(self._route(snapshot, start_lsn), units)
                if round_ == 0:
                    objects.join()
                release()
                if not lost:
                    break
                pending = [table for table in pending if table.qualified in lost]
                names = ", ".join(sorted(table.label for table in pending)[:5])
                reason = next(iter(lost.values()))
                if self._renew is None or round_ == RENEWALS:
                    raise CopyError(
                        f"Could not copy {names} under the snapshot: {reason}.",
                        code="PGM3009",
                        hint="Run the playbook again: these tables get a new snapshot; avoid TRUNCATE and ALTER TABLE until then.",
                    )
                self._progress.note(f"Copied under a new snapshot: {names} ({reason}).")
                fresh = self._renew()
                snapshot, start_lsn, release = fresh.snapshot, fresh.consistent_point, _Once(fresh.close)
                source.close()
                source = self._under_snapshot(open_, snapshot)
                now = {table.oid: table for table in self._tables(source, snapshot)}
                pending = [now[table.oid] for table in pending if table.oid in now]
        except CopyError as exc:
            if exc.code in USELESS:
                release()
            raise
        finally:
            objects.abandon()
        return copy.done

    def _stays_empty(self, table: Table) -> bool:
        """Is ``table`` unlogged, and its definition all that is wanted?"""
        return table.kind == "r" and table.persistence == "u" and self._spec.copy.unlogged_tables == "empty"

    def _tables(self, source: psycopg.Connection[t.Any], snapshot: str) -> list[Table]:
        """All tables as ``snapshot`` shows them."""
        return self._patience.run("plan the copy", lambda: read_tables(source), lambda: self._begin(source, snapshot))

    def _planned(
        self,
        source: psycopg.Connection[t.Any],
        control: psycopg.Connection[t.Any],
        tables: t.Sequence[Table],
        snapshot: str,
        start_lsn: int,
    ) -> list[plan.PlannedTable]:
        """``tables`` in chunks, as they are remembered for the ``snapshot`` of ``start_lsn``."""
        copy = self._spec.copy

        def work() -> list[plan.PlannedTable]:
            planned = plan.plan_tables(source, tables, copy.chunk_bytes, copy.jobs)
            planned = plan.remember(self._job.workdir / "plan.json", start_lsn, planned)
            return plan.mark_used(control, planned)

        return self._patience.run("plan the copy", work, lambda: self._begin(source, snapshot))

    def _units(
        self,
        control: psycopg.Connection[t.Any],
        planned: t.Sequence[plan.PlannedTable],
        start_lsn: int,
        builder: IndexBuilder,
        first: bool,
    ) -> list[plan.Unit]:
        """What is left to copy of ``planned`` under the snapshot of ``start_lsn``; tables that are complete go on to their indexes."""
        have: dict[str, list[t.Any]] = {}
        for chunk in Ledger(control).chunks():
            have.setdefault(chunk.relation, []).append(chunk)
        left = []
        complete = done_chunks = done_bytes = 0
        older = []
        followed: dict[str, dict[str, t.Any]] = {}
        for item in planned:
            done = have.get(item.table.qualified, [])
            rows = sum(chunk.rows for chunk in done)
            followed[item.table.label] = {"state": "complete", "bytes": item.bytes, "done": item.bytes, "rows": rows}
            if done and len(done) == done[0].chunks:
                complete += 1
                done_chunks += done[0].chunks
                done_bytes += item.bytes
                if done[0].start_lsn != start_lsn:
                    older.append(item.table.label)
                builder.table_complete(item.table)
                if not first:  # lost in the round before, though its last COMMIT, which was not answered, came through
                    self._progress.add(tables_queued=-1, tables_complete=1)
                continue
            kept = {chunk.chunk for chunk in done if chunk.start_lsn == start_lsn and chunk.chunks == len(item.chunks)}
            if done and not kept and not first:
                again = item.bytes * len(done) // done[0].chunks
                self._progress.add(chunks_done=-len(done), bytes_done=-again, rows_done=-sum(chunk.rows for chunk in done))
            if not kept and (done or len(item.chunks) > 1):
                self._empty(control, item)
            done_chunks += len(kept)
            kept_bytes = sum(chunk.bytes for chunk in item.chunks if chunk.number in kept)
            done_bytes += kept_bytes
            rows = sum(chunk.rows for chunk in done if chunk.chunk in kept)
            followed[item.table.label].update(state="queued", done=kept_bytes, rows=rows)
            left += [(item, chunk) for chunk in item.chunks if chunk.number not in kept]
        self._progress.tables(followed)
        if first:
            if older and not self._spec.online:
                self._progress.note(f"{len(older)} tables were copied by an earlier run and are as of its snapshot, not of this one's.")
            self._progress.set(
                tables_queued=len(planned) - complete, tables_complete=complete, tables_loading=0, tables_errored=0,
                chunks_done=done_chunks,
                chunks_total=sum(len(item.chunks) for item in planned), bytes_total=sum(item.bytes for item in planned),
                bytes_done=done_bytes, rows_done=sum(chunk.rows for done in have.values() for chunk in done),
            )  # fmt: skip
        return plan.bundle(left)

    def _empty(self, control: psycopg.Connection[t.Any], item: plan.PlannedTable) -> None:
        """Empty a table that is copied in several chunks, or was in part; else it is emptied in the transaction of its rows."""

        def work() -> None:
            with control.transaction():
                control.execute(plan.emptying([item]).encode())
                control.execute(f"DELETE FROM {SCHEMA}.chunk WHERE relation = %s", [item.table.qualified])

        self._patience.run(f"empty {item.table.label}", work)

    def _route(self, snapshot: str, start_lsn: int) -> Route:
        spec = self._spec
        return Route(
            spec.source, spec.target, self._job.database, snapshot, start_lsn, self._formats, self._encoding, self._count, self._restraint
        )

    def _count(self, size: int) -> None:
        self._progress.add(bytes_moved=size)

    def _large_objects(self, snapshot: str) -> None:
        with contextlib.ExitStack() as open_:
            source = self._under_snapshot(open_, snapshot)
            total = count_large_objects(source)
            if not total:
                return
            target = open_.enter_context(connect(self._spec.target, self._job.database, purpose="large objects"))
            self._progress.set(large_objects_total=total, large_objects_done=0, large_object_bytes=0)
            objects = LargeObjects(source, target, self._pace(), lambda count: self._progress.add(large_objects_done=count))
            try:
                objects.copy()
            except psycopg.Error as exc:
                if lost(exc):
                    raise
                words = exc.diag.message_primary or " ".join(str(exc).split())
                raise CopyError(
                    f"Could not copy the large objects of {self._job.database}: {words} (SQLSTATE {exc.sqlstate or 'none'}).",
                    code="PGM3010",
                    sqlstate=exc.sqlstate or "",
                    hint="On the source: GRANT SELECT ON LARGE OBJECT to the migration's user." if exc.sqlstate == "42501" else "",
                ) from exc
            for note in objects.notes:
                self._progress.note(note)

    def _pace(self) -> t.Callable[[int], None]:
        """What lets bytes of large objects pass when it is their time, as the relays do with rows."""
        woke = time.monotonic()

        def let(size: int) -> None:
            nonlocal woke
            self._restraint.wait(size, time.monotonic() - woke, self._stop)
            woke = time.monotonic()
            self._progress.add(large_object_bytes=size)
            self._count(size)

        return let

    # -- the rest

    def _finish(
        self,
        control: psycopg.Connection[t.Any],
        pool: TargetPool,
        schema: SchemaCopy | PresentSchema,
        trees: t.Sequence[str],
        matviews: t.Collection[str],
    ) -> None:
        selection = Selection.of(self._spec.copy)
        finish.analyze(pool, trees)
        try:
            finish.refresh_matviews(control, matviews)
        except psycopg.Error as exc:
            self._progress.note(leftout.MATVIEW.say(words=exc.diag.message_primary or exc))
        finish.analyze(pool, [view for view in finish.populated_matviews(control) if view in matviews])
        with connect(self._spec.source, self._job.database, purpose="base copy") as source:
            with server_errors("set the sequences", self._spec.target, self._job.database, kind=CopyError):
                partly = self._spec.copy.present or not selection.everything
                sync_sequences(source, control, selection, partly=partly, margin=MARGIN if self._spec.online else 0)
            if not self._spec.copy.present:
                move_to_tablespaces(source, control, self._spec.globals.tablespaces, INDEXES)
            schema.take_back(source)

    def _under_snapshot(self, open_: contextlib.ExitStack, snapshot: str) -> psycopg.Connection[t.Any]:
        """A session on the source in a read-only transaction with ``snapshot``.

        :raises CopyError: PGM3008 if the snapshot has ended.
        """
        conn = open_.enter_context(connect(self._spec.source, self._job.database, purpose="base copy"))
        self._begin(conn, snapshot)
        return conn

    def _begin(self, conn: psycopg.Connection[t.Any], snapshot: str) -> None:
        """Begin the transaction of :meth:`_under_snapshot`, in place of one that is open."""
        if conn.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            conn.execute("ROLLBACK")  # a session that is lost says so here
        hint = "Run the playbook again: what is complete stays, the rest is copied under a new snapshot."
        with server_errors(
            f"use the snapshot {snapshot}", self._spec.source, self._job.database, kind=CopyError, code="PGM3008", hint=hint
        ):
            conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            conn.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'".encode())

    def _end_leftovers(self, control: psycopg.Connection[t.Any]) -> None:
        """End sessions of an earlier run of ours that nobody holds any more, and wait until they are gone: what one of them
        still commits must be in the ledger before that is read.

        :raises CopyError: PGM3013 if one does not end.
        """
        names = [application_name(self._spec.target, purpose) for purpose in OURS]
        deadline = time.monotonic() + LEFTOVER_SECONDS
        query = (
            "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND usename = current_user"
            " AND pid <> pg_backend_pid() AND application_name = ANY(%s)"
        )
        while left := control.execute(query, [names]).fetchall():
            if time.monotonic() > deadline:
                raise CopyError(
                    f"Sessions of an earlier run do not end on {self._spec.target.label()}: pid {', '.join(str(r[0]) for r in left)}.",
                    code="PGM3013",
                    hint="See what they wait for in pg_stat_activity of the target, then run the playbook again.",
                )
            if self._stop.wait(0.05):
                raise Stopped

    def _choose_formats(self, source: psycopg.Connection[t.Any], control: psycopg.Connection[t.Any], tables: t.Sequence[Table]) -> None:
        """Binary or text for each table, and the client encoding of the relays."""
        query = "SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()"
        encodings = [(conn.execute(query).fetchone() or ("",))[0] for conn in (source, control)]
        ascii_ = [e == "SQL_ASCII" for e in encodings]
        self._encoding = "SQL_ASCII" if all(ascii_) else "UTF8"
        types = Types(source)
        there = {table.qualified: table for table in read_tables(control)}
        for table in tables:
            if table.kind == "r":
                other = there.get(table.qualified)
                if other is None:
                    raise MigrationError(
                        f"The table {table.label} is not on the target.",
                        code="PGM3013",
                        hint="Do not change the schema during the migration.",
                    )
                self._formats[table.qualified] = choose_format(self._spec.copy.format, table, other, types, ascii_[0] == ascii_[1])

    def _summary(self, copied: t.Sequence[Done]) -> list[dict[str, t.Any]]:
        """Per table what this run copied."""
        tables: dict[str, dict[str, t.Any]] = {}
        for done in copied:
            table = done.planned.table
            item = tables.setdefault(table.label, {"table": table.label, "rows": 0, "bytes": 0, "seconds": 0.0, "chunks": 0})
            item["format"] = self._formats[table.qualified]
            item["rows"] += done.rows
            item["bytes"] += done.bytes
            item["seconds"] = round(item["seconds"] + done.seconds, 3)
            item["chunks"] += 1
        return sorted(tables.values(), key=lambda i: -int(i["bytes"]))


def lost(exc: psycopg.Error) -> bool:
    """Did a session end, rather than a statement fail?"""
    state = exc.sqlstate or ""
    return isinstance(exc, psycopg.OperationalError) and (not state or state.startswith(("08", "57P")))


class _Once:
    """A function that does nothing the second time."""

    def __init__(self, function: t.Callable[[], None]) -> None:
        self._function: t.Callable[[], None] | None = function

    def __call__(self) -> None:
        function, self._function = self._function, None
        if function:
            function()


class _InBackground:
    """A function in a thread whose exception is raised by :meth:`join`."""

    def __init__(self, function: t.Callable[[], None]) -> None:
        self._failure: BaseException | None = None
        self._function = function
        self._thread = threading.Thread(target=self._call, daemon=True)
        self._thread.start()

    def _call(self) -> None:
        try:
            self._function()
        except BaseException as exc:  # handed to the thread that waits
            self._failure = exc

    def join(self) -> None:
        """Wait for the end and raise what it raised."""
        self._thread.join()
        if self._failure:
            raise self._failure

    def abandon(self) -> None:
        """Wait no longer than it takes to notice a stop."""
        self._thread.join(timeout=1)
