# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The partition of batches into lanes: each change goes to one lane, a key always to the same, and the parts together are the whole."""

from __future__ import annotations

import typing as t

from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.batch import Batch, RowStep, SetStep
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.events import (
    DELETE,
    INSERT,
    TRUNCATE,
    UPDATE,
    Change,
    Shape,
    Truncate,
)
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.partition import Part, Partition
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.tables import TargetTable
from hypothesis import given
from hypothesis import strategies as st
from test_changes_batch import FULL, KEY, WITHOUT_B, Rows, Tables, histories, make_table, replay, runs

QUALIFIED = '"public"."t"'


class Lanes(Tables):
    """The tables of :class:`Partition`: one."""

    def __iter__(self) -> t.Iterator[TargetTable]:
        return iter([self.table])


def partition(lanes: int, divided: bool = True) -> Partition:
    """``public.t`` in ``lanes`` lanes."""
    return Partition(t.cast(t.Any, Lanes(make_table())), lanes, [QUALIFIED] if divided else [])


def batch_of(parts: Partition, events: t.Sequence[t.Any]) -> Batch:
    """A batch of one transaction."""
    batch = Batch(parts._tables)
    batch.add(runs(events), 1)
    return batch


def play(rows: Rows, parts: t.Sequence[Part]) -> Rows:
    """What becomes of ``rows`` if each part's changes are made one by one; a part may only touch rows that are there or not as it says."""
    rows = dict(rows)
    for part in parts:
        for dummy, event, dummy2 in part.events():
            change = t.cast(Change, event)
            shape, values = change.shape, change.values
            if change.op == INSERT:
                assert values[0] not in rows
                rows[t.cast(bytes, values[0])] = t.cast(t.Any, tuple(values))
                continue
            old = change.old_values[0] if change.old_shape else values[0]
            before = rows.pop(t.cast(bytes, old))
            if change.op == UPDATE:
                new = tuple(
                    values[shape.columns.index(n)] if n in shape.columns else b for n, b in zip(("id", "a", "b"), before, strict=True)
                )
                assert new[0] not in rows
                rows[t.cast(bytes, new[0])] = new
    return rows


@given(histories(), st.integers(2, 5), st.booleans(), st.randoms())
def test_parts_in_any_order_give_the_same_rows(history: tuple[Rows, list[t.Any], Rows], lanes: int, divided: bool, shuffle: t.Any) -> None:
    """Lanes work at the same time, so the order of their parts must not matter; neither for sets nor row by row."""
    before, events, after = history
    for shape in (FULL, WITHOUT_B, KEY):
        shape.binding = None
    parts = partition(lanes, divided)
    batch = batch_of(parts, events)
    if parts.needs_order(batch):
        return
    done = parts.divide(batch)
    assert [part.lane for part in done] == list(range(lanes))
    shuffle.shuffle(done)
    rows = before
    for part in done:
        rows = replay(part, rows)
    assert rows == after
    assert play(before, done) == after


@given(st.lists(st.integers(0, 10_000), min_size=1), st.integers(1, 7))
def test_a_key_has_one_lane(keys: list[int], lanes: int) -> None:
    """Whatever is done to a key falls to the lane of the key, in each batch and each process anew."""
    parts, again = partition(lanes), partition(lanes)
    for key in [b"%d" % number for number in keys]:
        lane = parts.lane_of(make_table(), key)
        assert lane == again.lane_of(make_table(), key)
        for change in (
            Change(INSERT, 1, FULL, (key, b"a", b"b"), None, ()),
            Change(UPDATE, 1, FULL, (key, b"a", b"b"), None, ()),
            Change(DELETE, 1, KEY, (key,), None, ()),
        ):
            assert parts.places(change) == [(lane, change)]


def test_lanes_are_stable_between_releases() -> None:
    """A crash may be followed by an upgrade of the engine: these lanes must never change."""
    parts = partition(5)
    assert [parts.lane_of(make_table(), b"%d" % key) for key in range(10)] == STABLE
    assert parts.lane_of(make_table()) == STABLE_TABLE


STABLE = [0, 0, 4, 0, 0, 3, 2, 1, 1, 1]
STABLE_TABLE = 4


def test_a_moved_row_leaves_one_lane_and_comes_to_another() -> None:
    """A change of a key is a DELETE in the lane of the old one and an INSERT in that of the new one; one lane for both sees it whole."""
    parts = partition(3)
    by_lane: dict[int, list[bytes]] = {}
    for key in [b"%d" % number for number in range(30)]:
        by_lane.setdefault(parts.lane_of(make_table(), key), []).append(key)
    (here, keys), (there, others) = list(by_lane.items())[:2]
    moved = Change(UPDATE, 7, FULL, (others[0], b"a", b"b"), KEY, (keys[0],))
    places = dict(parts.places(moved))
    assert (places[here].op, places[there].op) == (DELETE, INSERT)
    assert places[here].old_values == (keys[0],)
    inside = Change(UPDATE, 7, FULL, (keys[1], b"a", b"b"), KEY, (keys[0],))
    assert parts.places(inside) == [(here, inside)]


def test_what_needs_order() -> None:
    """TRUNCATE, and a moved row of which not all columns are known, keep a batch together; the latter only where keys are divided."""
    without_b = Shape("public", "t", ("id", "a"))
    moved = Change(UPDATE, 7, without_b, (b"2", b"a"), KEY, (b"1",))
    truncate = Truncate(TRUNCATE, 8, [("public", "t")], False, False)
    plain = Change(INSERT, 9, FULL, (b"3", b"a", b"b"), None, ())
    for event, divided, wanted in ((moved, True, True), (moved, False, False), (truncate, False, True), (plain, True, False)):
        parts = partition(3, divided)
        assert parts.needs_order(batch_of(parts, [event])) is wanted


def test_steps_of_an_undivided_table_stay_together() -> None:
    """All steps of such a table are one lane's, in their order."""
    parts = partition(4, divided=False)
    without_b = Shape("public", "t", ("id", "a"))
    events = [
        Change(INSERT, 1, FULL, (b"1", b"a", b"b"), None, ()),
        Change(UPDATE, 2, without_b, (b"9", b"a"), KEY, (b"8",)),
        Change(INSERT, 3, FULL, (b"2", b"a", b"b"), None, ()),
    ]
    done = [part for part in parts.divide(batch_of(parts, events)) if part.steps]
    assert len(done) == 1
    assert [type(step) for step in done[0].steps].count(RowStep) == 1
    assert any(isinstance(step, SetStep) for step in done[0].steps)
