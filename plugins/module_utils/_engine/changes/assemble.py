# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Records of the spool into batches of whole source transactions.

A batch ends behind our own marker, so that the stream can be held there. A transaction's changes wait until its commit is read, so one
that was broken off leaves no trace. Only when it is larger than a batch it is handed out in pieces, each of which says whether more
follows.
"""

from __future__ import annotations

import typing as t
from collections import deque

from . import events as ev
from .batch import Batch
from .tables import TargetTables

CHANGE_COST = 250
"""What a change takes in memory besides its message (bytes): small changes must not make a batch large."""

MARKER, HEARTBEAT = "pgm.marker", "pgm.heartbeat"


class Assembler:
    """Feeds on records, gives batches.

    :param position: end LSN up to which the target has everything; transactions before it are skipped (exactly once).
    :param borders: end LSNs at which a batch has to end, ascending: what a part of the target has up to there.
    """

    def __init__(
        self, tables: TargetTables, decoder: ev.Decoder, position: int, batch_rows: int, batch_bytes: int, borders: t.Sequence[int] = ()
    ) -> None:
        self._borders = deque(borders)
        self._tables, self._decoder, self._position = tables, decoder, position
        self._batch_rows, self._batch_bytes = batch_rows, batch_bytes
        self._batch = Batch(tables)
        self._ready: deque[Batch] = deque()
        self._time: str | int = ""
        self._forget()

    def _forget(self) -> None:
        self._pending: list[t.Union[ev.Run, ev.Truncate]] = []
        self._rows = 0
        self._markers: list[str] = []
        self._bytes = 0
        self._commit_lsn = 0
        self._within = False
        self._skip = False
        self._pieces = False

    def begin_segment(self) -> None:
        """Whatever transaction was open has been broken off."""
        if self._pieces:
            broken = Batch(self._tables)
            broken.abort = True
            self._ready.append(broken)
        self._forget()

    def add(self, body: bytes, count: int) -> None:
        """Take in the ``count`` records of a block.

        :raises StreamError: if it cannot be read, or is of something that the target does not have.
        """
        for event in self._decoder.decode_block(body, count):
            if event[0] == ev.RUN:
                if not self._skip:
                    self._run(t.cast(ev.Run, event))
            else:
                self._event(t.cast(ev.Event, event))

    def _run(self, run: ev.Run) -> None:
        self._pending.append(run)
        self._rows += len(run.items)
        self._bytes += run.size + CHANGE_COST * len(run.items)
        if self._bytes >= self._batch_bytes or self._rows >= self._batch_rows:
            self._piece()

    def _event(self, event: ev.Event) -> None:
        """Anything but the change of a row."""
        op = event[0]
        if op == ev.BEGIN:
            self._forget()
            self._commit_lsn = t.cast(ev.Begin, event).commit_lsn
            self._reach(self._commit_lsn)
            self._within = True
            self._skip = self._commit_lsn < self._position
        elif op == ev.COMMIT:
            self._commit(t.cast(ev.Commit, event))
        elif op == ev.KEEPALIVE:
            lsn = t.cast(ev.Notice, event).lsn
            if not self._within and lsn > self._position:
                self._reach(lsn)
                self._batch.end_lsn = self._position = lsn
        elif self._skip:  # it is on the target already
            return
        elif op == ev.TRUNCATE:
            self._truncate(t.cast(ev.Truncate, event))
        elif op == ev.LOGICAL_MESSAGE:
            message = t.cast(ev.LogicalMessage, event)
            if message.prefix == MARKER:
                (self._markers if self._within and message.transactional else self._batch.markers).append(message.content)

    def _truncate(self, event: ev.Truncate) -> None:
        """wal2json tells a TRUNCATE's relations one by one, all at the same LSN: they are one statement."""
        last = self._pending[-1] if self._pending else None
        if isinstance(last, ev.Truncate) and last.lsn == event.lsn:
            last.relations.extend(event.relations)
        else:
            self._pending.append(event)

    def _commit(self, commit: ev.Commit) -> None:
        if not self._skip:
            batch = self._batch
            batch.add(self._pending, self._commit_lsn)
            batch.markers.extend(self._markers)
            batch.bytes += self._bytes
            batch.transactions += 1
            batch.commit_lsn, batch.end_lsn, self._time = self._commit_lsn, commit.end_lsn, commit.time
            self._position = commit.end_lsn
            if self._markers or self._pieces or batch.rows >= self._batch_rows or batch.bytes >= self._batch_bytes:
                self.flush()
            self._reach(commit.end_lsn)
        self._forget()

    def _reach(self, lsn: int) -> None:
        """Everything before ``lsn`` has come: end the batch at the border that is not behind it."""
        while self._borders and lsn >= self._borders[0]:
            border = self._borders.popleft()
            self._batch.end_lsn = self._position = max(border, self._position)
            self.flush()

    def _piece(self) -> None:
        """The open transaction is larger than a batch: hand out what there is of it. TRUNCATE's relations stay together, because
        pieces end after changes of rows."""
        if not self._pieces:
            self.flush()
        batch = self._batch
        batch.add(self._pending, self._commit_lsn)
        batch.bytes += self._bytes
        batch.final = False
        self.flush()
        self._pending, self._rows, self._bytes, self._pieces = [], 0, 0, True

    def flush(self) -> None:
        """What is complete becomes a batch."""
        if self._batch:
            self._batch.commit_time = ev.time_text(self._time)
            self._ready.append(self._batch)
            self._batch = Batch(self._tables)

    @property
    def waiting(self) -> bool:
        """Is something complete that :meth:`flush` would hand out?"""
        return bool(self._batch) and not self._pieces

    def take(self) -> Batch | None:
        """The next batch that is ready."""
        return self._ready.popleft() if self._ready else None
