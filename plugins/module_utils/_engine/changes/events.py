# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What the decoders make of the plugins' messages: the same few things for all.

A :class:`Change` is ``(op, lsn, shape, values, old_shape, old_values)``. Values are the bytes that PostgreSQL wrote as text, or None for
NULL; nothing is ever made of them. A :class:`Shape` is a relation with the columns that are present in a row: unchanged TOAST columns are
not. ``old_shape`` and ``old_values`` are what identifies the row: the replica identity, or None where the new row holds it.

The common changes are not taken apart at once: most versions of a row are replaced by a later one before anybody needs their columns.
They are pairs of a :class:`Form`, which says what all such messages have in common, and a *raw* row, which only its shape can read.
A :class:`Run` holds the changes that came one after the other, and can tell them all again as :class:`Change`.
"""

from __future__ import annotations

import datetime
import typing as t

from ..errors import StreamError
from .spool import KEEPALIVE as KEEPALIVE_FRAME

BEGIN, COMMIT, INSERT, UPDATE, DELETE, TRUNCATE, LOGICAL_MESSAGE, RUN = "B", "C", "I", "U", "D", "T", "M", "N"
KEEPALIVE = "K"

Values = t.Sequence["bytes | None"]
Raw = t.Any
"""A row as its plugin wrote it; see :class:`Shape`."""

Key = t.Any
"""The text of a key: of its column, or a tuple of them."""


class Shape:
    """Columns of a relation that are present in rows; one object for each combination, so that it can be a cheap key.

    ``identity`` is the relation's replica identity where the plugin tells it (``d n f i``), else empty. ``sparse``: the rows are whole, and
    the columns that are not among ``columns`` are NULL. The decoders' own shapes can read raw rows; one made by hand cannot.
    """

    __slots__ = ("schema", "name", "columns", "identity", "sparse", "binding")

    def __init__(self, schema: str, name: str, columns: tuple[str, ...], identity: str = "", *, sparse: bool = False) -> None:
        self.schema = schema
        self.name = name
        self.columns = columns
        self.identity = identity
        self.sparse = sparse
        self.binding: t.Any = None

    @property
    def label(self) -> str:
        """``schema.table`` for people."""
        return f"{self.schema}.{self.name}"

    def values(self, raw: Raw) -> Values:
        """The values of a raw row.

        :raises StreamError: PGM4020 if it cannot be read.
        """
        raise NotImplementedError

    def keys(self, raws: t.Sequence[Raw], indexes: tuple[int, ...]) -> list[Key]:
        """The values of the columns number ``indexes`` of each of the rows: alone if there is one, else in a tuple."""
        raise NotImplementedError

    def marked(self, raws: t.Sequence[Raw]) -> bytes:
        """All values of all rows as :func:`.statements.copy_of` wants them."""
        raise NotImplementedError


class Form:
    """What changes have in common that can be taken together: their kind and their shape. An UPDATE keeps its row's key; of a DELETE the
    shape is that of the old row, of the others that of the new one."""

    __slots__ = ("op", "shape", "identity")

    def __init__(self, op: str, shape: Shape, identity: Shape | None = None) -> None:
        self.op = op
        self.shape = shape
        self.identity = identity
        """The shape of the old row, where the message holds one that is equal to the new row."""

    def change(self, raw: Raw) -> Change:
        """The change that a raw row means, but for its LSN."""
        values = self.shape.values(raw)
        if self.op == DELETE:
            return Change(DELETE, 0, self.shape, (), self.shape, values)
        if self.identity is None:
            return Change(self.op, 0, self.shape, values, None, ())
        present = dict(zip(self.shape.columns, values, strict=True))
        return Change(self.op, 0, self.shape, values, self.identity, [present[name] for name in self.identity.columns])


class Begin(t.NamedTuple):
    """A transaction begins whose commit record starts at ``commit_lsn``, or, where only its end is known, has its last byte there: no
    position that a LSN is compared with lies between the two."""

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
    """Not from the plugin: :data:`KEEPALIVE`, everything before ``lsn`` has come."""

    op: str
    lsn: int


def notice(kind: int, lsn: int) -> Notice:
    """What a frame of the spool means that is no message of the plugin.

    :raises StreamError: PGM4010 if there is no such kind.
    """
    if kind != KEEPALIVE_FRAME:
        raise StreamError(f"A frame of the spool has the unknown kind {kind:#x}.", code="PGM4010")
    return Notice(KEEPALIVE, lsn)


Event = t.Union[Begin, Commit, Change, Truncate, LogicalMessage, Notice]

Item = t.Tuple["Form | None", t.Any]
"""One change of a run: form and raw row, or None and a :class:`Change`."""


class Run(t.NamedTuple):
    """Changes of one transaction that came one after the other; ``size`` is that of their messages in bytes."""

    op: str
    items: list[Item]
    size: int
    again: t.Callable[[], list[Change]]
    """Tells the same changes once more, each by itself and with its LSN: for a batch that failed as a set."""


class Decoder(t.Protocol):
    """What all decoders offer."""

    bare_bytea: bool

    def decode(self, lsn: int, payload: bytes) -> Event | None:
        """The event that a message means; None if it means none by itself."""

    def decode_block(self, body: bytes, count: int) -> list[Event | Run]:
        """What the ``count`` records of a block of the spool mean, in order: as :meth:`decode`, but the changes come in runs.

        :raises StreamError: PGM4010 if the records do not fill the block, PGM4020 if a message cannot be read.
        """
