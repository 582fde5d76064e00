# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Foreign keys: added without a check, which is quick, then validated, several tables at once; where that cannot be, several at once that
have no table in common.

A key of a partitioned table is first added to each of its partitions, validated there, and then to itself, which takes those of the
partitions over without another look at the rows (``tryAttachPartitionForeignKey`` in tablecmds.c, from version 12 on). A key that refers to
a partitioned table is checked as it is added: before version 18 its validation leaves the keys to the partitions not valid (seen on 15).
"""

from __future__ import annotations

import dataclasses
import typing as t

from ..postgres.catalog import NOT_OF_EXTENSION, USER_SCHEMAS
from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_ident, quote_qualified
from .pool import TargetPool

ATTACHED_SINCE = 120000
"""First version in which a key takes over those that partitions have already."""

NOT_VALID_SINCE = 180000
"""First version in which every key may be added without a check (release notes of PostgreSQL 18)."""

_PLAIN = f"""
    SELECT con.oid::bigint, n.nspname::text, c.relname::text, con.conname::text, pg_get_constraintdef(con.oid), con.convalidated,
           pg_relation_size(c.oid)
      FROM pg_constraint con JOIN pg_class c ON c.oid = con.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE con.contype = 'f' AND c.relkind = 'r' AND (SELECT r.relkind FROM pg_class r WHERE r.oid = con.confrelid) = 'r'
       AND {{own}} AND {USER_SCHEMAS} AND {NOT_OF_EXTENSION} ORDER BY con.oid"""

_PARTITIONED = f"""
    WITH RECURSIVE below(root, oid) AS (
        SELECT oid, oid FROM pg_class WHERE relkind = 'p'
        UNION ALL SELECT b.root, i.inhrelid FROM below b JOIN pg_inherits i ON i.inhparent = b.oid)
    SELECT con.oid::bigint, n.nspname::text, c.relname::text, con.conname::text, pg_get_constraintdef(con.oid), con.convalidated,
           coalesce((SELECT sum(pg_relation_size(b.oid)) FROM below b WHERE b.root = c.oid), pg_relation_size(c.oid))::bigint,
           r.relkind = 'p',
           ARRAY(SELECT b.oid::bigint FROM below b WHERE b.root IN (c.oid, r.oid)) || ARRAY[c.oid::bigint, r.oid::bigint]
      FROM pg_constraint con JOIN pg_class c ON c.oid = con.conrelid JOIN pg_class r ON r.oid = con.confrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE con.contype = 'f' AND 'p' IN (c.relkind, r.relkind) AND con.conparentid = 0 AND {USER_SCHEMAS} AND {NOT_OF_EXTENSION}
     ORDER BY con.oid"""

_OF_PARTITIONS = f"""
    WITH RECURSIVE kin(root, oid) AS (
        SELECT oid, oid FROM pg_constraint WHERE oid = ANY(%s::bigint[]::oid[])
        UNION ALL SELECT k.root, x.oid FROM kin k JOIN pg_constraint x ON x.conparentid = k.oid AND x.contype = 'f')
    SELECT con.oid::bigint, n.nspname::text, c.relname::text, con.conname::text, pg_get_constraintdef(con.oid), con.convalidated,
           pg_relation_size(c.oid)
      FROM kin k JOIN pg_constraint con ON con.oid = k.oid JOIN pg_class c ON c.oid = con.conrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'r' AND {USER_SCHEMAS} ORDER BY con.oid"""


@dataclasses.dataclass(frozen=True)
class ForeignKey:
    """One foreign key of the source; ``validated`` as it is there; ``bytes`` of the referencing table and its partitions; ``locks``: OIDs
    (of the source) of all tables that are locked while it is added, where it is checked at once."""

    oid: int
    schema: str
    table: str
    name: str
    definition: str
    validated: bool
    bytes: int
    locks: frozenset[int] = frozenset()

    @property
    def relation(self) -> str:
        """Qualified name of the referencing table."""
        return quote_qualified(self.schema, self.table)

    @property
    def place(self) -> tuple[str, str, str]:
        """Schema, table and name: what tells it on the target."""
        return self.schema, self.table, self.name

    def add(self) -> str:
        """ADD CONSTRAINT, NOT VALID unless it is checked at once."""
        suffix = "" if self.locks or self.definition.endswith((" NOT VALID", " NOT ENFORCED")) else " NOT VALID"
        return f"ALTER TABLE {self.relation} ADD CONSTRAINT {quote_ident(self.name)} {self.definition}{suffix}"


def read_foreign_keys(conn: psycopg.Connection[t.Any], target_version: int) -> list[ForeignKey]:
    """All of them, as a target of ``target_version`` can make them; before 12 it gets those of partitioned tables from the archive."""
    if conn.info.server_version < 110000:  # partitioned tables have none
        return [ForeignKey(*row) for row in conn.execute(_PLAIN.format(own="true").encode())]
    keys = [ForeignKey(*row) for row in conn.execute(_PLAIN.format(own="con.conparentid = 0").encode())]
    if target_version < ATTACHED_SINCE:
        return keys
    split: list[ForeignKey] = []
    for *fields, refers, locks in conn.execute(_PARTITIONED.encode()).fetchall():
        unchecked = refers and target_version >= NOT_VALID_SINCE
        key = dataclasses.replace(ForeignKey(*fields), locks=frozenset() if unchecked else frozenset(locks))
        keys.append(key)
        if not refers:
            split.append(key)
    return keys + [ForeignKey(*row) for row in conn.execute(_OF_PARTITIONS.encode(), [[key.oid for key in split]])]


def add_foreign_keys(conn: psycopg.Connection[t.Any], pool: TargetPool, keys: t.Sequence[ForeignKey]) -> None:
    """Add what is missing and validate what is not yet valid; waits for the end."""
    have = _present(conn)
    missing = [key for key in keys if key.place not in have]
    for key in missing:
        if not key.locks:
            pool.submit(0, f"add the foreign key {key.name} of {key.schema}.{key.table}", _run([key.add()]))
            pool.drain()  # one after the other: each locks two tables
    tables: dict[str, list[ForeignKey]] = {}
    for key in keys:
        if key.validated and not key.locks and not have.get(key.place, False):
            tables.setdefault(key.relation, []).append(key)
    for relation, group in tables.items():
        statements = [f"ALTER TABLE {relation} VALIDATE CONSTRAINT {quote_ident(key.name)}" for key in group]
        pool.submit(group[0].bytes * len(group), f"validate the foreign keys of {group[0].schema}.{group[0].table}", _run(statements))
    pool.drain()
    for some in in_rounds([key for key in missing if key.locks]):
        for key in some:
            pool.submit(key.bytes, f"add the foreign key {key.name} of {key.schema}.{key.table}", _run([key.add()]))
        pool.drain()


def in_rounds(keys: t.Sequence[ForeignKey]) -> list[list[ForeignKey]]:
    """``keys`` in groups that may be added at the same time: SHARE ROW EXCLUSIVE, which both tables are locked in, conflicts with itself,
    so keys of one group have no table in common. The largest come first."""
    left = sorted(keys, key=lambda key: -key.bytes)
    rounds = []
    while left:
        taken: set[int] = set()
        some, others = [], []
        for key in left:
            if taken.isdisjoint(key.locks):
                taken |= key.locks
                some.append(key)
            else:
                others.append(key)
        rounds.append(some)
        left = others
    return rounds


def _present(conn: psycopg.Connection[t.Any]) -> dict[tuple[str, str, str], bool]:
    """Schema, table and name of the target's foreign keys, and whether they are valid."""
    rows = conn.execute(
        "SELECT n.nspname::text, c.relname::text, k.conname::text, k.convalidated"
        " FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE k.contype = 'f'"
    )
    return {(schema, table, name): valid for schema, table, name, valid in rows}


def _run(statements: t.Sequence[str]) -> t.Callable[[psycopg.Connection[t.Any]], None]:
    def run(conn: psycopg.Connection[t.Any]) -> None:
        for statement in statements:
            conn.execute(statement.encode())

    return run
