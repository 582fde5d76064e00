# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""test_decoding's text: whatever names, types and values are, there is one way to read it; what is no such text is an error."""

from __future__ import annotations

import re
import threading
import typing as t
from collections import deque
from pathlib import Path

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.ends import BROKEN, EndsReader
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.events import (
    Begin,
    Change,
    Commit,
    LogicalMessage,
    Run,
    Truncate,
)
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.spool import encode_block
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.spool_writer import SpoolWriter
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.testdecoding import TextDecoder, tables_of
from ansible_collections.pgops.migration.plugins.module_utils._engine.cutover.silence import changes_between
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import StreamError
from ansible_collections.pgops.migration.plugins.module_utils._engine.source.plugin import PluginChoice, Streamed
from frames import data
from hypothesis import given, settings
from hypothesis import strategies as st
from test_changes_decoders import block, plain, taken_apart
from test_changes_raw import EXAMPLES, TEXTS, check, raw_rows

AWKWARD_NAMES = (
    "t",
    "T",
    "a b",
    'a"b',
    "a: I",
    "x.y",
    "a, b",
    "]",
    "[text]:'x'",
    "'",
    "old-key:",
    ": DELETE:",
    "\u00e9",
    'q": INSERT: a[text]:null',
)
NAMES = st.one_of(
    st.sampled_from(AWKWARD_NAMES), st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
)
TYPES = st.sampled_from(
    ["integer", "text", "timestamp with time zone", "bit varying", '"char"', "integer[]", 'public."odd ]: type"[]', 's."a""b"']
)
QUOTED = st.one_of(TEXTS, st.sampled_from(["'", "''", "a'", "'b", "' x[text]:'y", "unchanged-toast-datum", "null", "(no-tuple-data)"]))
NUMBERS = st.sampled_from(["0", "-1", "1.50", "-0.0", "1e+300", "NaN", "Infinity", "-Infinity", "9" * 400])


class Bare(t.NamedTuple):
    """A value that is written as ``text`` and means ``value``."""

    text: str
    value: str


BARE = st.one_of(
    NUMBERS.map(lambda n: Bare(n, n)),
    st.sampled_from([Bare("true", "t"), Bare("false", "f"), Bare("B''", ""), Bare("B'0101'", "0101")]),
)
VALUES = st.one_of(st.none(), QUOTED, BARE)
ROWS = st.integers(1, 4).flatmap(lambda width: st.lists(st.tuples(*[VALUES] * width), min_size=1, max_size=6))


def identifier(name: str) -> str:
    """As ``quote_identifier`` writes it, but for keywords, which have quotes too."""
    return name if re.fullmatch("[a-z_][a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'


def literal(value: t.Any) -> str:
    """As ``print_literal`` writes it."""
    if value is None or isinstance(value, Bare):
        return "null" if value is None else value.text
    return "'" + value.replace("'", "''") + "'"


def row_text(columns: t.Sequence[tuple[str, str]], values: t.Sequence[t.Any], *, nulls: bool = True) -> str:
    """As ``tuple_to_stringinfo`` writes it; old rows have no ``nulls``."""
    pairs = zip(columns, values, strict=True)
    return "".join(f" {identifier(n)}[{k}]:{literal(v)}" for (n, k), v in pairs if nulls or v is not None)


def meant(value: t.Any) -> bytes | None:
    """What a value is."""
    return None if value is None else (value.value if isinstance(value, Bare) else value).encode()


def decoder(*tables: tuple[str, str], whole: bool = False, oids: bool = False) -> TextDecoder:
    return TextDecoder([Streamed(schema, name, whole, oids) for schema, name in tables])


columns_of = st.integers(1, 5).flatmap(
    lambda width: st.tuples(
        st.lists(st.tuples(NAMES, TYPES), min_size=width, max_size=width, unique_by=lambda column: column[0]),
        st.lists(st.tuples(*[VALUES] * width), min_size=1, max_size=4),
    )
)


@given(NAMES, NAMES, columns_of)
@settings(max_examples=200)
def test_any_names_types_and_values(schema: str, name: str, content: tuple[list[tuple[str, str]], list[tuple[t.Any, ...]]]) -> None:
    """Every kind of change of any table, one by one and as a block, first seen and by template: what was written is what is read."""
    columns, rows = content
    table = f"table {identifier(schema)}.{identifier(name)}:"
    listed = tuple(n for n, dummy in columns)
    messages: list[tuple[int, bytes]] = []
    wanted: list[tuple[t.Any, ...]] = []
    for lsn, row in enumerate(rows, 10):
        new, old = [meant(v) for v in row], [meant(v) for v in row if v is not None]
        kept = tuple(n for n, v in zip(listed, row, strict=True) if v is not None)
        texts = (
            f" INSERT:{row_text(columns, row)}",
            f" UPDATE:{row_text(columns, row)}",
            f" UPDATE: old-key:{row_text(columns, row, nulls=False)} new-tuple:{row_text(columns, row)}",
            f" DELETE:{row_text(columns, row, nulls=False)}",
        )
        messages += [(lsn, (table + text).encode()) for text in texts]
        whole, part, none = (listed, new), (kept, old), ((), [])
        wanted += [("I", whole, none), ("U", whole, none), ("U", whole, part), ("D", part, part)]

    def told(change: Change) -> tuple[t.Any, ...]:
        assert (change.shape.schema, change.shape.name) == (schema, name)
        shown = change.shape.columns, list(change.values if change.op != "D" else change.old_values)
        old_columns = change.old_shape.columns if change.old_shape else ()
        return change.op, shown, (old_columns, list(change.old_values))

    one = decoder((schema, name))
    assert [told(t.cast(Change, one.decode(lsn, text))) for lsn, text in messages] == wanted
    for dummy in range(2):  # templates are made the first time
        events = one.decode_block(*block(messages))
        assert taken_apart(events) == [plain(one.decode(lsn, text)) for lsn, text in messages]
        again = [change for run in events if isinstance(run, Run) for change in run.again()]
        assert [told(change) for change in again] == wanted


@given(ROWS, st.sampled_from(["INSERT", "UPDATE", "DELETE"]))
@settings(max_examples=EXAMPLES)
def test_raw_rows(rows: list[tuple[t.Any, ...]], kind: str) -> None:
    """The template of a first message matches all that follow and gives the same values, keys and text of COPY."""
    columns = [(f"c{i}", "text") for i in range(len(rows[0]))]
    if kind == "DELETE":
        rows = [tuple(["x" if v is None else v for v in row]) for row in rows]
    read = decoder(("public", "t"))

    def frame_of(row: t.Sequence[t.Any]) -> bytes:
        return data(5, f"table public.t: {kind}:{row_text(columns, row)}".encode())

    read.decode_block(frame_of(["1"] * len(columns)), 1)
    frames = [frame_of(row) for row in rows]
    wanted = [tuple([v.value if isinstance(v, Bare) else v for v in row]) for row in rows]
    check(raw_rows(read.decode_block(b"".join(frames), len(frames))), wanted)


def test_the_rest() -> None:
    """BEGIN and COMMIT with and without xid and time, messages, TRUNCATE with its list and flags."""
    read = decoder(("public", "t"), ("s", "a, b"))
    read.ends.extend([100, BROKEN])
    assert t.cast(Begin, read.decode(1, b"BEGIN")).commit_lsn == 99
    assert t.cast(Begin, read.decode(1, b"BEGIN 735")).commit_lsn < 0
    with pytest.raises(StreamError):
        read.decode(1, b"BEGIN")
    commit = t.cast(Commit, read.decode(100, b"COMMIT 735 (at 2026-01-01 00:00:00.5+05:30)"))
    assert (commit.end_lsn, commit.time) == (100, "2026-01-01 00:00:00.5+05:30")
    assert t.cast(Commit, read.decode(100, b"COMMIT")).time == ""
    emptied = t.cast(Truncate, read.decode(5, b'table public.t, x.other, s."a, b": TRUNCATE: restart_seqs cascade'))
    assert (emptied.relations, emptied.restart_identity, emptied.cascade) == ([("public", "t"), ("s", "a, b")], True, True)
    emptied = t.cast(Truncate, read.decode(5, b"table public.t: TRUNCATE: (no-flags)"))
    assert (emptied.restart_identity, emptied.cascade) == (False, False)
    assert read.decode(5, b"table x.other: TRUNCATE: (no-flags)") is None
    assert tables_of(b'table public.t, s."a, b": TRUNCATE: (no-flags)') == [("public", "t"), ("s", "a, b")]
    said = t.cast(LogicalMessage, read.decode(5, b"message: transactional: 1 prefix: pgm.marker, sz: 3 content:tok"))
    assert (said.prefix, said.content, said.transactional) == ("pgm.marker", "tok", True)
    said = t.cast(LogicalMessage, read.decode(5, b"message: transactional: 0 prefix: a, sz: 9 content:b, sz: 4 content:\n\xff, "))
    assert (said.prefix, said.transactional) == ("a, sz: 9 content:b", False)


def test_rows_without_their_nulls() -> None:
    """Of a table whose identity is the whole row, what an old row lacks is NULL; of any other it is no part of the key. Unchanged TOAST
    values are not there, a text of these words is."""
    for whole in (True, False):
        read = decoder(("public", "t"), whole=whole)
        gone = t.cast(Change, read.decode(5, b"table public.t: DELETE: a[integer]:1"))
        assert (gone.shape.columns, gone.shape.sparse, gone.old_values) == (("a",), whole, [b"1"])
        nothing = t.cast(Change, read.decode(5, b"table public.t: DELETE:"))
        assert (nothing.shape.columns, nothing.shape.sparse) == ((), whole)
        text = b"table public.t: UPDATE: old-key: a[integer]:1 new-tuple: a[integer]:2"
        text += b" b[text]:unchanged-toast-datum c[text]:'unchanged-toast-datum'"
        moved = t.cast(Change, read.decode(5, text))
        assert (moved.shape.columns, moved.shape.sparse, moved.values) == (("a", "c"), False, [b"2", b"unchanged-toast-datum"])
        assert moved.old_shape is not None and moved.old_shape.sparse is whole


def test_tables_with_oids() -> None:
    """The system column, which the target cannot have, is left out; a column that is only called so is not."""
    text = b"table public.t: INSERT: oid[oid]:16390 a[integer]:1"
    for oids, columns in ((True, ("a",)), (False, ("oid", "a"))):
        read = decoder(("public", "t"), oids=oids)
        for dummy in range(2):
            runs = read.decode_block(data(5, text) + data(6, text.replace(b"16390", b"16391")), 2)
            assert [change.shape.columns for run in runs for change in t.cast(Run, run).again()] == [columns, columns]
            assert len(raw_rows(runs) if dummy and not oids else [columns, columns]) == 2


@pytest.mark.parametrize("name", ["other", "a: I", 'a": I', "t2"])
def test_tables_that_are_not_streamed(name: str) -> None:
    """They are passed over, in blocks and when told again, whatever their names look like, also where no row is told."""
    other = f"table public.{identifier(name)}: "
    mine = "table public.t: INSERT: a[integer]:1"
    texts = [mine, other + "INSERT: a[integer]:1", other + "DELETE: (no-tuple-data)", other + "TRUNCATE: (no-flags)", mine]
    read = decoder(("public", "t"))
    for dummy in range(2):
        events = read.decode_block(b"".join([data(5, text.encode()) for text in texts]), len(texts))
        assert [len(t.cast(Run, run).items) for run in events] == [2]
        assert [change.shape.name for change in t.cast(Run, events[0]).again()] == ["t", "t"]


@pytest.mark.parametrize("text", ["DELETE: (no-tuple-data)", "INSERT: (no-tuple-data)", "UPDATE: (no-tuple-data)"])
def test_a_row_that_is_not_told_is_an_error(text: str) -> None:
    """wal2json would pass over it in silence."""
    with pytest.raises(StreamError) as caught:
        decoder(("public", "t")).decode(5, b"table public.t: " + text.encode())
    assert caught.value.code == "PGM4023" and "public.t" in caught.value.message


GOOD = b"table public.t: UPDATE: old-key: a[integer]:1 new-tuple: a[integer]:2 b[text]:'x''y'"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"table",
        b"table t: INSERT: a[integer]:1",
        b"opening a streamed block for transaction",
        b"COMMIT PREPARED 'x'",
        b"PREPARE TRANSACTION 'x'",
        b"table public.t: MERGE: a[integer]:1",
        b"table public.t: TRUNCATE: quickly",
        b"table public.t: INSERT: a[integer]:1 ",
        b"table public.t: INSERT: a[integer]:1x",
        b"table public.t: INSERT: a[integer]:",
        b"table public.t: INSERT: a[text]:'x'y'",
        b"table public.t: INSERT: a[te]xt]:'x'",
        b"table public.t: INSERT: A[text]:'x'",
        b"table public.t: INSERT: a[boolean]:truefalse",
        b"message: transactional: 1 prefix: p, sz: 4 content:tok",
        GOOD.replace(b" new-tuple:", b""),
        *[GOOD[:cut] for cut in range(1, GOOD.index(b" new-tuple:"))],
    ],
)
def test_what_is_no_such_text_is_refused(raw: bytes) -> None:
    """Never guessed, never skipped."""
    read = decoder(("public", "t"))
    for dummy in range(2):
        with pytest.raises(StreamError):
            read.decode(5, raw)
        with pytest.raises(StreamError):
            read.decode_block(data(5, raw), 1)
        read.decode_block(data(5, GOOD) + data(5, b"table public.t: INSERT: a[integer]:1 b[text]:'x'"), 2)


@given(
    st.binary(max_size=60), st.sampled_from([b"", b"table public.t: INSERT:", b"table public.t: UPDATE: old-key: a[text]:'", b"message: "])
)
def test_any_bytes_give_an_event_or_an_error_of_ours(raw: bytes, head: bytes) -> None:
    """Nothing else is raised."""
    read = decoder(("public", "t"))
    for call in (lambda: read.decode(5, head + raw), lambda: read.decode_block(data(5, head + raw), 1)):
        try:
            call()
        except StreamError:
            pass


def frames_of(*parts: tuple[int, str]) -> tuple[bytes, int]:
    return b"".join([data(lsn, text.encode()) for lsn, text in parts]), len(parts)


def test_ends_are_known_before_a_block_is_given_out(tmp_path: Path) -> None:
    """A block waits for the commits of the transactions that begin in it; one that is broken off by a new segment is told as such."""
    writer = SpoolWriter(tmp_path, 1 << 20, 0)
    ends: deque[int] = deque()
    reader = EndsReader(tmp_path, None, ends)

    def write(*parts: tuple[int, str], is_open: bool) -> None:
        body, count = frames_of(*parts)
        writer.append(encode_block(body, count, parts[-1][0], open_=is_open), parts[-1][0])

    writer.begin_segment()
    writer.open_segment()
    row = "table public.t: INSERT: a[text]:'BEGIN COMMIT'"
    write((1, "BEGIN"), (2, row), (10, "COMMIT"), (11, "BEGIN"), (12, row), is_open=True)
    assert reader.next_block() is None
    write((13, row), is_open=True)
    assert reader.next_block() is None and not ends
    write((14, row), (20, "COMMIT"), (21, "BEGIN"), is_open=True)
    found = [reader.next_block() for dummy in range(3)]
    assert [block is None for block in found] == [False, False, True]
    assert list(ends) == [10, 20]
    writer.begin_segment()
    writer.open_segment()
    write((21, "BEGIN"), (30, "COMMIT"), is_open=False)
    assert [block is None for block in (reader.next_block(), reader.next_block(), reader.next_block())] == [False, False, True]
    assert list(ends) == [10, 20, BROKEN, 30]
    reader.close()
    writer.close()


@pytest.mark.parametrize(("table", "counted"), [("public.t", 1), ("public.other", 0), ('public.other, public."t"', 1)])
def test_silence_counts_streamed_tables_alone(tmp_path: Path, table: str, counted: int) -> None:
    """Between the markers of a cutover the changes of other tables come through the stream too, and are nobody's write to ours."""
    choice = PluginChoice("test_decoding", {}, "", True, [["public", "t", False]])
    mark = "message: transactional: 1 prefix: pgm.marker, sz: 3 content:"
    parts = (
        (1, "BEGIN"), (2, mark + "one"), (10, "COMMIT"),
        (11, "BEGIN"), (12, f"table {table}: TRUNCATE: (no-flags)"), (20, "COMMIT"),
        (21, "BEGIN"), (22, mark + "two"), (30, "COMMIT"),
    )  # fmt: skip
    writer = SpoolWriter(tmp_path, 1 << 20, 0)
    writer.begin_segment()
    writer.open_segment()
    writer.append(encode_block(*frames_of(*parts), 30), 30)
    assert changes_between(tmp_path, 10, "one", "two", choice, 5.0, threading.Event()) == counted
    writer.close()
