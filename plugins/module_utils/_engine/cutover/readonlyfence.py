# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The fence ``read_only``: sessions of the database are read-only by default, so readers stay at the source.

By itself that is no fence, for any session may say ``BEGIN READ WRITE``. So it counts only together with the proof that nothing was
committed between the marker and the release (:mod:`.silence`), and the cutover is given back where that cannot be made.
"""

from __future__ import annotations

import typing as t

from ..errors import CutoverAborted
from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_ident, quote_literal
from ..postgres.session import connect, server_errors
from ..spec import Endpoint
from .sessions import Stranger, end_session, end_sessions, refuse_prepared, server_time, strangers

PARAMETER = "default_transaction_read_only"

_SET = """
SELECT split_part(u.setting, '=', 2) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) u(setting)
 WHERE d.datname = pg_catalog.current_database() AND s.setrole = 0 AND split_part(u.setting, '=', 1) = %s"""


class ReadOnlyFence:
    """See :class:`~.fence.Fence`. The change is ``{"database", "value"}``: what the database had set, or None."""

    def __init__(self, endpoint: Endpoint, change: dict[str, t.Any]) -> None:
        self._endpoint, self._change = endpoint, change
        self.ended = 0

    @classmethod
    def plan(cls, endpoint: Endpoint, database: str) -> dict[str, t.Any]:
        """The value to come back to."""
        with connect(endpoint, database, purpose="fence") as conn:
            row = conn.execute(_SET, [PARAMETER]).fetchone()
        return {"database": database, "value": row[0] if row else None}

    def raise_(self, deadline: float) -> str:
        """Set it, and end the sessions that began before."""
        endpoint, database = self._endpoint, self._change["database"]
        with connect(endpoint, database, purpose="fence") as conn:
            with server_errors(f"set {PARAMETER}", endpoint, database, kind=CutoverAborted, code="PGM5101"):
                refuse_prepared(conn, endpoint, database)
                conn.execute(f"ALTER DATABASE {quote_ident(database)} SET {PARAMETER} = on")
            since = server_time(conn)
            self.ended += end_sessions(conn, endpoint, database, deadline, lambda: _older(conn, since))
            refuse_prepared(conn, endpoint, database)
        return f"read-only by default, {self.ended} sessions ended"

    def confirm(self, deadline: float) -> None:
        """The setting is still there; the proof is the stream's."""
        endpoint, database = self._endpoint, self._change["database"]
        with connect(endpoint, database, purpose="fence") as conn:
            row = conn.execute(_SET, [PARAMETER]).fetchone()
            refuse_prepared(conn, endpoint, database)
        if row is None or row[0] != "on":
            raise CutoverAborted(f"Somebody has changed {PARAMETER} on {endpoint.label(database)} meanwhile.", code="PGM5105")

    def let_go(self) -> None:
        """Nothing is held."""

    @staticmethod
    def lift(endpoint: Endpoint, change: dict[str, t.Any]) -> None:
        """Set the former value, and end the sessions that began read-only: a pool would keep them."""
        database = change["database"]
        wanted = f"SET {PARAMETER} = {quote_literal(change['value'])}" if change["value"] is not None else f"RESET {PARAMETER}"
        with connect(endpoint, database, purpose="fence") as conn:
            conn.execute(f"ALTER DATABASE {quote_ident(database)} {wanted}")
            for stranger in _older(conn, server_time(conn)):
                end_session(conn, endpoint, database, stranger)


def _older(conn: psycopg.Connection[t.Any], since: str) -> list[Stranger]:
    """The strangers whose sessions began before ``since``: they have not seen the setting."""
    started = {row[0] for row in conn.execute("SELECT pid FROM pg_stat_activity WHERE backend_start <= %s::timestamptz", [since])}
    return [stranger for stranger in strangers(conn) if stranger[0] in started]
