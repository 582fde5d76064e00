# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The spool: what the walsender sent, on disk, in the order in which it came (law 2).

A spool is a folder of segment files ``00000001.seg``, ``00000002.seg``... A segment begins with a header and holds blocks; a block has a
checksum and holds *frames* exactly as they came on the wire (CopyData, manual 55.7): the byte ``d``, an int32 length that counts itself
but not the ``d``, and what is either

- ``w`` (XLogData), int64 LSN, int64 end of WAL, int64 clock, and the output plugin's message, :data:`DATA_HEADER` bytes into the frame; or
- ``k`` (keepalive), int64 end of WAL, int64 clock, byte "reply at once": :data:`KEEPALIVE_SIZE` bytes in all.

Every segment begins outside of a transaction: what a reader holds of an unfinished one is forgotten at a segment's start (the receiver
begins a new segment whenever it connects). *Safe* is the position up to which everything is in the spool: the end of the last commit, or a
keepalive's position outside of a transaction. The source is asked to resume there.

One process writes (:mod:`.spool_writer`), one reads; the reader may be ahead of the ``fsync``, because it skips what its target has
already (law 3).
"""

from __future__ import annotations

import dataclasses
import os
import struct
import typing as t
import zlib
from pathlib import Path

from ..errors import StreamError
from ..postgres.lsn import format_lsn

SEGMENT_MAGIC = b"PGMSPL01"
SEGMENT = struct.Struct(">8sQI12x")
"""magic, position that the stream begins at, CRC-32 of these two."""

_BLOCK = struct.Struct(">4sHHIIIQI")
"""magic, flags, reserved, frames, length, stored length, safe LSN, CRC-32 of all before and of the stored bytes."""

BLOCK_MAGIC = b"PGMB"
FRAME = struct.Struct(">BIBQ16x")
"""The header of a data frame: :data:`COPY_DATA`, length, kind, LSN. Of a keepalive it gives the same, but reads past its end."""

DATA_HEADER = FRAME.size
"""Where in a data frame the message begins: 30."""

KEEPALIVE_SIZE = 23
COPY_DATA = 0x64  # 'd'
COMPRESSED = 1
OPEN = 2
"""Flag: a transaction is open at the end of the block."""

MESSAGE = 0x77  # 'w': a message of the output plugin
KEEPALIVE = 0x6B  # 'k': everything before its LSN has come
PADDING = bytes(DATA_HEADER)
"""Behind a block's body, so that :data:`FRAME` can be read of a keepalive that is last."""


@dataclasses.dataclass(frozen=True)
class Segment:
    """A segment file: its number, the position that its stream begins at, its size in bytes."""

    number: int
    path: Path
    start: int
    size: int


def segments(folder: Path) -> list[Segment]:
    """The segments of a spool in order; a last one whose header is torn is left out."""
    found = []
    for path in sorted(folder.glob("*.seg")):
        if path.stem.isdigit():
            try:
                with path.open("rb") as file:
                    head = file.read(SEGMENT.size)
                size = path.stat().st_size
            except FileNotFoundError:
                continue  # removed while we looked
            if head == segment_head(int.from_bytes(head[8:16], "big")):
                found.append(Segment(int(path.stem), path, SEGMENT.unpack(head)[1], size))
    return found


def segment_path(folder: Path, number: int) -> Path:
    """The file of a segment; the numbers have no gaps."""
    return folder / f"{number:08d}.seg"


def segment_head(start: int) -> bytes:
    """The header of a segment whose stream begins at ``start``."""
    return SEGMENT.pack(SEGMENT_MAGIC, start, zlib.crc32(SEGMENT_MAGIC + start.to_bytes(8, "big")))


def encode_block(body: bytes | memoryview, count: int, safe: int, *, open_: bool = False, compress: bool = False) -> bytes:
    """A block of the ``count`` frames in ``body``, after which ``safe`` is the safe position."""
    flags = OPEN if open_ else 0
    stored = bytes(body)
    if compress:
        stored, flags = zlib.compress(stored, 1), flags | COMPRESSED
    head = _BLOCK.pack(BLOCK_MAGIC, flags, 0, count, len(body), len(stored), safe, 0)[:-4]
    return head + zlib.crc32(stored, zlib.crc32(head)).to_bytes(4, "big") + stored


@dataclasses.dataclass(frozen=True)
class Block:
    """A block as read: see :data:`_BLOCK`; ``body`` holds the frames, ``size`` is that of the block in the file."""

    count: int
    safe: int
    open: bool
    body: bytes
    size: int

    def records(self) -> t.Iterator[tuple[int, int, bytes]]:
        """The frames in order, each as kind (:data:`MESSAGE` or :data:`KEEPALIVE`), LSN and message (empty for a keepalive).

        :raises StreamError: PGM4010 if they do not fill the block exactly.
        """
        body, position, size = self.body + PADDING, 0, len(self.body)
        for dummy in range(self.count):
            mark, length, kind, lsn = FRAME.unpack_from(body, min(position, size))
            begin, position = position + DATA_HEADER, position + 1 + length
            if mark != COPY_DATA or kind not in (MESSAGE, KEEPALIVE) or position > size:
                break
            yield kind, lsn, body[begin:position]
        if position != size:
            raise StreamError("A block of the spool does not consist of its frames.", code="PGM4010")


class Torn(Exception):
    """There is no whole block at this place (yet)."""


def read_block(file: t.BinaryIO, position: int) -> Block:
    """The block at ``position``.

    :raises Torn: if the file ends before it does, or its checksum is wrong.
    """
    head = os.pread(file.fileno(), _BLOCK.size, position)
    if len(head) < _BLOCK.size:
        raise Torn("short")
    magic, flags, dummy, count, length, stored_length, safe, crc = _BLOCK.unpack(head)
    if magic != BLOCK_MAGIC:
        raise Torn("magic")
    stored = os.pread(file.fileno(), stored_length, position + _BLOCK.size)
    if len(stored) < stored_length:
        raise Torn("short")
    if zlib.crc32(stored, zlib.crc32(head[:-4])) != crc:
        raise Torn("checksum")
    body = zlib.decompress(stored) if flags & COMPRESSED else stored
    if len(body) != length:
        raise Torn("length")
    return Block(count, safe, bool(flags & OPEN), body, _BLOCK.size + stored_length)


class SpoolReader:
    """The applier's end of the spool: the blocks from the segment that holds ``position`` on; from the first one if that is None.

    :raises StreamError: PGM4011 if the spool does not reach back to ``position``.
    """

    def __init__(self, folder: Path, position: int | None) -> None:
        self._folder = folder
        self._wanted = position
        self._file: t.BinaryIO | None = None
        self._number = 0
        self._at = 0

    def _open(self) -> bool:
        """Open the segment to read next; False if there is none yet."""
        if self._number:
            path, number = segment_path(self._folder, self._number + 1), self._number + 1
        else:
            found = segments(self._folder)
            wanted = found[0].start if found and self._wanted is None else self._wanted or 0
            found_before = [s for s in found if s.start <= wanted]
            if found and not found_before:
                raise StreamError(
                    f"The spool in {self._folder} begins at {format_lsn(found[0].start)}, but the target needs changes from"
                    f" {format_lsn(wanted)} on.",
                    code="PGM4011",
                    hint="The spool was lost or belongs to another slot: run the playbook cleanup and start again.",
                )
            if not found:
                return False
            first = found_before[-1] if self._wanted is not None else found[0]
            path, number = first.path, first.number
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return False
        if self._file:
            self._file.close()
        self._file, self._number, self._at = file, number, SEGMENT.size
        return True

    def next_block(self) -> tuple[Block, bool] | None:
        """The next block, and whether it begins a segment (whatever transaction was open is forgotten then); None if there is none yet.

        :raises StreamError: PGM4010 if a block is damaged that is not the last.
        """
        if self._file is None and not self._open():
            return None
        while True:
            file = t.cast(t.BinaryIO, self._file)
            first = self._at == SEGMENT.size
            try:
                block = read_block(file, self._at)
            except Torn as torn:
                number = self._number
                end = os.fstat(file.fileno()).st_size
                if not segment_path(self._folder, number + 1).exists():
                    return None
                try:  # the writer may have finished this segment between the two looks
                    block = read_block(file, self._at)
                except Torn:
                    if end > self._at and os.fstat(file.fileno()).st_size > self._at:
                        raise StreamError(
                            f"Segment {number:08d} of the spool is damaged at byte {self._at} ({torn}).",
                            code="PGM4010",
                            hint="Check the runtime host's disk; run the playbook cleanup and start again.",
                        ) from torn
                    if not self._open():
                        return None
                    continue
            self._at += block.size
            return block, first

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()
            self._file = None
