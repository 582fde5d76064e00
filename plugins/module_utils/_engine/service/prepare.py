# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What one database needs before its first row is copied: plugin, publication, slot with snapshot, database on the target.

The first time all of it is made, or, if any part fails, none of it stays. Later times find it again; a snapshot that was lost with its
process is replaced by a new one, under which only the unfinished tables are copied (law 8).
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import typing as t
from pathlib import Path

from ..changes.ddl import FILE, Baseline
from ..errors import MigrationError, StreamError
from ..globals.plan import apply_globals, plan_database
from ..migration.ledger import Ledger
from ..migration.paths import read_json, write_json
from ..postgres.drivers import psycopg
from ..postgres.identifiers import object_name, quote_ident
from ..postgres.lsn import format_lsn, parse_lsn
from ..postgres.session import connect
from ..snapshot.basecopy import Snapshot
from ..snapshot.target import own_database, prepare_target, read_facts
from ..source.plugin import PluginChoice, choose_plugin
from ..source.publication import drop_publication, ensure_publication, streamed_tables
from ..source.slot import create_slot, drop_slot, slot_exists
from ..spec import MigrationSpec

COPIED = "base copy"
"""Ledger step: schema, rows, indexes and constraints of the database are on the target."""


class HeldSnapshot:
    """A snapshot exported by an ordinary session, for an offline migration.

    ``consistent_point`` is the WAL position at that moment: only a number that tells one such snapshot from another.
    """

    def __init__(self, spec: MigrationSpec, database: str) -> None:
        self._conn = connect(spec.source, database, purpose="snapshot")
        self._conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        where = "pg_current_wal_lsn()" if self._conn.info.server_version >= 100000 else "pg_current_xlog_location()"
        replica = self._conn.execute("SELECT pg_is_in_recovery()").fetchone()
        if replica and replica[0]:
            where = where.replace("current_wal", "last_wal_replay").replace("current_xlog", "last_xlog_replay")
        row = self._conn.execute(f"SELECT pg_export_snapshot(), {where}::text").fetchone()
        if row is None:
            raise MigrationError(f"{spec.source.label(database)} exported no snapshot.")
        self.snapshot: str = row[0]
        self.consistent_point: int = parse_lsn(row[1])

    def close(self) -> None:
        """End the transaction that holds the snapshot."""
        self._conn.close()


@dataclasses.dataclass
class Prepared:
    """A database that is ready: ``snapshot`` is None where nothing is left to copy, ``choice`` None in an offline migration,
    ``finished`` where its migration is over and only the removal of what is ours may be left."""

    slot: str
    choice: PluginChoice | None
    snapshot: Snapshot | None
    finished: bool = False


MEMORY = "worker.json"
"""What a worker remembers of its database: slot, plugin choice, consistent point, whether it is finished."""


def check_ground(spec: MigrationSpec) -> None:
    """Reach both servers and look for what must and must not be there, before anything is made on either.

    :raises ConnectionFailed: a server or a source database cannot be reached. :raises Conflict: a database on the target is not ours.
    """
    with connect(spec.target, purpose="prepare") as target:
        for database in spec.databases:
            connect(spec.source, database, purpose="prepare").close()
            if read_facts(target, database):
                own_database(spec, database)


def prepare(spec: MigrationSpec, database: str, work: Path) -> Prepared:
    """Make or find again what ``database`` needs; ``work`` is its folder on the runtime host.

    :raises MigrationError: saying which part failed; a first attempt leaves nothing behind on either side.
    """
    work.mkdir(parents=True, exist_ok=True)
    memory = read_json(work / MEMORY)
    if memory is None:
        return _first_time(spec, database, work)
    if memory.get("finished"):
        return Prepared(memory["slot"], None, None, finished=True)
    return _again(spec, database, memory)


def remember_finished(work: Path) -> None:
    """From here on a worker of this database only removes what is ours."""
    write_json(work / MEMORY, {**read_json(work / MEMORY), "finished": True})


def _first_time(spec: MigrationSpec, database: str, work: Path) -> Prepared:
    name = object_name(spec.key, database)
    with contextlib.ExitStack() as undo:
        choice: PluginChoice | None = None
        snapshot: Snapshot
        if spec.online:
            choice = choose_plugin(spec.source, database, spec.changes.plugin)
            _undo_source(spec, database, name)  # of an attempt that was killed before it could remember its slot
            undo.callback(_undo_source, spec, database, name)
            with connect(spec.source, database, purpose="prepare") as conn:
                Baseline(work / FILE).take(conn, again=True)
            _publish(spec, database, name, choice)
            snapshot = create_slot(spec.source, database, name, choice.plugin, failover=spec.changes.failover_slot)
        else:
            snapshot = HeldSnapshot(spec, database)
        undo.callback(snapshot.close)
        prepare_target(spec, database)
        undo.callback(_undo_target, spec, database)
        with connect(spec.target, database, purpose="prepare") as conn:
            Ledger(conn).create(spec.key)
        _bring_settings(spec, database)
        plugin = dataclasses.asdict(choice) if choice else None
        write_json(work / MEMORY, {"slot": name, "choice": plugin, "consistent_point": format_lsn(snapshot.consistent_point)})
        undo.pop_all()
    return Prepared(name, choice, snapshot)


def _again(spec: MigrationSpec, database: str, memory: dict[str, t.Any]) -> Prepared:
    choice = PluginChoice(**memory["choice"]) if memory["choice"] else None
    if choice:
        _require_slot(spec, database, memory["slot"])
    prepare_target(spec, database)
    with connect(spec.target, database, purpose="prepare") as conn:
        ledger = Ledger(conn)
        ledger.create(spec.key)
        if ledger.step_done(COPIED):
            return Prepared(memory["slot"], choice, None)
    _bring_settings(spec, database)
    if choice is None:
        return Prepared(memory["slot"], None, HeldSnapshot(spec, database))
    return Prepared(memory["slot"], choice, renew_snapshot(spec, database, choice))


def _bring_settings(spec: MigrationSpec, database: str) -> None:
    """Settings, comment and privileges of the database itself; never later than the copy, because a cutover's fence takes
    privileges away on the source."""
    if spec.globals.enabled:
        apply_globals(plan_database(spec.source, spec.target, database, fresh=True))


def renew_snapshot(spec: MigrationSpec, database: str, choice: PluginChoice) -> Snapshot:
    """Another snapshot with the LSN that belongs to it, by a slot that goes with its connection; the stream's own slot stays."""
    name = f"{object_name(spec.key, database)[:50]}_{secrets.token_hex(4)}"
    return create_slot(spec.source, database, name, choice.plugin, temporary=True)


def _require_slot(spec: MigrationSpec, database: str, name: str) -> None:
    with connect(spec.source, database, purpose="prepare") as conn:
        if not slot_exists(conn, name):
            raise StreamError(
                f"The replication slot {name} is gone from {spec.source.label(database)}: the changes since are lost.",
                code="PGM4010",
                hint="Cancel this migration (playbook pgops.migration.cancel), drop the target database and start a new one.",
                server=spec.source.label(database),
            )


def _publish(spec: MigrationSpec, database: str, name: str, choice: PluginChoice) -> None:
    if choice.plugin != "pgoutput":
        return
    with connect(spec.source, database, purpose="prepare") as conn:
        ensure_publication(conn, name, streamed_tables(conn))


def _undo_source(spec: MigrationSpec, database: str, name: str) -> None:
    with contextlib.suppress(MigrationError, psycopg.Error), connect(spec.source, database, purpose="undo") as conn:
        drop_slot(conn, name)
        drop_publication(conn, name)


def _undo_target(spec: MigrationSpec, database: str) -> None:
    with contextlib.suppress(MigrationError, psycopg.Error), connect(spec.target, purpose="undo") as conn:
        conn.execute(f"DROP DATABASE IF EXISTS {quote_ident(database)}")
