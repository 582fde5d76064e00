# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""One side of a comparison: its sessions, all under one snapshot, and what its catalog says of the tables.

A snapshot can be given (the cutover takes one inside the pause and the comparison runs after the writers were let in); otherwise the
first session exports its own, so that parallel sessions see the same rows.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ..errors import VerificationFailed
from ..postgres.catalog import USER_SCHEMAS, Column, Table, read_tables
from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_ident, quote_literal
from ..postgres.session import connect, server_errors
from ..spec import Endpoint
from .canonical import Method, Types, read_types

SETTINGS: tuple[tuple[str, str, int], ...] = (
    ("lc_monetary", "C", 0),
    ("lc_numeric", "C", 0),
    ("max_parallel_workers_per_gather", "0", 90600),
    ("jit", "off", 110000),
    ("synchronize_seqscans", "on", 0),
)
"""Name, value, first version. Our own sessions are the parallelism: a source under load must not give us its workers as well."""

CTID_RANGES = 140000
"""From this version on a range of ``ctid`` is read by itself (TID Range Scan), so that one table can be read in pieces."""


class Side:
    """The source or the target of one comparison. Use as a context manager: leaving it ends the first session and its snapshot."""

    def __init__(self, endpoint: Endpoint, database: str, snapshot: str = "") -> None:
        self.endpoint = endpoint
        self.database = database
        self.snapshot = snapshot
        self.leader: psycopg.Connection[t.Any] = self._connect()
        try:
            with server_errors("take a snapshot for the comparison", endpoint, database, kind=VerificationFailed, code="PGM6001"):
                self._begin(self.leader)
                if not self.snapshot:
                    self.snapshot = str(self.value("SELECT pg_export_snapshot()"))
            with server_errors("read the catalog", endpoint, database, kind=VerificationFailed, code="PGM6001"):
                self.types: Types = read_types(self.leader)
                self.every = read_tables(self.leader)
                self.tables: dict[str, Table] = {table.qualified: table for table in self.every if table.kind == "r"}
                self.keys = _unique_keys(self.leader)
                self.blocks = _blocks(self.leader)
                self.block_bytes = int(self.value("SELECT current_setting('block_size')"))
        except BaseException:
            self.leader.close()
            raise

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *dummy: object) -> None:
        self.leader.close()

    @property
    def version(self) -> int:
        """``server_version_num``."""
        return int(self.leader.info.server_version)

    def value(self, query: str) -> t.Any:
        """The first column of the only row of ``query`` in the first session."""
        row = self.leader.execute(query).fetchone()
        return row[0] if row else None

    def rewritten(self) -> set[int]:
        """Tables that got a new file after the snapshot. Of TRUNCATE and of an ALTER TABLE that rewrites, PostgreSQL keeps no old
        version: such a table is empty for the snapshot from then on. The query sees the snapshot's catalog, the function today's."""
        changed = "relfilenode IS DISTINCT FROM pg_relation_filenode(oid)"
        query = f"SELECT oid FROM pg_class WHERE relkind = 'r' AND relfilenode <> 0 AND {changed}"
        return {int(row[0]) for row in self.leader.execute(query)}

    def hidden(self, oids: list[int]) -> set[int]:
        """Those of the tables ``oids`` of which row security would hide rows from us (forced on their owner, PostgreSQL manual 5.9). With
        ``row_security = off`` reading them is refused instead."""
        query = "SELECT o::bigint FROM unnest(%s::bigint[]::oid[]) o WHERE row_security_active(o)"
        return {int(row[0]) for row in self.leader.execute(query, [oids])}

    def present(self) -> None:
        """Leave the snapshot: from now on the first session sees the present moment with each statement."""
        self.leader.execute("ROLLBACK")

    def session(self) -> psycopg.Connection[t.Any]:
        """One more session under the same snapshot; the caller closes it."""
        conn = self._connect()
        try:
            doing = f"import the snapshot {self.snapshot}"
            with server_errors(doing, self.endpoint, self.database, kind=VerificationFailed, code="PGM6001"):
                self._begin(conn)
        except BaseException:
            conn.close()
            raise
        return conn

    def another(self) -> psycopg.Connection[t.Any]:
        """One more session that sees the present moment; the caller closes it."""
        return self._connect()

    def _connect(self) -> psycopg.Connection[t.Any]:
        conn = connect(self.endpoint, self.database, purpose="verify")
        version = conn.info.server_version
        conn.execute("; ".join(f"SET {name} = {quote_literal(value)}" for name, value, since in SETTINGS if version >= since))
        return conn

    def _begin(self, conn: psycopg.Connection[t.Any]) -> None:
        conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        if self.snapshot:
            conn.execute(f"SET TRANSACTION SNAPSHOT {quote_literal(self.snapshot)}")


def _unique_keys(conn: psycopg.Connection[t.Any]) -> dict[int, tuple[str, ...]]:
    """For each table the columns that tell its rows apart: the primary key, else the narrowest valid unique index without
    expressions, predicate and nullable columns."""
    counted = "i.indnkeyatts" if conn.info.server_version >= 110000 else "i.indnatts"
    rows = conn.execute(f"""
        SELECT DISTINCT ON (i.indrelid) i.indrelid, k.names
          FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
          CROSS JOIN LATERAL (
               SELECT array_agg(a.attname::text ORDER BY u.position) AS names, bool_and(a.attnotnull) AS complete
                 FROM unnest(i.indkey::int2[]) WITH ORDINALITY u(attnum, position)
                 JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = u.attnum
                WHERE u.position <= {counted}) k
         WHERE {USER_SCHEMAS} AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL AND k.complete
         ORDER BY i.indrelid, i.indisprimary DESC, cardinality(k.names), i.indexrelid""")
    return {oid: tuple(names) for oid, names in rows}


def _blocks(conn: psycopg.Connection[t.Any]) -> dict[int, int]:
    """Blocks of the main fork of each ordinary table, as they are now (``pg_class.relpages`` is an estimate)."""
    rows = conn.execute(f"""
        SELECT c.oid, pg_relation_size(c.oid) / current_setting('block_size')::bigint
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND {USER_SCHEMAS}""")
    return {oid: int(blocks or 0) for oid, blocks in rows}


@dataclasses.dataclass(frozen=True)
class Pair:
    """One table on both sides with the columns to compare: those that both have, in the source's order."""

    source: Table
    target: Table
    columns: tuple[tuple[Column, Column], ...]
    key: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def label(self) -> str:
        """``schema.name``."""
        return self.source.label


def make_pair(source: Side, target: Side, qualified: str) -> Pair:
    """The table ``qualified``, which both sides have."""
    ours, theirs = source.tables[qualified], target.tables[qualified]
    others = {c.name: c for c in theirs.columns}
    columns = tuple((c, others[c.name]) for c in ours.columns if c.name in others)
    names = {c.name for c in ours.columns}
    problems = [f"column {c.name} is missing on the target" for c in ours.columns if c.name not in others]
    problems += [f"column {name} exists only on the target" for name in others if name not in names]
    problems += [f"column {a.name} is {a.type} on the source, {b.type} on the target" for a, b in columns if a.type != b.type]
    key = source.keys.get(ours.oid, ())
    return Pair(ours, theirs, columns, key if set(key) <= {a.name for a, dummy in columns} else (), tuple(problems))


@dataclasses.dataclass(frozen=True)
class Reading:
    """The SQL with which one side reads a pair."""

    relation: str
    row_hash: str
    key_hash: str
    columns: tuple[str, ...]
    quoted: tuple[str, ...]
    canonical: tuple[str, ...]

    def digest(self, blocks: tuple[int, int | None] | None = None) -> str:
        """Count and sum of the row hashes, of all rows or of those whose block is in ``blocks`` (from, before; None: to the end)."""
        where = ""
        if blocks is not None:
            low, high = blocks
            where = f" WHERE ctid >= '({low},0)'::tid" + (f" AND ctid < '({high},0)'::tid" if high is not None else "")
        return f"SELECT count(*), coalesce(sum({self.row_hash}), 0) FROM ONLY {self.relation}{where}"


def make_reading(pair: Pair, side: Side, method: Method, *, target: bool) -> Reading:
    """How ``side`` reads ``pair``."""
    names, canonical = [], []
    for ours, theirs in pair.columns:
        column = theirs if target else ours
        quoted = quote_ident(column.name)
        names.append(column.name)
        same = ours.type == theirs.type
        canonical.append(method.column(quoted, column.type_oid, side.types) if same else method.column(f"{quoted}::text", 25, side.types))
    by_name = dict(zip(names, canonical, strict=True))
    row_hash = method.row_hash(canonical) if canonical else "0::bigint"
    key_hash = method.row_hash([by_name[name] for name in pair.key]) if pair.key else row_hash
    table = pair.target if target else pair.source
    return Reading(table.qualified, row_hash, key_hash, tuple(names), tuple(quote_ident(n) for n in names), tuple(canonical))
