# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Both decoders: no value is changed on the way, and what cannot be read is an error."""

from __future__ import annotations

import json
import struct
import typing as t

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.events import (
    Change,
    Commit,
    LogicalMessage,
    Run,
    Shape,
    Truncate,
    time_text,
)
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.pgoutput import PgoutputDecoder
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.spool import KEEPALIVE, MESSAGE
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.wal2json import Wal2JsonDecoder, table_filter
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import StreamError
from frames import frame
from hypothesis import given
from hypothesis import strategies as st

TEXT = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20))


def encoded(values: t.Iterable[str | None]) -> list[bytes | None]:
    """The texts as their bytes."""
    return [None if value is None else value.encode() for value in values]


def wal2json(literals: t.Sequence[str]) -> Change:
    """An INSERT whose values are the JSON ``literals``."""
    columns = ",".join(f'{{"name":"c{i}","value":{literal}}}' for i, literal in enumerate(literals))
    raw = f'{{"action":"I","lsn":"0/10","schema":"s","table":"t","columns":[{columns}]}}'
    return t.cast(Change, Wal2JsonDecoder().decode(16, raw.encode()))


NUMBERS = st.one_of(
    st.integers().map(str),
    st.from_regex(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?(e[+-][0-9]{1,3})?", fullmatch=True),
    st.sampled_from(["-0", "-0.0", "9" * 1000, "-" + "9" * 5000, "0." + "1" * 5000, "1" * 5000 + ".5", "1e+300", "1.5e-40"]),
)


@given(st.lists(NUMBERS, min_size=1, max_size=4))
def test_wal2json_keeps_every_number(literals: list[str]) -> None:
    """No number is made of a number."""
    assert list(wal2json(literals).values) == [literal.encode() for literal in literals]


@given(st.lists(TEXT, min_size=1, max_size=4))
def test_wal2json_keeps_every_text(values: list[str | None]) -> None:
    """Text and NULL, escaped or not."""
    for ascii_only in (True, False):
        assert list(wal2json([json.dumps(v, ensure_ascii=ascii_only) for v in values]).values) == encoded(values)


def test_wal2json_booleans_and_kinds() -> None:
    """true and false become PostgreSQL's letters; begin, commit, messages and truncates are told apart."""
    assert list(wal2json(["true", "false", '"true"']).values) == [b"t", b"f", b"true"]
    decoder = Wal2JsonDecoder()
    begin = decoder.decode(1, b'{"action":"B","lsn":"1/A"}')
    assert begin is not None and begin[1] == (1 << 32) + 10
    commit = t.cast(Commit, decoder.decode(99, b'{"action":"C","timestamp":"2026-01-01 00:00:00+00","nextlsn":"0/63"}'))
    assert (commit.end_lsn, commit.time) == (99, "2026-01-01 00:00:00+00")
    marker = t.cast(LogicalMessage, decoder.decode(5, b'{"action":"M","timestamp":null,"transactional":false,"prefix":"p","content":"c"}'))
    assert (marker.prefix, marker.content, marker.transactional) == ("p", "c", False)
    assert t.cast(Truncate, decoder.decode(5, b'{"action":"T","schema":"a","table":"b"}')).relations == [("a", "b")]
    update = t.cast(
        Change,
        decoder.decode(
            5,
            b'{"action":"U","schema":"a","table":"b","columns":[{"name":"x","value":-0}],"identity":[{"name":"id","value":7}]}',
        ),
    )
    assert (update.values, update.old_values, update.old_shape and update.old_shape.columns) == ([b"-0"], [b"7"], ("id",))


@pytest.mark.parametrize(
    "raw", [b"{", b"[]", b'{"action":"X"}', b'{"action":"I","columns":[{"name":"a","value":[1]}]}', b'{"action":"I"\xff}']
)
def test_wal2json_refuses_what_it_cannot_read(raw: bytes) -> None:
    """Never guessed, never skipped."""
    with pytest.raises(StreamError):
        Wal2JsonDecoder().decode(1, raw)


def test_table_filter_escapes() -> None:
    """Names with every special character; many tables are asked for by schema."""
    assert table_filter([("a.b \\c", "x, y*'z"), ("public", "t")])["add-tables"] == r"a\.b\ \\c.x\,\ y\*\'z,public.t"
    assert table_filter([("s", "\ft\x0b\r\n\t")])["add-tables"] == "s.\\\ft\\\x0b\\\r\\\n\\\t"
    many = [("s t", f"t{i}") for i in range(1000)]
    options = table_filter(many, [*many, ("s t", "mat.view"), ("elsewhere", "x")])
    assert (options["add-tables"], options["filter-tables"]) == (r"s\ t.*", r"s\ t.mat\.view")


def relation(columns: t.Sequence[str], key: int = 1) -> bytes:
    body = b"".join(bytes([int(i < key)]) + name.encode() + b"\0" + struct.pack(">Ii", 25, -1) for i, name in enumerate(columns))
    return b"R" + struct.pack(">I", 7) + b"public\0t\0d" + struct.pack(">H", len(columns)) + body


UNCHANGED = object()


def tuple_data(values: t.Sequence[t.Any]) -> bytes:
    parts = [struct.pack(">H", len(values))]
    for value in values:
        if value is None:
            parts.append(b"n")
        elif value is UNCHANGED:
            parts.append(b"u")
        else:
            raw = value.encode()
            parts.append(b"t" + struct.pack(">I", len(raw)) + raw)
    return b"".join(parts)


def pgoutput(columns: int) -> PgoutputDecoder:
    decoder = PgoutputDecoder()
    assert decoder.decode(0, relation([f"c{i}" for i in range(columns)])) is None
    return decoder


@given(st.lists(TEXT, min_size=1, max_size=6))
def test_pgoutput_keeps_every_text(values: list[str | None]) -> None:
    """Values are the bytes that came."""
    change = t.cast(Change, pgoutput(len(values)).decode(5, b"I" + struct.pack(">I", 7) + b"N" + tuple_data(values)))
    assert change.values == encoded(values)


def test_pgoutput_updates_deletes_and_the_rest() -> None:
    """Old keys, old rows, unchanged TOAST, TRUNCATE's flags, messages, origins and types."""
    decoder = pgoutput(3)
    oid = struct.pack(">I", 7)
    plain = t.cast(Change, decoder.decode(5, b"U" + oid + b"N" + tuple_data(["1", UNCHANGED, None])))
    assert (plain.shape.columns, plain.values, plain.old_shape) == (("c0", "c2"), [b"1", None], None)
    moved = t.cast(Change, decoder.decode(5, b"U" + oid + b"K" + tuple_data(["1", None, None]) + b"N" + tuple_data(["2", "x", "y"])))
    assert (moved.values, moved.old_shape and moved.old_shape.columns, moved.old_values) == ([b"2", b"x", b"y"], ("c0",), [b"1"])
    deleted = t.cast(Change, decoder.decode(5, b"D" + oid + b"O" + tuple_data(["1", "x", None])))
    assert (deleted.old_shape and deleted.old_shape.columns, deleted.old_values) == (("c0", "c1", "c2"), [b"1", b"x", None])
    emptied = t.cast(Truncate, decoder.decode(5, b"T" + struct.pack(">IBI", 1, 3, 7)))
    assert (emptied.relations, emptied.cascade, emptied.restart_identity) == ([("public", "t")], True, True)
    said = t.cast(LogicalMessage, decoder.decode(5, b"M\x01" + struct.pack(">Q", 9) + b"pgm.marker\0" + struct.pack(">I", 3) + b"tok"))
    assert (said.prefix, said.content, said.transactional) == ("pgm.marker", "tok", True)
    assert decoder.decode(5, b"O" + struct.pack(">Q", 9) + b"origin\0") is None
    assert decoder.decode(5, b"Y" + oid + b"public\0mood\0") is None
    commit = t.cast(Commit, decoder.decode(40, b"C\0" + struct.pack(">QQq", 30, 40, 1_000_000)))
    assert (commit.end_lsn, time_text(commit.time)) == (40, "2000-01-01 00:00:01+00:00")


@given(st.binary(max_size=40))
def test_pgoutput_refuses_what_it_cannot_read(raw: bytes) -> None:
    """Any bytes give an event or an error of ours, nothing else."""
    try:
        pgoutput(2).decode(5, raw or b"?")
    except StreamError:
        pass


def test_pgoutput_refuses_a_value_longer_than_its_message() -> None:
    """A torn message is not taken for a short value."""
    with pytest.raises(StreamError):
        pgoutput(1).decode(5, b"I" + struct.pack(">I", 7) + b"N\x00\x01t" + struct.pack(">I", 10) + b"abc")


def block(messages: t.Sequence[tuple[int, bytes]]) -> tuple[bytes, int]:
    """The messages (with their LSNs) as the body of a block of the spool, a keepalive behind each."""
    records = [record for lsn, payload in messages for record in ((MESSAGE, lsn, payload), (KEEPALIVE, lsn + 1, b""))]
    return b"".join([frame(*record) for record in records]), len(records)


def plain(event: t.Any) -> tuple[t.Any, ...]:
    """An event to compare: shapes by their columns, values as a list."""
    parts = [(p.label, p.columns) if isinstance(p, Shape) else list(p) if isinstance(p, (list, tuple)) else p for p in event]
    return tuple(parts)


def taken_apart(events: t.Sequence[t.Any]) -> list[tuple[t.Any, ...]]:
    """The changes of all runs, each read from its raw row, without LSN and what identified an old row that is the new one; and the same
    told again, which must be equal."""
    found = []
    for run in events:
        if isinstance(run, Run):
            items = [raw if form is None else form.change(raw) for form, raw in run.items]
            again = run.again()
            assert [plain(c)[2:] for c in items] == [plain(c)[2:] for c in again]
            assert [c.op for c in items] == [c.op for c in again]
            found += [plain(c) for c in again]
    return found


LIKE_JSON = st.sampled_from(['"value":5', ',"value":true', '"value":-0}', '\\"value":1', '{"name":"a","value":', "\\", '"'])


@given(st.lists(st.tuples(st.sampled_from("IUD"), st.one_of(NUMBERS, st.one_of(LIKE_JSON, TEXT).map(json.dumps), st.just("true")), TEXT)))
def test_wal2json_block_is_its_messages(changes: list[tuple[str, str, str | None]]) -> None:
    """A block means what its messages mean one by one; what looks like JSON inside of a text stays text."""
    messages = []
    for lsn, (action, literal, text) in enumerate(changes, 10):
        columns = f'[{{"name":"value","value":{literal}}},{{"name":"b","value":{json.dumps(text)}}}]'
        identity = f'[{{"name":"value","value":{literal}}}]'
        given_ = {"I": f'"columns":{columns}', "U": f'"columns":{columns},"identity":{identity}', "D": f'"identity":{identity}'}[action]
        messages.append((lsn, f'{{"action":"{action}","schema":"s","table":"t",{given_}}}'.encode()))
    decoder = Wal2JsonDecoder()
    for dummy in range(2):  # templates are made the first time
        whole = decoder.decode_block(*block(messages))
        assert taken_apart(whole) == [plain(Wal2JsonDecoder().decode(lsn, payload)) for lsn, payload in messages]
        assert [e[:2] for e in whole if not isinstance(e, Run)] == [("K", lsn + 1) for lsn, dummy in messages]
        for run, (action, literal, text) in zip([e for e in whole if isinstance(e, Run)], changes, strict=True):
            change = run.again()[0]
            value = json.loads(literal) if literal[0] == '"' or literal == "null" else "t" if literal == "true" else literal
            assert list(change.old_values if action == "D" else change.values) == encoded([value] if action == "D" else [value, text])


@given(st.lists(st.tuples(TEXT, TEXT)))
def test_pgoutput_block_is_its_messages(rows: list[tuple[str | None, str | None]]) -> None:
    """A block means what its messages mean one by one, an unchanged value included."""
    oid, messages = struct.pack(">I", 7), [(1, relation(["c0", "c1"]))]
    for a, b in rows:
        messages.append((5, b"I" + oid + b"N" + tuple_data([a, b])))
        messages.append((6, b"U" + oid + b"K" + tuple_data([a, None]) + b"N" + tuple_data([b, UNCHANGED])))
        messages.append((7, b"D" + oid + b"O" + tuple_data([a, b])))
    single = pgoutput(2)
    assert taken_apart(pgoutput(2).decode_block(*block(messages))) == [plain(single.decode(lsn, payload)) for lsn, payload in messages[1:]]


@pytest.mark.parametrize("decoder", [PgoutputDecoder, Wal2JsonDecoder])
def test_a_block_that_is_cut_or_wrong_is_refused(decoder: type[t.Any]) -> None:
    """Neither the end nor a message in the middle is guessed."""
    body, count = block([(1, b'{"action":"C"}' if decoder is Wal2JsonDecoder else relation(["a"]))])
    for cut, records in ((body[:-1], count), (body, count + 1), (body, count - 1), (body + b"x", count)):
        with pytest.raises(StreamError):
            decoder().decode_block(cut, records)
    for payload in (b"null", b"", b"{},{}", b"I\0\0\0\7N\0\1t\0\0\0\1", b"\xff"):
        with pytest.raises(StreamError):
            decoder().decode_block(*block([(1, payload)]))
