# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Which rows of a table differ, once its digests do: three passes over the table, whatever its size, and little memory.

The first sums the row hashes by buckets of the key's hash; the second fetches keys and hashes of differing buckets alone; the third
fetches the values of the rows to be shown. Every differing bucket holds a difference, so as many buckets as rows to show are enough.
A table without a key is its own key: its rows are compared as a multiset.
"""

from __future__ import annotations

import collections
import dataclasses
import typing as t

from .sides import Pair, Reading, Side

BUCKET_ROWS = 64
MAX_BUCKETS = 1 << 16
SHOWN = 200
"""Characters of a value that a difference shows."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """One row that is not the same. ``kind``: ``missing`` (on the target), ``extra`` (only there) or ``different``; ``key`` the key's
    columns as text, empty for a table without key; ``source``/``target`` the row as text, for ``different`` only the columns that differ;
    ``copies`` how often the row is missing or extra."""

    kind: str
    key: dict[str, str | None]
    source: dict[str, str | None] | None
    target: dict[str, str | None] | None
    copies: int = 1

    def to_dict(self) -> dict[str, t.Any]:
        """Plain data."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class _Open:
    kind: str
    key_hash: int
    source: int | None
    target: int | None
    copies: int


def find_differences(pair: Pair, sides: tuple[Side, Side], readings: tuple[Reading, Reading], rows: int, limit: int) -> list[Difference]:
    """Up to ``limit`` rows of ``pair`` that differ; ``rows`` is the larger number of rows of both sides."""
    if not pair.columns or limit < 1:
        return []
    buckets = 1
    while buckets < min(MAX_BUCKETS, rows // BUCKET_ROWS):
        buckets *= 2
    sums = [bucket_sums(side, reading, buckets) for side, reading in zip(sides, readings, strict=True)]
    differing = sorted(b for b in sums[0].keys() | sums[1].keys() if sums[0].get(b) != sums[1].get(b))[:limit]
    return differences_in(pair, sides, readings, buckets, differing, limit) if differing else []


def differences_in(
    pair: Pair, sides: tuple[Side, Side], readings: tuple[Reading, Reading], buckets: int, differing: t.Sequence[int], limit: int
) -> list[Difference]:
    """Up to ``limit`` rows that differ in the buckets ``differing`` out of ``buckets``."""
    hashes = [row_hashes(side, reading, buckets, differing) for side, reading in zip(sides, readings, strict=True)]
    found = list(_compare(hashes[0], hashes[1], keyed=bool(pair.key)))[:limit]
    values = [_values(side, reading, [f.key_hash for f in found]) for side, reading in zip(sides, readings, strict=True)]
    return [_describe(pair, readings[0].columns, item, values[0], values[1]) for item in found]


Sums = t.Dict[int, t.Tuple[int, int, int]]
"""Bucket to its number of rows, the sum of their hashes, and that of their versions (0 where these were not asked for)."""

VERSION = "xmin::text || ctid::text"
"""Changes with every write of a row, on the server where it was written."""


def bucket_sums(side: Side, reading: Reading, buckets: int, *, versions: bool = False) -> Sums:
    """What is in each of ``buckets`` (a power of two) on one side; empty ones are left out."""
    version = f"hashtext({VERSION})::bigint" if versions else "0::bigint"
    query = (
        f"SELECT k & {buckets - 1}, count(*), sum(h), sum(v) FROM (SELECT {reading.key_hash} AS k, {reading.row_hash} AS h, {version} AS v"
        f" FROM ONLY {reading.relation} OFFSET 0) AS x GROUP BY 1"
    )
    return {int(bucket): (int(count), int(total), int(version)) for bucket, count, total, version in _rows(side, query)}


def row_hashes(side: Side, reading: Reading, buckets: int, wanted: t.Sequence[int]) -> dict[int, collections.Counter[int]]:
    """Of the rows in the buckets ``wanted``: hash of the key to hashes of the rows that have it."""
    query = (
        f"SELECT k, h, count(*) FROM (SELECT {reading.key_hash} AS k, {reading.row_hash} AS h FROM ONLY {reading.relation} OFFSET 0) AS x"
        f" WHERE k & {buckets - 1} IN (SELECT unnest('{{{','.join(str(int(one)) for one in wanted)}}}'::bigint[])) GROUP BY 1, 2"
    )
    found: dict[int, collections.Counter[int]] = collections.defaultdict(collections.Counter)
    for key, row, count in _rows(side, query):
        found[key][row] += count
    return found


def _compare(source: dict[int, collections.Counter[int]], target: dict[int, collections.Counter[int]], *, keyed: bool) -> t.Iterator[_Open]:
    nothing: collections.Counter[int] = collections.Counter()
    for key in sorted(source.keys() | target.keys()):
        ours, theirs = source.get(key, nothing), target.get(key, nothing)
        if ours == theirs:
            continue
        if keyed and sum(ours.values()) == 1 and sum(theirs.values()) == 1:
            yield _Open("different", key, list(ours)[0], list(theirs)[0], 1)
            continue
        for row, copies in (ours - theirs).items():
            yield _Open("missing", key, row, None, copies)
        for row, copies in (theirs - ours).items():
            yield _Open("extra", key, None, row, copies)


Values = dict[tuple[int, int], tuple[list[str | None], list[str | None]]]


def _values(side: Side, reading: Reading, keys: t.Sequence[int]) -> Values:
    """Text and canonical text of the rows with one of the key hashes ``keys``, by key hash and row hash."""
    if not keys:
        return {}
    texts = ", ".join(f"{name}::text" for name in reading.quoted)
    canonical = ", ".join(f"({sql})::text" for sql in reading.canonical)
    query = (
        f"SELECT {reading.key_hash}, {reading.row_hash}, ARRAY[{texts}], ARRAY[{canonical}] FROM ONLY {reading.relation}"
        f" WHERE {reading.key_hash} IN ({', '.join(str(k) for k in sorted(set(keys)))})"
    )
    return {(key, row): (list(text), list(exact)) for key, row, text, exact in _rows(side, query)}


def _describe(pair: Pair, columns: t.Sequence[str], item: _Open, source: Values, target: Values) -> Difference:
    ours = source.get((item.key_hash, item.source)) if item.source is not None else None
    theirs = target.get((item.key_hash, item.target)) if item.target is not None else None
    known = ours or theirs or ([], [])
    key = {name: value for name, value in zip(columns, known[0], strict=False) if name in pair.key}
    if ours is None or theirs is None:
        shown = [None if side is None else {n: _clip(v) for n, v in zip(columns, side[0], strict=True)} for side in (ours, theirs)]
        return Difference(item.kind, key, shown[0], shown[1], item.copies)
    left: dict[str, str | None] = {}
    right: dict[str, str | None] = {}
    for position, name in enumerate(columns):
        if ours[1][position] != theirs[1][position]:
            pair_of_texts = (ours[0][position], theirs[0][position])
            if pair_of_texts[0] == pair_of_texts[1]:  # such as two NaN of different bits inside a point
                pair_of_texts = (ours[1][position], theirs[1][position])
            left[name], right[name] = clip_pair(*pair_of_texts)
    return Difference(item.kind, key, left, right)


def _clip(value: str | None, start: int = 0) -> str | None:
    if value is None or len(value) <= SHOWN:
        return value
    return ("..." if start else "") + value[start : start + SHOWN] + f"... ({len(value)} characters)"


def clip_pair(source: str | None, target: str | None) -> tuple[str | None, str | None]:
    """Both values, clipped so that their first difference is seen."""
    if source is None or target is None:
        return _clip(source), _clip(target)
    first = next((i for i, (a, b) in enumerate(zip(source, target, strict=False)) if a != b), min(len(source), len(target)))
    start = max(0, first - 40) if first > SHOWN - 40 else 0
    return _clip(source, start), _clip(target, start)


def _rows(side: Side, query: str) -> list[tuple[t.Any, ...]]:
    return list(side.leader.execute(query))
