# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The fence ``revoke_connect``: the right to connect is taken from everybody but us, and the sessions that are there are ended."""

from __future__ import annotations

import typing as t

from ..errors import CutoverAborted
from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_ident
from ..postgres.session import connect, server_errors
from ..spec import Endpoint
from .sessions import end_sessions, refuse_prepared, say, strangers

_GRANTS = """
SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END, a.is_grantable
  FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
 WHERE d.datname = pg_catalog.current_database() AND a.privilege_type = 'CONNECT'"""


def read_grants(conn: psycopg.Connection[t.Any]) -> tuple[str, list[list[t.Any]]]:
    """Our own name, quoted, and who may connect to this database: ``[[grantee, grantable]]``."""
    row = conn.execute("SELECT pg_catalog.quote_ident(current_user)").fetchone()
    return (row[0] if row else ""), [[grantee, grantable] for grantee, grantable in conn.execute(_GRANTS)]


class ConnectFence:
    """See :class:`~.fence.Fence`. The change is ``{"database", "user", "grants": [[grantee, grantable]]}``."""

    def __init__(self, endpoint: Endpoint, change: dict[str, t.Any]) -> None:
        self._endpoint, self._change = endpoint, change
        self.ended = 0

    @classmethod
    def plan(cls, endpoint: Endpoint, database: str) -> dict[str, t.Any]:
        """What will be taken away."""
        with connect(endpoint, database, purpose="fence") as conn:
            user, grants = read_grants(conn)
        return {"database": database, "user": user, "grants": grants}

    def raise_(self, deadline: float) -> str:
        """Take the right away, then end sessions until none is left."""
        endpoint, database = self._endpoint, self._change["database"]
        with connect(endpoint, database, purpose="fence") as conn:
            with server_errors("revoke CONNECT", endpoint, database, kind=CutoverAborted, code="PGM5101"):
                refuse_prepared(conn, endpoint, database)
                close_database(conn, endpoint, self._change)
            self.ended += end_sessions(conn, endpoint, database, deadline, lambda: strangers(conn))
            refuse_prepared(conn, endpoint, database)
        return f"CONNECT revoked, {self.ended} sessions ended, none left"

    def confirm(self, deadline: float) -> None:
        """Nobody came: a superuser may, whatever the rights say."""
        endpoint, database = self._endpoint, self._change["database"]
        with connect(endpoint, database, purpose="fence") as conn:
            others = strangers(conn)
            refuse_prepared(conn, endpoint, database)
        if others:
            raise CutoverAborted(
                f"Sessions came to {endpoint.label(database)} through the fence: {say(others)}.",
                code="PGM5105",
                hint="Superusers can connect whatever the fence says: stop their programs, then call the cutover again.",
            )

    def let_go(self) -> None:
        """Nothing is held."""

    @staticmethod
    def lift(endpoint: Endpoint, change: dict[str, t.Any]) -> None:
        """Give every right to connect back as it was."""
        name = quote_ident(change["database"])
        with connect(endpoint, change["database"], purpose="fence") as conn, conn.transaction():
            for grantee, grantable in change["grants"]:
                option = " WITH GRANT OPTION" if grantable and grantee != "PUBLIC" else ""
                conn.execute(f"GRANT CONNECT ON DATABASE {name} TO {grantee}{option}")
            if change["user"] not in [grantee for grantee, dummy in change["grants"]]:
                conn.execute(f"REVOKE CONNECT ON DATABASE {name} FROM {change['user']}")


def close_database(conn: psycopg.Connection[t.Any], endpoint: Endpoint, change: dict[str, t.Any]) -> None:
    """Leave us alone the right to connect.

    :raises CutoverAborted: PGM5102 if somebody else still has it afterwards.
    """
    database, user = change["database"], change["user"]
    name = quote_ident(database)
    with conn.transaction():
        conn.execute(f"GRANT CONNECT ON DATABASE {name} TO {user}")
        for grantee, dummy in change["grants"]:
            if grantee != user:
                conn.execute(f"REVOKE CONNECT ON DATABASE {name} FROM {grantee} CASCADE")
    left = [grantee for grantee, dummy in read_grants(conn)[1] if grantee != user]
    if left:
        raise CutoverAborted(
            f"{endpoint.user} may not revoke CONNECT on {endpoint.label(database)}: {', '.join(left)} still have it.",
            code="PGM5102",
            hint=f"Make {endpoint.user} a member of the role that owns the database {database}, or choose another cutover.fence.",
            server=endpoint.label(database),
        )
