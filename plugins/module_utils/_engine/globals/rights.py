# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What the login on the target may do, so that nothing is sent that would be refused (R35).

Rules up to 15: CREATEROLE alters every role that is no superuser, but gives neither REPLICATION nor BYPASSRLS. From 16 on it alters the
roles on which it has ADMIN OPTION, and gives the attributes that it has itself (manual 22.2, 22.5). Parameters of the context
``superuser`` need a grant of SET (15 and later) or a superuser; unknown names with a dot too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import typing as t

from ..postgres.drivers import psycopg
from .state import Role, State

HIDDEN = frozenset({"role", "session_authorization"})
"""Parameters that ``pg_settings`` does not show and that everybody may set."""

UNTESTED = frozenset({"default_tablespace", "temp_tablespaces", "default_text_search_config", "default_table_access_method"})
"""Parameters whose value need not exist yet for ALTER ROLE, but for SET."""


@dataclasses.dataclass(frozen=True)
class Rights:
    """The login ``state.user`` on a server in ``state``; ``admin_of`` are the roles on which it has ADMIN OPTION."""

    state: State
    superuser: bool
    createrole: bool
    createdb: bool
    replication: bool
    bypassrls: bool
    admin_of: frozenset[str]

    @property
    def user(self) -> str:
        """The login."""
        return self.state.user

    @property
    def modern(self) -> bool:
        """Do the rules of 16 hold?"""
        return self.state.version >= 160000

    def why_not_manage(self, role: Role) -> str:
        """Why this login may neither comment on ``role``, nor set its parameters, nor grant it; empty if it may."""
        if self.superuser:
            return ""
        if role.superuser:
            return f"it is a superuser on the target and {self.user} is none"
        if not self.createrole and not role.name.startswith("pg_"):
            return f"{self.user} has no CREATEROLE on the target"
        if self.modern and role.name not in self.admin_of:
            return f"{self.user} has no ADMIN OPTION on it on the target"
        return ""

    def why_not_alter(self, role: Role) -> str:
        """Why this login may not change the attributes of ``role``; empty if it may."""
        if not self.superuser and not self.modern and role.replication:
            return f"it has REPLICATION on the target and {self.user} is no superuser"
        return self.why_not_manage(role)

    def why_not_give(self, attribute: str) -> str:
        """Why this login may not give (or, before 16, even mention) ``attribute``, a name of :data:`.state.ATTRIBUTES`."""
        if self.superuser:
            return ""
        if attribute == "superuser":
            return "only a superuser gives SUPERUSER"
        if attribute in ("replication", "bypassrls"):
            if not self.modern:
                return f"before version 16 only a superuser gives {attribute.upper()}"
            return "" if getattr(self, attribute) else f"{self.user} has no {attribute.upper()} itself"
        if attribute == "createdb" and self.modern and not self.createdb:
            return f"{self.user} has no CREATEDB itself"
        return ""


def read_rights(conn: psycopg.Connection[t.Any], state: State) -> Rights:
    """What the login behind ``conn`` may do on its server, whose globals are ``state``."""
    me = state.roles[state.user]
    rows = conn.execute(
        "SELECT rolname::text FROM pg_roles WHERE NOT rolsuper AND pg_has_role(current_user, oid, 'MEMBER WITH ADMIN OPTION')"
    )
    admin_of = frozenset(row[0] for row in rows)
    return Rights(state, me.superuser, me.createrole, me.createdb, me.replication, me.bypassrls, admin_of)


class Parameters:
    """Which parameters the login on the target may put into settings of roles and databases. Asks the server once per name and value.

    The session's transaction must not be needed for anything else: values are tried by ``set_config`` and rolled back.
    """

    def __init__(self, conn: psycopg.Connection[t.Any], rights: Rights) -> None:
        self._conn = conn
        self._rights = rights
        with contextlib.suppress(psycopg.Error):
            conn.execute("DO LANGUAGE plpgsql 'BEGIN END'")  # makes plpgsql.* known
        self._context = {name.lower(): context for name, context in conn.execute("SELECT name, context FROM pg_settings")}
        self._known: dict[tuple[str, str], str] = {}

    def why_not(self, name: str, value: str) -> str:
        """Why ``name`` cannot be set to ``value`` for a role or database; empty if it can."""
        if (name, value) not in self._known:
            self._known[name, value] = self._ask(name, value)
        return self._known[name, value]

    def _ask(self, name: str, value: str) -> str:
        lowered = name.lower()
        if lowered in HIDDEN:
            return ""
        context = self._context.get(lowered)
        if context is None:
            if "." not in name:
                return "the target does not know the parameter"
            unknown = "the target does not know the parameter (library not loaded?) and lets only a superuser set such"
            return "" if self._granted(name) else unknown
        if context not in ("user", "backend", "superuser", "superuser-backend"):
            return f"the target sets it for the whole server only ({context})"
        if context.startswith("superuser") and not self._granted(name):
            return f"the target lets only a superuser set it; {self._rights.user} has no grant of SET on it"
        if context in ("backend", "superuser-backend") or lowered in UNTESTED:
            return ""
        try:
            with self._conn.transaction(force_rollback=True):
                self._conn.execute("SELECT set_config(%s, %s, true)", [name, value])
        except psycopg.Error as exc:
            return f"the target refuses the value: {exc.diag.message_primary or type(exc).__name__}"
        return ""

    def _granted(self, name: str) -> bool:
        return self._rights.superuser or self.has_privilege(name, "SET")

    def has_privilege(self, name: str, privilege: str) -> bool:
        """Has the login this parameter ``privilege`` (15 and later)?"""
        if self._rights.state.version < 150000:
            return self._rights.superuser
        row = self._conn.execute("SELECT has_parameter_privilege(%s, %s)", [name, privilege]).fetchone()
        return bool(row and row[0])
