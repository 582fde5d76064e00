# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The fence ``locks``: a session of ours holds an EXCLUSIVE lock on every table that is migrated, so writers wait and readers read on.

No session is ended before it is certain that the target is complete; a cutover that is given back costs the writers a wait, not an error.
Right before the release the database is closed as ``revoke_connect`` does it, with the locks still held: a writer that waits for one must
not get it afterwards.
"""

from __future__ import annotations

import time
import typing as t

from ..errors import CutoverAborted
from ..postgres.catalog import read_tables
from ..postgres.drivers import psycopg
from ..postgres.identifiers import APPLICATION
from ..postgres.selection import Selection, chosen_tables
from ..postgres.session import connect, server_errors
from ..spec import Endpoint
from .connectfence import ConnectFence, close_database, read_grants
from .sessions import end_sessions, refuse_prepared, strangers

WAIT_MILLISECONDS = 1000
"""``lock_timeout`` of one attempt: others queue up behind a lock that waits, so it must not wait long."""

_held: dict[tuple[str, int, int], psycopg.Connection[t.Any]] = {}
"""Sessions between plan and raise, by host, port and process id."""


class LockFence:
    """See :class:`~.fence.Fence`. The change is that of ``revoke_connect``, and ``pid`` and ``started`` of the session that will hold the
    locks: who lifts the fence ends it."""

    def __init__(self, endpoint: Endpoint, change: dict[str, t.Any]) -> None:
        self._endpoint, self._change = endpoint, change
        self._conn = _held.pop((endpoint.host, endpoint.port, change["pid"]))
        self.ended = 0

    @classmethod
    def plan(cls, endpoint: Endpoint, database: str) -> dict[str, t.Any]:
        """Connect; nothing is locked yet."""
        conn = connect(endpoint, database, purpose="fence", autocommit=False)
        user, grants = read_grants(conn)
        row = conn.execute("SELECT backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()").fetchone()
        conn.rollback()
        pid = conn.info.backend_pid
        _held[endpoint.host, endpoint.port, pid] = conn
        return {"database": database, "user": user, "grants": grants, "pid": pid, "started": row[0] if row else ""}

    def raise_(self, deadline: float) -> str:
        """Lock every table that is migrated, in attempts."""
        endpoint, database, conn = self._endpoint, self._change["database"], self._conn
        names = self._migrated(conn)
        while True:
            try:
                with server_errors("lock the tables", endpoint, database, kind=CutoverAborted, code="PGM5101"):
                    conn.rollback()
                    refuse_prepared(conn, endpoint, database)
                    conn.execute(f"SET LOCAL lock_timeout = {WAIT_MILLISECONDS}")
                    if names:
                        conn.execute("LOCK TABLE " + ", ".join(f"ONLY {name}" for name in names) + " IN EXCLUSIVE MODE")
                break
            except CutoverAborted as exc:
                conn.rollback()
                if exc.sqlstate not in ("55P03", "40P01") or time.monotonic() > deadline:
                    exc.hint = exc.hint or "A transaction holds a table longer than the cutover may wait; see pg_locks."
                    raise
        with connect(endpoint, database, purpose="fence") as other:  # ours sees the catalog as of its beginning
            missed = set(self._migrated(other)) - set(names)
        if missed:
            raise CutoverAborted(
                f"Tables were made on {endpoint.label(database)} meanwhile: {', '.join(sorted(missed)[:5])}.", code="PGM5105"
            )
        refuse_prepared(conn, endpoint, database)
        return f"{len(names)} tables locked against writers"

    def _migrated(self, conn: psycopg.Connection[t.Any]) -> list[str]:
        """Tables whose rows come to the target, as the copy and the stream choose them."""
        told: dict[str, t.Any] = self._change["selection"]
        plain: dict[str, t.Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in told.items()}
        return sorted(table.qualified for table in chosen_tables(conn, Selection(**plain), read_tables(conn)))

    def confirm(self, deadline: float) -> None:
        """Close the database for good, under the locks."""
        endpoint, database = self._endpoint, self._change["database"]
        with connect(endpoint, database, purpose="fence") as conn:
            with server_errors("revoke CONNECT", endpoint, database, kind=CutoverAborted, code="PGM5101"):
                close_database(conn, endpoint, self._change)
            self.ended += end_sessions(conn, endpoint, database, deadline, lambda: strangers(conn))
            refuse_prepared(conn, endpoint, database)
        with server_errors("hold the locks", endpoint, database, kind=CutoverAborted, code="PGM5105"):
            self._conn.execute("SELECT 1")  # they are as old as their session

    def let_go(self) -> None:
        """End the session and with it the locks."""
        self._conn.close()

    @staticmethod
    def lift(endpoint: Endpoint, change: dict[str, t.Any]) -> None:
        """Give the rights back and end the session that holds the locks, if it is still that one."""
        ConnectFence.lift(endpoint, change)
        with connect(endpoint, change["database"], purpose="fence") as conn:
            conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s AND application_name LIKE %s"
                " AND backend_start = %s::timestamptz",
                [change["pid"], f"{APPLICATION}%", change["started"]],
            )
