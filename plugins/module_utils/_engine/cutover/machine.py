# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The cutover, phase by phase: fence, drain, complete, confirm, release. Until the release everything can be given back, and is.

Runs in the service, asks the workers for their part, and is the only place that knows the order of things.
"""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import subprocess  # nosec: the release hook is the user's own command
import time
import typing as t

from ..errors import CutoverAborted, MigrationError
from ..migration.catalogue import now
from ..migration.paths import MigrationPaths
from ..postgres.lsn import format_lsn
from ..postgres.selection import Selection
from ..spec import CutoverOptions, MigrationSpec
from ..verify.compare import differing
from .commands import run_command
from .fence import Fence, make_fence, plan_fences
from .gates import Gate
from .silence import describe
from .watchdog import FenceJournal

Ask = t.Callable[..., t.Awaitable[t.Dict[str, t.Any]]]

HOOK_SECONDS = 60.0
GRACE_SECONDS = 1.0
"""What a worker is given beyond the deadline to say itself what it waited for."""

DRAIN_SECONDS = 3600.0
"""How long a drain may take where nobody is kept waiting for it."""

RESUME_SECONDS = 10.0
OPEN_SECONDS = 1.0
"""Pause between attempts to open the source again, or the server that a rollback leads to."""

WATCH_SECONDS = 0.2
"""Pause between looks whether the watchdog is there."""

STAYS_PAUSED = "; PgBouncer stays paused: have it lead to the target, then RELOAD and RESUME"

RELY_ON_SILENCE = ("read_only", "external")
"""Fences that are nothing without the proof of the stream."""

LEADS = ("release", "release_file", "release_template", "pgbouncer", "pgbouncer_databases")
"""Options by which the release leads the writers: who has to finish it takes those of the cutover that was begun."""

LETS_LIVE = ("locks", "read_only", "external")
"""Fences under which sessions may live until the cutover is confirmed."""

T = t.TypeVar("T")


async def _all(parts: t.Iterable[t.Awaitable[T]]) -> list[T]:
    """Wait for every part, then raise the first error: what is given back must not overtake a part that still works."""
    results = await asyncio.gather(*parts, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return t.cast("list[T]", results)


@dataclasses.dataclass
class CutoverResult:
    """What happened, for people and machines. Seconds everywhere; ``lsn`` is the marker's, ``time`` the commit time on the source of the
    last transaction applied, by database; ``release_error`` why the writers were not led to the target, though it is complete."""

    databases: list[str] = dataclasses.field(default_factory=list)
    phases: list[dict[str, t.Any]] = dataclasses.field(default_factory=list)
    lsn: dict[str, str] = dataclasses.field(default_factory=dict)
    time: dict[str, str] = dataclasses.field(default_factory=dict)
    fenced_at: str | None = None
    released_at: str | None = None
    pause_seconds: float | None = None
    sessions_ended: int = 0
    forecast_seconds: float | None = None
    checks: list[dict[str, t.Any]] = dataclasses.field(default_factory=list)
    release_error: str | None = None

    def expect(self, told: t.Mapping[str, t.Any]) -> None:
        """Keep what the pre-checks said, so that the forecast can be held against what came (R98)."""
        self.checks, self.forecast_seconds = list(told["checks"]), told["forecast_seconds"]
        passed = sum(1 for check in self.checks if check["severity"] != "Failed")
        self.phases.append({"name": "pre-checks", "seconds": told["seconds"], "text": f"{passed} passed; {expectation(told)}"})

    def to_dict(self) -> dict[str, t.Any]:
        """Plain data."""
        return dataclasses.asdict(self)


def expectation(told: t.Mapping[str, t.Any]) -> str:
    """``latency 0.4 s; predicted pause 1.2 s (limit 10 s)``."""
    latency, forecast = told["latency_seconds"], told["forecast_seconds"]
    shown = "latency not known" if latency is None else f"latency {latency:.1f} s"
    pause = "predicted pause not known" if forecast is None else f"predicted pause {forecast:.1f} s"
    return f"{shown}; {pause} (limit {told['limit_seconds']:g} s)"


class Cutover:
    """One attempt to switch the databases that ``options`` name over.

    :param ask: ``await ask(database, command, **arguments)`` has a worker do its part.
    :param open_target: what opens the target before the writers are led there; of a rollback, whose target is fenced.
    :param way_back: leave a stream from the target to the source.
    :param lead: what writes ``release_file``, where the options name one.
    :ivar phase: the one that it is at.
    :ivar proof: what a comparison before the release has found, by database.
    """

    def __init__(
        self,
        paths: MigrationPaths,
        spec: MigrationSpec,
        options: CutoverOptions,
        ask: Ask,
        *,
        open_target: t.Callable[[], str] | None = None,
        way_back: bool = False,
        lead: t.Callable[[], str] | None = None,
    ) -> None:
        self._open_target, self._way_back, self._lead = open_target, way_back, lead
        self._paths = paths
        self._spec = spec
        self._databases = list(options.databases)
        self._options = options
        self._ask = ask
        self._journal = FenceJournal(paths.fence)
        self._fences: list[Fence] = []
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._began = 0.0
        self.phase = self._at = ""
        self.proof: dict[str, dict[str, t.Any]] = {}
        self.result = CutoverResult(self._databases)

    async def run(self) -> CutoverResult:
        """All phases up to the release.

        :raises CutoverAborted: the source is writable again and the stream goes on.
        """
        self._began = time.monotonic()
        deadline = self._began + self._options.max_pause
        token = secrets.token_hex(8)
        try:
            if self._options.proven:
                await self._phase("fence", self._fence(deadline))
            await self._phase("drain", self._drain(token, deadline))
            await self._phase("complete", self._complete(deadline))
            await self._phase("confirm", self._confirm(token, deadline))
            if self._options.verify_before_release:
                await self._phase("verify", self._verify(deadline))
            await self._phase("release", self._release())
        except BaseException as exc:
            await self._give_back()
            if isinstance(exc, CutoverAborted):
                exc.details["phases"] = self.result.phases
                raise
            if isinstance(exc, MigrationError):
                raise CutoverAborted(f"Cutover given back: {exc.message}", code=exc.code, hint=exc.hint, details=exc.details) from exc
            if isinstance(exc, Exception):
                raise self._broken_off(exc) from exc
            raise
        finally:
            for fence in self._fences:
                fence.let_go()
        return self.result

    async def _phase(self, name: str, work: t.Awaitable[str]) -> None:
        start = time.monotonic()
        self.phase = self._at = name
        text = await work
        self.result.phases.append({"name": name, "seconds": round(time.monotonic() - start, 3), "text": text})

    async def _each(self, phase: str, deadline: float, command: str, **arguments: t.Any) -> list[dict[str, t.Any]]:
        """Have every worker do ``command``. One that does not answer must not hold the cutover longer than the source may wait; without a
        fence nobody waits."""
        limit = max(0.0, deadline - time.monotonic()) + GRACE_SECONDS if self._options.proven else None
        try:
            return await _all(asyncio.wait_for(self._ask(database, command, **arguments), limit) for database in self._databases)
        except (TimeoutError, asyncio.TimeoutError):
            raise self._late(phase) from None

    def _broken_off(self, exc: Exception) -> CutoverAborted:
        """For what nobody has foreseen where it came up, above all a session that ends in the middle of a statement."""
        said = " ".join(str(exc).split())
        return CutoverAborted(
            f"Cutover given back: it broke off at {self._at}: {type(exc).__name__}: {said}",
            code="PGM5115",
            hint="Where a server was restarted or a line broke, call the cutover again.",
            sqlstate=getattr(exc, "sqlstate", None) or "",
            details={"phases": self.result.phases},
        )

    def _late(self, phase: str) -> CutoverAborted:
        return CutoverAborted(
            f"The cutover was at {phase} when max_pause ({self._options.max_pause:g} s) was over.",
            code="PGM5106",
            hint="Cut over in a quieter hour, or raise cutover.max_pause.",
        )

    async def _fence(self, deadline: float) -> str:
        source = self._spec.source
        selection = Selection.of(self._spec.copy)
        changes = await asyncio.to_thread(plan_fences, source, self._databases, self._options, self._paths.fence_mark, selection)
        self._fences = [make_fence(source, change) for change in changes]
        attempt = self._journal.open(changes, deadline, {key: getattr(self._options, key) for key in LEADS})
        self._start_watchdog(attempt)
        self._keeper = asyncio.get_running_loop().create_task(self._keep_watchdog(attempt))
        self._began = time.monotonic()
        self.result.fenced_at = now()
        gates = [fence for fence in self._fences if isinstance(fence, Gate)]
        said = [await asyncio.to_thread(gate.raise_, deadline) for gate in gates]
        rest = [fence for fence in self._fences if not isinstance(fence, Gate)]
        said += await _all(asyncio.to_thread(fence.raise_, deadline) for fence in rest)
        self.result.sessions_ended = sum(fence.ended for fence in self._fences)
        return "; ".join(dict.fromkeys(said))

    def _start_watchdog(self, attempt: str) -> None:
        command = [*self._paths.command("watchdog"), "--attempt", attempt]
        with open(self._paths.log, "ab") as log:
            self._watchdog = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True)

    async def _keep_watchdog(self, attempt: str) -> None:
        """One that was killed is replaced: the source must not be left to this process alone."""
        while self._watchdog:
            if self._watchdog.poll():
                self._start_watchdog(attempt)
            await asyncio.sleep(WATCH_SECONDS)

    async def _drain(self, token: str, deadline: float) -> str:
        limit = deadline - time.monotonic() if self._options.proven else max(self._options.max_pause, DRAIN_SECONDS)
        if limit <= 0:
            raise self._late("fence")
        answers = await self._each("drain", deadline, "drain", token=token, timeout=limit)
        self.result.lsn = {database: format_lsn(answer["marker"]) for database, answer in zip(self._databases, answers, strict=True)}
        self.result.time = {database: answer["commit_time"] for database, answer in zip(self._databases, answers, strict=True)}
        return "marker " + ", ".join(self.result.lsn.values()) + " applied"

    async def _complete(self, deadline: float) -> str:
        proof = (self._options.verify or self._options.verify_before_release) and self._options.proven
        seconds = max(0.0, deadline - time.monotonic())
        limit = seconds if self._options.proven else None
        answers = await self._each("complete", deadline, "complete", proof=proof, way_back=self._way_back, timeout=seconds, limit=limit)
        totals = {key: sum(a[key] for a in answers) for key in answers[0]}
        return ", ".join(f"{count} {key.replace('_', ' ')}" for key, count in totals.items())

    async def _confirm(self, token: str, deadline: float) -> str:
        """Nobody is there, and nothing was committed behind the marker; without a fence the latter is only told."""
        again = secrets.token_hex(8)
        limit = max(0.5, deadline - time.monotonic())
        answers = await self._each("confirm", deadline, "silence", token=again, since=token, timeout=limit)
        counts = [answer["changes"] for answer in answers]
        if not self._options.proven:
            return "no fence; " + describe(counts)
        unknown = [database for database, count in zip(self._databases, counts, strict=True) if count is None]
        if unknown and self._options.fence in RELY_ON_SILENCE:
            raise CutoverAborted(
                f"The fence {self._options.fence} cannot be proven for {', '.join(unknown)}: the stream carries no messages of ours.",
                code="PGM5111",
                hint="Choose cutover.fence revoke_connect or locks.",
            )
        if any(counts):
            raise CutoverAborted(
                f"Rows were changed on the source in spite of the fence {self._options.fence}: {describe(counts)}.",
                code="PGM5112",
                hint="Find out who writes (a superuser, a session that says BEGIN READ WRITE), then call the cutover again.",
            )
        await _all(asyncio.to_thread(fence.confirm, deadline) for fence in self._fences)
        self.result.sessions_ended = sum(fence.ended for fence in self._fences)
        return describe(counts) + await self._again(deadline)

    async def _again(self, deadline: float) -> str:
        """Sessions that lived until the fence was confirmed may have drawn from sequences or written large objects since both were read."""
        if self._options.fence not in LETS_LIVE:
            return ""
        answers = await self._each("confirm", deadline, "again", limit=max(0.0, deadline - time.monotonic()))
        return f", {sum(answer['large_objects'] for answer in answers)} large objects written since; sequences set again"

    async def _verify(self, deadline: float) -> str:
        """Compare every row while nobody writes: it is not too late to go back.

        :raises CutoverAborted: PGM5113 with what differs.
        """
        answers = await self._each("verify", deadline, "verify")
        self.proof = dict(zip(self._databases, answers, strict=True))
        if not all(found["equal"] for found in answers):
            names = differing(self.proof)
            raise CutoverAborted(
                f"Source and target differ: {', '.join(names[:5]) or 'sequences or large objects'}.",
                code="PGM5113",
                hint="Play verify for keys and both values, and find out who writes on the target. The source goes on.",
                details={"tables": names},
            )
        tables = [table for found in answers for table in found["tables"]]
        equal = sum(1 for table in tables if table["equal"])
        return f"{equal} of {len(tables)} tables equal, {sum(found['rows'] for found in answers):,} rows"

    async def finish_release(self) -> CutoverResult:
        """Do again what follows the point of no return, for a service that was killed there: the hook may run a second time."""
        gates = [change for change in self._journal.changes() if change["kind"] == "gate"]
        self._fences = [make_fence(self._spec.source, change) for change in gates]
        await self._phase("release", self._let_in())
        return self.result

    async def _let_in(self) -> str:
        """Lead the writers to the target: the user's command first, then the poolers. A pooler whose command has failed still leads to the
        source: it stays paused."""
        opened = await self._open_until_done() if self._open_target else ""
        text, failed = await asyncio.to_thread(self._run_hook)
        self.result.release_error = text if failed else None
        text = opened + text
        gates = [fence for fence in self._fences if isinstance(fence, Gate)]
        for gate in gates:
            if failed:
                text += STAYS_PAUSED if self._options.pgbouncer else ""
                self.result.release_error = text
                break
            try:
                text += "; " + await asyncio.to_thread(gate.reopen)
            except CutoverAborted as exc:
                text += f"; FAILED: {exc.message}"
                self.result.release_error = text
        self.result.released_at = now()
        return text.removesuffix("; ")

    async def _open_until_done(self) -> str:
        """Behind the point of no return both sides are closed until this has worked: it is tried for as long as it takes, and the phase
        says why."""
        while self._open_target:
            try:
                return await asyncio.to_thread(self._open_target) + "; "
            except MigrationError as exc:
                self.phase = f"release: the writers wait, because their server cannot be opened: {exc.message}"
                await asyncio.sleep(OPEN_SECONDS)
        return ""

    async def _release(self) -> str:
        if self._options.proven:
            self._journal.release()
        for fence in self._fences:
            fence.let_go()
        text = await self._let_in()
        if self._options.proven:
            self.result.pause_seconds = round(time.monotonic() - self._began, 3)
        self._end_watchdog()
        return text

    def _run_hook(self) -> tuple[str, bool]:
        """The user's file and command, and whether one failed; that is told but cannot undo the cutover: the target is complete."""
        said = []
        try:
            if self._lead:
                said.append(self._lead())
            if self._options.release:
                run_command(self._options.release, HOOK_SECONDS)
                said.append(f"hook {self._options.release[0]}")
        except CutoverAborted as exc:
            return "; ".join([*said, f"hook FAILED: {exc.message} {exc.hint or ''}".strip()]), True
        return "; ".join(said) or "no hook", False

    async def _give_back(self) -> None:
        """Open the source again and let the stream go on."""
        try:
            await self._lift_until_done()
        finally:
            self._end_watchdog()
            resumed = (asyncio.wait_for(self._ask(database, "resume"), RESUME_SECONDS) for database in self._databases)
            await asyncio.gather(*resumed, return_exceptions=True)

    async def _lift_until_done(self) -> None:
        """A source that is away, or is being restarted, stays fenced until this has worked: it is tried for as long as it takes, by the
        watchdog too, and the phase says why."""
        while self._fences and self._journal.state() != "released":
            try:
                await asyncio.to_thread(self._journal.lift, self._spec.source, again=True)
                return
            except Exception as exc:  # whatever it is, the source must be opened
                self._end_watchdog()
                self.phase = f"giving back: the source cannot be opened: {exc}"
                await asyncio.sleep(OPEN_SECONDS)

    def _end_watchdog(self) -> None:
        if self._watchdog and self._watchdog.stdin:
            self._watchdog.stdin.close()
            self._watchdog = None
        if self._keeper:
            self._keeper.cancel()
