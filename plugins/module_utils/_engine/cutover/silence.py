# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The proof that nothing was committed on the source between the cutover's marker and its release, whoever may have been connected.

A second marker is written; when it has come through the walsender, everything that was committed between both has come too. The
spool is searched for changes between them. Records are not decoded: the plugins tell by their first bytes what they are, and before the
first marker whole blocks are passed over. Of test_decoding, which sends every table's changes, those of streamed tables count.
"""

from __future__ import annotations

import threading
import time
import typing as t
from pathlib import Path

from ..changes.spool import MESSAGE, Block, SpoolReader
from ..changes.testdecoding import tables_of
from ..errors import CutoverAborted, StreamError
from ..source.plugin import PluginChoice

POLL = 0.005

_KINDS = (b"I", b"U", b"D", b"T")


class _Heads(t.NamedTuple):
    """What the messages of a plugin begin with."""

    change: tuple[bytes, ...]
    begin: bytes
    commit: bytes


_HEADS = {
    "pgoutput": _Heads(_KINDS, b"B", b"C"),
    "test_decoding": _Heads((b"table ",), b"BEGIN", b"COMMIT"),
    "wal2json": _Heads(tuple(b'{"action":"%s"' % kind for kind in _KINDS), b'{"action":"B"', b'{"action":"C"'),
}


def changes_between(spool: Path, end_lsn: int, first: str, second: str, choice: PluginChoice, timeout: float, stop: threading.Event) -> int:
    """Rows changed (and tables truncated) by commits between the markers with the tokens ``first`` and ``second``.

    :param end_lsn: where the transaction of the first marker ends; nothing behind it was applied.
    :raises CutoverAborted: PGM5110 if the second marker has not come after ``timeout`` seconds, or ``stop`` is set: a worker whose service
        is gone must not outlive it by what is left of the pause.
    """
    deadline = time.monotonic() + timeout
    try:
        reader, begun = SpoolReader(spool, end_lsn - 1), False
        found = reader.next_block()
    except StreamError as exc:
        if exc.code != "PGM4011":
            raise
        reader, begun, found = SpoolReader(spool, None), True, None  # the segment of the first marker is applied and gone
    search = _Search(first.encode(), second.encode(), choice, begun)
    try:
        while True:
            if found is None:
                if stop.wait(POLL) or time.monotonic() > deadline:
                    raise CutoverAborted(
                        f"The second marker did not come within {timeout:g} seconds: nothing can be said of the time since the first.",
                        code="PGM5110",
                    )
            elif search.over(*found):
                return search.changes
            found = reader.next_block()
    finally:
        reader.close()


class _Search:
    """Counts the changes of whole transactions; one that was broken off comes again."""

    def __init__(self, first: bytes, second: bytes, choice: PluginChoice, begun: bool) -> None:
        self._first, self._second, self._heads, self._begun = first, second, _HEADS[choice.plugin], begun
        everything = choice.plugin != "test_decoding"
        self._streamed = None if everything else {(table.schema, table.name) for table in choice.streamed}
        self._open = 0
        self.changes = 0

    def over(self, block: Block, opens: bool) -> bool:
        """Take in a block; True once the second marker is found."""
        if opens:
            self._open = 0
        if not self._begun and self._first not in block.body:
            return False
        heads = self._heads
        for kind, dummy, payload in block.records():
            if kind != MESSAGE:
                continue
            if payload.startswith(heads.begin):
                self._open = 0
            elif not self._begun:
                self._begun = self._first in payload
            elif payload.startswith(heads.change):
                self._open += self._streamed is None or not self._streamed.isdisjoint(tables_of(payload))
            elif payload.startswith(heads.commit):
                self.changes += self._open
                self._open = 0
            elif self._second in payload:
                return True
        return False


def describe(changes: t.Sequence[int]) -> str:
    """In words for the report."""
    return "nothing committed since the marker" if not any(changes) else f"{sum(changes)} changes committed since the marker"
