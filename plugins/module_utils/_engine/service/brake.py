# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The copy gives way to the change stream: the nearer the WAL that our slot holds comes to its limit, the slower the copy (law 9)."""

from __future__ import annotations

import typing as t

from ..snapshot.restraint import ramp

MOST = 0.9
"""The copy is never stopped by this, because only its end lets the stream apply: a tenth of its pace is left."""


class Brake:
    """The wish for restraint that a copy is made with: call it for 0 (none, up to half of the limit) to :data:`MOST`.

    :param pressure: how near the WAL of the slot is to its limit, from 0 to 1.
    :param say: is told once for people that the copy is slowed, and why.
    """

    def __init__(self, pressure: t.Callable[[], float], say: t.Callable[[str], None]) -> None:
        self._pressure, self._say = pressure, say
        self._said = False

    def __call__(self) -> float:
        share = self._pressure()
        wish = min(MOST, ramp(share, 1.0))
        if wish > 0 and not self._said:
            self._said = True
            self._say(f"The copy is slowed because the WAL that the replication slot holds on the source is at {share:.0%} of its limit.")
        return wish
