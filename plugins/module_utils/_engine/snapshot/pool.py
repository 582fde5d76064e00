# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A few sessions on the target that work off tasks, the most expensive first."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import threading
import typing as t

from ..errors import ConnectionFailed, CopyError, MigrationError
from ..postgres.drivers import psycopg
from ..postgres.session import connect, passing
from ..spec import Endpoint
from .tools import Stopped

Task = t.Callable[["psycopg.Connection[t.Any]"], None]

ATTEMPTS = 5
POLL = 0.2


class TargetPool:
    """``jobs`` threads with a session each; the sessions are opened at the first task.

    A task may be run again after a lost session, so it must find what it did before.

    :param setup: SQL that each session starts with.
    """

    def __init__(self, endpoint: Endpoint, database: str, jobs: int, purpose: str, setup: str, stop: threading.Event) -> None:
        self._endpoint = endpoint
        self._database = database
        self._purpose = purpose
        self._setup = setup
        self._stop = stop
        self._order = itertools.count()
        self._tasks: list[tuple[float, int, str, Task]] = []
        self._busy: dict[int, psycopg.Connection[t.Any]] = {}
        self._working = 0
        self._closed = False
        self._failure: BaseException | None = None
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._serve, name=f"{purpose}-{i}", daemon=True) for i in range(max(1, jobs))]
        for thread in self._threads:
            thread.start()

    def submit(self, cost: float, doing: str, task: Task) -> None:
        """Queue ``task``; ``doing`` completes the sentence "Could not ..."."""
        with self._changed:
            heapq.heappush(self._tasks, (-cost, next(self._order), doing, task))
            self._changed.notify_all()

    def drain(self) -> None:
        """Wait until all tasks are done.

        :raises CopyError: the first failure; tasks that had not begun are then dropped.
        :raises Stopped: if the stop event was set.
        """
        with self._changed:
            while (self._tasks or self._working) and not self._failure and not self._stop.is_set():
                self._changed.wait(POLL)
        if self._failure:
            self.close()
            raise self._failure
        if self._stop.is_set():
            raise Stopped

    @property
    def failed(self) -> bool:
        """Has a task failed?"""
        return self._failure is not None

    def close(self) -> None:
        """Cancel what runs and end the threads."""
        with self._changed:
            self._closed = True
            self._tasks.clear()
            busy = list(self._busy.values())
            self._changed.notify_all()
        for conn in busy:
            with contextlib.suppress(psycopg.Error):
                conn.cancel()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout=10)

    def _next(self) -> tuple[str, Task] | None:
        with self._changed:
            while not self._tasks:
                if self._closed or self._failure:
                    return None
                self._changed.wait()
            if self._closed or self._failure or self._stop.is_set():
                return None
            dummy, dummy, doing, task = heapq.heappop(self._tasks)
            self._working += 1
            return doing, task

    def _serve(self) -> None:
        conn: psycopg.Connection[t.Any] | None = None
        try:
            while (item := self._next()) is not None:
                try:
                    conn = self._perform(conn, *item)
                except BaseException as exc:
                    with self._changed:
                        if not self._failure and not self._closed:
                            self._failure = exc
                finally:
                    with self._changed:
                        self._working -= 1
                        self._changed.notify_all()
        finally:
            if conn is not None:
                conn.close()

    def _perform(self, conn: psycopg.Connection[t.Any] | None, doing: str, task: Task) -> psycopg.Connection[t.Any]:
        me = threading.get_ident()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                if conn is None or conn.closed:
                    conn = connect(self._endpoint, self._database, purpose=self._purpose)
                    conn.execute(self._setup.encode())
                with self._changed:
                    self._busy[me] = conn
                try:
                    task(conn)
                    return conn
                finally:
                    with self._changed:
                        self._busy.pop(me, None)
            except (psycopg.Error, ConnectionFailed) as exc:
                if attempt == ATTEMPTS or self._closed or self._stop.is_set() or not passing(exc):
                    raise self._failed_task(doing, exc) from exc
                if conn is not None:
                    conn.close()
                self._stop.wait(0.5 * 2**attempt)
        raise CopyError(f"Could not {doing}.")

    def _failed_task(self, doing: str, exc: Exception) -> MigrationError:
        if isinstance(exc, MigrationError):
            return exc
        label = self._endpoint.label(self._database)
        state = getattr(exc, "sqlstate", None) or ""
        diag = getattr(exc, "diag", None)
        words = " ".join(w for w in ((diag.message_primary, diag.message_detail) if diag else ()) if w) or " ".join(str(exc).split())
        hint = "Run the playbook again: what is built stays."
        if state == "23505" and diag and diag.schema_name == "pg_catalog":  # two sessions made the same thing at the same moment
            hint = "Something of this name is made on the target by somebody else, too: end that, then run the playbook again."
        elif state == "23505":
            hint = "The source holds duplicates that its index should not allow (damaged, or a changed collation): repair them there."
        if state.startswith("53100"):
            hint = "The target's disk is full: enlarge it and run the playbook again."
        return CopyError(
            f"Could not {doing} on {label}: {words} (SQLSTATE {state or 'none'}).", code="PGM3020", hint=hint, server=label, sqlstate=state
        )
