# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Foreign keys of ordinary tables: added without a check, which is quick, then validated, several tables at once."""

from __future__ import annotations

import dataclasses
import typing as t

from ..postgres.catalog import NOT_OF_EXTENSION, USER_SCHEMAS
from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_ident, quote_qualified
from .pool import TargetPool


@dataclasses.dataclass(frozen=True)
class ForeignKey:
    """One foreign key of the source; ``validated`` as it is there; ``bytes`` of the referencing table."""

    oid: int
    schema: str
    table: str
    name: str
    definition: str
    validated: bool
    bytes: int

    @property
    def relation(self) -> str:
        """Qualified name of the referencing table."""
        return quote_qualified(self.schema, self.table)

    def add(self) -> str:
        """ADD CONSTRAINT ... NOT VALID."""
        suffix = "" if self.definition.endswith((" NOT VALID", " NOT ENFORCED")) else " NOT VALID"
        return f"ALTER TABLE {self.relation} ADD CONSTRAINT {quote_ident(self.name)} {self.definition}{suffix}"


def read_foreign_keys(conn: psycopg.Connection[t.Any]) -> list[ForeignKey]:
    """Those between ordinary tables. Partitioned ones cannot have a key that is not valid (before version 18), and validating a key
    that refers to one leaves the keys to its partitions not valid (seen on 15): the archive makes these."""
    own = "con.conparentid = 0" if conn.info.server_version >= 110000 else "true"
    rows = conn.execute(
        f"SELECT con.oid, n.nspname::text, c.relname::text, con.conname::text, pg_get_constraintdef(con.oid), con.convalidated,"
        f" pg_relation_size(c.oid)"
        f" FROM pg_constraint con JOIN pg_class c ON c.oid = con.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
        f" WHERE con.contype = 'f' AND c.relkind = 'r' AND (SELECT r.relkind FROM pg_class r WHERE r.oid = con.confrelid) = 'r'"
        f" AND {own} AND {USER_SCHEMAS} AND {NOT_OF_EXTENSION} ORDER BY con.oid"
    )
    return [ForeignKey(*row) for row in rows]


def add_foreign_keys(conn: psycopg.Connection[t.Any], pool: TargetPool, keys: t.Sequence[ForeignKey]) -> None:
    """Add what is missing and validate what is not yet valid; waits for the end."""
    have = {
        (schema, table, name): valid
        for schema, table, name, valid in conn.execute(
            "SELECT n.nspname::text, c.relname::text, k.conname::text, k.convalidated"
            " FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid"
            " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE k.contype = 'f'"
        )
    }
    missing = [key for key in keys if (key.schema, key.table, key.name) not in have]
    for key in missing:
        pool.submit(0, f"add the foreign key {key.name} of {key.schema}.{key.table}", _run([key.add()]))
        pool.drain()  # one after the other: each locks two tables
    tables: dict[str, list[ForeignKey]] = {}
    for key in keys:
        if key.validated and not have.get((key.schema, key.table, key.name), False):
            tables.setdefault(key.relation, []).append(key)
    for relation, group in tables.items():
        statements = [f"ALTER TABLE {relation} VALIDATE CONSTRAINT {quote_ident(key.name)}" for key in group]
        pool.submit(group[0].bytes * len(group), f"validate the foreign keys of {group[0].schema}.{group[0].table}", _run(statements))
    pool.drain()


def _run(statements: t.Sequence[str]) -> t.Callable[[psycopg.Connection[t.Any]], None]:
    def run(conn: psycopg.Connection[t.Any]) -> None:
        for statement in statements:
            conn.execute(statement.encode())

    return run
