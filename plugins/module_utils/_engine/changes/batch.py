# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Batches: the changes of whole source transactions, brought to their net effect for each table and key.

Within a batch the changes of one key become at most one DELETE and one INSERT, or one UPDATE; sets of different keys do not
depend on each other, and tables do not either, because triggers and foreign keys are at rest on the target. What cannot be netted is a
*step* of its own, and what follows it begins a new set: a key change that lacks an unchanged TOAST value, a change of a row that only all
its columns identify; for all tables at once a TRUNCATE. The changes themselves can be told again in order: a batch that fails as a set is
applied row by row (law 7).

Most changes come as raw rows that follow others of the same form. They are gathered and netted together: the last version of each key is
what building a dictionary leaves.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .events import DELETE, INSERT, UPDATE, Change, Form, Key, Raw, Run, Shape, Truncate, Values
from .tables import MISSING, Binding, Row, TargetTable, TargetTables

FEW = 8
"""Fewer changes than this are netted one by one, which is cheaper then."""


class TableSet:
    """The net effect on one table: keys to delete, rows to update (all columns, or some), rows to insert; to be applied in this order.

    A row of ``updated``, ``inserted`` and ``plain`` is a tuple of its values in the table's order, or a raw row of ``shape``, which has the
    same columns in the same order.
    """

    __slots__ = ("table", "shape", "deleted", "updated", "partial", "inserted", "plain")

    def __init__(self, table: TargetTable, shape: Shape | None = None) -> None:
        self.table = table
        self.shape = shape
        self.deleted: dict[Key, None] = {}
        self.updated: dict[Key, Row | Raw] = {}
        self.partial: dict[Key, Row] = {}
        self.inserted: dict[Key, Row | Raw] = {}
        self.plain: list[Row | Raw] = []
        """Rows to insert into a table without a key."""

    def __len__(self) -> int:
        return len(self.deleted) + len(self.updated) + len(self.partial) + len(self.inserted) + len(self.plain)

    def row(self, row: Row | Raw) -> Row:
        """``row`` as a tuple of its values."""
        return row if isinstance(row, tuple) else tuple(t.cast(Shape, self.shape).values(row))

    def settle(self) -> None:
        """Make tuples of all rows."""
        for rows in (self.updated, self.inserted):
            for key, row in rows.items():
                rows[key] = self.row(row)
        self.plain = [self.row(row) for row in self.plain]

    def insert(self, key: Key, row: Row | Raw) -> bool:
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

    def update(self, key: Key, row: Row | Raw, full: bool) -> bool:
        """A new version of the row ``key``, whose key stays. As :meth:`insert`."""
        if key in self.inserted:
            self.inserted[key] = row if full else merged(row, self.row(self.inserted[key]))
        elif key in self.deleted:
            return False
        elif key in self.updated:
            self.updated[key] = row if full else merged(row, self.row(self.updated[key]))
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

    def net(self, op: str, keys: list[Key], raws: list[Raw]) -> bool:
        """Take in many changes of one kind at once. False if they must be looked at one by one; the set is as before then."""
        if self.partial or self.table.rewrite:
            return False
        new = dict(zip(keys, raws, strict=True))
        if op == INSERT:
            if len(new) != len(keys) or _common(new, self.inserted) or _common(new, self.updated):
                return False
            self.inserted.update(new)
            return True
        again = _common(new, self.inserted)
        gone = _common(new, self.deleted)
        if gone and not gone <= again or op == DELETE and len(new) != len(keys):
            return False
        if op == UPDATE:
            for key in again:
                self.inserted[key] = new.pop(key)
            self.updated.update(new)
            return True
        for key in again:
            del self.inserted[key]
            del new[key]
        for key in _common(new, self.updated):
            del self.updated[key]
        self.deleted.update(dict.fromkeys(new))
        return True

    def take(self, op: str, key: Key, raw: Raw) -> bool:
        """Take in one change that leaves its row's key as it is and has all columns. As :meth:`insert`."""
        if op == INSERT:
            return self.insert(key, raw)
        return self.update(key, raw, True) if op == UPDATE else self.delete(key)

    def whole(self, key: Key, row: Row) -> Row | None:
        """``row`` with the values that it misses taken from the version that the set holds; None if they are not known."""
        old = self.inserted.get(key) or self.updated.get(key) or self.partial.get(key)
        if old is not None:
            row = merged(row, self.row(old))
        return None if MISSING in row else row


def _common(one: dict[Key, t.Any], other: dict[Key, t.Any]) -> set[Key]:
    return one.keys() & other.keys() if other else set()


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
        self._gathered: dict[int, tuple[Form, Binding, list[Raw]]] = {}
        self._gather: dict[Form | None, t.Callable[[Raw], None]] = {}
        """Form to what takes its next raw row; one form for each table."""
        self.steps: list[Step] = []
        self._sources: list[tuple[int, t.Callable[[], list[Change]] | Truncate]] = []
        self.markers: list[str] = []
        self.counts: dict[str, list[int]] = {}
        self.unplaced: set[int] = set()
        """OIDs of tables with a change that cannot be told apart by keys: it moves a row of which not all columns are known."""
        self.rows = self.bytes = self.transactions = 0
        self.commit_lsn = self.end_lsn = 0
        self.last_lsn = 0
        """The commit LSN of the transaction that was added to last, which may not have ended; 0 if there is none."""
        self.commit_time = ""
        self.final = True
        self.abort = False

    def __bool__(self) -> bool:
        return bool(self.end_lsn or self.markers or self.rows or self.abort or not self.final)

    @property
    def events(self) -> list[tuple[int, Change | Truncate]]:
        """All changes in source order, each with the commit LSN of its transaction; made anew at each call."""
        found: list[tuple[int, Change | Truncate]] = []
        for commit_lsn, source in self._sources:
            if isinstance(source, Truncate):
                found.append((commit_lsn, source))
                continue
            for change in source():
                binding = change.shape.binding or self._tables.bind(change.shape)
                if binding is not None and commit_lsn >= binding.start_lsn:
                    found.append((commit_lsn, change))
        return found

    def add(self, runs: t.Iterable[Run | Truncate], commit_lsn: int) -> None:
        """Take in changes of the transaction whose commit record starts at ``commit_lsn``.

        :raises StreamError: for a table or column that the target does not have.
        """
        gather = self._gather
        self.last_lsn = commit_lsn
        for run in runs:
            if isinstance(run, Truncate):
                self._truncate(run, commit_lsn)
                continue
            before = self.rows
            self.rows += len(run.items)
            for form, raw in run.items:
                try:
                    gather[form](raw)
                except KeyError:
                    self._other(form, raw, commit_lsn)
            if self.rows > before:
                self._sources.append((commit_lsn, run.again))

    def _other(self, form: Form | None, raw: Raw, commit_lsn: int) -> None:
        """A change that does not go with those gathered last."""
        shape = raw.shape if form is None else form.shape
        binding = shape.binding or self._tables.bind(shape)
        if binding is None or commit_lsn < binding.start_lsn:
            self.rows -= 1
            return
        self._net(binding.oid)
        if form is None:
            self._change(raw, binding)
            return
        raws = [raw]
        self._gathered[binding.oid] = form, binding, raws
        self._gather[form] = raws.append

    def _net(self, oid: int) -> None:
        """Put what was gathered for a table into its set."""
        found = self._gathered.pop(oid, None)
        if found is None:
            return
        form, binding, raws = found
        del self._gather[form]
        table, op = binding.table, form.op
        keyless = not table.key and op == INSERT
        if not (binding.raw or keyless and binding.whole or op == DELETE and binding.direct and not binding.bytea):
            for raw in raws:
                self._change(form.change(raw), binding)
            return
        self._counts(table)[_COUNTED[op]] += len(raws)
        content = self._set(table)
        if op != DELETE:
            if content.shape is not None and content.shape is not form.shape:
                content = self._flush(table)
            content.shape = form.shape
        if keyless:
            content.plain += raws
            return
        keys = form.shape.keys(raws, binding.key_at)
        if len(raws) >= FEW and content.net(op, keys, raws):
            return
        for key, raw in zip(keys, raws, strict=True):
            if not content.take(op, key, raw):
                content = self._flush(table)
                content.shape = form.shape if op != DELETE else None
                content.take(op, key, raw)

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
            found = self._open[table.oid] = TableSet(table)
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
        tables = self._tables.truncated(event, commit_lsn)
        if not tables:
            return
        for table in tables:
            self._count(table, 3)
        self.rows += 1
        self._sources.append((commit_lsn, event))
        self.close()
        self.steps.append(TruncateStep(tables, event.restart_identity, event))

    def close(self) -> None:
        """Close all sets: the steps are complete."""
        for oid in list(self._gathered):
            self._net(oid)
        for content in self._open.values():
            if len(content):
                self.steps.append(SetStep(content))
        self._open = {}


_COUNTED = {INSERT: 0, UPDATE: 1, DELETE: 2}


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
