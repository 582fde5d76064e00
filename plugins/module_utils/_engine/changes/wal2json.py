# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""wal2json, format version 2: one JSON object a message.

No number is ever made of a number: literals with a point or an exponent stay text (``float_hook``), whole numbers become Python's unbounded
integers and text again, and what would not survive that (``-0``, more than 4,300 digits) is decoded a second time with the raw literals.
bytea comes as bare hex digits; the applier, which knows the column's type, puts ``\\x`` before them. TRUNCATE comes as one message for each
relation, without its flags.
"""

from __future__ import annotations

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
    TRUNCATE,
    UPDATE,
    Begin,
    Change,
    Commit,
    Event,
    LogicalMessage,
    Shape,
    Truncate,
)

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
        value: t.Any = None

    class _Message(msgspec.Struct, gc=False):
        action: str
        lsn: str = ""
        nextlsn: str = ""
        timestamp: str | None = None
        schema: str = ""
        table: str = ""
        columns: list[_Column] = []
        identity: list[_Column] = []
        transactional: bool = False
        prefix: str = ""
        content: str = ""

    class _RawColumn(msgspec.Struct, gc=False):
        name: str
        value: msgspec.Raw = msgspec.Raw(b"null")

    class _RawMessage(msgspec.Struct, gc=False):
        columns: list[_RawColumn] = []
        identity: list[_RawColumn] = []


def _text(value: t.Any) -> str | None:
    """A JSON value as PostgreSQL's text."""
    if value is None or isinstance(value, str):
        return value
    if value is True:
        return "t"
    if value is False:
        return "f"
    if isinstance(value, int):
        return str(value)
    raise StreamError(f"wal2json wrote a value that is no scalar: {value!r}", code="PGM4020")


def _raw_text(raw: bytes) -> str | None:
    """A JSON literal as PostgreSQL's text, numbers as they stand."""
    head = raw[:1]
    if head == b'"':
        return t.cast(str, msgspec.json.decode(raw))
    return {b"n": None, b"t": "t", b"f": "f"}.get(head, raw.decode("ascii"))


class Wal2JsonDecoder:
    """Decodes wal2json's messages."""

    codec = "utf-8"
    bare_bytea = True

    def __init__(self) -> None:
        self._decode = msgspec.json.Decoder(_Message, float_hook=str).decode
        self._decode_raw = msgspec.json.Decoder(_RawMessage).decode
        self._shapes: dict[tuple[t.Any, ...], Shape] = {}

    def decode(self, lsn: int, payload: bytes) -> Event | None:
        """See :class:`.events.Decoder`.

        :raises StreamError: PGM4020 if the message cannot be read.
        """
        try:
            message = self._decode(payload)
        except msgspec.MsgspecError as exc:
            message = self._again(lsn, payload, exc)
        action = message.action
        if action in ("I", "U", "D"):
            return self._change(lsn, payload, action, message)
        if action == "B":
            return Begin(BEGIN, parse_lsn(message.lsn))
        if action == "C":
            return Commit(COMMIT, lsn, message.timestamp or "")
        if action == "T":
            return Truncate(TRUNCATE, lsn, [(message.schema, message.table)], False, False)
        if action == "M":
            return LogicalMessage(LOGICAL_MESSAGE, lsn, message.prefix, message.content, message.transactional)
        raise StreamError(f"wal2json sent an unknown message {action!r} at {format_lsn(lsn)}.", code="PGM4020")

    def _change(self, lsn: int, payload: bytes, action: str, message: t.Any) -> Change:
        columns, identity = message.columns, message.identity
        if b":-0" in payload or message.transactional:
            raw = self._decode_raw(payload)
            values = [_raw_text(bytes(c.value)) for c in raw.columns]
            old_values = [_raw_text(bytes(c.value)) for c in raw.identity]
        else:
            values = [c.value if isinstance(c.value, str) else _text(c.value) for c in columns]
            old_values = [c.value if isinstance(c.value, str) else _text(c.value) for c in identity]
        schema, table = message.schema, message.table
        if action == "I":
            return Change(INSERT, lsn, self._shape(schema, table, columns), values, None, ())
        old = self._shape(schema, table, identity)
        if action == "D":
            return Change(DELETE, lsn, old, (), old, old_values)
        return Change(UPDATE, lsn, self._shape(schema, table, columns), values, old, old_values)

    def _shape(self, schema: str, table: str, columns: list[t.Any]) -> Shape:
        names = tuple([c.name for c in columns])
        key = (schema, table, names)
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._shapes[key] = Shape(schema, table, names)
        return shape

    def _again(self, lsn: int, payload: bytes, exc: Exception) -> t.Any:
        """A message that the fast decoder refused: numbers of more than 4,300 digits are read as raw literals."""
        try:
            raw = self._decode_raw(payload)
            head = msgspec.json.Decoder(_Head).decode(payload)
        except msgspec.MsgspecError:
            raise StreamError(f"A message of wal2json at {format_lsn(lsn)} cannot be read: {exc}", code="PGM4020") from exc
        columns = [_Column(c.name) for c in raw.columns]
        identity = [_Column(c.name) for c in raw.identity]
        # ``transactional`` is free in a change: it marks that the raw literals are to be taken
        return _Message(head.action, schema=head.schema, table=head.table, columns=columns, identity=identity, transactional=True)


if msgspec is not None:

    class _Head(msgspec.Struct):
        action: str
        schema: str = ""
        table: str = ""
