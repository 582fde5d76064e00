# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What is compared besides tables: sequences and large objects."""

from __future__ import annotations

import dataclasses
import typing as t

from ..postgres.catalog import USER_SCHEMAS, large_object_digest
from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_qualified
from ..postgres.selection import EVERYTHING, KEPT_RELATION, Selection, read_left_out
from .canonical import Method
from .sides import Side

AT_ONCE = 500
"""Sequences read by one statement."""


@dataclasses.dataclass(frozen=True)
class SequenceResult:
    """Where a sequence stands on both sides: ``[last_value, is_called]``, or None where it does not exist. ``equal`` is the verdict:
    the same position, or, where the target was already released to writers, one that is not behind."""

    label: str
    source: tuple[int, bool] | None
    target: tuple[int, bool] | None
    equal: bool

    def to_dict(self) -> dict[str, t.Any]:
        """Plain data."""
        return dataclasses.asdict(self)


def compare_sequences(source: Side, target: Side, selection: Selection = EVERYTHING, *, released: bool) -> list[SequenceResult]:
    """All chosen sequences of users, and what the target has besides. ``released``: writers work on the target already, so its
    sequences may have gone on (sequences know no snapshot)."""
    ours, theirs = _sequences(source, selection), _sequences(target, EVERYTHING)
    results = []
    for label in sorted(ours.keys() | theirs.keys()):
        left, right = ours.get(label), theirs.get(label)
        equal = left is not None and right is not None and (left[:2] == right[:2] or released and _not_behind(left, right))
        results.append(SequenceResult(label, left[:2] if left else None, right[:2] if right else None, equal))
    return results


def _not_behind(source: tuple[int, bool, int], target: tuple[int, bool, int]) -> bool:
    forward = 1 if source[2] > 0 else -1
    return (forward * target[0], target[1]) >= (forward * source[0], source[1])


def _sequences(side: Side, selection: Selection) -> dict[str, tuple[int, bool, int]]:
    increment = "s.seqincrement" if side.version >= 100000 else "0"
    join = "JOIN pg_sequence s ON s.seqrelid = c.oid" if side.version >= 100000 else ""
    names = side.leader.execute(
        f"""
        SELECT n.nspname::text, c.relname::text, {increment} FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace {join}
         WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND {USER_SCHEMAS} AND {KEPT_RELATION} ORDER BY 1, 2""",
        read_left_out(side.leader, selection).parameters(),
    ).fetchall()
    found: dict[str, tuple[int, bool, int]] = {}
    for start in range(0, len(names), AT_ONCE):
        part = names[start : start + AT_ONCE]
        step = "increment_by" if side.version < 100000 else ""
        query = " UNION ALL ".join(
            f"SELECT {number}, last_value, is_called, {step or increment_by} FROM {quote_qualified(schema, name)}"
            for number, (schema, name, increment_by) in enumerate(part)
        )
        for number, last, called, by in side.leader.execute(query):
            schema, name, dummy = part[number]
            found[f"{schema}.{name}"] = (int(last), bool(called), int(by))
    return found


@dataclasses.dataclass(frozen=True)
class LargeObjectResult:
    """Large objects of both sides: how many, a digest, and (where they differ) the OIDs of up to 20 that do. ``note`` says why
    they could not be compared."""

    source: int
    target: int
    equal: bool
    digest: str
    differing: tuple[int, ...] = ()
    note: str = ""

    def to_dict(self) -> dict[str, t.Any]:
        """Plain data."""
        return {**dataclasses.asdict(self), "differing": list(self.differing)}


def compare_large_objects(source: Side, target: Side, method: Method, limit: int = 20) -> LargeObjectResult:
    """The contents of all large objects by OID; what cannot be read makes a note."""
    row_hash = method.row_hash(["oid", large_object_digest("oid")])
    summed = f"SELECT count(*), coalesce(sum({row_hash}), 0) FROM pg_largeobject_metadata"
    read: list[tuple[int, int]] = []
    for side in (source, target):
        try:
            with side.leader.transaction():
                row = side.leader.execute(summed).fetchone() or (0, 0)
        except psycopg.Error as exc:
            answer = exc.diag.message_primary or type(exc).__name__
            note = f"The large objects on {side.endpoint.label(side.database)} cannot be read: {answer}."
            return LargeObjectResult(0, 0, False, "", note=note)
        read.append((int(row[0]), int(row[1])))
    equal = read[0] == read[1]
    differing: tuple[int, ...] = ()
    if not equal:
        single = f"SELECT oid::bigint, {row_hash} FROM pg_largeobject_metadata"
        ours, theirs = (dict(side.leader.execute(single).fetchall()) for side in (source, target))
        differing = tuple(sorted(oid for oid in ours.keys() | theirs.keys() if ours.get(oid) != theirs.get(oid))[:limit])
    return LargeObjectResult(read[0][0], read[1][0], equal, format(read[0][1] & (1 << 128) - 1, "032x"), differing)
