# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A set of net changes as data for COPY. It needs no connection, so it is made ahead, outside of the target's transaction."""

from __future__ import annotations

import dataclasses
import typing as t

from . import statements as sql
from .batch import Key, TableSet
from .tables import MISSING, TargetTable


@dataclasses.dataclass
class Load:
    """A set that is too large for single statements, as data for COPY: made ahead, outside of the transaction."""

    content: TableSet
    deletes: tuple[bytes, int] | None = None
    updates: list[tuple[tuple[str, ...], bytes, int]] = dataclasses.field(default_factory=list)
    inserts: tuple[bytes, int] | None = None


def load_of(content: TableSet, codec: str) -> Load:
    """``content`` as data for COPY, keys in the order of the index."""
    table = content.table
    load = Load(content)
    if content.deleted:
        single = len(table.key) == 1
        keys = staged_rows(table, content.deleted)
        load.deletes = sql.copy_text([(key,) for key in keys] if single else keys, codec), len(keys)
    if content.updated:
        rows = [content.updated[key] for key in staged_rows(table, content.updated)]
        load.updates.append((table.columns, sql.copy_text(rows, codec), len(rows)))
    if content.partial:
        groups: dict[tuple[str, ...], dict[Key, t.Any]] = {}
        for key, row in content.partial.items():
            names = tuple([n for n, v in zip(table.columns, row, strict=True) if v is not MISSING])
            groups.setdefault(names, {})[key] = tuple([v for v in row if v is not MISSING])
        for names, found in groups.items():
            load.updates.append((names, sql.copy_text([found[key] for key in staged_rows(table, found)], codec), len(found)))
    rows = [*content.inserted.values(), *content.plain]
    if rows:
        load.inserts = sql.copy_text(rows, codec), len(rows)
    return load


def staged_rows(table: TargetTable, rows: t.Mapping[Key, t.Any]) -> list[Key]:
    """The keys of ``rows`` in the order of the index, as far as that is cheap to know."""
    if table.integer_key:
        return sorted(rows, key=int)
    return sorted(rows)
