# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What was copied of each table, kept on the runtime host: the ledger on the target knows rows and bytes, and goes with the migration.

Seconds are written down chunk by chunk, so that those of a run that was killed are not lost.
"""

from __future__ import annotations

import dataclasses
import json
import typing as t
from pathlib import Path

from ..migration.ledger import DoneChunk
from ..migration.paths import read_json, write_json
from ..postgres.lsn import format_lsn

JOURNAL = "copied.jsonl"
RESULT = "copied.json"

SHOWN = 100
"""Tables that :func:`read_account` names, the largest of a database; the file has them all."""


@dataclasses.dataclass(frozen=True)
class CopiedTable:
    """``bytes`` are those of the COPY stream, ``seconds`` those that relays were at work on it, together; None where a run was killed
    before it could write them down."""

    table: str
    rows: int
    bytes: int
    seconds: float | None
    rate: int | None
    format: str
    chunks: int


class Account:
    """The figures of one database's copy in its work folder.

    :param names: qualified name of each table to its label and COPY format.
    """

    def __init__(self, workdir: Path, names: t.Mapping[str, tuple[str, str]]) -> None:
        self._journal, self._result = workdir / JOURNAL, workdir / RESULT
        self._names = names

    def add(self, relation: str, chunk: int, start_lsn: int, seconds: float) -> None:
        """A chunk of ``relation`` (qualified) is committed."""
        with self._journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps([relation, chunk, format_lsn(start_lsn), round(seconds, 4)]) + "\n")

    def close(self, chunks: t.Iterable[DoneChunk]) -> list[CopiedTable]:
        """Write the result for all ``chunks`` of the ledger, the largest table first."""
        seconds = self._seconds()
        tables: dict[str, list[DoneChunk]] = {}
        for chunk in chunks:
            if chunk.relation in self._names:
                tables.setdefault(chunk.relation, []).append(chunk)
        copied = [self._table(relation, done, seconds) for relation, done in tables.items()]
        copied.sort(key=lambda item: (-item.bytes, item.table))
        write_json(self._result, [dataclasses.asdict(item) for item in copied])
        return copied

    def _table(self, relation: str, done: t.Sequence[DoneChunk], seconds: t.Mapping[tuple[str, int, str], float]) -> CopiedTable:
        label, format_ = self._names[relation]
        known = [seconds.get((relation, chunk.chunk, format_lsn(chunk.start_lsn))) for chunk in done]
        took = None if None in known else round(sum(value for value in known if value is not None), 3)
        size = sum(chunk.bytes for chunk in done)
        return CopiedTable(label, sum(c.rows for c in done), size, took, round(size / took) if took else None, format_, len(done))

    def _seconds(self) -> dict[tuple[str, int, str], float]:
        found: dict[tuple[str, int, str], float] = {}
        if self._journal.exists():
            for line in self._journal.read_text(encoding="utf-8").splitlines():
                try:
                    relation, chunk, start, took = json.loads(line)
                except ValueError:  # a line that a killed run did not finish
                    continue
                found[relation, chunk, start] = took
        return found


def read_account(workdir: Path) -> dict[str, t.Any] | None:
    """What :meth:`Account.close` wrote: ``count``, ``rows``, ``bytes`` of all tables, the :data:`SHOWN` largest as ``tables``, and the
    ``file`` that has them all; None before the copy is complete."""
    path = workdir / RESULT
    tables = read_json(path)
    if tables is None:
        return None
    totals = {key: sum(item[key] for item in tables) for key in ("rows", "bytes")}
    return {"count": len(tables), **totals, "tables": tables[:SHOWN], "file": str(path)}
