# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What modules can ask for on the runtime host: plan, start, look, cut over, cancel. Every reading works without the service."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sys
import typing as t
from pathlib import Path

from ..cutover.watchdog import FenceJournal
from ..errors import Conflict, ConnectionFailed, CutoverAborted, IllegalTransition, MigrationError, ServiceError, SpecificationError
from ..migration.back import back_spec, key_back
from ..migration.catalogue import Catalogue, target_of
from ..migration.paths import DEFAULT_HOME, MigrationPaths, own
from ..migration.states import ACTIVE, RESUMABLE, TERMINAL, State, Substate, cancel_hint
from ..monitor import files
from ..monitor.history import History
from ..postgres.catalog import is_selection
from ..postgres.session import connect
from ..snapshot.account import read_account
from ..spec import MAX_DATABASES, Endpoint, MigrationSpec, key_of
from ..validate.databases import resolve_databases
from . import launcher
from .cancel import clean_source, drop_databases, restore_databases
from .cleanup import Cleanup
from .control import ask_service
from .overview import Overview
from .sets import FACT, Sets, key_of_set, known_sets, newest
from .wayback import give_up, left


@dataclasses.dataclass(frozen=True)
class StartPlan:
    """What :meth:`Manager.start` would do: ``action`` is ``create``, ``resume`` or ``none``; before and after are for a diff. ``set`` says
    which part of a larger migration it is, see :mod:`.sets`."""

    action: str
    spec: MigrationSpec
    before: dict[str, t.Any]
    after: dict[str, t.Any]
    status: dict[str, t.Any] | None
    set: dict[str, t.Any] | None = None

    @property
    def more(self) -> bool:
        """Does another set of databases follow?"""
        return self.set is not None and self.set["number"] < self.set["of"]


class Manager:
    """The migrations of one runtime host.

    :param home: folder of all state.
    :param supervisor: ``systemd``, ``process`` or ``auto``.
    :param python: interpreter that runs the service where no unit says so.
    """

    def __init__(self, home: Path = DEFAULT_HOME, *, supervisor: str = "auto", python: str = sys.executable) -> None:
        self._home = Path(home)
        self._supervisor = launcher.choose_supervisor(supervisor)
        self._python = python
        self._catalogue = Catalogue(self._home / "catalogue.db")
        self._overview = Overview(self._home, self._catalogue, self._supervisor)

    # -- reading

    def plan(self, spec: MigrationSpec) -> StartPlan:
        """What starting ``spec`` would do; reads only. Of more than eight databases it is the set that is at work or comes next.

        :raises Conflict: the name has another specification, or another migration to this target is active.
        :raises SpecificationError: no such databases.
        """
        sets = None
        if self._catalogue.get(spec.key) is None:
            sets = known_sets(spec, self._catalogue.list())
            if sets is None:
                self._refuse_second(spec)
                whole = self._resolved(spec)
                sets = Sets(spec, whole.databases) if len(whole.databases) > MAX_DATABASES else None
                spec = whole
        if sets is None:
            return self._plan_one(spec)
        return dataclasses.replace(self._plan_one(sets.one(sets.due)), set=sets.fact(sets.due))

    def upcoming(self, spec: MigrationSpec) -> MigrationSpec:
        """The migration that starting ``spec`` concerns: itself, or the set of databases that is at work or comes next. A source that
        cannot be asked for its databases is no error here: what follows tells it."""
        if self._catalogue.get(spec.key) is not None:
            return spec
        sets = known_sets(spec, self._catalogue.list())
        if sets is None:
            with contextlib.suppress(ConnectionFailed, SpecificationError):
                whole = self._resolved(spec)
                sets = Sets(spec, whole.databases) if len(whole.databases) > MAX_DATABASES else None
        return sets.one(sets.due) if sets else spec

    def begun(self, spec: MigrationSpec) -> MigrationSpec:
        """The migration that ``spec`` means once it has begun: itself, or its newest set of databases."""
        sets = known_sets(spec, self._catalogue.list()) if self._catalogue.get(spec.key) is None else None
        return sets.one(sets.last) if sets else spec

    def _plan_one(self, spec: MigrationSpec) -> StartPlan:
        record = self._catalogue.get(spec.key)
        if record is None:
            self._refuse_second(spec)
            return StartPlan("create", spec, {}, spec.public(), None)
        known = MigrationSpec.from_dict(record["spec"])
        if is_selection(spec.databases):
            spec = dataclasses.replace(spec, databases=known.databases)
        self._refuse_other(spec, known)
        status = self._overview.of(record)
        state = State(record["state"])
        if state is State.CLEANING_UP:
            raise Conflict(
                f"The migration {spec.name} is being canceled; that was broken off.",
                hint="Play cancel again.",
                details={"state": state.value},
            )
        if state is State.CANCELED:
            raise Conflict(
                f"The migration {spec.name} was canceled; a canceled migration cannot go on.",
                hint="Drop the databases it made on the target and choose another name.",
                details={"state": state.value},
            )
        running = status["service"]["running"]
        held = running and state in ACTIVE and status["error"] is not None
        resume = held or state in RESUMABLE or (state in ACTIVE and not running)
        before: dict[str, t.Any] = {"state": state.value, "service": "running" if running else "stopped"}
        after: dict[str, t.Any] = {"state": State.IN_PROGRESS.value, "service": "running"} if resume else before
        if held:  # the service lives and has to be told that the cause is gone
            before["error"], after["error"] = status["error"]["message"], None
        return StartPlan("resume" if resume else "none", spec, before, after, status)

    def status(self, name: str, target: str | None = None) -> dict[str, t.Any] | None:
        """The migration called ``name`` (or with that key), the newest if several targets have one, its newest set where it runs in sets of
        databases; None if there is none."""
        records = self._catalogue.list()
        for record in records:
            if name in (record["name"], record["key"]) and target in (None, record["target"]):
                return self._overview.of(record)
        part = newest(records, name, target)
        return self._overview.of(dict(part)) if part else None

    def list(self, target: str | None = None) -> list[dict[str, t.Any]]:
        """All migrations (to ``target``), newest first (R42, R43, R74)."""
        return [self._overview.of(record) for record in self._catalogue.list() if target in (None, record["target"])]

    def history(self, key: str) -> History:
        """The samples of the migration's run."""
        return History(self._paths(key).history)

    def copied_tables(self, status: t.Mapping[str, t.Any]) -> dict[str, dict[str, t.Any]]:
        """What was copied of each table, by database, see :func:`..snapshot.account.read_account`; databases whose copy is complete."""
        paths = self._paths(status["key"])
        found = {database: read_account(paths.work(database)) for database in status["databases"]}
        return {database: account for database, account in found.items() if account}

    # -- acting

    def write_report(self, status: dict[str, t.Any], history: History | None = None) -> None:
        """Write page and Prometheus file of a migration.

        :raises OSError: if a file cannot be written.
        """
        paths = self._paths(status["key"])
        if paths.folder.exists():
            folder = (status["monitor"] or {}).get("prometheus_dir")
            files.write(paths, status, self.list(), history or History(paths.history), Path(folder) if folder else None)

    def start(self, spec: MigrationSpec) -> dict[str, t.Any]:
        """Carry out :meth:`plan`; returns within seconds, the work goes on in the service (R71)."""
        plan = self.plan(spec)
        paths = self._paths(plan.spec.key)
        if plan.action != "none":
            paths.make()
            if plan.action == "create":
                self._catalogue.create(plan.spec, {FACT: plan.set} if plan.set else {})
                own(paths.catalogue, self._home)
            paths.write_spec(plan.spec)
            self._catalogue.update_spec(plan.spec)
            if plan.action == "resume" and plan.before["service"] == "running":
                ask_service(paths.control, "retry")
            else:
                launcher.start(paths, self._supervisor, self._python)
        return self._known(plan.spec.key)

    def request_cutover(self, key: str, options: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Ask the service to cut over and return at once.

        :raises CutoverAborted: it is refused; nothing happened.
        """
        status = self._known(key)
        if status["mode"] != "online":
            raise CutoverAborted(f"Cutover refused: {status['name']} is an offline migration; it ends by itself.", code="PGM5003")
        if State(status["state"]) not in ACTIVE or State(status["state"]) is State.CLEANING_UP:
            raise CutoverAborted(f"Cutover refused: {status['name']} is {status['state']}.", code="PGM5001")
        try:
            ask_service(self._paths(key).control, "cutover", options=options or {})
        except ServiceError:
            raise
        except MigrationError as exc:
            raise CutoverAborted(exc.message, code=exc.code, hint=exc.hint, details=exc.details) from exc
        return self._known(key)

    def way_back(self, spec: MigrationSpec) -> MigrationSpec:
        """The migration from the target of ``spec`` to its source, of the databases that were migrated."""
        record = self._catalogue.get(spec.key)
        return back_spec(spec.for_databases(record["spec"]["databases"]) if record else spec)

    def start_way_back(self, spec: MigrationSpec) -> bool:
        """Start the service of the way back of ``spec`` again where it has ended before its time; True if it was started. Its first start
        is no matter of ours: the migration's own service becomes it (:mod:`.handover`).

        :raises ServiceError: PGM5202 if no way back was prepared.
        """
        back = self.way_back(spec)
        record = self._catalogue.get(back.key)
        if record is None:
            raise ServiceError(
                f"The cutover of {spec.name} has left no way back.",
                code="PGM5202",
                hint="It is made by a cutover with rollback: prepared, and is gone after finish. If this host has lost it, play finish.",
            )
        if State(record["state"]) in TERMINAL or self._plan_one(back).action == "none":
            return False
        self.start(back)
        return True

    def end_way_back(self, spec: MigrationSpec) -> dict[str, t.Any]:
        """Give the way back of ``spec`` up (the playbook finish), also one that has failed or that this host has forgotten: the target is
        the only server from now on, the source stays closed. What was removed as ``removed``, what could not be restored on the source as
        ``notes``; nothing if it is over already.

        :raises IllegalTransition: a rollback is under way.
        """
        back = self.way_back(spec)
        record = self._catalogue.get(back.key)
        launcher.rest(self._paths(spec.key), self._supervisor)
        if record is not None:
            if State(record["state"]) in TERMINAL:
                return {"removed": [], "notes": []}
            self._refuse_released(back.key)
            return dict(self._end(back.key)["canceled"])
        removed, notes = give_up(self._paths(back.key), back)
        return {"removed": removed, "notes": notes}

    def way_back_left(self, spec: MigrationSpec) -> bool:
        """Has a migration that this host does not know left a way back on the servers? Reads only."""
        return self._catalogue.get(spec.key) is None and spec.rollback == "prepared" and left(back_spec(spec))

    def precheck(self, key: str, options: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """What speaks for and against a cutover now, and the pause that it would cost; changes nothing. See ``Supervisor``.

        :raises CutoverAborted: the migration is not at that point.
        """
        return ask_service(self._paths(key).control, "precheck", options=options or {})

    def cancel(self, key: str, *, drop_target: bool = False) -> dict[str, t.Any]:
        """End the migration and take all that is ours from the source (R102 to R108); safe to repeat.

        :raises IllegalTransition: it has ended already (R103).
        """
        self._refuse_ended(key)
        self._refuse_released(key)
        return self._end(key, drop_target=drop_target)

    def _refuse_ended(self, key: str) -> None:
        """There is nothing to be canceled any more.

        :raises IllegalTransition: with what to do instead.
        """
        status = self._known(key)
        state = State(status["state"])
        if state in (State.SUCCEEDED, State.VALIDATION_FAILED, State.FAILED):
            raise IllegalTransition(f"{status['name']} is {state.value} and cannot be canceled.", hint=cancel_hint(state))

    def _refuse_released(self, key: str) -> None:
        """Behind the point of no return the only way is on: the writers are led to the target, or may be at any moment.

        :raises IllegalTransition: naming the databases whose cutover has been released and has not ended.
        """
        released, ended = self._served(key)
        if names := sorted(released - ended):
            raise IllegalTransition(
                f"{key} cannot be canceled: {', '.join(names)} has been switched over, and its target is the server from now on.",
                hint="Let the cutover come to its end; play migrate where the service does not run.",
            )

    def _served(self, key: str) -> tuple[set[str], set[str]]:
        """Databases of a migration whose cutover was released, and those of them of which nothing is left to do."""
        facts = (self._catalogue.get(key) or {}).get("facts") or {}
        released = {*FenceJournal(self._paths(key).fence).released(), *(facts.get("switched") or {})}
        return released, set(facts.get("ended") or {})

    def _end(self, key: str, *, drop_target: bool = False) -> dict[str, t.Any]:
        status = self._known(key)
        state = State(status["state"])
        paths = self._paths(key)
        if state is State.CANCELED and not paths.spec.exists():
            return status  # cleaned up since
        self._stop_for_good(key)
        substate = Substate(self._known(key)["substate"])  # it may have gone on until then
        if state is not State.CANCELED:
            self._catalogue.move(key, State.CLEANING_UP, substate)
        spec = paths.read_spec()
        removed = clean_source(paths, spec)
        dropped = drop_databases(spec) if drop_target else []
        kept = [database for database in spec.databases if database not in dropped and database not in self._served(key)[0]]
        notes = restore_databases(spec, kept)
        if spec.back_of:
            more = give_up(paths, spec)
            removed, notes = removed + more[0], notes + more[1]
        elif spec.rollback == "prepared":  # of a cutover that was killed; a target that is gone must not keep the source from being cleaned
            try:
                removed += self.end_way_back(spec)["removed"]
            except MigrationError as exc:
                notes.append(exc.message)
        self._catalogue.remember(key, canceled={"removed": removed, "dropped": dropped, "kept": kept, "notes": notes})
        if state is not State.CANCELED:
            self._catalogue.move(key, State.CANCELED, substate)
        status = self._known(key)
        with contextlib.suppress(OSError):  # nobody may be able to write the collector's folder any more; the source is clean
            self.write_report(status)
        return status

    def _stop_for_good(self, key: str) -> None:
        """End the service. A cutover that is under way comes to its end first, this way or that; one that was released goes on.

        :raises IllegalTransition: the cutover was faster.
        """
        before, paths = self._known(key)["state"], self._paths(key)
        launcher.stop(paths, self._supervisor)
        if self._known(key)["state"] not in (before, State.FAILED.value):
            self._refuse_ended(key)
        try:
            self._refuse_released(key)
        except IllegalTransition:
            launcher.start(paths, self._supervisor, self._python)
            raise

    def cleanup(
        self,
        source: Endpoint,
        target: Endpoint,
        *,
        name: str | None = None,
        force: bool = False,
        drop_target: bool = False,
        dry: bool = False,
    ) -> dict[str, t.Any]:
        """Remove everything that migrations between these servers ever made (B20), of the migration ``name`` alone where one is given. A
        failed migration that is cleaned up is over: it becomes Canceled.

        :param force: also what is in use by a migration that this host does not know.
        :param drop_target: also the databases on the target that a migration made and did not finish.
        :param dry: only look.
        :return: ``found``, ``removed`` and ``kept`` as lists of lines for people.
        """
        records = self._catalogue.list()
        key = (key_of_set(records, name, target) or key_of(name, target)) if name else None
        source, target = (dataclasses.replace(end, tag=key or "") for end in (source, target))
        keys = [key, key_back(key, source, target)] if key else [None]  # what is called by a name has a way back of its own name
        works = [
            Cleanup(self._home, records, source, target, key=one, force=force, databases=drop_target, memory=one == key) for one in keys
        ]
        found = [work.find() for work in works]
        removed = [] if dry else [item for work, findings in zip(works, found, strict=True) for item in work.remove(findings)]
        for record in () if dry else records:
            if record["state"] == State.FAILED.value and _between(record, source, target) and (key is None or record["key"] in keys):
                self._catalogue.move(record["key"], State.CLEANING_UP, Substate(record["substate"]))
                self._catalogue.move(record["key"], State.CANCELED, Substate(record["substate"]))
                launcher.rest(self._paths(record["key"]), self._supervisor)
        return {
            "found": [str(item) for findings in found for item in findings.ours],
            "removed": [str(item) for item in removed],
            "kept": [f"{item} ({why})" for findings in found for item, why in findings.kept.items()],
        }

    def stop(self, key: str) -> dict[str, t.Any]:
        """Stop the service; the migration goes on when it is started again. The slot keeps the source's WAL meanwhile."""
        launcher.stop(self._paths(key), self._supervisor)
        return self._known(key)

    def remember_verified(self, key: str, certificate: t.Mapping[str, t.Any]) -> None:
        """Keep what a verification on demand found, so that the status can say it."""
        if self._catalogue.get(key) is not None:
            self._catalogue.remember(key, verified={part: certificate[part] for part in ("equal", "complete", "time", "lsn", "rows")})

    def forget(self, key: str) -> None:
        """Remove the record and the folder of a migration, its secrets among them (R119). One that is active is canceled first; of one that
        has ended nothing else is touched.

        :raises IllegalTransition: it has failed and may have something on the source (R103), or its way back is there.
        """
        status = self._known(key)
        paths = self._paths(key)
        state = State(status["state"])
        if (status["way_back"] or {}).get("state") not in (None, *(ended.value for ended in TERMINAL)):
            raise IllegalTransition(
                f"The way back of {status['name']} is {status['way_back']['state']}; a rollback needs this record.",
                hint="Play finish to give it up, or rollback.",
            )
        if state in ACTIVE or (state is State.FAILED and paths.spec.exists()):
            self.cancel(key)
        launcher.stop(paths, self._supervisor)
        self._catalogue.delete(key)
        shutil.rmtree(paths.folder, ignore_errors=True)
        folder = (status["monitor"] or {}).get("prometheus_dir")
        if folder:
            files.prometheus_file(Path(folder), key).unlink(missing_ok=True)

    # -- helpers

    def _paths(self, key: str) -> MigrationPaths:
        return MigrationPaths(self._home, key)

    def _known(self, key: str) -> dict[str, t.Any]:
        record = self._catalogue.get(key)
        if record is None:
            raise ServiceError(f"This runtime host knows no migration {key}.", code="PGM8008", hint="Check the name and pg_migration_home.")
        return self._overview.of(record)

    def _refuse_second(self, spec: MigrationSpec) -> None:
        for record in self._catalogue.list():
            if record["target"] == target_of(spec.target) and State(record["state"]) in ACTIVE:
                raise Conflict(
                    f"The migration {record['name']} to this target is {record['state']}; only one can be active at a time.",
                    hint=f"Finish or cancel {record['name']} first.",
                    details={"active": record["name"]},
                )

    @staticmethod
    def _refuse_other(spec: MigrationSpec, known: MigrationSpec) -> None:
        if spec.digest() == known.digest():
            return
        old, new = known.identity(), spec.identity()
        differences = {k: {"recorded": old[k], "asked": new[k]} for k in old if old[k] != new[k]}
        raise Conflict(
            f"A migration named {spec.name} to this target exists with another specification; it differs in {', '.join(differences)}.",
            hint="Choose another name, or give the specification that it was created with.",
            details={"differences": differences},
        )

    @staticmethod
    def _resolved(spec: MigrationSpec) -> MigrationSpec:
        """``spec`` with every database by its name, however many."""
        if spec.databases and not is_selection(spec.databases):
            return spec.for_databases(tuple(dict.fromkeys(spec.databases)))
        with connect(spec.source, purpose="databases") as conn:
            return spec.for_databases(resolve_databases(spec, conn, limit=0))


def _between(record: t.Mapping[str, t.Any], source: Endpoint, target: Endpoint) -> bool:
    """Is it a migration to ``target``, or the way back from there to ``source``?"""
    if record["spec"].get("back_of"):
        origin = record["spec"]["source"]
        return bool(record["target"] == target_of(source)) and target_of(Endpoint.at(origin["host"], origin["port"])) == target_of(target)
    return bool(record["target"] == target_of(target))
