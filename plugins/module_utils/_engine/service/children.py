# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The service's end of the tie to its children: start, command, answer, restart, stop."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
import typing as t

from ..errors import MigrationError, ServiceError
from ..migration.paths import MigrationPaths

LINE_LIMIT = 64 << 20
"""Longest report of a child in bytes: a verification with many differences is one line."""

STOP_SECONDS = 20.0
"""How long a child may take to stop before it is killed."""

LOOK_SECONDS = 0.05

RETRY_SECONDS = 600.0
"""How long a child that dies or loses its server is started again before its error is its database's."""

PASSING = ("tcp", "dns", "starting", "too_many", "lost")
"""Reasons of a failed connection (:class:`..errors.ConnectionFailed`) that may be gone soon."""


class Child:
    """One child process (``work`` or ``receive``) of one database, started again when it dies.

    :param heard: called with each report that is no answer.
    :param failed: called with the error that starting it again at once would not cure; the process is left alone then.
    """

    def __init__(
        self,
        paths: MigrationPaths,
        role: str,
        database: str,
        heard: t.Callable[[dict[str, t.Any]], None],
        failed: t.Callable[[MigrationError], None],
    ) -> None:
        self._paths = paths
        self.role = role
        self.database = database
        self._heard = heard
        self._failed = failed
        self._process: asyncio.subprocess.Process | None = None
        self._waiting: dict[int, asyncio.Future[dict[str, t.Any]]] = {}
        self._ids = itertools.count(1)
        self._stopping = asyncio.Event()
        self._error: dict[str, t.Any] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def started(self) -> bool:
        """Was it ever started?"""
        return self._task is not None

    @property
    def alive(self) -> bool:
        """Is the process kept running?"""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Keep the process running from now on; again after it had failed."""
        self._stopping.clear()
        self._task = asyncio.get_running_loop().create_task(self._keep())

    async def ask(self, command: str, **arguments: t.Any) -> dict[str, t.Any]:
        """Have the child do ``command`` and return its answer; one that is being started again is waited for.

        :raises MigrationError: the child's own, or that it died meanwhile.
        """
        while self._process is None:
            if not self.alive:
                raise ServiceError(f"The {self.role} process of {self.database} is not running.", hint=f"See {self._paths.log}.")
            await asyncio.sleep(LOOK_SECONDS)
        number = next(self._ids)
        future: asyncio.Future[dict[str, t.Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self.tell(command, id=number, **arguments)
        return await future

    def tell(self, command: str, **arguments: t.Any) -> None:
        """Send ``command`` without waiting for anything."""
        if self._process and self._process.stdin and not self._process.stdin.is_closing():
            self._process.stdin.write((json.dumps({"command": command, **arguments}) + "\n").encode())

    async def stop(self) -> None:
        """End the process: asked first, killed after :data:`STOP_SECONDS`."""
        self._stopping.set()
        if self._process and self._process.stdin:
            self._process.stdin.close()
        if self._task:
            try:
                await asyncio.wait_for(asyncio.shield(self._task), STOP_SECONDS)
            except (TimeoutError, asyncio.TimeoutError):
                if self._process and self._process.returncode is None:
                    self._process.kill()
                await self._task

    async def _keep(self) -> None:
        began, pause = time.monotonic(), 0.5
        while True:
            lived = time.monotonic()
            status = await self._once()
            if self._stopping.is_set() or status == 0:
                return
            if time.monotonic() - lived > 60:  # it had worked: a new trouble, a new patience
                began, pause = time.monotonic(), 0.5
            error = self._error
            retryable = error is None or error["details"].get("reason") in PASSING
            if not retryable or time.monotonic() - began > RETRY_SECONDS:
                self._failed(MigrationError.from_dict(error) if error else self._died(status))
                return
            self._heard({"warning": (error or {}).get("message") or f"{self.role} process of {self.database} ended with status {status}"})
            with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
                return
            pause = min(pause * 2, 15.0)

    def _died(self, status: int) -> MigrationError:
        return ServiceError(
            f"The {self.role} process of {self.database} ended with status {status} again and again.",
            code="PGM8005",
            hint=f"See {self._paths.log}.",
        )

    async def _once(self) -> int:
        self._error = None
        self._process = await asyncio.create_subprocess_exec(
            *self._paths.command(self.role, self.database), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LINE_LIMIT
        )
        if self._stopping.is_set() and self._process.stdin:
            self._process.stdin.close()  # told to stop while it was being started
        if self._process.stdout:
            async for line in self._process.stdout:
                self._receive(line)
        status = await self._process.wait()
        self._process = None
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ServiceError(f"The {self.role} process of {self.database} died at work (status {status})."))
        self._waiting.clear()
        return status

    def _receive(self, line: bytes) -> None:
        with contextlib.suppress(ValueError):
            report = json.loads(line)
            if "reply" in report:
                future = self._waiting.pop(report["reply"], None)
                if future and not future.done():
                    if report.get("error"):
                        future.set_exception(MigrationError.from_dict(report["error"]))
                    else:
                        future.set_result(report["result"])
            elif "failed" in report:
                self._error = report["failed"]
            else:
                self._heard(report)
