# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Rows of test_decoding: `` name[type]:value`` for each column, as its function ``tuple_to_stringinfo`` writes them.

Names are written by ``quote_identifier`` and types by ``format_type_be``, so a bracket outside of quotes is an array's ``[]`` or the end of
the type. A value is ``null``, the word ``unchanged-toast-datum``, or what ``print_literal`` writes: numbers bare, booleans as words, bit
strings as ``B'..'``, everything else in quotes with each quote within doubled. So the first byte of a value tells what it is, and a quote
that no quote follows is its end: there is one way to read a row, and no way around an error.

As with wal2json, a message that was taken apart leaves a template: a regular expression with a group for each value, which later messages
of the same columns match wholly.
"""

from __future__ import annotations

import re
import typing as t

from .events import DELETE, INSERT, Change, Form, Key, Shape
from .statements import COLUMN, NULL, ROW

TEMPLATES = 8
"""So many are kept for a kind of change of one table: unchanged TOAST values and the NULLs of old rows leave columns out."""

IDENTIFIER = rb'(?:[a-z_][a-z0-9_]*|"[^"]*(?:""[^"]*)*")'
"""What ``quote_identifier`` writes."""

_TYPE = rb'(?:[^\[\]"]|\[\]|"[^"]*(?:""[^"]*)*")+'
_TOKEN = rb"'[^']*(?:''[^']*)*'|-?[0-9][0-9.eE+-]*|t(?=rue)|f(?=alse)|NaN|-?Infinity"
_VALUE = rb"(?:null|(?:B(?='))?(" + _TOKEN + rb")(?:(?<=t)rue|(?<=f)alse)?)"
"""Its group is the literal of a number, a text in quotes, the first letter of a boolean; nothing for NULL."""

_UNCHANGED = b"unchanged-toast-datum"
_COLUMN = re.compile(b" (" + IDENTIFIER + rb")\[" + _TYPE + rb"\]:(" + _UNCHANGED + b"|" + _VALUE + rb")(?= |\Z)")
_OLD, _NEW = b" old-key:", b" new-tuple:"
_QUOTE = 0x27
NOTHING = b" (no-tuple-data)"

Raw = t.Match[bytes]


class Unreadable(Exception):
    """A row is none."""


class TextShape(Shape):
    """A raw row is the match of a template, which has a group for each of our columns."""

    __slots__ = ()

    def values(self, raw: Raw) -> list[bytes | None]:
        """See :class:`.events.Shape`."""
        return plain(raw.groups())

    def keys(self, raws: t.Sequence[Raw], indexes: tuple[int, ...]) -> list[Key]:
        """See :class:`.events.Shape`."""
        groups = [i + 1 for i in indexes]
        if len(groups) == 1:
            only = groups[0]
            return [None if (token := raw[only]) is None else _plain(token) for raw in raws]
        return [tuple(plain(raw.group(*groups))) for raw in raws]

    def marked(self, raws: t.Sequence[Raw]) -> bytes:
        """See :class:`.events.Shape`: all quotes around values go at once, then those that are doubled within."""
        text = COLUMN + (ROW + COLUMN).join([COLUMN.join(raw.groups(NULL)) for raw in raws])
        if b"'" in text:
            text = (text + b"\0").replace(COLUMN + b"'", COLUMN).replace(b"'\0", b"\0")[:-1].replace(b"''", b"'")
        return text


def plain(tokens: t.Iterable[bytes | None]) -> list[bytes | None]:
    """The values of tokens."""
    return [None if token is None else _plain(token) for token in tokens]


def _plain(token: bytes) -> bytes:
    if token[0] != _QUOTE:
        return token
    return token[1:-1].replace(b"''", b"'")


def unquoted(identifier: bytes) -> str:
    """The name that ``quote_identifier`` wrote."""
    if identifier.startswith(b'"'):
        identifier = identifier[1:-1].replace(b'""', b'"')
    return identifier.decode("utf-8", "surrogateescape")


class Part(t.NamedTuple):
    """A row that was taken apart: names and values of the columns that were sent, and where its values are in the text (its tokens)."""

    columns: tuple[str, ...]
    values: list[bytes | None]
    places: list[tuple[int, int]]
    end: int


def take_apart(text: bytes, position: int) -> Part:
    """The row at ``position``, up to what is no column any more."""
    columns, values, places = [], [], []
    match = _COLUMN.match
    while (found := match(text, position)) is not None:
        position = found.end()
        if found[2] == _UNCHANGED:
            continue
        columns.append(unquoted(found[1]))
        values.append(None if found[3] is None else _plain(found[3]))
        places.append(found.span(2))
    return Part(tuple(columns), values, places, position)


def rows_of(text: bytes, kind: str) -> tuple[Part | None, Part | None]:
    """The old and the new row of a change of ``kind``; ``text`` is what follows the kind.

    :raises Unreadable: if there is anything else, or a row is not told.
    """
    old = new = None
    position = 0
    if kind == DELETE:
        old = take_apart(text, 0)
        position = old.end
    else:
        if kind != INSERT and text.startswith(_OLD):
            old = take_apart(text, len(_OLD))
            if not text.startswith(_NEW, old.end):
                raise Unreadable("the old row does not end with the word new-tuple")
            position = old.end + len(_NEW)
        new = take_apart(text, position)
        if kind != INSERT and new.end == position:
            raise Unreadable("the new row is missing")
        position = new.end
    if position != len(text):
        raise Unreadable(f"neither a column nor the end at byte {position} of its rows")
    return old, new


class Template:
    """Reads the messages that have the columns of the one that it was made of.

    :ivar match: matches the text from the place on that the first one was cut at.
    :ivar form: what all have in common, or None where each has to become a change at once: with two rows.
    """

    __slots__ = ("match", "form", "_op", "_old", "_new", "_width")

    def __init__(self, pattern: re.Pattern[bytes], op: str, old: TextShape | None, new: TextShape | None) -> None:
        self.match = pattern.fullmatch
        self.form = Form(op, t.cast(Shape, old or new)) if old is None or new is None else None
        self._op, self._old, self._new = op, old, new
        self._width = len(old.columns) if old is not None else 0

    def like(self, op: str, old: Shape | None, new: Shape | None) -> bool:
        """Is it of such messages?"""
        return self._op == op and self._old is old and self._new is new

    def change(self, lsn: int, raw: Raw) -> Change:
        """The change that a message with two rows means."""
        values = plain(raw.groups())
        return Change(self._op, lsn, t.cast(Shape, self._new), values[self._width :], self._old, values[: self._width])


def make_template(text: bytes, places: t.Sequence[tuple[int, int]], op: str, old: TextShape | None, new: TextShape | None) -> Template:
    """The template of messages that are ``text`` but for the values at ``places``."""
    parts, position = [], 0
    for begin, end in places:
        parts += [re.escape(text[position:begin]), _VALUE]
        position = end
    return Template(re.compile(b"".join([*parts, re.escape(text[position:])])), op, old, new)
