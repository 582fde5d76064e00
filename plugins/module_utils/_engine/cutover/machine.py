# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The cutover, phase by phase: fence, drain, complete, release. Until the release everything can be given back, and is.

Runs in the service, asks the workers for their part, and is the only place that knows the order of things.
"""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import subprocess  # nosec: the release hook is the user's own command
import sys
import time
import typing as t

from ..errors import CutoverAborted, MigrationError
from ..migration.catalogue import now
from ..migration.paths import MigrationPaths
from ..postgres.lsn import format_lsn
from ..spec import CutoverOptions, MigrationSpec
from .fence import plan_fence, raise_fence
from .watchdog import FenceJournal

Ask = t.Callable[..., t.Awaitable[t.Dict[str, t.Any]]]


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
    """What happened, for people and machines. Seconds everywhere; ``lsn`` is the marker's, by database."""

    phases: list[dict[str, t.Any]] = dataclasses.field(default_factory=list)
    lsn: dict[str, str] = dataclasses.field(default_factory=dict)
    fenced_at: str | None = None
    released_at: str | None = None
    pause_seconds: float | None = None
    sessions_ended: int = 0

    def to_dict(self) -> dict[str, t.Any]:
        """Plain data."""
        return dataclasses.asdict(self)


class Cutover:
    """One attempt to switch ``spec``'s databases over.

    :param ask: ``await ask(database, command, **arguments)`` has a worker do its part.
    :param note: is told each phase as it ends.
    """

    def __init__(self, paths: MigrationPaths, spec: MigrationSpec, databases: t.Sequence[str], options: CutoverOptions, ask: Ask) -> None:
        self._paths = paths
        self._spec = spec
        self._databases = list(databases)
        self._options = options
        self._ask = ask
        self._journal = FenceJournal(paths.fence)
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._began = 0.0
        self.result = CutoverResult()

    async def run(self) -> CutoverResult:
        """All phases up to the release.

        :raises CutoverAborted: the source is writable again and the stream goes on.
        """
        self._began = time.monotonic()
        deadline = self._began + self._options.max_pause
        try:
            if self._options.fence != "none":
                await self._phase("fence", self._fence(deadline))
            await self._phase("drain", self._drain(deadline))
            await self._phase("complete", self._complete())
            await self._phase("release", self._release())
        except BaseException as exc:
            await self._give_back()
            if isinstance(exc, CutoverAborted):
                exc.details["phases"] = self.result.phases
                raise
            if isinstance(exc, MigrationError):
                raise CutoverAborted(f"Cutover given back: {exc.message}", code=exc.code, hint=exc.hint, details=exc.details) from exc
            raise
        return self.result

    async def _phase(self, name: str, work: t.Awaitable[str]) -> None:
        start = time.monotonic()
        text = await work
        self.result.phases.append({"name": name, "seconds": round(time.monotonic() - start, 3), "text": text})

    async def _fence(self, deadline: float) -> str:
        source = self._spec.source
        changes = [await asyncio.to_thread(plan_fence, source, database) for database in self._databases]
        self._journal.open(changes, deadline)
        self._start_watchdog()
        self._began = time.monotonic()
        self.result.fenced_at = now()
        ended = await _all(asyncio.to_thread(raise_fence, source, change, deadline) for change in changes)
        self.result.sessions_ended = sum(ended)
        return f"CONNECT revoked, {sum(ended)} sessions ended, none left"

    def _start_watchdog(self) -> None:
        command = [sys.executable, str(self._paths.engine), "watchdog", "--home", str(self._paths.home), "--migration", self._paths.key]
        with open(self._paths.log, "ab") as log:
            self._watchdog = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True)

    async def _drain(self, deadline: float) -> str:
        token = secrets.token_hex(8)
        limit = deadline - time.monotonic() if not self._options.force else self._options.max_pause
        if limit <= 0:
            raise CutoverAborted(f"The fence took longer than max_pause ({self._options.max_pause} s).", code="PGM5106")
        answers = await _all(self._ask(database, "drain", token=token, timeout=limit) for database in self._databases)
        self.result.lsn = {database: format_lsn(answer["marker"]) for database, answer in zip(self._databases, answers, strict=True)}
        return "marker " + ", ".join(self.result.lsn.values()) + " applied"

    async def _complete(self) -> str:
        proof = self._options.verify and self._options.fence != "none"
        answers = await _all(self._ask(database, "complete", proof=proof) for database in self._databases)
        totals = {key: sum(a[key] for a in answers) for key in ("sequences", "large_objects", "materialized_views")}
        return ", ".join(f"{count} {key.replace('_', ' ')}" for key, count in totals.items())

    async def finish_release(self) -> CutoverResult:
        """Do again what follows the point of no return, for a service that was killed there: the hook may run a second time."""
        await self._phase("release", self._let_in())
        return self.result

    async def _let_in(self) -> str:
        text = await asyncio.to_thread(self._run_hook) if self._options.release else "no hook"
        self.result.released_at = now()
        return text

    async def _release(self) -> str:
        if self._options.fence != "none":
            self._journal.release()
        text = await self._let_in()
        if self._options.fence != "none":
            self.result.pause_seconds = round(time.monotonic() - self._began, 3)
        self._end_watchdog()
        return text

    def _run_hook(self) -> str:
        """The user's command; a failure is told but cannot undo the cutover: the target is complete."""
        try:
            done = subprocess.run(list(self._options.release), stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired) as exc:
            return f"hook FAILED: {exc}"
        if done.returncode:
            return f"hook FAILED with status {done.returncode}: {done.stderr.decode(errors='replace').strip()[-200:]}"
        return f"hook {self._options.release[0]}"

    async def _give_back(self) -> None:
        """Open the source again and let the stream go on; the watchdog does it if this fails."""
        try:
            if self._journal.state() == "fenced":
                await asyncio.to_thread(self._journal.lift, self._spec.source)
        finally:
            self._end_watchdog()
            await asyncio.gather(*(self._ask(database, "resume") for database in self._databases), return_exceptions=True)

    def _end_watchdog(self) -> None:
        if self._watchdog and self._watchdog.stdin:
            self._watchdog.stdin.close()
            self._watchdog = None
