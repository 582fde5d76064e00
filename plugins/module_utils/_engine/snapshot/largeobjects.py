# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Large objects: copied in batches under the snapshot, and brought level at the cutover.

Logical decoding does not carry them (PostgreSQL manual 29.8), so the cutover compares both sides and repeats what differs. Copy and cutover
walk through the OIDs of both sides in stretches, so that memory does not depend on how many there are.
"""

from __future__ import annotations

import concurrent.futures
import typing as t

from ..postgres.catalog import PIECE, large_object_digest
from ..postgres.drivers import psycopg
from .largeobjectrights import Facts, Rights, read_facts, read_facts_after

STRETCH = 500
"""Large objects that are looked at, and written in one transaction, at once: each is a lock, and the lock table is finite."""

SMALL = 256 << 10
"""Bytes below which an object is read whole together with others; larger ones are read in pieces of :data:`PIECE`."""

BATCH_BYTES = 4 << 20
"""Bytes of small objects that are written by one statement."""

LAST = (1 << 32) - 1
"""The greatest OID."""

_READ = f"SELECT o.oid::bigint, lo_get(o.oid, 0, {SMALL}) FROM unnest(%s::bigint[]::oid[]) o(oid)"
_WRITE = "SELECT count(lo_from_bytea(o.oid, o.content)) FROM unnest(%s::bigint[]::oid[], %b::bytea[]) o(oid, content)"
_REMOVE = "SELECT count(lo_unlink(o.oid)) FROM unnest(%s::bigint[]::oid[]) o(oid)"
_DIGEST = f"SELECT o.oid::bigint, {large_object_digest('o.oid')} FROM unnest(%s::bigint[]::oid[]) o(oid)"


def _ignore(number: int) -> None:
    """Nobody wants to know."""


def count_large_objects(conn: psycopg.Connection[t.Any]) -> int:
    """How many large objects the database has."""
    row = conn.execute("SELECT count(*) FROM pg_largeobject_metadata").fetchone()
    return int(row[0]) if row else 0


class LargeObjects:
    """The large objects of one database on their way from ``source`` to ``target``.

    :param source: a session in a transaction whose snapshot decides what there is.
    :param target: a session in autocommit.
    :param moved: is told the bytes that are about to be written, at least once a batch; what it raises is raised, and a transaction that is
        under way is rolled back.
    :param settled: is told of how many objects more nothing is left to do.
    """

    def __init__(
        self,
        source: psycopg.Connection[t.Any],
        target: psycopg.Connection[t.Any],
        moved: t.Callable[[int], None] = _ignore,
        settled: t.Callable[[int], None] = _ignore,
    ) -> None:
        self._source = source
        self._target = target
        self._moved = moved
        self._settled = settled
        self._rights = Rights(target)

    @property
    def notes(self) -> list[str]:
        """What was left out so far, for people."""
        return self._rights.notes

    def copy(self) -> int:
        """Write those that the target lacks; how many they were."""
        count = 0
        for ours, theirs in self._stretches():
            missing = {oid: facts for oid, facts in ours.items() if oid not in theirs}
            self._settled(len(ours) - len(missing))
            self._write(missing, frozenset())
            count += len(missing)
        return count

    def sync(self) -> int:
        """Make the target's equal to the source's in content, owner, grants and comment; how many were written, changed or removed."""
        count = 0
        for ours, theirs in self._stretches():
            surplus = sorted(theirs.keys() - ours.keys())
            differing = self._differing(sorted(ours.keys() & theirs.keys()))
            written = {oid: facts for oid, facts in ours.items() if oid not in theirs or oid in differing}
            kept = {oid: facts for oid, facts in theirs.items() if oid in ours and oid not in differing}
            if surplus:
                self._target.execute(_REMOVE, [surplus])
            changed = self._rights.level(ours, kept)
            self._write(written, differing)
            count += len(surplus) + changed + len(written)
        return count

    def _stretches(self) -> t.Iterator[tuple[dict[int, Facts], dict[int, Facts]]]:
        """All large objects of source and target, stretch after stretch of OIDs, :data:`STRETCH` of a side at most."""
        low = 0
        while low < LAST:
            self._moved(0)
            sides = [read_facts_after(conn, low, STRETCH) for conn in (self._source, self._target)]
            low = min((max(found) for found in sides if len(found) == STRETCH), default=LAST)
            ours, theirs = ({oid: facts for oid, facts in found.items() if oid <= low} for found in sides)
            yield ours, theirs

    def _differing(self, oids: list[int]) -> frozenset[int]:
        """Those of ``oids`` whose contents differ, by digests that both servers make at the same time."""
        if not oids:
            return frozenset()

        def digests(conn: psycopg.Connection[t.Any]) -> dict[int, str]:
            return dict(conn.execute(_DIGEST, [oids]).fetchall())

        with concurrent.futures.ThreadPoolExecutor(1) as other:
            there = other.submit(digests, self._target)
            ours, theirs = digests(self._source), there.result()
        return frozenset(oid for oid in oids if ours.get(oid) != theirs.get(oid))

    def _write(self, wanted: t.Mapping[int, Facts], old: t.Collection[int]) -> None:
        """Write the objects ``wanted``; those of ``old`` are there with another content."""
        if not wanted:
            return
        long = []
        batch: dict[int, bytes] = {}
        size = 0
        with self._source.cursor(binary=True) as cursor:
            for oid, content in cursor.stream(_READ, [list(wanted)]):
                if len(content) == SMALL:
                    long.append(oid)
                    continue
                batch[oid] = content
                size += len(content)
                if size >= BATCH_BYTES:
                    self._write_batch(batch, wanted, old)
                    batch, size = {}, 0
        self._write_batch(batch, wanted, old)
        for oid in long:
            self._write_long(oid, wanted, old)

    def _write_batch(self, batch: dict[int, bytes], wanted: t.Mapping[int, Facts], old: t.Collection[int]) -> None:
        if not batch:
            return
        oids = list(batch)
        self._moved(sum(len(content) for content in batch.values()))
        with self._target.transaction():
            if stale := [oid for oid in oids if oid in old]:
                self._target.execute(_REMOVE, [stale])
            self._target.execute(_WRITE, [oids, list(batch.values())])
            self._rights.level(wanted, read_facts(self._target, oids))
        self._settled(len(oids))

    def _write_long(self, oid: int, wanted: t.Mapping[int, Facts], old: t.Collection[int]) -> None:
        """One object piece by piece; pieces that hold nothing but zeros stay the holes that they may be on the source."""
        with self._target.transaction():
            if oid in old:
                self._target.execute(_REMOVE, [[oid]])
            self._target.execute("SELECT lo_create(%s)", [oid])
            offset = end = 0
            while piece := self._piece(oid, offset):
                offset += len(piece)
                self._moved(len(piece))
                if piece.count(0) < len(piece):
                    self._put(oid, offset - len(piece), piece)
                    end = offset
            if end < offset:  # its length is a fact, too
                self._put(oid, offset - 1, b"\0")
            self._rights.level(wanted, read_facts(self._target, [oid]))
        self._settled(1)

    def _piece(self, oid: int, offset: int) -> bytes:
        query = "SELECT lo_get(%s::bigint::oid, %s::bigint, %s::int)"
        row = self._source.execute(query, [oid, offset, PIECE], binary=True).fetchone()
        return bytes(row[0]) if row else b""

    def _put(self, oid: int, offset: int, piece: bytes) -> None:
        self._target.execute("SELECT lo_put(%s::bigint::oid, %s::bigint, %b)", [oid, offset, piece])


def sync_large_objects(source: psycopg.Connection[t.Any], target: psycopg.Connection[t.Any]) -> int:
    """Make the target's large objects equal to the source's as of now, see :meth:`LargeObjects.sync`; both sessions are in autocommit."""
    with source.transaction():
        source.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return LargeObjects(source, target).sync()
