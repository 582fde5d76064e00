# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""One relay: rows of the source's snapshot to the target, buffer by buffer, with the ledger in the same transaction.

A unit is done when its target transaction is committed, and that transaction wrote the done rows too: a relay that breaks off leaves
nothing. Whole tables are emptied first in that transaction, which makes a repetition harmless and lets COPY write frozen rows.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import typing as t

from ..errors import CopyError
from ..migration.ledger import FIND_CHUNKS, FORGET_CHUNKS, MARK_CHUNK
from ..postgres.drivers import asyncpg
from ..postgres.identifiers import quote_literal
from ..postgres.lsn import format_lsn
from ..postgres.session import connect_bulk
from ..spec import Endpoint
from .locks import HOLDERS, holder_text
from .pace import Pace
from .plan import Chunk, PlannedTable, Unit, emptying

QUEUE = 8
"""Buffers between reader and writer: enough to ride out a pause of one side, small enough for any memory."""


FREEZE_FROM = 8 << 20
"""Bytes from which a whole table is copied frozen, which takes a TRUNCATE in the same transaction (manual, COPY). Below, the later
vacuum is cheaper than the new files."""


_LOCKS = HOLDERS.format(
    which="l.relation IN (SELECT to_regclass(n)::oid FROM unnest($1::text[]) n) AND (l.mode = 'AccessExclusiveLock' OR $2)"
)
"""Emptying a table waits for every lock; of the source $2 is false."""


class SnapshotGone(Exception):
    """The snapshot has ended, or a table was emptied or rewritten since it was taken: these tables need another one."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Route:
    """What all relays of a copy have in common, in whatever process: ``formats`` by qualified name, ``encoding`` of both sessions."""

    source: Endpoint
    target: Endpoint
    database: str
    snapshot: str
    start_lsn: int
    formats: t.Mapping[str, str]
    encoding: str


def untold(dummy: int) -> None:
    """Nobody follows the bytes."""


@dataclasses.dataclass
class Done:
    """Figures of one committed part."""

    planned: PlannedTable
    chunk: Chunk
    rows: int
    bytes: int
    seconds: float


class Relay:
    """A pair of sessions that copies one unit after the other.

    :param moved: told the bytes of each buffer. :param pace: how fast it may go; None: as fast as it can.
    """

    def __init__(self, route: Route, moved: t.Callable[[int], None] = untold, pace: Pace | None = None) -> None:
        self._route = route
        self._moved = moved
        self._pace = pace
        self._source: asyncpg.Connection | None = None
        self._target: asyncpg.Connection | None = None

    async def open(self) -> tuple[asyncpg.Connection, asyncpg.Connection]:
        """Both sessions, opened if they are not (again) open."""
        route, encoding = self._route, quote_literal(self._route.encoding)
        if self._source is None or self._source.is_closed():
            self._source = await connect_bulk(route.source, route.database, purpose="relay")
            await self._source.execute(f"SET client_encoding = {encoding}; SET lc_monetary = 'C'")
        if self._target is None or self._target.is_closed():
            self._target = await connect_bulk(route.target, route.database, purpose="relay")
            await self._target.execute(f"SET client_encoding = {encoding}; SET lc_monetary = 'C'; SET synchronous_commit = off")
            with contextlib.suppress(asyncpg.InsufficientPrivilegeError):  # where it is refused, nothing is there that fires, or it rests
                await self._target.execute("SET session_replication_role = replica")
        return self._source, self._target

    def close(self) -> None:
        """Both sessions gone at once; what was not committed is rolled back by the servers."""
        for conn in (self._source, self._target):
            if conn is not None and not conn.is_closed():
                conn.terminate()
        self._source = self._target = None

    async def marked(self, unit: Unit) -> list[Done]:
        """``unit`` if it is on the target: an attempt whose COMMIT was not answered may have been successful. Nothing otherwise."""
        dummy, target = await self.open()
        names = [planned.table.qualified for planned, dummy2 in unit.parts]
        rows = await target.fetch(FIND_CHUNKS, format_lsn(self._route.start_lsn), names)
        found = {(row["relation"], row["chunk"], row["chunks"]): row for row in rows}
        done = []
        for planned, chunk in unit.parts:
            row = found.get((planned.table.qualified, chunk.number, chunk.count))
            if row is None:
                return []
            done.append(Done(planned, chunk, row["rows"], row["bytes"], 0.0))
        return done

    async def copy(self, unit: Unit, *, again: bool = False, patience: float = 0.0) -> list[Done]:
        """Copy ``unit`` in one transaction on each side; ``again`` after an attempt that failed.

        A whole table is emptied first where that is worth its price, a new file: for FREEZE, or because it has been written to.

        :param patience: seconds to wait for a lock; 0: as long as every session of ours does.
        :raises SnapshotGone: if the snapshot does not show these tables any more.
        :raises asyncpg.LockNotAvailableError: if somebody has locked a table, on either side; see :meth:`holders`.
        :raises asyncpg.PostgresError: the server's refusal; both transactions are then rolled back.
        """
        source, target = await self.open()
        brief = f"; SET LOCAL lock_timeout = '{patience:.3f}s'" if patience else ""
        try:
            await self._begin_source(source, unit, brief)
            fresh = await self._begin_target(target, unit, brief, again)
            done = [await self._part(source, target, p, c, freeze=p.table.oid in fresh) for p, c in unit.parts]
            start = format_lsn(self._route.start_lsn)
            marks = [(d.planned.table.qualified, d.chunk.number, d.chunk.count, start, d.rows, d.bytes) for d in done]
            await target.executemany(MARK_CHUNK, marks)
            await target.execute("COMMIT")
            await source.execute("ROLLBACK")
            return done
        except BaseException:
            await self._roll_back()
            raise

    async def _begin_target(self, target: asyncpg.Connection, unit: Unit, brief: str, again: bool) -> set[int]:
        """Our transaction on the target, with a lock on every table: COPY would be sent rows before it has its own.

        :return: OIDs (of the source) of the tables that were given a new file in it.
        """
        await target.execute(f"BEGIN{brief}")
        emptied = [p for p, c in unit.parts if c.count == 1 and (again or p.used or (c.bytes >= FREEZE_FROM and not p.referenced))]
        gone = {planned.table.oid for planned in emptied}
        if emptied:
            await target.execute(emptying(emptied))
        if kept := [planned.table.qualified for planned, dummy in unit.parts if planned.table.oid not in gone]:
            await target.execute(f"LOCK TABLE ONLY {', ONLY '.join(kept)} IN ROW EXCLUSIVE MODE")
        if again:  # an attempt whose COMMIT was not answered may have been successful
            await target.executemany(FORGET_CHUNKS, [(planned.table.qualified,) for planned in emptied])
        return {planned.table.oid for planned in emptied if not planned.referenced}

    async def holders(self, unit: Unit) -> str:
        """Who has locked, or is about to lock, a table of ``unit``, for people; empty if it is over or not to be seen."""
        names = [planned.table.qualified for planned, dummy in unit.parts]
        for side, conn in zip(("source", "target"), await self.open(), strict=True):
            rows = await conn.fetch(_LOCKS, names, side == "target")
            if rows:
                return f"{holder_text(rows[0])} on the {side}"
        return ""

    async def _begin_source(self, source: asyncpg.Connection, unit: Unit, brief: str) -> None:
        """Our transaction on the source: the snapshot, and proof that it still shows what the tables held.

        TRUNCATE and rewriting ALTER TABLE take rows from all snapshots (PostgreSQL manual 13.6), and give the table a new file.
        """
        tables = {planned.table.oid: planned for planned, dummy in unit.parts}
        names = ", ONLY ".join(planned.table.qualified for planned in tables.values())
        try:
            await source.execute(
                f"BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET TRANSACTION SNAPSHOT {quote_literal(self._route.snapshot)}{brief};"
                f" LOCK TABLE ONLY {names} IN ACCESS SHARE MODE"
            )
        except asyncpg.LockNotAvailableError:  # of the same class (55) as a snapshot that is not there
            raise
        except (asyncpg.InvalidParameterValueError, asyncpg.UndefinedObjectError, asyncpg.ObjectNotInPrerequisiteStateError) as exc:
            raise SnapshotGone(f"the snapshot {self._route.snapshot} has ended ({exc})") from exc
        except asyncpg.UndefinedTableError as exc:
            raise CopyError(
                f"A table was dropped or renamed on the source during the copy: {exc}", code="PGM3009", sqlstate="42P01"
            ) from exc
        rows = await source.fetch("SELECT o AS oid, pg_catalog.pg_relation_filenode(o) AS node FROM unnest($1::oid[]) o", list(tables))
        for row in rows:
            planned = tables[row["oid"]]
            if (row["node"] or 0) != planned.filenode:
                raise SnapshotGone(f"{planned.table.label} was emptied or rewritten on the source since the snapshot")

    async def _part(
        self, source: asyncpg.Connection, target: asyncpg.Connection, planned: PlannedTable, chunk: Chunk, freeze: bool
    ) -> Done:
        clock = asyncio.get_running_loop().time
        started = clock()
        if chunk.count == 1 and chunk.bytes == 0:  # no file blocks: no row
            return Done(planned, chunk, 0, 0, 0.0)
        table = planned.table
        columns = [c.name for c in table.stored_columns]
        format_ = self._route.formats[table.qualified]
        moved = 0
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUE)

        async def read() -> str:
            try:
                status = await self._read(source, planned, chunk, columns, queue)
            except Exception:  # a cancelled reader has nobody left to tell
                await queue.put(None)
                raise
            await queue.put(None)
            return status

        async def buffers() -> t.AsyncIterator[bytes]:
            nonlocal moved
            woke = clock()
            while (buffer := await queue.get()) is not None:
                if self._pace:
                    await self._pace.pass_(len(buffer), clock() - woke)
                    woke = clock()
                moved += len(buffer)
                self._moved(len(buffer))
                yield buffer
            await reader  # raises what the reader raised, so that the target's COPY fails with it

        reader = asyncio.ensure_future(read())
        try:
            answer = await target.copy_to_table(
                table.name, schema_name=table.schema, columns=columns, source=buffers(), format=format_, freeze=freeze or None
            )
        finally:
            if not reader.done():
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)
        sent, received = _rows(reader.result()), _rows(answer)
        if sent != received:
            raise CopyError(f"{table.label}: the source sent {sent} rows and the target took {received}.", code="PGM3012")
        return Done(planned, chunk, received, moved, clock() - started)

    async def _read(
        self, source: asyncpg.Connection, planned: PlannedTable, chunk: Chunk, columns: list[str], queue: asyncio.Queue[bytes | None]
    ) -> str:
        table = planned.table
        format_ = self._route.formats[table.qualified]
        if chunk.condition or not columns:
            query = f"SELECT {table.column_list()} FROM ONLY {table.qualified} WHERE {chunk.condition or 'true'}"
            return str(await source.copy_from_query(query, output=queue.put, format=format_))
        return str(await source.copy_from_table(table.name, schema_name=table.schema, columns=columns, output=queue.put, format=format_))

    async def _roll_back(self) -> None:
        """End both transactions; a session that does not answer is closed."""
        for conn in (self._source, self._target):
            if conn is None or conn.is_closed():
                continue
            try:
                await asyncio.wait_for(conn.execute("ROLLBACK"), 5)
            except (Exception, asyncio.CancelledError):
                conn.terminate()


def _rows(status: str) -> int:
    return int(status.rpartition(" ")[2])
