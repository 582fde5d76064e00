# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""PgBouncer's admin console: one simple query, one answer. It is reached by a connection string of libpq without a password (``passfile``
names the file that holds it)."""

from __future__ import annotations

import select
import time

from ..errors import CutoverAborted
from .drivers import psycopg

HINT = "Check cutover.pgbouncer, the pooler's admin_users and pgbouncer_databases."


def order(admin: str, statement: str, deadline: float) -> list[dict[str, str]]:
    """Have the PgBouncer behind ``admin`` do ``statement``; its console knows simple queries only.

    :return: the rows that it answers with, by column.
    :raises CutoverAborted: PGM5108 with its answer, or when ``deadline`` (``time.monotonic()``) has passed.
    """
    tried = f"Could not have PgBouncer do {statement}"
    try:
        conn = psycopg.connect(admin, autocommit=True, connect_timeout=5, application_name="pgops.migration gate")
    except psycopg.Error as exc:
        raise CutoverAborted(f"{tried}: {' '.join(str(exc).split())}", code="PGM5108", hint=HINT) from exc
    try:
        result = _result(conn.pgconn, statement, deadline)
        if result is None:
            raise CutoverAborted(f"{tried} in time: clients are still in transactions.", code="PGM5108", hint=HINT)
        if result.error_message:
            raise CutoverAborted(f"{tried}: {result.error_message.decode(errors='replace').strip()}", code="PGM5108", hint=HINT)
        names = [(result.fname(column) or b"").decode() for column in range(result.nfields)]
        return [
            {name: (result.get_value(row, column) or b"").decode(errors="replace") for column, name in enumerate(names)}
            for row in range(result.ntuples)
        ]
    except psycopg.Error as exc:
        raise CutoverAborted(f"{tried}: {' '.join(str(exc).split())}", code="PGM5108", hint=HINT) from exc
    finally:
        conn.close()


def _result(pgconn: psycopg.pq.abc.PGconn, statement: str, deadline: float) -> psycopg.pq.abc.PGresult | None:
    """The answer, None if there is none at the deadline."""
    pgconn.send_query(statement.encode())
    while pgconn.is_busy():
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        if select.select([pgconn.socket], [], [], min(left, 0.5))[0]:
            pgconn.consume_input()
    return pgconn.get_result()


def user_of(admin: str) -> str:
    """Who ``admin`` logs in as; nothing where libpq decides that.

    :raises CutoverAborted: PGM5108 if it is no connection string.
    """
    try:
        return str(psycopg.conninfo.conninfo_to_dict(admin).get("user") or "")
    except psycopg.Error as exc:
        text = f"cutover.pgbouncer holds what is no connection string: {' '.join(str(exc).split())}"
        raise CutoverAborted(text, code="PGM5108", hint=HINT) from exc
