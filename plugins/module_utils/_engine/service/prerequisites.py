# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The first step of a migration, PerformingPreRequisiteSteps: both servers answer, and where no validation follows, what must and must not
be there is looked for. It has a time of its own, ``limits.max_prerequisites`` (R78)."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import typing as t

from ..errors import ConnectionFailed, ServiceError
from ..postgres.session import connect
from ..spec import Endpoint, MigrationSpec
from .prepare import check_ground

LATE = "PGM8011"


class Prerequisites:
    """The step of ``spec``.

    :param validated: no validation follows, so that this step is to refuse what it finds. Else a server that cannot be reached is left to
        the validation, which says more.
    :param first: no earlier run has begun to copy.
    """

    def __init__(self, spec: MigrationSpec, *, validated: bool, first: bool) -> None:
        self._spec, self._validated, self._first = spec, validated, first
        self._asked = spec.target
        self._began = 0.0

    async def run(self, stop: asyncio.Event) -> float | None:
        """Do it.

        :return: seconds that it took; None if ``stop`` was set before it was done.
        :raises MigrationError: what is in the way.
        :raises ServiceError: PGM8011 the time is over, naming the server that was waited for.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._began = time.monotonic()
        # a thread of its own: one that waits for a server cannot be ended, and those of the loop are waited for at the end of the service
        threading.Thread(target=self._call, args=(loop, done), name="prerequisites", daemon=True).start()
        stopped = loop.create_task(stop.wait())
        waited: set[asyncio.Future[t.Any]] = {done, stopped}
        await asyncio.wait(waited, timeout=self._spec.limits.max_prerequisites or None, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if done.done():
            done.result()
            return round(time.monotonic() - self._began, 3)
        if stop.is_set():
            return None
        raise self._late()

    def _call(self, loop: asyncio.AbstractEventLoop, done: asyncio.Future[None]) -> None:
        failure: BaseException | None = None
        try:
            self._work()
        except BaseException as exc:  # handed to the loop
            failure = exc

        def settle() -> None:
            if done.done():
                return
            if failure is not None:
                done.set_exception(failure)
            else:
                done.set_result(None)

        with contextlib.suppress(RuntimeError):  # nobody waits any more, and the loop is closed
            loop.call_soon_threadsafe(settle)

    def _work(self) -> None:
        if self._validated:
            check_ground(self._spec, self._ask, first=self._first)
            return
        for endpoint in (self._spec.target, self._spec.source):
            self._ask(endpoint)
            with contextlib.suppress(ConnectionFailed):
                connect(endpoint, purpose="prepare").close()

    def _ask(self, endpoint: Endpoint) -> None:
        self._asked = endpoint

    def _late(self) -> ServiceError:
        limit, label = self._spec.limits.max_prerequisites, self._asked.label()
        return ServiceError(
            f"The prerequisites were not done within limits.max_prerequisites ({limit:g} s): {label} was waited for and did not answer.",
            code=LATE,
            hint=f"See whether {self._asked.host}:{self._asked.port} answers, or raise limits.max_prerequisites, then play migrate again.",
            server=label,
            details={"limit": limit, "side": self._asked.side},
        )
