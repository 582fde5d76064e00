# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What sessions of ours on a server wait for, and who is in their way.

No special right is needed: a login sees its own sessions whole, and of others process id, database, user and application
(``pg_stat_get_activity``); what it does not see is marked as hidden. Works from 9.6 on, where ``pg_blocking_pids`` came.
"""

from __future__ import annotations

import typing as t

from .drivers import psycopg

SHOWN = 200
"""Characters of a query that are kept."""


class Session(t.NamedTuple):
    """A server process. ``event_type`` and ``event`` as ``pg_stat_activity`` names what it waits for, empty where it works; ``query`` and
    ``seconds`` (of its transaction, or of its statement outside of one) are empty and None where they are ``hidden`` from us; ``process``
    is ``session``, ``autovacuum worker``, ``prepared transaction`` or another type of process."""

    pid: int
    application: str
    user: str
    process: str
    state: str
    event_type: str
    event: str
    query: str
    seconds: float | None
    hidden: bool


class Waiting(t.NamedTuple):
    """A session of ours and those that hold locks it waits for."""

    session: Session
    blockers: tuple[Session, ...]


_COLUMNS = f"""
    a.pid, coalesce(a.application_name, ''), coalesce(a.usename::text, ''), {{process}}, coalesce(a.state, ''),
    coalesce(a.wait_event_type, ''), coalesce(a.wait_event, ''), left(coalesce(a.query, ''), {SHOWN}),
    extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, a.query_start))::float8, a.backend_start IS NULL"""
"""``backend_start`` is NULL only where we may not see it."""

_AUTOVACUUM = "a.usename IS NULL AND a.pid IN (SELECT p.pid FROM pg_stat_progress_vacuum p)"
"""Of a process whose type is hidden: it vacuums, and nobody has logged in for it."""


def read_waiting(conn: psycopg.Connection[t.Any], applications: t.Sequence[str]) -> list[Waiting]:
    """Our own sessions in this database that have one of these application names, with what blocks them; empty before 9.6."""
    return _read(
        conn,
        "a.datname = current_database() AND a.usename = current_user AND a.pid <> pg_backend_pid() AND a.application_name = ANY(%s)",
        list(applications),
    )


def read_walsender(conn: psycopg.Connection[t.Any], slot: str) -> Waiting | None:
    """The walsender that reads ``slot``; None if nobody does, or before 9.6."""
    found = _read(conn, "a.pid = (SELECT s.active_pid FROM pg_replication_slots s WHERE s.slot_name = %s)", slot)
    return found[0] if found else None


def _read(conn: psycopg.Connection[t.Any], which: str, value: t.Any) -> list[Waiting]:
    version = conn.info.server_version
    if version < 90600:
        return []
    known = "a.backend_type" if version >= 100000 else "CASE WHEN a.query LIKE 'autovacuum:%%' THEN 'autovacuum worker' END"
    process = f"coalesce({known}, CASE WHEN {_AUTOVACUUM} THEN 'autovacuum worker' END, 'client backend')"
    columns = _COLUMNS.format(process=process)
    blocked = "CASE WHEN a.wait_event_type = 'Lock' THEN pg_blocking_pids(a.pid) ELSE '{}'::int[] END"
    rows = conn.execute(f"SELECT {columns}, {blocked} FROM pg_stat_activity a WHERE {which} ORDER BY a.pid", [value]).fetchall()
    pids = sorted({pid for row in rows for pid in row[-1]})
    others: dict[int, Session] = {}
    if pids:
        found = conn.execute(f"SELECT {columns} FROM pg_stat_activity a WHERE a.pid = ANY(%s)", [pids]).fetchall()
        others = {row[0]: _session(row) for row in found}
        others[0] = Session(0, "", "", "prepared transaction", "", "", "", "", None, hidden=False)  # see pg_blocking_pids
    return [Waiting(_session(row[:-1]), tuple(others[pid] for pid in dict.fromkeys(row[-1]) if pid in others)) for row in rows]


def _session(row: t.Sequence[t.Any]) -> Session:
    pid, application, user, process, state, event_type, event, query, seconds, hidden = row
    process = "session" if process == "client backend" else str(process)
    return Session(pid, application, user, process, state, event_type, event, "" if hidden else " ".join(query.split()), seconds, hidden)
