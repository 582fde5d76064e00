# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Verification while changes are streamed: the two sides are never at the same moment, so what differs is looked at again.

First everything is compared under a snapshot of each side. The tables that differ are narrowed down to the parts that do
(:mod:`.buckets`), and of these row by row it is found out whether they are wrong or were only in motion (:mod:`.rowwise`).
"""

from __future__ import annotations

import dataclasses
import typing as t

from ..errors import VerificationFailed
from ..postgres.session import server_errors
from ..spec import MigrationSpec
from .buckets import Buckets
from .canonical import choose_method
from .compare import Report, TableResult, VerifyResult, verify_database
from .differences import differences_in
from .look import ROUNDS, Look, Settle
from .rowwise import describe, judge_rows
from .sides import Side, make_pair, make_reading


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

    Sequences and large objects are not judged: they come with the cutover. A table of which rows could not be told apart from those
    in motion in any of ``rounds`` is ``equal`` False and ``compared`` False, with a note.
    """
    settle()
    first = verify_database(spec, database, jobs=jobs, report=report, limit=0)
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
        if qualified not in target.tables:
            return table  # missing on one side
        if source.tables[qualified].persistence == "u":
            return _in_motion(table, "the table is unlogged, its rows come again with the cutover")
        pair = make_pair(source, target, qualified)
        readings = (make_reading(pair, source, self._method, target=False), make_reading(pair, target, self._method, target=True))
        look = Look(pair, self._sides, readings, self._settle)
        with server_errors(f"look again at {table.label}", target.endpoint, target.database, kind=VerificationFailed, code="PGM6001"):
            buckets = Buckets(look, max(table.rows_source, table.rows_target))
            judged = self._by_rows(look, buckets, table) if pair.key else self._by_buckets(look, buckets, table)
        ours, theirs = buckets.rows
        digest = format(buckets.digest & (1 << 128) - 1, "032x")
        judged = dataclasses.replace(judged, rows_source=ours, rows_target=theirs, digest=digest)
        if judged.equal:
            judged = dataclasses.replace(judged, rows_target=ours, digest_target=digest)
        return dataclasses.replace(judged, equal=judged.equal and not pair.problems, note=judged.note or "; ".join(pair.problems))

    def _by_buckets(self, look: Look, buckets: Buckets, table: TableResult) -> TableResult:
        wrong = buckets.watch(self._rounds)
        if wrong:
            named = differences_in(look.pair, look.sides, look.readings, buckets.number, wrong, self._limit)
            return _different(table, [difference.to_dict() for difference in named])
        return _in_motion(table, "it has no key, and its rows changed in every round") if buckets.open else _equal(table)

    def _by_rows(self, look: Look, buckets: Buckets, table: TableResult) -> TableResult:
        buckets.narrow(self._rounds)
        named: list[dict[str, t.Any]] = []
        moving = 0
        for portion in buckets.portions():
            wrong, undecided = judge_rows(look, buckets.keys(portion), self._rounds)
            named += describe(look, wrong[: self._limit - len(named)])
            moving += len(undecided)
            if len(named) >= self._limit:
                break
        if named:
            return _different(table, named)
        return _in_motion(table, f"{moving} rows were written to in every round") if moving else _equal(table)


def _in_motion(table: TableResult, why: str) -> TableResult:
    return dataclasses.replace(table, equal=False, compared=False, differences=(), note=f"in motion: {why}")


def _equal(table: TableResult) -> TableResult:
    return dataclasses.replace(table, equal=True, compared=True, differences=(), note="")


def _different(table: TableResult, named: list[dict[str, t.Any]]) -> TableResult:
    return dataclasses.replace(table, equal=False, compared=True, differences=tuple(named), note="")
