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
from ..snapshot.present import leave_present
from ..source.cleanup import remove_ours
from ..spec import MigrationSpec
from .identities import give_back_identities


def clean_source(paths: MigrationPaths, spec: MigrationSpec) -> list[str]:
    """Lift a fence, end our sessions, remove slots and publications, give back replica identities; what was removed, for people."""
    FenceJournal(paths.fence).lift(spec.source)
    removed = [f"{leftover.kind} {leftover.name} in {leftover.database}" for leftover in remove_ours(spec.source, key=spec.key)]
    for database in spec.databases:
        given_back = give_back_identities(spec.source, spec.target, database, paths.work(database))
        removed += [f"changed replica identity of {table} in {database}" for table in given_back]
    return removed


def restore_databases(spec: MigrationSpec, databases: t.Iterable[str]) -> list[str]:
    """Let fire again what rested in these databases of the target, if they are ours, and leave those whose schema was
    present; what could not be restored, for people."""
    told = []
    for database in databases:
        if spec.copy.present and not spec.back_of:
            told += leave_present(spec, database)
            continue
        try:
            with connect(spec.target, database, purpose="cancel") as conn, server_errors(f"restore triggers of {database}", spec.target):
                if Ledger(conn).owner() == spec.key:
                    restore(conn)
                    told += validate_restored(conn)
        except MigrationError as exc:
            told.append(exc.message)
    return told


def drop_databases(spec: MigrationSpec) -> list[str]:
    """Drop the databases on the target that this migration made and nobody else, and to which no cutover has led (R106); their names."""
    dropped: list[str] = []
    for database in () if spec.back_of else spec.databases:
        try:
            with connect(spec.target, database, purpose="cancel") as conn:
                ours = Ledger(conn).owner() == spec.key and Ledger(conn).droppable()
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
