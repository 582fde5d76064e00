# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A set of net changes as data for COPY. It needs no connection, so it is made ahead, outside of the target's transaction."""

from __future__ import annotations

import dataclasses
import typing as t

from . import statements as sql
from .batch import TableSet
from .events import Key, Raw, Shape
from .tables import MISSING, Row, TargetTable

CHUNK = 1000
"""Rows that are written together: their values stay in the processor's cache, and take little memory at a time."""


@dataclasses.dataclass
class Load:
    """A set that is too large for single statements, as data for COPY: made ahead, outside of the transaction."""

    content: TableSet
    deletes: tuple[bytes, int] | None = None
    updates: list[tuple[tuple[str, ...], bytes, int]] = dataclasses.field(default_factory=list)
    inserts: tuple[bytes, int] | None = None


def load_of(content: TableSet) -> Load:
    """``content`` as data for COPY, keys in the order of the index.

    :raises StreamError: PGM4020 if a row cannot be read.
    """
    table = content.table
    load = Load(content)
    if content.deleted:
        single = len(table.key) == 1
        keys = staged_rows(table, content.deleted)
        load.deletes = sql.copy_text([(key,) for key in keys] if single else keys), len(keys)
    if content.updated:
        rows = [content.updated[key] for key in staged_rows(table, content.updated)]
        load.updates.append((table.columns, _data(content, rows), len(rows)))
    if content.partial:
        groups: dict[tuple[str, ...], dict[Key, t.Any]] = {}
        for key, row in content.partial.items():
            names = tuple([n for n, v in zip(table.columns, row, strict=True) if v is not MISSING])
            groups.setdefault(names, {})[key] = tuple([v for v in row if v is not MISSING])
        for names, found in groups.items():
            load.updates.append((names, sql.copy_text([found[key] for key in staged_rows(table, found)]), len(found)))
    rows = [*content.inserted.values(), *content.plain]
    if rows:
        load.inserts = _data(content, rows), len(rows)
    return load


def _data(content: TableSet, rows: list[Row | Raw]) -> bytes:
    """Raw rows are written all at once; where there are others among them, all become tuples."""
    if tuple in set(map(type, rows)):
        return sql.copy_text([content.row(row) for row in rows])
    marked = t.cast(Shape, content.shape).marked
    return b"".join([sql.copy_of(marked(rows[i : i + CHUNK])) for i in range(0, len(rows), CHUNK)])


def staged_rows(table: TargetTable, rows: t.Mapping[Key, t.Any]) -> list[Key]:
    """The keys of ``rows`` in the order of the index, as far as that is cheap to know."""
    if table.integer_key:
        return sorted(rows, key=int)
    return sorted(rows)
