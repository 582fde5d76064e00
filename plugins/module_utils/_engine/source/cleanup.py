# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Finding and removing what migrations left on a server, by name alone: no state of ours is needed (requirement B20).

Ours are replication slots and publications named ``pgm_...`` and sessions whose ``application_name`` begins with
:data:`~..postgres.identifiers.APPLICATION`. Nothing else is ever touched. Everything here may be repeated.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
import typing as t

from ..errors import ConnectionFailed, MigrationError
from ..postgres.drivers import psycopg
from ..postgres.identifiers import APPLICATION, PREFIX, object_name
from ..postgres.session import connect, passing
from ..spec import Endpoint
from .publication import drop_publication
from .slot import drop_slot

SECONDS = 20.0
"""How long a slot or session may take to end."""

PURPOSE = "cleanup"

PATIENCE = 30.0
"""Seconds for which a source that is being restarted is waited for at a migration's end."""


@dataclasses.dataclass(frozen=True, order=True)
class Leftover:
    """One object of ours. ``kind`` is ``slot``, ``publication`` or ``session``; ``name`` that of the object, for a session its process
    id and application name; ``pid`` the backend that uses it, 0 if none does."""

    kind: str
    name: str
    database: str
    pid: int = 0

    def to_dict(self) -> dict[str, t.Any]:
        """The object as plain data."""
        return dataclasses.asdict(self)


def take_back(endpoint: Endpoint, database: str, name: str) -> list[str]:
    """Remove slot and publication ``name`` at a migration's end; that they stay and why, or nothing.

    The target serves by then: an old server that was switched off does not make the migration fail.
    """
    limit = time.monotonic() + PATIENCE
    while True:
        try:
            with connect(endpoint, database, purpose="finish") as conn:
                drop_slot(conn, name)
                drop_publication(conn, name)
            return []
        except (MigrationError, psycopg.Error) as exc:
            if time.monotonic() < limit and passing(exc):
                time.sleep(1)
                continue
            said = exc.message if isinstance(exc, MigrationError) else " ".join(str(exc).split())
            return [f"Slot and publication {name} stay on the source, which keeps its WAL for them: {said} Play cleanup when it answers."]


def find_ours(endpoint: Endpoint, database: str | None = None, *, key: str | None = None) -> list[Leftover]:
    """What is ours on the server of ``endpoint``, in all databases or in ``database``.

    :param key: that of one migration: only its slots and publications, and the sessions that name it or use them.
    :raises ConnectionFailed: where the server cannot be reached; a single database that refuses us is passed over.
    """
    with connect(endpoint, purpose=PURPOSE) as conn:
        slots = _slots(conn, database, key)
        names = [database] if database else _databases(conn)
        sessions = _sessions(conn, database, key, {s.pid for s in slots if s.pid})
    publications: list[Leftover] = []
    for name in names:
        with contextlib.suppress(ConnectionFailed), connect(endpoint, name, purpose=PURPOSE) as conn:
            publications += _publications(conn, name, key)
    return sorted(sessions + slots + publications)


def remove_ours(
    endpoint: Endpoint, key: str | None = None, *, database: str | None = None, only: Leftover | None = None, seconds: float = SECONDS
) -> list[Leftover]:
    """Remove what :func:`find_ours` finds and answer with what is gone: sessions end first, then slots and publications go.

    :param only: this alone.
    :raises MigrationError: PGM1213 naming what could not be removed; all the rest is removed before.
    """
    found = [only] if only else find_ours(endpoint, database, key=key)
    removed: list[Leftover] = []
    refused: dict[Leftover, str] = {}

    def attempt(item: Leftover, action: t.Callable[[], object]) -> None:
        try:
            action()
            removed.append(item)
        except psycopg.Error as exc:
            refused[item] = f"{exc.diag.message_primary or exc} (SQLSTATE {exc.sqlstate or '?'})"
        except MigrationError as exc:
            refused[item] = exc.message

    if not found:
        return []
    with connect(endpoint, purpose=PURPOSE) as conn:
        for item in (i for i in found if i.kind == "session"):
            attempt(item, lambda item=item: _end_session(conn, item.pid, seconds))  # type: ignore[misc]
        for item in (i for i in found if i.kind == "slot"):
            attempt(item, lambda item=item: _drop_slot(conn, item.name, seconds))  # type: ignore[misc]
    for name in sorted({i.database for i in found if i.kind == "publication"}):
        with connect(endpoint, name, purpose=PURPOSE) as conn:
            for item in (i for i in found if i.kind == "publication" and i.database == name):
                attempt(item, lambda item=item: drop_publication(conn, item.name))  # type: ignore[misc]
    if refused:
        raise MigrationError(
            f"Could not remove from {endpoint.label()}: " + "; ".join(f"{i.kind} {i.name}: {why}" for i, why in refused.items()),
            code="PGM1213",
            server=endpoint.label(),
            hint="Run the clean-up as the user that made them, or as a superuser of the server.",
            details={"removed": [i.to_dict() for i in removed], "left": [i.to_dict() for i in refused]},
        )
    return removed


def _databases(conn: psycopg.Connection[t.Any]) -> list[str]:
    rows = conn.execute("SELECT datname::text FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1").fetchall()
    return [row[0] for row in rows]


def _is_ours(name: str, database: str, key: str | None) -> bool:
    return name.startswith(PREFIX) and (key is None or name == object_name(key, database))


def _slots(conn: psycopg.Connection[t.Any], database: str | None, key: str | None) -> list[Leftover]:
    rows = conn.execute(
        "SELECT slot_name::text, coalesce(database::text, ''), coalesce(active_pid, 0) FROM pg_replication_slots"
    ).fetchall()
    return [Leftover("slot", *row) for row in rows if _is_ours(row[0], row[1], key) and database in (None, row[1])]


def _sessions(conn: psycopg.Connection[t.Any], database: str | None, key: str | None, users: set[int]) -> list[Leftover]:
    rows = conn.execute(
        "SELECT pid, application_name, coalesce(datname::text, '') FROM pg_stat_activity"
        " WHERE pid <> pg_catalog.pg_backend_pid() AND application_name LIKE %s",
        [f"{APPLICATION}%"],
    ).fetchall()
    found = []
    for pid, application, name in rows:
        whole = application == APPLICATION or application.startswith(APPLICATION + " ")
        if whole and database in (None, name) and (key is None or pid in users or key in application.split()):
            found.append(Leftover("session", f"{pid} {application}", name, pid))
    return found


def _publications(conn: psycopg.Connection[t.Any], database: str, key: str | None) -> list[Leftover]:
    if conn.info.server_version < 100000:
        return []
    rows = conn.execute("SELECT pubname::text FROM pg_publication").fetchall()
    return [Leftover("publication", row[0], database) for row in rows if _is_ours(row[0], database, key)]


def _end_session(conn: psycopg.Connection[t.Any], pid: int, seconds: float) -> None:
    """End one session of ours and wait until it is gone. The name is compared again: a process id may have been given anew."""
    deadline = time.monotonic() + seconds
    alive = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s AND application_name LIKE %s"
    while conn.execute(alive, [pid, f"{APPLICATION}%"]).fetchone() is not None and time.monotonic() < deadline:
        time.sleep(0.05)


def _drop_slot(conn: psycopg.Connection[t.Any], name: str, seconds: float) -> None:
    drop_slot(conn, name, timeout=seconds)
