# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The rows of unlogged tables, once more in the cutover's pause.

They leave no trace in the WAL (PostgreSQL manual, CREATE TABLE: UNLOGGED), so the stream cannot carry what was written to them since the
base copy. All of them are replaced in one transaction of the target, as one snapshot of the fenced source shows them.
"""

from __future__ import annotations

import asyncio
import typing as t

from ..errors import CutoverAborted
from ..migration.ledger import Ledger
from ..postgres.catalog import Table, read_tables
from ..postgres.drivers import psycopg
from ..postgres.selection import Selection, chosen_tables
from ..snapshot.plan import Chunk, PlannedTable, Unit
from ..snapshot.relay import Relay, Route
from ..snapshot.tables import failure
from ..spec import MigrationSpec

BYTES_PER_SECOND = 20 << 20
"""Rate of the forecast: rows into tables that have their indexes."""


def unlogged_tables(spec: MigrationSpec, source: psycopg.Connection[t.Any]) -> list[Table]:
    """The unlogged tables of the source whose rows are migrated."""
    if spec.copy.unlogged_tables != "copy":
        return []
    tables = chosen_tables(source, Selection.of(spec.copy), read_tables(source))
    return [table for table in tables if table.kind == "r" and table.persistence == "u"]


def sync_unlogged(
    spec: MigrationSpec, database: str, source: psycopg.Connection[t.Any], target: psycopg.Connection[t.Any], seconds: float | None = None
) -> int:
    """Replace the rows of the target's unlogged tables by the source's; how many rows they have now.

    :param seconds: how long it may take; None: as long as it takes.
    :raises CutoverAborted: PGM5118 when that is over. :raises MigrationError: as the base copy does. Nothing is changed then.
    """
    tables = unlogged_tables(spec, source)
    if not tables:
        return 0
    with source.transaction():
        source.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        row = source.execute("SELECT pg_export_snapshot()").fetchone()
        nodes = dict(source.execute("SELECT oid, pg_relation_filenode(oid) FROM pg_class WHERE relpersistence = 'u'").fetchall())
        parts = tuple((PlannedTable(table, nodes[table.oid], (chunk,), used=True), chunk) for table, chunk in _whole(tables))
        starts = Ledger(target).start_lsns()
        bytes_only = all(conn.info.parameter_status("server_encoding") == "SQL_ASCII" for conn in (source, target))
        route = Route(
            spec.source, spec.target, database, row[0] if row else "", max(starts.values(), default=0),
            {table.qualified: "text" for table in tables}, "SQL_ASCII" if bytes_only else "UTF8",
        )  # fmt: skip
        try:
            return asyncio.run(asyncio.wait_for(_copy(route, Unit(parts)), seconds))
        except (TimeoutError, asyncio.TimeoutError):
            raise CutoverAborted(
                f"The unlogged tables of {database} could not be copied again within the pause: {seconds or 0:.1f} s were left for it.",
                code="PGM5118",
                hint="End what locks them on the target, raise cutover.max_pause, or have them stay empty (copy.unlogged_tables: empty).",
                server=spec.target.label(database),
            ) from None


def _whole(tables: t.Sequence[Table]) -> t.Iterator[tuple[Table, Chunk]]:
    """Each table in one piece; also one without a file block, for the target's may have rows that are to go."""
    for table in tables:
        yield table, Chunk(0, 1, "", max(1, table.bytes))


async def _copy(route: Route, unit: Unit) -> int:
    relay = Relay(route)
    try:
        return sum(done.rows for done in await relay.copy(unit, again=True))
    except Exception as exc:  # said in the same words as by the base copy
        raise failure(unit, exc) from exc
    finally:
        relay.close()
