# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Statements that do not wait for each other's answers: one round trip for many, and yet every answer is read (law 5)."""

from __future__ import annotations

import contextlib
import typing as t

from ..postgres.drivers import psycopg
from .tables import TargetTable

WAITING = 200
"""Statements sent before their answers are read."""


class RawText(bytes):
    """A parameter as the server shall read it."""


class Mismatch(Exception):
    """A statement did not hit exactly the rows it should (law 5)."""

    def __init__(self, table: TargetTable, kind: str, wanted: int, hit: int) -> None:
        super().__init__(f"{kind} of {wanted} rows of {table.label} hit {hit}")
        self.table, self.kind, self.wanted, self.hit = table, kind, wanted, hit


if psycopg is not None:

    class _RawTextDumper(psycopg.adapt.Dumper):
        oid = 0

        def dump(self, obj: t.Any) -> bytes:
            return bytes(obj)


class Sent(t.NamedTuple):
    """A statement; ``refused(hit)`` is the error if it does not hit ``wanted`` rows; ``cause`` is whose statement it is."""

    statement: str
    parameters: t.Sequence[RawText | None]
    wanted: int | None
    refused: t.Callable[[int], Exception]
    cause: t.Any


def _no_refusal(hit: int) -> Exception:
    return RuntimeError(f"hit {hit}")


class Pipe:
    """Sends statements on ``conn`` in order, in libpq's pipeline mode where there is one (client version 14).

    ``cause`` is remembered with each statement sent; ``failed`` is that of the one that was refused last. ``trips`` counts the times that
    an answer was waited for.
    """

    def __init__(self, conn: psycopg.Connection[t.Any]) -> None:
        conn.adapters.register_dumper(RawText, _RawTextDumper)
        # psycopg would take for prepared what the server skipped behind an error
        conn.prepare_threshold = None
        self._conn = conn
        self._waiting: list[Sent] = []
        self._pipelines = psycopg.Pipeline.is_supported()
        self.cause: t.Any = None
        self.failed: t.Any = None
        self.trips = 0

    def send(
        self,
        statement: str,
        parameters: t.Sequence[RawText | None] = (),
        wanted: int | None = None,
        refused: t.Callable[[int], Exception] = _no_refusal,
    ) -> None:
        """Queue a statement; parameters are ``$1``, ``$2``..., read by the server.

        :raises Exception: what :meth:`flush` raises, if there are enough of them to go.
        """
        self._waiting.append(Sent(statement, parameters, wanted, refused, self.cause))
        if len(self._waiting) >= WAITING:
            self.flush()

    def flush(self) -> None:
        """Send what is queued and read all answers.

        :raises psycopg.Error: of the first statement that the server refused.
        :raises Exception: ``refused`` of the first one that hit another number of rows.
        """
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        cursors = [psycopg.RawCursor(self._conn) for dummy in waiting]
        self.trips += 1
        error = self._exchange(waiting, cursors)
        for sent, cursor in zip(waiting, cursors, strict=True):
            if error is not None and cursor.pgresult is None:
                self.failed = sent.cause
                raise error
            if sent.wanted is not None and cursor.rowcount != sent.wanted:
                self.failed = sent.cause
                raise sent.refused(cursor.rowcount)
        if error is not None:
            raise error

    def _exchange(self, waiting: list[Sent], cursors: list[psycopg.RawCursor[t.Any]]) -> psycopg.Error | None:
        """Execute; the first error."""
        together = self._pipelines and len(waiting) > 1
        error: psycopg.Error | None = None
        with self._conn.pipeline() if together else contextlib.nullcontext() as pipeline:
            try:
                for sent, cursor in zip(waiting, cursors, strict=True):
                    cursor.execute(t.cast(t.Any, sent.statement), sent.parameters or None)
                if pipeline is not None:
                    pipeline.sync()
            except psycopg.Error as exc:
                error = exc
                if pipeline is not None:  # read the answers of those behind, which the server has skipped
                    with contextlib.suppress(psycopg.Error):
                        pipeline.sync()
        return error

    def rewind(self, statement: str) -> None:
        """ROLLBACK, or ROLLBACK TO, at once: what is queued is dropped."""
        self._waiting = []
        self.trips += 1
        self._conn.execute(statement.encode())

    def forget(self) -> None:
        """Drop what is queued: its transaction is given up."""
        self._waiting = []

    def copy(self, statement: str, data: bytes) -> int:
        """A COPY FROM STDIN behind all that is queued; how many rows it took."""
        self.flush()
        self.trips += 2
        with self._conn.cursor() as cursor:
            with cursor.copy(t.cast(t.Any, statement)) as copy:
                copy.write(data)
            return cursor.rowcount
