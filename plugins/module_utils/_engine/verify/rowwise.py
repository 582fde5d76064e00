# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Rows that differ on two sides that are written to, one by one, until each is found equal or wrong.

In each round a row is read on the source, then on the target after everything that was committed before that has been applied, then on the
source again. What the target has is

* right if it is what the source had at one of those moments, or in between (rows written to all the time are watched meanwhile, see
  :class:`_Watch`);
* wrong if the source showed something else before, and nothing else was applied since: the target's row is the very version that it was
  in the round before. Of a row that the target has not, the source's must be the same version before and after. It must be found in
  :data:`.look.STRIKES` rounds in a row.

Neither depends on how much is written, so load makes no false alarm and a row at which everybody writes is compared all the same.
"""

from __future__ import annotations

import collections
import contextlib
import threading
import time
import typing as t

from ..postgres.drivers import psycopg
from .differences import VERSION, clip_pair
from .look import CONFIRM_SECONDS, ROUNDS, STRIKES, Look

WATCHED = 200
"""Rows that are watched at once."""

AT_ONCE = 5000
"""Rows that are read by one statement."""

Key = t.Tuple["str | None", ...]


class _Row(t.NamedTuple):
    version: str
    hash: int


Rows = t.Dict[Key, _Row]


def judge_rows(look: Look, keys: t.Sequence[Key], rounds: int = ROUNDS) -> tuple[list[Key], list[Key]]:
    """Of ``keys`` those that are wrong, and those of which it cannot be said after ``rounds``."""
    left, wrong = list(keys), list[Key]()
    strikes: collections.Counter[Key] = collections.Counter()
    previous: Rows = {}
    for number in range(rounds):
        if not left:
            break
        if all(strikes[key] == STRIKES - 1 for key in left):
            time.sleep(CONFIRM_SECONDS)
        with _Watch(look, left if number and len(left) <= WATCHED else ()) as seen:
            before = read_rows(look, 0, left)
            look.settle()
            theirs = read_rows(look, 1, left)
            differing = [key for key in left if _hash(before.get(key)) != _hash(theirs.get(key))]
            after = read_rows(look, 0, differing)
        undecided: list[Key] = []
        for key in differing:
            ours, there, later = before.get(key), theirs.get(key), after.get(key)
            if _hash(there) in {_hash(later), *seen.get(key, ())}:
                continue
            if there is None:
                still = ours is not None and later is not None and ours.version == later.version
            else:
                still = key in previous and previous[key].version == there.version
            strikes[key] = strikes[key] + 1 if still else 0
            (wrong if strikes[key] >= STRIKES else undecided).append(key)
        left, previous = undecided, theirs
    return wrong, left


def _hash(row: _Row | None) -> int | None:
    return row.hash if row else None


def read_rows(look: Look, side: int, keys: t.Sequence[Key], conn: psycopg.Connection[t.Any] | None = None) -> Rows:
    """Version and hash of the rows with one of ``keys`` as they are now, found by their key's index."""
    chosen = f"{VERSION}, {look.readings[side].row_hash}"
    return {key: _Row(version, row_hash) for key, version, row_hash in _find(look, side, keys, chosen, conn)}


def describe(look: Look, keys: t.Sequence[Key]) -> list[dict[str, t.Any]]:
    """What differs in each of the rows, as :meth:`.differences.Difference.to_dict` gives it; what is the same by now is left out."""
    shown = []
    for side, reading in enumerate(look.readings):
        texts = ", ".join(f"{name}::text" for name in reading.quoted)
        canonical = ", ".join(f"({sql})::text" for sql in reading.canonical)
        shown.append({key: (text, exact) for key, text, exact in _find(look, side, keys, f"ARRAY[{texts}], ARRAY[{canonical}]")})
    found = (_difference(look, key, shown[0].get(key), shown[1].get(key)) for key in keys)
    return [difference for difference in found if difference]


def _find(
    look: Look, side: int, keys: t.Sequence[Key], chosen: str, conn: psycopg.Connection[t.Any] | None = None
) -> t.Iterator[tuple[t.Any, ...]]:
    if not keys:
        return
    reading = look.readings[side]
    columns = {ours.name: (theirs if side else ours) for ours, theirs in look.pair.columns}
    quoted = dict(zip(reading.columns, reading.quoted, strict=True))
    names = [columns[name] for name in look.pair.key]
    lists = ", ".join("%s::text[]" for dummy in names)
    matches = " AND ".join(f"r.{quoted[column.name]} = (k.v{n})::{column.type}" for n, column in enumerate(names))
    given = ", ".join(f"v{n}" for n, dummy in enumerate(names))
    query = (
        f"SELECT ARRAY[{given}], r.* FROM unnest({lists}) AS k({given}) CROSS JOIN LATERAL"
        f" (SELECT {chosen} FROM ONLY {reading.relation} AS r WHERE {matches}) AS r"
    )
    escaped = query.replace("%", "%%").replace("%%s::text[]", "%s::text[]")
    for start in range(0, len(keys), AT_ONCE):
        values = [[key[n] for key in keys[start : start + AT_ONCE]] for n, dummy in enumerate(names)]
        for row in (conn or look.sides[side].leader).execute(escaped, values):
            yield (tuple(row[0]), *row[1:])


Texts = t.Tuple[t.List["str | None"], t.List["str | None"]]


def _difference(look: Look, key: Key, ours: Texts | None, theirs: Texts | None) -> dict[str, t.Any] | None:
    named, columns = dict(zip(look.pair.key, key, strict=True)), look.readings[0].columns
    if ours is None or theirs is None:
        if ours is theirs:
            return None
        sides = [
            None if side is None else {n: clip_pair(v, None)[0] for n, v in zip(columns, side[0], strict=True)} for side in (ours, theirs)
        ]
        return {"kind": "missing" if theirs is None else "extra", "key": named, "source": sides[0], "target": sides[1], "copies": 1}
    left: dict[str, str | None] = {}
    right: dict[str, str | None] = {}
    for n, name in enumerate(columns):
        if ours[1][n] != theirs[1][n]:
            left[name], right[name] = clip_pair(ours[0][n], theirs[0][n])
    return {"kind": "different", "key": named, "source": left, "target": right, "copies": 1} if left else None


class _Watch:
    """Reads rows on the source again and again; inside the block the dictionary fills with the hashes that each has had (None: no row)."""

    def __init__(self, look: Look, keys: t.Sequence[Key]) -> None:
        self._look, self._keys = look, keys
        self._seen: dict[Key, set[int | None]] = collections.defaultdict(set)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="verify-watch", daemon=True) if keys else None

    def __enter__(self) -> dict[Key, set[int | None]]:
        if self._thread:
            self._thread.start()
        return self._seen

    def __exit__(self, *dummy: object) -> None:
        self._over.set()
        if self._thread:
            self._thread.join()

    def _run(self) -> None:
        with contextlib.suppress(psycopg.Error), self._look.sides[0].another() as conn:  # without it a row is only compared later
            while not self._over.is_set():
                rows = read_rows(self._look, 0, self._keys, conn)
                for key in self._keys:
                    self._seen[key].add(_hash(rows.get(key)))
                self._over.wait(0.001)
