# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Where transactions end, for the plugin whose BEGIN does not say it (test_decoding): the spool is read ahead up to their COMMIT.

What is on the target already and which tables a transaction is for is decided by where it ends, before its first change is applied. So
a block is given out when the ends of all transactions that begin in it are known. A walsender sends a transaction after its commit: to wait
for the COMMIT costs the time of the transfer, and no memory, for the block is read again.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path

from .spool import MESSAGE, Block, SpoolReader

BEGIN_WORD, COMMIT_WORD = b"BEGIN", b"COMMIT"

BROKEN = -1
"""The end of a transaction that was broken off; it is before every position."""


class EndsReader:
    """As :class:`.spool.SpoolReader`, and puts the ends of each block's transactions into ``ends``."""

    def __init__(self, folder: Path, position: int | None, ends: deque[int]) -> None:
        self._ends = ends
        self._reader, self._ahead = SpoolReader(folder, position), SpoolReader(folder, position)
        self._begun: deque[int] = deque()
        """How many transactions begin in each block that was looked at and not given out."""
        self._known: deque[int] = deque()
        """Their ends, as far as known."""
        self._open = False

    def next_block(self) -> tuple[Block, bool] | None:
        """See :meth:`.spool.SpoolReader.next_block`."""
        while not self._begun or len(self._known) < self._begun[0]:
            found = self._ahead.next_block()
            if found is None:
                return None
            self._look(*found)
        block = self._reader.next_block()
        if block is not None:
            self._ends.extend([self._known.popleft() for dummy in range(self._begun.popleft())])
        return block

    def _look(self, block: Block, first: bool) -> None:
        if first and self._open:
            self._end(BROKEN)
        begun = 0
        if BEGIN_WORD in block.body or COMMIT_WORD in block.body:  # in the middle of a large transaction there is neither
            for kind, lsn, payload in block.records():
                if kind != MESSAGE:
                    continue
                if payload.startswith(BEGIN_WORD):
                    begun += 1
                    self._open = True
                elif payload.startswith(COMMIT_WORD) and self._open:
                    self._end(lsn)
        self._begun.append(begun)

    def _end(self, lsn: int) -> None:
        self._known.append(lsn)
        self._open = False

    def close(self) -> None:
        """Close the files."""
        self._reader.close()
        self._ahead.close()
