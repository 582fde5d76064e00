# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Keeping writers off the source, proving that none is left, and letting them in again (law 10).

The fence ``revoke_connect`` takes the right to connect from everybody but the migration user, ends the sessions that are there
and looks until none is left. ``default_transaction_read_only`` would be no fence: any session may say ``BEGIN READ WRITE``.
What is changed is returned as data before it is changed, so that a process that knows nothing else can undo it.
"""

from __future__ import annotations

import time
import typing as t

from ..errors import CutoverAborted
from ..postgres.drivers import psycopg
from ..postgres.identifiers import APPLICATION, quote_ident
from ..postgres.session import connect, server_errors
from ..spec import Endpoint

QUIET_LOOKS = 3
"""Looks in a row without a foreign session before the fence counts as proven."""

LOOK_SECONDS = 0.02

_GRANTS = """
SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END, a.is_grantable
  FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
 WHERE d.datname = pg_catalog.current_database() AND a.privilege_type = 'CONNECT'"""

_STRANGERS = """
SELECT pid, usename::text FROM pg_stat_activity
 WHERE datname = pg_catalog.current_database() AND usename IS NOT NULL AND pid <> pg_backend_pid()
   AND NOT (usename = current_user AND coalesce(application_name, '') LIKE %s)"""

Change = t.Dict[str, t.Any]


def plan_fence(endpoint: Endpoint, database: str) -> Change:
    """What the fence will take away in ``database``: ``{"database", "user", "grants": [[grantee, grantable]]}``."""
    with connect(endpoint, database, purpose="fence") as conn:
        grants = [[grantee, grantable] for grantee, grantable in conn.execute(_GRANTS)]
        row = conn.execute("SELECT pg_catalog.quote_ident(current_user)").fetchone()
    return {"database": database, "user": row[0] if row else "", "grants": grants}


def raise_fence(endpoint: Endpoint, change: Change, deadline: float) -> int:
    """Take the right to connect away, end the sessions, and return how many were ended once none is left.

    :param deadline: ``time.monotonic()`` after which it gives up.
    :raises CutoverAborted: if the right cannot be taken, a prepared transaction is open, or a session cannot be ended.
    """
    database, user = change["database"], change["user"]
    with connect(endpoint, database, purpose="fence") as conn:
        with server_errors("revoke CONNECT", endpoint, database, kind=CutoverAborted, code="PGM5101"):
            _refuse_prepared(conn, endpoint, database)
            name = quote_ident(database)
            with conn.transaction():
                conn.execute(f"GRANT CONNECT ON DATABASE {name} TO {user}")
                for grantee, _grantable in change["grants"]:
                    if grantee != user:
                        conn.execute(f"REVOKE CONNECT ON DATABASE {name} FROM {grantee} CASCADE")
            left = [g for g, dummy in conn.execute(_GRANTS) if g != user]
        if left:
            raise CutoverAborted(
                f"{endpoint.user} may not revoke CONNECT on {endpoint.label(database)}: {', '.join(left)} still have it.",
                code="PGM5102",
                hint=f"Make {endpoint.user} a member of the role that owns the database {database},"
                " or set cutover.fence to none and stop the writers.",
                server=endpoint.label(database),
            )
        return _end_sessions(conn, endpoint, database, deadline)


def _refuse_prepared(conn: psycopg.Connection[t.Any], endpoint: Endpoint, database: str) -> None:
    gids = [row[0] for row in conn.execute("SELECT gid FROM pg_prepared_xacts WHERE database = pg_catalog.current_database()")]
    if gids:
        raise CutoverAborted(
            f"Prepared transactions are open on {endpoint.label(database)}: {', '.join(gids[:5])}. They survive every fence.",
            code="PGM5103",
            hint="COMMIT PREPARED or ROLLBACK PREPARED them first.",
        )


def strangers(conn: psycopg.Connection[t.Any]) -> list[tuple[int, str]]:
    """Process ids and users of the sessions in this database that are not ours."""
    return list(conn.execute(_STRANGERS, [f"{APPLICATION}%"]))


def _end_sessions(conn: psycopg.Connection[t.Any], endpoint: Endpoint, database: str, deadline: float) -> int:
    ended: set[int] = set()
    quiet = 0
    while quiet < QUIET_LOOKS:
        others = strangers(conn)
        quiet = 0 if others else quiet + 1
        for pid, user in others:
            try:
                conn.execute("SELECT pg_terminate_backend(%s)", [pid])
            except psycopg.errors.InsufficientPrivilege as exc:
                raise CutoverAborted(
                    f"Could not end the session {pid} of {user} on {endpoint.label(database)}:"
                    f" {exc.diag.message_primary} (SQLSTATE 42501).",
                    code="PGM5104",
                    hint=f"GRANT pg_signal_backend TO {quote_ident(endpoint.user)}; sessions of superusers must be closed by hand.",
                    sqlstate="42501",
                ) from exc
            ended.add(pid)
        if time.monotonic() > deadline:
            raise CutoverAborted(
                f"Sessions on {endpoint.label(database)} did not end in time: {', '.join(f'{p} ({u})' for p, u in others[:5])}.",
                code="PGM5105",
                hint="Superusers can connect whatever the fence says: stop their programs, then call the cutover again.",
            )
        time.sleep(LOOK_SECONDS)
    _refuse_prepared(conn, endpoint, database)
    return len(ended)


def lift_fence(endpoint: Endpoint, change: Change) -> None:
    """Give back every right to connect as it was; safe to repeat."""
    name = quote_ident(change["database"])
    with connect(endpoint, change["database"], purpose="fence") as conn, conn.transaction():
        for grantee, grantable in change["grants"]:
            option = " WITH GRANT OPTION" if grantable and grantee != "PUBLIC" else ""
            conn.execute(f"GRANT CONNECT ON DATABASE {name} TO {grantee}{option}")
        if change["user"] not in [grantee for grantee, dummy in change["grants"]]:
            conn.execute(f"REVOKE CONNECT ON DATABASE {name} FROM {change['user']}")
