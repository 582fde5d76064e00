# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The globals of one server as its catalogs have them: roles, memberships, settings, parameter grants; servers from 9.5 to 18.

``pg_authid`` is read where the login may; elsewhere ``pg_roles``, which shows no password (managed servers, ordinary users).
"""

from __future__ import annotations

import dataclasses
import typing as t

from ..postgres.drivers import psycopg

BOOTSTRAP = 10
"""OID of the role that initdb made."""

ATTRIBUTES: tuple[tuple[str, str, str], ...] = (
    ("superuser", "SUPERUSER", "rolsuper"),
    ("inherit", "INHERIT", "rolinherit"),
    ("createrole", "CREATEROLE", "rolcreaterole"),
    ("createdb", "CREATEDB", "rolcreatedb"),
    ("login", "LOGIN", "rolcanlogin"),
    ("replication", "REPLICATION", "rolreplication"),
    ("bypassrls", "BYPASSRLS", "rolbypassrls"),
)
"""Name in :class:`Role`, keyword (its negation has NO before it), column of ``pg_authid``."""


@dataclasses.dataclass(frozen=True)
class Role:
    """One role. ``password`` is the stored verifier (None: none, or it cannot be read); ``valid_until`` text in UTC, None for ever."""

    name: str
    oid: int
    superuser: bool
    inherit: bool
    createrole: bool
    createdb: bool
    login: bool
    replication: bool
    bypassrls: bool
    connection_limit: int
    valid_until: str | None
    comment: str | None
    password: str | None = dataclasses.field(default=None, repr=False)


@dataclasses.dataclass(frozen=True)
class Membership:
    """``member`` is in ``role``. Several grantors' grants are one: what any of them gives. ``inherit`` and ``set`` are None before 16."""

    role: str
    member: str
    admin: bool
    inherit: bool | None
    set: bool | None
    grantors: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class State:
    """All globals of one server.

    :ivar passwords: can verifiers be read?
    :ivar settings: by (role, database), either of them empty for "any": parameter to value.
    :ivar parameters: parameter grants of 15 and later: (parameter, grantee) to {privilege: with grant option}.
    :ivar grants: every single grant of a membership, with its one grantor.
    :ivar owner: does the login own a database or anything in one?
    :ivar administered: databases whose owner the login can act as.
    :ivar owned: the memberships whose grantor is the login itself, with their options (16 and later).
    """

    version: int
    user: str
    passwords: bool
    roles: dict[str, Role]
    memberships: dict[tuple[str, str], Membership]
    grants: tuple[Membership, ...]
    owned: dict[tuple[str, str], Membership]
    settings: dict[tuple[str, str], dict[str, str]]
    parameters: dict[tuple[str, str], dict[str, bool]]
    tablespaces: tuple[str, ...]
    databases: frozenset[str]
    administered: frozenset[str]
    owner: bool

    @property
    def bootstrap(self) -> str:
        """Name of the role that initdb made, from which all rights come."""
        return next((role.name for role in self.roles.values() if role.oid == BOOTSTRAP), "")

    def ordered_grants(self) -> t.Iterator[Membership]:
        """Every single grant, each after those by which its grantor has what it gives (16 and later check that)."""
        left: list[Membership] = list(self.grants)
        admins: set[tuple[str, str]] = set()
        while left:
            ready = [g for g in left if g.grantors[0] in (self.bootstrap, "") or (g.role, g.grantors[0]) in admins or self.version < 160000]
            for grant in ready or left[:1]:
                left.remove(grant)
                if grant.admin:
                    admins.add((grant.role, grant.member))
                yield grant

    def is_member(self, member: str, role: str) -> bool:
        """Is ``member`` directly or indirectly in ``role``?"""
        seen, open_ = set(), [member]
        while open_:
            current = open_.pop()
            if current == role:
                return True
            if current not in seen:
                seen.add(current)
                open_ += [r for r, m in self.memberships if m == current]
        return False


_OWNS = """
    SELECT EXISTS (SELECT FROM pg_shdepend d JOIN pg_roles r ON r.oid = d.refobjid
                    WHERE d.refclassid = 'pg_authid'::regclass AND r.rolname = current_user AND d.deptype = 'o')"""


def read_state(conn: psycopg.Connection[t.Any], *, passwords: bool = True) -> State:
    """The globals of the server behind ``conn``; reads only.

    :param passwords: read verifiers where the login may.
    """
    version = int(conn.info.server_version)
    user, readable = _one(conn, "SELECT current_user::text, has_table_privilege('pg_catalog.pg_authid', 'SELECT')")
    passwords = passwords and bool(readable)
    grants = _grants(conn, version)
    return State(
        version,
        user,
        passwords,
        _roles(conn, passwords),
        _merge(grants),
        grants,
        {(grant.role, grant.member): grant for grant in grants if grant.grantors == (user,)},
        _settings(conn),
        _parameters(conn) if version >= 150000 else {},
        tuple(row[0] for row in conn.execute("SELECT spcname::text FROM pg_tablespace WHERE spcname !~ '^pg_' ORDER BY 1")),
        frozenset(row[0] for row in conn.execute("SELECT datname::text FROM pg_database WHERE NOT datistemplate")),
        frozenset(row[0] for row in conn.execute("SELECT datname::text FROM pg_database WHERE pg_has_role(datdba, 'USAGE')")),
        bool(_one(conn, _OWNS)[0]),
    )


def _one(conn: psycopg.Connection[t.Any], query: str) -> tuple[t.Any, ...]:
    row = conn.execute(query).fetchone()
    return tuple(row or ())


def _roles(conn: psycopg.Connection[t.Any], passwords: bool) -> dict[str, Role]:
    table, password = ("pg_authid", "rolpassword") if passwords else ("pg_roles", "NULL")
    columns = ", ".join(f"r.{column}" for dummy, dummy, column in ATTRIBUTES)
    rows = conn.execute(f"""
        SELECT r.rolname::text, r.oid::bigint, {columns}, r.rolconnlimit,
               CASE WHEN r.rolvaliduntil = 'infinity' THEN NULL ELSE r.rolvaliduntil::text END,
               shobj_description(r.oid, 'pg_authid'), {password}
          FROM {table} r ORDER BY 1""")
    return {row[0]: Role(*row) for row in rows}


def _grants(conn: psycopg.Connection[t.Any], version: int) -> tuple[Membership, ...]:
    options = "m.inherit_option, m.set_option" if version >= 160000 else "NULL::bool, NULL::bool"
    rows = conn.execute(f"""
        SELECT r.rolname::text, u.rolname::text, m.admin_option, {options}, coalesce(g.rolname::text, '')
          FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles u ON u.oid = m.member
          LEFT JOIN pg_roles g ON g.oid = m.grantor ORDER BY 1, 2, 6""")
    return tuple(Membership(role, member, admin, inherit, settable, (grantor,)) for role, member, admin, inherit, settable, grantor in rows)


def _merge(grants: t.Iterable[Membership]) -> dict[tuple[str, str], Membership]:
    """What a member has by all of its grants together."""
    merged: dict[tuple[str, str], Membership] = {}
    for one in grants:
        before = merged.get((one.role, one.member))
        if before is not None:
            one = Membership(
                one.role,
                one.member,
                before.admin or one.admin,
                None if one.inherit is None else bool(before.inherit or one.inherit),
                None if one.set is None else bool(before.set or one.set),
                before.grantors + one.grantors,
            )
        merged[one.role, one.member] = one
    return merged


def _settings(conn: psycopg.Connection[t.Any]) -> dict[tuple[str, str], dict[str, str]]:
    found: dict[tuple[str, str], dict[str, str]] = {}
    for role, database, config in conn.execute("""
        SELECT coalesce(r.rolname::text, ''), coalesce(d.datname::text, ''), s.setconfig
          FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase
         WHERE (s.setrole = 0 OR r.oid IS NOT NULL) AND (s.setdatabase = 0 OR d.oid IS NOT NULL) ORDER BY 1, 2"""):
        found[role, database] = dict(item.split("=", 1) for item in config)
    return found


def _parameters(conn: psycopg.Connection[t.Any]) -> dict[tuple[str, str], dict[str, bool]]:
    found: dict[tuple[str, str], dict[str, bool]] = {}
    for parameter, grantee, privilege, grantable in conn.execute("""
        SELECT p.parname, coalesce(r.rolname::text, ''), a.privilege_type, a.is_grantable
          FROM pg_parameter_acl p CROSS JOIN LATERAL aclexplode(p.paracl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
         WHERE (a.grantee = 0 OR r.oid IS NOT NULL) AND NOT coalesce(r.oid = 10, false) ORDER BY 1, 2, 3"""):
        found.setdefault((parameter, grantee), {})[privilege] = grantable
    return found
