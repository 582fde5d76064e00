# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What the decoders make of the plugins' messages: the same few tuples for both.

A change is ``(op, lsn, shape, values, old_shape, old_values)``. Values are text exactly as PostgreSQL writes it, or None for NULL; a
decoder's ``codec`` turns them into the bytes that go to the target. A :class:`Shape` is a relation with the columns that are present in a
row: unchanged TOAST columns are not. ``old_shape`` and ``old_values`` are what identifies the row: the replica identity, or None where
the new row holds it.
"""

from __future__ import annotations

import datetime
import functools
import typing as t

BEGIN, COMMIT, INSERT, UPDATE, DELETE, TRUNCATE, LOGICAL_MESSAGE = "B", "C", "I", "U", "D", "T", "M"
KEEPALIVE, RESET = "K", "R"

Values = t.Sequence["str | None"]


class Shape:
    """Columns of a relation that are present in rows; one object for each combination, so that it can be a cheap key.

    ``identity`` is the relation's replica identity where the plugin tells it (``d n f i``), else empty.
    """

    __slots__ = ("schema", "name", "columns", "identity", "binding")

    def __init__(self, schema: str, name: str, columns: tuple[str, ...], identity: str = "") -> None:
        self.schema = schema
        self.name = name
        self.columns = columns
        self.identity = identity
        self.binding: t.Any = None

    @property
    def label(self) -> str:
        """``schema.table`` for people."""
        return f"{self.schema}.{self.name}"


class Begin(t.NamedTuple):
    """A transaction begins whose commit record starts at ``commit_lsn``."""

    op: str
    commit_lsn: int


class Commit(t.NamedTuple):
    """It ends at ``end_lsn``; see :func:`time_text` for ``time``."""

    op: str
    end_lsn: int
    time: str | int


_EPOCH = datetime.datetime(2000, 1, 1, tzinfo=datetime.timezone.utc)


def time_text(time: str | int) -> str:
    """A commit's time as the text of a timestamp with zone; pgoutput tells microseconds since PostgreSQL's epoch."""
    return time if isinstance(time, str) else (_EPOCH + datetime.timedelta(microseconds=time)).isoformat(sep=" ")


class Change(t.NamedTuple):
    """INSERT, UPDATE or DELETE of one row."""

    op: str
    lsn: int
    shape: Shape
    values: Values
    old_shape: Shape | None
    old_values: Values


make_change: t.Callable[[tuple[t.Any, ...]], Change] = functools.partial(t.cast(t.Any, tuple.__new__), Change)
"""A :class:`Change` of a tuple of its fields, without the price of a call of Python's."""


class Truncate(t.NamedTuple):
    """One TRUNCATE statement with all its relations (law 6)."""

    op: str
    lsn: int
    relations: list[tuple[str, str]]
    restart_identity: bool
    cascade: bool


class LogicalMessage(t.NamedTuple):
    """``pg_logical_emit_message``."""

    op: str
    lsn: int
    prefix: str
    content: str
    transactional: bool


class Notice(t.NamedTuple):
    """Not from the plugin: :data:`KEEPALIVE`, everything before ``lsn`` has come; :data:`RESET`, what is open was broken off."""

    op: str
    lsn: int


Event = t.Union[Begin, Commit, Change, Truncate, LogicalMessage, Notice]


class Decoder(t.Protocol):
    """What both decoders offer."""

    codec: str
    bare_bytea: bool

    def decode(self, lsn: int, payload: bytes) -> Event | None:
        """The event that a message means; None if it means none by itself."""

    def decode_block(self, body: bytes, count: int) -> list[Event]:
        """What the ``count`` records of a block of the spool mean, in order: as :meth:`decode`, at a fraction of its price.

        :raises StreamError: PGM4010 if the records do not fill the block, PGM4020 if a message cannot be read.
        """
