# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Tables without a key (REPLICA IDENTITY FULL): many changes as one set, for one look at the table instead of one for each change.

Rows that are equal in the text of all their columns cannot be told apart, so such a table is a multiset of rows: an UPDATE takes one away
and adds one. What a batch adds and takes away of the same row cancels out; the rest is deleted in one statement, one row for each
that was taken away, and inserted.
"""

from __future__ import annotations

import collections
import dataclasses
import typing as t

from ..postgres.identifiers import quote_ident
from .batch import RowStep, SetStep, Step
from .events import DELETE, INSERT, Change
from .tables import Row, TargetTable, TargetTables


@dataclasses.dataclass
class Multiset:
    """The net effect on a table without a key."""

    table: TargetTable
    removed: list[Row]
    added: list[Row]


def gather(steps: t.Sequence[Step], tables: TargetTables) -> list[Step | Multiset]:
    """``steps`` with the changes of each table without a key as one; tables do not depend on each other but through a TRUNCATE."""
    found: list[Step | Multiset] = []
    open_: dict[int, Multiset] = {}
    many = _many(steps)
    for step in steps:
        table = _table(step)
        if table is None:  # a TRUNCATE
            open_.clear()
        elif table.oid in many:
            multiset = open_.get(table.oid)
            pair = _pair(step, tables)
            if pair is not None:
                if multiset is None:
                    multiset = open_[table.oid] = Multiset(table, [], [])
                    found.append(multiset)
                multiset.removed += pair[0]
                multiset.added += pair[1]
                continue
            open_.pop(table.oid, None)
        found.append(step)
    for merged in found:
        if isinstance(merged, Multiset):
            removed, added = collections.Counter(merged.removed), collections.Counter(merged.added)
            merged.removed, merged.added = list((removed - added).elements()), list((added - removed).elements())
    return found


def _table(step: Step) -> TargetTable | None:
    if isinstance(step, SetStep):
        return step.content.table
    if isinstance(step, RowStep):
        return t.cast(TargetTable, step.change.shape.binding.table)
    return None


def _many(steps: t.Sequence[Step]) -> set[int]:
    """Tables without a key with more than one change that looks for its row."""
    counted: collections.Counter[int] = collections.Counter()
    for step in steps:
        if isinstance(step, RowStep):
            table = t.cast(TargetTable, step.change.shape.binding.table)
            if not table.key and table.only and table.columns:
                counted[table.oid] += 1
    return {oid for oid, count in counted.items() if count > 1}


def _pair(step: Step, tables: TargetTables) -> tuple[list[Row], list[Row]] | None:
    """The rows that a step takes away and adds; None if that is not known in full."""
    if isinstance(step, SetStep):
        return [], [step.content.row(row) for row in step.content.plain]
    change: Change = t.cast(RowStep, step).change
    binding = change.shape.binding
    if change.op == INSERT:
        return ([], [binding.take(binding.with_bytea(change.values))]) if binding.full else None
    shape, values = (change.old_shape, change.old_values) if change.old_shape is not None else (change.shape, change.values)
    old = shape.binding or tables.bind(shape)
    if old is None or not old.full:
        return None
    before: Row = tuple(old.take(old.with_bytea(values)))
    if change.op == DELETE:
        return [before], []
    if change.old_shape is None:
        return None
    present = dict(zip(binding.names, binding.take(binding.with_bytea(change.values)), strict=True))
    return [before], [tuple([present.get(name, value) for name, value in zip(binding.table.columns, before, strict=True)])]


def delete_by_text(table: TargetTable, staging: str) -> str:
    """Deletes one row for each staged one; rows are the same where the text of all their columns is."""

    def text(alias: str) -> str:
        return f'CAST(ROW({", ".join(f"{alias}.{quote_ident(name)}" for name in table.columns)}) AS text) COLLATE "C"'

    wanted = f"SELECT {text('s')} AS row_text, count(*) AS wanted FROM pg_temp.{staging} AS s GROUP BY 1"
    numbered = (
        "SELECT x.ctid AS id, w.wanted, row_number() OVER (PARTITION BY w.row_text) AS number"
        f" FROM {table.only}{table.qualified} AS x JOIN ({wanted}) AS w ON {text('x')} = w.row_text"
    )
    return (
        f"DELETE FROM {table.only}{table.qualified} AS t"
        f" WHERE t.ctid = ANY (ARRAY(SELECT f.id FROM ({numbered}) AS f WHERE f.number <= f.wanted))"
    )
