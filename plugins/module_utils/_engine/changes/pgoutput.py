# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""pgoutput, protocol versions 1 to 4 without streaming of unfinished transactions (manual 55.9).

A message is read twice at once: lengths from its bytes, values from the same bytes as Latin-1 text, where one character is one byte.
The codec turns them back, so the server's encoding does not matter and nothing is decoded for nothing.
"""

from __future__ import annotations

import struct
import typing as t

from ..errors import StreamError
from ..postgres.lsn import format_lsn
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
from .spool import DATA_HEADER, MESSAGE
from .spool import KEEPALIVE as KEEPALIVE_FRAME

_BEGIN = struct.Struct(">QqI")
_COMMIT = struct.Struct(">BQQq")
_U32 = struct.Struct(">I")
_HEAD = struct.Struct(">xIBQ16xBI")
"""A data frame's header (see :mod:`.spool`) and the beginning of a change's message: its kind and the relation."""

_VALUE = struct.Struct(">BI")
_PADDING = bytes(_HEAD.size)
"""Behind a block, so that the structs can be read up to its end."""

_TEXT, _NULL, _UNCHANGED = 0x74, 0x6E, 0x75  # 't', 'n', 'u'


class _Relation:
    """A relation as the plugin described it, and the shapes of its rows seen so far."""

    __slots__ = ("shape", "key", "key_shape", "partial")

    def __init__(self, shape: Shape, key: tuple[int, ...]) -> None:
        self.shape = shape
        self.key = key
        self.key_shape = Shape(shape.schema, shape.name, tuple(shape.columns[i] for i in key), shape.identity)
        self.partial: dict[tuple[int, ...], Shape] = {}

    def without(self, missing: tuple[int, ...]) -> Shape:
        """The shape of a row that lacks the columns ``missing`` (unchanged TOAST)."""
        shape = self.partial.get(missing)
        if shape is None:
            whole = self.shape
            names = tuple(name for index, name in enumerate(whole.columns) if index not in missing)
            shape = self.partial[missing] = Shape(whole.schema, whole.name, names, whole.identity)
        return shape


class PgoutputDecoder:
    """Decodes pgoutput's messages."""

    codec = "latin-1"
    bare_bytea = False

    def __init__(self) -> None:
        self._relations: dict[int, _Relation] = {}

    def decode(self, lsn: int, payload: bytes) -> Event | None:
        """See :class:`.events.Decoder`.

        :raises StreamError: PGM4020 if the message cannot be read.
        """
        try:
            return self._event(lsn, payload)
        except (IndexError, struct.error, KeyError, ValueError) as exc:
            raise _unreadable(lsn, payload, exc) from exc

    def decode_block(self, body: bytes, count: int) -> list[Event]:
        """See :class:`.events.Decoder`."""
        data, text = body + _PADDING, body.decode("latin-1")
        relations, unpack = self._relations, _HEAD.unpack_from
        events: list[Event] = []
        add = events.append
        position = 0
        for dummy in range(count):
            try:
                length, kind, lsn, message, oid = unpack(data, position)
            except struct.error:
                break
            begin = position + DATA_HEADER
            position += 1 + length
            if kind == KEEPALIVE_FRAME:
                add(Notice(KEEPALIVE, lsn))
                continue
            if kind != MESSAGE:
                raise StreamError(f"A frame of the spool has the unknown kind {kind:#x}.", code="PGM4010")
            try:
                if message == 0x49:  # I
                    add(_insert(relations[oid], lsn, data, text, begin, position))
                elif message == 0x55:  # U
                    add(_update(relations[oid], lsn, data, text, begin, position))
                elif message == 0x44:  # D
                    add(_delete(relations[oid], lsn, data, text, begin, position))
                else:
                    event = self._event(lsn, body[begin:position])
                    if event is not None:
                        add(event)
            except (IndexError, struct.error, KeyError, ValueError) as exc:
                raise _unreadable(lsn, body[begin:position], exc) from exc
        if position != len(body):
            raise StreamError("A block of the spool is longer than its frames.", code="PGM4010")
        return events

    def _event(self, lsn: int, data: bytes) -> Event | None:
        kind = data[0]
        if kind in _CHANGES:
            relation = self._relations[_U32.unpack_from(data, 1)[0]]
            return _CHANGES[kind](relation, lsn, data + _PADDING, data.decode("latin-1"), 0, len(data))
        if kind == 0x42:  # B
            return Begin(BEGIN, _BEGIN.unpack_from(data, 1)[0])
        if kind == 0x43:  # C
            dummy, dummy2, end, stamp = _COMMIT.unpack_from(data, 1)
            return Commit(COMMIT, end, stamp)
        if kind == 0x52:  # R
            self._describe(data)
            return None
        if kind == 0x54:  # T
            count, flags = struct.unpack_from(">IB", data, 1)
            oids = struct.unpack_from(f">{count}I", data, 6)
            shapes = [self._relations[oid].shape for oid in oids]
            return Truncate(TRUNCATE, lsn, [(s.schema, s.name) for s in shapes], bool(flags & 2), bool(flags & 1))
        if kind == 0x4D:  # M
            end = data.index(0, 10)
            prefix = data[10:end].decode("utf-8", "replace")
            return LogicalMessage(LOGICAL_MESSAGE, lsn, prefix, data[end + 5 :].decode("utf-8", "replace"), bool(data[1] & 1))
        if kind in (0x59, 0x4F):  # Y: a type's name; O: where a transaction came from
            return None
        raise StreamError(f"pgoutput sent an unknown message {data[:1]!r} at {format_lsn(lsn)}.", code="PGM4020")

    def _describe(self, data: bytes) -> None:
        oid = _U32.unpack_from(data, 1)[0]
        schema, position = _string(data, 5)
        name, position = _string(data, position)
        identity = chr(data[position])
        count = int.from_bytes(data[position + 1 : position + 3], "big")
        position += 3
        columns, key = [], []
        for index in range(count):
            if data[position] & 1:
                key.append(index)
            column, position = _string(data, position + 1)
            columns.append(column)
            position += 8
        # an empty schema is pg_catalog (logicalrep_write_namespace)
        self._relations[oid] = _Relation(Shape(schema or "pg_catalog", name, tuple(columns), identity), tuple(key))


def _string(data: bytes, position: int) -> tuple[str, int]:
    end = data.index(0, position)
    return data[position:end].decode("utf-8", "surrogateescape"), end + 1


def _unreadable(lsn: int, payload: bytes, exc: Exception) -> StreamError:
    return StreamError(f"A message of pgoutput ({payload[:1]!r}) at {format_lsn(lsn)} cannot be read: {exc!r}", code="PGM4020")


def _insert(relation: _Relation, lsn: int, data: bytes, text: str, begin: int, end: int) -> Change:
    """The message in ``data[begin:end]``."""
    values, missing, dummy = _tuple(data, text, begin + 6, end)
    if missing:
        raise StreamError(f"An INSERT into {relation.shape.label} at {format_lsn(lsn)} lacks columns.", code="PGM4020")
    return make_change((INSERT, lsn, relation.shape, values, None, ()))


def _update(relation: _Relation, lsn: int, data: bytes, text: str, begin: int, end: int) -> Change:
    """As :func:`_insert`."""
    old_shape: Shape | None = None
    old_values: t.Sequence[str | None] = ()
    position = begin + 5
    if data[position] != 0x4E:  # K or O come before N
        old_shape, old_values, position = _old(relation, data, text, position, end)
    values, missing, dummy = _tuple(data, text, position + 1, end)
    return make_change((UPDATE, lsn, relation.without(missing) if missing else relation.shape, values, old_shape, old_values))


def _delete(relation: _Relation, lsn: int, data: bytes, text: str, begin: int, end: int) -> Change:
    """As :func:`_insert`."""
    old_shape, old_values, dummy = _old(relation, data, text, begin + 5, end)
    return make_change((DELETE, lsn, old_shape, (), old_shape, old_values))


_CHANGES = {0x49: _insert, 0x55: _update, 0x44: _delete}


def _old(relation: _Relation, data: bytes, text: str, position: int, end: int) -> tuple[Shape, list[str | None], int]:
    """The old row at ``position``: 'K' holds the key alone, 'O' all columns; and where the message goes on."""
    values, missing, following = _tuple(data, text, position + 1, end)
    if data[position] == 0x4B:  # K
        return relation.key_shape, [values[i] for i in relation.key], following
    return (relation.without(missing) if missing else relation.shape), values, following


def _tuple(data: bytes, text: str, position: int, end: int) -> tuple[list[str | None], tuple[int, ...], int]:
    """TupleData at ``position`` of a message that ends at ``end``: the values that are present, the indexes of those that are not, and
    where the message goes on. Behind ``end`` there are at least a few bytes."""
    unpack = _VALUE.unpack_from
    values: list[str | None] = []
    add = values.append
    missing: tuple[int, ...] = ()
    count = (data[position] << 8) | data[position + 1]
    position += 2
    for index in range(count):
        kind, length = unpack(data, position)
        if kind == _TEXT:
            begin = position + 5
            position = begin + length
            add(text[begin:position])
        elif kind == _NULL:
            add(None)
            position += 1
        elif kind == _UNCHANGED:
            missing += (index,)
            position += 1
        else:
            raise IndexError(f"unknown kind of value {kind}")
    if position > end:
        raise IndexError("value longer than its message")
    return values, missing, position
