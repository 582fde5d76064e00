# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What is compared of definitions besides their own text: objects that need no more than to be there, comments, owners, privileges.

Owners and privileges are compared for roles that both servers have, superusers left out as the migration leaves them out (R35): an object
of theirs that the target's administrator owns is no difference.
"""

from __future__ import annotations

import typing as t

from ..postgres.catalog import USER_SCHEMAS
from ..postgres.drivers import psycopg
from ..postgres.identifiers import SCHEMA

FIRST_OID = 16384
"""Objects below it came with the server (manual 54.1, "System Catalogs")."""

PLAIN = (
    *("pg_operator", "pg_opclass", "pg_opfamily", "pg_collation", "pg_conversion", "pg_cast", "pg_language", "pg_transform"),
    *("pg_ts_config", "pg_ts_dict", "pg_ts_parser", "pg_ts_template", "pg_foreign_data_wrapper", "pg_foreign_server"),
)
"""Catalogs whose objects are compared by name."""

DROPPED_BY_PROVIDERS = "('extension', 'event trigger', 'publication', 'subscription', 'large object')"
"""Kinds whose comments are not compared."""


class Owned(t.NamedTuple):
    """A catalog of objects with an owner: its columns for owner and privileges, which of its rows are meant, and the letter by which
    ``acldefault`` knows them."""

    catalog: str
    owner: str
    acl: str
    which: str
    letter: str


OWNED = (
    Owned("pg_class", "relowner", "relacl", "o.relkind IN ('r', 'p', 'v', 'm', 'f')", "r"),
    Owned("pg_class", "relowner", "relacl", "o.relkind = 'S'", "s"),
    Owned("pg_proc", "proowner", "proacl", "true", "f"),
    Owned("pg_type", "typowner", "typacl", "o.typtype IN ('e', 'd', 'r')", "T"),
    Owned("pg_namespace", "nspowner", "nspacl", "true", "n"),
)

USERS = f"coalesce(i.schema, i.name, '') !~ '^pg_' AND coalesce(i.schema, i.name, '') NOT IN ('information_schema', '{SCHEMA}')"
"""Of ``pg_identify_object``: not the system's, not ours."""


def made_by_users(classid: str, oid: str, kinds: str = "'e', 'i'") -> str:
    """Condition: the object is no member of an extension (``e``), nor made along with another one (``i``), as the functions and casts of
    a range type are, which later versions have more of.

    :param classid: SQL for the OID of its catalog.
    """
    return f"NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = {classid} AND d.objid = {oid} AND d.deptype IN ({kinds}))"


def object_queries(version: int) -> list[str]:
    """Queries for ``(kind, object, definition)``."""
    queries = []
    for catalog in PLAIN:
        classid = f"'{catalog}'::regclass"
        queries.append(f"""
            SELECT i.type, i.identity, '' FROM {catalog} o, pg_identify_object({classid}, o.oid, 0) i
             WHERE o.oid >= {FIRST_OID} AND {USERS} AND {made_by_users(classid, "o.oid")}""")
    own = made_by_users("o.classoid", "o.objoid", "'e'")
    queries.append(f"""
        SELECT 'comment', i.type || ' ' || i.identity, o.description
          FROM pg_description o, pg_identify_object(o.classoid, o.objoid, o.objsubid) i
         WHERE (o.objoid >= {FIRST_OID} OR i.identity = 'public') AND i.type NOT IN {DROPPED_BY_PROVIDERS} AND {USERS} AND {own}""")
    queries.append(f"""
        SELECT 'range', format('%I.%I', n.nspname, ty.typname), format_type(g.rngsubtype, NULL)
          FROM pg_range g JOIN pg_type ty ON ty.oid = g.rngtypid JOIN pg_namespace n ON n.oid = ty.typnamespace
         WHERE {USER_SCHEMAS} AND {made_by_users("'pg_type'::regclass", "ty.oid")}""")
    if version >= 100000:
        queries.append(f"""
            SELECT 'statistics', format('%I.%I', n.nspname, s.stxname), pg_get_statisticsobjdef(s.oid)
              FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace
             WHERE {USER_SCHEMAS} AND {made_by_users("'pg_statistic_ext'::regclass", "s.oid")}""")
    return queries


class Rights(t.NamedTuple):
    """``owners`` by object; ``privileges`` by object and grantee, with a star where they may be passed on; ``roles`` of the server that
    are no superusers."""

    owners: dict[str, str]
    privileges: dict[tuple[str, str], str]
    roles: set[str]


def read_rights(conn: psycopg.Connection[t.Any]) -> Rights:
    """Who owns the objects of users, and what others may do with them."""
    owners: dict[str, str] = {}
    privileges: dict[tuple[str, str], str] = {}
    for kind in OWNED:
        classid = f"'{kind.catalog}'::regclass"
        objects = f"{kind.catalog} o, pg_identify_object({classid}, o.oid, 0) i"
        meant = f"o.oid >= {FIRST_OID} AND {kind.which} AND {USERS} AND {made_by_users(classid, 'o.oid')}"
        label = "i.type || ' ' || i.identity"
        owned = conn.execute(f"SELECT {label}, pg_get_userbyid(o.{kind.owner})::text FROM {objects} WHERE {meant}")
        owners.update((row[0], row[1]) for row in owned)
        grants = conn.execute(f"""
            SELECT {label}, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END,
                   string_agg(a.privilege_type || CASE WHEN a.is_grantable THEN '*' ELSE '' END, ', ' ORDER BY a.privilege_type)
              FROM {objects}, aclexplode(coalesce(o.{kind.acl}, acldefault('{kind.letter}', o.{kind.owner}))) a
             WHERE {meant} AND a.grantee <> o.{kind.owner} GROUP BY 1, 2""")
        privileges.update(((row[0], row[1]), row[2]) for row in grants)
    return Rights(
        owners, privileges, {"PUBLIC", *(row[0] for row in conn.execute("SELECT rolname::text FROM pg_roles WHERE NOT rolsuper"))}
    )


def compare_rights(source: Rights, target: Rights) -> t.Iterator[tuple[str, str, str | None, str | None]]:
    """What differs as ``(kind, object, source, target)``; objects that only one side has are not spoken of."""
    roles = source.roles & target.roles
    for label in sorted(source.owners.keys() & target.owners.keys()):
        if source.owners[label] != target.owners[label] and source.owners[label] in roles:
            yield "owner", label, source.owners[label], target.owners[label]
    for label, role in sorted(source.privileges.keys() | target.privileges.keys()):
        ours, theirs = source.privileges.get((label, role)), target.privileges.get((label, role))
        there = label in source.owners and label in target.owners
        kept = role not in (source.owners.get(label), target.owners.get(label))
        if ours != theirs and role in roles and there and kept:
            yield "privileges", f"{label} for {role}", ours, theirs
