# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""pgoutput, protocol versions 1 to 4 without streaming of unfinished transactions (manual 55.9).

Values pass as the bytes that came. The common messages are not taken apart here: a row is kept as its TupleData (:mod:`.pgoutput_rows`).
"""

from __future__ import annotations

import functools
import re
import struct
import typing as t

from ..errors import StreamError
from ..postgres.lsn import format_lsn
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
    Form,
    Item,
    LogicalMessage,
    Run,
    Shape,
    Truncate,
    notice,
)
from .pgoutput_rows import PADDING, PgShape, columns, lacks
from .spool import DATA_HEADER, MESSAGE

_BEGIN = struct.Struct(">QqI")
_COMMIT = struct.Struct(">BQQq")
_U32 = struct.Struct(">I")
_HEAD = struct.Struct(">xIBQ16xBIBBB")
"""A data frame's header (see :mod:`.spool`) and the beginning of a change's message: its kind, the relation, what follows, and if that is a
row, the number of its columns."""

_INSERT, _UPDATE, _DELETE = 0x49, 0x55, 0x44  # 'I', 'U', 'D'
_ROWS = (_UPDATE, _INSERT)
_NEW, _KEY, _OLD = 0x4E, 0x4B, 0x4F  # 'N', 'K', 'O'
_ROW_AT = 8
"""Where a row's columns begin in a message: behind kind, relation, 'N' and the number of columns."""

_MAYBE_UNCHANGED = re.compile(rb"u[nu]*(?:t[\0-\x3f]|\Z)").search
"""An unchanged value is followed by another column or by the end; so may be the last letter of a text."""


class _Relation:
    """A relation as the plugin described it, and the shapes of its rows seen so far."""

    __slots__ = ("shape", "key", "key_shape", "partial", "low", "inserts", "updates", "deletes", "described")

    def __init__(self, described: bytes, schema: str, name: str, columns: tuple[str, ...], identity: str, key: tuple[int, ...]) -> None:
        width = len(columns)
        self.described = described
        self.shape = PgShape(schema, name, columns, identity, width, tuple(range(width)))
        self.key = key
        self.key_shape = PgShape(schema, name, tuple([columns[i] for i in key]), identity, width, key)
        self.partial: dict[tuple[int, ...], Shape] = {}
        self.low = width & 0xFF
        self.inserts, self.updates = Form(INSERT, self.shape), Form(UPDATE, self.shape)
        self.deletes = {_KEY: Form(DELETE, self.key_shape), _OLD: Form(DELETE, self.shape)}

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

    bare_bytea = False

    def __init__(self) -> None:
        self._relations: dict[int, _Relation] = {}

    def decode(self, lsn: int, payload: bytes) -> Event | None:
        """See :class:`.events.Decoder`.

        :raises StreamError: PGM4020 if the message cannot be read.
        """
        try:
            return self._event(lsn, payload)
        except _UNREADABLE as exc:
            raise _unreadable(lsn, payload, exc) from exc

    def decode_block(self, body: bytes, count: int) -> list[Event | Run]:
        """See :class:`.events.Decoder`."""
        data, size = body + PADDING, len(body)
        unpack, maybe_unchanged, relations = _HEAD.unpack_from, _MAYBE_UNCHANGED, self._relations
        events: list[Event | Run] = []
        items: list[Item] = []
        add = items.append
        position = run_at = frames = lsn = begin = 0
        try:
            while position < size:
                start = position
                length, kind, lsn, message, oid, what, dummy, low = unpack(data, position)
                begin = position + DATA_HEADER
                position += length + 1
                frames += 1
                if kind == MESSAGE:
                    if message in _ROWS:
                        relation = relations[oid]
                        row_at = begin + _ROW_AT
                        if what == _NEW and low == relation.low:
                            if message == _INSERT:
                                add((relation.inserts, data[row_at:position]))
                                continue
                            if not maybe_unchanged(data, row_at, position) or not lacks(data, row_at, relation.shape.width):
                                add((relation.updates, data[row_at:position]))
                                continue
                        add((None, self._event(lsn, body[begin:position])))
                        continue
                    if message == _DELETE:
                        relation = relations[oid]
                        if low != relation.low:
                            raise IndexError("wrong number of columns")
                        add((relation.deletes[what], data[begin + _ROW_AT : position]))
                        continue
                if items:
                    events.append(Run(RUN, items, start - run_at, self._again(body, run_at, start)))
                    items = []
                    add = items.append
                run_at = position
                event = self._event(lsn, body[begin:position]) if kind == MESSAGE else notice(kind, lsn)
                relations = self._relations
                if event is not None:
                    events.append(event)
        except _UNREADABLE as exc:
            raise _unreadable(lsn, body[begin:position], exc) from exc
        if position != size or frames != count:
            raise StreamError("A block of the spool is longer than its frames.", code="PGM4010")
        if items:
            events.append(Run(RUN, items, size - run_at, self._again(body, run_at, size)))
        return events

    def _again(self, body: bytes, begin: int, end: int) -> t.Callable[[], list[Change]]:
        return functools.partial(_told_again, self._relations, body, begin, end)

    def _event(self, lsn: int, data: bytes) -> Event | None:
        kind = data[0]
        if kind == 0x42:  # B
            return Begin(BEGIN, _BEGIN.unpack_from(data, 1)[0])
        if kind == 0x43:  # C
            dummy, dummy2, end, stamp = _COMMIT.unpack_from(data, 1)
            return Commit(COMMIT, end, stamp)
        if kind in _CHANGES:
            return _CHANGES[kind](self._relations[_U32.unpack_from(data, 1)[0]], lsn, data + PADDING, len(data))
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
        known = self._relations.get(oid)
        if known is not None and known.described == data:  # the receiver repeats it at the start of each segment
            return
        schema, position = _string(data, 5)
        name, position = _string(data, position)
        identity = chr(data[position])
        count = int.from_bytes(data[position + 1 : position + 3], "big")
        position += 3
        names, key = [], []
        for index in range(count):
            if data[position] & 1:
                key.append(index)
            column, position = _string(data, position + 1)
            names.append(column)
            position += 8
        # an empty schema is pg_catalog (logicalrep_write_namespace); runs keep the relations as they were, so they are never changed
        made = _Relation(data, schema or "pg_catalog", name, tuple(names), identity, tuple(key))
        self._relations = {**self._relations, oid: made}


def _told_again(relations: dict[int, _Relation], body: bytes, begin: int, end: int) -> list[Change]:
    """The changes in ``body[begin:end]``, which have been read before."""
    changes = []
    data = body[begin:end] + PADDING
    position = 0
    while position < end - begin:
        length, dummy, lsn, message, oid = _HEAD.unpack_from(data, position)[:5]
        first = position + DATA_HEADER
        position += length + 1
        changes.append(_CHANGES[message](relations[oid], lsn, data[first:position] + PADDING, position - first))
    return changes


def _string(data: bytes, position: int) -> tuple[str, int]:
    end = data.index(0, position)
    return data[position:end].decode("utf-8", "surrogateescape"), end + 1


_UNREADABLE = (IndexError, struct.error, KeyError, ValueError)


def _unreadable(lsn: int, payload: bytes, exc: Exception) -> StreamError:
    return StreamError(f"A message of pgoutput ({payload[:1]!r}) at {format_lsn(lsn)} cannot be read: {exc!r}", code="PGM4020")


def _insert(relation: _Relation, lsn: int, data: bytes, end: int) -> Change:
    """The message in ``data[:end]``; behind it there are some more bytes."""
    values, missing, dummy = _tuple(relation, data, 6, end)
    if missing:
        raise StreamError(f"An INSERT into {relation.shape.label} at {format_lsn(lsn)} lacks columns.", code="PGM4020")
    return Change(INSERT, lsn, relation.shape, values, None, ())


def _update(relation: _Relation, lsn: int, data: bytes, end: int) -> Change:
    """As :func:`_insert`."""
    old_shape: Shape | None = None
    old_values: t.Sequence[bytes | None] = ()
    position = 5
    if data[position] != _NEW:  # K or O come before N
        old_shape, old_values, position = _old(relation, data, position, end)
    values, missing, dummy = _tuple(relation, data, position + 1, end)
    return Change(UPDATE, lsn, relation.without(missing) if missing else relation.shape, values, old_shape, old_values)


def _delete(relation: _Relation, lsn: int, data: bytes, end: int) -> Change:
    """As :func:`_insert`."""
    old_shape, old_values, dummy = _old(relation, data, 5, end)
    return Change(DELETE, lsn, old_shape, (), old_shape, old_values)


_CHANGES = {_INSERT: _insert, _UPDATE: _update, _DELETE: _delete}


def _old(relation: _Relation, data: bytes, position: int, end: int) -> tuple[Shape, list[bytes | None], int]:
    """The old row at ``position``: 'K' holds the key alone, 'O' all columns; and where the message goes on."""
    values, missing, following = _tuple(relation, data, position + 1, end)
    if data[position] == _KEY:
        return relation.key_shape, [values[i] for i in relation.key], following
    return (relation.without(missing) if missing else relation.shape), values, following


def _tuple(relation: _Relation, data: bytes, position: int, end: int) -> tuple[list[bytes | None], tuple[int, ...], int]:
    """TupleData at ``position`` of a message that ends at ``end``: see :func:`.pgoutput_rows.columns`."""
    count = (data[position] << 8) | data[position + 1]
    if count != relation.shape.width:
        raise IndexError(f"{count} columns where {relation.shape.label} has {relation.shape.width}")
    found = columns(data, position + 2, count)
    if found[2] > end:
        raise IndexError("value longer than its message")
    return found
