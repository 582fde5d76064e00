# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""One lane: a connection to the target that applies its part of each batch in one transaction, with its position (laws 3, 5 and 7).

A set goes in as COPY into a staging table and one statement; triggers and foreign keys rest (``session_replication_role = replica``). The
first statement of each transaction moves the progress row from the position that this lane believes in, so that a session of a killed
applier that is still at work is waited for, not overtaken. Everything that can fail does so before the commit, which is a step of its own:
the lanes of a batch commit when all are through. A small batch takes two round trips.
"""

from __future__ import annotations

import dataclasses

from ..errors import StreamError
from ..postgres.drivers import psycopg
from ..postgres.identifiers import SCHEMA
from ..postgres.lsn import format_lsn
from ..postgres.session import connect
from ..spec import MigrationSpec
from . import statements as sql
from .batch import Batch, RowStep, SetStep, TruncateStep
from .load import Load
from .multiset import Multiset, delete_by_text
from .partition import Part
from .pipe import Mismatch, Pipe, RawText
from .rows import RowApplier, told_by, transient
from .tables import TargetTable, TargetTables

_SESSION = (
    "SET synchronous_commit = on; SET lc_monetary = 'C'; SET enable_hashjoin = off; SET enable_mergejoin = off;"
    " SET enable_seqscan = off; SET enable_bitmapscan = off; SET check_function_bodies = off"
)


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
    """What the session began with is no longer so; begin again from what the target says."""


class Applier:
    """One connection to the target's database, which is lane ``lane``.

    :raises ConnectionFailed: if the target cannot be reached.
    """

    def __init__(self, spec: MigrationSpec, database: str, lane: int) -> None:
        self.lane = lane
        self.conn = connect(spec.target, database, purpose="applier")
        try:
            self.conn.execute(_SESSION)
            if self.conn.info.server_version >= 110000:
                self.conn.execute("SET jit = off")
        except BaseException:
            self.conn.close()
            raise
        self.pipe = Pipe(self.conn)
        self.position = Position()
        self._staging: dict[tuple[int, str, tuple[str, ...]], str] = {}
        self._fresh: list[tuple[int, str, tuple[str, ...]]] = []
        self._used: set[str] = set()
        self._within = False
        self._pieces = 0
        self.fallbacks = 0

    def start(self, tables: TargetTables, position: Position) -> None:
        """Begin at ``position``. From here on bytes are bytes where the database says so; what was read before, the catalog, is text."""
        if self.conn.info.parameter_status("server_encoding") == "SQL_ASCII":
            self.conn.execute("SET client_encoding = 'SQL_ASCII'")
        self._rows = RowApplier(self.pipe, tables)
        self.position = position

    def close(self) -> None:
        """End the session; what is not committed is rolled back."""
        self.conn.close()

    def apply(self, part: Part) -> None:
        """Apply ``part`` up to its commit.

        :raises StreamError: PGM4024 if a change cannot be applied.
        :raises psycopg.Error: if it is worth another attempt on a new connection.
        :raises Moved: see there.
        """
        self._begin(part)
        if part.steps:
            try:
                self._sets(part)
                self.pipe.flush()
            except (psycopg.Error, Mismatch) as exc:
                if isinstance(exc, psycopg.Error) and transient(exc):
                    raise
                self._row_by_row(part)
        self.pipe.flush()
        if not part.batch.final:
            self._pieces += 1

    def _begin(self, part: Part) -> None:
        """The transaction, and the progress row: moved if the batch is whole, else locked until its last piece comes."""
        if not self._within:
            self._within = True
            self._used = set()
            self._pieces = 0
            self.pipe.send("BEGIN")
            self.pipe.send("SET CONSTRAINTS ALL DEFERRED")
            if not part.batch.final:
                self.pipe.send(
                    f"SELECT FROM {SCHEMA}.progress WHERE (lane = $1 OR $2) AND end_lsn = $3::pg_lsn ORDER BY lane FOR UPDATE",
                    self._mine(part),
                    part.moves,
                    _moved,
                )
        if part.batch.final:
            self._move(part)

    def _mine(self, part: Part) -> list[RawText | None]:
        return [_raw(str(self.lane)), _raw("true" if part.alone else "false"), _raw(format_lsn(self.position.end_lsn))]

    def _move(self, part: Part) -> None:
        after = self._after(part.batch)
        time = _raw(after.commit_time) if after.commit_time else None
        self.pipe.send(
            f"UPDATE {SCHEMA}.progress SET commit_lsn = $4::pg_lsn, end_lsn = $5::pg_lsn, commit_time = $6::timestamptz, updated_at = now()"
            " WHERE (lane = $1 OR $2) AND end_lsn = $3::pg_lsn",
            [*self._mine(part), _raw(format_lsn(after.commit_lsn)), _raw(format_lsn(after.end_lsn)), time],
            part.moves,
            _moved,
        )

    def _after(self, batch: Batch) -> Position:
        before = self.position
        return Position(batch.commit_lsn or before.commit_lsn, max(batch.end_lsn, before.end_lsn), batch.commit_time or before.commit_time)

    def _sets(self, part: Part) -> None:
        pipe = self.pipe
        for load in part.loads.values():
            self._make_stagings(load)
        for step in part.steps:
            if isinstance(step, Multiset) and step.removed:
                self._stage(step.table, "r", step.table.columns)
        pipe.send("SAVEPOINT pgm_batch")
        for step in part.steps:
            if isinstance(step, SetStep):
                large = part.loads.get(id(step))
                if large is None:
                    self._rows.small(step.content)
                else:
                    self._load(large)
            elif isinstance(step, Multiset):
                self._multiset(step)
            elif isinstance(step, RowStep):
                self._rows.change(step.change)
            elif isinstance(step, TruncateStep):
                pipe.send(sql.truncate(step.tables, step.restart_identity))
        pipe.send(self._end_of(part))

    def _end_of(self, part: Part) -> str:
        """Whatever could refuse the commit shall do so before, while nothing of the batch is committed anywhere."""
        return "SET CONSTRAINTS ALL IMMEDIATE" if part.batch.final else "RELEASE SAVEPOINT pgm_batch"

    def _row_by_row(self, part: Part) -> None:
        """Law 7: what was refused as sets, in source order."""
        self.fallbacks += 1
        self.pipe.rewind("ROLLBACK TO SAVEPOINT pgm_batch")
        self._rows.in_order(part.events())
        self.pipe.send(self._end_of(part))
        try:
            self.pipe.flush()
        except psycopg.Error as exc:
            if transient(exc):
                raise
            batch = part.batch
            if self._pieces or not batch.events:
                raise StreamError(
                    f"The transaction that ends at {format_lsn(batch.end_lsn)} cannot be committed: {exc}", code="PGM4025"
                ) from exc
            raise self._rows.failure(batch.events[-1][1], *told_by(exc)) from exc

    def commit(self, part: Part) -> None:
        """Commit what :meth:`apply` did.

        :raises psycopg.Error: if it is not known whether that was done.
        """
        self.pipe.trips += 1
        self.conn.execute("COMMIT")
        self._within = False
        self._fresh = []
        self.position = self._after(part.batch)

    def follow(self, position: Position) -> None:
        """Another lane has moved this one's progress row, too."""
        self.position = position

    def rollback(self) -> None:
        """Give up what is not committed."""
        self.pipe.forget()
        for key in self._fresh:  # made inside the transaction that is given up
            self._staging.pop(key, None)
        self._fresh = []
        if self._within and not self.conn.closed:
            try:
                self.pipe.rewind("ROLLBACK")
            except psycopg.Error:
                self.conn.close()
        self._within = False

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
            self.pipe.send(sql.make_staging(table, name, names))
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

    def _multiset(self, step: Multiset) -> None:
        """The planner may hash here, where no index can help."""
        table = step.table
        if step.removed:
            count = len(step.removed)
            staging = self._stage(table, "r", table.columns)
            self._fill(staging, sql.copy_staging(table, staging, table.columns), sql.copy_text(step.removed), table, count)
            self.pipe.send("SET LOCAL enable_hashjoin = on")
            self._expect(table, "DELETE", delete_by_text(table, staging), count)
            self.pipe.send("SET LOCAL enable_hashjoin = off")
        if step.added:
            self._copy(sql.copy_in(table), sql.copy_text(step.added), table, len(step.added))

    def _fill(self, staging: str, statement: str, data: bytes, table: TargetTable, count: int) -> None:
        """Fill a staging table, which a commit empties and a second use in one transaction must."""
        if staging in self._used:
            self.pipe.send(f"TRUNCATE pg_temp.{staging}")
        self._used.add(staging)
        self._copy(statement, data, table, count)

    def _copy(self, statement: str, data: bytes, table: TargetTable, count: int) -> None:
        taken = self.pipe.copy(statement, data)
        if taken != count:
            raise Mismatch(table, "INSERT", count, taken)

    def _expect(self, table: TargetTable, kind: str, statement: str, count: int) -> None:
        self.pipe.send(statement, (), count, lambda hit: Mismatch(table, kind, count, hit))


def _moved(hit: int) -> Moved:
    return Moved("another session has moved the position")


def _raw(text: str) -> RawText:
    return RawText(text.encode())
