# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The migration's own login on the source, with the least rights that a migration needs, and how each is taken back.

What it needs and why: LOGIN and REPLICATION to stream; to read every table (``pg_read_all_data``, before 14 SELECT on what there is); to
own the databases together with their owners, which the fence of the cutover and publications ask for; ``pg_signal_backend`` to end writers
at the cutover; ``pg_read_all_settings`` to see where a parameter was set. Never SUPERUSER.
"""

from __future__ import annotations

import contextlib
import dataclasses
import typing as t

from ..errors import MigrationError
from ..postgres.catalog import USER_SCHEMAS, is_selection, list_databases, select
from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_ident, quote_literal
from ..postgres.profiles import Profile, profile_for
from ..postgres.session import connect
from ..spec import Endpoint

PREDEFINED = (("pg_signal_backend", 90600), ("pg_read_all_settings", 100000), ("pg_read_all_data", 140000))
"""Roles to be a member of, and the first version that has them."""
PLUGINS = "pgoutput, test_decoding, wal2json"


@dataclasses.dataclass(frozen=True)
class Step:
    """One statement for ``database`` (the maintenance database if empty). ``statement`` may be shown, ``sql`` is sent and may hold a
    verifier; ``undo`` takes it back."""

    database: str
    statement: str
    undo: str
    sql: str = dataclasses.field(default="", repr=False)


def plan_login(endpoint: Endpoint, name: str, password: str, databases: t.Iterable[str]) -> list[Step]:
    """What is missing for the login ``name`` on the server of ``endpoint`` (its administrator); nothing is written.

    The password is set when the role is made and left alone afterwards: its verifier need not be readable.

    :param databases: those that are going to be migrated, as the inventory names them.
    :raises MigrationError: PGM1214 where ``name`` is the administrator itself.
    """
    if name == endpoint.user:
        raise MigrationError(
            f"The migration's login {name} would be the administrator itself.", code="PGM1214", hint="Give it another name."
        )
    named = list(databases)
    with connect(endpoint, purpose="configure") as conn:
        chosen = select(named, list_databases(conn)) if is_selection(named) else named
        steps = _role(conn, profile_for(endpoint.type), name, password) + _memberships(conn, name, chosen)
        before_14 = conn.info.server_version < 140000
    if before_14:
        for database in chosen:
            with connect(endpoint, database, purpose="configure") as inside:
                steps += _select(inside, database, name)
    return steps


def apply_login(endpoint: Endpoint, steps: t.Iterable[Step], done: t.Callable[[Step], None] = lambda dummy: None) -> None:
    """Send ``steps`` in their order; ``done`` is told of each.

    :raises MigrationError: PGM1214 with the statement that was refused, without any secret.
    """
    with contextlib.ExitStack() as stack:
        sessions: dict[str, psycopg.Connection[t.Any]] = {}
        for step in steps:
            if step.database not in sessions:
                sessions[step.database] = stack.enter_context(connect(endpoint, step.database, purpose="configure"))
            _run(endpoint, sessions[step.database], step.sql or step.statement, step.statement)
            done(step)


def undo_login(endpoint: Endpoint, undo: t.Iterable[tuple[str, str]], done: t.Callable[[Step], None] = lambda dummy: None) -> None:
    """Take back what :func:`apply_login` did: (database, statement), the last first; ``done`` is told of each.

    :raises MigrationError: PGM1214 with the statement that was refused.
    """
    apply_login(endpoint, [Step(database, statement, "") for database, statement in reversed(list(undo))], done)


def _run(endpoint: Endpoint, conn: psycopg.Connection[t.Any], sql: str, shown: str) -> None:
    try:
        conn.execute(sql)
    except psycopg.Error as exc:
        raise MigrationError(
            f"Could not prepare the migration's login on {endpoint.label()}: {exc.diag.message_primary} (SQLSTATE {exc.sqlstate}).",
            code="PGM1214",
            server=endpoint.label(),
            sqlstate=exc.sqlstate or "",
            hint=f"Run it as an administrator that may: {shown};",
        ) from None  # the chained error would show the statement


def _role(conn: psycopg.Connection[t.Any], profile: Profile, name: str, password: str) -> list[Step]:
    role = quote_ident(name)
    row = conn.execute("SELECT rolcanlogin, rolreplication FROM pg_roles WHERE rolname = %s", [name]).fetchone()
    steps = []
    words = ["LOGIN"] + (["REPLICATION"] if not profile.replication_role else [])
    if row is None:
        verifier = conn.pgconn.encrypt_password(password.encode(), name.encode()).decode()
        text = f"CREATE ROLE {role} {' '.join(words)} PASSWORD "
        steps.append(Step("", text + "'********'", f"DROP ROLE {role}", text + quote_literal(verifier)))
    else:
        missing = [word for word, has in zip(words, row, strict=False) if not has]
        if missing:
            steps.append(Step("", f"ALTER ROLE {role} {' '.join(missing)}", f"ALTER ROLE {role} {' '.join('NO' + w for w in missing)}"))
    if profile.replication_role and not _member(conn, name, profile.replication_role):
        group = quote_ident(profile.replication_role)
        steps.append(Step("", profile.grant_replication(role), f"REVOKE {group} FROM {role}"))
    if conn.execute("SELECT FROM pg_settings WHERE name = 'output_plugin_libraries'").fetchone() is not None:
        query = "SELECT split_part(c, '=', 2) FROM pg_roles r, unnest(r.rolconfig) c WHERE r.rolname = %s"
        before = conn.execute(query + " AND c LIKE 'output\\_plugin\\_libraries=%%'", [name]).fetchone()
        if before is None or "wal2json" not in before[0]:
            undo = f"ALTER ROLE {role} " + (f"SET output_plugin_libraries = {before[0]}" if before else "RESET output_plugin_libraries")
            steps.append(Step("", f"ALTER ROLE {role} SET output_plugin_libraries = {PLUGINS}", undo))
    return steps


def _member(conn: psycopg.Connection[t.Any], name: str, group: str) -> bool:
    query = """SELECT FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles u ON u.oid = m.member
                WHERE r.rolname = %s AND u.rolname = %s"""
    return conn.execute(query, [group, name]).fetchone() is not None


def _memberships(conn: psycopg.Connection[t.Any], name: str, databases: t.Sequence[str]) -> list[Step]:
    rows = conn.execute(
        "SELECT r.rolname::text, r.rolsuper FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba WHERE d.datname = ANY(%s)"
        " GROUP BY 1, 2 ORDER BY 1",
        [list(databases)],
    ).fetchall()
    version = conn.info.server_version
    wanted = [group for group, since in PREDEFINED if version >= since] + [owner for owner, superuser in rows if not superuser]
    role = quote_ident(name)
    return [
        Step("", f"GRANT {quote_ident(group)} TO {role}", f"REVOKE {quote_ident(group)} FROM {role}")
        for group in wanted
        if group != name and not _member(conn, name, group)
    ]


def _select(conn: psycopg.Connection[t.Any], database: str, name: str) -> list[Step]:
    """Before 14: USAGE of each schema, SELECT on each table and sequence in it, where PUBLIC or the role has not got them."""
    role = quote_ident(name)
    known = conn.execute("SELECT FROM pg_roles WHERE rolname = %s", [name]).fetchone() is not None
    missing = "NOT has_schema_privilege(%(name)s, n.oid, 'USAGE')" if known else "true"
    unread = "NOT has_table_privilege(%(name)s, c.oid, 'SELECT')" if known else "true"
    rows = conn.execute(
        f"""SELECT quote_ident(n.nspname), {missing},
                   EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'm', 'S') AND {unread})
              FROM pg_namespace n WHERE {USER_SCHEMAS} ORDER BY 1""",
        {"name": name},
    ).fetchall()
    steps = []
    for schema, usage, unread_there in rows:
        if usage:
            steps.append(Step(database, f"GRANT USAGE ON SCHEMA {schema} TO {role}", f"REVOKE USAGE ON SCHEMA {schema} FROM {role}"))
        for kind in ("TABLES", "SEQUENCES") if unread_there else ():
            what = f"SELECT ON ALL {kind} IN SCHEMA {schema}"
            steps.append(Step(database, f"GRANT {what} TO {role}", f"REVOKE {what} FROM {role}"))
    return steps
