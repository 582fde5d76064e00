# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What is in a database: tables with their columns and identity, sequences, extensions; for servers from 9.5 to 18.

Each reader is one set-based query, whatever the number of objects. Columns that a version lacks are replaced by constants
(``identity`` came with 10, ``generated`` with 12, partitions with 10).
"""

from __future__ import annotations

import dataclasses
import fnmatch
import typing as t

from .drivers import psycopg
from .identifiers import SCHEMA, quote_ident, quote_qualified

USER_SCHEMAS = f"n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', '{SCHEMA}')"
"""Schemas of users: not the system's, not ours."""

NOT_OF_EXTENSION = "NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')"

PROVIDER_DATABASES = ("azure_maintenance", "azure_sys", "rdsadmin", "cloudsqladmin", "alloydbadmin", "alloydbmetadata")
"""Databases that belong to a provider, not to the user (R64)."""


@dataclasses.dataclass(frozen=True)
class Column:
    """One column. ``type`` is as ``format_type`` writes it; ``type_oid`` the server's own; ``category`` is ``pg_type.typtype``."""

    name: str
    number: int
    type: str
    type_oid: int
    category: str
    not_null: bool
    generated: bool
    identity: str  # '' | 'a' (always) | 'd' (by default)


@dataclasses.dataclass(frozen=True)
class Table:
    """One table that holds rows of its own (ordinary table, partition, inheritance child) or a partitioned parent.

    ``identity`` is ``pg_class.relreplident`` (``d n f i``); ``key`` the columns of the replica identity in index order, empty if there
    is none or the whole row is; ``unique_indexes`` counts the other unique or exclusion indexes that a batch could clash on.
    """

    oid: int
    schema: str
    name: str
    kind: str  # 'r' | 'p'
    persistence: str  # 'p' | 'u'
    identity: str
    pages: int
    rows: float
    bytes: int
    is_partition: bool
    forced_rls: bool
    row_security: bool
    owner: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    unique_indexes: int

    @property
    def qualified(self) -> str:
        """``"schema"."name"``."""
        return quote_qualified(self.schema, self.name)

    @property
    def label(self) -> str:
        """``schema.name`` for people."""
        return f"{self.schema}.{self.name}"

    @property
    def stored_columns(self) -> tuple[Column, ...]:
        """The columns that are copied: all but the generated ones."""
        return tuple(c for c in self.columns if not c.generated)

    def column_list(self) -> str:
        """The stored columns, quoted, for a COPY or an INSERT."""
        return ", ".join(quote_ident(c.name) for c in self.stored_columns)


def read_tables(conn: psycopg.Connection[t.Any]) -> list[Table]:
    """All tables of users in this database, largest first; tables that belong to an extension are left out."""
    version = conn.info.server_version
    partition = "c.relispartition" if version >= 100000 else "false"
    query = f"""
        SELECT c.oid, n.nspname, c.relname, c.relkind::text, c.relpersistence::text, c.relreplident::text, c.relpages, c.reltuples,
               CASE WHEN c.relkind = 'p' THEN 0 ELSE pg_catalog.pg_table_size(c.oid) END, {partition}, c.relforcerowsecurity,
               c.relrowsecurity, pg_catalog.pg_get_userbyid(c.relowner)
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND {USER_SCHEMAS} AND {NOT_OF_EXTENSION}
         ORDER BY 9 DESC, 2, 3"""
    columns = _columns(conn)
    keys = _keys(conn)
    uniques = _unique_indexes(conn)
    tables = []
    for row in conn.execute(query).fetchall():
        fields: list[t.Any] = [*row, columns.get(row[0], ()), keys.get(row[0], ()), uniques.get(row[0], 0)]
        tables.append(Table(*fields))
    return tables


def _columns(conn: psycopg.Connection[t.Any]) -> dict[int, tuple[Column, ...]]:
    version = conn.info.server_version
    generated = "a.attgenerated <> ''" if version >= 120000 else "false"
    identity = "a.attidentity::text" if version >= 100000 else "''"
    found: dict[int, list[Column]] = {}
    for oid, *fields in conn.execute(f"""
        SELECT a.attrelid, a.attname, a.attnum, pg_catalog.format_type(a.atttypid, a.atttypmod), a.atttypid, ty.typtype::text, a.attnotnull,
               {generated}, {identity}
          FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_type ty ON ty.oid = a.atttypid
         WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p') AND {USER_SCHEMAS}
         ORDER BY a.attrelid, a.attnum"""):
        found.setdefault(oid, []).append(Column(*fields))
    return {oid: tuple(columns) for oid, columns in found.items()}


def _keys(conn: psycopg.Connection[t.Any]) -> dict[int, tuple[str, ...]]:
    """Columns of the index that is the replica identity: the one named by it, else the primary key unless that is
    deferrable (manual, ALTER TABLE: REPLICA IDENTITY)."""
    counted = "i.indnkeyatts" if conn.info.server_version >= 110000 else "i.indnatts"
    rows = conn.execute(f"""
        SELECT i.indrelid, array_agg(a.attname::text ORDER BY k.position)
          FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
          CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, position)
          JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
         WHERE {USER_SCHEMAS} AND i.indisvalid AND i.indimmediate AND k.position <= {counted}
           AND (c.relreplident = 'd' AND i.indisprimary OR c.relreplident = 'i' AND i.indisreplident)
         GROUP BY i.indrelid""")
    return {oid: tuple(names) for oid, names in rows}


def _unique_indexes(conn: psycopg.Connection[t.Any]) -> dict[int, int]:
    rows = conn.execute(f"""
        SELECT i.indrelid, count(*)
          FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE {USER_SCHEMAS} AND (i.indisunique OR i.indisexclusion)
           AND NOT (c.relreplident = 'd' AND i.indisprimary OR c.relreplident = 'i' AND i.indisreplident)
         GROUP BY i.indrelid""")
    return {oid: int(count) for oid, count in rows}


ALL = ("all", "*")


PIECE = 4 << 20
"""Bytes of a large object that are read at once."""


def large_object_digest(oid: str) -> str:
    """SQL expression for a digest of the content of the large object with the OID ``oid``, another expression. It is read in pieces,
    because ``lo_get`` answers with 1 GB at most (manual 35.4), of which no more than the digest is kept: PostgreSQL writes what a
    recursive query has found into temporary files."""
    return f"""
        coalesce((WITH RECURSIVE p(i, h, n) AS (
             SELECT 0::bigint, md5(d), length(d) FROM (SELECT lo_get({oid}, 0, {PIECE}) AS d OFFSET 0) f
             UNION ALL SELECT i + 1, md5(d), length(d)
               FROM (SELECT i, lo_get({oid}, (i + 1) * {PIECE}, {PIECE}) AS d FROM p WHERE n = {PIECE} OFFSET 0) f)
           SELECT string_agg(h, '' ORDER BY i) FROM p), '')"""


def is_selection(names: t.Iterable[str]) -> bool:
    """Do ``names`` say which of the source's databases to take (``all``, ``shop_*``, ``!shop_test``), rather than name them?"""
    return any(name in ALL or name.startswith("!") or set(name) & set("*?") for name in names)


def select(named: t.Sequence[str], present: t.Sequence[str]) -> list[str]:
    """The databases of ``present`` that a selection takes: ``all``, patterns of the shell and names add, in this order; ``!pattern``
    takes away of what was added before, or of all where it comes first. A name with ``*`` in it that exists means itself."""
    chosen: list[str] = list(present) if named and named[0].startswith("!") else []
    for word in named:
        if word.startswith("!"):
            chosen = [name for name in chosen if not fnmatch.fnmatchcase(name, word[1:])]
        elif word in ALL:
            chosen += present
        elif set(word) & set("*?") and word not in present:
            chosen += [name for name in present if fnmatch.fnmatchcase(name, word)]
        else:
            chosen.append(word)
    return list(dict.fromkeys(chosen))


def list_databases(conn: psycopg.Connection[t.Any]) -> list[str]:
    """The databases of users on this server: connectable, no template, not the provider's, not the maintenance one (R64)."""
    rows = conn.execute(
        "SELECT datname::text FROM pg_database WHERE datallowconn AND NOT datistemplate AND datname <> 'postgres'"
        " AND NOT datname = ANY(%s) ORDER BY 1",
        [list(PROVIDER_DATABASES)],
    )
    return [row[0] for row in rows]
