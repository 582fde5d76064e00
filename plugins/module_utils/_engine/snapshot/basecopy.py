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

from ..errors import ConnectionFailed, CopyError
from ..migration.ledger import Ledger
from ..postgres.catalog import Table, read_tables
from ..postgres.drivers import psycopg
from ..postgres.identifiers import SCHEMA, quote_literal
from ..postgres.selection import Selection
from ..postgres.session import connect, lost, server_errors
from ..spec import MigrationSpec
from . import finish, leftout, plan
from .account import Account
from .budget import jobs_that_fit
from .crew import Crew, cores, processes_for
from .foreignkeys import ForeignKey, add_foreign_keys, read_foreign_keys
from .formats import choose_formats
from .indexes import PG_CONSTRAINT, Index, IndexBuilder, covered, read_indexes, session_setup
from .leftovers import end_leftovers
from .locks import LockPatience
from .objectcopy import ObjectCopy
from .pace import Pace
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


class Snapshot(t.Protocol):
    """A snapshot exported on the source, valid until :meth:`close`."""

    snapshot: str
    consistent_point: int

    def close(self) -> None:
        """End it."""


@dataclasses.dataclass(frozen=True)
class CopyJob:
    """What to copy: ``snapshot`` is valid until ``release``; ``start_lsn`` where the stream takes over (any number offline);
    ``relay_command`` the argv of a process of relays (``cli.py relay``), empty where all run in this process."""

    spec: MigrationSpec
    database: str
    workdir: Path
    snapshot: str
    start_lsn: int
    relay_command: tuple[str, ...] = ()


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
        self._pace = Pace(job.spec.copy.throttle, self._restraint.pressure)
        self._patience = LockPatience((job.spec.source, job.spec.target), job.database, self._progress, stop)
        self._formats: dict[str, str] = {}
        self._encoding = "UTF8"

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
        end_leftovers(control, spec.target, self._stop)
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
        parents = finish.read_parents(source, tables)
        builder = IndexBuilder(spec, database, indexes, control, self._progress, self._stop)
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
        finish.analyze_parents(control, pool, parents, tables)
        self._finish(control, pool, schema, matviews)
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
        self._formats, self._encoding = choose_formats(spec.copy.format, source, control, tables)
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
        objects = ObjectCopy(
            self._spec, self._job.database, lambda: self._session(self._job.snapshot), self._progress, self._pace, self._stop
        )
        try:
            for round_ in range(RENEWALS + 1):
                planned = self._planned(source, control, pending, snapshot, start_lsn)
                units = self._units(control, planned, start_lsn, builder, first=round_ == 0)
                source.execute("ROLLBACK")
                lost = copy.run(self._crew(snapshot, start_lsn, units), units)
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

    def _crew(self, snapshot: str, start_lsn: int, units: t.Sequence[plan.Unit]) -> Crew:
        spec, job = self._spec, self._job
        size = sum(unit.bytes for unit in units)
        processes = processes_for(spec.copy.processes, spec.copy.jobs, size, spec.copy.throttle, cores()) if job.relay_command else 0
        if processes:
            self._progress.set(relay_processes=processes)
        return Crew(
            Route(spec.source, spec.target, job.database, snapshot, start_lsn, self._formats, self._encoding),
            command=job.relay_command,
            processes=processes,
            pace=self._pace,
            pressure=self._restraint.pressure,
            moved=self._count,
        )

    def _count(self, size: int) -> None:
        self._progress.add(bytes_moved=size)

    # -- the rest

    def _finish(
        self,
        control: psycopg.Connection[t.Any],
        pool: TargetPool,
        schema: SchemaCopy | PresentSchema,
        matviews: t.Collection[str],
    ) -> None:
        selection = Selection.of(self._spec.copy)
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
        return open_.enter_context(self._session(snapshot))

    def _session(self, snapshot: str) -> psycopg.Connection[t.Any]:
        conn = connect(self._spec.source, self._job.database, purpose="base copy")
        try:
            self._begin(conn, snapshot)
        except BaseException:
            conn.close()
            raise
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
            conn.execute(f"SET TRANSACTION SNAPSHOT {quote_literal(snapshot)}".encode())

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


class _Once:
    """A function that does nothing the second time."""

    def __init__(self, function: t.Callable[[], None]) -> None:
        self._function: t.Callable[[], None] | None = function

    def __call__(self) -> None:
        function, self._function = self._function, None
        if function:
            function()
