# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Roles, memberships and settings from one server to another: plan (reads only), then apply.

A plan made again after it was applied is empty. Nothing that the login on the target would be refused is in it; what therefore stays
behind is in :attr:`GlobalsPlan.skipped`, each with its reason.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import typing as t

from ..errors import MigrationError, SpecificationError
from ..postgres.catalog import is_selection, list_databases, select
from ..postgres.drivers import psycopg
from ..postgres.identifiers import APPLICATION, quote_ident
from ..postgres.session import connect, server_errors
from ..spec import Endpoint
from .database import database_actions, limit_actions
from .difference import SOFT, Difference, GlobalAction, Options, Skipped
from .marker import MARKER, Marker
from .rights import Parameters, read_rights
from .state import State, read_state

SUPERUSER_POLICIES = ("remove", "demote")
PURPOSE = "globals"
LOCK = 0x70676D67
"""The advisory lock of all that change globals: ``pgmg``."""

KEY = re.compile("-[0-9a-f]{6}$")
"""How the key of a migration ends, in the name of a session."""


@dataclasses.dataclass
class GlobalsPlan:
    """What is to be done on ``target``. ``before``/``after`` describe its globals for a diff, without any secret; ``migrated`` are the
    roles of the source that exist on the target in the end."""

    target: Endpoint
    actions: list[GlobalAction]
    skipped: list[Skipped]
    before: dict[str, t.Any]
    after: dict[str, t.Any]
    migrated: tuple[str, ...] = ()

    @property
    def statements(self) -> list[str]:
        """The statements as they may be shown."""
        return [action.statement for action in self.actions]

    @property
    def changed(self) -> bool:
        """Is there anything to do?"""
        return bool(self.actions)


def plan_globals(
    source: Endpoint,
    target: Endpoint,
    *,
    databases: t.Iterable[str] = (),
    superuser_policy: str = "remove",
    exclude: t.Iterable[str] = (),
    passwords: t.Mapping[str, str] | None = None,
    verifiers: bool = True,
    tablespaces: t.Iterable[str] = (),
    of_databases: bool = False,
) -> GlobalsPlan:
    """Compare both servers; nothing is written.

    :param databases: whose role settings come along where they exist on the target already: names, or a selection as
        :func:`..postgres.catalog.select` reads it; none: every one.
    :param superuser_policy: ``remove`` leaves the source's superusers out, ``demote`` makes ordinary roles of them.
    :param exclude: roles to leave out.
    :param passwords: role to password or verifier, for sources that show none; what is sent is always a verifier.
    :param verifiers: carry over what the source shows; otherwise the roles that need a password are in ``skipped``.
    :param tablespaces: of the source, for which the target has others: these are not named as left behind.
    :param of_databases: bring the settings of these databases themselves, too (ALTER DATABASE ... SET).
    :raises SpecificationError: for another policy.
    :raises MigrationError: if a server refuses to be read.
    """
    if superuser_policy not in SUPERUSER_POLICIES:
        raise SpecificationError(f"superuser_policy is {superuser_policy!r}; allowed: {', '.join(SUPERUSER_POLICIES)}.", code="PGM7002")
    named = list(databases)
    with contextlib.ExitStack() as stack:
        source_conn = stack.enter_context(connect(source, purpose="globals"))
        target_conn = stack.enter_context(connect(target, purpose="globals"))
        with server_errors("read roles and settings", source, code="PGM7001"):
            wanted = read_state(source_conn, passwords=verifiers)
            chosen = select(named, list_databases(source_conn)) if is_selection(named) else named
        with server_errors("read roles and settings", target, code="PGM7001"):
            present = read_state(target_conn)
            rights = read_rights(target_conn, present)
            options = Options(
                superuser_policy,
                frozenset(exclude),
                frozenset(chosen) if named else None,
                dict(passwords or {}),
                lambda role, password: target_conn.pgconn.encrypt_password(password.encode(), role.encode()).decode(),
                frozenset(tablespaces),
                of_databases,
            )
            difference = Difference(source, target, wanted, present, rights, Parameters(target_conn, rights), options)
            difference.compute()
    before = describe(present, difference.roles)
    after = {**before, "statements": [action.statement for action in difference.actions]} if difference.actions else before
    return GlobalsPlan(target, difference.actions, difference.skipped, before, after, tuple(difference.roles))


def plan_database(source: Endpoint, target: Endpoint, database: str, *, fresh: bool = False) -> GlobalsPlan:
    """What belongs to ``database`` and not to any object in it: its settings, roles' settings in it, comment, privileges.

    The database must exist on the target. ``fresh``: it was just made by us, so that privileges which PUBLIC has by default and the
    source took away are taken away too.
    """
    with contextlib.ExitStack() as stack:
        source_conn = stack.enter_context(connect(source, purpose="globals"))
        target_conn = stack.enter_context(connect(target, purpose="globals"))
        with server_errors(f"read the settings of {database}", target, code="PGM7001"):
            wanted, present = read_state(source_conn), read_state(target_conn)
            rights = read_rights(target_conn, present)
            skipped: list[Skipped] = []
            actions = database_actions(
                (source_conn, target_conn), database, wanted, present, rights, Parameters(target_conn, rights), skipped, fresh=fresh
            )
    before = {"database": database}
    after = {**before, "statements": [a.statement for a in actions]} if actions else before
    return GlobalsPlan(target, actions, skipped, before, after)


def plan_limits(source: Endpoint, target: Endpoint, database: str) -> GlobalsPlan:
    """The connection limit and the template mark of ``database``, for the end of its migration (pg_dump --create writes both)."""
    with (
        connect(source, purpose="globals") as source_conn,
        connect(target, purpose="globals") as target_conn,
        server_errors(f"read the limits of {database}", target, code="PGM7001"),
    ):
        actions = limit_actions((source_conn, target_conn), database)
    return GlobalsPlan(target, actions, [], {"database": database}, {"database": database, "statements": [a.statement for a in actions]})


def apply_globals(plan: GlobalsPlan) -> list[str]:
    """Send the plan's statements in one transaction; the statements done, as they may be shown.

    A provider may refuse what PostgreSQL itself would allow: memberships, settings, comments and parameter grants that are refused (42501)
    are added to ``plan.skipped`` and the rest goes on.

    :raises MigrationError: if anything else fails; then nothing was done.
    """
    if not plan.actions:
        return []
    done = []
    with connect(plan.target, purpose="globals") as conn, conn.transaction():
        if any(action.name.startswith("plpgsql.") for action in plan.actions):
            conn.execute("DO LANGUAGE plpgsql 'BEGIN END'")
        for action in plan.actions:
            try:
                with conn.transaction():
                    conn.execute(action.sql)
            except psycopg.Error as exc:
                refusal = _refusal(plan.target, action, exc)
                if exc.sqlstate != "42501" or action.kind not in SOFT:
                    raise refusal from None  # the chained error would show the statement
                plan.skipped.append(Skipped(action.kind, action.name, f"refused by the target: {exc.diag.message_primary}"))
                continue
            done.append(action.statement)
    return done


def revoke_admin_memberships(target: Endpoint, *, force: bool = False) -> list[str]:
    """Take back from the login on ``target`` the memberships that it got for the migration, and forget everything we remember there.

    While another migration is at work on this server, of this runtime host or another, they stay for that one to take back, unless by
    ``force``.

    :returns: the statements done; none the second time.
    """
    with alone(target) as conn, server_errors("revoke the memberships of the migration", target, code="PGM7001"):
        state = read_state(conn)
        role = state.roles.get(MARKER)
        if role is None or not force and _others_at_work(conn, target.tag):
            return []
        owned = state.owned if state.version >= 160000 else state.memberships
        mine = [name for name in sorted(Marker.from_comment(role.comment).admin) if (name, state.user) in owned]
        statements = [f"REVOKE {quote_ident(name)} FROM {quote_ident(state.user)}" for name in mine]
        statements.append(f"DROP ROLE {quote_ident(MARKER)}")
        for statement in statements:
            conn.execute(statement.encode())
    return statements


@contextlib.contextmanager
def alone(target: Endpoint) -> t.Iterator[psycopg.Connection[t.Any]]:
    """A transaction within which no other migration plans, applies or takes back globals on this target.

    :raises MigrationError: if another one does so for more than two minutes.
    """
    with connect(target, purpose=PURPOSE) as conn, conn.transaction():
        with server_errors("wait for another migration's globals", target, code="PGM7001"):
            conn.execute("SET LOCAL lock_timeout = '120s'")
            conn.execute("SELECT pg_catalog.pg_advisory_xact_lock(%s)", [LOCK])
        yield conn


def _others_at_work(conn: psycopg.Connection[t.Any], key: str) -> bool:
    """Has a migration with another key than ``key`` a session of this login on the server?"""
    rows = conn.execute("SELECT application_name FROM pg_stat_activity WHERE usename = current_user").fetchall()
    names = (str(row[0]).split() for row in rows)
    return any(len(name) > 2 and name[0] == APPLICATION and KEY.search(name[1]) and name[1] != key and name[2] != PURPOSE for name in names)


def describe(state: State, names: t.Iterable[str]) -> dict[str, t.Any]:
    """The roles ``names`` as plain data for a diff; no verifier."""
    shown: dict[str, t.Any] = {}
    for name in names:
        role = state.roles.get(name)
        if role is None:
            continue
        entry = {k: v for k, v in dataclasses.asdict(role).items() if k not in ("name", "oid", "password")}
        entry["member_of"] = sorted(r for r, member in state.memberships if member == name)
        entry["settings"] = {database or "*": dict(values) for (owner, database), values in state.settings.items() if owner == name}
        shown[name] = entry
    return {"roles": shown}


def _refusal(target: Endpoint, action: GlobalAction, exc: psycopg.Error) -> MigrationError:
    state = exc.sqlstate or ""
    return MigrationError(
        f"Could not bring over {action.kind} {action.name} to {target.label()}:"
        f" {exc.diag.message_primary or type(exc).__name__} (SQLSTATE {state}).",
        code="PGM7001",
        hint=f"The statement was: {action.statement}",
        server=target.label(),
        sqlstate=state,
    )
