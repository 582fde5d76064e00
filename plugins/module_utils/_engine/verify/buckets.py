# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Where in a table that is written to do both sides differ? In rounds over buckets of its rows, which are fewer with each round.

A bucket holds the rows whose key's hash ends alike. In each round it is summed on the source, then on the target after everything that
was committed before that has been applied: what is the same then is equal, and is not looked at again. However busy a table is, most
of its buckets are at rest for the time of a round.

Of a table without a key the rows' own hashes make the buckets. Such a bucket is wrong when, round after round, the target's versions of its
rows and the source's are what they were and yet the rows are not the same.
"""

from __future__ import annotations

import collections
import time
import typing as t

from .differences import BUCKET_ROWS, MAX_BUCKETS, Sums, bucket_sums, row_hashes
from .look import CONFIRM_SECONDS, ROUNDS, STRIKES, Look

LEAST_BUCKETS = 256
FETCH_ROWS = 100_000
"""Rows whose hashes are fetched at once, from each side."""

FEW_ROWS = 5000
"""So many, or one in a hundred, are looked at one by one at once; before, another round costs less."""

SHRINKS = 0.8
"""Rounds go on while each leaves at most this part of the one before."""

EMPTY = (0, 0, 0)


class Buckets:
    """The buckets of one table.

    :ivar open: those not found equal so far, with their rows (the larger number of both sides).
    :ivar rows: rows on source and target when they were first summed.
    :ivar digest: sum of the row hashes of the source then.
    """

    def __init__(self, look: Look, rows: int) -> None:
        self._look = look
        wanted = min(MAX_BUCKETS, max(LEAST_BUCKETS, rows // (BUCKET_ROWS if look.pair.key else BUCKET_ROWS // 8)))
        self.number = 1 << (wanted - 1).bit_length()
        self.open: dict[int, int] = {}
        self.rows = (0, 0)
        self.digest = 0
        self._first = True

    def narrow(self, rounds: int = ROUNDS) -> None:
        """Go on until the rows left can be looked at one by one, or no fewer are left."""
        before = 0
        for number in range(rounds):
            self._round()
            left = sum(self.open.values())
            if left <= max(FEW_ROWS, self.rows[0] // 100) or (number and left > SHRINKS * before):
                return
            before = left

    def watch(self, rounds: int = ROUNDS) -> list[int]:
        """Go on until every bucket is equal or wrong; the wrong ones."""
        strikes: collections.Counter[int] = collections.Counter()
        previous: Sums = {}
        for dummy in range(rounds):
            if strikes and all(strikes[bucket] == STRIKES - 1 for bucket in self.open):
                time.sleep(CONFIRM_SECONDS)
            before, theirs = self._round()
            if not self.open:
                return []
            after = self._sums(0)
            for bucket in self.open:
                still = before.get(bucket, EMPTY) == after.get(bucket, EMPTY) and previous.get(bucket) == theirs.get(bucket, EMPTY)
                strikes[bucket] = strikes[bucket] + 1 if still else 0
            if all(strikes[bucket] >= STRIKES for bucket in self.open):
                break
            previous = {bucket: theirs.get(bucket, EMPTY) for bucket in self.open}
        return sorted(bucket for bucket in self.open if strikes[bucket] >= STRIKES)

    def portions(self) -> t.Iterator[list[int]]:
        """The open buckets, so many at once that their rows' hashes can be fetched."""
        portion: list[int] = []
        rows = 0
        for bucket, count in sorted(self.open.items()):
            if portion and rows + count > FETCH_ROWS:
                yield portion
                portion, rows = [], 0
            portion.append(bucket)
            rows += count
        if portion:
            yield portion

    def keys(self, portion: t.Sequence[int]) -> list[tuple[str | None, ...]]:
        """Keys of the rows in ``portion`` that differ at the moment, as text."""
        sides, readings = self._look.sides, self._look.readings
        ours, theirs = (row_hashes(side, reading, self.number, portion) for side, reading in zip(sides, readings, strict=True))
        differing = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
        found: set[tuple[str | None, ...]] = set()
        for side, reading in zip(sides, readings, strict=True):
            quoted = dict(zip(reading.columns, reading.quoted, strict=True))
            texts = ", ".join(f"{quoted[name]}::text" for name in self._look.pair.key)
            query = f"SELECT ARRAY[{texts}] FROM ONLY {reading.relation} WHERE {reading.key_hash} IN (SELECT unnest(%s::bigint[]))"
            found.update(tuple(row[0]) for row in side.leader.execute(query.replace("%", "%%").replace("%%s", "%s"), [differing]))
        return sorted(found, key=str)

    def _round(self) -> tuple[Sums, Sums]:
        before = self._sums(0)
        self._look.settle()
        theirs = self._sums(1)
        if self._first:
            self._first = False
            self.rows = (sum(b[0] for b in before.values()), sum(b[0] for b in theirs.values()))
            self.digest = sum(b[1] for b in before.values())
        differing = [b for b in before.keys() | theirs.keys() if before.get(b, EMPTY)[:2] != theirs.get(b, EMPTY)[:2]]
        self.open = {b: max(before.get(b, EMPTY)[0], theirs.get(b, EMPTY)[0]) for b in differing}
        return before, theirs

    def _sums(self, side: int) -> Sums:
        """Those of the open buckets; at first of all."""
        found = bucket_sums(self._look.sides[side], self._look.readings[side], self.number, versions=True)
        return found if self._first else {bucket: sums for bucket, sums in found.items() if bucket in self.open}
