# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Sequences, as they stand on the source or ahead of it: read and set in few statements."""

from __future__ import annotations

import typing as t

from ..postgres.catalog import NOT_OF_EXTENSION, USER_SCHEMAS
from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_literal, quote_qualified
from ..postgres.selection import EVERYTHING, KEPT_RELATION, Selection, read_left_out

BATCH = 500
"""Sequences read or set by one statement: each is a relation to lock, and the lock table is finite."""

MARGIN = 10_000
"""Steps by which the base copy of an online migration sets sequences ahead. They are not in the stream, so without a margin a target that
has to serve before its cutover (the source is lost) would give numbers out a second time at once. It covers some thousand numbers a
second for some seconds, and what sessions hold in their caches, and is a small part even of an int4 sequence. The cutover sets them
exactly."""

_AHEAD = """
    (s.value + CASE WHEN p.cycle_option THEN 0
        ELSE p.increment::numeric * greatest(0, least(%s::numeric, trunc(
            (CASE WHEN p.increment > 0 THEN p.maximum_value ELSE p.minimum_value END - s.value::numeric) / p.increment))) END)::bigint"""


def read_sequences(conn: psycopg.Connection[t.Any], selection: Selection = EVERYTHING) -> dict[str, tuple[int, bool]]:
    """``last_value`` and ``is_called`` of each sequence of users that is chosen, by qualified, quoted name.

    They are read from the sequences themselves: the view ``pg_sequences`` hides a value that was set but never called.
    """
    names = [
        quote_qualified(schema, name)
        for schema, name in conn.execute(
            f"SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            f" WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND {USER_SCHEMAS} AND {NOT_OF_EXTENSION}"
            f" AND {KEPT_RELATION} ORDER BY 1, 2",
            read_left_out(conn, selection).parameters(),
        )
    ]
    values: dict[str, tuple[int, bool]] = {}
    for start in range(0, len(names), BATCH):
        parts = [f"SELECT {quote_literal(name)}::text, last_value::bigint, is_called FROM {name}" for name in names[start : start + BATCH]]
        for name, value, called in conn.execute(" UNION ALL ".join(parts)):
            values[name] = (value, called)
    return values


_SET = (
    f"SELECT count(pg_catalog.setval(s.name::regclass, {_AHEAD}, s.called))"
    " FROM unnest(%s::text[], %s::bigint[], %s::boolean[]) AS s(name, value, called)"
    " CROSS JOIN LATERAL pg_catalog.pg_sequence_parameters(to_regclass(s.name)) AS p"
)


def sync_sequences(
    source: psycopg.Connection[t.Any],
    target: psycopg.Connection[t.Any],
    selection: Selection = EVERYTHING,
    *,
    partly: bool = False,
    margin: int = 0,
) -> int:
    """Set every chosen sequence of the target to the source's value; returns how many were set.

    :param partly: the migration leaves things out on purpose, so that some may not be there.
    :param margin: steps by which the target is to be ahead, in the sequence's own direction and size of step (B14). Fewer where its limit
        is nearer, so that the value stays one that the sequence would give; none where it cycles, because nothing is ahead there.
    """
    values = [(name, *value) for name, value in read_sequences(source, selection).items()]
    for start in range(0, len(values), BATCH):
        columns = [list(column) for column in zip(*values[start : start + BATCH], strict=True)]
        target.execute(_SET + (" WHERE to_regclass(s.name) IS NOT NULL" if partly else ""), [margin, *columns])
    return len(values)
