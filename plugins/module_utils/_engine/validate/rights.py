# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Checks of databases that must or must not exist, and of what the two users may do."""

from __future__ import annotations

import typing as t

from ..errors import ConnectionFailed, MigrationError
from ..migration.ledger import Ledger
from ..postgres.catalog import USER_SCHEMAS
from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_ident, quote_qualified
from ..postgres.selection import KEPT_RELATION
from ..source.publication import foreign_owners, may_create
from .context import Context, one
from .registry import OWNER, PLAYBOOK, Issue, check, fail, names, ok, statements, warn

EXISTS = "SELECT true FROM pg_database WHERE datname = %s"


@check(
    "PGM2201",
    "database on source",
    who=PLAYBOOK,
    azure="603102",
    scope="database",
    needs=(),
    remedy="correct pg_migration.databases",
    order=-5,
)
def database_on_source(ctx: Context) -> t.Iterator[Issue]:
    """The database exists on the source and the migration user may connect to it."""
    if not one(ctx.session("source"), EXISTS, [ctx.database]):
        yield fail(
            f"database {ctx.database} does not exist on the source",
            "Correct pg_migration.databases (psql -l shows them).",
            object=ctx.database,
        )
        return
    try:
        conn = ctx.source
    except ConnectionFailed as exc:
        fix = f"As its owner: GRANT CONNECT ON DATABASE {quote_ident(ctx.database)} TO {quote_ident(ctx.user('source'))}; no restart."
        denied = exc.sqlstate == "42501" or "permission" in exc.message
        yield fail(exc.message, fix if denied else exc.hint, object=ctx.database, who=OWNER if denied else "")
        return
    size = int(one(conn, "SELECT pg_catalog.pg_database_size(pg_catalog.current_database())"))
    yield ok(f"{size / 2**20:.1f} MB", object=ctx.database, data={"bytes": size})


@check(
    "PGM2202",
    "database on target",
    azure="603101",
    scope="database",
    side="target",
    remedy="DROP DATABASE on the target, or another target",
    order=-4,
)
def database_on_target(ctx: Context) -> t.Iterator[Issue]:
    """No database of that name is on the target, unless this very migration began it; or one is, where its schema is to be used."""
    present = ctx.spec.copy.present
    if not one(ctx.target, EXISTS, [ctx.database]):
        if present:
            fix = "As the target's administrator: create it with its schema. Or set copy.target_schema to create."
            yield fail(f"database {ctx.database} is not on the target, though copy.target_schema says present", fix, object=ctx.database)
        else:
            yield ok("free", object=ctx.database)
        return
    fix = f"If it is not needed, as its owner on the target: DROP DATABASE {quote_ident(ctx.database)};"
    try:
        owner = Ledger(ctx.session("target", ctx.database)).owner()
    except (ConnectionFailed, psycopg.Error) as exc:
        yield fail(f"database {ctx.database} exists on the target and cannot be looked into: {exc}".strip(), fix, object=ctx.database)
        return
    finally:
        ctx.drop_session("target", ctx.database)
    if owner == ctx.spec.key:
        yield ok("begun by this migration; it goes on", object=ctx.database)
    elif present and owner is None:
        yield ok("it is there, as copy.target_schema says", object=ctx.database)
    else:
        whose = f"of the migration {owner}" if owner else "and is not of this migration"
        if ctx.spec.copy.overwrite and not present:
            yield warn(f"database {ctx.database} exists on the target {whose}; it is dropped, as copy.overwrite says", object=ctx.database)
            return
        yield fail(f"database {ctx.database} exists on the target {whose}", fix, object=ctx.database)


@check(
    "PGM2208",
    "right to drop",
    azure="603117",
    scope="database",
    side="target",
    worst="Warning",
    remedy="DROP DATABASE as its owner, or GRANT the owner to the user",
)
def droppable(ctx: Context) -> t.Iterator[Issue]:
    """Where a database of that name stands in the way, the target's user may drop it (it needs to be its owner)."""
    if ctx.spec.copy.present:
        yield ok("it is not dropped")
        return
    query = "SELECT pg_get_userbyid(datdba)::text, pg_has_role(datdba, 'USAGE') FROM pg_database WHERE datname = %s"
    row = ctx.target.execute(query, [ctx.database]).fetchone()
    if row is None or row[1]:
        yield ok("nothing in the way" if row is None else f"owned by {row[0]}")
        return
    user, owner = quote_ident(ctx.target.info.user), quote_ident(row[0])
    yield warn(
        f"{ctx.target.info.user} may not drop database {ctx.database} on the target: it belongs to {row[0]}",
        f"If it is not needed, as {row[0]}: DROP DATABASE {quote_ident(ctx.database)}; or GRANT {owner} TO {user}; no restart.",
        object=ctx.database,
    )


@check("PGM2203", "rights on source objects", azure="603110", scope="database", remedy="GRANT pg_read_all_data (14+), or SELECT and USAGE")
def readable(ctx: Context) -> t.Iterator[Issue]:
    """The migration user may read every table and sequence that is chosen (USAGE on the schema, SELECT)."""
    user = quote_ident(ctx.user("source"))
    schemas = [
        row[0]
        for row in ctx.chosen_rows(
            f"SELECT n.nspname FROM pg_namespace n WHERE {USER_SCHEMAS} AND NOT has_schema_privilege(n.oid, 'USAGE') AND EXISTS (SELECT"
            f" FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'S') AND {KEPT_RELATION}) ORDER BY 1"
        )
    ]
    rows = ctx.chosen_rows(
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        f" WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't' AND {USER_SCHEMAS} AND {KEPT_RELATION}"
        " AND NOT CASE WHEN c.relkind = 'S' THEN has_sequence_privilege(c.oid, 'SELECT') ELSE has_table_privilege(c.oid, 'SELECT') END"
        " ORDER BY 1, 2"
    )
    if not schemas and not rows:
        yield ok()
        return
    parts = [f"schemas without USAGE: {names(schemas)}"] if schemas else []
    parts += [f"{len(rows)} table(s) or sequence(s) without SELECT: {names('.'.join(row) for row in rows)}"] if rows else []
    if ctx.version("source") >= 140000:
        fix = f"As a superuser: GRANT pg_read_all_data TO {user}; no restart."
    else:
        grants = [f"GRANT USAGE ON SCHEMA {quote_ident(s)} TO {user}" for s in schemas]
        grants += [f"GRANT SELECT ON {quote_qualified(*row)} TO {user}" for row in rows]
        fix = f"As their owner, in {ctx.database}: {statements(grants)} no restart."
    objects = ",".join(schemas or [".".join(row) for row in rows[:5]])
    who = "" if ctx.version("source") >= 140000 else OWNER
    yield fail("; ".join(parts), fix, object=objects, data=[*schemas, *(".".join(row) for row in rows)], who=who)


@check(
    "PGM2204",
    "large objects readable",
    who=OWNER,
    azure="603110",
    scope="database",
    remedy="GRANT SELECT ON LARGE OBJECT, or a superuser's connection",
)
def readable_large_objects(ctx: Context) -> t.Iterator[Issue]:
    """Each large object can be read by the migration user: they have no predefined role."""
    if ctx.superuser("source") or ctx.setting("source", "lo_compat_privileges") == "on":
        yield ok()
        return
    readable_by = "pg_has_role(m.lomowner, 'USAGE') OR EXISTS (SELECT FROM aclexplode(m.lomacl) a WHERE a.privilege_type = 'SELECT'"
    readable_by += " AND (a.grantee = 0 OR pg_has_role(a.grantee, 'USAGE')))"
    rows = ctx.source.execute(f"SELECT m.oid::text FROM pg_largeobject_metadata m WHERE NOT ({readable_by}) ORDER BY m.oid").fetchall()
    if rows:
        user = quote_ident(ctx.user("source"))
        yield fail(
            f"{len(rows)} large object(s) cannot be read: {names(row[0] for row in rows)}",
            f"As their owner: {statements(f'GRANT SELECT ON LARGE OBJECT {int(row[0])} TO {user}' for row in rows)} no restart.",
            object=rows[0][0],
        )
    else:
        yield ok()


@check("PGM2205", "row security", scope="database", remedy="ALTER ROLE ... BYPASSRLS, or membership in the owner")
def row_security(ctx: Context) -> t.Iterator[Issue]:
    """No row is hidden from the migration user by row security (B10)."""
    if one(ctx.source, "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"):
        yield ok()
        return
    rows = ctx.chosen_rows(
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        f" WHERE c.relkind IN ('r', 'p') AND c.relrowsecurity AND {USER_SCHEMAS} AND {KEPT_RELATION}"
        "   AND (c.relforcerowsecurity OR NOT pg_has_role(c.relowner, 'USAGE')) ORDER BY 1, 2"
    )
    if not rows:
        yield ok()
        return
    user = quote_ident(ctx.user("source"))
    yield fail(
        f"{len(rows)} table(s) whose rows are hidden by row security: {names(f'{row[0]}.{row[1]}' for row in rows)}",
        f"As a superuser: ALTER ROLE {user} BYPASSRLS; no restart.",
        object=f"{rows[0][0]}.{rows[0][1]}",
        data=[f"{row[0]}.{row[1]}" for row in rows],
    )


@check("PGM2206", "right to fence", azure="603110", scope="database", online=True, remedy="GRANT owner and pg_signal_backend to the user")
def fence_rights(ctx: Context) -> t.Iterator[Issue]:
    """The migration user owns the database and may end sessions, so that the cutover can keep writers out."""
    if ctx.spec.cutover.fence == "none" or ctx.superuser("source"):
        yield ok("not needed" if ctx.spec.cutover.fence == "none" else "superuser")
        return
    conn, user = ctx.source, quote_ident(ctx.user("source"))
    owner = one(
        conn,
        "SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE datname = current_database() AND NOT pg_has_role(datdba, 'USAGE')",
    )
    if owner:
        where = f"on the {ctx.called('source')} " if ctx.spec.back_of else ""
        yield fail(
            f"{ctx.user('source')} does not own database {ctx.database} {where}(its owner is {owner})"
            " and cannot revoke CONNECT at the cutover",
            f"As {owner} or a superuser: GRANT {quote_ident(owner)} TO {user}; no restart."
            + ("" if ctx.spec.rollback == "prepared" else " Or set cutover.fence to none and stop the writers yourself."),
            object=ctx.database,
        )
    deaf = list(signal_rights(ctx))
    yield from deaf
    if not owner and not deaf:
        yield ok()


def signal_rights(ctx: Context) -> t.Iterator[Issue]:
    """The user of the side that is to be fenced may end other sessions there; nothing where that is so. Older servers than 9.6 have no role
    for it."""
    role = "SELECT pg_has_role(oid, 'USAGE') FROM pg_roles WHERE rolname = 'pg_signal_backend'"
    if not ctx.superuser("source") and one(ctx.session("source"), role) is False:
        yield fail(
            f"{ctx.user('source')} may not end other sessions on the {ctx.called('source')}",
            f"As a superuser: GRANT pg_signal_backend TO {quote_ident(ctx.user('source'))}; no restart.",
            object=ctx.user("source"),
        )


@check("PGM2207", "right to publish", scope="database", online=True, remedy="GRANT the tables' owner; GRANT CREATE ON DATABASE")
def publish_rights(ctx: Context) -> t.Iterator[Issue]:
    """Where pgoutput is used, the migration user may make a publication: CREATE on the database, and it owns the tables."""
    choice = ctx.plugin()
    if isinstance(choice, MigrationError) or choice.plugin != "pgoutput" or ctx.superuser("source"):
        yield ok("no publication needed" if not ctx.superuser("source") else "superuser")
        return
    conn, user = ctx.source, quote_ident(ctx.user("source"))
    create = may_create(conn)
    if not create:
        yield fail(
            f"{ctx.user('source')} has no CREATE on database {ctx.database}, so no publication can be made",
            f"As its owner: GRANT CREATE ON DATABASE {quote_ident(ctx.database)} TO {user}; no restart.",
            object=ctx.database,
            who=OWNER,
        )
    owners = foreign_owners(conn, ctx.tables())
    if owners:
        fixes = [share_owner(ctx, found.owner, user, found.superuser) for found in owners]
        yield fail(
            f"tables of other owners cannot be published: {names(f'{o.tables} of {o.owner} ({o.example}...)' for o in owners)}",
            f"As a superuser: {statements(fixes)} no restart.",
            object=owners[0].example,
        )
    if create and not owners:
        yield ok()


def share_owner(ctx: Context, owner: str, user: str, superuser: bool) -> str:
    """The statement that makes the migration user an owner too; a superuser's role is never handed to it."""
    if superuser:
        return f"in {ctx.database}, for each table of {owner}: ALTER TABLE ... OWNER TO a role that {user} is a member of"
    return f"GRANT {quote_ident(owner)} TO {user}"


@check("PGM2211", "CREATEDB on target", side="target", remedy="ALTER ROLE ... CREATEDB")
def createdb(ctx: Context) -> t.Iterator[Issue]:
    """The target's user may create databases."""
    conn = ctx.target
    if ctx.spec.copy.present:
        yield ok("none is created")
        return
    if one(conn, "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"):
        yield ok()
    else:
        user = conn.info.user
        yield fail(
            f"{user} may not create databases on the target",
            f"As the server's administrator: ALTER ROLE {quote_ident(user)} CREATEDB; no restart.",
        )


@check("PGM2212", "CREATEROLE on target", azure="603116", side="target", remedy="ALTER ROLE ... CREATEROLE, or globals.enabled: false")
def createrole(ctx: Context) -> t.Iterator[Issue]:
    """The target's user may create roles, where roles are migrated."""
    if not ctx.spec.globals.enabled:
        yield ok("roles are not migrated")
        return
    conn = ctx.target
    if one(conn, "SELECT rolcreaterole OR rolsuper FROM pg_roles WHERE rolname = current_user"):
        yield ok()
    else:
        user = conn.info.user
        yield fail(
            f"{user} may not create roles on the target",
            f"As the server's administrator: ALTER ROLE {quote_ident(user)} CREATEROLE; no restart. Or set globals.enabled to false.",
        )


@check(
    "PGM2213",
    "session_replication_role",
    side="target",
    worst="Warning",
    remedy="GRANT SET ON PARAMETER session_replication_role (15+)",
)
def replica_role(ctx: Context) -> t.Iterator[Issue]:
    """The target's user may set ``session_replication_role``, so that triggers and foreign keys rest while data is written."""
    conn = ctx.target
    try:
        conn.execute("SET session_replication_role = replica")
        conn.execute("RESET session_replication_role")
        yield ok()
    except psycopg.errors.InsufficientPrivilege:
        user = quote_ident(conn.info.user)
        if conn.info.server_version >= 150000:
            fix = f"As a superuser of the target: GRANT SET ON PARAMETER session_replication_role TO {user}; no restart."
        else:
            fix = "Nothing to do on versions before 15, unless the provider gives its administrator this right."
        yield warn(
            f"{conn.info.user} may not set session_replication_role: while changes are applied, triggers and rules are disabled"
            " by their owner and foreign keys are taken away; at the cutover they come back, the rows under the keys are checked after it",
            fix,
        )


@check("PGM2214", "pg_signal_backend on target", azure="603111", side="target", worst="Warning", remedy="GRANT pg_signal_backend")
def signal_backend(ctx: Context) -> t.Iterator[Issue]:
    """The target's user may end other sessions: an aborted attempt's databases can only be dropped without them."""
    conn = ctx.target
    if ctx.superuser("target") or one(conn, "SELECT pg_has_role(oid, 'USAGE') FROM pg_roles WHERE rolname = 'pg_signal_backend'"):
        yield ok()
    else:
        user = conn.info.user
        yield warn(
            f"{user} may not end other users' sessions on the target",
            f"As the server's administrator: GRANT pg_signal_backend TO {quote_ident(user)}; no restart.",
        )


@check("PGM2215", "administrator of the target", azure="603115", side="target", remedy="GRANT azure_pg_admin (or the provider's role)")
def administrator(ctx: Context) -> t.Iterator[Issue]:
    """On a provider's server the target's user is a member of the administrators' role (``azure_pg_admin``, ``rds_superuser``...)."""
    role = ctx.profile("target").admin_role
    if not role:
        yield ok("no such role on this kind of server")
        return
    conn = ctx.target
    member = one(conn, "SELECT pg_has_role(oid, 'MEMBER') FROM pg_roles WHERE rolname = %s", [role])
    user = conn.info.user
    if member is None:
        yield fail(
            f"the target has no role {role}: it is no server of type {ctx.spec.target.type}",
            "Correct pg_migration.target.type (self_managed for a server of your own).",
            object=role,
        )
    elif not member:
        yield fail(
            f"{user} is no member of {role}",
            f"As the server's administrator: GRANT {role} TO {quote_ident(user)}; no restart.",
            object=user,
        )
    else:
        yield ok(role)
