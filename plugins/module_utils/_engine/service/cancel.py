# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Taking back what a migration made: always on the source, on the target only when asked (R105 to R107)."""

from __future__ import annotations

import typing as t

from ..changes.quiet import restore, validate_restored
from ..cutover.watchdog import FenceJournal
from ..errors import MigrationError
from ..migration.ledger import Ledger
from ..migration.paths import MigrationPaths
from ..postgres.identifiers import quote_ident
from ..postgres.session import connect, server_errors
from ..source.cleanup import remove_ours
from ..spec import MigrationSpec


def clean_source(paths: MigrationPaths, spec: MigrationSpec) -> list[str]:
    """Lift a fence, end our sessions, remove slots and publications of this migration; what was removed, for people."""
    FenceJournal(paths.fence).lift(spec.source)
    return [f"{leftover.kind} {leftover.name} in {leftover.database}" for leftover in remove_ours(spec.source, key=spec.key)]


def restore_databases(spec: MigrationSpec, databases: t.Iterable[str]) -> list[str]:
    """Let fire again what rested in these databases of the target, if they are ours; what could not be restored, for people."""
    told = []
    for database in databases:
        try:
            with connect(spec.target, database, purpose="cancel") as conn, server_errors(f"restore triggers of {database}", spec.target):
                if Ledger(conn).owner() == spec.key:
                    restore(conn)
                    told += validate_restored(conn)
        except MigrationError as exc:
            told.append(exc.message)
    return told


def drop_databases(spec: MigrationSpec) -> list[str]:
    """Drop the databases on the target that this migration made and nobody else (R106); their names."""
    dropped: list[str] = []
    for database in () if spec.back_of else spec.databases:
        try:
            with connect(spec.target, database, purpose="cancel") as conn:
                ours = Ledger(conn).owner() == spec.key
        except MigrationError:
            continue
        if ours:
            with connect(spec.target, purpose="cancel") as conn, server_errors(f"drop the database {database}", spec.target):
                conn.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND usename = current_user", [database]
                )
                conn.execute(f"DROP DATABASE IF EXISTS {quote_ident(database)}")
            dropped.append(database)
    return dropped
