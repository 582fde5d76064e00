# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Which lane applies what of a batch.

A lane is one connection to the target. A table's changes belong to one lane, or, where only its key can clash, to the lane of each key.
This is a function of names and keys alone: after a crash some lanes may have a batch that the others lack, and what is missing must fall
to the same lanes again.
"""

from __future__ import annotations

import dataclasses
import typing as t
import zlib

from .batch import Batch, RowStep, SetStep, Step, TableSet, TruncateStep, old_key_of
from .events import DELETE, INSERT, TRUNCATE, UPDATE, Change, Key, Truncate
from .load import Load, load_of
from .multiset import Multiset, gather
from .tables import Binding, TargetTable, TargetTables

SMALL = 12
"""Sets of fewer rows are applied row by row: cheaper than staging."""

TOGETHER = 2000
"""Batches of fewer rows go to one lane: several commits would cost more than they gain."""

Placed = t.Tuple[int, t.Union[Change, Truncate], t.Union[Change, Truncate]]
"""The commit LSN of a change, what is to be done, and the change as the source made it, for people."""


@dataclasses.dataclass
class Part:
    """What one lane applies of ``batch``; ``alone``: all of it, for all lanes, in one transaction. ``moves`` counts the progress rows."""

    batch: Batch
    lane: int = 0
    alone: bool = False
    moves: int = 1
    steps: t.Sequence[Step | Multiset] = dataclasses.field(default_factory=list)
    loads: dict[int, Load] = dataclasses.field(default_factory=dict)
    events: t.Callable[[], t.Iterable[Placed]] = tuple
    """What to apply in source order if the steps fail."""

    def prepare(self, tables: TargetTables) -> None:
        """Make the data for COPY. It needs no connection, so another thread may do it ahead."""
        self.steps = gather(t.cast("list[Step]", self.steps), tables)
        self.loads = {
            id(step): load_of(step.content)
            for step in self.steps
            if isinstance(step, SetStep) and len(step.content) >= SMALL and step.content.table.columns
        }


class Partition:
    """``lanes`` lanes; the tables called ``divided`` (qualified names) are divided by key."""

    def __init__(self, tables: TargetTables, lanes: int, divided: t.Collection[str]) -> None:
        self._tables, self.lanes = tables, lanes
        self._divided = {table.oid for table in tables if table.qualified in set(divided)} if lanes > 1 else set()
        self._of_table = {table.oid: zlib.crc32(table.qualified.encode()) for table in tables}

    def lane_of(self, table: TargetTable, key: Key = None) -> int:
        """The lane of ``table``, or of the rows with ``key`` there."""
        if table.oid not in self._divided or key is None:
            return self._of_table[table.oid] % self.lanes
        text = key if isinstance(key, bytes) else b"\0".join(key)
        return (self._of_table[table.oid] ^ zlib.crc32(text)) % self.lanes

    def needs_order(self, batch: Batch) -> bool:
        """Must the batch stay whole: is there a TRUNCATE, or a change that two lanes would have to share?"""
        batch.close()
        return not self._divided.isdisjoint(batch.unplaced) or any(isinstance(step, TruncateStep) for step in batch.steps)

    def whole(self, batch: Batch) -> list[Part]:
        """Everything for lane 0."""
        batch.close()
        return [Part(batch, 0, True, self.lanes, batch.steps, events=lambda: [(lsn, event, event) for lsn, event in batch.events])]

    def divide(self, batch: Batch) -> list[Part]:
        """A part for each lane, empty ones too: all lanes move on together."""
        batch.close()
        steps: list[list[Step]] = [[] for dummy in range(self.lanes)]
        for step in batch.steps:
            if isinstance(step, SetStep):
                table = step.content.table
                if table.oid in self._divided:
                    for lane, content in enumerate(self._divide_set(step.content)):
                        if len(content):
                            steps[lane].append(SetStep(content))
                else:
                    steps[self.lane_of(table)].append(step)
            elif isinstance(step, RowStep):
                for lane, change in self.places(step.change):
                    steps[lane].append(RowStep(change))
        return [Part(batch, lane, steps=mine, events=self._events(batch, lane)) for lane, mine in enumerate(steps)]

    def _divide_set(self, content: TableSet) -> list[TableSet]:
        """``content`` by the lanes of its keys."""
        table, lanes = content.table, self.lanes
        found = [TableSet(table, content.shape) for dummy in range(lanes)]
        salt, crc = self._of_table[table.oid], zlib.crc32
        single = len(table.key) == 1
        for name in ("deleted", "updated", "partial", "inserted"):
            into = [getattr(one, name) for one in found]
            for key, row in getattr(content, name).items():
                text = key if single else b"\0".join(key)
                into[(salt ^ crc(text)) % lanes][key] = row
        return found

    def _events(self, batch: Batch, lane: int) -> t.Callable[[], t.Iterable[Placed]]:
        def mine() -> t.Iterator[Placed]:
            for commit_lsn, event in batch.events:
                if event.op == TRUNCATE:
                    continue
                for owner, change in self.places(t.cast(Change, event)):
                    if owner == lane:
                        yield commit_lsn, change, event

        return mine

    def places(self, change: Change) -> list[tuple[int, Change]]:
        """The lanes that take part in a change, each with its share: a row whose key changes may leave one lane and come to another."""
        binding = change.shape.binding or self._tables.bind(change.shape)
        if binding is None:
            return []
        table: TargetTable = binding.table
        if table.oid not in self._divided:
            return [(self.lane_of(table), change)]
        new = binding.key(change.values) if binding.key is not None and change.op != DELETE else None
        if change.op == INSERT:
            return [(self.lane_of(table, new), change)]
        old = t.cast("tuple[Key]", old_key_of(change, t.cast(Binding, binding), self._tables))[0]
        source = self.lane_of(table, old)
        if change.op != UPDATE or new is None or new == old or self.lane_of(table, new) == source:
            return [(source, change)]
        removed = Change(DELETE, change.lsn, change.shape, (), change.old_shape, change.old_values)
        added = Change(INSERT, change.lsn, change.shape, change.values, None, ())
        return [(source, removed), (self.lane_of(table, new), added)]
