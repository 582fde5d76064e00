# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Which roles the schema needs on the target, and what becomes of those that the administrator cannot act for.

To give an object away one must be a member of the new owner, and that role needs CREATE on the schema (PostgreSQL manual, ALTER TABLE).
Members are made by the globals; CREATE is lent here while the schema is built, and taken back at the end.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ..errors import CopyError
from ..postgres.catalog import USER_SCHEMAS
from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_ident
from ..postgres.profiles import profile_for
from ..spec import MigrationSpec
from . import leftout

_NEEDED = """
    SELECT r.rolname::text, r.rolsuper, bool_or(n.deptype = 'o')
      FROM (SELECT refobjid, deptype FROM pg_shdepend
             WHERE refclassid = 'pg_authid'::regclass AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
               AND (classid = to_regclass('pg_catalog.pg_publication')
                    AND (pg_identify_object(classid, objid, 0)).identity LIKE 'pgm\\_%') IS NOT TRUE
            UNION ALL SELECT 10, 'o') n
      JOIN pg_roles r ON r.oid = n.refobjid
     GROUP BY 1, 2 ORDER BY 1"""
"""Owners, grantees and roles in policies; our own publication does not count (10 and later have them). The bootstrap superuser (OID 10) is
pinned and never listed."""

_OWNERS = f"""
    SELECT DISTINCT n.nspname::text, pg_get_userbyid(o.owner)::text
      FROM (SELECT relnamespace AS space, relowner AS owner FROM pg_class UNION ALL SELECT pronamespace, proowner FROM pg_proc
            UNION ALL SELECT typnamespace, typowner FROM pg_type UNION ALL SELECT collnamespace, collowner FROM pg_collation
            UNION ALL SELECT oprnamespace, oprowner FROM pg_operator UNION ALL SELECT cfgnamespace, cfgowner FROM pg_ts_config
            UNION ALL SELECT dictnamespace, dictowner FROM pg_ts_dict) o
      JOIN pg_namespace n ON n.oid = o.space WHERE {USER_SCHEMAS}"""


@dataclasses.dataclass(frozen=True)
class RolePlan:
    """``unowned``: roles that objects cannot be given to; ``absent``: roles that the target lacks and will not get."""

    unowned: frozenset[str]
    absent: frozenset[str]
    notes: tuple[str, ...]


def plan_roles(spec: MigrationSpec, source: psycopg.Connection[t.Any], target: psycopg.Connection[t.Any]) -> RolePlan:
    """What becomes of each role that the schema speaks of.

    :raises CopyError: PGM3005, naming all ordinary roles that are missing, or that the administrator is no member of.
    """
    needed = source.execute(_NEEDED).fetchall()
    mode = "SET" if target.info.server_version >= 160000 else "MEMBER"
    there = {
        name: (may, superuser)
        for name, may, superuser in target.execute(
            "SELECT rolname::text, pg_has_role(current_user, oid, %s), rolsuper FROM pg_roles WHERE rolname = ANY(%s)",
            [mode, [r[0] for r in needed]],
        )
    }
    profile = profile_for(spec.source.type)
    unowned, absent, missing, foreign = set(), set(), [], []
    for name, superuser, owns in needed:
        special = superuser or profile.is_provider_role(name)
        if name not in there:
            ours = name == spec.source.user and not owns  # the globals leave the migration's own login behind
            if not special and not ours:
                missing.append(name)
            absent.add(name)
            unowned.add(name)
        elif not there[name][0]:
            unowned.add(name)
            if owns and not special and not there[name][1]:
                foreign.append(name)
    if missing:
        raise CopyError(
            f"Roles that own objects or hold grants are missing on {spec.target.label()}: {', '.join(missing)}.",
            code="PGM3005",
            hint="Migrate the globals first (globals.enabled: true), or create these roles.",
            details={"roles": missing},
        )
    if foreign:
        grants = "; ".join(f"GRANT {quote_ident(name)} TO {quote_ident(spec.target.user)}" for name in foreign)
        raise CopyError(
            f"{spec.target.label()} is no member of roles that own objects: {', '.join(foreign)}.",
            code="PGM3005",
            hint=f"Run on the target: {grants}",
            details={"roles": foreign},
        )
    owning = sorted(name for name, dummy, owns in needed if owns and name in unowned)
    notes = [leftout.OWNER.say(name=name, user=spec.target.user) for name in owning if _visible(source, name)]
    notes += [leftout.GRANT.say(name=name) for name in sorted(absent) if name not in owning]
    return RolePlan(frozenset(unowned), frozenset(absent), tuple(notes))


def _visible(source: psycopg.Connection[t.Any], role: str) -> bool:
    """Does ``role`` own anything that is the user's?"""
    return role in {owner for dummy, owner in source.execute(_OWNERS)}


def lend_create(source: psycopg.Connection[t.Any], target: psycopg.Connection[t.Any], plan: RolePlan) -> None:
    """Give CREATE on each schema to the owners of its objects who lack it there."""
    for schema, owner in _lacking(target, source.execute(_OWNERS).fetchall(), plan):
        target.execute(f"GRANT CREATE ON SCHEMA {quote_ident(schema)} TO {quote_ident(owner)}")


def take_back_create(source: psycopg.Connection[t.Any], target: psycopg.Connection[t.Any], plan: RolePlan) -> None:
    """Undo :func:`lend_create`: who has CREATE on the target but not on the source loses it."""
    there = {row[0] for row in target.execute("SELECT nspname::text FROM pg_namespace")}  # the others are left out
    pairs = [(s, o) for s, o in source.execute(_OWNERS).fetchall() if o not in plan.unowned and s in there]
    without = source.execute(
        "SELECT p.s, p.o FROM unnest(%s::text[], %s::text[]) p(s, o) WHERE NOT has_schema_privilege(p.o, p.s, 'CREATE')",
        [[s for s, dummy in pairs], [o for dummy, o in pairs]],
    ).fetchall()
    for schema, owner in without:
        target.execute(f"REVOKE CREATE ON SCHEMA {quote_ident(schema)} FROM {quote_ident(owner)}")


def _lacking(target: psycopg.Connection[t.Any], pairs: t.Sequence[tuple[str, str]], plan: RolePlan) -> list[tuple[str, str]]:
    usable = [(s, o) for s, o in pairs if o not in plan.unowned]
    rows = target.execute(
        "SELECT p.s, p.o FROM unnest(%s::text[], %s::text[]) p(s, o)"
        " JOIN pg_namespace n ON n.nspname = p.s JOIN pg_roles r ON r.rolname = p.o"
        " WHERE NOT has_schema_privilege(r.oid, n.oid, 'CREATE')",
        [[s for s, dummy in usable], [o for dummy, o in usable]],
    ).fetchall()
    return list(rows)
