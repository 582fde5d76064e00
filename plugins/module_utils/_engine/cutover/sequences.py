# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Sequences, exactly as they stand on the source: read in few statements, set in one."""

from __future__ import annotations

import typing as t

from ..postgres.catalog import NOT_OF_EXTENSION, USER_SCHEMAS
from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_literal, quote_qualified

BATCH = 500
"""Sequences read by one statement: each is a relation to lock, and the lock table is finite."""


def read_sequences(conn: psycopg.Connection[t.Any]) -> dict[str, tuple[int, bool]]:
    """``last_value`` and ``is_called`` of each sequence of users, by qualified, quoted name.

    They are read from the sequences themselves: the view ``pg_sequences`` hides a value that was set but never called.
    """
    names = [
        quote_qualified(schema, name)
        for schema, name in conn.execute(
            f"SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            f" WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND {USER_SCHEMAS} AND {NOT_OF_EXTENSION} ORDER BY 1, 2"
        )
    ]
    values: dict[str, tuple[int, bool]] = {}
    for start in range(0, len(names), BATCH):
        parts = [f"SELECT {quote_literal(name)}::text, last_value::bigint, is_called FROM {name}" for name in names[start : start + BATCH]]
        for name, value, called in conn.execute(" UNION ALL ".join(parts)):
            values[name] = (value, called)
    return values


def sync_sequences(source: psycopg.Connection[t.Any], target: psycopg.Connection[t.Any], *, partly: bool = False) -> int:
    """Set every sequence of the target to the source's value; returns how many were set.

    :param partly: the migration leaves things out on purpose, so that some may not be there.
    """
    values = read_sequences(source)
    if values:
        target.execute(
            "SELECT count(pg_catalog.setval(s.name::regclass, s.value, s.called))"
            " FROM unnest(%s::text[], %s::bigint[], %s::boolean[]) AS s(name, value, called)"
            + (" WHERE to_regclass(s.name) IS NOT NULL" if partly else ""),
            [list(values), [v for v, dummy in values.values()], [c for dummy, c in values.values()]],
        )
    return len(values)
