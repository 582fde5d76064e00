# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The last steps of one database inside the pause: the marker, and what logical decoding does not carry.

Sequences, large objects, unlogged tables and materialized views are not in the stream (PostgreSQL manual 29.8 "Restrictions"), so they
are brought level after the drain, while nobody writes.
"""

from __future__ import annotations

import contextlib
import typing as t

from ..changes.assemble import MARKER
from ..changes.quiet import restore
from ..errors import CutoverAborted
from ..postgres.drivers import psycopg
from ..postgres.lsn import parse_lsn
from ..postgres.selection import Selection
from ..postgres.session import connect, server_errors
from ..snapshot.finish import refresh_matviews
from ..snapshot.largeobjects import sync_large_objects
from ..snapshot.sequences import MARGIN, sync_sequences
from ..spec import MigrationSpec
from .unlogged import sync_unlogged


def emit_marker(spec: MigrationSpec, database: str, token: str) -> int:
    """Write our marker into the source's WAL and return the WAL position after it.

    The message is transactional: it comes through the stream in commit order, behind all that was committed before. On servers
    whose stream carries no messages, or that refuse them, the position alone is the marker.
    """
    with (
        connect(spec.source, database, purpose="cutover") as conn,
        server_errors("write the cutover marker", spec.source, database, kind=CutoverAborted),
    ):
        modern = conn.info.server_version >= 100000
        with contextlib.suppress(psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedFunction):
            conn.execute("SELECT pg_logical_emit_message(true, %s, %s)", [MARKER, token])
        where = "pg_current_wal_insert_lsn()" if modern else "pg_current_xlog_insert_location()"
        row = conn.execute(f"SELECT {where}::text").fetchone()
        return parse_lsn(row[0]) if row else 0


LATE_SECONDS = 3.0
"""How long behind the pause's end a statement may go on: whoever waits for it has given the cutover back by then."""


def complete_database(spec: MigrationSpec, database: str, seconds: float | None = None) -> dict[str, t.Any]:
    """Bring level what the stream does not carry.

    :param seconds: how long it may take; None: as long as it takes.
    :return: how much of each: ``unlogged_rows``, ``sequences``, ``large_objects``, ``materialized_views``.
    """
    with _sessions(spec, database, seconds) as (source, target):
        rows = sync_unlogged(spec, database, source, target, seconds)  # before triggers and foreign keys are put back
        restore(target)
        return {"unlogged_rows": rows, **_level(spec, source, target), "materialized_views": refresh_matviews(target)}


def complete_again(spec: MigrationSpec, database: str, seconds: float | None = None) -> dict[str, t.Any]:
    """What :func:`complete_database` has read while sessions were still there, once more now that none is: they cannot have written rows
    of tables (that is proven), but may have called ``nextval`` or written large objects.

    :param seconds: how long it may take; None: as long as it takes.
    """
    with _sessions(spec, database, seconds) as (source, target):
        return _level(spec, source, target)


@contextlib.contextmanager
def _sessions(
    spec: MigrationSpec, database: str, seconds: float | None
) -> t.Iterator[tuple[psycopg.Connection[t.Any], psycopg.Connection[t.Any]]]:
    with (
        connect(spec.source, database, purpose="cutover") as source,
        connect(spec.target, database, purpose="cutover") as target,
        server_errors("bring sequences and large objects level", spec.target, database, kind=CutoverAborted),
    ):
        for conn in (source, target) if seconds is not None else ():
            conn.execute(f"SET statement_timeout = {int(((seconds or 0) + LATE_SECONDS) * 1000)}")
        yield source, target


def set_ahead(spec: MigrationSpec, database: str) -> None:
    """After a cutover that was given back: sequences of the target are ahead again, as the base copy has left them.

    :raises MigrationError: a server does not answer, or refuses it.
    """
    with _sessions(spec, database, None) as (source, target):
        _set_sequences(spec, source, target, MARGIN)


def _level(spec: MigrationSpec, source: psycopg.Connection[t.Any], target: psycopg.Connection[t.Any]) -> dict[str, int]:
    return {"sequences": _set_sequences(spec, source, target), "large_objects": sync_large_objects(source, target)}


def _set_sequences(spec: MigrationSpec, source: psycopg.Connection[t.Any], target: psycopg.Connection[t.Any], margin: int = 0) -> int:
    selection = Selection.of(spec.copy)
    partly = spec.copy.present or not selection.everything
    return sync_sequences(source, target, selection, partly=partly, margin=margin)
