# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Compaction against a model that applies one change after the other: the same rows, and no statement that hits another number of them."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes import statements as sql
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.assemble import Assembler
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.batch import Batch, RowStep, SetStep, TruncateStep
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.events import (
    DELETE,
    INSERT,
    RUN,
    TRUNCATE,
    UPDATE,
    Change,
    Run,
    Shape,
    Truncate,
)
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.tables import MISSING, Binding, TargetTable
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.wal2json import Wal2JsonDecoder
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import StreamError
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.catalog import Column, Table
from frames import data, keepalive
from hypothesis import given
from hypothesis import strategies as st

Rows = dict[bytes, tuple[bytes | None, ...]]


def make_table(key: tuple[str, ...] = ("id",), identity: str = "", start_lsn: int = 0) -> TargetTable:
    """``public.t (id, a, b)``; ``identity`` is that of the column ``a``."""
    columns = tuple(
        Column(name, number, "text", 25, "b", False, False, identity if name == "a" else "")
        for number, name in enumerate(("id", "a", "b"), 1)
    )
    table = Table(1, "public", "t", "r", "p", "d", 0, 0, 0, False, False, False, "x", columns, key, 0)
    return TargetTable(table, key, {}, start_lsn)


class Tables:
    """One table, as :class:`TargetTables` offers it."""

    def __init__(self, table: TargetTable) -> None:
        self.table = table

    def truncated(self, event: Truncate, commit_lsn: int) -> list[TargetTable]:
        return [self.table for dummy in event.relations if commit_lsn >= self.table.start_lsn]

    def bind(self, shape: Shape) -> Binding:
        shape.binding = Binding(self.table, shape, bare_bytea=False)
        return t.cast(Binding, shape.binding)


FULL = Shape("public", "t", ("id", "a", "b"))
WITHOUT_B = Shape("public", "t", ("id", "a"))
KEY = Shape("public", "t", ("id",))


def runs(events: t.Sequence[t.Union[Change, Truncate]]) -> list[t.Union[Run, Truncate]]:
    """The changes as a decoder hands them over that takes each by itself."""
    return [e if isinstance(e, Truncate) else Run(RUN, [(None, e)], 1, lambda e=e: [e]) for e in events]  # type: ignore[misc]


@st.composite
def histories(draw: st.DrawFn) -> tuple[Rows, list[t.Union[Change, Truncate]], Rows]:
    """Rows before, changes that may follow each other, rows after."""
    keys = [b"%d" % n for n in range(5)]
    rows: Rows = {key: (key, b"a0", b"b0") for key in draw(st.sets(st.sampled_from(keys)))}
    before, events = dict(rows), []
    for number in range(draw(st.integers(0, 25))):
        lsn = number + 1
        kind = draw(st.sampled_from("IIUUUUKKDDT"))
        free = [k for k in keys if k not in rows]
        there = sorted(rows)
        a, b = b"a%d" % lsn, draw(st.sampled_from([None, b"b%d" % lsn]))
        if kind == "I" and free:
            key = draw(st.sampled_from(free))
            rows[key] = (key, a, b)
            events.append(Change(INSERT, lsn, FULL, list(rows[key]), None, ()))
        elif kind == "T":
            rows = {}
            events.append(Truncate(TRUNCATE, lsn, [("public", "t")], False, False))
        elif kind == "D" and there:
            key = draw(st.sampled_from(there))
            del rows[key]
            events.append(Change(DELETE, lsn, KEY, (), KEY, [key]))
        elif kind in "UK" and there:
            old = draw(st.sampled_from(there))
            new = draw(st.sampled_from(free)) if kind == "K" and free else old
            whole = draw(st.booleans())
            told = new != old or draw(st.booleans())  # wal2json always tells the old key, pgoutput only a changed one
            row = (new, a, b if whole else rows[old][2])
            del rows[old]
            rows[new] = row
            shape, values = (FULL, list(row)) if whole else (WITHOUT_B, list(row[:2]))
            events.append(Change(UPDATE, lsn, shape, values, KEY if told else None, [old] if told else ()))
    return before, events, rows


def replay(batch: t.Any, rows: Rows) -> Rows:
    """Apply the steps of a batch, or of a part of one, as the target would, refusing what its statements would refuse."""
    rows = dict(rows)
    for step in batch.steps:
        if isinstance(step, TruncateStep):
            rows = {}
        elif isinstance(step, RowStep):
            change = step.change
            if change.op == INSERT:  # the half of a moved row
                assert change.values[0] not in rows
                rows[t.cast(bytes, change.values[0])] = t.cast(t.Any, tuple(change.values))
                continue
            old = change.old_values[0] if change.old_shape else change.values[0]
            row = rows.pop(t.cast(bytes, old))
            if change.op == UPDATE:
                new = tuple(change.values) if change.shape is FULL else (*change.values, row[2])
                assert new[0] not in rows
                rows[t.cast(bytes, new[0])] = new
        elif isinstance(step, SetStep):
            content = step.content
            for key in content.deleted:
                del rows[key]
            for updates in (content.updated, content.partial):
                for key, row in updates.items():
                    rows[key] = tuple(old if new is MISSING else new for new, old in zip(row, rows[key], strict=True))
            for key, row in content.inserted.items():
                assert key not in rows
                assert MISSING not in row
                rows[key] = row
    return rows


@given(histories(), st.sampled_from(["", "a"]))
def test_compaction_equals_one_after_the_other(history: tuple[Rows, list[t.Any], Rows], identity: str) -> None:
    """Whatever the history, the steps lead to the same rows; with and without an ALWAYS identity column."""
    before, events, after = history
    for shape in (FULL, WITHOUT_B, KEY):
        shape.binding = None
    batch = Batch(t.cast(t.Any, Tables(make_table(identity=identity))))
    batch.add(runs(events), 100)
    batch.close()
    assert replay(batch, before) == after


def test_changes_before_a_tables_start_are_left_out() -> None:
    """Law 8: by the start of the commit record."""
    for commit, kept in ((99, 0), (100, 1)):
        FULL.binding = None
        batch = Batch(t.cast(t.Any, Tables(make_table(start_lsn=100))))
        batch.add(
            runs([Change(INSERT, 1, FULL, [b"1", b"a", b"b"], None, ()), Truncate(TRUNCATE, 2, [("public", "t")], False, False)]), commit
        )
        assert batch.rows == len(batch.events) == kept * 2


def test_unknown_column_is_refused() -> None:
    """A column that the target has not is named."""
    with pytest.raises(StreamError) as caught:
        Binding(make_table(), Shape("public", "t", ("id", "zz")), bare_bytea=False)
    assert "zz" in caught.value.message


VALUE = st.one_of(
    st.none(),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")).map(str.encode),
    st.sampled_from([b"", b"\\N", b"\\.", b"\\", b"t", b"n", b"\t\n\r", b"\x01", b"\xff\xfe"]),
)


def read_copy(data: bytes) -> list[tuple[bytes | None, ...]]:
    """What COPY reads from its text format."""
    unescape = {b"\\\\": b"\\", b"\\t": b"\t", b"\\n": b"\n", b"\\r": b"\r"}
    rows = []
    assert data.endswith(b"\n")
    for line in data[:-1].split(b"\n"):
        assert line != b"\\."
        fields: list[bytes | None] = []
        for field in line.split(b"\t"):
            value, position = b"", 0
            while position < len(field) and field != b"\\N":
                found = field[position : position + 2] if field[position : position + 1] == b"\\" else b""
                value += unescape[found] if found else field[position : position + 1]
                position += len(found) or 1
            fields.append(None if field == b"\\N" else value)
        rows.append(tuple(fields))
    return rows


@given(st.lists(st.tuples(VALUE, VALUE, VALUE), min_size=1))
def test_copy_text_round_trip(rows: list[tuple[bytes | None, ...]]) -> None:
    """What COPY would read from the text is what was put in."""
    assert read_copy(sql.copy_text(rows)) == rows


def message(action: str, **more: t.Any) -> bytes:
    import json

    return json.dumps({"action": action, **more}, separators=(",", ":")).encode()


def insert(key: int) -> bytes:
    return message(
        "I", schema="public", table="t", columns=[{"name": n, "value": v} for n, v in (("id", str(key)), ("a", None), ("b", "x"))]
    )


def put(feed: Assembler, *frames: bytes) -> None:
    """A block of these frames."""
    feed.add(b"".join(frames), len(frames))


def assembler(position: int = 0, rows: int = 1000) -> Assembler:
    return Assembler(t.cast(t.Any, Tables(make_table())), Wal2JsonDecoder(), position, rows, 1 << 20)


def test_transactions_already_there_are_skipped() -> None:
    """Exactly once: what ends at or before the position is left out, the rest is not."""
    feed = assembler(position=200)
    for begin, end, key in ((150, 200, 1), (200, 250, 2)):
        put(feed, data(1, message("B", lsn=f"0/{begin:X}")))
        put(feed, data(1, insert(key)))
        put(feed, data(end, message("C")))
    feed.flush()
    batch = feed.take()
    assert batch is not None
    assert (batch.rows, batch.commit_lsn, batch.end_lsn) == (1, 200, 250)


def test_broken_off_transaction_leaves_no_trace() -> None:
    """A segment begins: what was open is forgotten, also when pieces of it were handed out."""
    feed = assembler(rows=2)
    put(feed, data(1, message("B", lsn="0/10")))
    for key in range(3):
        put(feed, data(1, insert(key)))
    piece = feed.take()
    assert piece is not None and not piece.final and piece.rows == 2
    feed.begin_segment()
    broken = feed.take()
    assert broken is not None and broken.abort
    assert not feed.waiting
    put(feed, keepalive(500))
    feed.flush()
    moved = feed.take()
    assert moved is not None and moved.end_lsn == 500 and moved.rows == 0


def test_keepalive_inside_a_transaction_moves_nothing() -> None:
    """A keepalive counts only outside of transactions."""
    feed = assembler()
    put(feed, data(1, message("B", lsn="0/10")))
    put(feed, keepalive(500))
    assert not feed.waiting


def test_truncate_of_several_relations_is_one() -> None:
    """wal2json tells them one by one at one LSN."""
    feed = assembler()
    put(feed, data(1, message("B", lsn="0/10")))
    for lsn in (5, 5, 6):
        put(feed, data(lsn, message("T", schema="public", table="t")))
    put(feed, data(32, message("C")))
    feed.flush()
    batch = feed.take()
    assert batch is not None
    assert [len(step.tables) for step in batch.steps if isinstance(step, TruncateStep)] == [2, 1]


def test_markers_count_when_their_transaction_does() -> None:
    """A marker in a transaction is told with its commit."""
    feed = assembler()
    put(feed, data(1, message("B", lsn="0/10")))
    put(feed, data(5, message("M", transactional=True, prefix="pgm.marker", content="tok")))
    assert not feed.waiting
    put(feed, data(32, message("C")))
    feed.flush()
    batch = feed.take()
    assert batch is not None and batch.markers == ["tok"]
