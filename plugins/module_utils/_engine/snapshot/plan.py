# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Which pieces the tables are copied in.

A large table is cut into chunks of equal bytes: by ranges of heap blocks on servers from 14 on (they read a ctid range without a look at
the rest of the table), by values out of the primary key's histogram before. The first range has no lower end and the last no upper
one (``None``, never a value that stands for "none"), so that the chunks of a table are a partition of it whatever the plan was
based on. Parents are never read through: each table is read ``ONLY`` itself.
"""

from __future__ import annotations

import dataclasses
import json
import typing as t
from pathlib import Path

from ..postgres.catalog import Table
from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_ident, quote_literal
from ..postgres.lsn import format_lsn

BLOCK = 8192
CTID_RANGES_SINCE = 140000
"""First version with TID range scans (release notes of PostgreSQL 14)."""

SMALLEST = 256 << 20
"""A table below this many bytes is not cut merely because it is the largest: FREEZE in one piece is worth more."""

BUNDLE_BYTES = 32 << 20
BUNDLE_TABLES = 200
"""Small tables share a target transaction up to these limits: thousands of commits cost more than the rows."""


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Part ``number`` of ``count`` of a table; ``condition`` is SQL for WHERE, empty for the whole table; ``bytes`` an estimate."""

    number: int
    count: int
    condition: str
    bytes: int


@dataclasses.dataclass(frozen=True)
class PlannedTable:
    """A table, the file that held it when the snapshot was taken, and its chunks. ``used``: the target's table has been written to,
    if only by a transaction that was rolled back. ``referenced``: another table's foreign key on the target points at it."""

    table: Table
    filenode: int
    chunks: tuple[Chunk, ...]
    used: bool = False
    referenced: bool = False

    @property
    def bytes(self) -> int:
        """Estimated bytes of all chunks."""
        return sum(chunk.bytes for chunk in self.chunks)


@dataclasses.dataclass(frozen=True)
class Unit:
    """What one target transaction copies: one chunk, or several whole small tables."""

    parts: tuple[tuple[PlannedTable, Chunk], ...]

    @property
    def bytes(self) -> int:
        """Estimated bytes of the tables' files."""
        return sum(chunk.bytes for dummy, chunk in self.parts)


def emptying(tables: t.Iterable[PlannedTable]) -> str:
    """Statements that empty these tables of the target. One that is referenced cannot be truncated alone (manual, TRUNCATE)."""
    statements = []
    whole = []
    for item in tables:
        if item.referenced:
            statements.append(f"DELETE FROM ONLY {item.table.qualified}")
        else:
            whole.append(f"ONLY {item.table.qualified}")
    return "; ".join(statements + ([f"TRUNCATE {', '.join(whole)}"] if whole else []))


def cut(size: int, pieces: int) -> list[tuple[int | None, int | None]]:
    """``pieces`` ranges ``[low, high)`` that partition all integers >= 0 and split ``[0, size)`` evenly; None is an open end."""
    pieces = max(1, min(pieces, size))
    edges = [size * i // pieces for i in range(1, pieces)]
    return list(zip([None, *edges], [*edges, None], strict=True))


def between(bounds: t.Sequence[str]) -> list[tuple[str | None, str | None]]:
    """Ranges ``[low, high)`` between the ascending, distinct ``bounds``, open at both ends."""
    return list(zip([None, *bounds], [*bounds, None], strict=True))


def pieces_of(bytes_: int, total: int, chunk_bytes: int, jobs: int) -> int:
    """How many chunks a table of ``bytes_`` gets, where all tables have ``total`` and ``jobs`` relays share them.

    Chunks have ``chunk_bytes`` at most, and less where one table would keep a relay busy after the others have ended.
    """
    limit = chunk_bytes
    if jobs > 1:
        limit = min(limit, max(SMALLEST, total // (2 * jobs)))
    return max(1, -(-bytes_ // max(1, limit)))


def block_condition(low: int | None, high: int | None) -> str:
    """The condition for heap blocks ``[low, high)``."""
    ends = [f"ctid >= '({low},0)'::tid" if low is not None else "", f"ctid < '({high},0)'::tid" if high is not None else ""]
    return " AND ".join(e for e in ends if e)


def key_condition(column: str, type_: str, low: str | None, high: str | None) -> str:
    """The condition for values ``[low, high)`` of a column of ``type_`` that is never NULL."""
    name = quote_ident(column)
    ends = [
        f"{name} >= {quote_literal(low)}::{type_}" if low is not None else "",
        f"{name} < {quote_literal(high)}::{type_}" if high is not None else "",
    ]
    return " AND ".join(e for e in ends if e)


def plan_tables(conn: psycopg.Connection[t.Any], tables: t.Sequence[Table], chunk_bytes: int, jobs: int) -> list[PlannedTable]:
    """The chunks of all ordinary tables in ``tables``, largest table first.

    :param conn: a session on the source inside a transaction that has the migration's snapshot.
    """
    ordinary = [table for table in tables if table.kind == "r"]
    facts = {
        oid: (filenode, blocks)
        for oid, filenode, blocks in conn.execute(
            "SELECT c.oid, c.relfilenode::bigint, pg_catalog.pg_relation_size(c.oid) / current_setting('block_size')::int"
            " FROM pg_class c WHERE c.oid = ANY(%s)",
            [[table.oid for table in ordinary]],
        )
    }
    total = sum(table.bytes or 0 for table in ordinary)
    planned = []
    for table in sorted(ordinary, key=lambda item: -(item.bytes or 0)):
        filenode, blocks = facts[table.oid]
        size = (table.bytes or 0) if blocks else 0  # None: dropped since the snapshot; the relay says so
        pieces = pieces_of(size, total, chunk_bytes, jobs)
        planned.append(PlannedTable(table, filenode, tuple(_chunks(conn, table, size, blocks or 0, pieces))))
    return planned


def _chunks(conn: psycopg.Connection[t.Any], table: Table, size: int, blocks: int, pieces: int) -> list[Chunk]:
    conditions = [""]
    if pieces > 1:
        if conn.info.server_version >= CTID_RANGES_SINCE:
            conditions = [block_condition(low, high) for low, high in cut(blocks, pieces)]
        else:
            conditions = key_conditions(conn, table, pieces) or [""]
    count = len(conditions)
    return [Chunk(i, count, condition, size // count) for i, condition in enumerate(conditions)]


def key_conditions(conn: psycopg.Connection[t.Any], table: Table, pieces: int) -> list[str]:
    """Conditions that cut ``table`` at percentiles of its primary key's first column; empty where there is no histogram.

    The server sorts and compares the values with the column's own order and collation.
    """
    row = conn.execute(
        "SELECT a.attname::text, format_type(a.atttypid, NULL), s.histogram_bounds::text::text[] FROM pg_index i"
        " JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]"
        " JOIN pg_stats s ON s.schemaname = %s AND s.tablename = %s AND s.attname = a.attname AND NOT s.inherited"
        " WHERE i.indrelid = %s AND i.indisprimary AND a.attnotnull",
        [table.schema, table.name, table.oid],
    ).fetchone()
    if row is None or not row[2]:
        return []
    column, type_, bounds = row
    picked = [bounds[len(bounds) * i // pieces] for i in range(1, pieces)]
    probe = f"SELECT {quote_ident(column)} AS v FROM ONLY {table.qualified} WHERE false UNION SELECT unnest(%s::text[])::{type_}"
    ordered = [r[0] for r in conn.execute(f"SELECT x.v::text AS shown FROM ({probe}) x ORDER BY x.v", [picked])]
    return [key_condition(column, type_, low, high) for low, high in between(ordered)]


def bundle(parts: t.Iterable[tuple[PlannedTable, Chunk]]) -> list[Unit]:
    """Units for ``parts``, largest first: a chunk or a large table alone, small whole tables together."""
    units: list[Unit] = []
    small: list[tuple[PlannedTable, Chunk]] = []
    size = 0
    for part in sorted(parts, key=lambda p: -p[1].bytes):
        if part[1].count > 1 or part[1].bytes > BUNDLE_BYTES // 4:
            units.append(Unit((part,)))
            continue
        if small and (size + part[1].bytes > BUNDLE_BYTES or len(small) >= BUNDLE_TABLES):
            units.append(Unit(tuple(small)))
            small, size = [], 0
        small.append(part)
        size += part[1].bytes
    if small:
        units.append(Unit(tuple(small)))
    return sorted(units, key=lambda u: -u.bytes)


def mark_used(target: psycopg.Connection[t.Any], planned: t.Sequence[PlannedTable]) -> list[PlannedTable]:
    """``planned`` with what the target shows: only an empty file needs no emptying before the rows come."""
    names = [item.table.qualified for item in planned]
    query = (
        "SELECT n, coalesce(pg_catalog.pg_relation_size(t.oid), 0) > 0,"
        " EXISTS (SELECT FROM pg_constraint k WHERE k.contype = 'f' AND k.confrelid = t.oid AND k.conrelid <> t.oid)"
        " FROM unnest(%s::text[]) n, LATERAL (SELECT pg_catalog.to_regclass(n)::oid) t(oid)"
    )
    seen = {name: (used, referenced) for name, used, referenced in target.execute(query, [names])}
    return [
        dataclasses.replace(item, used=used, referenced=referenced) for item in planned for used, referenced in [seen[item.table.qualified]]
    ]


def remember(path: Path, start_lsn: int, planned: t.Sequence[PlannedTable]) -> list[PlannedTable]:
    """The plan that was stored for the snapshot of ``start_lsn``, else ``planned``, stored.

    Chunk numbers in the ledger have a meaning only with the ranges that they were copied by.
    """
    stored = _load(path, start_lsn)
    merged = []
    for item in planned:
        old = stored.get(item.table.qualified)
        merged.append(dataclasses.replace(item, filenode=old[0], chunks=tuple(Chunk(*c) for c in old[1])) if old else item)
    data = {item.table.qualified: [item.filenode, [dataclasses.astuple(c) for c in item.chunks]] for item in merged}
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({"start_lsn": format_lsn(start_lsn), "tables": data}), encoding="utf-8")
    fresh.replace(path)
    return merged


def _load(path: Path, start_lsn: int) -> dict[str, t.Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return dict(data["tables"]) if data.get("start_lsn") == format_lsn(start_lsn) else {}
