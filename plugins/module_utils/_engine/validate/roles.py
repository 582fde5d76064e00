# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Checks of roles: those that cannot move as they are, with what they own (R36)."""

from __future__ import annotations

import typing as t

from ..postgres.catalog import USER_SCHEMAS
from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_ident
from ..postgres.selection import KEPT_RELATION, KEPT_SCHEMA
from .context import Context
from .registry import Issue, check, fail, names, ok, warn

BOOTSTRAP = 10
"""OID of the role that initdb makes."""


@check("PGM2501", "superusers", worst="Warning", remedy="REASSIGN OWNED, or globals.superuser_policy: demote", needs=("source", "target"))
def superusers(ctx: Context) -> t.Iterator[Issue]:
    """Roles with SUPERUSER cannot be made on the target: they are removed or demoted, and what they own gets another owner (R36)."""
    if not ctx.spec.globals.enabled:
        yield ok("roles are not migrated")
        return
    rows = (
        ctx.session("source")
        .execute(
            "SELECT r.rolname::text, (SELECT count(*) FROM pg_shdepend d JOIN pg_database b ON b.oid = d.dbid"
            " WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.oid AND d.deptype = 'o' AND b.datname = ANY(%s))"
            " FROM pg_roles r WHERE r.rolsuper AND r.oid <> %s ORDER BY 1",
            [ctx.databases, BOOTSTRAP],
        )
        .fetchall()
    )
    found = [row for row in rows if not ctx.profile("source").is_provider_role(row[0])]
    if not found:
        yield ok("none but the server's own")
        return
    demote = ctx.spec.globals.superuser_policy == "demote"
    what = "made without SUPERUSER" if demote else "left out; their objects get the target user as owner"
    first = quote_ident(found[0][0])
    yield warn(
        f"{len(found)} superuser(s): {names(f'{name} ({count} objects)' for name, count in found)}; they are {what}",
        f"To keep another owner, as a superuser in each database of the source: REASSIGN OWNED BY {first} TO ...; no restart."
        " Or globals.superuser_policy: demote.",
        object=found[0][0],
        data=[{"role": name, "objects": count} for name, count in found],
    )


@check("PGM2502", "objects of superusers", scope="database", worst="Warning", remedy="REASSIGN OWNED BY ... TO ...")
def owned_by_superusers(ctx: Context) -> t.Iterator[Issue]:
    """Objects whose owner is a superuser: on the target they belong to the migration's user (R36)."""
    rows = ctx.chosen_rows(
        f"""SELECT pg_get_userbyid(x.owner)::text, count(*), array_agg(x.what ORDER BY x.what) FROM (
                SELECT c.relowner AS owner, n.nspname || '.' || c.relname AS what
                  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.relkind IN ('r','p','v','m','S','f') AND {USER_SCHEMAS} AND {KEPT_RELATION} AND c.relpersistence <> 't'
                   AND NOT EXISTS (
                    SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
                UNION ALL
                SELECT p.proowner, n.nspname || '.' || p.proname || '()' FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                 WHERE {USER_SCHEMAS} AND {KEPT_SCHEMA} AND NOT EXISTS (
                    SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
                UNION ALL
                SELECT n.nspowner, 'schema ' || n.nspname FROM pg_namespace n
                 WHERE {USER_SCHEMAS} AND {KEPT_SCHEMA} AND n.nspname <> 'public' AND NOT EXISTS (
                    SELECT FROM pg_depend d WHERE d.classid = 'pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e')) x
              JOIN pg_roles r ON r.oid = x.owner AND r.rolsuper GROUP BY 1 ORDER BY 1"""
    )
    if not rows:
        yield ok("none")
        return
    listed = "; ".join(f"{role} owns {count}: {names(objects, 5)}" for role, count, objects in rows)
    yield warn(
        f"objects of superusers: {listed}",
        f"To keep another owner, as a superuser in {ctx.database}: ALTER TABLE {rows[0][2][0]} OWNER TO ...; and so on; no restart.",
        object=rows[0][2][0],
        data={role: list(objects) for role, dummy, objects in rows},
    )


@check(
    "PGM2503",
    "attributes that the target refuses",
    side="target",
    needs=("source", "target"),
    worst="Warning",
    remedy="give another right instead",
)
def refused_attributes(ctx: Context) -> t.Iterator[Issue]:
    """Attributes of roles (REPLICATION, BYPASSRLS) that the target's administrator may not give."""
    profile, version = ctx.profile("target"), ctx.version("target")
    columns = {"REPLICATION": "rolreplication", "BYPASSRLS": "rolbypassrls"}
    refused = [word for word in columns if profile.refuses(word, version)]
    found = []
    for word in refused:
        rows = ctx.session("source").execute(
            f"SELECT rolname::text FROM pg_roles WHERE {columns[word]} AND NOT rolsuper AND rolname <> current_user ORDER BY 1"
        )
        found += [f"{row[0]} {word}" for row in rows.fetchall() if not ctx.profile("source").is_provider_role(row[0])]
    if found and ctx.spec.globals.enabled:
        replacement = f" ({profile.replication_grant.format(role='...')} stands for REPLICATION)" if profile.replication_role else ""
        yield warn(
            f"{len(found)} attribute(s) are left out: {names(found)}",
            f"After the migration, as the target's administrator, grant what is needed instead{replacement}; no restart.",
            object=found[0].split()[0],
        )
    else:
        yield ok()


@check("PGM2504", "passwords of roles", worst="Warning", remedy="GRANT SELECT ON pg_authid, or ALTER ROLE ... PASSWORD on the target")
def passwords(ctx: Context) -> t.Iterator[Issue]:
    """Password verifiers can be read and carried over; those in MD5 are told, because newer servers refuse them."""
    conn = ctx.session("source")
    if not ctx.spec.globals.enabled:
        yield ok("roles are not migrated")
        return
    try:
        rows = conn.execute(
            "SELECT rolname::text FROM pg_authid WHERE rolcanlogin AND NOT rolsuper AND rolpassword LIKE 'md5%' ORDER BY 1"
        ).fetchall()
    except psycopg.errors.InsufficientPrivilege:
        found = [
            row[0]
            for row in conn.execute(
                "SELECT rolname::text FROM pg_roles WHERE rolcanlogin AND NOT rolsuper AND rolname <> current_user ORDER BY 1"
            ).fetchall()
            if not ctx.profile("source").is_provider_role(row[0])
        ]
        if not found:
            yield ok("no role needs one")
            return
        yield warn(
            f"passwords cannot be read by {conn.info.user}: {len(found)} role(s) need a new one on the target: {names(found)}",
            f"As a superuser of the source: GRANT SELECT ON pg_catalog.pg_authid TO {quote_ident(conn.info.user)}; no restart."
            " Or set the passwords on the target with ALTER ROLE ... PASSWORD.",
            object=found[0],
            data=found,
        )
        return
    if rows:
        yield warn(
            f"{len(rows)} role(s) with an MD5 password: {names(row[0] for row in rows)}; servers that ask for scram-sha-256 refuse them",
            f"Each user, with password_encryption = 'scram-sha-256': ALTER ROLE {quote_ident(rows[0][0])} PASSWORD ...; no restart.",
            object=rows[0][0],
        )
    else:
        yield ok()


@check(
    "PGM2505",
    "roles of an identity service",
    azure="603103",
    side="target",
    needs=("source", "target"),
    remedy="create them on the target with the provider's means before the migration",
)
def identity_service(ctx: Context) -> t.Iterator[Issue]:
    """Roles that log in through an identity service (Entra, IAM) are on the target already: they cannot be made by CREATE ROLE."""
    profile, conn = ctx.profile("source"), ctx.session("source")
    rows = conn.execute(
        """SELECT r.rolname::text, EXISTS (SELECT FROM pg_shdepend d JOIN pg_database b ON b.oid = d.dbid
                    WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.oid AND b.datname = ANY(%(databases)s))
             FROM pg_roles r
            WHERE r.oid IN (SELECT m.member FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE g.rolname = ANY(%(groups)s))
               OR EXISTS (SELECT FROM pg_shseclabel l WHERE l.classoid = 'pg_authid'::regclass AND l.objoid = r.oid
                             AND l.provider = %(label)s) ORDER BY 1""",
        {"databases": ctx.databases, "groups": list(profile.identity_roles), "label": profile.identity_label},
    ).fetchall()
    there = {row[0] for row in ctx.session("target").execute("SELECT rolname::text FROM pg_roles").fetchall()}
    missing = [(name, used) for name, used in rows if name not in there and not profile.is_provider_role(name)]
    if not missing:
        yield ok(f"{len(rows)} on both sides" if rows else "none")
        return
    issue = fail if any(used for dummy, used in missing) else warn
    yield issue(
        "roles of the source's identity service that the target lacks: "
        + names(f"{name} (objects or rights depend on it)" if used else name for name, used in missing),
        f"As the target's administrator of identities, with the provider's means, create {missing[0][0]} and the others; no restart.",
        object=missing[0][0],
        data=[name for name, dummy in missing],
    )
