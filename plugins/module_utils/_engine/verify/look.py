# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What it takes to look again at one table while it is written to."""

from __future__ import annotations

import typing as t

from .sides import Pair, Reading, Side

Settle = t.Callable[[], None]
"""Returns when the target has everything that was committed on the source before the call."""

ROUNDS = 12
STRIKES = 2
"""Rounds in a row that must find the same before it is called wrong. A commit can be seen on the target a moment before the source shows it
(it is in the WAL, and waits for a synchronous standby or for the processor), so once is not enough."""

CONFIRM_SECONDS = 1.0
"""Before the round that calls something wrong."""


class Look(t.NamedTuple):
    """A table on both sides, ``sides`` and ``readings`` being those of source and target; their first sessions see the present moment."""

    pair: Pair
    sides: tuple[Side, Side]
    readings: tuple[Reading, Reading]
    settle: Settle
