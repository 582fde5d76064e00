# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""All units of a base copy through a number of relays, with repetition of what fails for a passing reason."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import threading
import typing as t

from ..errors import ConnectionFailed, CopyError, MigrationError
from ..postgres.drivers import asyncpg
from ..postgres.identifiers import SCHEMA
from ..postgres.session import passing
from .crew import Crew, Hand
from .locks import LOCKED_SECONDS, stays_locked
from .plan import PlannedTable, Unit
from .progress import Progress
from .relay import Done, SnapshotGone
from .tools import Stopped
from .units import Units

ATTEMPTS = 6
WAIT = 0.5
LONGEST_WAIT = 15.0
"""Seconds: first and longest pause between two attempts at one unit."""

BRIEF = 2.0
"""Seconds that a relay waits for a lock where something else could be copied meanwhile."""

STOP_POLL = 0.2


def may_pass(exc: BaseException) -> bool:
    """May what ended in ``exc`` succeed later? Our own mark that is there already is one of an attempt whose COMMIT was not answered: it
    came through while this one was at work."""
    ours = getattr(exc, "sqlstate", None) == "23505" and getattr(exc, "schema_name", None) == SCHEMA
    return ours or passing(exc)


class TableCopy:
    """Copies units until none is left.

    :param complete: called with a table when its last chunk is committed.
    :param committed: called with each part that this process has copied.
    """

    def __init__(
        self,
        jobs: int,
        progress: Progress,
        stop: threading.Event,
        complete: t.Callable[[PlannedTable], None],
        committed: t.Callable[[Done], None],
    ) -> None:
        self._jobs = jobs
        self._progress = progress
        self._stop = stop
        self._complete = complete
        self._committed = committed
        self._units = Units()
        self._locked: dict[str, str] = {}
        self._left: dict[str, int] = {}
        self._lost: dict[str, str] = {}
        self._loading: set[str] = set()
        self.done: list[Done] = []

    def run(self, crew: Crew, units: t.Sequence[Unit]) -> dict[str, str]:
        """Copy ``units`` by the relays of ``crew``.

        :return: tables that need another snapshot, by qualified name, with the reason.
        :raises CopyError: for the first unit that cannot be copied.
        :raises Stopped: soon after the stop event was set.
        """
        self._units = Units(units)
        self._lost = {}
        self._left = dict(collections.Counter(planned.table.qualified for unit in units for planned, dummy in unit.parts))
        asyncio.run(self._run(crew))
        return self._lost

    async def _run(self, crew: Crew) -> None:
        async with crew:
            await self._share_out([crew.hand(number) for number in range(max(1, min(self._jobs, len(self._units))))])

    async def _share_out(self, relays: t.Sequence[Hand]) -> None:
        tasks = [asyncio.ensure_future(self._work(relay)) for relay in relays]
        watch = asyncio.ensure_future(self._watch())
        try:
            pending: set[asyncio.Future[None]] = {watch, *tasks}
            while pending - {watch}:
                finished, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in finished:
                    task.result()
        finally:
            for task in (watch, *tasks):
                task.cancel()
            await asyncio.gather(watch, *tasks, return_exceptions=True)

    async def _watch(self) -> None:
        while not self._stop.is_set():
            await asyncio.sleep(STOP_POLL)
        raise Stopped

    async def _work(self, relay: Hand) -> None:
        try:
            while not self._units.over:
                unit = self._units.take()
                if unit is None:  # others are at work, or a table is locked
                    relay.close()
                    await asyncio.sleep(STOP_POLL)
                    continue
                try:
                    await self._unit(relay, unit)
                finally:
                    self._units.release(unit)
        finally:
            relay.close()

    async def _unit(self, relay: Hand, unit: Unit) -> None:
        self._begin(unit)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                done = await relay.marked(unit) if attempt > 1 else []
                done = done or await relay.copy(unit, again=attempt > 1, patience=BRIEF if self._units.others else 0.0)
                break
            except SnapshotGone as exc:
                self._lose(unit, exc.reason)
                return
            except asyncpg.LockNotAvailableError as exc:
                await self._stand_back(relay, unit, exc)
                return
            except Exception as exc:
                if attempt == ATTEMPTS or not may_pass(exc):
                    raise self._failed(unit, exc) from exc
                if isinstance(exc, MigrationError) or not getattr(exc, "sqlstate", None):
                    relay.close()
                await asyncio.sleep(min(LONGEST_WAIT, WAIT * 2**attempt))
        self._settle(done)

    def _failed(self, unit: Unit, exc: Exception) -> MigrationError:
        """Count ``unit`` as errored; the error to raise."""
        self._progress.add(tables_errored=1)
        for planned, dummy in unit.parts:
            self._progress.table(planned.table.label, state="errored")
        return failure(unit, exc)

    # -- locks of others

    async def _stand_back(self, relay: Hand, unit: Unit, exc: Exception) -> None:
        """Somebody has locked a table of ``unit``: it is tried again when the others are done, and said who it waits for.

        :raises CopyError: PGM3021 when nothing else has been left for :data:`LOCKED_SECONDS`.
        """
        if len(unit.parts) > 1:  # the others of a bundle need not wait
            self._units.last(Unit((part,)) for part in unit.parts)
            return
        label = unit.parts[0][0].table.label
        holder = ""
        with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, MigrationError):
            holder = await relay.holders(unit)
        seconds = self._units.locked(unit, int(self._progress.get("bytes_moved")))
        by = f" by {holder}" if holder else ""
        if seconds > LOCKED_SECONDS:
            self._failed(unit, exc)
            said = f"Could not copy {label}: it is locked{by}, and nothing else has been left to copy for {seconds:.0f} s."
            raise stays_locked(said, label, holder) from exc
        if label not in self._locked:
            self._progress.note(f"{label} was locked{by}: it was copied after the others.")
        self._tell_locked(label, holder or "somebody whom the server does not show")

    def _tell_locked(self, label: str, holder: str) -> None:
        """``label`` waits for ``holder``; for nobody any more if that is empty."""
        if not holder and label not in self._locked:
            return
        self._locked[label] = holder
        waiting = {name: whom for name, whom in self._locked.items() if whom}
        text = "; ".join(f"{name} waits for a lock of {whom}" for name, whom in waiting.items())
        self._progress.set(locked=waiting, message=text)

    def _begin(self, unit: Unit) -> None:
        """Count the tables that are begun with ``unit`` as loading, no longer as queued."""
        fresh = {planned.table.qualified for planned, dummy in unit.parts} - self._loading
        self._loading |= fresh
        for planned, dummy in unit.parts:
            self._progress.table(planned.table.label, state="loading")
        self._progress.add(tables_queued=-len(fresh), tables_loading=len(fresh))

    def _settle(self, done: list[Done]) -> None:
        """Count what is committed and announce tables that are complete."""
        self.done.extend(done)
        self._progress.add(chunks_done=len(done), rows_done=sum(d.rows for d in done), bytes_done=sum(d.chunk.bytes for d in done))
        for item in done:
            self._committed(item)
            name = item.planned.table.qualified
            self._left[name] -= 1
            complete = not self._left[name] and name not in self._lost
            self._progress.table(item.planned.table.label, state="complete" if complete else "", done=item.chunk.bytes, rows=item.rows)
            self._tell_locked(item.planned.table.label, "")
            if complete:
                self._loading.discard(name)
                self._progress.add(tables_complete=1, tables_loading=-1)
                self._complete(item.planned)

    def _lose(self, unit: Unit, reason: str) -> None:
        """``unit`` needs another snapshot. Of a bundle, each table is tried alone, so that only the one at fault does."""
        if len(unit.parts) > 1:
            self._units.first(Unit((part,)) for part in unit.parts)
            return
        names = {planned.table.qualified for planned, dummy in unit.parts}
        back = names & self._loading
        self._loading -= back
        self._progress.add(tables_queued=len(back), tables_loading=-len(back))
        self._lost.update(dict.fromkeys(names, reason))
        self._units.drop(lambda u: all(p.table.qualified in names for p, dummy in u.parts))


def failure(unit: Unit, exc: Exception) -> MigrationError:
    """What to raise for ``unit``: which tables, the server's words, the remedy."""
    if isinstance(exc, MigrationError):
        return exc
    if may_pass(exc) and not str(getattr(exc, "sqlstate", None) or "").startswith(("40", "55")):
        hint = "What is copied stays; the copy goes on by itself when the server answers."
        return ConnectionFailed(f"Sessions of the base copy end again and again: {exc}", hint=hint, details={"reason": "lost"})
    labels = ", ".join(planned.table.label for planned, dummy in unit.parts[:5]) + (", ..." if len(unit.parts) > 5 else "")
    state = str(getattr(exc, "sqlstate", None) or "")
    words = str(exc) or type(exc).__name__
    for attribute in ("schema_name", "table_name", "detail", "context"):
        with contextlib.suppress(AttributeError):
            value = getattr(exc, attribute)
            words += f" [{attribute.replace('_', ' ')}: {value}]" if value else ""
    hint = "Run the playbook again: tables that are complete stay, the others are copied again."
    code = "PGM3010"
    if state == "42501" and "row-level security" in words:
        code, hint = (
            "PGM3011",
            "Row security hides rows: give the source user BYPASSRLS, or ownership of the table without FORCE ROW LEVEL SECURITY.",
        )
    elif state == "42501":
        hint = "GRANT SELECT on the table to the source user (or membership in pg_read_all_data)."
    elif state.startswith("53100"):
        hint = "The target's disk is full: enlarge it and run the playbook again."
    return CopyError(f"Could not copy {labels}: {words} (SQLSTATE {state or 'none'}).", code=code, hint=hint, sqlstate=state)
