# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""wal2json, format version 2: one JSON object a message.

No number is ever made of a number: before the JSON is decoded, the literals of numbers are put into quotes, so that they are text to the
decoder; booleans become PostgreSQL's letters in the same way. A block of messages is decoded at once, as one array.
bytea comes as bare hex digits; the applier, which knows the column's type, puts ``\\x`` before them. TRUNCATE comes as one message for each
relation, without its flags.
"""

from __future__ import annotations

import operator
import re
import struct
import typing as t

from ..errors import StreamError
from ..postgres.drivers import msgspec
from ..postgres.lsn import format_lsn, parse_lsn
from .events import (
    BEGIN,
    COMMIT,
    DELETE,
    INSERT,
    KEEPALIVE,
    LOGICAL_MESSAGE,
    TRUNCATE,
    UPDATE,
    Begin,
    Change,
    Commit,
    Event,
    LogicalMessage,
    Notice,
    Shape,
    Truncate,
    make_change,
)
from .spool import DATA_HEADER, FRAME, MESSAGE, PADDING
from .spool import KEEPALIVE as KEEPALIVE_FRAME

FILTER_TABLES = 300
"""Up to so many tables are named one by one (the plugin looks through the list at each change); more are asked for by schema."""

_SPECIAL = re.compile(r"([\\ ,.*'])")


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
_NAME, _VALUE = operator.attrgetter("name"), operator.attrgetter("value")


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

    codec = "utf-8"
    bare_bytea = True

    def __init__(self) -> None:
        self._decode = msgspec.json.Decoder(_Message).decode
        self._decode_list = msgspec.json.Decoder(t.List[_Message | None]).decode
        self._shapes: dict[tuple[t.Any, ...], Shape] = {}

    def decode(self, lsn: int, payload: bytes) -> Event | None:
        """See :class:`.events.Decoder`.

        :raises StreamError: PGM4020 if the message cannot be read.
        """
        try:
            return self._event(lsn, self._decode(_as_text(payload)))
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise StreamError(f"A message of wal2json at {format_lsn(lsn)} cannot be read: {exc}", code="PGM4020") from exc

    def decode_block(self, body: bytes, count: int) -> list[Event]:
        """See :class:`.events.Decoder`. All messages are one JSON array."""
        heads, payloads = _records(body, count)
        try:
            messages: list[t.Any] = self._decode_list(_as_text(b"".join((b"[", b",".join(payloads), b"]"))))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            messages = []
        if len(messages) != count:  # find the one that cannot be read
            messages = [self._single(lsn, payload) for (dummy, lsn), payload in zip(heads, payloads, strict=True)]
        events: list[Event] = []
        add, event, shapes = events.append, self._event, self._shapes
        for (kind, lsn), message in zip(heads, messages, strict=True):
            if message is None:
                if kind == MESSAGE:
                    raise StreamError(f"A message of wal2json at {format_lsn(lsn)} is empty.", code="PGM4020")
                add(Notice(KEEPALIVE, lsn))
                continue
            kind_of = type(message)
            if kind_of is _Update or kind_of is _Insert:
                columns = message.columns
                names = tuple(map(_NAME, columns))
                shape = shapes.get((message.schema, message.table, names)) or self._shape(message.schema, message.table, names)
                values = tuple(map(_VALUE, columns))
                if kind_of is _Insert:
                    add(make_change((INSERT, lsn, shape, values, None, ())))
                    continue
                columns = message.identity
                names = tuple(map(_NAME, columns))
                old = shapes.get((message.schema, message.table, names)) or self._shape(message.schema, message.table, names)
                add(make_change((UPDATE, lsn, shape, values, old, tuple(map(_VALUE, columns)))))
            else:
                add(event(lsn, message))
        return events

    def _single(self, lsn: int, payload: bytes) -> t.Any:
        try:
            return None if payload == _NOTHING else self._decode(_as_text(payload))
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise StreamError(f"A message of wal2json at {format_lsn(lsn)} cannot be read: {exc}", code="PGM4020") from exc

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
        old_values: tuple[str | None, ...] = ()
        if not isinstance(message, _Insert):
            old_shape = self._shape(schema, table, tuple(map(_NAME, message.identity)))
            old_values = tuple(map(_VALUE, message.identity))
            if isinstance(message, _Delete):
                return Change(DELETE, lsn, old_shape, (), old_shape, old_values)
        shape, values = self._shape(schema, table, tuple(map(_NAME, message.columns))), tuple(map(_VALUE, message.columns))
        return Change(UPDATE if old_shape else INSERT, lsn, shape, values, old_shape, old_values)

    def _shape(self, schema: str, table: str, names: tuple[str, ...]) -> Shape:
        key = (schema, table, names)
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._shapes[key] = Shape(schema, table, names)
        return shape


_NOTHING = b"null"
"""Stands in the array for a record that is no message."""


def _records(body: bytes, count: int) -> tuple[list[tuple[int, int]], list[bytes]]:
    """Kinds and LSNs of a block's records, and their messages.

    :raises StreamError: PGM4010 if they do not fill the block.
    """
    heads: list[tuple[int, int]] = []
    payloads: list[bytes] = []
    position, unpack, data = 0, FRAME.unpack_from, body + PADDING
    try:
        for dummy in range(count):
            dummy2, length, kind, lsn = unpack(data, position)
            begin = position + DATA_HEADER
            position += 1 + length
            if kind not in (MESSAGE, KEEPALIVE_FRAME):
                raise struct.error
            heads.append((kind, lsn))
            payloads.append(body[begin:position] if kind == MESSAGE else _NOTHING)
    except struct.error:
        position = -1
    if position != len(body):
        raise StreamError("A block of the spool is longer than its frames.", code="PGM4010")
    return heads, payloads
