# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""How fast the relays of one process may go: a rate in bytes a second, and a duty cycle for the pressure of :mod:`.restraint`.

At a pressure of 0.75 a relay rests three times as long as it worked; at 1 it rests until there is less.
"""

from __future__ import annotations

import asyncio
import time
import typing as t

LOOK = 4.0
"""Seconds after which a rest ends at the latest where the pressure is below 1."""

REST = 0.25
"""Seconds of one rest; after each the pressure is read again."""

BURST = 0.25
"""Seconds' worth of bytes that may pass at once after a rest."""


class Pace:
    """See the module; all relays of a process share one.

    :param rate: bytes a second of all of them together; 0: no limit.
    :param pressure: called up to four times a second by each relay, so it must answer at once; from 0 (none) to 1 (stop).
    """

    def __init__(self, rate: int, pressure: t.Callable[[], float]) -> None:
        self._rate = rate
        self._pressure = pressure
        self._credit = rate * BURST
        self._filled = time.monotonic()

    async def pass_(self, size: int, worked: float) -> None:
        """Let ``size`` bytes pass when it is their time; ``worked``: seconds of work since the last call of the same relay."""
        rested = 0.0
        while (pressure := self._pressure()) > 0:
            due = min(LOOK, worked * pressure / (1 - pressure)) if pressure < 1 else rested + REST
            if rested >= due:
                break
            pause = min(REST, due - rested)
            await asyncio.sleep(pause)
            rested += pause
        if self._rate > 0:
            await self._throttle(size)

    async def _throttle(self, size: int) -> None:
        """Take ``size`` out of what the rate has let in; below nothing, sleep until it is made good."""
        now = time.monotonic()
        self._credit = min(self._rate * BURST, self._credit + (now - self._filled) * self._rate) - size
        self._filled = now
        if self._credit < 0:
            await asyncio.sleep(-self._credit / self._rate)
