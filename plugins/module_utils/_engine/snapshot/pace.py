# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""How fast the relays of one process may go: a rate in bytes a second, and a duty cycle for the pressure of :mod:`.restraint`.

At a pressure of 0.75 a relay rests three times as long as it worked; at 1 it rests until there is less.
"""

from __future__ import annotations

import asyncio
import threading
import time
import typing as t

from .tools import Stopped

LOOK = 4.0
"""Seconds after which a rest ends at the latest where the pressure is below 1."""

REST = 0.25
"""Seconds of one rest; after each the pressure is read again."""

BURST = 0.25
"""Seconds' worth of bytes that may pass at once after a rest."""


class Pace:
    """See the module; all relays of a process share one, and the large objects of a copy with them.

    :param rate: bytes a second of all of them together; 0: no limit.
    :param pressure: called up to four times a second by each relay, so it must answer at once; from 0 (none) to 1 (stop).
    """

    def __init__(self, rate: int, pressure: t.Callable[[], float]) -> None:
        self._rate = rate
        self._pressure = pressure
        self._credit = rate * BURST
        self._filled = time.monotonic()
        self._lock = threading.Lock()  # large objects pass in a thread of their own

    async def pass_(self, size: int, worked: float) -> None:
        """Let ``size`` bytes pass when it is their time; ``worked``: seconds of work since the last call of the same relay."""
        for pause in self._pauses(size, worked):
            await asyncio.sleep(pause)

    def wait(self, size: int, worked: float, stop: threading.Event) -> None:
        """:meth:`pass_` for a thread.

        :raises Stopped: if ``stop`` is set.
        """
        for pause in self._pauses(size, worked):
            if stop.wait(pause):
                break
        if stop.is_set():
            raise Stopped

    def _pauses(self, size: int, worked: float) -> t.Iterator[float]:
        """Seconds to rest before ``size`` bytes pass, rest after rest."""
        rested = 0.0
        while (pressure := self._pressure()) > 0:
            due = min(LOOK, worked * pressure / (1 - pressure)) if pressure < 1 else rested + REST
            if rested >= due:
                break
            pause = min(REST, due - rested)
            yield pause
            rested += pause
        if self._rate > 0 and (due := self._throttle(size)) > 0:
            yield due

    def _throttle(self, size: int) -> float:
        """Take ``size`` out of what the rate has let in; below nothing, the seconds until it is made good."""
        with self._lock:
            now = time.monotonic()
            self._credit = min(self._rate * BURST, self._credit + (now - self._filled) * self._rate) - size
            self._filled = now
            return -self._credit / self._rate
