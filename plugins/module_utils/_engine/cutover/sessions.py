# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Who else is in a database of the source, whether they can write, and ending their sessions.

Sessions of ours are those of the migration user that carry our ``application_name``; everybody else is a stranger, superusers and other
readers of the WAL too: a session with ``replication=database`` takes SQL as any other.
"""

from __future__ import annotations

import time
import typing as t

from ..errors import CutoverAborted
from ..postgres.drivers import psycopg
from ..postgres.identifiers import APPLICATION, quote_ident
from ..spec import Endpoint

QUIET_LOOKS = 3
"""Looks in a row without a stranger before a fence counts as proven."""

LOOK_SECONDS = 0.02

Stranger = t.Tuple[int, str]
"""Process id and user of a session that is not ours."""

_OURS = "(usename = current_user AND coalesce(application_name, '') LIKE %(ours)s)"
_THERE = "datname = pg_catalog.current_database() AND usename IS NOT NULL AND pid <> pg_backend_pid()"
_STRANGERS = f"SELECT pid, usename::text FROM pg_stat_activity WHERE {_THERE} AND NOT {_OURS}"
_ACTIVE = (
    _STRANGERS + " AND NOT (state IS NOT DISTINCT FROM 'idle' AND state_change < %(since)s::timestamptz AND backend_start < %(since)s)"
)


def strangers(conn: psycopg.Connection[t.Any]) -> list[Stranger]:
    """The sessions in this database that are not ours."""
    return list(conn.execute(_STRANGERS, {"ours": f"{APPLICATION}%"}))


def active_strangers(conn: psycopg.Connection[t.Any], since: str) -> list[Stranger]:
    """The strangers that have done anything since ``since``, or may be doing it: all but those that were idle all the time, outside of a
    transaction. One whose state is hidden from us counts as active."""
    return list(conn.execute(_ACTIVE, {"ours": f"{APPLICATION}%", "since": since}))


def server_time(conn: psycopg.Connection[t.Any]) -> str:
    """The source's clock."""
    row = conn.execute("SELECT clock_timestamp()::text").fetchone()
    return str(row[0]) if row else ""


def refuse_prepared(conn: psycopg.Connection[t.Any], endpoint: Endpoint, database: str) -> None:
    """Look for prepared transactions: they survive every fence and can be committed from anywhere.

    :raises CutoverAborted: PGM5103 naming them.
    """
    gids = [row[0] for row in conn.execute("SELECT gid FROM pg_prepared_xacts WHERE database = pg_catalog.current_database()")]
    if gids:
        raise CutoverAborted(
            f"Prepared transactions are open on {endpoint.label(database)}: {', '.join(gids[:5])}. They survive every fence.",
            code="PGM5103",
            hint="COMMIT PREPARED or ROLLBACK PREPARED them first.",
        )


def end_session(conn: psycopg.Connection[t.Any], endpoint: Endpoint, database: str, stranger: Stranger) -> None:
    """Terminate one session; it may take a moment to go.

    :raises CutoverAborted: PGM5104 if we may not.
    """
    pid, user = stranger
    try:
        conn.execute("SELECT pg_terminate_backend(%s)", [pid])
    except psycopg.errors.InsufficientPrivilege as exc:
        raise CutoverAborted(
            f"Could not end the session {pid} of {user} on {endpoint.label(database)}: {exc.diag.message_primary} (SQLSTATE 42501).",
            code="PGM5104",
            hint=f"GRANT pg_signal_backend TO {quote_ident(endpoint.user)}; sessions of superusers must be closed by hand.",
            sqlstate="42501",
        ) from exc


def end_sessions(
    conn: psycopg.Connection[t.Any], endpoint: Endpoint, database: str, deadline: float, look: t.Callable[[], list[Stranger]]
) -> int:
    """End whom ``look`` finds until it finds nobody :data:`QUIET_LOOKS` times in a row; how many were ended.

    :param deadline: ``time.monotonic()`` after which it gives up.
    :raises CutoverAborted: PGM5104, PGM5105.
    """
    ended: set[int] = set()
    quiet = 0
    while quiet < QUIET_LOOKS:
        others = look()
        quiet = 0 if others else quiet + 1
        for stranger in others:
            end_session(conn, endpoint, database, stranger)
            ended.add(stranger[0])
        if time.monotonic() > deadline:
            raise CutoverAborted(
                f"Sessions on {endpoint.label(database)} did not end in time: {say(others)}.",
                code="PGM5105",
                hint="Superusers can connect whatever the fence says: stop their programs, then call the cutover again.",
            )
        time.sleep(LOOK_SECONDS)
    return len(ended)


def say(others: t.Sequence[Stranger]) -> str:
    """``12 (app), 14 (app)``, at most five."""
    return ", ".join(f"{pid} ({user})" for pid, user in others[:5])
