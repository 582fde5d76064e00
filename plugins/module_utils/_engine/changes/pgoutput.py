# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""pgoutput, protocol versions 1 to 4 without streaming of unfinished transactions (manual 55.9).

A message is read twice at once: lengths from its bytes, values from the same bytes as Latin-1 text, where one character is one byte.
The codec turns them back, so the server's encoding does not matter and nothing is decoded for nothing.
"""

from __future__ import annotations

import struct

from ..errors import StreamError
from ..postgres.lsn import format_lsn
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

_BEGIN = struct.Struct(">QqI")
_COMMIT = struct.Struct(">BQQq")
_U32 = struct.Struct(">I")
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
            raise StreamError(
                f"A message of pgoutput ({payload[:1]!r}) at {format_lsn(lsn)} cannot be read: {exc!r}", code="PGM4020"
            ) from exc

    def _event(self, lsn: int, data: bytes) -> Event | None:
        kind = data[0]
        if kind == 0x49:  # I
            relation = self._relations[_U32.unpack_from(data, 1)[0]]
            values, missing, dummy = _tuple(data, data.decode("latin-1"), 6)
            if missing:
                raise StreamError(f"An INSERT into {relation.shape.label} at {format_lsn(lsn)} lacks columns.", code="PGM4020")
            return Change(INSERT, lsn, relation.shape, values, None, ())
        if kind == 0x55:  # U
            return self._update(lsn, data)
        if kind == 0x44:  # D
            relation = self._relations[_U32.unpack_from(data, 1)[0]]
            old_shape, old_values, dummy = _old(relation, data, data.decode("latin-1"), 5)
            return Change(DELETE, lsn, old_shape, (), old_shape, old_values)
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

    def _update(self, lsn: int, data: bytes) -> Change:
        relation = self._relations[_U32.unpack_from(data, 1)[0]]
        text = data.decode("latin-1")
        old_shape: Shape | None = None
        old_values: list[str | None] = []
        position = 5
        if data[5] != 0x4E:  # K or O come before N
            old_shape, old_values, position = _old(relation, data, text, 5)
        values, missing, dummy = _tuple(data, text, position + 1)
        return Change(UPDATE, lsn, relation.without(missing) if missing else relation.shape, values, old_shape, old_values)

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


def _old(relation: _Relation, data: bytes, text: str, position: int) -> tuple[Shape, list[str | None], int]:
    """The old row at ``position``: 'K' holds the key alone, 'O' all columns; and where the message goes on."""
    values, missing, following = _tuple(data, text, position + 1)
    if data[position] == 0x4B:  # K
        return relation.key_shape, [values[i] for i in relation.key], following
    return (relation.without(missing) if missing else relation.shape), values, following


def _tuple(data: bytes, text: str, position: int) -> tuple[list[str | None], tuple[int, ...], int]:
    """TupleData at ``position``: the values that are present, the indexes of those that are not, and where the message goes on."""
    count = (data[position] << 8) | data[position + 1]
    position += 2
    values: list[str | None] = []
    add = values.append
    missing: tuple[int, ...] = ()
    for index in range(count):
        kind = data[position]
        if kind == _TEXT:
            begin = position + 5
            position = begin + int.from_bytes(data[position + 1 : begin], "big")
            add(text[begin:position])
        elif kind == _NULL:
            add(None)
            position += 1
        elif kind == _UNCHANGED:
            missing += (index,)
            position += 1
        else:
            raise IndexError(f"unknown kind of value {kind}")
    if position > len(data):
        raise IndexError("value longer than its message")
    return values, missing, position
