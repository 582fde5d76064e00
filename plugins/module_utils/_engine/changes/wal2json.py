# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""wal2json, format version 2: one JSON object a message.

No number is ever made of a number: before the JSON is decoded, the literals of numbers are put into quotes, so that they are text to the
decoder; booleans become PostgreSQL's letters in the same way. Messages of one table and kind differ in their values alone, so most are not
decoded at all: they match a template that an earlier one has left (:mod:`.wal2json_rows`).
bytea comes as bare hex digits; the applier, which knows the column's type, puts ``\\x`` before them. TRUNCATE comes as one message for each
relation, without its flags.
"""

from __future__ import annotations

import functools
import re
import typing as t

from ..errors import StreamError
from ..postgres.drivers import msgspec
from ..postgres.lsn import format_lsn, parse_lsn
from .events import (
    BEGIN,
    COMMIT,
    DELETE,
    INSERT,
    LOGICAL_MESSAGE,
    RUN,
    TRUNCATE,
    UPDATE,
    Begin,
    Change,
    Commit,
    Event,
    Item,
    LogicalMessage,
    Run,
    Shape,
    Truncate,
    Values,
    notice,
)
from .spool import DATA_HEADER, FRAME, MESSAGE, PADDING
from .wal2json_rows import TEMPLATES, JsonShape, Template, make_template

FILTER_TABLES = 300
"""Up to so many tables are named one by one (the plugin looks through the list at each change); more are asked for by schema."""

_SPECIAL = re.compile(r"([\\\s,.*'])", re.ASCII)
"""What the plugin takes for the end of a name, a wildcard or an escape. Blanks are all that C's ``isspace`` calls so: it strips them from
the end of a name in silence, and that table's changes would not come."""


def table_filter(tables: t.Sequence[tuple[str, str]], others: t.Sequence[tuple[str, str]] = ()) -> dict[str, str]:
    """Options that let through only ``tables`` and our own logical messages; special characters are escaped as its README says.

    :param others: further relations, which are to be left out where whole schemas are asked for.
    """

    def escaped(name: str) -> str:
        return _SPECIAL.sub(r"\\\1", name)

    options = {"add-msg-prefixes": "pgm.marker,pgm.heartbeat"}
    if not tables:
        listed = "pg_migration.nothing"
    elif len(tables) <= FILTER_TABLES:
        listed = ",".join(f"{escaped(schema)}.{escaped(name)}" for schema, name in tables)
    else:
        schemas = {schema for schema, dummy in tables}
        listed = ",".join(f"{escaped(schema)}.*" for schema in sorted(schemas))
        unwanted = [other for other in sorted(set(others) - set(tables)) if other[0] in schemas]
        if unwanted:
            options["filter-tables"] = ",".join(f"{escaped(schema)}.{escaped(name)}" for schema, name in unwanted)
    return {"add-tables": listed, **options}


if msgspec is not None:

    class _Column(msgspec.Struct, gc=False):
        name: str
        value: str | None = None

    _Columns = t.List[_Column]

    class _Begin(msgspec.Struct, gc=False, tag_field="action", tag="B"):
        lsn: str

    class _Commit(msgspec.Struct, gc=False, tag_field="action", tag="C"):
        timestamp: str | None = None

    class _Insert(msgspec.Struct, gc=False, tag_field="action", tag="I"):
        schema: str
        table: str
        columns: t.List[_Column] = []

    class _Update(msgspec.Struct, gc=False, tag_field="action", tag="U"):
        schema: str
        table: str
        columns: t.List[_Column] = []
        identity: t.List[_Column] = []

    class _Delete(msgspec.Struct, gc=False, tag_field="action", tag="D"):
        schema: str
        table: str
        identity: t.List[_Column] = []

    class _Truncate(msgspec.Struct, gc=False, tag_field="action", tag="T"):
        schema: str
        table: str

    class _Emitted(msgspec.Struct, gc=False, tag_field="action", tag="M"):
        transactional: bool = False
        prefix: str = ""
        content: str = ""

    _Message = t.Union[_Begin, _Commit, _Insert, _Update, _Delete, _Truncate, _Emitted]


_NUMBER = re.compile(rb'"value":(-?[0-9][0-9.eE+-]*)')
_INSERT, _UPDATE, _DELETE = b"IUD"
_ACTION_AT = len(b'{"action":"')
_SCHEMA, _ROW = b'"schema":', b'":['
"""Before the names of a change's table, and behind them and the word that says which row comes. The second may be found in a name too; then
the rest of the name is part of the template."""

_NAME_WITHIN = 150
"""The table's name begins within so many bytes: behind the action, a time and an LSN."""

_BEGIN = re.compile(rb'\{"action":"B"(?:,"timestamp":"[^"\\]*")?,"lsn":"([0-9A-F]{1,8})/([0-9A-F]{1,8})"(?:,"nextlsn":"[^"\\]*")?\}')
_COMMIT = re.compile(rb'\{"action":"C","timestamp":"([0-9 :.+-]*)"(?:,"lsn":"[^"\\]*")?(?:,"nextlsn":"[^"\\]*")?\}')


def _as_text(data: bytes) -> bytes:
    """JSON in which numbers and booleans are the texts that PostgreSQL writes.

    ``"value":`` is only ever the key: within a JSON string the quotes have a backslash before them.
    """
    parts = _NUMBER.split(data)
    if len(parts) > 1:
        joined = [b'"'] * (2 * len(parts) - 1)
        joined[0::4] = parts[0::2]
        joined[1::4] = [b'"value":"'] * (len(parts) // 2)
        joined[2::4] = parts[1::2]
        data = b"".join(joined)
    return data.replace(b'"value":true', b'"value":"t"').replace(b'"value":false', b'"value":"f"')


class Wal2JsonDecoder:
    """Decodes wal2json's messages."""

    bare_bytea = True

    def __init__(self) -> None:
        self._decode = msgspec.json.Decoder(_Message).decode
        self._shapes: dict[tuple[t.Any, ...], JsonShape] = {}
        self._templates: dict[int, dict[bytes, list[Template]]] = {_INSERT: {}, _UPDATE: {}, _DELETE: {}}

    def decode(self, lsn: int, payload: bytes) -> Event:
        """See :class:`.events.Decoder`.

        :raises StreamError: PGM4020 if the message cannot be read.
        """
        found = _BEGIN.fullmatch(payload)
        if found:
            return Begin(BEGIN, (int(found[1], 16) << 32) + int(found[2], 16))
        found = _COMMIT.fullmatch(payload)
        if found:
            return Commit(COMMIT, lsn, found[1].decode())
        try:
            return self._event(lsn, self._decode(_as_text(payload)))
        except (msgspec.MsgspecError, UnicodeError) as exc:
            raise StreamError(f"A message of wal2json at {format_lsn(lsn)} cannot be read: {exc}", code="PGM4020") from exc

    def decode_block(self, body: bytes, count: int) -> list[Event | Run]:
        """See :class:`.events.Decoder`."""
        size, unpack, find, templates_of = len(body), FRAME.unpack_from, body.find, self._templates
        data = body + PADDING
        events: list[Event | Run] = []
        items: list[Item] = []
        add = items.append
        position = run_at = frames = 0
        while position < size:
            start = position
            dummy, length, kind, lsn = unpack(data, position)
            begin = position + DATA_HEADER
            position += length + 1
            frames += 1
            if position > size:
                break
            known = templates_of.get(body[begin + _ACTION_AT]) if kind == MESSAGE and begin + _ACTION_AT < position else None
            if known is not None:
                name_at = find(_SCHEMA, begin, begin + _NAME_WITHIN)
                row_at = find(_ROW, name_at, position) if name_at > 0 else -1
                name = body[name_at:row_at] if row_at > 0 else b""
                for match, form in known.get(name, ()):
                    found = match(body, row_at, position)
                    if found is not None:
                        add((form, found))
                        break
                else:
                    add((None, self._by_hand(lsn, body[begin:position], known, name)))
                continue
            if items:
                events.append(Run(RUN, items, start - run_at, functools.partial(self._told_again, body, run_at, start)))
                items = []
                add = items.append
            run_at = position
            events.append(self.decode(lsn, body[begin:position]) if kind == MESSAGE else notice(kind, lsn))
        if position != size or frames != count:
            raise StreamError("A block of the spool is longer than its frames.", code="PGM4010")
        if items:
            events.append(Run(RUN, items, size - run_at, functools.partial(self._told_again, body, run_at, size)))
        return events

    def _by_hand(self, lsn: int, payload: bytes, known: dict[bytes, list[Template]], name: bytes) -> Change:
        """A change that matches no template (yet)."""
        change = t.cast(Change, self.decode(lsn, payload))
        templates = known.setdefault(name, [])
        if len(templates) < TEMPLATES and name:
            shape = t.cast(JsonShape, change.shape)
            if not any(form.shape is shape and form.identity is change.old_shape for dummy, form in templates):
                made = make_template(payload[payload.index(name) + len(name) :], change)
                if made is not None:
                    templates.append(made)
        return change

    def _told_again(self, body: bytes, begin: int, end: int) -> list[Change]:
        """The changes in ``body[begin:end]``, which have been read before."""
        changes = []
        while begin < end:
            dummy, length, dummy2, lsn = FRAME.unpack_from(body, begin)
            first = begin + DATA_HEADER
            begin += length + 1
            changes.append(t.cast(Change, self.decode(lsn, body[first:begin])))
        return changes

    def _event(self, lsn: int, message: t.Any) -> Event:
        if isinstance(message, _Begin):
            return Begin(BEGIN, parse_lsn(message.lsn))
        if isinstance(message, _Commit):
            return Commit(COMMIT, lsn, message.timestamp or "")
        if isinstance(message, _Truncate):
            return Truncate(TRUNCATE, lsn, [(message.schema, message.table)], False, False)
        if isinstance(message, _Emitted):
            return LogicalMessage(LOGICAL_MESSAGE, lsn, message.prefix, message.content, message.transactional)
        return self._change(lsn, message)

    def _change(self, lsn: int, message: t.Any) -> Change:
        schema, table = message.schema, message.table
        old_shape: Shape | None = None
        old_values: Values = ()
        if not isinstance(message, _Insert):
            old_shape, old_values = self._row(schema, table, message.identity)
            if isinstance(message, _Delete):
                return Change(DELETE, lsn, old_shape, (), old_shape, old_values)
        shape, values = self._row(schema, table, message.columns)
        return Change(UPDATE if old_shape else INSERT, lsn, shape, values, old_shape, old_values)

    def _row(self, schema: str, table: str, columns: _Columns) -> tuple[Shape, list[bytes | None]]:
        names = tuple([column.name for column in columns])
        shape = self._shapes.get((schema, table, names))
        if shape is None:
            shape = self._shapes[schema, table, names] = JsonShape(schema, table, names)
        return shape, [None if column.value is None else column.value.encode() for column in columns]
