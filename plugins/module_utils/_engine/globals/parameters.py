# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Server parameters: what the source sets and the target has otherwise, and, only where asked, the target's made like it (R40, R41)."""

from __future__ import annotations

import dataclasses
import time
import typing as t

from ..postgres.drivers import psycopg
from ..postgres.profiles import Profile, profile_for
from ..postgres.session import connect, server_errors
from ..source.settings import Setting, parse_quantity
from ..spec import Endpoint
from . import statements as sql
from .difference import GlobalAction, Skipped

SIZE = frozenset(
    {
        "shared_buffers",
        "work_mem",
        "maintenance_work_mem",
        "autovacuum_work_mem",
        "logical_decoding_work_mem",
        "effective_cache_size",
        "temp_buffers",
        "wal_buffers",
        "max_wal_size",
        "min_wal_size",
        "max_connections",
        "max_worker_processes",
        "max_parallel_workers",
        "max_parallel_workers_per_gather",
        "max_parallel_maintenance_workers",
        "autovacuum_max_workers",
        "effective_io_concurrency",
        "maintenance_io_concurrency",
        "hash_mem_multiplier",
        "max_locks_per_transaction",
        "max_prepared_transactions",
        "max_files_per_process",
        "checkpoint_timeout",
        "io_workers",
        "io_method",
    }
)
"""Parameters that follow the size of a server: to be thought over, not copied."""

OWN = frozenset(
    {
        "listen_addresses",
        "port",
        "unix_socket_directories",
        "unix_socket_group",
        "unix_socket_permissions",
        "data_directory",
        "config_file",
        "hba_file",
        "ident_file",
        "external_pid_file",
        "cluster_name",
        "bonjour_name",
        "ssl",
        "ssl_ca_file",
        "ssl_cert_file",
        "ssl_key_file",
        "ssl_crl_file",
        "ssl_crl_dir",
        "ssl_dh_params_file",
        "archive_mode",
        "archive_command",
        "archive_library",
        "archive_timeout",
        "archive_cleanup_command",
        "restore_command",
        "recovery_end_command",
        "primary_conninfo",
        "primary_slot_name",
        "promote_trigger_file",
        "hot_standby",
        "hot_standby_feedback",
        "synchronous_standby_names",
        "synchronized_standby_slots",
        "recovery_target_timeline",
        "log_directory",
        "log_filename",
        "log_file_mode",
        "log_destination",
        "logging_collector",
        "log_line_prefix",
        "syslog_ident",
        "syslog_facility",
        "event_source",
        "wal_level",
        "max_replication_slots",
        "max_wal_senders",
        "wal_sender_timeout",
        "wal_keep_size",
        "max_slot_wal_keep_size",
        "output_plugin_libraries",
        "dynamic_shared_memory_type",
        "shared_memory_type",
        "huge_pages",
        "application_name",
        "client_encoding",
        "krb_server_keyfile",
        "transaction_isolation",
        "transaction_read_only",
        "transaction_deferrable",
        "in_hot_standby",
        "is_superuser",
        "session_authorization",
        "role",
        "shared_preload_libraries",
        "stats_temp_directory",
        "data_directory_mode",
        "server_encoding",
        "lc_collate",
        "lc_ctype",
        "fsync",
    }
)
"""Parameters that belong to one server, to its place, or to this migration."""


@dataclasses.dataclass(frozen=True)
class ParameterDifference:
    """One parameter that the source sets and the target has otherwise. ``kind`` is ``copy``, ``size`` (think it over), ``read_only``
    (the provider's) or ``unknown`` (the target has no such); ``restart`` says what setting it needs there."""

    name: str
    source: str
    target: str
    unit: str
    kind: str
    restart: bool
    settable: bool
    command: str

    def to_dict(self) -> dict[str, t.Any]:
        """The difference as plain data."""
        return dataclasses.asdict(self)


def compare(source: t.Mapping[str, Setting], target: t.Mapping[str, Setting], profile: Profile) -> list[ParameterDifference]:
    """What the source has changed from PostgreSQL's default and the target does not have so.

    :param source: all of ``pg_settings`` there; ``Setting.source`` is ``default`` where nobody changed it.
    """
    found = []
    for name, mine in sorted(source.items()):
        if name in OWN or mine.context == "internal" or mine.source == "default" or mine.source_file == "" and "." in name:
            continue
        theirs = target.get(name)
        if theirs is not None and _equal(mine, theirs):
            continue
        kind = "copy"
        if theirs is None:
            kind = "unknown"
        elif theirs.context == "internal" or name in profile.read_only_parameters:
            kind = "read_only"
        elif name in SIZE:
            kind = "size"
        settable = kind in ("copy", "size")
        found.append(
            ParameterDifference(
                name,
                mine.value,
                theirs.value if theirs else "",
                mine.unit,
                kind,
                bool(theirs and theirs.context == "postmaster"),
                settable,
                _command(profile, name, mine) if settable else "",
            )
        )
    return found


def _command(profile: Profile, name: str, mine: Setting) -> str:
    """What sets the parameter on that kind of server."""
    if profile.managed:
        return profile.set_parameter(name, mine.value)
    return alter_system(name, mine.value, mine.unit)


def alter_system(name: str, value: str, unit: str) -> str:
    """ALTER SYSTEM for a value as ``pg_settings`` counts it."""
    value += unit if unit in ("ms", "s", "min", "kB", "MB") and value not in ("0", "-1") else ""
    return f"ALTER SYSTEM {sql.set_clause(name, value)}"


def _equal(one: Setting, other: Setting) -> bool:
    if one.value == other.value and one.unit == other.unit:
        return True
    try:
        return parse_quantity(one.value + one.unit.lstrip("0123456789"), other.unit) == parse_quantity(other.value, other.unit)
    except ValueError:
        return False


def read_parameters(conn: psycopg.Connection[t.Any]) -> dict[str, Setting]:
    """All of ``pg_settings`` as a new session has them; ``source`` is ``default`` where nobody has changed a value, else ``changed``."""
    rows = conn.execute(
        "SELECT name, coalesce(reset_val, ''), coalesce(unit, ''), context, CASE WHEN reset_val IS DISTINCT FROM boot_val THEN 'changed'"
        " ELSE 'default' END, coalesce(sourcefile, ''), coalesce(sourceline, 0), pending_restart FROM pg_settings"
    ).fetchall()
    return {row[0]: Setting(*row) for row in rows}


RELOAD_SECONDS = 10.0
"""How long the server may take to read its files again."""

_OF_LOGIN = """
    SELECT lower(split_part(c, '=', 1)) FROM pg_db_role_setting s JOIN pg_database d ON d.datname = current_database()
      JOIN pg_roles r ON r.rolname = current_user, unnest(s.setconfig) c
     WHERE s.setrole IN (0, r.oid) AND s.setdatabase IN (0, d.oid)"""
"""Parameters that a session of this login has from ALTER ROLE or ALTER DATABASE: not the server's."""


@dataclasses.dataclass
class ParametersPlan:
    """All ``differences``; the ``actions`` that make the target's like the source's, and what is ``skipped`` of those to copy."""

    target: Endpoint
    differences: list[ParameterDifference]
    actions: list[GlobalAction]
    skipped: list[Skipped]

    def values(self) -> tuple[dict[str, str], dict[str, str]]:
        """The target's values of what the actions set, before and after, for a diff."""
        set_ = {action.name for action in self.actions}
        picked = [one for one in self.differences if one.name in set_]
        return {one.name: one.target for one in picked}, {one.name: one.source for one in picked}


def plan_parameters(source: Endpoint, target: Endpoint, *, apply: bool) -> ParametersPlan:
    """Compare both servers; nothing is written. Only what a reload brings into force, and what does not depend on the server's size
    or place, becomes an action.

    :param apply: without it there are no actions.
    :raises MigrationError: if a server refuses to be read.
    """
    profile = profile_for(target.type)
    with connect(source, purpose="globals") as ours, connect(target, purpose="globals") as theirs:
        with server_errors("read parameters", source, code="PGM7001"):
            of_login = {row[0] for row in ours.execute(_OF_LOGIN)}
            differences = [d for d in compare(read_parameters(ours), read_parameters(theirs), profile) if d.name.lower() not in of_login]
        plan = ParametersPlan(target, differences, [], [])
        for one in [d for d in differences if apply and d.kind == "copy"]:
            reason = _why_not(theirs, one, profile)
            if reason:
                plan.skipped.append(Skipped("parameter", one.name, f"{reason}: {one.command}"))
                continue
            statement = alter_system(one.name, one.source, one.unit)
            plan.actions.append(GlobalAction("parameter", one.name, statement, statement))
    return plan


def _why_not(conn: psycopg.Connection[t.Any], one: ParameterDifference, profile: Profile) -> str:
    """Why the parameter is not set by us; empty if it is."""
    if profile.managed:
        return f"{profile.who} sets it with the provider's means"
    if one.restart:
        return "it takes a restart of the target, which is left to you"
    row = conn.execute(
        "SELECT rolsuper, has_function_privilege('pg_catalog.pg_reload_conf()', 'EXECUTE') FROM pg_roles WHERE rolname = current_user"
    ).fetchone()
    superuser, may_reload = row or (False, False)
    granted = superuser
    if not superuser and conn.info.server_version >= 150000:
        asked = conn.execute("SELECT has_parameter_privilege(%s, 'ALTER SYSTEM')", [one.name]).fetchone()
        granted = bool(asked and asked[0])
    return "" if granted and may_reload else f"{conn.info.user} may not set it for the whole server (ALTER SYSTEM and pg_reload_conf)"


def apply_parameters(plan: ParametersPlan) -> list[str]:
    """Send the plan's statements and have the server read its files again; the statements done.

    ALTER SYSTEM cannot be rolled back, so each stands alone: what the server refuses is added to ``plan.skipped``. So is what does not come
    into force, because a command line or another file says otherwise; its statement is taken back (ALTER SYSTEM RESET).

    :raises MigrationError: if the server cannot be reached.
    """
    done: dict[str, str] = {}
    if not plan.actions:
        return []
    with connect(plan.target, purpose="globals") as conn:
        for action in plan.actions:
            try:
                conn.execute(action.sql.encode())
                done[action.name] = action.statement
            except psycopg.Error as exc:
                words = exc.diag.message_primary or type(exc).__name__
                plan.skipped.append(Skipped("parameter", action.name, f"refused by the target: {words} (SQLSTATE {exc.sqlstate})"))
        _reload(conn, plan.target)
        for name in _not_in_force(plan, done):
            conn.execute(f"ALTER SYSTEM RESET {sql.parameter(name)}".encode())
            del done[name]
            plan.skipped.append(Skipped("parameter", name, "the target's command line or another file sets it otherwise"))
        _reload(conn, plan.target)
    return list(done.values())


def _reload(conn: psycopg.Connection[t.Any], target: Endpoint) -> None:
    with server_errors("read the configuration again (pg_reload_conf)", target, code="PGM7001"):
        conn.execute("SELECT pg_catalog.pg_reload_conf()")


def _not_in_force(plan: ParametersPlan, done: t.Collection[str]) -> list[str]:
    """Those of ``done`` that a new session does not have as asked, some seconds after the reload."""
    wanted = {d.name: d for d in plan.differences if d.name in done}
    deadline = time.monotonic() + RELOAD_SECONDS
    while True:
        with connect(plan.target, purpose="globals") as fresh:
            now = read_parameters(fresh)
        left = [name for name, one in wanted.items() if not _equal(Setting(name, one.source, one.unit), now[name])]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)
