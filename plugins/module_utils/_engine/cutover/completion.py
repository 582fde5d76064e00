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
from ..snapshot.largeobjects import sync_differences
from ..spec import MigrationSpec
from .sequences import sync_sequences
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


def complete_database(spec: MigrationSpec, database: str, seconds: float | None = None) -> dict[str, t.Any]:
    """Bring level what the stream does not carry.

    :param seconds: how long the copy of unlogged tables may take; None: as long as it takes.
    :return: how much of each: ``unlogged_rows``, ``sequences``, ``large_objects``, ``materialized_views``.
    """
    with (
        connect(spec.source, database, purpose="cutover") as source,
        connect(spec.target, database, purpose="cutover") as target,
        server_errors("bring sequences and large objects level", spec.target, database, kind=CutoverAborted),
    ):
        rows = sync_unlogged(spec, database, source, target, seconds)  # before triggers and foreign keys are put back
        restore(target)
        return {
            "unlogged_rows": rows,
            "sequences": sync_sequences(source, target, partly=not Selection.of(spec.copy).everything),
            "large_objects": sync_differences(source, target),
            "materialized_views": refresh_matviews(target),
        }
