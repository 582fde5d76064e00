# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Batches: the changes of whole source transactions, brought to their net effect for each table and key.

Within a batch the changes of one key become at most one DELETE and one INSERT, or one UPDATE; sets of different keys do not
depend on each other, and tables do not either, because triggers and foreign keys are at rest on the target. What cannot be netted is a
*step* of its own, and what follows it begins a new set: a key change that lacks an unchanged TOAST value, a change of a row that only all
its columns identify; for all tables at once a TRUNCATE. The events themselves are kept in order: a batch that fails as a set is applied
row by row (law 7).
"""

from __future__ import annotations

import dataclasses
import typing as t

from .events import DELETE, INSERT, TRUNCATE, UPDATE, Change, Truncate, Values
from .tables import MISSING, Binding, Row, TargetTable, TargetTables

Key = t.Any
"""The text of a key: of its column, or a tuple of them."""


class TableSet:
    """The net effect on one table: keys to delete, rows to update (all columns, or some), rows to insert; to be applied in this order."""

    __slots__ = ("table", "deleted", "updated", "partial", "inserted", "plain", "counts")

    def __init__(self, table: TargetTable, counts: list[int]) -> None:
        self.table = table
        self.counts = counts
        """Of the batch: inserts, updates, deletes, truncates of the table."""
        self.deleted: dict[Key, None] = {}
        self.updated: dict[Key, Row] = {}
        self.partial: dict[Key, Row] = {}
        self.inserted: dict[Key, Row] = {}
        self.plain: list[Row] = []
        """Rows to insert into a table without a key."""

    def __len__(self) -> int:
        return len(self.deleted) + len(self.updated) + len(self.partial) + len(self.inserted) + len(self.plain)

    def insert(self, key: Key, row: Row) -> bool:
        """False if this cannot follow what the set holds; the set is as before then."""
        if key in self.inserted or key in self.updated or key in self.partial:
            return False
        self.inserted[key] = row
        return True

    def delete(self, key: Key) -> bool:
        """As :meth:`insert`."""
        if key in self.inserted:
            del self.inserted[key]
        elif key in self.deleted:
            return False
        else:
            self.updated.pop(key, None)
            self.partial.pop(key, None)
            self.deleted[key] = None
        return True

    def update(self, key: Key, row: Row, full: bool) -> bool:
        """A new version of the row ``key``, whose key stays. As :meth:`insert`."""
        if key in self.inserted:
            self.inserted[key] = row if full else merged(row, self.inserted[key])
        elif key in self.deleted:
            return False
        elif key in self.updated:
            self.updated[key] = row if full else merged(row, self.updated[key])
        elif full and self.table.rewrite:
            self.partial.pop(key, None)
            self.deleted[key] = None
            self.inserted[key] = row
        elif full:
            self.partial.pop(key, None)
            self.updated[key] = row
        elif self.table.rewrite:
            return False
        else:
            old = self.partial.get(key)
            self.partial[key] = row if old is None else merged(row, old)
        return True

    def whole(self, key: Key, row: Row) -> Row | None:
        """``row`` with the values that it misses taken from the version that the set holds; None if they are not known."""
        old = self.inserted.get(key) or self.updated.get(key) or self.partial.get(key)
        if old is not None:
            row = merged(row, old)
        return None if MISSING in row else row


def merged(new: Row, old: Row) -> Row:
    """``new``, with ``old``'s values where it has none."""
    return tuple([o if n is MISSING else n for n, o in zip(new, old, strict=True)])


@dataclasses.dataclass
class SetStep:
    """Apply a set."""

    content: TableSet


@dataclasses.dataclass
class RowStep:
    """Apply one change as it is."""

    change: Change


@dataclasses.dataclass
class TruncateStep:
    """Empty these tables in one statement."""

    tables: list[TargetTable]
    restart_identity: bool
    event: Truncate


Step = t.Union[SetStep, RowStep, TruncateStep]


class Batch:
    """Some source transactions, or a piece of a large one.

    ``final`` is False for a piece after which more of the same transaction follows; ``abort`` asks to forget the pieces applied so far.
    """

    def __init__(self, tables: TargetTables) -> None:
        self._tables = tables
        self._open: dict[int, TableSet] = {}
        self.steps: list[Step] = []
        self.events: list[tuple[int, t.Union[Change, Truncate]]] = []
        """In source order, each with the commit LSN of its transaction."""
        self.markers: list[str] = []
        self.counts: dict[str, list[int]] = {}
        self.unplaced: set[int] = set()
        """OIDs of tables with a change that cannot be told apart by keys: it moves a row of which not all columns are known."""
        self.rows = self.bytes = self.transactions = 0
        self.commit_lsn = self.end_lsn = 0
        self.commit_time = ""
        self.final = True
        self.abort = False

    def __bool__(self) -> bool:
        return bool(self.end_lsn or self.markers or self.rows or self.abort or not self.final)

    def add(self, events: t.Iterable[t.Union[Change, Truncate]], commit_lsn: int) -> None:
        """Take in changes of the transaction whose commit record starts at ``commit_lsn``.

        :raises StreamError: for a table or column that the target does not have.
        """
        keep, open_ = self.events.append, self._open
        for event in events:
            op = event[0]
            if op == TRUNCATE:
                self._truncate(t.cast(Truncate, event), commit_lsn)
                open_ = self._open
                continue
            change = t.cast(Change, event)
            shape = change[2]
            binding = shape.binding or self._tables.bind(shape)
            if binding is None or commit_lsn < binding.start_lsn:
                continue
            keep((commit_lsn, change))
            self.rows += 1
            content = open_.get(binding.oid) if binding.plain else None
            if content is None or op == DELETE or not _plainly(content, change, binding):
                self._change(change, binding)

    def _count(self, table: TargetTable, which: int) -> None:
        self._counts(table)[which] += 1

    def _counts(self, table: TargetTable) -> list[int]:
        counts = self.counts.get(table.label)
        if counts is None:
            counts = self.counts[table.label] = [0, 0, 0, 0]
        return counts

    def _set(self, table: TargetTable) -> TableSet:
        found = self._open.get(table.oid)
        if found is None:
            found = self._open[table.oid] = TableSet(table, self._counts(table))
        return found

    def _flush(self, table: TargetTable) -> TableSet:
        """Close the table's set, so that what follows comes after it; the new, empty one."""
        old = self._open.pop(table.oid, None)
        if old:
            self.steps.append(SetStep(old))
        return self._set(table)

    def _in_order(self, change: Change, table: TargetTable) -> None:
        self._flush(table)
        self.steps.append(RowStep(change))

    def _change(self, change: Change, binding: Binding) -> None:
        table = binding.table
        op, dummy, dummy2, values, old_shape, old_values = change
        content = self._open.get(table.oid)
        if content is None:
            content = self._set(table)
        if op == INSERT:
            self._count(table, 0)
            row = _row(binding, values)
            if not table.key:
                content.plain.append(row)
                return
            key = t.cast(t.Any, binding.key)(values)
            if not content.insert(key, row):
                self._flush(table).insert(key, row)
            return
        self._count(table, 1 if op == UPDATE else 2)
        old_key = old_key_of(change, binding, self._tables)
        if old_key is None:
            self.unplaced.add(table.oid)
            self._in_order(change, table)
        elif op == DELETE:
            if not content.delete(old_key[0]):
                self._flush(table).delete(old_key[0])
        else:
            self._update(content, change, binding, old_key[0])

    def _update(self, content: TableSet, change: Change, binding: Binding, old_key: Key) -> None:
        table, values = binding.table, change.values
        row = _row(binding, values) if binding.full else _partial(binding, change)
        full = binding.full or MISSING not in row
        new_key = binding.key(values) if binding.key else old_key
        if new_key == old_key:
            if content.update(old_key, row, full):
                return
            if table.rewrite and not full or not self._flush(table).update(old_key, row, full):
                self._in_order(change, table)
            return
        if not binding.full:
            self.unplaced.add(table.oid)
        whole = row if full else content.whole(old_key, row)
        if whole is None or new_key in content.inserted or new_key in content.updated or new_key in content.partial:
            self._in_order(change, table)
            return
        if not content.delete(old_key):
            content = self._flush(table)
            content.delete(old_key)
        content.insert(new_key, whole)

    def _truncate(self, event: Truncate, commit_lsn: int) -> None:
        found = [self._tables.get(schema, name) for schema, name in event.relations]
        tables = [table for table in found if table is not None and commit_lsn >= table.start_lsn]
        if not tables:
            return
        for table in tables:
            self._count(table, 3)
        self.rows += 1
        self.events.append((commit_lsn, event))
        self.close()
        self.steps.append(TruncateStep(tables, event.restart_identity, event))

    def close(self) -> None:
        """Close all sets: the steps are complete."""
        for content in self._open.values():
            if len(content):
                self.steps.append(SetStep(content))
        self._open = {}


def old_key_of(change: Change, binding: Binding, tables: TargetTables) -> tuple[Key] | None:
    """The key of the old row, in a tuple; None where the row is only found by all that is known of it."""
    if not binding.table.key:
        return None
    if change.old_shape is None:
        return (binding.key(change.values),) if binding.key else None
    old = change.old_shape.binding or tables.bind(change.old_shape)
    if old is None or old.key is None:
        return None
    return (old.key(change.old_values),)


def _plainly(content: TableSet, change: Change, binding: Binding) -> bool:
    """Take in the common change: all columns are there and the key stays. False if it is not that, and nothing was done.

    The same as :meth:`Batch._change` does, for the price of one call.
    """
    op, dummy, dummy2, values, old_shape, old_values = change
    key_of = t.cast(t.Any, binding.key)
    key = key_of(values)
    if op == INSERT:
        if key in content.inserted or key in content.updated or key in content.partial:
            return False
        content.inserted[key] = binding.take(values)
        content.counts[0] += 1
        return True
    if old_shape is not None:
        old = old_shape.binding
        if old is None or not old.direct or old.key(old_values) != key:
            return False
    if key in content.inserted:
        content.inserted[key] = binding.take(values)
    elif key in content.deleted or content.partial:
        return False
    else:
        content.updated[key] = binding.take(values)
    content.counts[1] += 1
    return True


def _row(binding: Binding, values: Values) -> Row:
    """All present columns in the table's order."""
    return binding.take(binding.with_bytea(values) if binding.bytea else values)


def _partial(binding: Binding, change: Change) -> Row:
    """All columns of the table, :data:`.tables.MISSING` where the change has none; what a FULL old row tells is taken from it."""
    present = dict(zip(binding.names, _row(binding, change.values), strict=True))
    if change.old_shape is not None and change.old_shape.binding is not None and change.old_shape.binding.full:
        old = change.old_shape.binding
        present = {**dict(zip(old.names, _row(old, change.old_values), strict=True)), **present}
    return tuple([present.get(name, MISSING) for name in binding.table.columns])
