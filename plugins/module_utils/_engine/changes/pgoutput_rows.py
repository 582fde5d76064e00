# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Rows of pgoutput: TupleData behind the number of its columns (manual 55.9), read as late as possible and many at a time.

No text of PostgreSQL holds a NUL. So within a row ``t``, three zero bytes and a length begin a column of up to 255 bytes, and nothing
else does: rows can be split by searching, and the lengths prove the result. What is not such a column (NULL, a longer value) shows as a
piece that is longer than its length says, and is read byte by byte.
"""

from __future__ import annotations

import struct
import typing as t

from ..errors import StreamError
from .events import Key, Shape
from .statements import COLUMN, NULL, ROW

_VALUE = struct.Struct(">BI")
PADDING = bytes(32)
"""Behind bytes that are read by structs, so that these can be read up to the end."""

_TEXT, _NULL, _UNCHANGED, _BINARY = 0x74, 0x6E, 0x75, 0x62  # 't', 'n', 'u', 'b'
_SHORT = b"t\0\0\0"


class PgShape(Shape):
    """Columns of a relation; a raw row has all ``width`` columns of the relation, of which ours are at ``positions``."""

    __slots__ = ("width", "positions")

    def __init__(self, schema: str, name: str, columns: tuple[str, ...], identity: str, width: int, positions: tuple[int, ...]) -> None:
        super().__init__(schema, name, columns, identity)
        self.width = width
        self.positions = positions

    def values(self, raw: bytes) -> list[bytes | None]:
        """See :class:`.events.Shape`."""
        try:
            values, missing, end = columns(raw + PADDING, 0, self.width)
        except IndexError as exc:
            raise StreamError(f"A row of {self.label} cannot be read: {exc}", code="PGM4020") from exc
        if missing or end != len(raw):
            raise StreamError(f"A row of {self.label} lacks columns.", code="PGM4020")
        return values if len(self.positions) == self.width else [values[i] for i in self.positions]

    def keys(self, raws: t.Sequence[bytes], indexes: tuple[int, ...]) -> list[Key]:
        """See :class:`.events.Shape`."""
        positions = [self.positions[i] for i in indexes]
        if positions == [0]:
            return [raw[5 : 5 + raw[4]] if raw.startswith(_SHORT) else self._key(raw, positions) for raw in raws]
        last = max(positions)
        if len(positions) == 1:
            return [found[last][1 : 1 + found[last][0]] if (found := _pieces(raw, last)) else self._key(raw, positions) for raw in raws]
        return [
            tuple([found[i][1 : 1 + found[i][0]] for i in positions]) if (found := _pieces(raw, last)) else self._key(raw, positions)
            for raw in raws
        ]

    def _key(self, raw: bytes, positions: list[int]) -> Key:
        values, dummy, dummy2 = columns(raw + PADDING, 0, self.width)
        return values[positions[0]] if len(positions) == 1 else tuple([values[i] for i in positions])

    def marked(self, raws: t.Sequence[bytes]) -> bytes:
        """See :class:`.events.Shape`; for shapes that have all columns of their relation."""
        lead, *pieces = ROW.join(raws).split(_SHORT)
        tails: dict[bytes, bytes] = {}
        parts = [piece[1:] if piece[0] + 1 == len(piece) else _with_tail(piece, tails) for piece in pieces]
        return COLUMN.join([_marked_tail(lead), *parts])


def _pieces(raw: bytes, last: int) -> list[bytes] | None:
    """Pieces of ``raw``, of which those up to number ``last`` are columns, each behind its length; None if that is not so."""
    lead, *pieces = raw.split(_SHORT, last + 2)
    if lead or len(pieces) <= last or pieces[last][0] >= len(pieces[last]):
        return None
    for piece in pieces[:last]:
        if piece[0] + 1 != len(piece):
            return None
    return pieces


def _with_tail(piece: bytes, tails: dict[bytes, bytes]) -> bytes:
    """A piece that holds a short column and more: the value and what follows, marked. ``tails`` remembers what was seen."""
    end = piece[0] + 1
    tail = piece[end:]
    found = tails.get(tail)
    if found is None:
        found = _marked_tail(tail)
        if len(tail) < 16 and len(tails) < 1000:
            tails[tail] = found
    return piece[1:end] + found


def _marked_tail(tail: bytes) -> bytes:
    """NULLs, long columns and ends of rows.

    :raises StreamError: PGM4020 if there is anything else.
    """
    parts: list[bytes] = []
    position = 0
    while position < len(tail):
        kind = tail[position]
        if kind == _NULL:
            parts.append(COLUMN + NULL)
            position += 1
        elif kind == _TEXT:
            begin = position + 5
            position = begin + int.from_bytes(tail[position + 1 : begin], "big")
            parts.append(COLUMN + tail[begin:position])
        elif tail.startswith(ROW, position):
            parts.append(ROW)
            position += len(ROW)
        else:
            raise _wrong_kind(kind)
    if position != len(tail):
        raise StreamError("A row of pgoutput ends within a value.", code="PGM4020")
    return b"".join(parts)


def _wrong_kind(kind: int) -> StreamError:
    if kind == _BINARY:
        return StreamError("pgoutput sent a value in binary format, which was not asked for.", code="PGM4020")
    return StreamError(f"pgoutput sent a value of an unknown or unexpected kind {bytes([kind])!r}.", code="PGM4020")


def columns(data: bytes, position: int, count: int) -> tuple[list[bytes | None], tuple[int, ...], int]:
    """The values of a row that are present, the indexes of those that are not, and where it ends. Behind it there are some more bytes."""
    unpack = _VALUE.unpack_from
    values: list[bytes | None] = []
    add = values.append
    missing: tuple[int, ...] = ()
    for index in range(count):
        kind, length = unpack(data, position)
        if kind == _TEXT:
            begin = position + 5
            position = begin + length
            add(data[begin:position])
        elif kind == _NULL:
            add(None)
            position += 1
        elif kind == _UNCHANGED:
            missing += (index,)
            position += 1
        else:
            raise _wrong_kind(kind)
    return values, missing, position


def lacks(data: bytes, position: int, count: int) -> bool:
    """Is a value of the row at ``position`` unchanged, so that it was not sent?"""
    unpack = _VALUE.unpack_from
    for dummy in range(count):
        kind, length = unpack(data, position)
        if kind == _TEXT:
            position += 5 + length
        elif kind == _UNCHANGED:
            return True
        else:
            position += 1
    return False
