# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The way back (``rollback: prepared``): from the cutover on, what is written to the target is streamed to the source, and can be cut over
to it again without a loss.

It is a migration like any other, with the ends exchanged and nothing to copy: its slot is made on the target while nobody writes, at the
point where both sides are equal, so its stream begins with the first change that the source lacks. It begins when the stream forward has
ended, so nothing can go round in circles. Nothing on its own target, the source, was made by us: no path that drops a database or a table
may ever be taken there.
"""

from __future__ import annotations

import dataclasses
import shutil
import typing as t

from ..changes.ddl import FILE, Baseline
from ..changes.quiet import restore, validate_restored
from ..cutover.precheck import Check
from ..cutover.watchdog import FenceJournal
from ..errors import CutoverAborted, MigrationError
from ..globals.plan import revoke_admin_memberships
from ..migration.back import back_spec
from ..migration.catalogue import Catalogue, target_of
from ..migration.ledger import NOT_OURS, Ledger
from ..migration.paths import MigrationPaths, read_json, write_json
from ..migration.states import ACTIVE, State
from ..postgres.drivers import psycopg
from ..postgres.identifiers import object_name
from ..postgres.selection import Selection
from ..postgres.session import connect, server_errors
from ..snapshot.target import PRE_DATA
from ..source.cleanup import find_ours, remove_ours
from ..source.plugin import PluginChoice, choose_plugin, publish
from ..source.publication import drop_publication
from ..source.slot import drop_slot
from ..spec import CutoverOptions, MigrationSpec
from ..validate.runner import validate
from ..validate.wayback import DATABASE, INSTANCE, WRITES
from .cleanup import ledgers
from .prepare import COPIED, MEMORY


class WayBack:
    """The part of one database: made in the cutover, before the writers are let in, and taken back where that is given back."""

    def __init__(self, paths: MigrationPaths, spec: MigrationSpec, database: str) -> None:
        self._spec, self._back, self._database = spec, back_spec(spec), database
        self._paths = MigrationPaths(paths.home, self._back.key)
        self._name = object_name(self._back.key, database)
        self._choice: PluginChoice | None = None

    def check(self) -> Check:
        """Can it be made? For the pre-checks of a cutover; nothing is changed."""
        try:
            there = validate(self._back.for_databases([self._database]), only=(*INSTANCE, *DATABASE))
            here = validate(self._spec.for_databases([self._database]), only=(WRITES,))
            found = [*there.findings, *here.findings]
            failed = [(finding.message, finding.fix) for finding in found if finding.severity == "Failed"]
            failed += [(f"the migration {name} to the source is active", f"Finish or cancel {name} first.") for name in self._others()]
            plugin = self._choose().plugin
        except MigrationError as exc:
            failed, plugin = [(exc.message, exc.hint)], ""
        for message, hint in failed:
            return Check("way back", "Failed", f"{self._database}: {message}", f"{hint} Or leave out rollback: prepared.".strip())
        return Check("way back", "Succeeded", f"{self._database}: possible with {plugin}")

    def _others(self) -> list[str]:
        """Migrations to the source that are active: beside one of them the way back could not begin."""
        target, records = target_of(self._back.target), Catalogue(self._paths.catalogue).list()
        active = [one for one in records if one["target"] == target and State(one["state"]) in ACTIVE]
        return [one["name"] for one in active if one["key"] != self._back.key]

    def _choose(self) -> PluginChoice:
        if self._choice is None:
            self._choice = choose_plugin(self._back.source, self._database, self._back.changes.plugin)
        return self._choice

    def make(self, seconds: float) -> None:
        """Slot and publication on the target, the ledger on the source, the worker's memory here.

        :raises CutoverAborted: PGM5201 if the slot cannot be had within ``seconds``.
        """
        self.remove()  # of an attempt that was killed
        choice = self._choose()
        self._paths.make()
        work = self._paths.work(self._database)
        work.mkdir(parents=True, exist_ok=True)
        end, doing = self._back.source, "publish the tables for the way back"
        with connect(end, self._database, purpose="way back") as conn:
            Baseline(work / FILE).take(conn, again=True)
            with server_errors(doing, end, self._database, kind=CutoverAborted, code="PGM5201"):
                choice = publish(conn, choice, self._name, Selection.of(self._spec.copy))
            point = self._make_slot(conn, choice.plugin, seconds)
        with (
            connect(self._back.target, self._database, purpose="way back") as conn,
            server_errors("keep the position of the way back", self._back.target, self._database, kind=CutoverAborted, code="PGM5201"),
        ):
            ledger = Ledger(conn)
            ledger.create(self._back.key)
            for step in (NOT_OURS, PRE_DATA, COPIED):
                ledger.mark_step(step)
        write_json(work / MEMORY, {"slot": self._name, "choice": dataclasses.asdict(choice), "consistent_point": point})

    def _make_slot(self, conn: psycopg.Connection[t.Any], plugin: str, seconds: float) -> str:
        """Its consistent point. It waits for every transaction of the target's server that writes."""
        conn.execute(f"SET statement_timeout = '{max(1, int(seconds * 1000))}ms'")
        hint = "A transaction that writes in any database of the target must end first: see pg_stat_activity.backend_xid there."
        end, doing = self._back.source, f"make the slot {self._name} for the way back"
        with server_errors(doing, end, self._database, kind=CutoverAborted, code="PGM5201", hint=hint):
            row = conn.execute("SELECT lsn::text FROM pg_create_logical_replication_slot(%s, %s)", [self._name, plugin]).fetchone()
        return str(row[0]) if row else "0/0"

    def remove(self) -> None:
        """Take it back, as far as it was made."""
        (self._paths.work(self._database) / MEMORY).unlink(missing_ok=True)
        with connect(self._back.source, self._database, purpose="way back") as conn:
            drop_slot(conn, self._name)
            drop_publication(conn, self._name)
        _drop_ledger(self._back, self._database)
        shutil.rmtree(self._paths.work(self._database), ignore_errors=True)

    @property
    def begun(self) -> bool:
        """Was it made, or begun to be made, and not taken back?"""
        return self._paths.work(self._database).exists()


def remove_unreleased(paths: MigrationPaths, spec: MigrationSpec) -> None:
    """Take back what cutovers have made that were killed before their release: our schema would make the migration's login one that owns
    something on the source.

    :raises MigrationError: a server does not answer.
    """
    released = FenceJournal(paths.fence).released()
    for database in spec.databases if spec.rollback == "prepared" else ():
        way_back = WayBack(paths, spec, database)
        if database not in released and way_back.begun:
            way_back.remove()


def _drop_ledger(back: MigrationSpec, database: str) -> list[str]:
    """Remove the ledger on the source, and let fire again there what rested; what could not be restored, for people."""
    end, doing = back.target, "drop the ledger of the way back"
    with connect(end, database, purpose="way back") as conn, server_errors(doing, end, database):
        ledger = Ledger(conn)
        if ledger.owner() != back.key:
            return []
        restore(conn)
        told = validate_restored(conn)
        ledger.drop()
        return told


def prepared(home: MigrationPaths, back: MigrationSpec) -> bool:
    """Has the cutover left a way back for every database?"""
    paths = MigrationPaths(home.home, back.key)
    return all((read_json(paths.work(database) / MEMORY) or {}).get("slot") for database in back.databases)


def left(back: MigrationSpec) -> bool:
    """Is anything of the way back on either server? Found by name: no state of ours is needed. Reads only."""
    return bool(find_ours(back.source, key=back.key)) or any(ledgers(back.target, back.key))


def give_up(paths: MigrationPaths, back: MigrationSpec) -> tuple[list[str], list[str]]:
    """End the way back: what is ours goes from both servers, found by name, whatever this host remembers; the source stays closed, the
    target is the only one.

    :return: what was removed, and what could not be restored on the source, for people.
    """
    removed = [f"{item.kind} {item.name} in {item.database}" for item in remove_ours(back.source, key=back.key)]
    notes: list[str] = []
    for database, *dummy in list(ledgers(back.target, back.key)):
        notes += _drop_ledger(back, database)
        removed.append(f"ledger in {database}")
    shutil.rmtree(MigrationPaths(paths.home, back.key).folder / "work", ignore_errors=True)
    revoke_admin_memberships(back.source)
    return removed, notes


def reopen_source(paths: MigrationPaths, back: MigrationSpec) -> str:
    """The rollback's release: lift the fence that the cutover left on the source; safe to repeat.

    :raises MigrationError: it stays closed; the service tries again when it is started again.
    """
    FenceJournal(MigrationPaths(paths.home, back.back_of).fence).give_back(back.target)
    return "the source is open"


def wants(options: CutoverOptions, spec: MigrationSpec) -> bool:
    """Is a cutover of ``spec`` with ``options`` to leave a way back?"""
    return spec.rollback == "prepared" and options.proven
