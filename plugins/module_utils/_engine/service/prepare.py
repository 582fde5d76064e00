# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What one database needs before its first row is copied: plugin, publication, slot with snapshot, database on the target.

The first time all of it is made, or, if any part fails, none of it stays. Later times find it again, the snapshot too (``holder.py``);
one that was lost all the same is replaced by a new one, under which only the unfinished tables are copied (law 8).
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import typing as t
from pathlib import Path

from ..changes.ddl import FILE, Baseline
from ..errors import ConnectionFailed, MigrationError, StreamError
from ..globals.plan import apply_globals, plan_database
from ..migration.ledger import Ledger
from ..migration.paths import read_json, write_json
from ..postgres.drivers import psycopg
from ..postgres.identifiers import object_name, quote_ident
from ..postgres.lsn import format_lsn
from ..postgres.selection import Selection
from ..postgres.session import connect
from ..snapshot.basecopy import Snapshot
from ..snapshot.budget import shortage
from ..snapshot.present import accept_present, leave_present, require_present
from ..snapshot.tablespaces import require_tablespaces
from ..snapshot.target import own_database, prepare_target, read_facts
from ..source.blockers import when_unlocked
from ..source.plugin import PluginChoice, choose_plugin, publish
from ..source.publication import drop_publication
from ..source.slot import drop_slot, slot_exists
from ..spec import Endpoint, MigrationSpec
from .holder import Order, SnapshotDesk
from .identities import bring_identities, give_back_identities

COPIED = "base copy"
"""Ledger step: schema, rows, indexes and constraints of the database are on the target."""

Waiting = t.Callable[[str], None]


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


def check_ground(spec: MigrationSpec, asking: t.Callable[[Endpoint], None] = lambda endpoint: None, *, first: bool = False) -> None:
    """Reach both servers and look for what must and must not be there, before anything is made on either.

    :param asking: is told which server is asked next.
    :param first: nothing of it has been begun, so that there must be sessions for all of it.
    :raises ConnectionFailed: a server or a source database cannot be reached, or has too few sessions for us.
    :raises Conflict: a database on the target is not ours.
    """
    for endpoint in (spec.source, spec.target) if first else ():
        asking(endpoint)
        with connect(endpoint, purpose="prepare") as conn:
            _require_sessions(spec, endpoint, conn)
    asking(spec.target)
    with connect(spec.target, purpose="prepare") as target:
        require_tablespaces(target, spec)
        for database in spec.databases:
            asking(spec.source)
            connect(spec.source, database, purpose="prepare").close()
            asking(spec.target)
            if spec.copy.present:
                require_present(target, spec, database)
            elif read_facts(target, database) and not spec.copy.overwrite:
                own_database(spec, database)


def _require_sessions(spec: MigrationSpec, endpoint: Endpoint, conn: psycopg.Connection[t.Any]) -> None:
    text = shortage(spec, endpoint, conn)
    if text:
        raise ConnectionFailed(
            f"There are too few sessions: {text}.",
            code="PGM1104",
            hint="Raise that limit, end sessions that nobody needs, or migrate fewer databases at once.",
            server=endpoint.label(),
            details={"reason": "too_many", "side": endpoint.side},
        )


def prepare(spec: MigrationSpec, database: str, work: Path, desk: SnapshotDesk, waiting: Waiting) -> Prepared:
    """Make or find again what ``database`` needs; ``work`` is its folder on the runtime host, ``desk`` knows who holds its snapshot.

    :param waiting: as :meth:`.holder.SnapshotDesk.export` has it.
    :raises MigrationError: saying which part failed; a first attempt leaves nothing behind on either side.
    """
    work.mkdir(parents=True, exist_ok=True)
    memory = read_json(work / MEMORY)
    if memory is None and spec.back_of:
        raise StreamError(
            f"The way back of {database} is lost: nothing is known of its slot in {work}.",
            code="PGM5203",
            hint="Give it up with the playbook pgops.migration.finish; the target is whole.",
        )
    if memory is None:
        return _first_time(spec, database, work, desk, waiting)
    if memory.get("finished"):
        return Prepared(memory["slot"], None, None, finished=True)
    return _again(spec, database, memory, desk, waiting)


def remember_finished(work: Path) -> None:
    """From here on a worker of this database only removes what is ours."""
    write_json(work / MEMORY, {**read_json(work / MEMORY), "finished": True})


def _first_time(spec: MigrationSpec, database: str, work: Path, desk: SnapshotDesk, waiting: Waiting) -> Prepared:
    name = object_name(spec.key, database)
    with contextlib.ExitStack() as undo:
        choice: PluginChoice | None = None
        desk.end()
        if spec.online:
            choice = choose_plugin(spec.source, database, spec.changes.plugin)
            _undo_source(spec, database, name)  # of an attempt that was killed before it could remember its slot
            undo.callback(_undo_source, spec, database, name)
            undo.callback(give_back_identities, spec.source, spec.target, database, work)
            bring_identities(spec, database, work)  # before the fingerprint, which would take it for DDL
            choice = _publish(spec, database, choice, work, waiting)
            snapshot = desk.export(Order("slot", name, choice.plugin), waiting)
        else:
            snapshot = desk.export(Order("plain"))
        undo.callback(snapshot.close)
        _take_target(spec, database, first=True)
        undo.callback(_undo_target, spec, database)
        with connect(spec.target, database, purpose="prepare") as conn:
            Ledger(conn).create(spec.key)
        _bring_settings(spec, database)
        plugin = dataclasses.asdict(choice) if choice else None
        write_json(work / MEMORY, {"slot": name, "choice": plugin, "consistent_point": format_lsn(snapshot.consistent_point)})
        undo.pop_all()
    return Prepared(name, choice, snapshot)


def _publish(spec: MigrationSpec, database: str, choice: PluginChoice, work: Path, waiting: Waiting) -> PluginChoice:
    """Remember the definitions that the stream begins with, and have the tables published."""

    def begin() -> PluginChoice:
        Baseline(work / FILE).take(conn, again=True)
        return publish(conn, choice, object_name(spec.key, database), Selection.of(spec.copy))

    with connect(spec.source, database, purpose="prepare") as conn:
        return when_unlocked(conn, f"publish the tables of {spec.source.label(database)}", begin, waiting)


def _again(spec: MigrationSpec, database: str, memory: dict[str, t.Any], desk: SnapshotDesk, waiting: Waiting) -> Prepared:
    choice = PluginChoice(**memory["choice"]) if memory["choice"] else None
    if choice:
        _require_slot(spec, database, memory["slot"])
    _take_target(spec, database)
    with connect(spec.target, database, purpose="prepare") as conn:
        ledger = Ledger(conn)
        ledger.create(spec.key)
        if ledger.step_done(COPIED):
            desk.end()
            return Prepared(memory["slot"], choice, None)
    _bring_settings(spec, database)
    return Prepared(memory["slot"], choice, desk.take_up() or renew_snapshot(spec, database, choice, desk, waiting))


def _take_target(spec: MigrationSpec, database: str, *, first: bool = False) -> None:
    """The database on the target: made, found again, or accepted as it is."""
    if spec.copy.present:
        accept_present(spec, database)
    else:
        prepare_target(spec, database, overwrite=first and spec.copy.overwrite)


def _bring_settings(spec: MigrationSpec, database: str) -> None:
    """Settings, comment and privileges of the database itself; never later than the copy, because a cutover's fence takes
    privileges away on the source."""
    if spec.globals.enabled and not spec.copy.present:
        apply_globals(plan_database(spec.source, spec.target, database, fresh=True))


def renew_snapshot(spec: MigrationSpec, database: str, choice: PluginChoice | None, desk: SnapshotDesk, waiting: Waiting) -> Snapshot:
    """Another snapshot with the LSN that belongs to it; online by a slot that goes with its holder, for the stream's own slot stays."""
    if choice is None:
        return desk.export(Order("plain"))
    name = f"{object_name(spec.key, database)[:50]}_{secrets.token_hex(4)}"
    return desk.export(Order("temporary", name, choice.plugin), waiting)


def _require_slot(spec: MigrationSpec, database: str, name: str) -> None:
    with connect(spec.source, database, purpose="prepare") as conn:
        if not slot_exists(conn, name):
            raise StreamError(
                f"The replication slot {name} is gone from {spec.source.label(database)}: the changes since are lost.",
                code="PGM4010",
                hint="End this migration with the playbook pgops.migration.cleanup, drop the target database and start a new one.",
                server=spec.source.label(database),
            )


def _undo_source(spec: MigrationSpec, database: str, name: str) -> None:
    with contextlib.suppress(MigrationError, psycopg.Error), connect(spec.source, database, purpose="undo") as conn:
        drop_slot(conn, name)
        drop_publication(conn, name)


def _undo_target(spec: MigrationSpec, database: str) -> None:
    if spec.back_of:
        return
    if spec.copy.present:
        leave_present(spec, database)
        return
    with contextlib.suppress(MigrationError, psycopg.Error), connect(spec.target, purpose="undo") as conn:
        conn.execute(f"DROP DATABASE IF EXISTS {quote_ident(database)}")
