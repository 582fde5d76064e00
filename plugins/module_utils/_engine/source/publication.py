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
from ..postgres.selection import Selection, chosen_tables

EVERYTHING = Selection()


def streamed_tables(conn: psycopg.Connection[t.Any], selection: Selection = EVERYTHING) -> list[Table]:
    """The tables of the source whose changes are streamed, by name."""
    tables = chosen_tables(conn, selection, read_tables(conn))
    return sorted((table for table in tables if streams(table)), key=lambda table: table.label)


def streams(table: Table) -> bool:
    """May ``table`` be published without harm to the application?"""
    return table.kind == "r" and table.persistence == "p" and (table.identity == "f" or bool(table.key))


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
