# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Compare all rows of two databases, by other means than the product's own."""

from __future__ import annotations

import typing as t

import psycopg

_TABLES = """
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pg_migration') ORDER BY 1"""


def digests(conn: psycopg.Connection[t.Any]) -> dict[str, tuple[int, str]]:
    """Rows and MD5 of the sorted text of all rows of each table. (A materialized view is refreshed there: it may be fresher.)"""
    conn.execute("SET extra_float_digits = 3; SET row_security = off")
    return {
        name: conn.execute(
            f"""SELECT count(*), coalesce(md5(string_agg(r::text, E'\\n' ORDER BY r::text COLLATE "C")), '') FROM ONLY {name} AS r"""
        ).fetchone()
        for (name,) in conn.execute(_TABLES).fetchall()
    }


def sequences(conn: psycopg.Connection[t.Any]) -> dict[str, t.Any]:
    """Value of each sequence."""
    names = conn.execute("SELECT quote_ident(schemaname) || '.' || quote_ident(sequencename) FROM pg_sequences").fetchall()
    return {name: conn.execute(f"SELECT last_value, is_called FROM {name}").fetchone() for (name,) in names}


def differences(source: psycopg.Connection[t.Any], target: psycopg.Connection[t.Any]) -> dict[str, t.Any]:
    """Tables and sequences that are not the same on both sides; empty when all is equal."""
    left: dict[str, t.Any] = {**digests(source), **sequences(source)}
    right: dict[str, t.Any] = {**digests(target), **sequences(target)}
    return {name: (left.get(name), right.get(name)) for name in left.keys() | right.keys() if left.get(name) != right.get(name)}
