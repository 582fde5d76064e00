# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Owners, privileges and default privileges for the comparison of definitions.

They are compared for roles that both servers have, superusers left out as the migration leaves them out (R35): an object of theirs that the
target's administrator owns is no difference.
"""

from __future__ import annotations

import typing as t

from ..postgres.catalog import USER_SCHEMAS
from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_literal
from .scope import FIRST_OID, USERS, Scope, of_catalog


class Owned(t.NamedTuple):
    """A catalog of objects with an owner: its columns for owner and privileges (empty: none can be given), which of its rows are meant, the
    letter by which ``acldefault`` knows them, and the one that came with the server and is meant all the same."""

    catalog: str
    owner: str
    acl: str = ""
    letter: str = ""
    which: str = "true"
    builtin: str = ""

    def meant(self) -> str:
        """The condition for rows ``o`` that ``pg_identify_object`` shows as ``i``."""
        kinds = "'e', 'i'" if self.catalog != "pg_class" else "'e'"
        first = f"(o.oid >= {FIRST_OID} OR i.identity = {quote_literal(self.builtin)})"
        return f"{first} AND {self.which} AND {USERS} AND {of_catalog(self.catalog, 'o.oid', kinds)}"


OWNED = (
    Owned("pg_class", "relowner", "relacl", "r", "o.relkind IN ('r', 'p', 'v', 'm', 'f')"),
    Owned("pg_class", "relowner", "relacl", "s", "o.relkind = 'S'"),
    Owned("pg_proc", "proowner", "proacl", "f"),
    Owned(
        *("pg_type", "typowner", "typacl", "T"),
        "(o.typtype IN ('e', 'd', 'r') OR o.typtype = 'b' AND NOT EXISTS (SELECT FROM pg_type y WHERE y.typarray = o.oid)"
        " OR o.typtype = 'c' AND EXISTS (SELECT FROM pg_class c WHERE c.oid = o.typrelid AND c.relkind = 'c'))",
    ),
    Owned("pg_namespace", "nspowner", "nspacl", "n", builtin="public"),
    Owned("pg_language", "lanowner", "lanacl", "l"),
    Owned("pg_foreign_data_wrapper", "fdwowner", "fdwacl", "F"),
    Owned("pg_foreign_server", "srvowner", "srvacl", "S"),
    Owned("pg_operator", "oprowner"),
    Owned("pg_opclass", "opcowner"),
    Owned("pg_opfamily", "opfowner"),
    Owned("pg_collation", "collowner"),
    Owned("pg_conversion", "conowner"),
    Owned("pg_ts_config", "cfgowner"),
    Owned("pg_ts_dict", "dictowner"),
    Owned("pg_event_trigger", "evtowner"),
    Owned("pg_statistic_ext", "stxowner"),
)

SINCE = {"pg_statistic_ext": 100000}
"""First version that has the catalog."""

GRANTEE = "CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END"
OBJECT_TYPES = (
    "CASE d.defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences' WHEN 'f' THEN 'functions' WHEN 'T' THEN 'types'"
    " WHEN 'n' THEN 'schemas' ELSE d.defaclobjtype::text END"
)


class Rights(t.NamedTuple):
    """``owners`` by object; ``privileges`` by object and grantee, with a star where they may be passed on; ``defaults`` by role, objects
    and grantee (empty: that there are any); ``roles`` of the server that are no superusers."""

    owners: dict[str, str]
    privileges: dict[tuple[str, str], str]
    defaults: dict[tuple[str, str, str], str]
    roles: set[str]


def read_rights(conn: psycopg.Connection[t.Any], scope: Scope) -> Rights:
    """Who owns the objects of users, and what others may do with them."""
    owners: dict[str, str] = {}
    privileges: dict[tuple[str, str], str] = {}
    privilege = "a.privilege_type || CASE WHEN a.is_grantable THEN '*' ELSE '' END"
    known = "" if scope.oldest >= 170000 else " FILTER (WHERE a.privilege_type <> 'MAINTAIN')"  # part of ALL where it is known
    listed = f"string_agg({privilege}, ', ' ORDER BY a.privilege_type){known}"
    label = "i.type || ' ' || i.identity"
    for kind in OWNED:
        if scope.version < SINCE.get(kind.catalog, 0):
            continue
        objects = f"{kind.catalog} o, pg_identify_object('{kind.catalog}'::regclass, o.oid, 0) i"
        meant = kind.meant()
        owned = conn.execute(f"SELECT {label}, pg_get_userbyid(o.{kind.owner})::text FROM {objects} WHERE {meant}")
        owners.update((row[0], row[1]) for row in owned)
        if kind.acl:
            exploded = f"aclexplode(coalesce(o.{kind.acl}, acldefault('{kind.letter}', o.{kind.owner}))) a"
            others = f"{meant} AND a.grantee <> o.{kind.owner}"
            grants = f"SELECT {label}, {GRANTEE}, {listed} FROM {objects}, {exploded} WHERE {others} GROUP BY 1, 2"
            privileges.update(((row[0], row[1]), row[2]) for row in conn.execute(grants) if row[2])
    for relation, column, grantee, granted in conn.execute(_columns(listed)):
        owners.setdefault(column, owners.get(relation, ""))
        privileges[column, grantee] = granted
    defaults = {(row[0], row[1], row[2]): row[3] or "" for row in conn.execute(_defaults(listed))}
    roles = {"PUBLIC", *(row[0] for row in conn.execute("SELECT rolname::text FROM pg_roles WHERE NOT rolsuper"))}
    return Rights(owners, privileges, defaults, roles)


def _columns(listed: str) -> str:
    return f"""
        SELECT format('table %I.%I', n.nspname, c.relname), format('column %I.%I.%I', n.nspname, c.relname, b.attname), {GRANTEE}, {listed}
          FROM pg_attribute b JOIN pg_class c ON c.oid = b.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(b.attacl) a
         WHERE b.attnum > 0 AND NOT b.attisdropped AND a.grantee <> c.relowner AND {USER_SCHEMAS} AND {of_catalog("pg_class", "c.oid")}
         GROUP BY 1, 2, 3"""


def _defaults(listed: str) -> str:
    entries = f"""
        SELECT pg_get_userbyid(d.defaclrole)::text AS definer, d.defaclacl,
               {OBJECT_TYPES} || CASE WHEN n.oid IS NULL THEN '' ELSE ' in ' || quote_ident(n.nspname) END AS objects
          FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace WHERE n.oid IS NULL OR {USER_SCHEMAS}"""
    return f"""
        SELECT e.definer, e.objects, {GRANTEE}, {listed} FROM ({entries}) e, aclexplode(e.defaclacl) a GROUP BY 1, 2, 3
        UNION ALL SELECT e.definer, e.objects, '', 'set' FROM ({entries}) e"""


def compare_rights(source: Rights, target: Rights) -> t.Iterator[tuple[str, str, str | None, str | None]]:
    """What differs as ``(kind, object, source, target)``; objects that only one side has are not spoken of."""
    roles = source.roles & target.roles
    for label in sorted(source.owners.keys() & target.owners.keys()):
        if source.owners[label] != target.owners[label] and source.owners[label] in roles and not label.startswith("column "):
            yield "owner", label, source.owners[label], target.owners[label]
    for label, role in sorted(source.privileges.keys() | target.privileges.keys()):
        ours, theirs = source.privileges.get((label, role)), target.privileges.get((label, role))
        there = label.startswith("column ") or (label in source.owners and label in target.owners)
        kept = role not in (source.owners.get(label), target.owners.get(label))
        if ours != theirs and role in roles and there and kept:
            yield "privileges", f"{label} for {role}", ours, theirs
    for definer, objects, grantee in sorted(source.defaults.keys() | target.defaults.keys()):
        ours, theirs = source.defaults.get((definer, objects, grantee)), target.defaults.get((definer, objects, grantee))
        if ours != theirs and definer in roles and (grantee in roles or not grantee):
            yield "default privileges", f"of {definer} on {objects}" + (f" for {grantee}" if grantee else ""), ours, theirs
