# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What ``rollback: prepared`` needs, seen at the beginning and not at the cutover: the target can be what the source is, the server that
changes are read from and that is fenced; and the source's user may write what the target's applications will have written."""

from __future__ import annotations

import dataclasses
import typing as t

from ..errors import MigrationError
from ..migration.back import back_spec
from ..postgres.catalog import NOT_OF_EXTENSION, USER_SCHEMAS
from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_ident
from ..postgres.selection import KEPT_RELATION
from ..source.plugin import choose_plugin
from .context import Context, one
from .registry import CHECKS, OWNER, SUCCEEDED, Issue, check, fail, names, ok, statements
from .rights import share_owner, signal_rights

INSTANCE = ("PGM2101", "PGM2102", "PGM2103", "PGM2105", "PGM2109")
"""Checks of a source that the target must pass, too."""

DATABASE = ("PGM2106", "PGM2206")
"""And those of a database, once it is there."""

WRITES = "PGM2217"
"""The check of what the source's user may write."""

_CLOSED = f"""
SELECT pg_get_userbyid(c.relowner)::text, count(*), min(n.nspname || '.' || c.relname), bool_or(r.rolsuper)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles r ON r.oid = c.relowner
 WHERE NOT pg_has_role(c.relowner, 'USAGE') AND {KEPT_RELATION} AND CASE
  WHEN c.relkind = 'S' THEN {USER_SCHEMAS} AND {NOT_OF_EXTENSION} AND NOT has_sequence_privilege(c.oid, 'UPDATE')
  WHEN c.oid <> ALL(%(tables)s) THEN false
  WHEN NOT has_schema_privilege(n.oid, 'USAGE') THEN true
  WHEN NOT (has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'UPDATE')) THEN true
  WHEN NOT (has_table_privilege(c.oid, 'DELETE') AND has_table_privilege(c.oid, 'TRUNCATE')) THEN true
  ELSE NOT %(replica)s AND (EXISTS (SELECT FROM pg_trigger WHERE tgrelid = c.oid AND tgenabled <> 'D') OR c.relhasrules) END
 GROUP BY 1 ORDER BY 1"""


@check("PGM2216", "way back", side="target", online=True, remedy="prepare the target as a source is, or rollback: none", order=80)
def way_back(ctx: Context) -> t.Iterator[Issue]:
    """For ``rollback: prepared`` the target can be read (``wal_level``, slots, senders, REPLICATION, plugin) and fenced."""
    if ctx.spec.rollback != "prepared":
        yield ok("not asked for")
        return
    back = Context(back_spec(ctx.spec), ctx.home)
    back.databases = ctx.databases
    try:
        found = [issue for code in INSTANCE for issue in CHECKS[code].function(back) if issue.severity != SUCCEEDED]
        found += signal_rights(back)
        if not found:
            found += _plugin(back)
    finally:
        back.close()
    for issue in found:
        yield dataclasses.replace(issue, message=f"for the way back, which reads from the target: {issue.message}")
    if not found:
        yield ok("the target can be read from and fenced")


def _plugin(back: Context) -> t.Iterator[Issue]:
    """A plugin that is named is there. The database is not there yet: another one is asked."""
    wanted = back.spec.changes.plugin
    if wanted == "auto":
        return
    try:
        choose_plugin(back.spec.source, back.spec.source.dbname, wanted)
    except MigrationError as exc:
        yield fail(exc.message, exc.hint, object=wanted)


@check(
    WRITES,
    "writes of the way back",
    who=OWNER,
    scope="database",
    online=True,
    remedy="GRANT the tables' owner, or rollback: none",
)
def way_back_writes(ctx: Context) -> t.Iterator[Issue]:
    """For ``rollback: prepared`` the source's user may write tables and sequences, let triggers rest, and CREATE in the database."""
    if ctx.spec.rollback != "prepared" or ctx.superuser("source"):
        yield ok("not asked for" if ctx.spec.rollback != "prepared" else "superuser")
        return
    conn, user = ctx.source, quote_ident(ctx.user("source"))
    create = one(conn, "SELECT pg_catalog.has_database_privilege(current_database(), 'CREATE')")
    if not create:
        yield fail(
            f"for the way back: {ctx.user('source')} has no CREATE on database {ctx.database} of the source, where its position is kept",
            f"As its owner on the source: GRANT CREATE ON DATABASE {quote_ident(ctx.database)} TO {user}; no restart.",
            object=ctx.database,
        )
    tables = [table.oid for table in ctx.tables() if table.persistence == "p"]
    closed = ctx.chosen_rows(_CLOSED, tables=tables, replica=_may_be_replica(conn))
    if closed:
        fixes = [share_owner(ctx, owner, user, superuser) for owner, dummy, dummy2, superuser in closed]
        yield fail(
            f"for the way back: {ctx.user('source')} may not write, or not let triggers and foreign keys rest, on the source: "
            + names(f"{count} of {owner} ({first}...)" for owner, count, first, dummy in closed),
            f"As a superuser of the source: {statements(fixes)} no restart.",
            object=closed[0][2],
        )
    if create and not closed:
        yield ok()


def _may_be_replica(conn: psycopg.Connection[t.Any]) -> bool:
    """Do triggers and foreign keys rest by ``session_replication_role``, so that no owner is needed for that?"""
    try:
        conn.execute("SET session_replication_role = replica")
    except psycopg.errors.InsufficientPrivilege:
        return False
    conn.execute("RESET session_replication_role")
    return True
