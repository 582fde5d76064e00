# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The change stream inside the worker of a database, over errors of the target: a change that cannot be applied holds this database up,
nothing behind it is applied, and the attempt is made again after a while or when the service says so.

While it is held up, the receiver goes on spooling, the guard goes on watching the WAL that the slot holds, and the latency grows, as it
must.
"""

from __future__ import annotations

import threading
import typing as t

from ..changes.apply import Position
from ..changes.ddl import Baseline
from ..changes.heartbeat import Heartbeat
from ..changes.stream import ChangeStream
from ..errors import MigrationError
from ..migration.paths import MigrationPaths
from ..postgres.lsn import parse_lsn
from ..source.plugin import PluginChoice
from ..spec import MigrationSpec
from .faults import lost, pause_before
from .link import Link
from .stall import APPLIER, Pulse

REPORT_SECONDS = 0.5


class Follower:
    """Applies the changes of ``database`` until it is stopped or they are lost.

    :ivar stream: of the present or the last attempt.
    :ivar failure: what ended it for good.
    """

    def __init__(
        self,
        paths: MigrationPaths,
        spec: MigrationSpec,
        database: str,
        choice: PluginChoice,
        baseline: Baseline,
        link: Link,
    ) -> None:
        self._paths, self._spec, self._database = paths, spec, database
        self._choice, self._baseline, self._link = choice, baseline, link
        self._over = threading.Event()
        self._wake = threading.Event()
        self._stopping = False
        self._failed_at = 0
        self._attempts = 0
        self.stream = self._new_stream()
        self._held: MigrationError | None = None
        self.failure: MigrationError | None = None

    def _new_stream(self) -> ChangeStream:
        self._over = threading.Event()
        spool = self._paths.spool(self._database)
        return ChangeStream(self._spec, self._database, self._choice, spool, self._report, self._over, self._baseline)

    def run(self) -> None:
        """The thread."""
        while not self._stopping:
            error = self._attempt()
            if error is None:
                return
            self._attempts += 1
            if not lost(error):
                error = self._hold(error)
            if error is not None:
                self.failure = error
                return
            if not self._stopping:
                self.stream = self._new_stream()

    @property
    def held(self) -> MigrationError | None:
        """The error that holds it up, None while it applies: one whose change has been applied since counts no more, also before that is
        reported."""
        return None if self._held and self.stream.position.end_lsn > self._failed_at else self._held

    def stop(self) -> None:
        """End the attempt or the wait for the next one."""
        self._stopping = True
        self._over.set()
        self._wake.set()

    def pulse(self) -> Pulse | None:
        """For how long nothing has moved; None while an error or a command holds the stream."""
        stream = self.stream
        if self.held or self._stopping:
            return None
        working, rested = stream.standstill()
        if working is not None:
            return Pulse("target", working, APPLIER)
        late = stream.latency()  # each heartbeat of the source comes through the stream
        return None if late is None else Pulse("source", min(late, rested) - 2 * self._spec.changes.heartbeat)

    def retry(self) -> None:
        """Try again now: the cause is said to be removed."""
        self._attempts = 0
        self._wake.set()

    def _attempt(self) -> MigrationError | None:
        """Apply until stopped; the error that ended it, or None."""
        over = self._over
        try:
            self.stream.run()
            return None
        except MigrationError as exc:
            return exc
        except Exception as exc:  # whatever it is, the service must hear of it
            return MigrationError(f"Unforeseen in the change stream: {type(exc).__name__}: {exc}", code="PGM9001")
        finally:
            over.set()  # the heartbeat of this attempt

    def _report(self, figures: dict[str, t.Any]) -> None:
        if self._held and int(figures.get("applied_lsn") or 0) > self._failed_at:
            self._held, self._attempts = None, 0
            self._link.send(event="recovered")
        self._link.send(progress=figures)

    def _hold(self, error: MigrationError) -> MigrationError | None:
        """Wait until it is time for another attempt; the error if changes were lost meanwhile."""
        position = self.stream.position
        self._failed_at = max(position.end_lsn, parse_lsn(error.details["lsn"]) if error.details.get("lsn") else 0)
        self._held = error
        pause = pause_before(self._attempts)
        self._wake.clear()
        self._link.send(event="held", error=error.to_dict(), retry_seconds=pause)
        over = threading.Event()
        guard = Heartbeat(self._spec, self._database, over, messages=self._choice.messages, report=self._link_progress)
        guard.start()
        try:
            left = pause
            while left > 0 and not self._stopping and guard.error is None:
                self._tell(position, guard)
                if self._wake.wait(REPORT_SECONDS):
                    break
                left -= REPORT_SECONDS
        finally:
            over.set()
        return guard.error

    def _link_progress(self, figures: dict[str, t.Any]) -> None:
        self._link.send(progress=figures)

    def _tell(self, position: Position, guard: Heartbeat) -> None:
        """Latency and lag of a target that stands still."""
        figures: dict[str, t.Any] = {"latency_seconds": self.stream.latency(), "changes_per_second": 0.0}
        if guard.source_lsn:
            figures["lag_bytes"] = max(0, guard.source_lsn - position.end_lsn)
        self._link.send(progress=figures)
