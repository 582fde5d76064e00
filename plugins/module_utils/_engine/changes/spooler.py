# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The thread that puts what was received into the spool, so that a slow or full disk never keeps the receiver from answering the source.

It begins segments, repeats pgoutput's descriptions of relations at their start, compresses where room is short, makes durable every
:data:`SYNC_INTERVAL` seconds, and waits where the spool or its disk is full.
"""

from __future__ import annotations

import errno
import threading
import time
import typing as t
from collections import deque
from pathlib import Path

from ..errors import StreamError
from ..spec import ChangeOptions
from .intake import Chunk
from .spool import encode_block
from .spool_writer import SpoolWriter

SYNC_INTERVAL = 0.05
"""Seconds between fsyncs while messages keep coming; what comes after a rest is made durable at once."""

TIDY_INTERVAL = 2.0
PAUSE = 0.2
QUEUE_BYTES = 4 << 20
"""So much waits for the disk in memory before the receiver reads no more."""

COMPRESS_ABOVE = 256 << 20
"""``spool_compression: auto`` compresses once the spool is so large (bytes): the target is far behind, room is short rather than CPU."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Stopped(Exception):
    """The thread was told to stop while it waited for room."""


class Spooler(threading.Thread):
    """The writer of one spool.

    :param start: the slot's confirmed position, where the stream begins if the spool is empty.
    :param woken: is called, in this thread, whenever something is durable or there is room again.
    :ivar durable: safe position of what is on the disk for good.
    :ivar written: safe position of what is written.
    :ivar size: bytes of the spool.
    :ivar paused: why nothing is written, or nothing.
    :ivar notice: what a user should know although nothing is paused, or nothing.
    :ivar error: what ended the thread.
    """

    def __init__(self, folder: Path, changes: ChangeOptions, start: int, woken: t.Callable[[], None]) -> None:
        super().__init__(name="spool", daemon=True)
        self._folder, self._changes, self._woken = folder, changes, woken
        self._writer = SpoolWriter(folder, changes.segment_bytes, start)
        self._queue: deque[Chunk | None] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._applied = 0
        self._waiting = 0
        self._is_open = self._described = False
        self._known: dict[bytes, bytes] = {}
        self._synced = self._tidied = 0.0
        self.durable = self.written = self._writer.durable
        self.size = self._writer.size
        self.paused = self.notice = ""
        self.error: BaseException | None = None

    def set_applied(self, lsn: int) -> None:
        """Segments that hold nothing after ``lsn`` may go. Any thread may call."""
        self._applied = max(self._applied, lsn)

    @property
    def idle(self) -> bool:
        """Has everything been written?"""
        return not self._waiting

    def put(self, chunk: Chunk) -> None:
        """Have it written."""
        with self._changed:
            self._queue.append(chunk)
            self._waiting += len(chunk.body)
            self._changed.notify_all()

    def wait_room(self, timeout: float) -> bool:
        """Wait until more can be put, at most ``timeout`` seconds; False if not."""
        with self._changed:
            return self._changed.wait_for(lambda: self._waiting < QUEUE_BYTES or self.error is not None, timeout)

    def begin(self, stop: threading.Event) -> None:
        """A new connection: have everything written and made durable, and a new segment begun. Returns early at ``stop``."""
        with self._changed:
            self._queue.append(None)
            self._waiting += 1
            self._changed.notify_all()
            while self._waiting and self.error is None and not stop.is_set():
                self._changed.wait(PAUSE)

    def close(self) -> None:
        """Write what there is, unless there is no room; end."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self.join()

    def run(self) -> None:
        """See :class:`threading.Thread`."""
        try:
            while self._step():
                pass
        except Stopped:
            pass
        except BaseException as exc:
            self.error = exc
        finally:
            try:
                self._writer.close()
            except OSError as exc:
                self.error = self.error or self._failed(exc)
            self._tell(0)

    def _step(self) -> bool:
        """Write one chunk, or wait for one for a while; False at the end."""
        with self._changed:
            if not self._queue:
                if self._closing:
                    return False
                due = self._synced + SYNC_INTERVAL - time.monotonic() if self._writer.dirty else PAUSE
                if due > 0:
                    self._changed.wait(due)
            found = bool(self._queue)
            chunk = self._queue.popleft() if found else None
        if chunk is not None:
            self._write(chunk)
        elif found:
            self._begin()
        now = time.monotonic()
        if self._writer.dirty and now - self._synced >= SYNC_INTERVAL:
            self._sync()
        if now - self._tidied >= TIDY_INTERVAL:
            self._tidied = now
            self._writer.remove_before(self._applied)
        if found or self.durable != self._writer.durable:
            self._tell(len(chunk.body) if chunk is not None else int(found))
        return True

    def _tell(self, done: int) -> None:
        """Say how far we are; ``done`` bytes of the queue are written."""
        writer = self._writer
        with self._changed:
            self._waiting -= done
            self.durable, self.written, self.size = writer.durable, writer.written_safe, writer.size
            self._changed.notify_all()
        self._woken()

    def _begin(self) -> None:
        """Whatever transaction was open is broken off."""
        self._sync()
        self._writer.begin_segment()
        self._known.clear()
        self._is_open = self._described = False

    def _write(self, chunk: Chunk) -> None:
        """Write it; where a new segment is due, that begins at the first place outside of a transaction."""
        size = len(chunk.body)
        if not self._writer.full and self._writer.size <= self._changes.spool_max_bytes:
            self._append(chunk, 0, size)
        elif not self._is_open:
            self._next_segment()
            self._append(chunk, 0, size)
        elif chunk.cut:
            self._append(chunk, 0, chunk.cut)
            self._next_segment()
            if chunk.cut < size:
                self._append(chunk, chunk.cut, size)
        else:
            self._append(chunk, 0, size)
            if self._writer.size > self._changes.spool_max_bytes:
                self.notice = (
                    f"The spool holds {self._writer.size} bytes, more than spool_max_bytes ({self._changes.spool_max_bytes}):"
                    " a single transaction of the source needs them."
                )

    def _append(self, chunk: Chunk, begin: int, end: int) -> None:
        """``chunk.body[begin:end]`` as a block; at the start of a segment after the descriptions that were known before."""
        if not self._described:
            self._patiently(self._describe)
        writer, mode = self._writer, self._changes.spool_compression
        count = (chunk.count if end > chunk.cut else chunk.cut_count) - (chunk.cut_count if begin else 0)
        safe = max(chunk.safe, writer.written_safe)  # a walsender that begins again tells where it reads, which is before it sends
        is_open = chunk.is_open and end > chunk.cut
        compress = mode == "always" or mode == "auto" and writer.size > COMPRESS_ABOVE
        block = encode_block(memoryview(chunk.body)[begin:end], count, safe, open_=is_open, compress=compress)
        self._patiently(lambda: writer.append(block, safe))
        self._is_open = is_open
        for description in chunk.descriptions:
            if begin < description.end <= end:
                self._known[description.key] = description.frame

    def _describe(self) -> None:
        """At the start of a segment: all descriptions that are known, so that reading can begin there.

        :raises OSError: if the disk is full.
        """
        self._writer.open_segment()
        if self._known:
            safe = self._writer.written_safe
            self._writer.append(encode_block(b"".join(self._known.values()), len(self._known), safe), safe)
        self._described = True

    def _next_segment(self) -> None:
        """Begin a new segment; above ``spool_max_bytes`` wait until the target has caught up, for only whole segments can go.

        A single transaction may exceed the limit: it can only go when the target has all of it.
        """
        writer, limit = self._writer, self._changes.spool_max_bytes
        self._sync()
        writer.begin_segment()
        self._described = False
        self.notice = ""
        if writer.size > limit:
            self._patiently(self._describe)
            while writer.remove_before(self._applied) >= 0 and writer.size > limit:
                self._pause(f"the spool holds {writer.size} bytes; its limit is {limit}", PAUSE)
            self.paused = ""

    def _sync(self) -> None:
        try:
            self._writer.sync()
        except OSError as exc:
            raise self._failed(exc) from exc
        self._synced = time.monotonic()

    def _patiently(self, write: t.Callable[[], None]) -> None:
        """Write; a full disk pauses the stream and is said, until there is room.

        :raises StreamError: PGM4012 if the disk fails otherwise.
        """
        while True:
            try:
                write()
                break
            except OSError as exc:
                if exc.errno not in NO_ROOM:
                    raise self._failed(exc) from exc
            self._writer.remove_before(self._applied)
            whole = ", which a single transaction of the source needs" if self._is_open else ""
            self._pause(f"no room on the disk of {self._folder}{whole}", 1.0)
        self.paused = ""

    def _pause(self, why: str, seconds: float) -> None:
        """Say why nothing is written and wait.

        :raises Stopped: at the end.
        """
        self.paused = why
        self._tell(0)
        with self._changed:
            if self._closing or self._changed.wait_for(lambda: self._closing, seconds):
                raise Stopped

    def _failed(self, exc: OSError) -> StreamError:
        hint = "Check the runtime host's disk."
        return StreamError(f"The spool in {self._folder} cannot be written: {exc}", code="PGM4012", hint=hint)
