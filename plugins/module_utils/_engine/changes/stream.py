# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The change stream of one database: spool -> decoder -> batches -> target, until it is stopped.

One thread reads, decodes and prepares the next batch while the other has the present one applied. A batch is as large as what is readable
allows: a lone commit goes to the target at once, a backlog in batches of ``batch_rows``.
"""

from __future__ import annotations

import datetime
import gc
import queue
import threading
import time
import typing as t
from pathlib import Path

from ..errors import ConnectionFailed, StreamError
from ..postgres.drivers import psycopg
from ..source.plugin import PluginChoice
from ..spec import MigrationSpec
from .apply import Moved, Position
from .assemble import Assembler
from .batch import Batch
from .ddl import Baseline
from .decoders import make_decoder, make_reader
from .events import Decoder
from .heartbeat import Heartbeat
from .lanes import Lanes, NeedsOrder
from .partition import Part
from .rows import transient

POLL = 0.01
"""Seconds between looks at the spool when nothing is readable."""

GATHER = 0.2
"""Seconds from a batch that is not full to the next one: a stream that comes slowly is not applied in crumbs, each with a commit; what
comes after a rest goes at once."""

REPORT_INTERVAL = 0.5
BACKOFF = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
MARKERS_KEPT = 100
COUNTED = ("inserts", "updates", "deletes", "truncates")
GARBAGE = 200_000
"""Objects between garbage collections: a batch is made of many and has no cycles."""


class Prepared(t.NamedTuple):
    """A batch and what each lane has of it."""

    batch: Batch
    parts: list[Part]


class ChangeStream:
    """Applies the changes of one database.

    :param report: is called with the keys of the contract about twice a second.
    """

    def __init__(
        self,
        spec: MigrationSpec,
        database: str,
        choice: PluginChoice,
        spool: Path,
        report: t.Callable[[dict[str, t.Any]], None],
        stop: threading.Event,
        baseline: Baseline | None = None,
    ) -> None:
        self._spec, self._database, self._choice = spec, database, choice
        self._spool, self._report, self._stop = spool, report, stop
        self._baseline = baseline
        self._changed = threading.Condition()
        self._position = Position()
        self._markers: dict[str, Position] = {}
        self._hold: str | None = None
        self._tables: dict[str, list[int]] = {}
        self._pieces: dict[str, list[int]] = {}
        self._coming: dict[str, list[int]] = {}
        self._errors: dict[str, int] = {}
        self._fallbacks = 0
        self._alone = 0
        self._next_report = 0.0
        self._rate = (time.monotonic(), 0)
        self._ended: BaseException | None = None
        self._at_work: float | None = None
        self._rested = time.monotonic()
        self._heartbeat = Heartbeat(spec, database, stop, messages=choice.messages, report=report, baseline=baseline)

    @property
    def position(self) -> Position:
        """What is committed on the target."""
        return self._position

    def standstill(self) -> tuple[float | None, float]:
        """Seconds for which a batch has been in the target's hands, None if it has none; and seconds since something came out of the spool,
        or was applied, or was not to be. A batch that broke off and is tried again is still the same work."""
        since, rested, now = self._at_work, self._rested, time.monotonic()
        return None if since is None else now - since, now - rested

    def hold_at(self, token: str | None) -> None:
        """Apply nothing behind the marker ``token``: what is committed there is not the target's (R97). None lets the stream go on."""
        with self._changed:
            self._hold = token
            self._changed.notify_all()

    def _held(self) -> bool:
        return self._hold is not None and self._hold in self._markers

    def wait_marker(self, token: str, lsn: int, timeout: float, stop: threading.Event | None = None) -> Position:
        """Wait until the target has everything before our own marker; called from another thread.

        The marker is the logical message ``pgm.marker`` with the content ``token``, or, where messages are not streamed, ``lsn``.

        :param stop: set where nobody waits any more; None: the stream's own.
        :raises StreamError: PGM4040 after ``timeout`` seconds, or when it is stopped; what ended the stream if it ended.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                if token in self._markers:
                    return self._markers[token]
                if lsn and self._position.end_lsn >= lsn:
                    return self._position
                if self._ended is not None:
                    raise self._ended
                if (stop or self._stop).is_set():  # a worker whose service is gone must not outlive it by what is left of the pause
                    raise StreamError(f"The stream of {self._database} was stopped before it came to the marker.", code="PGM4040")
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(min(left, 1.0)) and time.monotonic() >= deadline:
                    raise StreamError(
                        f"The changes of {self._database} were not drained to the marker within {timeout:g} seconds.",
                        code="PGM4040",
                        hint="See latency and lag: the target or the connection may be too slow for the source's writes.",
                    )

    def run(self) -> None:
        """Apply until ``stop``.

        :raises StreamError: if a change cannot be applied or read; nothing past it was applied.
        :raises MigrationError: if the target refuses us for good.
        """
        self._heartbeat.start()
        gc.set_threshold(GARBAGE, 20, 100)
        failures = 0
        try:
            while not self._stop.is_set():
                before = self._position
                try:
                    self._session()
                    return
                except NeedsOrder as exc:
                    self._alone = exc.commit_lsn
                except (psycopg.Error, ConnectionFailed, Moved) as exc:
                    if isinstance(exc, psycopg.Error) and not transient(exc):
                        raise self._unforeseen(exc) from exc
                    if isinstance(exc, ConnectionFailed) and exc.details.get("reason") in ("authentication", "database"):
                        raise
                    failures = 0 if self._position != before else failures + 1
                    self._report({"message": f"Applying to {self._spec.target.label(self._database)} broke off: {exc}; trying again."})
                    self._stop.wait(BACKOFF[min(failures, len(BACKOFF) - 1)])
        except BaseException as exc:
            table = exc.details.get("table") if isinstance(exc, StreamError) else None
            if table:
                self._errors[table] = self._errors.get(table, 0) + 1
            with self._changed:
                self._ended = exc
                self._changed.notify_all()
            raise
        finally:
            self._tell(force=True)

    def _unforeseen(self, exc: psycopg.Error) -> StreamError:
        label = self._spec.target.label(self._database)
        said = exc.diag.message_primary or " ".join(str(exc).split())
        return StreamError(f"Applying changes on {label} failed: {said}", code="PGM4026", server=label, sqlstate=exc.sqlstate or "")

    def _session(self) -> None:
        """One connection to the target, until ``stop`` or an error."""
        decoder = make_decoder(self._choice)
        lanes = Lanes(self._spec, self._database, bare_bytea=decoder.bare_bytea, alone=self._alone, streamed=self._streamed())
        if lanes.resting:
            self._report({"message": f"Until the cutover these rest on the target: {'; '.join(lanes.resting)}."})
        with self._changed:
            self._pieces, self._coming = {}, {}
        give_up = threading.Event()
        prepared: queue.Queue[Prepared | BaseException] = queue.Queue(1)
        with self._changed:
            self._position = lanes.position
            self._changed.notify_all()
        feeder = threading.Thread(target=self._feed, args=(lanes, decoder, prepared, give_up), name="decode", daemon=True)
        feeder.start()
        try:
            while not self._stop.is_set():
                self._obey_guard()
                if self._stop.is_set():  # perhaps during a pause, in which nothing is to be applied
                    break
                try:
                    item = prepared.get(timeout=0.2)
                except queue.Empty:
                    self._tell()
                    continue
                if isinstance(item, BaseException):
                    raise item
                self._apply(lanes, item)
        finally:
            give_up.set()
            lanes.close()
            feeder.join()

    def _streamed(self) -> t.Container[str] | None:
        """With ``on_ddl: ignore`` the tables that were there at the start: wal2json sends others too when its filter is made anew."""
        if self._baseline is None or self._spec.changes.on_ddl != "ignore":
            return None
        return self._baseline.read() or None

    def _obey_guard(self) -> None:
        """End or pause as the heartbeat's guards say; after a pause the target's tables are read anew."""
        paused = bool(self._heartbeat.paused)
        if paused:
            self._report({"paused": self._heartbeat.paused})
        while not self._stop.is_set() and self._heartbeat.paused and self._heartbeat.error is None:
            self._tell()
            self._stop.wait(0.2)
            self._at_work, self._rested = None, time.monotonic()
        if self._heartbeat.error is not None:
            raise self._heartbeat.error
        if paused and not self._stop.is_set():
            self._report({"paused": ""})
            raise Moved("the tables have changed")

    def _feed(self, lanes: Lanes, decoder: Decoder, prepared: queue.Queue[Prepared | BaseException], give_up: threading.Event) -> None:
        """Read, decode and prepare batches; an error is handed over as the last item."""
        try:
            self._read(lanes, decoder, prepared, give_up)
        except BaseException as exc:
            _put(prepared, exc, give_up)

    def _read(self, lanes: Lanes, decoder: Decoder, prepared: queue.Queue[Prepared | BaseException], give_up: threading.Event) -> None:
        changes = self._spec.changes
        start = lanes.position.end_lsn
        reader = make_reader(decoder, self._spool, start or lanes.start_lsn or None)
        assembler = Assembler(lanes.tables, decoder, start, changes.batch_rows, changes.batch_bytes, lanes.borders)
        next_batch = 0.0
        try:
            while not give_up.is_set():
                found = reader.next_block()
                if found is None:
                    if assembler.waiting and prepared.empty() and time.monotonic() >= next_batch:
                        assembler.flush()
                        next_batch = time.monotonic() + GATHER
                    else:
                        give_up.wait(POLL)
                else:
                    self._rested = time.monotonic()
                    block, first = found
                    if first:
                        assembler.begin_segment()
                    assembler.add(block.body, block.count)
                batch = assembler.take()
                while batch is not None:
                    parts = lanes.prepare(batch)  # which nets what was gathered: only now all is counted
                    with self._changed:
                        _add(self._coming, batch.counts)
                    if not _put(prepared, Prepared(batch, parts), give_up):
                        return
                    batch = assembler.take()
        finally:
            reader.close()

    def _apply(self, lanes: Lanes, item: Prepared) -> None:
        batch = item.batch
        fallbacks = lanes.fallbacks
        if self._at_work is None:
            self._at_work = time.monotonic()
        committed = lanes.apply(batch, item.parts)
        self._at_work, self._rested = None, time.monotonic()
        self._fallbacks += lanes.fallbacks - fallbacks
        if batch.abort:
            with self._changed:
                _add(self._coming, self._pieces, -1)
            self._pieces = {}
        _add(self._pieces, batch.counts)
        if committed:
            _add(self._tables, self._pieces)
            with self._changed:
                _add(self._coming, self._pieces, -1)
                self._pieces = {}
                self._position = lanes.position
                for token in batch.markers:
                    self._markers[token] = lanes.position
                while len(self._markers) > MARKERS_KEPT:
                    self._markers.pop(next(iter(self._markers)))
                self._changed.notify_all()
        self._tell()
        if lanes.outdated:
            raise Moved("the lanes are level, and others are wanted")
        with self._changed:
            held = self._held()
            while self._held() and not self._stop.is_set():
                self._changed.wait(0.2)
                self._rested = time.monotonic()
        if held and not self._stop.is_set():
            raise Moved("the cutover was given back, and may have restored what has to rest")

    def _tell(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if now < self._next_report and not force:
            return
        self._next_report = now + REPORT_INTERVAL
        totals = [sum(column) for column in zip(*self._tables.values(), strict=True)] or [0, 0, 0, 0]
        applied = sum(totals)
        since, before = self._rate
        rate = (applied - before) / (now - since) if now > since else 0.0
        if now - since >= 2.0 or applied == before:
            self._rate = (now, applied)
        source_lsn = self._heartbeat.source_lsn
        self._report(
            {
                **dict(zip(COUNTED, totals, strict=True)),
                "applied": applied,
                "applied_lsn": self._position.end_lsn,
                "latency_seconds": self.latency(),
                "lag_bytes": max(0, source_lsn - self._position.end_lsn) if source_lsn else None,
                "changes_per_second": round(rate, 1),
                "fallbacks": self._fallbacks,
                "tables": self.tables(),
            }
        )

    def tables(self) -> dict[str, dict[str, int]]:
        """For each table that had changes: ``inserts``, ``updates``, ``deletes``, ``truncates`` and ``applied``, their sum, of what is
        committed on the target; ``incoming`` with those decoded and not yet committed; ``errors`` that ended the stream (R86)."""
        with self._changed:
            coming = {label: sum(counts) for label, counts in self._coming.items()}
        found = {}
        for label in sorted({*self._tables, *coming, *self._errors}):
            counts = self._tables.get(label, [0, 0, 0, 0])
            applied = sum(counts)
            found[label] = {
                **dict(zip(COUNTED, counts, strict=True)),
                "incoming": applied + coming.get(label, 0),
                "applied": applied,
                "errors": self._errors.get(label, 0),
            }
        return found

    def latency(self) -> float | None:
        """Age of the last source commit that the target has (seconds, by the source's clock); None if none is known. It grows while nothing
        comes, whatever the reason: there is no false zero."""
        stamp = self._position.commit_time
        known = self._heartbeat.reached(self._position.end_lsn)
        if stamp:
            text = stamp + ":00" if len(stamp) > 3 and stamp[-3] in "+-" else stamp
            known = max(known, datetime.datetime.fromisoformat(_padded(text)).timestamp())
        return round(max(0.0, self._heartbeat.source_time() - known), 3) if known else None


def _add(totals: dict[str, list[int]], counts: dict[str, list[int]], times: int = 1) -> None:
    """Add the counts of each table to ``totals``, or take them away (-1)."""
    for label, found in counts.items():
        totals[label] = [a + times * b for a, b in zip(totals.get(label, (0, 0, 0, 0)), found, strict=True)]


def _padded(stamp: str) -> str:
    """``stamp`` with six digits of the second: Python before 3.11 takes no other number of them."""
    head, dot, tail = stamp.partition(".")
    if not dot:
        return stamp
    digits = tail[: len(tail) - 6]
    return f"{head}.{digits:0<6}{tail[len(digits) :]}"


def _put(prepared: queue.Queue[t.Any], item: t.Any, give_up: threading.Event) -> bool:
    while not give_up.is_set():
        try:
            prepared.put(item, timeout=0.1)
            return True
        except queue.Full:
            continue
    return False
