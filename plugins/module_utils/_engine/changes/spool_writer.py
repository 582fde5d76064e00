# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The receiver's end of the spool (:mod:`.spool`): append, make durable, remove what is applied."""

from __future__ import annotations

import os
import typing as t
from collections import deque
from pathlib import Path

from .spool import SEGMENT, Segment, Torn, read_block, segment_head, segment_path, segments


class SpoolWriter:
    """Writes the segments of one spool. Nothing is safe before :meth:`sync`.

    :param start: where the stream begins if the spool is empty: the slot's consistent point (an LSN).
    :ivar size: size of all segments in bytes.
    :ivar written_safe: the safe position behind what is written; ``durable`` is that of what is on the disk for good.
    """

    def __init__(self, folder: Path, segment_bytes: int, start: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._file: t.BinaryIO | None = None
        self._length = 0
        self.dirty = False
        self.number, self.written_safe = self._recover(start)
        self.durable = self.written_safe
        self._kept: deque[Segment] = deque(segments(folder))
        self.size = sum(s.size for s in self._kept)

    def _recover(self, start: int) -> tuple[int, int]:
        """Cut the torn tail of the last segment; its number and the safe position at its end."""
        whole = {s.path for s in segments(self._folder)}
        for path in sorted(self._folder.glob("*.seg"), reverse=True):
            if path not in whole:
                path.unlink()  # not even its header was written
                continue
            with path.open("r+b") as file:
                safe = int(SEGMENT.unpack(file.read(SEGMENT.size))[1])
                position = SEGMENT.size
                try:
                    while True:
                        block = read_block(file, position)
                        position, safe = position + block.size, block.safe
                except Torn:
                    file.truncate(position)
                    os.fsync(file.fileno())
            return int(path.stem), safe
        return 0, start

    @property
    def full(self) -> bool:
        """Has the present segment reached its size?"""
        return self._length >= self._segment_bytes

    def begin_segment(self) -> None:
        """Close the present segment; the next block begins a new one. Only outside of a transaction, or when it was broken off."""
        if self._file:
            self.sync()
            self._file.close()
        self._file, self._length = None, 0

    def open_segment(self) -> None:
        """Begin the segment now, so that the one before can go when it is applied.

        :raises OSError: if the disk is full; the spool is as before then.
        """
        if self._file is None:
            self._create()

    def append(self, block: bytes, safe: int) -> None:
        """Write a block of :func:`.spool.encode_block`, after which ``safe`` is the safe position.

        :raises OSError: if the disk is full; the spool is as before then.
        """
        if self._file is None:
            self._create()
        file = t.cast(t.BinaryIO, self._file)
        try:
            view = memoryview(block)
            done = 0
            while done < len(view):
                done += os.pwrite(file.fileno(), view[done:], self._length + done)
        except OSError:
            os.ftruncate(file.fileno(), self._length)
            raise
        self._length += len(block)
        self.size += len(block)
        self.written_safe = safe
        self.dirty = True

    def _create(self) -> None:
        path = segment_path(self._folder, self.number + 1)
        file = path.open("wb", buffering=0)
        try:
            file.write(segment_head(self.written_safe))
            os.fsync(file.fileno())
            sync_folder(self._folder)
        except OSError:
            file.close()
            path.unlink(missing_ok=True)
            raise
        self._file, self._length = t.cast(t.BinaryIO, file), SEGMENT.size
        self.size += SEGMENT.size
        self.number += 1
        self._kept.append(Segment(self.number, path, self.written_safe, 0))

    def sync(self) -> int:
        """Make everything written durable; the safe position that may be acknowledged."""
        if self.dirty and self._file:
            os.fdatasync(self._file.fileno())
        self.dirty = False
        self.durable = self.written_safe
        return self.durable

    def remove_before(self, applied: int) -> int:
        """Remove the segments that hold nothing after ``applied``; how many went (law 4). It costs next to nothing if none can go."""
        gone = 0
        while len(self._kept) > 1 and self._kept[1].start <= applied:
            segment = self._kept.popleft()
            self.size -= segment.path.stat().st_size
            segment.path.unlink()
            gone += 1
        return gone

    def close(self) -> None:
        """Sync and close."""
        if self._file:
            self.sync()
            self._file.close()
            self._file = None


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
