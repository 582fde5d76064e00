# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What the receiver has to know of the frames in its buffer: where the last whole one ends, and where transactions begin and end.

This is the only work that the receiver does for each message, so it is one loop with one ``unpack`` a message.
"""

from __future__ import annotations

import dataclasses
import struct
import typing as t

from ..errors import StreamError
from .spool import COPY_DATA, DATA_HEADER, KEEPALIVE, MESSAGE

BEGIN, COMMIT = 0x42, 0x43  # 'B', 'C' in all plugins
DESCRIPTIONS = (0x52, 0x59)  # 'R', 'Y': pgoutput's relations and types
HEADER = 5
"""Bytes of a protocol message before its content."""

_REPLY_AT = 22


class Description(t.NamedTuple):
    """pgoutput's description of a relation or type, in the frame that ends at ``end`` of its chunk."""

    end: int
    key: bytes
    frame: bytes


@dataclasses.dataclass
class Chunk:
    """Whole frames, and what is to be known of them.

    ``messages`` counts those of the plugin, ``count`` keepalives too. ``cut`` and ``cut_count`` are the length and the number of frames up
    to the last place outside of a transaction (0: there is none behind the beginning); ``safe`` is the safe position there (0: as before).
    ``reply``: the server wants feedback at once. ``foreign``: what follows is no frame.
    """

    body: bytes = b""
    count: int = 0
    messages: int = 0
    cut: int = 0
    cut_count: int = 0
    safe: int = 0
    is_open: bool = False
    reply: bool = False
    foreign: bool = False
    descriptions: list[Description] = dataclasses.field(default_factory=list)


class Scanner:
    """Takes chunks off the buffer of one connection, in order.

    :param kind_at: where in a message of the plugin the byte is that tells its kind.
    :param describes: the plugin is pgoutput.
    """

    def __init__(self, kind_at: int, *, describes: bool) -> None:
        self._head = struct.Struct(f">BIBQ16x{kind_at}xB")
        self._special = frozenset((BEGIN, COMMIT, *DESCRIPTIONS) if describes else (BEGIN, COMMIT))
        self._is_open = False

    def scan(self, buffer: bytearray, filled: int) -> Chunk:
        """The whole frames of ``buffer[:filled]``; behind that a few more bytes can be read (:data:`.walstream.SPARE`).

        :raises StreamError: PGM4005 if a frame is neither data nor a keepalive.
        """
        unpack, special, is_open = self._head.unpack_from, self._special, self._is_open
        chunk = Chunk()
        position = count = keepalives = 0
        last = filled - HEADER
        while position <= last:
            mark, length, kind, lsn, message = unpack(buffer, position)
            following = position + 1 + length
            if mark != COPY_DATA:
                chunk.foreign = True
                break
            if following > filled:
                break
            count += 1
            if kind == MESSAGE:
                if message in special:
                    if message == COMMIT:
                        is_open, chunk.cut, chunk.cut_count, chunk.safe = False, following, count, lsn
                    elif message == BEGIN:
                        is_open = True
                    else:
                        begin = position + DATA_HEADER
                        chunk.descriptions.append(
                            Description(following, bytes(buffer[begin : begin + 5]), bytes(buffer[position:following]))
                        )
            elif kind == KEEPALIVE:
                keepalives += 1
                chunk.reply = chunk.reply or buffer[position + _REPLY_AT] != 0
                if not is_open:
                    chunk.cut, chunk.cut_count, chunk.safe = following, count, max(lsn, chunk.safe)
            else:
                raise StreamError(f"The walsender sent an unknown message {chr(kind)!r}.", code="PGM4005", hint="See the source's log.")
            position = following
        self._is_open = chunk.is_open = is_open
        chunk.body, chunk.count, chunk.messages = bytes(memoryview(buffer)[:position]), count, count - keepalives
        return chunk
