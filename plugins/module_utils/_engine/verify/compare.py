# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Is the target an exact copy of the source? (R109)

For each table both servers compute, in one pass of their own and without sending rows, the number of rows and the sum of the rows'
64-bit hashes (:mod:`.canonical`). The sum does not depend on the order of rows and sees duplicates. Large tables are read in ranges
of blocks by several sessions. Where a digest differs, :mod:`.differences` names the rows.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import threading
import time
import typing as t

from ..errors import MigrationError, VerificationFailed
from ..postgres.identifiers import quote_ident
from ..postgres.selection import Selection, chosen_tables
from ..postgres.session import server_errors
from ..spec import MigrationSpec
from .canonical import Method, choose_method
from .differences import Difference, find_differences
from .others import LargeObjectResult, SequenceResult, compare_large_objects, compare_sequences
from .schema import SchemaDifference, compare_schemas
from .sides import CTID_RANGES, Pair, Reading, Side, make_pair, make_reading

CHUNK_BYTES = 256 << 20
"""A table larger than this is read in ranges of about this size."""

MAY_READ = (
    "Where the server refuses a right: what the migration's user got for the migration was taken back at its end. GRANT pg_read_all_data"
    " (14 and later) or the tables' owner to it for as long as you compare."
)

ONLY_THERE = "the table exists only on the target"

Report = t.Callable[[dict[str, t.Any]], None]


@dataclasses.dataclass(frozen=True)
class TableResult:
    """One table. ``digest`` and ``digest_target`` are 128-bit hexadecimal sums of row hashes; ``differences`` as
    :meth:`Difference.to_dict` gives them; ``note`` says what is wrong besides rows; ``seconds`` is the time of the slower side.
    ``compared`` is False where a side was truncated or rewritten after its snapshot, or row security hides rows of it; ``equal`` is False
    then and proves nothing."""

    label: str
    rows_source: int
    rows_target: int
    equal: bool
    digest: str
    digest_target: str = ""
    differences: tuple[dict[str, t.Any], ...] = ()
    note: str = ""
    seconds: float = 0.0
    compared: bool = True

    def to_dict(self) -> dict[str, t.Any]:
        """Plain data."""
        return {**dataclasses.asdict(self), "differences": list(self.differences)}


@dataclasses.dataclass(frozen=True)
class VerifyResult:
    """The comparison of one database. ``equal`` speaks of data (tables, sequences, large objects), ``schema_equal`` of definitions."""

    database: str
    equal: bool
    tables: tuple[TableResult, ...]
    sequences: tuple[SequenceResult, ...]
    large_objects: LargeObjectResult | None
    schema: tuple[SchemaDifference, ...]
    seconds: float
    method: str

    @property
    def schema_equal(self) -> bool:
        """Are the definitions of both sides the same?"""
        return not self.schema

    @property
    def complete(self) -> bool:
        """Was every table compared? One that was truncated or rewritten after its snapshot cannot be, nor one with hidden rows."""
        return all(table.compared for table in self.tables)

    def before_cutover(self) -> VerifyResult:
        """The same of a database whose sequences and large objects are not judged, because the cutover brings them; until then sequences of
        the target are ahead on purpose (B14)."""
        sequences = tuple(dataclasses.replace(sequence, equal=True) for sequence in self.sequences)
        return dataclasses.replace(self, equal=all(table.equal or not table.compared for table in self.tables), sequences=sequences)

    @property
    def rows(self) -> int:
        """Rows compared, as counted on the source."""
        return sum(table.rows_source for table in self.tables)

    def summary(self) -> str:
        """One line for people."""
        lost = [table.label for table in self.tables if not table.compared]
        wrong = [table.label for table in self.tables if not table.equal and table.compared]
        wrong += [f"sequence {s.label}" for s in self.sequences if not s.equal]
        if self.large_objects is not None and not self.large_objects.equal:
            wrong.append("large objects")
        counted = f"{len(self.tables)} tables, {self.rows} rows, {len(self.sequences)} sequences in {self.seconds:.1f} s"
        verdict = "equal" if self.equal else f"{len(wrong)} differ: {', '.join(wrong[:5])}"
        lost_too = (
            f"; not compared, since truncated, rewritten or in motion meanwhile, or not all to be seen: {', '.join(lost)}" if lost else ""
        )
        return f"{self.database}: {verdict} ({counted}){lost_too}"

    def to_dict(self) -> dict[str, t.Any]:
        """Plain data."""
        return {
            "database": self.database,
            "equal": self.equal,
            "complete": self.complete,
            "schema_equal": self.schema_equal,
            "rows": self.rows,
            "tables": [table.to_dict() for table in self.tables],
            "sequences": [sequence.to_dict() for sequence in self.sequences],
            "large_objects": self.large_objects.to_dict() if self.large_objects else None,
            "schema": [difference.to_dict() for difference in self.schema],
            "seconds": round(self.seconds, 3),
            "method": self.method,
            "summary": self.summary(),
        }


def differing(databases: t.Mapping[str, t.Mapping[str, t.Any]]) -> list[str]:
    """``database: schema.table`` of each table that was compared and differs; ``databases`` are results as :meth:`VerifyResult.to_dict`
    gives them, by name."""
    return [
        f"{name}: {table['label']}"
        for name, found in databases.items()
        for table in found["tables"]
        if table["compared"] and not table["equal"]
    ]


def verify_database(
    spec: MigrationSpec,
    database: str,
    *,
    source_snapshot: str = "",
    target_snapshot: str = "",
    jobs: int = 2,
    report: Report | None = None,
    limit: int = 20,
    schema: bool = True,
    tables: t.Collection[str] = (),
    stop: threading.Event | None = None,
) -> VerifyResult:
    """Compare ``database`` on both sides; nothing is written on either.

    :param source_snapshot: exported snapshot to read under; empty: one of our own, so that the comparison means the present moment.
    :param target_snapshot: the same on the target; when given, sequences of the target may be ahead of the source's.
    :param jobs: sessions on each side that read tables (one more holds the snapshot).
    :param report: called with ``tables_total tables_done bytes_total bytes_done``, from several threads, one at a time.
    :param limit: differing rows to name for each table.
    :param schema: compare definitions as well.
    :param tables: labels (``schema.name``) to compare; empty: all.
    :param stop: set from elsewhere to end early.
    :raises VerificationFailed: if a side cannot be read; a difference is a result, no error.
    """
    started = time.monotonic()
    partly = Selection.of(spec.copy)
    with Side(spec.source, database, source_snapshot) as source, Side(spec.target, database, target_snapshot) as target:
        source.tables = {table.qualified: table for table in chosen_tables(source.leader, partly, source.every) if table.kind == "r"}
        if spec.copy.unlogged_tables == "empty":  # their rows stay behind, as asked
            for side in (source, target):
                side.tables = {name: table for name, table in side.tables.items() if table.persistence != "u"}
        work = _Comparison(source, target, max(1, jobs), report, stop or threading.Event(), limit, frozenset(tables))
        found = work.run()
        with server_errors("compare sequences and large objects", spec.target, database, kind=VerificationFailed, code="PGM6001"):
            sequences = () if tables else tuple(compare_sequences(source, target, partly, released=bool(target_snapshot)))
            large = None if tables else compare_large_objects(source, target, work.method)
            definitions = tuple(compare_schemas(source.leader, target.leader)) if schema and not tables else ()
        if spec.copy.present:  # its definitions are the user's, and so is what it has besides the source's tables
            definitions, found = (), [table for table in found if table.note != ONLY_THERE]
        if (
            spec.copy.present or not partly.everything
        ):  # what the target lacks was left out on purpose; tables are told by their names above
            sequences = tuple(s for s in sequences if s.target is not None and (s.source is not None or not spec.copy.present))
            definitions = tuple(d for d in definitions if d.target is not None)
    equal = all(table.equal or not table.compared for table in found) and all(s.equal for s in sequences) and (large is None or large.equal)
    return VerifyResult(database, equal, tuple(found), sequences, large, definitions, time.monotonic() - started, work.method.hashing)


@dataclasses.dataclass
class _Sum:
    """What one side has summed for one table so far; ``left`` counts the ranges still to come."""

    left: int
    rows: int = 0
    total: int = 0
    seconds: float = 0.0

    @property
    def digest(self) -> str:
        return format(self.total & (1 << 128) - 1, "032x")


@dataclasses.dataclass(frozen=True)
class _Task:
    label: str
    query: str
    bytes: int


class _Comparison:
    """The tables of one database on both sides."""

    def __init__(
        self, source: Side, target: Side, jobs: int, report: Report | None, stop: threading.Event, limit: int, only: frozenset[str]
    ) -> None:
        self.sides = (source, target)
        self._jobs, self._report, self._limit, self._stop = jobs, report, limit, stop
        with server_errors("try how to hash rows", target.endpoint, target.database, kind=VerificationFailed, code="PGM6001"):
            self.method: Method = choose_method(source.leader, target.leader)
        wanted = [q for q, table in source.tables.items() if not only or table.label in only]
        self._pairs = [make_pair(source, target, name) for name in wanted if name in target.tables]
        lone = [table for name, table in source.tables.items() if name in wanted and name not in target.tables]
        self._lone = [TableResult(table.label, 0, 0, False, "", note="the table is missing on the target") for table in lone]
        if not only:
            extra = [table for name, table in target.tables.items() if name not in source.tables]
            self._lone += [TableResult(table.label, 0, 0, False, "", note=ONLY_THERE) for table in extra]
        self._lone += self._hidden()
        self._readings: dict[str, tuple[Reading, Reading]] = {
            pair.label: (make_reading(pair, source, self.method, target=False), make_reading(pair, target, self.method, target=True))
            for pair in self._pairs
        }
        self._lock = threading.Lock()
        self._sums: tuple[dict[str, _Sum], dict[str, _Sum]] = ({}, {})
        self._errors: list[BaseException] = []
        self._rewritten: list[set[int]] = [set(), set()]
        self._bytes = [0, 0]  # total, done

    def _hidden(self) -> list[TableResult]:
        """Take out the pairs of which row security would hide rows from a side's user; what to tell of them."""
        told: dict[str, str] = {}
        for number, side in enumerate(self.sides):
            labels = {(pair.target if number else pair.source).oid: pair.label for pair in self._pairs}
            user = side.endpoint.user
            note = (
                f"row security of the {side.endpoint.side} hides rows from {user}: not compared; ALTER ROLE {quote_ident(user)} BYPASSRLS;"
            )
            told.update({labels[oid]: note for oid in side.hidden(list(labels))})
        self._pairs = [pair for pair in self._pairs if pair.label not in told]
        return [TableResult(label, 0, 0, False, "", note=note, compared=False) for label, note in told.items()]

    def run(self) -> list[TableResult]:
        """Sum on both sides at once, then look into what differs."""
        queues = [self._tasks(side) for side in (0, 1)]
        self._tell()
        threads = [
            threading.Thread(target=self._work, args=(side, queues[side]), name=f"verify-{side}-{number}", daemon=True)
            for side in (0, 1)
            for number in range(min(self._jobs, len(queues[side])))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._errors:
            raise self._errors[0]
        if self._stop.is_set():
            raise VerificationFailed("The comparison was ended before it was complete.", code="PGM6002")
        self._rewritten = [side.rewritten() for side in self.sides]
        return sorted([*(self._result(pair) for pair in self._pairs), *self._lone], key=lambda table: table.label)

    def _tasks(self, number: int) -> collections.deque[_Task]:
        """The queries of one side, the largest tables first."""
        side = self.sides[number]
        tasks: list[_Task] = []
        for pair in self._pairs:
            oid = (pair.target if number else pair.source).oid
            blocks = side.blocks.get(oid, 0)
            step = max(1, CHUNK_BYTES // side.block_bytes)
            starts = list(range(0, blocks, step)) if side.version >= CTID_RANGES and blocks > 2 * step else [0]
            reading = self._readings[pair.label][number]
            for position, low in enumerate(starts):
                high = starts[position + 1] if position + 1 < len(starts) else None
                size = ((high if high is not None else blocks) - low) * side.block_bytes
                tasks.append(_Task(pair.label, reading.digest((low, high) if len(starts) > 1 else None), size))
            self._sums[number][pair.label] = _Sum(len(starts))
        tasks.sort(key=lambda task: -task.bytes)
        self._bytes[0] += sum(task.bytes for task in tasks)
        return collections.deque(tasks)

    def _work(self, number: int, queue: collections.deque[_Task]) -> None:
        side = self.sides[number]
        try:
            with side.session() as conn:
                while not self._stop.is_set():
                    try:
                        task = queue.popleft()
                    except IndexError:
                        break
                    began = time.monotonic()
                    doing = f"read {task.label}"
                    # rolled back to before it, the snapshot stays and the lock is gone: no TRUNCATE waits for the whole comparison
                    reading = server_errors(doing, side.endpoint, side.database, kind=VerificationFailed, code="PGM6001", hint=MAY_READ)
                    with reading, conn.transaction(force_rollback=True):
                        row = conn.execute(task.query).fetchone() or (0, 0)
                    self._add(number, task, int(row[0]), int(row[1]), time.monotonic() - began)
        except BaseException as exc:  # the thread ends; run() raises it
            with self._lock:
                self._errors.append(exc if isinstance(exc, MigrationError) else VerificationFailed(f"Comparison failed: {exc!r}"))
            self._stop.set()

    def _add(self, number: int, task: _Task, rows: int, total: int, seconds: float) -> None:
        with self._lock:
            found = self._sums[number][task.label]
            found.left -= 1
            found.rows += rows
            found.total += total
            found.seconds += seconds
            self._bytes[1] += task.bytes
            self._tell()

    def _tell(self) -> None:
        if self._report is not None:
            done = sum(1 for label, found in self._sums[0].items() if found.left == 0 and self._sums[1][label].left == 0)
            self._report(
                {"tables_total": len(self._pairs), "tables_done": done, "bytes_total": self._bytes[0], "bytes_done": self._bytes[1]}
            )

    def _result(self, pair: Pair) -> TableResult:
        ours, theirs = self._sums[0][pair.label], self._sums[1][pair.label]
        same = (ours.rows, ours.total) == (theirs.rows, theirs.total)
        differences: list[Difference] = []
        if not same:
            target = self.sides[1]
            with server_errors(f"look into {pair.label}", target.endpoint, target.database, kind=VerificationFailed, code="PGM6001"):
                differences = self._look_into(pair, max(ours.rows, theirs.rows))
                self._rewritten = [side.rewritten() for side in self.sides]
        sides = (pair.source.oid, ours, self._rewritten[0]), (pair.target.oid, theirs, self._rewritten[1])
        if any(oid in rewritten and not (same and found.rows) for oid, found, rewritten in sides):
            note = "truncated or rewritten after the snapshot, which sees it empty ever since: not compared"
            return TableResult(pair.label, ours.rows, theirs.rows, False, ours.digest, theirs.digest, note=note, compared=False)
        return TableResult(
            pair.label,
            ours.rows,
            theirs.rows,
            same and not pair.problems,
            ours.digest,
            theirs.digest,
            tuple(difference.to_dict() for difference in differences),
            "; ".join(pair.problems),
            round(max(ours.seconds, theirs.seconds), 3),
        )

    def _look_into(self, pair: Pair, rows: int) -> list[Difference]:
        with contextlib.ExitStack() as stack:
            for side in self.sides:  # locks end with it, snapshots do not
                stack.enter_context(side.leader.transaction(force_rollback=True))
            return find_differences(pair, self.sides, self._readings[pair.label], rows, self._limit)
