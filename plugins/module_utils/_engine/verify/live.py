# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Verification while changes are streamed: the two sides are never at the same moment, so what differs is looked at again.

A row is judged by three reads: on the source, then on the target after everything that was committed before that first read has
been applied (:data:`Settle`), then on the source again. If the source's row version is the same both times, nobody has touched
the row in between, and the target must have exactly it: what is not equal then is wrong, and no load can make a false alarm. A row that was
touched is *in motion* and is read again in the next round.

A table without a key is judged as a whole in the same way, by its digest.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ..errors import VerificationFailed
from ..postgres.drivers import psycopg
from ..postgres.session import server_errors
from ..spec import MigrationSpec
from .canonical import choose_method
from .compare import Report, TableResult, VerifyResult, verify_database
from .differences import clip_pair
from .sides import Pair, Reading, Side, make_pair, make_reading

CANDIDATES = 5000
"""Rows of a table that are looked at again."""

ROUNDS = 8
Settle = t.Callable[[], None]
"""Returns when the target has everything that was committed on the source before the call."""

Key = t.Tuple["str | None", ...]


@dataclasses.dataclass(frozen=True)
class _Row:
    """``version`` changes with every write of the row; ``texts`` and ``canonical`` are the values of all columns."""

    version: str
    texts: list[str | None]
    canonical: list[str | None]


def verify_live(
    spec: MigrationSpec,
    database: str,
    settle: Settle,
    *,
    jobs: int = 2,
    report: Report | None = None,
    limit: int = 20,
    rounds: int = ROUNDS,
) -> VerifyResult:
    """Compare ``database`` on both sides while it is written to; see :func:`.compare.verify_database` for the parameters.

    Sequences and large objects are not judged: they come with the cutover. A table of which rows stayed in motion in every round is
    ``equal`` False and ``compared`` False, with a note.
    """
    settle()
    first = verify_database(spec, database, jobs=jobs, report=report, limit=CANDIDATES)
    doubtful = [table for table in first.tables if not table.equal]
    settled = {table.label: table for table in first.tables}
    if doubtful:
        with Side(spec.source, database) as source, Side(spec.target, database) as target:
            again = _Again(source, target, settle, limit, rounds)
            for table in doubtful:
                settled[table.label] = again.judge(table)
    tables = tuple(settled[table.label] for table in first.tables)
    return dataclasses.replace(first, tables=tables).before_cutover()


class _Again:
    """Looks again at what differed."""

    def __init__(self, source: Side, target: Side, settle: Settle, limit: int, rounds: int) -> None:
        self._sides, self._settle, self._limit, self._rounds = (source, target), settle, limit, rounds
        self._method = choose_method(source.leader, target.leader)
        for side in self._sides:
            side.present()

    def judge(self, table: TableResult) -> TableResult:
        """What is to be said of ``table`` after all."""
        source, target = self._sides
        qualified = next((q for q, known in source.tables.items() if known.label == table.label), "")
        if not table.compared or qualified not in target.tables:
            return table  # truncated meanwhile, or missing on one side
        if source.tables[qualified].persistence == "u":
            return _in_motion(table, "the table is unlogged, its rows come again with the cutover")
        pair = make_pair(source, target, qualified)
        readings = (make_reading(pair, source, self._method, target=False), make_reading(pair, target, self._method, target=True))
        if pair.problems:
            return table
        doing = f"look again at {table.label}"
        with server_errors(doing, target.endpoint, target.database, kind=VerificationFailed, code="PGM6001"):
            if not pair.key:
                return self._judge_whole(table, readings)
            return self._judge_rows(table, pair, readings)

    def _judge_whole(self, table: TableResult, readings: tuple[Reading, Reading]) -> TableResult:
        for dummy in range(self._rounds):
            before = self._digest(0, readings[0])
            self._settle()
            theirs = self._digest(1, readings[1])
            if theirs == before:
                return dataclasses.replace(table, equal=True, differences=(), rows_source=before[0], rows_target=theirs[0])
            if self._digest(0, readings[0]) == before:
                return dataclasses.replace(table, differences=table.differences[: self._limit])
        return _in_motion(table, "the table has no key and changed in every round")

    def _digest(self, side: int, reading: Reading) -> tuple[int, int]:
        row = self._sides[side].leader.execute(reading.digest()).fetchone() or (0, 0)
        return int(row[0]), int(row[1])

    def _judge_rows(self, table: TableResult, pair: Pair, readings: tuple[Reading, Reading]) -> TableResult:
        keys = [tuple(found["key"][name] for name in pair.key) for found in table.differences]
        if not keys or len(keys) >= CANDIDATES:
            return _in_motion(table, f"more than {CANDIDATES} rows differed at the first look")
        wrong: list[dict[str, t.Any]] = []
        for dummy in range(self._rounds):
            before = self._rows(0, pair, readings[0], keys)
            self._settle()
            theirs = self._rows(1, pair, readings[1], keys)
            after = self._rows(0, pair, readings[0], keys)
            moving: list[Key] = []
            for key in keys:
                ours = before.get(key)
                version = ours.version if ours else None
                if version != (after[key].version if key in after else None):
                    moving.append(key)
                    continue
                difference = _difference(pair, readings[0].columns, key, ours, theirs.get(key))
                if difference:
                    wrong.append(difference)
            keys = moving
            if not keys:
                break
        if wrong:
            return dataclasses.replace(table, differences=tuple(wrong[: self._limit]))
        if keys:
            return _in_motion(table, f"{len(keys)} rows were written to in every round")
        return dataclasses.replace(table, equal=True, differences=(), digest_target=table.digest, rows_target=table.rows_source)

    def _rows(self, side: int, pair: Pair, reading: Reading, keys: t.Sequence[Key]) -> dict[Key, _Row]:
        """The rows with one of ``keys`` as they are now, found by their key's index."""
        if not keys:
            return {}
        columns = {ours.name: (theirs if side else ours) for ours, theirs in pair.columns}
        names = [columns[name] for name in pair.key]
        quoted = dict(zip(reading.columns, reading.quoted, strict=True))
        lists = ", ".join("%s::text[]" for dummy in names)
        matches = " AND ".join(f"r.{quoted[column.name]} = (k.v{n})::{column.type}" for n, column in enumerate(names))
        given = ", ".join(f"v{n}" for n, dummy in enumerate(names))
        texts = ", ".join(f"{name}::text" for name in reading.quoted)
        canonical = ", ".join(f"({sql})::text" for sql in reading.canonical)
        query = (
            f"SELECT ARRAY[{given}], r.version, r.texts, r.canonical FROM unnest({lists}) AS k({given}) CROSS JOIN LATERAL"
            f" (SELECT xmin::text || ctid::text AS version, ARRAY[{texts}] AS texts, ARRAY[{canonical}] AS canonical"
            f" FROM ONLY {reading.relation} AS r WHERE {matches}) AS r"
        )
        values = [[key[n] for key in keys] for n, dummy in enumerate(names)]
        conn: psycopg.Connection[t.Any] = self._sides[side].leader
        escaped = query.replace("%", "%%").replace("%%s::text[]", "%s::text[]")
        return {tuple(key): _Row(version, list(found), list(exact)) for key, version, found, exact in conn.execute(escaped, values)}


def _in_motion(table: TableResult, why: str) -> TableResult:
    return dataclasses.replace(table, compared=False, differences=(), note=f"in motion: {why}")


def _difference(pair: Pair, columns: t.Sequence[str], key: Key, ours: _Row | None, theirs: _Row | None) -> dict[str, t.Any] | None:
    """What differs, None if nothing does; as :meth:`.differences.Difference.to_dict` gives it."""
    named = dict(zip(pair.key, key, strict=True))
    if ours is None or theirs is None:
        if ours is theirs:
            return None
        sides = [None if side is None else dict(zip(columns, side.texts, strict=True)) for side in (ours, theirs)]
        return {"kind": "missing" if theirs is None else "extra", "key": named, "source": sides[0], "target": sides[1], "copies": 1}
    left: dict[str, str | None] = {}
    right: dict[str, str | None] = {}
    for n, name in enumerate(columns):
        if ours.canonical[n] != theirs.canonical[n]:
            left[name], right[name] = clip_pair(ours.texts[n], theirs.texts[n])
    return {"kind": "different", "key": named, "source": left, "target": right, "copies": 1} if left else None
