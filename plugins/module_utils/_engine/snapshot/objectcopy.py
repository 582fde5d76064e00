# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Large objects of a base copy, beside its rows: in a thread, under the same snapshot and the same restraint."""

from __future__ import annotations

import threading
import time
import typing as t

from ..errors import CopyError
from ..postgres.drivers import psycopg
from ..postgres.session import connect, lost
from ..spec import MigrationSpec
from .largeobjects import LargeObjects, count_large_objects
from .pace import Pace
from .progress import Progress


class ObjectCopy:
    """Begins at once.

    :param source: opens a session on the source under the snapshot; it is closed when all are copied.
    """

    def __init__(
        self,
        spec: MigrationSpec,
        database: str,
        source: t.Callable[[], psycopg.Connection[t.Any]],
        progress: Progress,
        pace: Pace,
        stop: threading.Event,
    ) -> None:
        self._spec, self._database, self._source = spec, database, source
        self._progress, self._pace, self._stop = progress, pace, stop
        self._failure: BaseException | None = None
        self._woke = time.monotonic()
        self._thread = threading.Thread(target=self._guarded, name="large objects", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for the end and raise what it raised."""
        self._thread.join()
        if self._failure:
            raise self._failure

    def abandon(self) -> None:
        """Wait no longer than it takes to notice a stop."""
        self._thread.join(timeout=1)

    def _guarded(self) -> None:
        try:
            with self._source() as source:
                self._copy(source)
        except BaseException as exc:  # handed to the thread that waits
            self._failure = exc

    def _copy(self, source: psycopg.Connection[t.Any]) -> None:
        total = count_large_objects(source)
        if not total:
            return
        self._progress.set(large_objects_total=total, large_objects_done=0, large_object_bytes=0)
        with connect(self._spec.target, self._database, purpose="large objects") as target:
            objects = LargeObjects(source, target, self._let_pass, lambda count: self._progress.add(large_objects_done=count))
            try:
                objects.copy()
            except psycopg.Error as exc:
                if lost(exc):
                    raise
                raise self._refused(exc) from exc
            for note in objects.notes:
                self._progress.note(note)

    def _let_pass(self, size: int) -> None:
        """Let bytes pass when it is their time, as the relays do with rows."""
        self._pace.wait(size, time.monotonic() - self._woke, self._stop)
        self._woke = time.monotonic()
        self._progress.add(large_object_bytes=size, bytes_moved=size)

    def _refused(self, exc: psycopg.Error) -> CopyError:
        words = exc.diag.message_primary or " ".join(str(exc).split())
        return CopyError(
            f"Could not copy the large objects of {self._database}: {words} (SQLSTATE {exc.sqlstate or 'none'}).",
            code="PGM3010",
            sqlstate=exc.sqlstate or "",
            hint="On the source: GRANT SELECT ON LARGE OBJECT to the migration's user." if exc.sqlstate == "42501" else "",
        )
