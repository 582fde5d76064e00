# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Triggers and foreign keys must not do again what the source did already."""

from __future__ import annotations

import typing as t

from ..errors import PermissionMissing, StreamError
from ..postgres.drivers import psycopg
from .tables import TargetTables


def replica_role(conn: psycopg.Connection[t.Any]) -> str:
    """Let triggers and foreign keys rest in this session; what the server said if it refuses that."""
    try:
        conn.execute("SET session_replication_role = replica")
    except psycopg.errors.InsufficientPrivilege as exc:
        return exc.diag.message_primary or str(exc)
    return ""


def check_triggers(conn: psycopg.Connection[t.Any], tables: TargetTables, refused: str, user: str, label: str) -> None:
    """See that no trigger will fire.

    :param refused: what :func:`replica_role` said.
    :raises PermissionMissing: PGM4030 where replica role is refused and there is something to keep quiet.
    :raises StreamError: PGM4032 where triggers fire even so.
    """
    states = "('O', 'A')" if refused else "('A', 'R')"
    internal = "" if refused else "AND NOT t.tgisinternal"
    found = conn.execute(
        "SELECT t.tgrelid::regclass::text || ': ' || t.tgname FROM pg_trigger t WHERE t.tgrelid = ANY(%s)"
        f" AND t.tgenabled::text IN {states} {internal} ORDER BY 1 LIMIT 5",
        [[table.oid for table in tables]],
    ).fetchall()
    if not found:
        return
    names = "; ".join(row[0] for row in found)
    if refused:
        raise PermissionMissing(
            f"Triggers and foreign keys would fire while changes are applied on {label}: {refused} ({names}).",
            code="PGM4030",
            hint=f'GRANT SET ON PARAMETER session_replication_role TO "{user}"; (from PostgreSQL 15 on)',
            server=label,
            sqlstate="42501",
        )
    raise StreamError(
        f"Triggers on {label} are ENABLE ALWAYS or REPLICA and would do again what the source did: {names}.",
        code="PGM4032",
        hint="ALTER TABLE ... ENABLE TRIGGER ... on the target, and set it back after the cutover.",
        server=label,
    )
