# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What belongs to a database as a whole: ``pg_dumpall --globals-only`` omits it, and only ``pg_dump --create`` writes it (R39)."""

from __future__ import annotations

import typing as t

from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_ident
from . import statements as sql
from .difference import GlobalAction, Skipped, settings_actions
from .rights import Parameters, Rights
from .state import State


def database_actions(
    conns: tuple[psycopg.Connection[t.Any], psycopg.Connection[t.Any]],
    database: str,
    wanted: State,
    present: State,
    rights: Rights,
    parameters: Parameters,
    skipped: list[Skipped],
    *,
    fresh: bool,
) -> list[GlobalAction]:
    """The statements for ``database``, which exists on both servers (``conns``: source, target)."""
    actions: list[GlobalAction] = []
    for (role, where), values in wanted.settings.items():
        if where == database and role and role in present.roles and not rights.why_not_manage(present.roles[role]):
            actions += settings_actions(role, database, values, present, parameters, skipped)
    owner = (
        conns[1]
        .execute("SELECT pg_has_role(datdba, 'USAGE'), pg_get_userbyid(datdba)::text FROM pg_database WHERE datname = %s", [database])
        .fetchone()
    )
    if owner is None:
        skipped.append(Skipped("database", database, "does not exist on the target"))
        return []
    if not owner[0]:
        reason = f"belongs to {owner[1]} on the target; its settings, comment and privileges stay as they are"
        skipped.append(Skipped("database", database, reason))
        return actions
    values = {name: value for name, value in wanted.settings.get(("", database), {}).items() if name not in sql.NOT_CARRIED}
    actions += settings_actions("", database, values, present, parameters, skipped)
    comments = [_comment(conn, database) for conn in conns]
    if comments[0] != comments[1]:
        statement = sql.comment_on("DATABASE", database, comments[0])
        actions.append(GlobalAction("comment", database, statement, statement))
    return actions + _privileges(conns, database, present, fresh)


def limit_actions(conns: tuple[psycopg.Connection[t.Any], psycopg.Connection[t.Any]], database: str) -> list[GlobalAction]:
    """Connection limit and template mark of ``database``; they come last, because they would hold for our own sessions too."""
    query = "SELECT datconnlimit, datistemplate FROM pg_database WHERE datname = %s"
    ours, theirs = (conn.execute(query, [database]).fetchone() for conn in conns)
    if ours is None or theirs is None:
        return []
    words = [f"CONNECTION LIMIT {int(ours[0])}"] if ours[0] != theirs[0] and ours[0] >= -1 else []
    words += [f"IS_TEMPLATE {'true' if ours[1] else 'false'}"] if ours[1] != theirs[1] else []
    statements = [f"ALTER DATABASE {quote_ident(database)} {word}" for word in words]
    return [GlobalAction("limit", database, statement, statement) for statement in statements]


def _comment(conn: psycopg.Connection[t.Any], database: str) -> str | None:
    row = conn.execute("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", [database]).fetchone()
    return row[0] if row else None


def _privileges(
    conns: tuple[psycopg.Connection[t.Any], psycopg.Connection[t.Any]], database: str, present: State, fresh: bool
) -> list[GlobalAction]:
    ours, theirs = (_acl(conn, database) for conn in conns)
    actions = []
    for (grantee, privilege), grantable in ours.items():
        there = theirs.get((grantee, privilege))
        if (grantee and grantee not in present.roles) or there is not None and (there or not grantable):
            continue
        whom = quote_ident(grantee) if grantee else "PUBLIC"
        option = " WITH GRANT OPTION" if grantable else ""
        statement = f"GRANT {privilege} ON DATABASE {quote_ident(database)} TO {whom}{option}"
        actions.append(GlobalAction("privilege", f"{privilege} on {database} to {grantee or 'PUBLIC'}", statement, statement))
    if fresh:
        for grantee, privilege in theirs:
            if not grantee and (grantee, privilege) not in ours:
                statement = f"REVOKE {privilege} ON DATABASE {quote_ident(database)} FROM PUBLIC"
                actions.append(GlobalAction("privilege", f"{privilege} on {database} to PUBLIC", statement, statement))
    return actions


def _acl(conn: psycopg.Connection[t.Any], database: str) -> dict[tuple[str, str], bool]:
    """(grantee or empty for PUBLIC, privilege) to "with grant option"; the owner's own privileges are left out."""
    rows = conn.execute(
        """SELECT coalesce(r.rolname::text, ''), a.privilege_type, bool_or(a.is_grantable)
             FROM pg_database d CROSS JOIN LATERAL aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
             LEFT JOIN pg_roles r ON r.oid = a.grantee
            WHERE d.datname = %s AND a.grantee <> d.datdba AND (a.grantee = 0 OR r.oid IS NOT NULL) GROUP BY 1, 2 ORDER BY 1, 2""",
        [database],
    )
    return {(grantee, privilege): grantable for grantee, privilege, grantable in rows}
