# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""From two states to the statements between them. Pure apart from asking the target about parameters (:class:`.rights.Parameters`).

Nothing is taken away from the target but attributes of the roles that are migrated: memberships, settings and roles that only the target
has stay, because users of the target may have made them on purpose.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ..postgres.identifiers import PREFIX, quote_ident, quote_literal
from ..postgres.profiles import belongs_to_provider, profile_for
from ..spec import Endpoint
from . import statements as sql
from .marker import MARKER, Marker, fingerprint, is_verifier
from .rights import Parameters, Rights
from .state import ATTRIBUTES, BOOTSTRAP, Membership, Role, State

SOFT = frozenset({"setting", "parameter", "membership", "comment", "limit"})
"""Kinds whose refusal by a provider is reported and does not end the run."""


@dataclasses.dataclass(frozen=True)
class GlobalAction:
    """One statement for the target. ``statement`` may be shown; ``sql`` is sent and may hold a verifier."""

    kind: str
    name: str
    statement: str
    sql: str = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class Skipped:
    """Something of the source that is not brought over, or not wholly. ``level``: ``info`` (as it must be) or ``warning`` (look at it)."""

    kind: str
    name: str
    reason: str
    level: str = "warning"

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.reason}"


@dataclasses.dataclass(frozen=True)
class Options:
    """What the user wants: see :func:`.plan.plan_globals`."""

    superuser_policy: str
    exclude: frozenset[str]
    databases: frozenset[str] | None  # of the source, already resolved; None: all
    passwords: t.Mapping[str, str] = dataclasses.field(repr=False)
    encrypt: t.Callable[[str, str], str]
    tablespaces: frozenset[str] = frozenset()  # of the source, mapped to others of the target
    of_databases: bool = False  # ALTER DATABASE ... SET too; a migration does it when it makes the database (plan_database)


class Difference:
    """The difference of two states. :ivar actions: in the order in which they must be sent. :ivar skipped: what stays behind and why."""

    def __init__(
        self, source: Endpoint, target: Endpoint, wanted: State, present: State, rights: Rights, parameters: Parameters, options: Options
    ) -> None:
        self._endpoints = (source, target)
        self._wanted, self._present, self._rights, self._parameters, self._options = wanted, present, rights, parameters, options
        self.actions: list[GlobalAction] = []
        self.skipped: list[Skipped] = []
        marker = present.roles.get(MARKER)
        self._before = Marker.from_comment(marker.comment if marker else None)
        self._fingerprints = dict(self._before.passwords)
        self.roles = self._choose()
        self._fixed: set[str] = set()  # roles that exist on the target and cannot be managed there

    def compute(self) -> None:
        """Fill :attr:`actions` and :attr:`skipped`."""
        for role in self.roles.values():
            self._role(role)
        for role in self.roles.values():
            self._comment(role)
        admin = self._admin_memberships()
        for membership in self._memberships():
            self._membership(membership)
        self._say_grantors()
        for (role_name, database), values in self._wanted.settings.items():
            self._setting(role_name, database, values)
        for (parameter, grantee), privileges in self._wanted.parameters.items():
            self._parameter(parameter, grantee, privileges)
        for tablespace in set(self._wanted.tablespaces) - self._options.tablespaces:
            self._skip(
                "tablespace",
                tablespace,
                "needs a superuser and a folder on the target; tables go to the default one (see globals.tablespaces)",
            )
        self._marker(admin)

    def _skip(self, kind: str, name: str, reason: str, level: str = "warning") -> None:
        self.skipped.append(Skipped(kind, name, reason, level))

    def _add(self, kind: str, name: str, statement: str, shown: str = "") -> None:
        self.actions.append(GlobalAction(kind, name, shown or statement, statement))

    # --- roles ---

    def _choose(self) -> dict[str, Role]:
        chosen: dict[str, Role] = {}
        for role in self._wanted.roles.values():
            reason, level = self._why_left_out(role)
            if reason:
                if level:
                    self._skip("role", role.name, reason, level)
                continue
            if role.superuser:
                self._skip("role", role.name, "is a superuser on the source and becomes an ordinary role (superuser_policy: demote)")
                role = dataclasses.replace(role, superuser=False)
            chosen[role.name] = role
        return chosen

    def _why_left_out(self, role: Role) -> tuple[str, str]:
        if role.name.startswith(("pg_", PREFIX)):
            return "belongs to PostgreSQL or to this collection", ""
        if role.oid == BOOTSTRAP:
            return "is the source's bootstrap superuser", "info"
        if role.name in self._options.exclude:
            return "excluded by the user", "info"
        if belongs_to_provider(role.name, (e.type for e in self._endpoints)):
            return "belongs to the provider", "info"
        if role.name == self._rights.user:
            return "is the login on the target", "info"
        if role.name == self._wanted.user and not self._wanted.owner:
            return "is the migration's own login on the source and owns nothing", "info"
        if role.superuser and self._options.superuser_policy != "demote":
            return "is a superuser on the source and is left out (superuser_policy: remove)", "warning"
        existing = self._present.roles.get(role.name)
        if existing is not None and existing.superuser and not self._rights.superuser:
            return "is a superuser on the target; it stays as it is", "warning"
        return "", ""

    def _role(self, role: Role) -> None:
        existing = self._present.roles.get(role.name)
        given = []
        for name, word, dummy in ATTRIBUTES:
            differs = getattr(role, name) != (getattr(existing, name) if existing else name == "inherit")
            reason = self._rights.why_not_give(name) if differs else ""
            if differs and not reason:
                given.append(name)
            elif reason:
                self._skip("attribute", f"{word} of {role.name}", reason)
        password = self._password(role, existing)
        words = sql.attribute_words(role, given)
        if role.connection_limit != (existing.connection_limit if existing else -1):
            words.append(f"CONNECTION LIMIT {role.connection_limit}")
        if role.valid_until != (existing.valid_until if existing else None):
            words.append(f"VALID UNTIL {quote_literal(role.valid_until or 'infinity')}")
        if existing is None:
            self._send_role("CREATE ROLE", "role", role, words, password)
        elif words or password is not None:
            reason = self._rights.why_not_alter(existing)
            if reason:
                self._fixed.add(role.name)
                self._skip("role", role.name, f"differs on the target ({', '.join(words) or 'password'}) and cannot be altered: {reason}")
            else:
                self._send_role("ALTER ROLE", "attributes", role, words, password)
        if existing is not None and self._rights.why_not_manage(existing):
            self._fixed.add(role.name)

    def _send_role(self, verb: str, kind: str, role: Role, words: list[str], password: tuple[str | None] | None) -> None:
        texts = []
        for shown in (False, True):
            clauses = [*words, *([sql.password_clause(self._encrypt(role.name, password[0]), shown=shown)] if password is not None else [])]
            texts.append(f"{verb} {quote_ident(role.name)}" + (f" WITH {' '.join(clauses)}" if clauses else ""))
        self._add(kind, role.name, *texts)

    def _password(self, role: Role, existing: Role | None) -> tuple[str | None] | None:
        """The password to send, in a tuple; None: nothing to send."""
        verifier = self._options.passwords.get(role.name, role.password)
        if verifier is None:
            if not self._wanted.passwords and role.login and existing is None:
                self._skip("password", role.name, "its verifier is not carried over; set its password on the target")
            known = self._present.passwords and existing is not None and existing.password is not None
            if self._wanted.passwords and (known or role.name in self._fingerprints):
                self._fingerprints.pop(role.name, None)
                return (None,)
            return None
        mark = fingerprint(*self._endpoints, verifier)
        if mark:  # kept even where verifiers can be read just now: the login may read them by a membership that it gives back
            self._fingerprints[role.name] = mark
        if existing is not None and self._present.passwords and is_verifier(verifier):
            return None if existing.password == verifier else (verifier,)
        if existing is not None and not mark:
            self._skip("password", role.name, "it cannot be compared with what the target has; it was set when the role was made", "info")
            return None
        return None if existing is not None and self._before.passwords.get(role.name) == mark else (verifier,)

    def _encrypt(self, role: str, password: str | None) -> str | None:
        return password if password is None or is_verifier(password) else self._options.encrypt(role, password)

    def _comment(self, role: Role) -> None:
        existing = self._present.roles.get(role.name)
        if role.comment == (existing.comment if existing else None):
            return
        if role.name in self._fixed:
            self._skip("comment", role.name, "the role cannot be altered on the target")
            return
        self._add("comment", role.name, sql.comment_on("ROLE", role.name, role.comment))

    # --- memberships ---

    def _admin_memberships(self) -> frozenset[str]:
        """Let the login act as each migrated role, which ALTER ... OWNER TO needs; the roles that it has got from us."""
        if self._rights.superuser:
            return frozenset()
        mine = {name for name in self._before.admin if (name, self._rights.user) in self._present.memberships}
        for role in self.roles.values():
            present = self._present.memberships.get((role.name, self._rights.user))
            if present is not None and (not self._rights.modern or present.inherit and present.set):
                continue
            if role.name in self._fixed:
                self._skip("membership", f"{self._rights.user} in {role.name}", "the role cannot be granted: no object can be given to it")
            elif self._present.is_member(role.name, self._rights.user):
                self._skip("membership", f"{self._rights.user} in {role.name}", "the role is itself a member of the login", "info")
            else:
                options = " WITH INHERIT TRUE, SET TRUE" if self._rights.modern else ""
                self._add("admin", role.name, f"GRANT {quote_ident(role.name)} TO {quote_ident(self._rights.user)}{options}")
                mine.add(role.name)
        return frozenset(mine)

    def _memberships(self) -> t.Iterator[Membership]:
        """What is to be granted: each grantor's grant by itself where the target takes them from anybody, else what they give together."""
        if self._rights.superuser and self._rights.modern and self._wanted.version >= 160000:
            return self._wanted.ordered_grants()
        return iter(self._wanted.memberships.values())

    def _grantor(self, source: Membership) -> str:
        """Whom the grant comes from on the target. Only a superuser names somebody else (GRANTED BY), from 16 on somebody with ADMIN
        OPTION; sources before 16 did not see to that, so that their grantors may lack it."""
        name = source.grantors[0] if source.grantors else ""
        if not self._rights.superuser:
            return self._rights.user
        if name in self.roles and (not self._rights.modern or self._wanted.version >= 160000 and self._wanted_admin(source.role, name)):
            return name
        return self._present.bootstrap if self._rights.modern else self._rights.user

    def _wanted_admin(self, role: str, grantor: str) -> bool:
        found = self._wanted.memberships.get((role, grantor))
        return found is not None and found.admin and not self._why_not_grant(role)

    def _say_grantors(self) -> None:
        """Name the grantors of the source in whose place another stands on the target."""
        replaced: dict[tuple[str, str], int] = {}
        for source in self._wanted.grants:
            name = source.grantors[0]
            instead = self._grantor(source)
            comes = source.member in self.roles and not self._why_not_grant(source.role)
            if comes and not self._is_system(name) and name not in ("", instead):
                replaced[name, instead] = replaced.get((name, instead), 0) + 1
        for (name, instead), count in replaced.items():
            why = "it cannot be their grantor there" if self._rights.superuser else "only a superuser names another grantor"
            self._skip("grantor", name, f"the {count} membership(s) that it gave come from {instead} on the target: {why}", "info")

    def _membership(self, source: Membership) -> None:
        label = f"{source.member} in {source.role}"
        if source.member not in self.roles:
            if not self._is_system(source.member):
                self._skip("membership", label, "the member is not migrated", "info")
            return
        reason = self._why_not_grant(source.role)
        if reason:
            self._skip("membership", label, reason)
            return
        wanted = self._translate(source, label)
        if self._rights.superuser and self._rights.modern:
            if wanted not in self._present.grants:
                self._add("membership", label, sql.grant_membership(wanted, modern=True, by=wanted.grantors[0]))
            return
        present = self._present.memberships.get((source.role, source.member))
        if present is not None and (wanted.admin, wanted.inherit, wanted.set) == (present.admin, present.inherit, present.set):
            return
        own = self._present.owned.get((source.role, source.member))
        if self._rights.modern and present is not None and (own == wanted or own is None and _covers(present, wanted)):
            return
        if present is not None and not self._rights.modern and present.admin and not wanted.admin:
            self._add("membership", label, f"REVOKE ADMIN OPTION FOR {quote_ident(source.role)} FROM {quote_ident(source.member)}")
            return
        by = self._grantor(source)
        named = by if self._rights.superuser and by != self._rights.user else ""
        self._add("membership", label, sql.grant_membership(wanted, modern=self._rights.modern, by=named))

    def _is_system(self, name: str) -> bool:
        role = self._wanted.roles.get(name)
        return name.startswith("pg_") or (role is not None and role.oid == BOOTSTRAP)

    def _why_not_grant(self, name: str) -> str:
        if name in self._fixed:
            return "the role cannot be granted on the target"
        if name in self.roles:
            return ""
        if not name.startswith("pg_"):
            return "the role is not migrated"
        if name not in self._present.roles:
            return "the target does not know the predefined role"
        if self._rights.superuser:
            return ""
        if name in profile_for(self._endpoints[1].type).refused_memberships:
            return "the provider does not let anyone grant it"
        return self._rights.why_not_manage(self._present.roles[name]) or ("" if self._rights.createrole else "the login has no CREATEROLE")

    def _translate(self, source: Membership, label: str) -> Membership:
        """The membership as the target's version can express it."""
        inherits = self._wanted.roles[source.member].inherit
        if self._rights.modern:
            inherit = inherits if source.inherit is None else source.inherit
            settable = True if source.set is None else source.set
            return dataclasses.replace(source, inherit=inherit, set=settable, grantors=(self._grantor(source),))
        if source.set is False:
            self._skip("option", f"SET of {label}", "before version 16 every member may SET ROLE: the grant is wider than on the source")
        if source.inherit is not None and source.inherit != inherits:
            self._skip("option", f"INHERIT of {label}", "before version 16 a member inherits from all of its roles or from none")
        return dataclasses.replace(source, inherit=None, set=None, grantors=())

    # --- settings ---

    def _setting(self, role: str, database: str, values: t.Mapping[str, str]) -> None:
        if (role and role not in self.roles) or (database and not self._selected(database)):
            return
        label = f"{role or 'ALL'}{' in ' + database if database else ''}"
        if database and database not in self._present.databases:
            if self._options.of_databases:
                self._skip("setting", label, "the database is not on the target yet; its migration brings it", "info")
            return  # comes when the database does: plan_database
        if role in self._fixed:
            self._skip("setting", label, "the role cannot be altered on the target")
            return
        if not role and database:
            if not self._options.of_databases:
                return  # plan_database
            values = {name: value for name, value in values.items() if name not in sql.NOT_CARRIED}
            if values and database not in self._present.administered:
                self._skip("setting", label, f"{self._rights.user} does not own the database on the target")
                return
        if not role and not database and not self._rights.superuser:
            self._skip("setting", "ALTER ROLE ALL", "only a superuser makes settings for all roles")
            return
        self.actions += settings_actions(role, database, values, self._present, self._parameters, self.skipped)

    def _selected(self, database: str) -> bool:
        return self._options.databases is None or database in self._options.databases

    def _parameter(self, parameter: str, grantee: str, privileges: t.Mapping[str, bool]) -> None:
        present = self._present.parameters.get((parameter, grantee), {})
        for privilege, grantable in privileges.items():
            name = f"{privilege} on {parameter} to {grantee or 'PUBLIC'}"
            if grantee and grantee not in self.roles:
                continue
            if privilege in present and (present[privilege] or not grantable):
                continue
            if self._present.version < 150000:
                self._skip("parameter", name, "the target knows no grants on parameters (before version 15)")
            elif not self._parameters.has_privilege(parameter, f"{privilege} WITH GRANT OPTION"):
                self._skip("parameter", name, f"{self._rights.user} has no grant option on it; a superuser of the target has to grant it")
            else:
                whom = quote_ident(grantee) if grantee else "PUBLIC"
                option = " WITH GRANT OPTION" if grantable else ""
                self._add("parameter", name, f"GRANT {privilege} ON PARAMETER {sql.parameter(parameter)} TO {whom}{option}")

    # --- memory ---

    def _marker(self, admin: frozenset[str]) -> None:
        if self._rights.superuser:
            return
        after = Marker(admin, {name: mark for name, mark in self._fingerprints.items() if name in self.roles})
        existing = self._present.roles.get(MARKER)
        if after == self._before and (existing is not None or after == Marker()):
            return
        if existing is None:
            self._add("record", MARKER, f"CREATE ROLE {quote_ident(MARKER)} WITH NOLOGIN")
        statement = sql.comment_on("ROLE", MARKER, after.to_comment())
        self._add("record", MARKER, statement, f"COMMENT ON ROLE {quote_ident(MARKER)} IS '{len(after.passwords)} fingerprints'")


def settings_actions(
    role: str, database: str, values: t.Mapping[str, str], present: State, parameters: Parameters, skipped: list[Skipped]
) -> list[GlobalAction]:
    """ALTER ROLE or ALTER DATABASE for each parameter of ``values`` that differs; what the target refuses goes to ``skipped``."""
    actions = []
    there = present.settings.get((role, database), {})
    what = f"{role}{' in ' if role and database else ''}{database}"
    for name, value in values.items():
        if sql.same_setting(name, value, there.get(name)):
            continue
        reason = parameters.why_not(name, value)
        if reason:
            skipped.append(Skipped("setting", f"{name} of {what}", reason))
            continue
        statement = f"ALTER {sql.owner_of_setting(role, database)} {sql.set_clause(name, value)}"
        actions.append(GlobalAction("setting", f"{name} of {what}", statement, statement))
    return actions


def _covers(present: Membership, wanted: Membership) -> bool:
    return all(getattr(present, o) or not getattr(wanted, o) for o in ("admin", "inherit", "set"))
