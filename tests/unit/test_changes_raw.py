# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Rows that are read late and many at a time are the rows that are read one by one; what is netted together is what is netted in turn."""

from __future__ import annotations

import json
import typing as t

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes import load
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes import statements as sql
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.batch import Batch, SetStep
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.events import Change, Form, Run
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.pgoutput import PgoutputDecoder
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.testdecoding import TextDecoder
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.wal2json import Wal2JsonDecoder
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import StreamError
from ansible_collections.pgops.migration.plugins.module_utils._engine.source.plugin import Streamed
from frames import data
from hypothesis import given, settings
from hypothesis import strategies as st
from test_changes_batch import Rows, Tables, make_table, read_copy, replay
from test_changes_decoders import pgoutput, relation, tuple_data

OID = (7).to_bytes(4, "big")
AWKWARD = st.sampled_from(
    [
        "",
        "t",
        "n",
        "u",
        "nu",
        "un",
        "tn",
        "\\N",
        "\\.",
        "\\",
        '"',
        "null",
        "true",
        '","value":1',
        "\t\n\r",
        "\x01\x07",
        "\\u0041",
        "\u00e9\U0001f600",
    ]
)
LONG = st.sampled_from([254, 255, 256, 257, 0x7400, 65535, 65536]).map(lambda length: "x" * (length - 1) + "u")
TEXTS = st.one_of(AWKWARD, st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12))
VALUES = st.one_of(st.none(), TEXTS, TEXTS, TEXTS, LONG)
ROWS = st.integers(1, 4).flatmap(lambda width: st.lists(st.tuples(*[VALUES] * width), min_size=1, max_size=6))
EXAMPLES = 60


def raw_rows(events: t.Sequence[t.Any]) -> list[tuple[Form, t.Any]]:
    """Form and raw row of every change; all must have one."""
    items = [item for run in events if isinstance(run, Run) for item in run.items]
    assert all(form is not None for form, dummy in items)
    return t.cast("list[tuple[Form, t.Any]]", items)


def check(items: t.Sequence[tuple[Form, t.Any]], rows: t.Sequence[tuple[str | None, ...]]) -> None:
    """Values, keys and the text of COPY of the raw rows are those of ``rows``."""
    wanted = [tuple([None if v is None else v.encode() for v in row]) for row in rows]
    shape, raws = items[0][0].shape, [raw for dummy, raw in items]
    assert [tuple(shape.values(raw)) for raw in raws] == wanted
    width = len(wanted[0])
    assert shape.keys(raws, (width - 1,)) == [row[-1] for row in wanted]
    assert shape.keys(raws, (0,)) == [row[0] for row in wanted]
    both = (width - 1, 0)
    assert shape.keys(raws, both) == [tuple([row[i] for i in both]) for row in wanted]
    copied = sql.copy_of(shape.marked(raws))
    assert read_copy(copied) == wanted
    assert copied == sql.copy_text(wanted)


@given(ROWS)
@settings(max_examples=EXAMPLES)
def test_rows_of_pgoutput(rows: list[tuple[str | None, ...]]) -> None:
    """Any text, NULL, lengths around those that have another form."""
    for kind in (b"I", b"U"):
        frames = [data(5, kind + OID + b"N" + tuple_data(row)) for row in rows]
        check(raw_rows(pgoutput(len(rows[0])).decode_block(b"".join(frames), len(frames))), rows)


def json_change(action: str, row: t.Sequence[t.Any], *, ascii_only: bool, identity: int = 1) -> bytes:
    """A change as wal2json writes it; the first ``identity`` columns are the key."""

    def fields(values: t.Sequence[t.Any]) -> str:
        dump = [json.dumps(v, ensure_ascii=ascii_only) if not isinstance(v, Literal) else v.text for v in values]
        return ",".join(f'{{"name":"c{i}","value":{v}}}' for i, v in enumerate(dump))

    rows = {"I": f'"columns":[{fields(row)}]', "D": f'"identity":[{fields(row)}]'}
    rows["U"] = rows["I"] + f',"identity":[{fields(row[:identity])}]'
    head = '"timestamp":"2026-01-01 00:00:00.5+00","lsn":"0/16B3748","schema":"public","table":"t"'
    return f'{{"action":"{action}",{head},{rows[action]}}}'.encode()


class Literal(t.NamedTuple):
    """A value whose JSON is ``text``, and which PostgreSQL writes as ``value``."""

    text: str
    value: str | None


LITERALS = st.one_of(
    st.integers().map(lambda n: Literal(str(n), str(n))),
    st.from_regex(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?(e[+-][0-9]{1,3})?", fullmatch=True).map(lambda n: Literal(n, n)),
    st.sampled_from([Literal("true", "t"), Literal("false", "f"), Literal("null", None)]),
)
JSON_VALUES = st.one_of(VALUES, LITERALS)
JSON_ROWS = st.integers(1, 4).flatmap(lambda width: st.lists(st.tuples(*[JSON_VALUES] * width), min_size=1, max_size=6))


@given(JSON_ROWS, st.booleans(), st.sampled_from("IUD"))
@settings(max_examples=EXAMPLES)
def test_rows_of_wal2json(rows: list[tuple[t.Any, ...]], ascii_only: bool, action: str) -> None:
    """The template of a first message matches all that follow, whatever their values, and gives the values that JSON gives."""
    decoder = Wal2JsonDecoder()
    first = json_change(action, [Literal("1", "1")] * len(rows[0]), ascii_only=ascii_only)
    decoder.decode_block(data(5, first), 1)
    rows = [row for row in rows if action != "U" or row[0] is not None and row[0] != Literal("null", None)] or [("k",) * len(rows[0])]
    frames = [data(5, json_change(action, row, ascii_only=ascii_only)) for row in rows]
    check(
        raw_rows(decoder.decode_block(b"".join(frames), len(frames))), [[v.value if isinstance(v, Literal) else v for v in r] for r in rows]
    )


def test_what_matches_no_template() -> None:
    """A changed key, other columns, a renamed column, a column less: each is read by itself, and nothing is taken for something else."""
    decoder = Wal2JsonDecoder()
    plain = (
        b'{"action":"U","schema":"s","table":"t","columns":[{"name":"a","value":1},{"name":"b","value":2}],'
        b'"identity":[{"name":"a","value":1}]}'
    )
    others = [
        plain.replace(b'"identity":[{"name":"a","value":1}', b'"identity":[{"name":"a","value":10}'),
        plain.replace(b'"identity":[{"name":"a","value":1}', b'"identity":[{"name":"a","value":"1"}'),
        plain.replace(b'"name":"b"', b'"name":"c"'),
        plain.replace(b',{"name":"b","value":2}', b""),
        plain.replace(b'"table":"t"', b'"table":"t2"'),
        plain.replace(b'"value":2', b'"value":[2]'),
        plain.replace(b'"value":2', b'"value":truefalse'),
        plain.replace(b'"value":2', b'"value":2rue'),
        plain.replace(b'"value":2', b'"value":"2'),
        plain.replace(b'"value":2', b'"value":"\\q"'),
    ]
    for dummy in range(2):
        items = [i for r in decoder.decode_block(data(5, plain), 1) for i in r.items]
    assert items[0][0] is not None
    for number, other in enumerate(others):
        if number < 5:
            for form, change in [i for r in decoder.decode_block(data(5, other), 1) for i in r.items]:
                assert form is None
                assert change == Wal2JsonDecoder().decode(5, other)._replace(shape=change.shape, old_shape=change.old_shape)
        else:
            with pytest.raises(StreamError):
                decoder.decode_block(data(5, other), 1)


@pytest.mark.parametrize("name", ['a":[', 'a\\":[b', '","columns":[{"name":"c0","value":1', "a.b", "\u00e9"])
def test_templates_of_tables_with_awkward_names(name: str) -> None:
    """A name that looks like the message's text belongs to its table alone."""
    decoder = Wal2JsonDecoder()
    for dummy in range(2):
        for table in (name, name + "2", name):
            text = json_change("I", ["x"], ascii_only=False).replace(
                b'"table":"t"', b'"table":' + json.dumps(table, ensure_ascii=False).encode()
            )
            for run in decoder.decode_block(data(5, text), 1):
                assert [change.shape.name for change in run.again()] == [table]
                assert [(raw if form is None else form).shape.name for form, raw in run.items] == [table]


def test_binary_values_are_refused() -> None:
    """They were not asked for, and the stream is text from end to end (law 6)."""
    message = OID + b"N\0\2b\0\0\0\1xt\0\0\0\1y"
    for kind in (b"I", b"U"):
        with pytest.raises(StreamError) as caught:
            pgoutput(2).decode(5, kind + message)
        assert "binary" in caught.value.message
        items = raw_rows(pgoutput(2).decode_block(data(5, kind + message), 1))
        with pytest.raises(StreamError) as caught:
            items[0][0].shape.marked([items[0][1]])
        assert "binary" in caught.value.message


@st.composite
def messages(draw: st.DrawFn) -> tuple[Rows, list[tuple[str, tuple[bytes | None, ...], bytes]], Rows]:
    """Rows before, changes of ``public.t`` in long runs of one kind (kind, row, old key), rows after."""
    rows: Rows = {b"%d" % n: (b"%d" % n, b"a", None) for n in range(0, 30, 2)}
    before, changes = dict(rows), []
    for number in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from("IUUDK"))
        for key in draw(st.lists(st.integers(0, 29).map(lambda n: b"%d" % n), max_size=20)):
            row = (key, b"v%d" % number, draw(st.sampled_from([None, b"\\x", b"u"])))
            if kind == "I" and key not in rows or kind == "U" and key in rows:
                rows[key] = row
                changes.append((kind, row, key))
            elif kind == "D" and key in rows:
                del rows[key]
                changes.append((kind, row, key))
            elif kind == "K" and key not in rows and rows:
                old = draw(st.sampled_from(sorted(rows)))
                del rows[old]
                rows[key] = row
                changes.append((kind, row, old))
    return before, changes, rows


def as_pgoutput(changes: t.Sequence[tuple[str, tuple[bytes | None, ...], bytes]]) -> list[bytes]:
    """The messages, the relation before them."""

    def text(row: t.Sequence[bytes | None]) -> bytes:
        return tuple_data([None if v is None else v.decode() for v in row])

    found = [relation(["id", "a", "b"])]
    for kind, row, key in changes:
        old = b"K" + text((key, None, None))
        found.append(
            {"I": b"I" + OID, "D": b"D" + OID + old, "U": b"U" + OID, "K": b"U" + OID + old}[kind]
            + (b"" if kind == "D" else b"N" + text(row))
        )
    return found


def as_wal2json(changes: t.Sequence[tuple[str, tuple[bytes | None, ...], bytes]]) -> list[bytes]:
    """As :func:`as_pgoutput`."""
    found = []
    for kind, row, key in changes:
        values = [None if v is None else v.decode() for v in row]
        columns = [{"name": n, "value": v} for n, v in zip(("id", "a", "b"), values, strict=True)]
        identity = [{"name": "id", "value": key.decode()}]
        message: dict[str, t.Any] = {"action": kind.replace("K", "U"), "schema": "public", "table": "t"}
        message.update({} if kind == "D" else {"columns": columns}, **({} if kind == "I" else {"identity": identity}))
        found.append(json.dumps(message, separators=(",", ":")).encode())
    return found


def as_test_decoding(changes: t.Sequence[tuple[str, tuple[bytes | None, ...], bytes]]) -> list[bytes]:
    """As :func:`as_pgoutput`."""
    found = []
    for kind, row, key in changes:
        literals = ["null" if v is None else "'" + v.decode().replace("'", "''") + "'" for v in row]
        new = "".join(f" {name}[text]:{literal}" for name, literal in zip(("id", "a", "b"), literals, strict=True))
        old = f" id[text]:'{key.decode()}'"
        rows = {"I": f"INSERT:{new}", "U": f"UPDATE:{new}", "K": f"UPDATE: old-key:{old} new-tuple:{new}", "D": f"DELETE:{old}"}
        found.append(f"table public.t: {rows[kind]}".encode())
    return found


@given(messages(), st.sampled_from(["", "a"]))
@settings(max_examples=EXAMPLES)
def test_what_is_netted_together(history: tuple[Rows, t.Any, Rows], identity: str) -> None:
    """Runs of messages of each plugin lead to the rows that one change after the other leads to; so do the same changes told again."""
    before, changes, after = history
    for decoder, found in (
        (PgoutputDecoder(), as_pgoutput(changes)),
        (Wal2JsonDecoder(), as_wal2json(changes)),
        (TextDecoder([Streamed("public", "t", False)]), as_test_decoding(changes)),
    ):
        events = decoder.decode_block(b"".join([data(5, message) for message in found]), len(found))
        batch = Batch(t.cast(t.Any, Tables(make_table(identity=identity))))
        batch.add([e for e in events if isinstance(e, Run)], 100)
        batch.close()
        again = [t.cast(Change, event) for dummy, event in batch.events]
        assert len(again) == len(changes) == batch.rows == sum(sum(counts) for counts in batch.counts.values())
        assert [c.op for c in again] == [kind.replace("K", "U") for kind, dummy, dummy2 in changes]
        for step in batch.steps:
            if isinstance(step, SetStep):
                check_load(step)
                step.content.settle()
        assert replay(batch, before) == after


def check_load(step: SetStep) -> None:
    """The data for COPY holds the rows of the set, by key."""
    content = step.content
    made = load.load_of(content)
    rows = [content.row(row) for row in content.inserted.values()]
    assert (read_copy(made.inserts[0]) if made.inserts else []) == rows
    whole = [read_copy(text) for names, text, dummy in made.updates if names == content.table.columns]
    assert sorted(row for rows in whole for row in rows) == sorted(content.row(row) for row in content.updated.values())
    assert sorted(read_copy(made.deletes[0]) if made.deletes else []) == sorted((key,) for key in content.deleted)
