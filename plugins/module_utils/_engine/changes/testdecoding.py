# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""test_decoding, the example plugin of PostgreSQL's contrib, which every server has and which needs neither a library of others nor a
publication: one line of text a message (contrib/test_decoding/test_decoding.c; the same from 9.4 on but for what is said here).

It knows nothing of publications and has no filter: what is not on the list of streamed tables is passed over here. Old rows are written
without their NULLs, so it matters whether one is a key or a whole row: the list says that too. BEGIN does not say where its transaction
ends: :mod:`.ends` looks ahead. Rows of tables WITH OIDS (before 12) begin with a column ``oid`` that no other table can have there.
Messages came with 9.6, TRUNCATE with 11.
"""

from __future__ import annotations

import functools
import re
import typing as t
from collections import deque

from ..errors import StreamError
from ..postgres.lsn import format_lsn
from ..source.plugin import Streamed
from .ends import BEGIN_WORD, BROKEN, COMMIT_WORD
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
    Truncate,
    notice,
)
from .spool import DATA_HEADER, FRAME, MESSAGE, PADDING
from .testdecoding_rows import IDENTIFIER, NOTHING, TEMPLATES, Part, Template, TextShape, Unreadable, make_template, rows_of, unquoted

_NAME = IDENTIFIER + rb"\." + IDENTIFIER
_TABLE = re.compile(rb"table (" + _NAME + rb"(?:, " + _NAME + rb")*): (INSERT|UPDATE|DELETE|TRUNCATE):")
_NAMES = re.compile(rb"(" + IDENTIFIER + rb")\.(" + IDENTIFIER + rb")")
_FLAGS = {
    b" (no-flags)": (False, False),
    b" restart_seqs": (True, False),
    b" cascade": (False, True),
    b" restart_seqs cascade": (True, True),
}
_BEGIN = re.compile(BEGIN_WORD + rb"(?: [0-9]+)?")
_COMMIT = re.compile(COMMIT_WORD + rb"(?: [0-9]+)?(?: \(at ([0-9 :.+-]+)\))?")
_SAID = re.compile(rb"message: transactional: ([01]) prefix: (.*?), sz: ([0-9]+) content:", re.DOTALL)
_OPERATIONS = {b"INSERT": INSERT, b"UPDATE": UPDATE, b"DELETE": DELETE, b"TRUNCATE": TRUNCATE}
_T, _ROW_WORD = 0x74, b": "
"""The first byte of a table's message, and what follows the names; in a name in quotes it may be found too. Then the rest of the name is
part of the template."""

_HEAD_MORE = len(_ROW_WORD) + 1
"""A message's head goes on to the first letter of what was done."""

_NO_TABLE = re.compile(rb'[^"]*(?:"[^"]*"[^"]*)*')
"""Matches a head wholly in which no name in quotes is open."""


def tables_of(payload: bytes) -> list[tuple[str, str]]:
    """Schema and name of the tables that a message is of; none if it is of none."""
    found = _TABLE.match(payload)
    return [] if found is None else [(unquoted(schema), unquoted(name)) for schema, name in _NAMES.findall(found[1])]


class TextDecoder:
    """Decodes test_decoding's messages.

    :param tables: those that are streamed.
    :ivar ends: the end LSNs of the transactions whose BEGIN is decoded next, in order.
    """

    bare_bytea = False

    def __init__(self, tables: t.Iterable[Streamed]) -> None:
        self.ends: deque[int] = deque()
        self._tables = {(table.schema, table.name): table for table in tables}
        self._shapes: dict[tuple[t.Any, ...], TextShape] = {}
        self._templates: dict[bytes, list[Template]] = {}
        """By the message's head. None of a table that is not streamed."""
        self._others: set[bytes] = set()
        """Heads of messages of tables that are not streamed."""

    def decode(self, lsn: int, payload: bytes) -> Event | None:
        """See :class:`.events.Decoder`; None for tables that are not streamed.

        :raises StreamError: PGM4020 if the message cannot be read, PGM4023 if it does not say which row was changed.
        """
        if payload.startswith(b"table "):
            found = self._of_table(lsn, payload)
            return found[0] if found else None
        if _BEGIN.fullmatch(payload):
            if not self.ends:
                raise _unreadable(lsn, payload, "nothing is known of the end of its transaction")
            end = self.ends.popleft()
            return Begin(BEGIN, end - 1 if end != BROKEN else end)
        ended = _COMMIT.fullmatch(payload)
        if ended:
            return Commit(COMMIT, lsn, (ended[1] or b"").decode())
        said = _SAID.match(payload)
        while said is not None:
            content = payload[said.end() :]
            if int(said[3]) == len(content):
                prefix = said[2].decode("utf-8", "replace")
                return LogicalMessage(LOGICAL_MESSAGE, lsn, prefix, content.decode("utf-8", "replace"), said[1] == b"1")
            # the prefix holds the same words: a longer one is meant
            longer = re.compile(rb"message: transactional: ([01]) prefix: (.{%d,}?), sz: ([0-9]+) content:" % (len(said[2]) + 1), re.DOTALL)
            said = longer.match(payload)
        raise _unreadable(lsn, payload, "it is of no known kind")

    def decode_block(self, body: bytes, count: int) -> list[Event | Run]:
        """See :class:`.events.Decoder`."""
        size, unpack, find, templates, others = len(body), FRAME.unpack_from, body.find, self._templates, self._others
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
            event: Event | None
            if kind != MESSAGE:
                event = notice(kind, lsn)
            elif data[begin] != _T:
                event = self.decode(lsn, body[begin:position])
            else:
                head_at = find(_ROW_WORD, begin, position) + _HEAD_MORE
                head = body[begin:head_at]
                if head in others:
                    continue
                for template in templates.get(head, ()):
                    found = template.match(body, head_at, position)
                    if found is not None:
                        form = template.form
                        add((form, found) if form is not None else (None, template.change(lsn, found)))
                        break
                else:
                    event = self._by_hand(lsn, body[begin:position], head)
                    if isinstance(event, Change):
                        add((None, event))
                    elif event is not None:
                        if items:
                            events.append(Run(RUN, items, start - run_at, functools.partial(self._told_again, body, run_at, start)))
                            items = []
                            add = items.append
                        run_at = position
                        events.append(event)
                continue
            if items:
                events.append(Run(RUN, items, start - run_at, functools.partial(self._told_again, body, run_at, start)))
                items = []
                add = items.append
            run_at = position
            if event is not None:
                events.append(event)
        if position != size or frames != count:
            raise StreamError("A block of the spool is longer than its frames.", code="PGM4010")
        if items:
            events.append(Run(RUN, items, size - run_at, functools.partial(self._told_again, body, run_at, size)))
        return events

    def _by_hand(self, lsn: int, payload: bytes, head: bytes) -> Event | None:
        """A table's message that matches no template (yet)."""
        found = self._of_table(lsn, payload)
        if found is None:
            if not head.endswith(b"T") and _NO_TABLE.fullmatch(head):
                self._others.add(head)
            return None
        event, rows_at, old, new = found
        if not isinstance(event, Change) or self._tables[event.shape.schema, event.shape.name].oids:
            return event  # an OID is no value, and the text of a template would hold it
        places = [place for part in (old, new) if part is not None for place in part.places]
        old_shape, new_shape = (event.old_shape if old else None), (event.shape if new else None)
        templates = self._templates.setdefault(head, [])
        cut = len(head) - rows_at
        if places and len(templates) < TEMPLATES and not any(made.like(event.op, old_shape, new_shape) for made in templates):
            shifted = [(begin - cut, end - cut) for begin, end in places]
            templates.append(
                make_template(
                    payload[len(head) :], shifted, event.op, t.cast("TextShape | None", old_shape), t.cast("TextShape | None", new_shape)
                )
            )
        return event

    def _told_again(self, body: bytes, begin: int, end: int) -> list[Change]:
        """The changes in ``body[begin:end]``, which have been read before."""
        changes = []
        while begin < end:
            dummy, length, dummy2, lsn = FRAME.unpack_from(body, begin)
            first = begin + DATA_HEADER
            begin += length + 1
            event = self.decode(lsn, body[first:begin])
            if event is not None:
                changes.append(t.cast(Change, event))
        return changes

    def _of_table(self, lsn: int, payload: bytes) -> tuple[Event, int, Part | None, Part | None] | None:
        """What a table's message means, where its rows begin, and the old and the new one; None if the table is not streamed."""
        found = _TABLE.match(payload)
        if found is None:
            raise _unreadable(lsn, payload, "it names no table")
        names = [name for name in tables_of(payload) if name in self._tables]
        if not names:
            return None
        op, rows = _OPERATIONS[found[2]], payload[found.end() :]
        if op == TRUNCATE:
            if rows not in _FLAGS:
                raise _unreadable(lsn, payload, "TRUNCATE has unknown flags")
            return Truncate(TRUNCATE, lsn, names, *_FLAGS[rows]), found.end(), None, None
        table = self._tables[names[0]]
        if rows.endswith(NOTHING) and rows in (NOTHING, b" old-key:" + NOTHING):
            raise StreamError(
                f"A change of {table.label} at {format_lsn(lsn)} does not say which row it changed.",
                code="PGM4023",
                hint="Give the table a replica identity.",
                details={"table": table.label},
            )
        try:
            old, new = rows_of(rows, op)
        except Unreadable as exc:
            raise _unreadable(lsn, payload, str(exc)) from exc
        if table.oids:
            old, new = _without_oid(old), _without_oid(new)
        return self._change(lsn, op, table, old, new), found.end(), old, new

    def _change(self, lsn: int, op: str, table: Streamed, old: Part | None, new: Part | None) -> Change:
        old_shape = None if old is None else self._shape(table, old.columns, sparse=table.whole)
        if new is None:
            gone = t.cast(Part, old)
            return Change(op, lsn, t.cast(TextShape, old_shape), (), old_shape, gone.values)
        return Change(op, lsn, self._shape(table, new.columns), new.values, old_shape, () if old is None else old.values)

    def _shape(self, table: Streamed, columns: tuple[str, ...], *, sparse: bool = False) -> TextShape:
        key = (table.schema, table.name, columns, sparse)
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._shapes[key] = TextShape(table.schema, table.name, columns, sparse=sparse)
        return shape


def _without_oid(part: Part | None) -> Part | None:
    """A row without the system column that it begins with."""
    if part is None or part.columns[:1] != ("oid",):
        return part
    return Part(part.columns[1:], part.values[1:], part.places[1:], part.end)


def _unreadable(lsn: int, payload: bytes, why: str) -> StreamError:
    return StreamError(f"A message of test_decoding ({payload[:60]!r}) at {format_lsn(lsn)} cannot be read: {why}.", code="PGM4020")
