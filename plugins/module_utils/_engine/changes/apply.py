# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Batches into the target: each in one transaction, with the position (laws 3, 5 and 7).

A set goes in as COPY into a staging table and one statement; triggers and foreign keys rest (``session_replication_role = replica``). The
first statement of each transaction locks the progress row, so that a session of a killed applier that is still at work is waited for, not
overtaken.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ..errors import PermissionMissing, StreamError
from ..migration.ledger import Ledger
from ..postgres.drivers import psycopg
from ..postgres.identifiers import SCHEMA
from ..postgres.lsn import format_lsn, parse_lsn
from ..postgres.session import connect
from ..spec import MigrationSpec
from . import statements as sql
from .batch import Batch, RowStep, SetStep, TruncateStep
from .load import Load, load_of
from .rows import Mismatch, RowApplier, teach, transient
from .tables import TargetTable, TargetTables

SMALL = 12
"""Sets of fewer rows are applied row by row: cheaper than staging."""

_SESSION = (
    "SET synchronous_commit = on; SET jit = off; SET lc_monetary = 'C'; SET enable_hashjoin = off; SET enable_mergejoin = off;"
    " SET enable_seqscan = off; SET enable_bitmapscan = off; SET check_function_bodies = off"
)
_BEGIN = "BEGIN; SET CONSTRAINTS ALL DEFERRED"


@dataclasses.dataclass(frozen=True)
class Position:
    """Up to where the target has the source's transactions.

    ``commit_lsn`` and ``end_lsn`` are start and end of the last one's commit record (``end_lsn`` may be later, by a keepalive);
    ``commit_time`` is as the source wrote it, empty if unknown.
    """

    commit_lsn: int = 0
    end_lsn: int = 0
    commit_time: str = ""


class Moved(Exception):
    """Another session has moved the position in the meantime; begin again from there."""


class Applier:
    """One connection to the target's database. ``lane`` is its row in ``pg_migration.progress``.

    :raises ConnectionFailed: if the target cannot be reached.
    :raises PermissionMissing: PGM4030 if triggers cannot be kept from firing.
    """

    def __init__(self, spec: MigrationSpec, database: str, *, codec: str, bare_bytea: bool, lane: int = 0) -> None:
        self._spec, self._database, self._codec, self._lane = spec, database, codec, lane
        self._conn = connect(spec.target, database, purpose="applier")
        try:
            self._prepare(bare_bytea)
        except BaseException:
            self._conn.close()
            raise

    def _prepare(self, bare_bytea: bool) -> None:
        conn = self._conn
        teach(conn)
        conn.execute(_SESSION)
        if conn.info.parameter_status("server_encoding") == "SQL_ASCII":
            conn.execute("SET client_encoding = 'SQL_ASCII'")
        starts = Ledger(conn).start_lsns()
        self.start_lsn = min(starts.values(), default=0)
        self.tables = TargetTables(conn, starts, bare_bytea=bare_bytea)
        self._quiet_triggers()
        conn.execute(
            f"INSERT INTO {SCHEMA}.progress (lane, commit_lsn, end_lsn) VALUES (%s, '0/0', '0/0') ON CONFLICT DO NOTHING", [self._lane]
        )
        row = conn.execute(
            f"SELECT commit_lsn::text, end_lsn::text, commit_time::text FROM {SCHEMA}.progress WHERE lane = %s", [self._lane]
        ).fetchone()
        if row is None:
            raise StreamError(
                f"The progress row of lane {self._lane} is missing on {self._spec.target.label(self._database)}.", code="PGM4031"
            )
        self.position = Position(parse_lsn(row[0]), parse_lsn(row[1]), row[2] or "")
        self._rows = RowApplier(conn, self.tables, self._codec)
        self._staging: dict[tuple[int, str, tuple[str, ...]], str] = {}
        self._fresh: list[tuple[int, str, tuple[str, ...]]] = []
        self._used: set[str] = set()
        self._within = False
        self._pieces = 0
        self.fallbacks = 0

    def _quiet_triggers(self) -> None:
        """Keep triggers and foreign keys from doing again what the source did already.

        :raises PermissionMissing: PGM4030 where replica role is refused and there is something to keep quiet.
        :raises StreamError: PGM4032 where triggers fire even so.
        """
        refused = ""
        try:
            self._conn.execute("SET session_replication_role = replica")
        except psycopg.errors.InsufficientPrivilege as exc:
            refused = exc.diag.message_primary or str(exc)
        states = "('O', 'A')" if refused else "('A', 'R')"
        internal = "" if refused else "AND NOT t.tgisinternal"
        oids = [table.oid for table in self.tables]
        found = self._conn.execute(
            "SELECT t.tgrelid::regclass::text || ': ' || t.tgname FROM pg_trigger t WHERE t.tgrelid = ANY(%s)"
            f" AND t.tgenabled::text IN {states} {internal} ORDER BY 1 LIMIT 5",
            [oids],
        ).fetchall()
        if not found:
            return
        label = self._spec.target.label(self._database)
        names = "; ".join(row[0] for row in found)
        if refused:
            raise PermissionMissing(
                f"Triggers and foreign keys would fire while changes are applied on {label}: {refused} ({names}).",
                code="PGM4030",
                hint=f'GRANT SET ON PARAMETER session_replication_role TO "{self._spec.target.user}"; (from PostgreSQL 15 on)',
                server=label,
                sqlstate="42501",
            )
        raise StreamError(
            f"Triggers on {label} are ENABLE ALWAYS or REPLICA and would do again what the source did: {names}.",
            code="PGM4032",
            hint="ALTER TABLE ... ENABLE TRIGGER ... on the target, and set it back after the cutover.",
            server=label,
        )

    def close(self) -> None:
        """End the session; what is not committed is rolled back."""
        self._conn.close()

    def loads(self, batch: Batch) -> dict[int, Load]:
        """The large sets of ``batch`` as data for COPY. Needs no connection: another thread may do it ahead."""
        batch.close()
        return {
            id(step): load_of(step.content, self._codec)
            for step in batch.steps
            if isinstance(step, SetStep) and (len(step.content) >= SMALL and step.content.table.columns)
        }

    def apply(self, batch: Batch, loads: dict[int, Load]) -> bool:
        """Apply ``batch``; True if a transaction was committed.

        :raises StreamError: PGM4024 if a change cannot be applied; the target is as after the last batch.
        :raises psycopg.Error: if it is worth another attempt on a new connection.
        :raises Moved: see there.
        """
        if batch.abort:
            self._rollback()
            return False
        try:
            self._begin()
            self._apply(batch, loads)
            if not batch.final:
                self._pieces += 1
                return False
            self._commit(batch)
        except BaseException:
            self._rollback()
            raise
        return True

    def _begin(self) -> None:
        if self._within:
            return
        self._conn.execute(_BEGIN)
        self._within = True
        self._used = set()
        self._pieces = 0
        row = self._conn.execute(f"SELECT end_lsn::text FROM {SCHEMA}.progress WHERE lane = %s FOR UPDATE", [self._lane]).fetchone()
        if row is None or parse_lsn(row[0]) != self.position.end_lsn:
            raise Moved

    def _apply(self, batch: Batch, loads: dict[int, Load]) -> None:
        """As sets; if that fails, row by row."""
        if not batch.steps:
            return
        for load in loads.values():
            self._make_stagings(load)
        self._conn.execute("SAVEPOINT pgm_batch")
        try:
            for step in batch.steps:
                if isinstance(step, SetStep):
                    large = loads.get(id(step))
                    if large is None:
                        self._rows.small(step.content)
                    else:
                        self._load(large)
                elif isinstance(step, RowStep):
                    self._rows.change(step.change)
                elif isinstance(step, TruncateStep):
                    self._conn.execute(t.cast(t.Any, sql.truncate(step.tables, step.restart_identity)))
        except (psycopg.Error, Mismatch) as exc:
            if isinstance(exc, psycopg.Error) and transient(exc):
                raise
            self._row_by_row(batch)
        self._conn.execute("RELEASE SAVEPOINT pgm_batch")

    def _row_by_row(self, batch: Batch) -> None:
        self.fallbacks += 1
        self._conn.execute("ROLLBACK TO SAVEPOINT pgm_batch")
        self._rows.batch(batch)

    def _commit(self, batch: Batch) -> None:
        """Progress and COMMIT; deferred constraints that refuse the set are given the rows in source order."""
        try:
            self._finish(batch)
        except psycopg.Error as exc:
            if transient(exc):
                raise
            if self._pieces or not batch.events:
                raise StreamError(
                    f"The transaction that ends at {format_lsn(batch.end_lsn)} cannot be committed: {exc}", code="PGM4025"
                ) from exc
            self._rollback()
            self._begin()
            self._rows.batch(batch)
            try:
                self._finish(batch)
            except psycopg.Error as again:
                if transient(again):
                    raise
                said = again.diag.message_primary or str(again)
                raise self._rows.failure(batch.events[-1][1], said, again.sqlstate or "") from again

    def _finish(self, batch: Batch) -> None:
        commit_lsn, end_lsn = batch.commit_lsn or self.position.commit_lsn, max(batch.end_lsn, self.position.end_lsn)
        commit_time = batch.commit_time or self.position.commit_time
        done = self._conn.execute(
            f"UPDATE {SCHEMA}.progress SET commit_lsn = %s::pg_lsn, end_lsn = %s::pg_lsn, commit_time = %s::timestamptz, updated_at = now()"
            " WHERE lane = %s",
            [format_lsn(commit_lsn), format_lsn(end_lsn), commit_time or None, self._lane],
        )
        if done.rowcount != 1:
            raise StreamError("The progress row of the target is gone.", code="PGM4031")
        self._conn.execute("COMMIT")
        self._within = False
        self._fresh = []
        self.position = Position(commit_lsn, end_lsn, commit_time)

    def _rollback(self) -> None:
        for key in self._fresh:  # made inside the transaction that is given up
            self._staging.pop(key, None)
        self._fresh = []
        self._within = False
        if not self._conn.closed:
            try:
                self._conn.execute("ROLLBACK")
            except psycopg.Error:
                self._conn.close()

    def _make_stagings(self, load: Load) -> None:
        table = load.content.table
        if load.deletes:
            self._stage(table, "d", table.key)
        for names, dummy, dummy2 in load.updates:
            self._stage(table, "u", names)

    def _stage(self, table: TargetTable, kind: str, names: tuple[str, ...]) -> str:
        """The name of the staging table for these columns; it is made at its first use in a session."""
        key = (table.oid, kind, names)
        name = self._staging.get(key)
        if name is None:
            name = f"pgm_{kind}{table.oid}_{len(self._staging)}"
            self._conn.execute(t.cast(t.Any, sql.make_staging(table, name, names)))
            self._staging[key] = name
            self._fresh.append(key)
        return name

    def _load(self, load: Load) -> None:
        table = load.content.table
        if load.deletes:
            data, count = load.deletes
            staging = self._stage(table, "d", table.key)
            self._fill(staging, sql.copy_staging(table, staging, table.key), data, table, count)
            self._expect(table, "DELETE", sql.delete_staged(table, staging), count)
        for names, data, count in load.updates:
            staging = self._stage(table, "u", names)
            statement = sql.update_staged(table, staging, names)
            if statement:
                self._fill(staging, sql.copy_staging(table, staging, names), data, table, count)
                self._expect(table, "UPDATE", statement, count)
        if load.inserts:
            data, count = load.inserts
            self._copy(sql.copy_in(table), data, table, count)

    def _fill(self, staging: str, statement: str, data: bytes, table: TargetTable, count: int) -> None:
        """Fill a staging table, which a commit empties and a second use in one transaction must."""
        if staging in self._used:
            self._conn.execute(f"TRUNCATE pg_temp.{staging}")
        self._used.add(staging)
        self._copy(statement, data, table, count)

    def _copy(self, statement: str, data: bytes, table: TargetTable, count: int) -> None:
        with self._conn.cursor() as cursor:
            with cursor.copy(t.cast(t.Any, statement)) as copy:
                copy.write(data)
            if cursor.rowcount != count:
                raise Mismatch(table, "INSERT", count, cursor.rowcount)

    def _expect(self, table: TargetTable, kind: str, statement: str, count: int) -> None:
        done = self._conn.execute(t.cast(t.Any, statement))
        if done.rowcount != count:
            raise Mismatch(table, kind, count, done.rowcount)
