# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Templates for wal2json's changes: messages of one table and kind have the same text but for the values.

A template is a regular expression that an earlier message, which was decoded as JSON, has left: its text with a group for each value.
What matches it wholly has the same columns in the same order, and its values are the groups: the literal of a number, a text in quotes, the
first letter of a boolean, nothing for NULL. A text within JSON has a backslash before each quote, so a group ends where its value ends. The
old row of an UPDATE must repeat the values of the new one, else the key has changed and nothing matches.
"""

from __future__ import annotations

import re
import typing as t

from ..errors import StreamError
from ..postgres.drivers import msgspec
from .events import DELETE, UPDATE, Change, Form, Key, Shape
from .statements import COLUMN, NULL, ROW

TEMPLATES = 8
"""So many are kept for a kind of change of one table: unchanged TOAST values leave columns out, a changed schema has others."""

Raw = t.Match[bytes]
Template = t.Tuple[t.Callable[[bytes, int, int], "Raw | None"], Form]

_TOKEN = rb'-?[0-9][0-9.eE+-]*|"[^"\\\x00-\x1f]*(?:\\["\\/bfnrtu][^"\\\x00-\x1f]*)*"|t(?=rue)|f(?=alse)'
_REST = rb"(?:(?<=t)rue|(?<=f)alse)?"
"""Of a boolean; what comes before is the last letter of the token."""

_VALUE = rb"(?:null|(" + _TOKEN + rb")" + _REST + rb")"
_FIELD = re.compile(rb'\{"name":"(?:[^"\\]|\\.)*","value":(' + _VALUE + rb")\}")
_QUOTE = 0x22


class JsonShape(Shape):
    """A raw row is the match of a template, which has a group for each of our columns."""

    __slots__ = ()

    def values(self, raw: Raw) -> list[bytes | None]:
        """See :class:`.events.Shape`."""
        return [None if token is None else _plain(token) for token in raw.groups()]

    def keys(self, raws: t.Sequence[Raw], indexes: tuple[int, ...]) -> list[Key]:
        """See :class:`.events.Shape`."""
        groups = [i + 1 for i in indexes]
        if len(groups) == 1:
            only = groups[0]
            return [_plain(token) if (token := raw[only]) is not None else None for raw in raws]
        return [tuple([None if token is None else _plain(token) for token in raw.group(*groups)]) for raw in raws]

    def marked(self, raws: t.Sequence[Raw]) -> bytes:
        """See :class:`.events.Shape`."""
        text = COLUMN + (ROW + COLUMN).join([COLUMN.join(raw.groups(NULL)) for raw in raws])
        if b"\\" not in text:  # then every quote is around a text, and none is in it
            return text.replace(b'"', b"")
        rows = []
        for raw in raws:
            row = COLUMN.join(raw.groups(NULL))
            if b"\\" in row:
                rows.append(COLUMN.join([_plain(token) for token in raw.groups(NULL)]))
            else:
                rows.append(row.replace(b'"', b""))
        return COLUMN + (ROW + COLUMN).join(rows)


def _plain(token: bytes) -> bytes:
    """The value of a token.

    :raises StreamError: PGM4020 if it is no text.
    """
    if token[0] != _QUOTE:
        return token
    if b"\\" not in token:
        return token[1:-1]
    try:
        return t.cast(str, msgspec.json.decode(token)).encode()
    except (msgspec.MsgspecError, UnicodeError) as exc:
        raise StreamError(f"A value of wal2json cannot be read: {exc}", code="PGM4020") from exc


def make_template(text: bytes, change: Change) -> Template | None:
    """What later messages can be matched with.

    :param text: the message from some place before its first row on.
    :param change: what it means.
    """
    shape, values = (change.shape, change.values) if change.op != DELETE else (change.shape, change.old_values)
    groups = {name: number for number, name in enumerate(shape.columns, 1)}
    identity = change.old_shape if change.op == UPDATE else None
    repeated: list[int] = []
    if identity is not None:
        if len(identity.columns) == len(values) > 1 or not all(name in groups for name in identity.columns):
            return None
        repeated = [groups[name] for name in identity.columns]
        if any(old is None or old != values[group - 1] for group, old in zip(repeated, change.old_values, strict=True)):
            return None
    patterns = [_VALUE] * len(values) + [b"(?:\\%d)" % group + _REST for group in repeated]
    fields = list(_FIELD.finditer(text))
    if not values or len(groups) != len(values) or len(fields) != len(patterns):
        return None
    parts, position = [], 0
    for field, pattern in zip(fields, patterns, strict=True):
        parts += [re.escape(text[position : field.start(1)]), pattern]
        position = field.end(1)
    compiled = re.compile(b"".join([*parts, re.escape(text[position:])]))
    found = compiled.fullmatch(text)
    if found is None or t.cast(JsonShape, shape).values(found) != list(values):
        return None
    return compiled.fullmatch, Form(change.op, shape, identity)
