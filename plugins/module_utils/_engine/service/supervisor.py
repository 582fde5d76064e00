# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The service of one migration: takes it from state to state, runs its children, listens on the control socket.

It may be killed at any moment; started again, it goes on from the record, the workers' memory and the targets' ledgers.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
import typing as t

from ..aftercare.look import look_after
from ..cutover.watchdog import RETRY_SECONDS, FenceJournal
from ..errors import EngineMismatch, MigrationError
from ..globals.parameters import apply_parameters, plan_parameters
from ..globals.plan import alone, apply_globals, plan_globals, revoke_admin_memberships
from ..migration.catalogue import Catalogue, now
from ..migration.clock import mark
from ..migration.paths import MigrationPaths, write_json
from ..migration.states import State, Substate
from ..postgres.session import connect
from ..spec import COPIES_AT_ONCE, MigrationSpec
from ..validate.runner import validate
from .children import PASSING
from .control import serve_control
from .database import Database, first_error, refusal
from .handover import Successor, begin_way_back
from .limits import TimeLimits
from .observer import Observer
from .prerequisites import LATE, Prerequisites
from .switch import Switch, why_not
from .wayback import remove_unreleased

STATUS_SECONDS = 0.5

PATIENCE_SECONDS = 1800.0
"""How long servers are waited for that start together with the runtime host."""


class Supervisor:
    """Runs the migration ``spec`` until it ends, waits for nobody any more, or is told to stop.

    :param patient: nobody has just asked for it, the host or the process was started again: servers that do not answer yet are waited for.
    :ivar successor: the way back that begins with the end of this one.
    """

    def __init__(self, paths: MigrationPaths, spec: MigrationSpec, engine: str, *, patient: bool = False) -> None:
        self._paths = paths
        self._patient = patient
        self._spec = spec
        self._engine = engine
        self._catalogue = Catalogue(paths.catalogue)
        notes = ((self._catalogue.get(paths.key) or {}).get("facts") or {}).get("notes") or {}
        self._databases = {
            name: Database(paths, name, self._note, self._touch, self._keep_notes, notes.get(name) or ()) for name in spec.databases
        }
        self._waiting: list[str] = []
        self._switch = Switch(paths, spec, self._databases, self._move, self._touch)
        self._observer = Observer(paths)
        self._limits = TimeLimits(self._catalogue, paths.key, spec.limits)
        self.successor: Successor | None = None
        self._changed = asyncio.Event()
        self._stop = asyncio.Event()
        self._presence = contextlib.ExitStack()  # a session that tells other runtime hosts that we need what the login was granted

    # -- life

    async def run(self) -> None:
        """The whole life of the service."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._halt)
        control = await serve_control(self._paths.control, self._handle)
        ticker = loop.create_task(self._tick())
        try:
            await self._migrate()
        except MigrationError as exc:
            self._fail(exc)
        except _Halted:
            self._catalogue.event(self._paths.key, "warning", "The service was stopped; run the playbook migrate to go on.")
        finally:
            await self._stop_children()
            self._presence.close()
            ticker.cancel()
            control.close()
            self._write_status()
            self._observer.beat(force=True)
            if self._stop.is_set():  # whoever ends the way back has found this process as its service
                self.successor = None

    def _halt(self) -> None:
        self._stop.set()
        self._changed.set()

    async def _migrate(self) -> None:
        key = self._paths.key
        self._move(State.IN_PROGRESS, Substate.PERFORMING_PREREQUISITE_STEPS)
        self._switch.recall()
        record = self._catalogue.get(key) or {}
        validated = self._spec.option == "migrate" or bool(record["facts"].get("validated"))
        if validated:
            await self._open_source()
        await self._prerequisites(validated)
        if not validated:
            await self._validate()
            if self._spec.option == "validate":
                self._move(State.SUCCEEDED, Substate.COMPLETED)
                return
        self._move(State.IN_PROGRESS, Substate.MIGRATING_DATA)
        self._limits.begin()
        if self._spec.globals.enabled:
            await self._migrate_globals()
        await self._follow()
        await self._complete()

    async def _open_source(self) -> None:
        """Lift a fence that was not released and that nobody is behind any more, whatever its deadline says: the clock that it is told by
        begins anew with the host. Writers wait for this alone, so it is tried for as long as it takes, and comes before all else.

        :raises _Halted: if the service is to stop.
        """
        journal, told = FenceJournal(self._paths.fence), ""
        while True:
            try:
                await asyncio.to_thread(journal.lift, self._spec.source)
                return
            except MigrationError as exc:
                if exc.message != told:
                    told = exc.message
                    self._note("error", f"The source is still fenced by a cutover that was broken off: {told} It is tried again.")
                await self._pause(RETRY_SECONDS)

    async def _prerequisites(self, validated: bool) -> None:
        """The infrastructure step, which ends with an item of its own (R78); with patience where nobody is there who could play again.

        :raises MigrationError: there is something wrong that does not pass. :raises _Halted: if the service is to stop.
        """
        step = Prerequisites(self._spec.for_databases(self._switch.left), validated=validated, first=not self._limits.begun)
        limit, told = time.monotonic() + (PATIENCE_SECONDS if self._patient else 0.0), ""
        while True:
            try:
                seconds = await step.run(self._stop)
                break
            except MigrationError as exc:
                passes = exc.code == LATE or exc.details.get("reason") in PASSING
                if not passes or time.monotonic() >= limit:
                    raise
                if exc.message != told:
                    told = exc.message
                    self._note("warning", f"{told} It is tried again.")
                await self._pause(RETRY_SECONDS)
        if seconds is None:
            raise _Halted
        budget = self._spec.limits.max_prerequisites
        self._catalogue.remember(self._paths.key, prerequisites={"seconds": seconds, "limit_seconds": budget or None, "ended": now()})
        self._note("info", f"Prerequisites done in {seconds:.1f} s" + (f" of at most {budget:g} s" if budget else ""))

    async def _pause(self, seconds: float) -> None:
        """Wait.

        :raises _Halted: if the service is to stop.
        """
        with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)
            self._changed.clear()
        if self._stop.is_set():
            raise _Halted

    async def _validate(self) -> None:
        self._move(State.IN_PROGRESS, Substate.VALIDATION_IN_PROGRESS)
        report = await asyncio.to_thread(validate, self._spec, home=self._paths.home, stop=self._stop.is_set)
        if self._stop.is_set():
            raise _Halted
        await asyncio.to_thread(report.write_html, self._paths.folder / "validation.html")
        self._catalogue.remember(self._paths.key, validation=report.to_dict(), validated=report.status != "Failed")
        if report.status == "Failed":
            failed = [finding for finding in report.findings if finding.severity == "Failed"]
            first = failed[0]
            raise _ValidationFailed(
                f"Validation failed: {len(failed)} finding(s); the first: {first.code} {first.message}",
                code=first.code,
                hint=first.fix or "See the validation report, mend what it names, then run this playbook again.",
            )

    async def _migrate_globals(self) -> None:
        def work() -> tuple[list[str], list[str]]:
            options = self._spec.globals
            with alone(self._spec.target):
                self._presence.enter_context(connect(self._spec.target, purpose="service"))
                if self._switch.begun:  # the target serves: what was changed there since is nobody's to take back
                    return [], []
                remove_unreleased(self._paths, self._spec)
                plan = plan_globals(
                    self._spec.source,
                    self._spec.target,
                    databases=self._spec.databases,
                    superuser_policy=options.superuser_policy,
                    exclude=options.exclude,
                    verifiers=options.passwords,
                    tablespaces=options.tablespaces,
                )
                done = apply_globals(plan)
                parameters = plan_parameters(self._spec.source, self._spec.target, apply=options.apply_parameters)
                done += apply_parameters(parameters)
                return done, [str(skipped) for skipped in (*plan.skipped, *parameters.skipped)]

        done, skipped = await asyncio.to_thread(work)
        if self._switch.begun:
            return
        self._catalogue.remember(self._paths.key, globals={"applied": done, "left_out": skipped})
        self._catalogue.event(self._paths.key, "info", f"Globals: {len(done)} statements applied, {len(skipped)} left out")

    async def _follow(self) -> None:
        """Start the databases, few at a time, stream, and switch over what is asked for, until none is left; offline, until all have
        copied.

        :raises MigrationError: if none of them can go on.
        """
        self._waiting = self._switch.left
        while True:
            self._switch.settle()
            if not self._switch.left:
                return
            self._switch.take_up()
            self._judge()
            if not self._under_way() and not self._spec.online:
                return
            await self._change(self._time_left())

    def _time_left(self) -> float | None:
        """Seconds until a limit of the migration's time is reached; None without one. A cutover that is under way is not disturbed.

        :raises ServiceError: one is reached.
        """
        if self._switch.busy:
            return None
        return self._limits.check([name for name in self._switch.left if not self._databases[name].arrived])

    def _under_way(self) -> bool:
        """Start what may be started; is any database still on its way to the stream?"""
        busy = sum(database.busy for database in self._databases.values())
        while self._waiting and busy < COPIES_AT_ONCE:
            self._databases[self._waiting.pop(0)].start()
            busy += 1
        return busy > 0

    def _judge(self) -> None:
        """Have the state follow what the databases say: an error of one is told and is in the way of its cutover, no more.

        :raises MigrationError: if no database can go on.
        """
        if self._switch.busy:
            return
        left = [self._databases[name] for name in self._switch.left]
        if all(database.error is not None and database.over for database in left):
            raise refusal(left)
        error = first_error(left)
        if self._waiting or not all(database.arrived or database.error for database in left):
            self._settle(State.IN_PROGRESS, Substate.MIGRATING_DATA, error)
        elif error is not None and self._spec.online:
            self._settle(State.WAITING_FOR_USER_ACTION, Substate.MIGRATING_DATA, error)
        elif self._spec.online:
            self._settle(State.WAITING_FOR_USER_ACTION, Substate.WAITING_FOR_CUTOVER_TRIGGER, None)

    def _settle(self, state: State, substate: Substate, error: MigrationError | None) -> None:
        """Go there unless that is where it stands."""
        record = self._catalogue.get(self._paths.key) or {}
        told = (record["state"], record["substate"], (record["error"] or {}).get("message"))
        if told != (state.value, substate.value, error.message if error else None):
            self._move(state, substate, error)

    def _touch(self) -> None:
        self._changed.set()

    def _note(self, level: str, text: str) -> None:
        self._catalogue.event(self._paths.key, level, text)

    def _keep_notes(self) -> None:
        self._catalogue.remember(self._paths.key, notes={name: one.notes for name, one in self._databases.items() if one.notes})

    async def _change(self, seconds: float | None) -> None:
        """Wait until something happened, or for so many seconds.

        :raises _Halted: if the service is to stop.
        """
        with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)
        self._changed.clear()
        if self._stop.is_set() and not self._switch.busy:  # a cutover is ended first, this way or that
            raise _Halted

    async def _stop_children(self) -> None:
        await asyncio.gather(*(database.stop() for database in self._databases.values()))

    # -- the end

    async def _complete(self) -> None:
        """Nothing is left to be moved: take back what was lent for it, and look at what there is."""
        self._move(State.IN_PROGRESS, Substate.COMPLETING_MIGRATION)
        if not self._spec.online:
            self._refuse_errors()
            await self._switch.prove(self._switch.left, "" if self._spec.cutover.verify else why_not(self._spec.cutover))
        self._presence.close()  # what the databases' ends do on the target took its owner until now
        if self._spec.back_of:
            await asyncio.to_thread(revoke_admin_memberships, self._spec.source)
        elif self._spec.globals.enabled and self._spec.rollback == "none":  # a rollback needs them to fence the target
            await asyncio.to_thread(revoke_admin_memberships, self._spec.target)
        self.successor = await asyncio.to_thread(begin_way_back, self._paths, self._spec)
        self._switch.refuse_differences()
        self._catalogue.remember(self._paths.key, after=await asyncio.to_thread(look_after, self._spec))
        self._move(State.SUCCEEDED, Substate.COMPLETED)

    def _refuse_errors(self) -> None:
        """All databases of an offline migration end together.

        :raises MigrationError: of the first that is in error.
        """
        error = first_error(self._databases.values())
        if error is not None:
            raise error

    # -- record and status

    def _move(self, state: State, substate: Substate, error: MigrationError | None = None) -> None:
        self._catalogue.move(self._paths.key, state, substate, error.to_dict() if error else None)
        self._write_status()

    def _fail(self, error: MigrationError) -> None:
        record = self._catalogue.get(self._paths.key) or {}
        substate = Substate(record["substate"])
        state = State.VALIDATION_FAILED if isinstance(error, _ValidationFailed) else State.FAILED
        for database in self._databases.values():
            if database.progress.figures["phase"] != "finished" and database.error is None:
                database.progress.merge({"state": state.value, "message": error.message, "ended": now()})
        self._move(state, substate, error)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(STATUS_SECONDS)
            self._write_status()
            await asyncio.to_thread(self._observer.beat)

    def _write_status(self) -> None:
        live = {
            "progress": {name: database.progress.present() for name, database in self._databases.items()},
            "plugin": {name: database.plugin for name, database in self._databases.items() if database.plugin},
            "cutover_phase": self._switch.phase,
            "engine": self._engine,
            "written": now(),
            "mark": mark(),
        }
        write_json(self._paths.status, live, durable=False)

    # -- control socket

    async def _handle(self, command: dict[str, t.Any]) -> dict[str, t.Any]:
        name = command.get("command")
        if name == "ping":
            return {"engine": self._engine}
        if name == "stop":
            self._halt()
            return {}
        if name == "retry":
            return self._retry()
        if name == "cutover":
            return await self._switch.accept(command.get("options") or {})
        if name == "precheck":
            return await self._switch.precheck(command.get("options") or {})
        raise EngineMismatch(
            f"The service of {self._paths.key} does not know the command {name!r}: it runs another engine ({self._engine}) than who asks.",
            hint="Play provision_runtime, then pg_cdc_stream with state stopped and migrate: the service goes on with the present engine.",
        )

    def _retry(self) -> dict[str, t.Any]:
        """The causes of errors are said to be gone; the state knows of it when this returns."""
        retried = [database.name for database in self._databases.values() if database.retry()]
        if retried:
            self._judge()
            self._write_status()
        return {"retried": retried}


class _ValidationFailed(MigrationError):
    """Validation has a failed finding."""


class _Halted(Exception):
    """The service was told to stop; the migration stays as it is."""
