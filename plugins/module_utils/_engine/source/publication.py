# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What is streamed from the source: the tables that may be published, and the publication that pgoutput reads.

Only logged tables that hold rows of their own and have a replica identity are published: with any other PostgreSQL would refuse the
application's UPDATE and DELETE (law 9). Partitions are published themselves, not through their parents.
"""

from __future__ import annotations

import typing as t

from ..postgres.catalog import Table, read_tables
from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_ident
from ..postgres.selection import EVERYTHING, Selection, chosen_tables


def streamed_tables(conn: psycopg.Connection[t.Any], selection: Selection = EVERYTHING) -> list[Table]:
    """The tables of the source whose changes are streamed, by name."""
    tables = chosen_tables(conn, selection, read_tables(conn))
    return sorted((table for table in tables if streams(table)), key=lambda table: table.label)


def streams(table: Table) -> bool:
    """May ``table`` be published without harm to the application?"""
    return table.kind == "r" and table.persistence == "p" and (table.identity == "f" or bool(table.key))


class Owner(t.NamedTuple):
    """An owner of tables whom our role is no member of: how many tables, one of them, and whether the owner is a superuser."""

    owner: str
    tables: int
    example: str
    superuser: bool


def foreign_owners(conn: psycopg.Connection[t.Any], tables: t.Iterable[Table]) -> list[Owner]:
    """Whose of ``tables`` our role cannot publish, for it must own what it publishes."""
    rows = conn.execute(
        "SELECT pg_get_userbyid(c.relowner)::text, count(*), min(n.nspname || '.' || c.relname), bool_or(r.rolsuper) FROM pg_class c"
        " JOIN pg_roles r ON r.oid = c.relowner JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.oid = ANY(%s::bigint[]) AND NOT pg_has_role(c.relowner, 'USAGE') GROUP BY 1 ORDER BY 1",
        [[table.oid for table in tables if table.persistence == "p"]],
    ).fetchall()
    return [Owner(*row) for row in rows]


def may_create(conn: psycopg.Connection[t.Any]) -> bool:
    """Has our role CREATE on the database, which a publication needs?"""
    row = conn.execute("SELECT has_database_privilege(current_database(), 'CREATE')").fetchone()
    return bool(row and row[0])


def ensure_publication(conn: psycopg.Connection[t.Any], name: str, tables: t.Sequence[Table]) -> bool:
    """Make the publication ``name`` of exactly ``tables``; True if it was made or changed. The role must own the tables."""
    wanted = {(table.schema, table.name) for table in tables}
    listed = ", ".join(f"TABLE ONLY {table.qualified}" if index == 0 else f"ONLY {table.qualified}" for index, table in enumerate(tables))
    if conn.execute("SELECT FROM pg_publication WHERE pubname = %s", [name]).fetchone() is None:
        conn.execute(f"CREATE PUBLICATION {quote_ident(name)}" + (f" FOR {listed}" if listed else ""))
        return True
    rows = conn.execute("SELECT schemaname::text, tablename::text FROM pg_publication_tables WHERE pubname = %s", [name])
    if {(row[0], row[1]) for row in rows} == wanted or not listed:
        return False
    conn.execute(f"ALTER PUBLICATION {quote_ident(name)} SET {listed}")
    return True


def drop_publication(conn: psycopg.Connection[t.Any], name: str) -> bool:
    """Drop the publication ``name``; True if there was one."""
    if conn.info.server_version < 100000 or conn.execute("SELECT FROM pg_publication WHERE pubname = %s", [name]).fetchone() is None:
        return False
    conn.execute(f"DROP PUBLICATION IF EXISTS {quote_ident(name)}")
    return True
