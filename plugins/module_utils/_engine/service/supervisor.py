# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The service of one migration: takes it from state to state, runs its children, listens on the control socket.

It may be killed at any moment; started again, it goes on from the record, the workers' memory and the targets' ledgers.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import signal
import time
import typing as t

from ..aftercare.look import look_after
from ..cutover.machine import Cutover
from ..cutover.precheck import judge, total
from ..cutover.watchdog import FenceJournal
from ..errors import CutoverAborted, MigrationError, VerificationFailed
from ..globals.plan import alone, apply_globals, plan_globals, revoke_admin_memberships
from ..migration.catalogue import Catalogue, now
from ..migration.paths import MigrationPaths, write_json
from ..migration.states import State, Substate
from ..postgres.session import connect
from ..spec import CutoverOptions, MigrationSpec, check_cutover, check_rollback
from ..validate.runner import validate
from .control import serve_control
from .database import Database, first_error, refusal
from .observer import Observer
from .prepare import check_ground
from .wayback import reopen_source, wants

COPIES_AT_ONCE = 2
"""Databases whose base copy runs at the same time."""

STATUS_SECONDS = 0.5


class Supervisor:
    """Runs the migration ``spec`` until it ends, waits for nobody any more, or is told to stop."""

    def __init__(self, paths: MigrationPaths, spec: MigrationSpec, engine: str) -> None:
        self._paths = paths
        self._spec = spec
        self._engine = engine
        self._catalogue = Catalogue(paths.catalogue)
        self._databases = {name: Database(paths, name, self._note, self._touch) for name in spec.databases}
        self._waiting: list[str] = []
        self._following = False  # nothing is left but to wait for the cutover
        self._cutting_over = False
        self._cutover: dict[str, t.Any] | None = None
        self._observer = Observer(paths)
        self._running: Cutover | None = None
        self._changed = asyncio.Event()
        self._stop = asyncio.Event()
        self._presence = contextlib.ExitStack()  # a session that tells other runtime hosts that we need what the login was granted
        self._requests: asyncio.Queue[dict[str, t.Any]] = asyncio.Queue()

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

    def _halt(self) -> None:
        self._stop.set()
        self._changed.set()

    async def _migrate(self) -> None:
        key = self._paths.key
        self._move(State.IN_PROGRESS, Substate.PERFORMING_PREREQUISITE_STEPS)
        record = self._catalogue.get(key) or {}
        if self._spec.option == "migrate" or record["facts"].get("validated"):
            await asyncio.to_thread(check_ground, self._spec)
            await asyncio.to_thread(FenceJournal(self._paths.fence).lift, self._spec.source)
        else:
            await self._validate()
            if self._spec.option == "validate":
                self._move(State.SUCCEEDED, Substate.COMPLETED)
                return
        if self._spec.globals.enabled:
            await self._migrate_globals()
        self._move(State.IN_PROGRESS, Substate.MIGRATING_DATA)
        await self._copy()
        if self._was_released(record["facts"]):
            self._move(State.IN_PROGRESS, Substate.COMPLETING_MIGRATION)
            await self._finish_released(record["facts"])
        elif self._spec.online:
            await self._wait_for_cutover()
        else:
            await self._finish_offline()

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
                plan = plan_globals(
                    self._spec.source,
                    self._spec.target,
                    databases=self._spec.databases,
                    superuser_policy=options.superuser_policy,
                    exclude=options.exclude,
                    verifiers=options.passwords,
                )
                return apply_globals(plan), [str(skipped) for skipped in plan.skipped]

        done, skipped = await asyncio.to_thread(work)
        self._catalogue.remember(self._paths.key, globals={"applied": done, "left_out": skipped})
        self._catalogue.event(self._paths.key, "info", f"Globals: {len(done)} statements applied, {len(skipped)} left out")

    async def _copy(self) -> None:
        """Start the databases, few at a time, and wait until all that can follow the stream (online) or have copied (offline).

        :raises MigrationError: if none of them can go on.
        """
        self._waiting = list(self._spec.databases)
        while True:
            self._judge()
            if not self._under_way():
                return
            await self._change()

    def _under_way(self) -> bool:
        """Start what may be started; is any database still on its way to the stream?"""
        busy = sum(database.busy for database in self._databases.values())
        while self._waiting and busy < COPIES_AT_ONCE:
            self._databases[self._waiting.pop(0)].start()
            busy += 1
        return busy > 0

    def _judge(self) -> None:
        """Have the state follow what the databases say: an error of one is told and is in the way of the cutover, no more.

        :raises MigrationError: if no database can go on.
        """
        if self._cutting_over:
            return
        all_of_them = self._databases.values()
        if all(database.error is not None and database.over for database in all_of_them):
            raise refusal(all_of_them)
        error = first_error(all_of_them)
        if self._waiting or not all(database.arrived or database.error for database in all_of_them):
            self._settle(State.IN_PROGRESS, Substate.MIGRATING_DATA, error)
        elif error is not None and self._spec.online:
            self._settle(State.WAITING_FOR_USER_ACTION, Substate.MIGRATING_DATA, error)
        elif self._following:
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

    async def _change(self) -> None:
        """Wait until something happened.

        :raises _Halted: if the service is to stop.
        """
        await self._changed.wait()
        self._changed.clear()
        if self._stop.is_set():
            raise _Halted

    async def _stop_children(self) -> None:
        await asyncio.gather(*(database.stop() for database in self._databases.values()))

    # -- cutover

    async def _wait_for_cutover(self) -> None:
        self._following = True
        while True:
            self._judge()
            request = asyncio.ensure_future(self._requests.get())
            change = asyncio.ensure_future(self._change())
            done, dummy = await asyncio.wait({request, change}, return_when=asyncio.FIRST_COMPLETED)
            if change in done:
                if request in done:  # both at once: the request was accepted and is not to be lost
                    self._requests.put_nowait(request.result())
                request.cancel()
                change.result()
                continue
            change.cancel()
            self._cutting_over = True
            if await self._cut_over(request.result()):
                return
            self._cutting_over = False

    async def _cut_over(self, request: dict[str, t.Any]) -> bool:
        told = request.pop("told")
        options = dataclasses.replace(self._spec.cutover, **request)
        self._move(State.IN_PROGRESS, Substate.COMPLETING_MIGRATION)
        cutover = self._running = self._new_cutover(options)
        cutover.result.expect(told)
        try:
            result = await cutover.run()
        except CutoverAborted as exc:
            self._cutover = {**cutover.result.to_dict(), "released_at": None, "given_back": exc.to_dict()}
            self._catalogue.remember(self._paths.key, cutover=self._cutover)
            self._catalogue.event(self._paths.key, "error", f"Cutover given back: {exc.message}")
            self._move(State.WAITING_FOR_USER_ACTION, Substate.WAITING_FOR_CUTOVER_TRIGGER)
            return False
        finally:
            self._running = None
        self._cutover = result.to_dict()
        self._catalogue.remember(self._paths.key, cutover=self._cutover)
        await self._prove(options.verify and options.proven)
        return True

    def _new_cutover(self, options: CutoverOptions) -> Cutover:
        reopen = functools.partial(reopen_source, self._paths, self._spec) if self._spec.back_of else None
        return Cutover(self._paths, self._spec, options, self._ask, open_target=reopen, way_back=wants(options, self._spec))

    def _was_released(self, facts: dict[str, t.Any]) -> bool:
        """Was this migration broken off after the point of no return? The journal says so before the record can."""
        return bool((facts.get("cutover") or {}).get("released_at")) or FenceJournal(self._paths.fence).state() == "released"

    async def _finish_released(self, facts: dict[str, t.Any]) -> None:
        """Let the writers in if that is not known to have happened, and end."""
        self._refuse_errors()
        if not (facts.get("cutover") or {}).get("released_at"):
            cutover = self._new_cutover(self._spec.cutover)
            self._cutover = (await cutover.finish_release()).to_dict()
            self._catalogue.remember(self._paths.key, cutover=self._cutover)
        await self._prove(False)

    async def _ask(self, database: str, command: str, **arguments: t.Any) -> dict[str, t.Any]:
        return await self._databases[database].ask(command, **arguments)

    async def _prove(self, verify: bool) -> None:
        """After the release: compare every row under the cutover's snapshots, remove what is ours, and end."""
        if verify:
            results = {database: await self._ask(database, "verify") for database in self._spec.databases}
            equal = all(result["equal"] for result in results.values())
            complete = all(result["complete"] for result in results.values())
            verification = {"equal": equal, "complete": complete, "time": now(), "databases": results}
            self._catalogue.remember(self._paths.key, verification=verification)
            certificate = {"migration": self._spec.public(), "cutover": self._cutover, "verification": verification}
            write_json(self._paths.folder / "certificate.json", certificate)
            if not complete:
                self._catalogue.event(self._paths.key, "warning", "Verification could not compare every table; see certificate.json")
        for database in self._databases.values():
            await database.receiver.stop()
        self._presence.close()
        if self._spec.back_of:
            await asyncio.to_thread(revoke_admin_memberships, self._spec.source)
        elif self._spec.globals.enabled and self._spec.rollback == "none":  # a rollback needs them to fence the target
            await asyncio.to_thread(revoke_admin_memberships, self._spec.target)
        for database in self._databases.values():
            await database.ask("finish")
            database.finished()
        self._refuse_differences()
        self._catalogue.remember(self._paths.key, after=await asyncio.to_thread(look_after, self._spec))
        self._move(State.SUCCEEDED, Substate.COMPLETED)

    def _refuse_differences(self) -> None:
        """A migration whose proof found differences has not succeeded, however complete it is.

        :raises VerificationFailed: naming the first tables that differ.
        """
        verification = (self._catalogue.get(self._paths.key) or {})["facts"].get("verification")
        if not verification or verification["equal"]:
            return
        names = [
            f"{database}: {table['label']}"
            for database, result in verification["databases"].items()
            for table in result["tables"]
            if table["compared"] and not table["equal"]
        ]
        raise VerificationFailed(
            f"Source and target differ as of the cutover: {', '.join(names[:5]) or 'sequences or large objects'}.",
            code="PGM6001",
            hint=f"Keys and values of both sides are in {self._paths.folder / 'certificate.json'}; the source is fenced and whole.",
            details={"tables": names},
        )

    def _refuse_errors(self) -> None:
        """All databases of a migration end together.

        :raises MigrationError: of the first that is in error.
        """
        error = first_error(self._databases.values())
        if error is not None:
            raise error

    async def _finish_offline(self) -> None:
        self._refuse_errors()
        self._move(State.IN_PROGRESS, Substate.COMPLETING_MIGRATION)
        await self._prove(self._spec.cutover.verify)

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
            "cutover_phase": self._running.phase if self._running else None,
            "engine": self._engine,
            "written": now(),
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
            return await self._accept_cutover(command.get("options") or {})
        if name == "precheck":
            return (await self._precheck(command.get("options") or {}))[1]
        raise MigrationError(f"The service does not know the command {name!r}.", code="PGM8003")

    def _retry(self) -> dict[str, t.Any]:
        """The causes of errors are said to be gone; the state knows of it when this returns."""
        retried = [database.name for database in self._databases.values() if database.retry()]
        if retried:
            self._judge()
            self._write_status()
        return {"retried": retried}

    async def _accept_cutover(self, options: dict[str, t.Any]) -> dict[str, t.Any]:
        request, told = await self._precheck(options)
        if told["refused"]:
            raise MigrationError.from_dict(told["refused"])
        self._require_waiting()
        self._requests.put_nowait({**request, "told": told})
        return {"accepted": now(), **told}

    async def _precheck(self, given: dict[str, t.Any]) -> tuple[dict[str, t.Any], dict[str, t.Any]]:
        """The options of a cutover, and what speaks for and against it now: ``checks``, ``forecast_seconds`` (of the pause), ``forecast``
        by database and phase, ``latency_seconds``, and ``refused``, the error that it would be refused with.

        :raises CutoverAborted: the migration is not at that point.
        """
        self._require_waiting()
        options: dict[str, t.Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
        wanted = dataclasses.replace(self._spec.cutover, **options)
        check_cutover(wanted)
        check_rollback(dataclasses.replace(self._spec, cutover=wanted))
        latencies = {name: database.progress.present().get("latency_seconds") for name, database in self._databases.items()}
        plain, began = dataclasses.asdict(wanted), time.monotonic()
        answers = await asyncio.gather(*(self._ask(name, "precheck", options=plain) for name in self._databases))
        known = [seconds for seconds in latencies.values() if seconds is not None]
        latency = max(known) if len(known) == len(latencies) else None
        checks = [check for answer in answers for check in answer["checks"]]
        forecast = total([answer["forecast"] for answer in answers], latency)
        refused = judge(wanted, checks, latencies, forecast)
        told = {
            "checks": checks,
            "forecast": {name: answer["forecast"] for name, answer in zip(self._databases, answers, strict=True)},
            "forecast_seconds": forecast,
            "latency_seconds": latency,
            "limit_seconds": wanted.max_pause,
            "seconds": round(time.monotonic() - began, 3),
            "refused": refused.to_dict() if refused else None,
        }
        return options, told

    def _require_waiting(self) -> None:
        record = self._catalogue.get(self._paths.key) or {}
        held = first_error(self._databases.values())
        if held is not None:
            raise CutoverAborted(
                f"Cutover refused: the database {held.details['database']} is in error: {held.message}",
                code="PGM5006",
                hint=held.hint or "Remove the cause and run the playbook migrate.",
                details=held.details,
            )
        if (record["state"], record["substate"]) != (State.WAITING_FOR_USER_ACTION.value, Substate.WAITING_FOR_CUTOVER_TRIGGER.value):
            raise CutoverAborted(
                f"Cutover refused: the migration is {record['state']} / {record['substate']}, not WaitingForCutoverTrigger.",
                code="PGM5001",
                hint="Wait until the playbook migrate reports WaitingForCutoverTrigger.",
            )


class _ValidationFailed(MigrationError):
    """Validation has a failed finding."""


class _Halted(Exception):
    """The service was told to stop; the migration stays as it is."""
