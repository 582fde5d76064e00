# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Who keeps a replication slot, or a publication, from being made.

A logical slot starts where every transaction that was running has ended: CREATE_REPLICATION_SLOT waits for each of them in turn (PostgreSQL
manual 55.4), so one session that is idle in its transaction holds a migration up for as long as it likes. A publication takes SHARE UPDATE
EXCLUSIVE on each of its tables: it waits for VACUUM, CREATE INDEX and ALTER TABLE (manual 13.3).
"""

from __future__ import annotations

import time
import typing as t

from ..errors import MigrationError
from ..postgres.catalog import USER_SCHEMAS
from ..postgres.drivers import psycopg
from ..postgres.session import connect
from ..spec import Endpoint

QUERY_LENGTH = 120
"""Characters of a query that are shown."""

_HOLDERS = """
    SELECT DISTINCT h.pid, coalesce(a.usename, x.owner)::text, coalesce(a.datname, x.database)::text,
           extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, x.prepared))::float8, a.state, a.query, x.gid
      FROM pg_locks w JOIN pg_locks h ON h.locktype = 'transactionid' AND h.transactionid = w.transactionid AND h.granted
      LEFT JOIN pg_stat_activity a ON a.pid = h.pid LEFT JOIN pg_prepared_xacts x ON x.transaction = h.transactionid
     WHERE w.pid = %s AND w.locktype = 'transactionid' AND NOT w.granted ORDER BY 4 DESC"""

_LOCKERS = f"""
    SELECT h.pid, coalesce(a.usename, x.owner)::text, coalesce(a.datname, x.database)::text,
           extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, x.prepared))::float8, a.state, a.query, x.gid
      FROM pg_locks h JOIN pg_class c ON c.oid = h.relation JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_stat_activity a ON a.pid = h.pid
      LEFT JOIN LATERAL (SELECT p.* FROM pg_locks y JOIN pg_prepared_xacts p ON p.transaction = y.transactionid
                          WHERE h.pid IS NULL AND y.pid IS NULL AND y.virtualtransaction = h.virtualtransaction LIMIT 1) x ON true
     WHERE h.locktype = 'relation' AND h.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND h.granted
       AND h.mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock') AND c.relkind IN ('r', 'p') AND {USER_SCHEMAS}
       AND h.pid IS DISTINCT FROM pg_backend_pid() ORDER BY 4 DESC NULLS LAST LIMIT 1"""

LOCK_TIMEOUT = "2s"
PATIENCE = 600.0
"""Seconds for which tables that somebody has locked are tried again."""

T = t.TypeVar("T")


def when_unlocked(conn: psycopg.Connection[t.Any], doing: str, work: t.Callable[[], T], waiting: t.Callable[[str], None]) -> T:
    """What ``work`` returns, which is done in a transaction on ``conn``, again and again while somebody has a table locked: others queue up
    behind a lock that waits, so it waits for :data:`LOCK_TIMEOUT` at a time.

    :param doing: completes the sentence "Could not ...".
    :param waiting: told who has had such a lock for longest, as :meth:`Blockers.look` says it; what it raises is raised.
    :raises MigrationError: PGM1215 after :data:`PATIENCE`.
    """
    began = time.monotonic()
    while True:
        try:
            with conn.transaction():
                conn.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
                return work()
        except psycopg.errors.LockNotAvailable as exc:
            row = conn.execute(_LOCKERS).fetchone()
            holder = _describe(*row) if row else ""
            if time.monotonic() - began > PATIENCE:
                raise MigrationError(
                    f"Could not {doing}: for {PATIENCE:.0f} s a table has been locked by {holder or 'somebody'}.",
                    code="PGM1215",
                    sqlstate="55P03",
                    hint="End that session, or run the playbook again when it has ended.",
                ) from exc
        waiting(holder)


class Blockers:
    """Looks for those that session ``pid`` of the source waits for; for as long as it lives it keeps one session of its own."""

    def __init__(self, endpoint: Endpoint, database: str, pid: int) -> None:
        self._endpoint = endpoint
        self._database = database
        self._pid = pid
        self._conn: psycopg.Connection[t.Any] | None = None

    def look(self) -> str:
        """A sentence that names them with age and query, and what ends them; empty if there are none or the server does not tell."""
        try:
            if self._conn is None:
                self._conn = connect(self._endpoint, self._database, purpose="blockers")
            found = self._conn.execute(_HOLDERS, [self._pid]).fetchall()
        except (MigrationError, psycopg.Error):
            self.close()
            return ""
        return "; ".join(_describe(*row) for row in found)

    def close(self) -> None:
        """End the session."""
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()


def _describe(
    pid: int | None, user: str | None, database: str | None, age: float | None, state: str | None, query: str | None, gid: str | None
) -> str:
    whose = f"of {user or '?'} in {database or '?'}, " + ("its age is not told" if age is None else f"open for {age:.0f} s")
    if gid is not None:
        return f"the prepared transaction {gid} {whose} (COMMIT PREPARED or ROLLBACK PREPARED)"
    said = " ".join((query or "query not told").split())
    shown = said if len(said) <= QUERY_LENGTH else said[: QUERY_LENGTH - 3] + "..."
    end = f"(COMMIT, or pg_terminate_backend({pid}))"
    return f"the transaction of pid {pid} {whose}, {state or 'state not told'}: {shown} {end}"
