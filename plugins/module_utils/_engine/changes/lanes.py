# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Several connections to the target that apply the parts of one batch at the same time.

The next batch begins when all lanes have committed the present one, so their positions differ by one batch at most, and only after a
crash between their commits. Then the lanes that lag are brought level first, by the partition that the ledger remembers.
"""

from __future__ import annotations

import typing as t
from concurrent.futures import ThreadPoolExecutor

from ..errors import StreamError
from ..migration.ledger import Ledger
from ..postgres.drivers import psycopg
from ..postgres.lsn import parse_lsn
from ..postgres.session import connect
from ..spec import MigrationSpec
from .apply import Applier, Moved, Position
from .batch import Batch
from .partition import TOGETHER, Part, Partition
from .quiet import let_rest, replica_role
from .rows import transient
from .tables import TargetTables
from .trees import Trees, read_trees


class NeedsOrder(Exception):
    """The transaction whose commit record starts at ``commit_lsn`` has been given out to the lanes, and turns out to need one alone."""

    def __init__(self, commit_lsn: int) -> None:
        super().__init__("a large transaction must be applied in order")
        self.commit_lsn = commit_lsn


class Lanes:
    """The appliers of one database.

    :param alone: the transaction with this commit LSN is not divided.
    :param streamed: as of :class:`.tables.TargetTables`.
    :raises ConnectionFailed: if the target cannot be reached.
    :raises PermissionMissing: as :func:`.quiet.let_rest`.
    """

    def __init__(
        self, spec: MigrationSpec, database: str, *, bare_bytea: bool, alone: int = 0, streamed: t.Container[str] | None = None
    ) -> None:
        self._streamed = streamed
        self._spec, self._database = spec, database
        self._alone = alone
        self._in_pieces = False
        self._appliers: list[Applier] = []
        self._pool: ThreadPoolExecutor | None = None
        try:
            self._open(bare_bytea)
        except BaseException:
            self.close()
            raise

    def _open(self, bare_bytea: bool) -> None:
        first = self._connect(0)
        ledger = Ledger(first.conn)
        starts = ledger.start_lsns()
        self.start_lsn = min(starts.values(), default=0)
        self.tables = TargetTables(first.conn, starts, bare_bytea=bare_bytea, source_trees=self._source_trees, streamed=self._streamed)
        label = self._spec.target.label(self._database)
        self.resting = let_rest(first.conn, [table.oid for table in self.tables], self._refused, label)
        """What was taken back for the time of the stream, for people."""
        lanes = self._spec.changes.lanes
        divisible = sorted(table.qualified for table in self.tables if table.divisible) if lanes > 1 else []
        layout = ledger.open_lanes(lanes, divisible)
        positions = [Position(parse_lsn(commit), parse_lsn(end), time or "") for commit, end, time in layout.positions]
        self.partition = Partition(self.tables, len(positions), layout.divided)
        for lane, position in enumerate(positions):
            (first if lane == 0 else self._connect(lane)).start(self.tables, position)
        self._pool = ThreadPoolExecutor(len(positions), "lane") if len(positions) > 1 else None
        ends = sorted({position.end_lsn for position in positions})
        self.borders = ends[1:]
        """End LSNs at which a batch has to end: up to there some lanes are ahead of the others."""
        self._level_at = ends[-1] if self.borders else 0
        self._unwanted = bool(self.borders) and (len(positions) != lanes or sorted(layout.divided) != divisible)
        self.position = min(positions, key=lambda position: position.end_lsn)

    def _source_trees(self) -> Trees:
        with connect(self._spec.source, self._database, purpose="partitions") as conn:
            return read_trees(conn)

    def _connect(self, lane: int) -> Applier:
        made = Applier(self._spec, self._database, lane)
        self._appliers.append(made)
        self._refused = replica_role(made.conn)
        return made

    def close(self) -> None:
        """End the sessions; what is not committed is rolled back."""
        for applier in self._appliers:
            applier.close()
        if self._pool is not None:
            self._pool.shutdown()

    @property
    def fallbacks(self) -> int:
        """How many parts had to be applied row by row."""
        return sum(applier.fallbacks for applier in self._appliers)

    @property
    def trips(self) -> int:
        """How often an answer of the server was waited for, in all lanes."""
        return sum(applier.pipe.trips for applier in self._appliers)

    @property
    def outdated(self) -> bool:
        """Are all lanes level, but not those that are wanted now?"""
        return self._unwanted and len({applier.position.end_lsn for applier in self._appliers}) == 1

    def prepare(self, batch: Batch) -> list[Part]:
        """The parts of ``batch`` with their data. Needs no connection: another thread may do it ahead, in the order of the batches.

        :raises NeedsOrder: see there.
        :raises StreamError: PGM4033 if lanes cannot be brought level.
        """
        if batch.abort:
            self._in_pieces = False
            return []
        parts = self.partition.divide(batch) if self._to_be_divided(batch) else self.partition.whole(batch)
        self._in_pieces = not batch.final
        for part in parts:
            part.prepare(self.tables)
        return parts

    def _to_be_divided(self, batch: Batch) -> bool:
        if self.partition.lanes == 1:
            return False
        commit_lsn = batch.last_lsn
        in_pieces = self._in_pieces or not batch.final
        needs_order = self.partition.needs_order(batch)
        if self._level_at:
            if needs_order:
                raise StreamError(
                    f"The lanes of {self._spec.target.label(self._database)} stand at different positions and a change between them"
                    " has to be applied by one alone.",
                    code="PGM4033",
                    hint="The target was changed by others. Copy it again.",
                )
            if batch.final and batch.end_lsn >= self._level_at:
                self._level_at = 0
            return True
        if in_pieces and self._alone and commit_lsn == self._alone:
            return False
        if in_pieces and needs_order:
            raise NeedsOrder(commit_lsn)
        return not needs_order and (in_pieces or batch.rows >= TOGETHER)

    def apply(self, batch: Batch, parts: list[Part]) -> bool:
        """Apply a batch; True if it was committed.

        :raises StreamError: PGM4024 if a change cannot be applied; the target is as after the last batch.
        :raises psycopg.Error: if it is worth another attempt on new connections.
        :raises Moved: see there.
        """
        try:
            if batch.abort:
                self._rollback()
                return False
            active = [part for part in parts if self._lacks(part)]
            self._together(active, lambda part: self._appliers[part.lane].apply(part))
            if not batch.final:
                return False
            self._together(active, lambda part: self._appliers[part.lane].commit(part))
        except BaseException:
            self._rollback()
            raise
        if active and active[0].alone:
            for applier in self._appliers[1:]:
                applier.follow(self._appliers[0].position)
        self.position = min((applier.position for applier in self._appliers), key=lambda position: position.end_lsn)
        return True

    def _lacks(self, part: Part) -> bool:
        """Is ``part`` not yet on the target? A lane that is ahead has it."""
        has = self._appliers[part.lane].position.end_lsn
        batch = part.batch
        return batch.end_lsn > has if batch.final else batch.last_lsn >= has

    def _together(self, parts: list[Part], call: t.Callable[[Part], None]) -> None:
        """``call`` for all parts at once; when all have ended, the error that tells most."""
        if self._pool is None or len(parts) < 2:
            for part in parts:
                call(part)
            return
        futures = [self._pool.submit(call, part) for part in parts]
        errors = [error for error in [future.exception() for future in futures] if error is not None]
        if errors:
            raise min(errors, key=_rank)

    def _rollback(self) -> None:
        for applier in self._appliers:
            applier.rollback()


def _rank(error: BaseException) -> int:
    """What no further attempt can cure comes first."""
    if isinstance(error, StreamError):
        return 0
    return 2 if isinstance(error, (psycopg.Error, Moved)) and (isinstance(error, Moved) or transient(error)) else 1
