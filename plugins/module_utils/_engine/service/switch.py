# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The cutovers of one migration as its service makes them: of all databases at once, or of some while the others go on streaming.

What is recorded of a database: ``switched`` once its cutover was released, ``ended`` once nothing of ours is left in it. Between both a
service that was killed finishes what it finds.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import time
import typing as t

from ..cutover.machine import Cutover
from ..cutover.precheck import judge, precheck_hooks, total
from ..cutover.proof import LOST
from ..cutover.watchdog import FenceJournal
from ..errors import CutoverAborted, MigrationError, ServiceError, VerificationFailed
from ..migration.catalogue import Catalogue, now
from ..migration.paths import MigrationPaths, write_json
from ..migration.states import State, Substate
from ..spec import CutoverOptions, MigrationSpec, check_cutover, check_rollback
from ..verify.compare import differing
from .database import Database, first_error
from .lead import write_release
from .wayback import reopen_source, wants

KEPT = ("released_at", "fenced_at", "pause_seconds")
"""Figures of a cutover that are kept for each of its databases."""


BROKEN_OFF = "the comparison was broken off behind the release, and the target has been written since"


def why_not(options: CutoverOptions) -> str:
    """Why the rows are not compared after a cutover with ``options``; empty if they are."""
    if not options.verify:
        return "it was not asked for (cutover.verify)"
    return "" if options.proven else "without a fence the source may be written meanwhile"


class Switch:
    """Takes the databases of a migration over to the target, and ends what is over.

    :param move: ``move(state, substate)`` records where the migration stands.
    :param changed: is called when a cutover has ended, this way or that.
    """

    def __init__(
        self,
        paths: MigrationPaths,
        spec: MigrationSpec,
        databases: t.Mapping[str, Database],
        move: t.Callable[[State, Substate], None],
        changed: t.Callable[[], None],
    ) -> None:
        self._paths, self._spec, self._databases = paths, spec, databases
        self._move, self._changed = move, changed
        self._catalogue = Catalogue(paths.catalogue)
        self._journal = FenceJournal(paths.fence)
        self._running: Cutover | None = None
        self._task: asyncio.Task[None] | None = None

    # -- where it stands

    @property
    def busy(self) -> bool:
        """Is a cutover, or what follows it, under way?"""
        return self._task is not None

    @property
    def phase(self) -> str | None:
        """The phase of the cutover that is under way."""
        return self._running.phase if self._running else None

    @property
    def left(self) -> list[str]:
        """Databases whose migration has not ended."""
        return [name for name, database in self._databases.items() if not database.ended]

    @property
    def begun(self) -> bool:
        """Does the target serve a database already?"""
        return bool(self._facts().get("switched"))

    def recall(self) -> None:
        """Take up what the record says of databases that have ended."""
        for name, figures in self._facts().get("ended", {}).items():
            self._databases[name].finished(figures)

    def settle(self) -> None:
        """Take in a cutover that has ended.

        :raises MigrationError: what it could not do behind the point of no return.
        """
        if self._task and self._task.done():
            task, self._task = self._task, None
            task.result()

    def take_up(self) -> None:
        """Finish what was broken off behind the point of no return, where its databases have arrived again."""
        names = [name for name in self._broken_off() if self._databases[name].arrived and self._databases[name].error is None]
        if names and not self.busy:
            self._start(self._finish_released(names))

    def _broken_off(self) -> list[str]:
        """The fence's journal knows of a release before the record can."""
        released = {*self._facts().get("switched", {}), *self._journal.released()}
        return [name for name in self.left if name in released]

    def _facts(self) -> dict[str, t.Any]:
        return dict((self._catalogue.get(self._paths.key) or {}).get("facts") or {})

    def _start(self, work: t.Coroutine[t.Any, t.Any, None]) -> None:
        self._task = asyncio.get_running_loop().create_task(work)
        self._task.add_done_callback(lambda dummy: self._changed())

    # -- what is asked for

    async def accept(self, given: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        """Begin a cutover with the options ``given``; what :meth:`precheck` tells.

        :raises CutoverAborted: it is refused; nothing happened.
        """
        told = await self.precheck(given)
        if told["refused"]:
            raise MigrationError.from_dict(told["refused"])
        options = self._options(given)  # again: it took a while
        self._start(self._cut_over(options, told))
        return {"accepted": now(), **told}

    async def precheck(self, given: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        """What speaks for and against a cutover now: ``checks``, ``forecast_seconds`` (of the pause), ``forecast`` by database and phase,
        ``latency_seconds``, and ``refused``, the error that it would be refused with.

        :raises CutoverAborted: the migration is not at that point.
        """
        wanted = self._options(given)
        check_cutover(wanted)
        check_rollback(dataclasses.replace(self._spec, cutover=wanted))
        latencies = {name: self._databases[name].progress.present().get("latency_seconds") for name in wanted.databases}
        plain, began = dataclasses.asdict(wanted), time.monotonic()
        answers = await asyncio.gather(*(self._ask(name, "precheck", options=plain) for name in wanted.databases))
        known = [seconds for seconds in latencies.values() if seconds is not None]
        latency = max(known) if len(known) == len(latencies) else None
        checks = await asyncio.to_thread(precheck_hooks, wanted, rollback=wants(wanted, self._spec))
        checks += [check for answer in answers for check in answer["checks"]]
        forecast = total([answer["forecast"] for answer in answers], latency)
        refused = judge(wanted, checks, latencies, forecast)
        return {
            "checks": checks,
            "forecast": {name: answer["forecast"] for name, answer in zip(wanted.databases, answers, strict=True)},
            "forecast_seconds": forecast,
            "latency_seconds": latency,
            "limit_seconds": wanted.max_pause,
            "seconds": round(time.monotonic() - began, 3),
            "refused": refused.to_dict() if refused else None,
        }

    def _options(self, given: t.Mapping[str, t.Any]) -> CutoverOptions:
        """The options of a cutover, its databases by their names.

        :raises CutoverAborted: one of them cannot be switched over now.
        """
        options: dict[str, t.Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
        wanted = dataclasses.replace(self._spec.cutover, **options)
        names = self._chosen(wanted.databases)
        self._require_ready(names)
        return dataclasses.replace(wanted, databases=tuple(names))

    def _chosen(self, asked: t.Sequence[str]) -> list[str]:
        unknown = [name for name in asked if name not in self._databases]
        if unknown:
            raise CutoverAborted(
                f"Cutover refused: {', '.join(unknown)} is not in this migration.",
                code="PGM5008",
                hint=f"cutover.databases may name: {', '.join(self._databases)}.",
            )
        if asked and self._spec.back_of and set(asked) != set(self._databases):
            raise CutoverAborted(
                "Rollback refused: it leads all databases of the migration back at once.",
                code="PGM5008",
                hint="Leave out cutover.databases.",
            )
        return [name for name in self.left if not asked or name in asked]

    def _require_ready(self, names: t.Sequence[str]) -> None:
        held = first_error(self._databases[name] for name in names)
        if held is not None:
            raise CutoverAborted(
                f"Cutover refused: the database {held.details['database']} is in error: {held.message}",
                code="PGM5006",
                hint=held.hint or "Remove the cause and run the playbook migrate.",
                details=held.details,
            )
        behind = [name for name in names if not self._databases[name].arrived]
        if names and not behind and not self.busy and not self._broken_off():
            return
        record = self._catalogue.get(self._paths.key) or {}
        waits = f"; not streaming yet: {', '.join(behind)}" if behind and len(behind) < len(self._databases) else ""
        raise CutoverAborted(
            f"Cutover refused: the migration is {record['state']} / {record['substate']}, not WaitingForCutoverTrigger{waits}.",
            code="PGM5001",
            hint="Wait until the playbook migrate reports WaitingForCutoverTrigger, or name those that stream in cutover.databases.",
        )

    async def _ask(self, database: str, command: str, **arguments: t.Any) -> dict[str, t.Any]:
        return await self._databases[database].ask(command, **arguments)

    # -- the cutover

    async def _cut_over(self, options: CutoverOptions, told: t.Mapping[str, t.Any]) -> None:
        self._move(State.IN_PROGRESS, Substate.COMPLETING_MIGRATION)
        cutover = self._running = self._cutover(options)
        cutover.result.expect(told)
        try:
            result = await cutover.run()
        except CutoverAborted as exc:
            back = {**cutover.result.to_dict(), "released_at": None, "given_back": exc.to_dict()}
            self._catalogue.remember(self._paths.key, cutover=back)
            self._note("error", f"Cutover given back: {exc.message}")
            return
        finally:
            self._running = None
        self._keep(result.to_dict())
        await self.prove(options.databases, why_not(options), cutover.proof)

    def _cutover(self, options: CutoverOptions) -> Cutover:
        reopen = functools.partial(reopen_source, self._paths, self._spec) if self._spec.back_of else None
        lead = functools.partial(write_release, self._paths, self._spec, options) if options.release_file else None
        back = wants(options, self._spec)
        return Cutover(self._paths, self._spec, options, self._ask, open_target=reopen, way_back=back, lead=lead)

    def _keep(self, cutover: dict[str, t.Any]) -> None:
        """Record a cutover that was released."""
        part = {key: cutover[key] for key in KEPT}
        if cutover["release_error"]:
            self._note("error", f"The target is the server now, but the writers were not led there: {cutover['release_error']}")
        names = cutover["databases"]
        each = {name: {**part, "lsn": cutover["lsn"].get(name), "time": cutover["time"].get(name)} for name in names}
        self._catalogue.remember(self._paths.key, cutover=cutover, switched={**self._facts().get("switched", {}), **each})
        if len(names) < len(self._databases):
            self._note("info", f"Switched over: {', '.join(names)}; still on the source: {', '.join(self._on_source()) or 'none'}")

    def _on_source(self) -> list[str]:
        switched = self._facts().get("switched", {})
        return [name for name in self._databases if name not in switched]

    async def _finish_released(self, names: list[str]) -> None:
        """Let the writers in if that is not known to have happened, and end."""
        self._move(State.IN_PROGRESS, Substate.COMPLETING_MIGRATION)
        unsure = [name for name in names if name in self._on_source()]
        if unsure:
            kept: dict[str, t.Any] = {
                key: tuple(value) if isinstance(value, list) else value for key, value in self._journal.options().items()
            }
            cutover = self._cutover(dataclasses.replace(self._spec.cutover, **{**kept, "databases": tuple(unsure)}))
            self._keep((await cutover.finish_release()).to_dict())
        await self.prove(names, BROKEN_OFF)

    # -- what comes after the release

    async def prove(self, names: t.Sequence[str], unproven: str = "", proof: t.Mapping[str, dict[str, t.Any]] | None = None) -> None:
        """Compare every row under the cutover's snapshots, remove what is ours: the migration of these databases is over.

        :param unproven: why rows are not compared; empty if they are.
        :param proof: what was found already, before the release.
        """
        if proof:
            self._remember_proof(dict(proof))
        elif names and not unproven:
            results = {name: await self._compare(name) for name in names}
            if found := {name: result for name, result in results.items() if result is not None}:
                self._remember_proof(found)
            if lost := [name for name, result in results.items() if result is None]:
                self._remember_unproven(lost, BROKEN_OFF)
        elif names:
            self._remember_unproven(names, unproven)
        for name in names:
            await self._databases[name].receiver.stop()
        for name in names:
            await self._finish(name)
            self._databases[name].finished()
        ended = {name: database.progress.present() for name, database in self._databases.items() if database.ended}
        self._catalogue.remember(self._paths.key, ended=ended)
        await asyncio.gather(*(self._databases[name].stop() for name in names))

    async def _compare(self, name: str) -> dict[str, t.Any] | None:
        """What the comparison has found; None if who made it has died, or the cutover's snapshots have ended."""
        try:
            return await self._ask(name, "verify")
        except ServiceError:
            return None
        except MigrationError as exc:
            if exc.code == LOST:
                return None
            raise

    async def _finish(self, name: str) -> None:
        """Have the worker remove what is ours; one that dies at it is started again, and goes on."""
        while True:
            try:
                await self._ask(name, "finish")
                return
            except ServiceError:
                if not self._databases[name].worker.alive:
                    raise

    def _remember_proof(self, results: dict[str, dict[str, t.Any]]) -> None:
        facts = self._facts()
        every = {**(facts.get("verification") or {}).get("databases", {}), **results}
        equal, complete = (all(result[key] for result in every.values()) for key in ("equal", "complete"))
        verification = {"equal": equal, "complete": complete, "time": now(), "databases": every}
        self._catalogue.remember(self._paths.key, verification=verification)
        self._certify()
        if not complete:
            self._note("warning", "Verification could not compare every table; see certificate.json")

    def _remember_unproven(self, names: t.Sequence[str], reason: str) -> None:
        """A cutover without a proof is no failure, and never silent."""
        self._catalogue.remember(self._paths.key, unproven={**self._facts().get("unproven", {}), **dict.fromkeys(names, reason)})
        self._certify()
        self._note("warning" if reason == BROKEN_OFF else "info", f"Rows of {', '.join(names)} were not compared: {reason}.")

    def _certify(self) -> None:
        facts = self._facts()
        told = {key: facts.get(key) for key in ("cutover", "switched", "verification", "unproven")}
        write_json(self._paths.folder / "certificate.json", {"migration": self._spec.public(), **told})

    def refuse_differences(self) -> None:
        """A migration whose proof found differences has not succeeded, however complete it is.

        :raises VerificationFailed: naming the first tables that differ.
        """
        verification = self._facts().get("verification")
        if not verification or verification["equal"]:
            return
        names = differing(verification["databases"])
        raise VerificationFailed(
            f"Source and target differ as of the cutover: {', '.join(names[:5]) or 'sequences or large objects'}.",
            code="PGM6001",
            hint=f"Keys and values of both sides are in {self._paths.folder / 'certificate.json'}; the source is fenced and whole.",
            details={"tables": names},
        )

    def _note(self, level: str, text: str) -> None:
        self._catalogue.event(self._paths.key, level, text)
