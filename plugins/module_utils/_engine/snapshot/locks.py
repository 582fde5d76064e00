# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Locks of others that the copy meets: who holds them, and patience with them where there is nothing else to do meanwhile.

Planning and pg_dump look at every table, so a lock on one of them (ACCESS EXCLUSIVE: ALTER TABLE, VACUUM FULL, LOCK) holds up the whole
copy. They wait for ``lock_timeout`` at a time, so that nobody queues up behind us for long, and begin again.
"""

from __future__ import annotations

import contextlib
import threading
import time
import typing as t

from ..errors import CopyError, MigrationError
from ..postgres.drivers import psycopg
from ..postgres.identifiers import APPLICATION
from ..postgres.session import connect
from ..spec import Endpoint
from .progress import Progress
from .tools import Stopped

LOCKED_SECONDS = 600.0
"""How long locked tables are tried when nothing else is left to do."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 15.0
"""Seconds between two attempts."""

QUERY_LENGTH = 120
"""Characters of a lock holder's query that are shown."""

HOLDERS = f"""
    SELECT c.relname::text AS name, n.nspname::text AS schema, l.pid, a.usename::text AS usename, a.query,
           extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS age
      FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_stat_activity a ON a.pid = l.pid
     WHERE l.locktype = 'relation' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND coalesce(a.application_name, '') NOT LIKE '{APPLICATION}%' AND {{which}}
     ORDER BY l.mode = 'AccessExclusiveLock' DESC, l.granted DESC, a.xact_start LIMIT 1"""
"""Reading a table waits for ACCESS EXCLUSIVE alone."""

_EXCLUSIVE = "l.mode = 'AccessExclusiveLock' AND l.granted"

T = t.TypeVar("T")


def holder_text(row: t.Mapping[str, t.Any]) -> str:
    """A row of :data:`HOLDERS` for people: pid, user, query and the age of the transaction."""
    if row["pid"] is None:
        return "a prepared transaction (pg_prepared_xacts)"
    told = row["query"] if row["query"] != "<insufficient privilege>" else ""
    said = " ".join((told or "query not told").split())
    shown = said if len(said) <= QUERY_LENGTH else said[: QUERY_LENGTH - 3] + "..."
    age = f", open for {row['age']:.0f} s" if row["age"] is not None else ""
    return f"pid {row['pid']} of {row['usename'] or '?'} ({shown}){age}"


class LockPatience:
    """Does again what a lock of somebody else's ended.

    :param ends: the servers to look for a holder, the likelier first.
    """

    def __init__(self, ends: t.Sequence[Endpoint], database: str, progress: Progress, stop: threading.Event) -> None:
        self._ends = ends
        self._database = database
        self._progress = progress
        self._stop = stop

    def run(self, doing: str, work: t.Callable[[], T], renew: t.Callable[[], None] = lambda: None) -> T:
        """What ``work`` returns, when it has not met a lock.

        :param doing: completes the sentence "Could not ...".
        :param renew: is called before each further attempt.
        :raises CopyError: PGM3021 when it has met one for :data:`LOCKED_SECONDS`.
        :raises Stopped: if the stop event was set.
        """
        began, pause, told = time.monotonic(), FIRST_PAUSE, False
        while True:
            try:
                done = work()
            except (psycopg.Error, CopyError) as exc:
                table, holder = self._holder() if may_be_lock(exc) else ("", "")
                if not is_lock(exc, seen=bool(holder)):
                    raise
                waited = time.monotonic() - began
                if waited > LOCKED_SECONDS:
                    raise _over(doing, table, holder, waited) from exc
                self._tell(doing, table, holder, first=not told)
                told = True
            else:
                if told:
                    self._progress.set(locked={}, message="")
                return done
            if self._stop.wait(pause):
                raise Stopped
            pause = min(LONGEST_PAUSE, pause * 2)
            renew()

    def _tell(self, doing: str, table: str, holder: str, *, first: bool) -> None:
        whom = f"{table} is locked by {holder}" if holder else "somebody whom the server does not show holds a lock"
        text = f"To {doing} is waited for: {whom}"
        if first:
            self._progress.note(f"{text}; it is tried again and again.")
        self._progress.set(locked={table: holder} if holder else {}, message=text)
        self._progress.flush()

    def _holder(self) -> tuple[str, str]:
        """The table that is locked and who has locked it; empty if it is over or not to be seen."""
        for end in self._ends:
            with contextlib.suppress(MigrationError, psycopg.Error), connect(end, self._database, purpose="locks") as conn:
                with conn.cursor(row_factory=psycopg.rows.dict_row) as cursor:
                    row = cursor.execute(HOLDERS.format(which=_EXCLUSIVE).encode()).fetchone()
                if row is not None:
                    return f"{row['schema']}.{row['name']}", f"{holder_text(row)} on the {end.side}"
        return "", ""


def may_be_lock(exc: Exception) -> bool:
    """Is ``exc`` what a lock of somebody else's can end in: ``lock_timeout`` (55P03), or a LOCK TABLE of pg_dump's that failed?"""
    if getattr(exc, "sqlstate", None) == "55P03":
        return True
    return isinstance(exc, CopyError) and exc.code == "PGM3004" and "LOCK TABLE" in exc.message


def is_lock(exc: Exception, *, seen: bool) -> bool:
    """Is it one? pg_dump's own words may be in the server's language, so a holder that is ``seen`` counts as much."""
    return may_be_lock(exc) and (getattr(exc, "sqlstate", None) == "55P03" or seen or "timeout" in str(exc))


def _over(doing: str, table: str, holder: str, seconds: float) -> CopyError:
    whom = f"{table} is locked by {holder}" if holder else "a table is locked"
    return stays_locked(f"Could not {doing}: {whom}, and it was tried for {seconds:.0f} s.", table, holder)


def stays_locked(message: str, table: str, holder: str) -> CopyError:
    """The error to end with where ``holder`` does not give ``table`` free."""
    return CopyError(
        message,
        code="PGM3021",
        hint="End that session (pg_terminate_backend), or play migrate again when it has ended; what is copied stays.",
        sqlstate="55P03",
        details={"table": table, "holder": holder},
    )
