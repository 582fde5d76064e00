# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Replication slots on the source: made with an exported snapshot (law 1), found, dropped, and never left behind by an error."""

from __future__ import annotations

import dataclasses
import time
import typing as t

from ..errors import ConnectionFailed, MigrationError, PermissionMissing
from ..postgres.drivers import psycopg
from ..postgres.identifiers import PREFIX, quote_ident
from ..postgres.replication import ReplicationConnection, ServerRefused
from ..postgres.session import connect
from ..spec import Endpoint
from .blockers import Blockers

PATIENCE = 60.0
"""Seconds for which a slot's creation is tried again while too many transactions are running for one snapshot."""


@dataclasses.dataclass
class ExportedSlot:
    """A slot that was just made.

    ``snapshot`` can be imported by other sessions until :meth:`close`; changes start at ``consistent_point`` (an LSN).
    """

    name: str
    snapshot: str
    consistent_point: int
    connection: ReplicationConnection

    def close(self) -> None:
        """End the snapshot; the slot stays (a temporary one goes with its connection)."""
        self.connection.close()


def create_slot(
    endpoint: Endpoint,
    database: str,
    name: str,
    plugin: str,
    *,
    temporary: bool = False,
    failover: bool = False,
    waiting: t.Callable[[str], None] | None = None,
) -> ExportedSlot:
    """Make the slot ``name`` over the replication protocol and keep its exported snapshot open.

    :param waiting: told once a second whom the server waits for, as :class:`.blockers.Blockers` says it (empty: it does not tell); what it
        raises is raised, and no slot stays but one that the server makes afterwards.
    :param failover: one that the source's standbys keep too; servers before 17 have no such, see PGM2114.
    :raises MigrationError: PGM1201 it exists, PGM1202 no slot or sender is free, PGM1204 too many transactions for a snapshot,
        PGM1205 ``wal_level``, PGM1200 anything else.
    :raises PermissionMissing: PGM1203, the plugin or replication itself is refused to this role.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        connection = _replication(endpoint, database)
        blockers = Blockers(endpoint, database, connection.pid)
        try:
            made = connection.create_slot(name, plugin, temporary=temporary, failover=failover, waiting=_teller(blockers, waiting))
        except ServerRefused as exc:
            connection.close()
            if "snapshot too large" in exc.message and time.monotonic() < deadline:
                time.sleep(2)
                continue
            raise _explain(endpoint, database, name, plugin, exc) from exc
        except BaseException:
            connection.close()
            raise
        finally:
            blockers.close()
        return ExportedSlot(name, made.snapshot, made.consistent_point, connection)


def _teller(blockers: Blockers, waiting: t.Callable[[str], None] | None) -> t.Callable[[], None] | None:
    return None if waiting is None else lambda: waiting(blockers.look())


def _replication(endpoint: Endpoint, database: str) -> ReplicationConnection:
    """A replication connection; a role that may not have one is told what grants it."""
    try:
        return ReplicationConnection(endpoint, database, "slot")
    except ConnectionFailed as exc:
        if exc.details.get("reason") != "rights":
            raise
        hint = replication_hint(endpoint.user)
        raise PermissionMissing(exc.message, code="PGM1203", hint=hint, server=exc.server, sqlstate=exc.sqlstate) from exc


def _explain(endpoint: Endpoint, database: str, name: str, plugin: str, exc: ServerRefused) -> MigrationError:
    """What a refused slot means and what to do about it."""
    label = endpoint.label(database)
    said = f"Could not create the replication slot {name} with {plugin} on {label}: {exc.message}"
    said += f" (SQLSTATE {exc.sqlstate})." if exc.sqlstate else "."
    kind: type[MigrationError] = MigrationError
    code, hint = "PGM1200", "See the source's log."
    if exc.sqlstate == "42710":
        code, hint = "PGM1201", f"Drop it if nothing uses it: SELECT pg_drop_replication_slot('{name}')."
    elif exc.sqlstate == "53400" or "replication slots are in use" in exc.message or "walsender" in exc.message:
        code, hint = (
            "PGM1202",
            "Raise max_replication_slots (and max_wal_senders) on the source, or drop slots that nothing uses." + _stale(endpoint),
        )
    elif exc.sqlstate == "42501" or exc.sqlstate == "28000":
        kind, code, hint = PermissionMissing, "PGM1203", plugin_hint(endpoint.user, plugin, exc.message)
    elif "snapshot too large" in exc.message:
        code, hint = (
            "PGM1204",
            "One transaction has been open while hundreds committed; end it and run again." + _oldest(endpoint, database),
        )
    elif exc.sqlstate == "55000" and "wal_level" in exc.message:
        code, hint = "PGM1205", "Set wal_level = logical on the source and restart it (playbook prepare_source)."
    elif exc.sqlstate in ("58P01", "42704", "22023", "42883"):
        code, hint = "PGM1206", f"Install {plugin_package(plugin)} on the source, or choose changes.plugin: pgoutput."
    return kind(said, code=code, hint=hint, server=label, sqlstate=exc.sqlstate)


def plugin_package(plugin: str) -> str:
    """``plugin`` and where it comes from, for people."""
    package = {"wal2json": "Debian: postgresql-NN-wal2json", "test_decoding": "PostgreSQL's contrib"}.get(plugin)
    return f"{plugin} ({package})" if package else plugin


def plugin_hint(user: str, plugin: str, message: str) -> str:
    """What grants the use of ``plugin``; minor releases from August 2026 on have ``output_plugin_libraries`` (CVE-2026-6471)."""
    if "output_plugin_libraries" in message or plugin in message:
        allowed = ", ".join(dict.fromkeys(("pgoutput", "test_decoding", plugin)))
        return f"ALTER ROLE {quote_ident(user)} SET output_plugin_libraries = {allowed}; (an unquoted list, by a superuser)"
    return replication_hint(user)


def replication_hint(user: str) -> str:
    """What lets ``user`` open replication connections."""
    return f"ALTER ROLE {quote_ident(user)} REPLICATION; (on Amazon RDS: GRANT rds_replication TO {quote_ident(user)})"


def _stale(endpoint: Endpoint) -> str:
    """The inactive slots of the server by name, for a hint; empty where they cannot be read."""
    try:
        with connect(endpoint, purpose="slot") as conn:
            names = [
                row[0] for row in conn.execute("SELECT slot_name::text FROM pg_replication_slots WHERE NOT active ORDER BY 1 LIMIT 10")
            ]
    except (MigrationError, psycopg.Error):
        return ""
    return f" Inactive now: {', '.join(names)}." if names else ""


def _oldest(endpoint: Endpoint, database: str) -> str:
    try:
        with connect(endpoint, database, purpose="slot") as conn:
            row = conn.execute(
                "SELECT pid, usename::text, xact_start::text FROM pg_stat_activity WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid()"
                " ORDER BY xact_start LIMIT 1"
            ).fetchone()
    except (MigrationError, psycopg.Error):
        return ""
    return f" The oldest is of pid {row[0]}, user {row[1]}, since {row[2]}." if row else ""


def slot_exists(conn: psycopg.Connection[t.Any], name: str) -> bool:
    """Is there a slot of this name on the server of ``conn``?"""
    return conn.execute("SELECT FROM pg_replication_slots WHERE slot_name = %s", [name]).fetchone() is not None


def drop_slot(conn: psycopg.Connection[t.Any], name: str, *, timeout: float = 30.0) -> bool:
    """Drop our slot ``name``, ending its walsender first; True if there was one.

    :raises MigrationError: PGM1207 if it is no slot of ours, or stays active for ``timeout`` seconds.
    """
    if not name.startswith(PREFIX):
        raise MigrationError(f"{name} is not a replication slot of ours; it is not dropped.", code="PGM1207")
    deadline = time.monotonic() + timeout
    dropped = False
    while True:
        row = conn.execute("SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s", [name]).fetchone()
        if row is None:
            return dropped
        try:
            if row[0] is not None:
                conn.execute("SELECT pg_terminate_backend(%s)", [row[0]])
            conn.execute("SELECT pg_drop_replication_slot(%s)", [name])
            dropped = True
        except (psycopg.errors.ObjectInUse, psycopg.errors.UndefinedObject) as exc:
            if time.monotonic() > deadline:
                raise MigrationError(
                    f"The replication slot {name} stays in use by pid {row[0]}: {exc}",
                    code="PGM1207",
                    hint="Stop the migration service that reads it.",
                ) from exc
            time.sleep(0.1)
