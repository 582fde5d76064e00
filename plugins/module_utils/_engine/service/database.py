# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""One database of a migration as the service sees it: its two processes, its figures, and an error that is its own and nobody else's."""

from __future__ import annotations

import asyncio
import typing as t

from ..errors import MigrationError, ServiceError
from ..migration.catalogue import now
from ..migration.paths import MigrationPaths
from ..monitor.text import stall_text
from .children import Child
from .faults import lost, pause_before, weight
from .status import FOLLOWING, Progress

GRACE_SECONDS = 5.0
"""How long a receiver that lost its slot is not yet believed: the guard of the worker may be about to say why."""


class Database:
    """The processes of ``name`` and what they say.

    :param note: ``note(level, text)`` writes into the history of the migration.
    :param changed: is called when the migration's state may have to follow.
    :param keep: is called when :attr:`notes` are to be kept for another life of the service; ``notes`` are those of the last one.
    :ivar notes: what the copy left out or adapted.
    :ivar error: what holds this database up, None if nothing does.
    :ivar over: no attempt is going to be made by itself: only a new run can help, or nothing.
    :ivar arrived: its rows are on the target.
    :ivar ended: its migration is over.
    """

    def __init__(
        self,
        paths: MigrationPaths,
        name: str,
        note: t.Callable[[str, str], None],
        changed: t.Callable[[], None],
        keep: t.Callable[[], None],
        notes: t.Sequence[str] = (),
    ) -> None:
        self.name = name
        self.notes = list(notes)
        self.progress = Progress()
        self.plugin: dict[str, str] = {}
        self.error: MigrationError | None = None
        self.over = False
        self.arrived = False
        self.ended = False
        self._origin = ""
        self._attempts: dict[str, int] = {}
        self._note, self._changed, self._keep = note, changed, keep
        self.worker = Child(paths, "work", name, self._heard, lambda error: self._ended("work", error))
        self.receiver = Child(paths, "receive", name, self._heard, lambda error: self._ended("receive", error))
        self._timers: set[asyncio.TimerHandle] = set()

    # -- what the service wants

    @property
    def busy(self) -> bool:
        """Is it on its way to the stream?"""
        return self.worker.started and not self.arrived and self.error is None

    def start(self) -> None:
        """Begin, or go on."""
        self.worker.start()

    def retry(self) -> bool:
        """Try again what failed; False if nothing had."""
        if self.error is None:
            return False
        self._clear()
        self._attempts.clear()
        self.worker.tell("retry")
        for child in (self.worker, self.receiver):
            if child.started and not child.alive:
                child.start()
        return True

    async def ask(self, command: str, **arguments: t.Any) -> dict[str, t.Any]:
        """Have the worker do its part of the cutover.

        :raises MigrationError: the worker's own, or that it does not run.
        """
        return await self.worker.ask(command, **arguments)

    async def stop(self) -> None:
        """End both processes."""
        for timer in self._timers:
            timer.cancel()
        await asyncio.gather(self.worker.stop(), self.receiver.stop())

    def finished(self, figures: t.Mapping[str, t.Any] | None = None) -> None:
        """Its migration is over; ``figures`` as they were then, where that was in another life of the service."""
        self.ended = self.arrived = True
        self.progress.merge(figures or {"phase": "finished", "state": "Succeeded", "ended": now()})
        if self.plugin or self.progress.figures.get("latency_seconds") is not None:  # all is applied, and nothing comes any more
            self.progress.merge({"latency_seconds": 0.0, "lag_bytes": 0})

    # -- what the processes say

    def _heard(self, report: dict[str, t.Any]) -> None:
        event = report.get("event")
        if self.ended:  # a figure that was under way when its process was told to finish is older than the end
            return
        if "progress" in report:
            self._figures(report["progress"])
        elif "phase" in report:
            self._phase(report["phase"])
        elif event == "slot":
            self.plugin = {"plugin": report["plugin"], "reason": report["reason"]}
            if not self.receiver.started:
                self.receiver.start()
        elif event == "held":
            self._fail("apply", MigrationError.from_dict(report["error"]), report["retry_seconds"])
        elif event == "recovered":
            self._recovered()
        elif "warning" in report:
            self._say(report["warning"])

    def _figures(self, figures: dict[str, t.Any]) -> None:
        for warning in figures.pop("warnings", ()):
            self._say(warning)
        if "stalled" in figures:
            self._stalled(figures["stalled"])
        if fresh := [text for text in figures.pop("notes", ()) if text not in self.notes]:
            self.notes += fresh
            for text in fresh:
                self._note("info", f"{self.name}: {text}")
            self._keep()
        self.progress.merge(figures)
        if figures.get("receiver") == "streaming" and self._origin == "receive":
            self._recovered()
        if figures.get("applied_lsn") and self.receiver.started:
            self.receiver.tell("applied", lsn=figures["applied_lsn"])

    def _stalled(self, stall: t.Mapping[str, t.Any] | None) -> None:
        """A stall is an event when it begins and when it is over (B18)."""
        before = self.progress.figures.get("stalled")
        if stall and not before:
            self._note("warning", f"{self.name}: {stall_text(stall)}")
        elif before and not stall:
            self._note("info", f"{self.name}: it moves again, after {before['seconds']:.0f} s.")

    def _phase(self, phase: str) -> None:
        self.progress.phase(phase)
        if phase in FOLLOWING:
            self.arrived = True
            if self._origin == "work":
                self._recovered()
        self._changed()

    def _say(self, text: str) -> None:
        self.progress.figures["message"] = text
        self._note("warning", f"{self.name}: {text}")

    # -- errors

    def _ended(self, role: str, error: MigrationError) -> None:
        """A process has ended with an error that starting it again at once would not cure."""
        if role == "receive" and lost(error):
            self._later(GRACE_SECONDS, lambda: self._lose(error))
        elif lost(error):
            self._lose(error)
        elif role == "work" and not self.arrived:
            self._fail(role, error, None)  # of the copy: what stands half done on the target is for a person to see
        else:
            self._attempts[role] = self._attempts.get(role, 0) + 1
            pause = pause_before(self._attempts[role])
            self._fail(role, error, pause)
            self._later(pause, lambda: self._restart(role))

    def _restart(self, role: str) -> None:
        child = self.worker if role == "work" else self.receiver
        if not child.alive and not self.over:
            child.start()

    def _lose(self, error: MigrationError) -> None:
        """Nothing can go on: no process is needed any more."""
        self._fail("lost", error, None)
        for child in (self.worker, self.receiver):
            asyncio.get_running_loop().create_task(child.stop())

    def _fail(self, origin: str, error: MigrationError, retry: float | None) -> None:
        if weight(self.error) > weight(error):
            return
        known = self.error
        error.details.setdefault("database", self.name)
        self.error, self._origin, self.over = error, origin, retry is None
        again = "" if retry is None else f" The next attempt is made in {retry:.0f} s."
        self.progress.merge(
            {"state": "Failed", "message": error.message + again, "error": error.to_dict(), "ended": now(), "stalled": None}
        )
        if known is None or known.message != error.message:
            self._note("error", f"{self.name}: {error.message}{again}")
        self._changed()

    def _recovered(self) -> None:
        if self.error is not None and not self.over:
            self._note("info", f"{self.name}: the cause is gone, it goes on.")
            self._attempts.clear()
            self._clear()

    def _clear(self) -> None:
        self.error, self._origin, self.over = None, "", False
        self.progress.merge({"state": "InProgress", "message": "", "error": None, "ended": None})
        self._changed()

    def _later(self, seconds: float, call: t.Callable[[], None]) -> None:
        self._timers = {timer for timer in self._timers if not timer.cancelled() and timer.when() > asyncio.get_running_loop().time()}
        self._timers.add(asyncio.get_running_loop().call_later(seconds, call))


def first_error(databases: t.Iterable[Database]) -> MigrationError | None:
    """The error to tell of the migration: of the first database that has one."""
    return next((database.error for database in databases if database.error is not None), None)


def refusal(databases: t.Iterable[Database]) -> MigrationError:
    """The error to end with when nothing can go on."""
    return first_error(databases) or ServiceError("A database cannot go on.", code="PGM8005")
