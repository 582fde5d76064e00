# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""``changes.replica_identity`` carried out: what was changed of the source's tables is remembered here before it is changed, and given back
when the migration is over, however it ends. The target got the changed setting with the schema, so it is given back there as well.
"""

from __future__ import annotations

import contextlib
import dataclasses
import typing as t
from pathlib import Path

from ..errors import MigrationError
from ..migration.paths import read_json, write_json
from ..postgres.drivers import psycopg
from ..postgres.selection import Selection
from ..postgres.session import connect, server_errors
from ..source.identity import IdentityChange, change_identities, identity_plan, restore_identity
from ..spec import Endpoint, MigrationSpec

FILE = "identity.json"
"""In a database's folder: table, statement and restoring statement of each change."""


def bring_identities(spec: MigrationSpec, database: str, work: Path) -> None:
    """See that updates and deletes in each streamed table can be streamed, as the policy says.

    :raises MigrationError: PGM2301 under the policy ``fail`` where a table has no replica identity, PGM1212 where it cannot be altered.
    """
    with (
        connect(spec.source, database, purpose="prepare") as conn,
        server_errors("read replica identities", spec.source, database, code="PGM1212"),
    ):
        plan = identity_plan(conn, spec.changes.replica_identity, Selection.of(spec.copy))
        if plan.changes:
            write_json(work / FILE, [*(read_json(work / FILE) or []), *(dataclasses.asdict(change) for change in plan.changes)])
            change_identities(conn, plan.changes)


def give_back_identities(source: Endpoint, target: Endpoint, database: str, work: Path) -> list[str]:
    """Give back what :func:`bring_identities` changed, on the source, and on the target where the database is there; once.

    :return: the tables, for people.
    :raises MigrationError: PGM1212 where a table of the source cannot be altered; it is tried again next time.
    """
    changes = [IdentityChange(**change) for change in read_json(work / FILE) or []]
    if not changes:
        return []
    with connect(source, database, purpose="finish") as conn:
        done = restore_identity(conn, changes)
    with contextlib.suppress(MigrationError, psycopg.Error), connect(target, database, purpose="finish") as conn:
        restore_identity(conn, changes)
    (work / FILE).unlink()
    return done


def changed_tables(work: Path) -> list[str]:
    """Labels of the tables whose setting is changed at present."""
    changes: list[dict[str, t.Any]] = read_json(work / FILE) or []
    return [str(change["table"]) for change in changes]
