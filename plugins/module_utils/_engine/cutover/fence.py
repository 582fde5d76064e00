# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Keeping writers off the source, proving that none is left, and letting them in again (law 10).

A fence is a list of *changes*, plain data that is written down before anything is done, so that a process that knows nothing else can
undo it: :func:`lift_fence`. Each kind of change has its own file.

============== ============================================================ ==========================================================
change         what is done                                                 what proves it
============== ============================================================ ==========================================================
gate           PgBouncer is paused, or the user's command is run            the fence behind it
revoke_connect CONNECT is taken away, sessions are ended                    nobody is there, three times in a row and at the end again
locks          EXCLUSIVE locks on tables migrated; at the release as above  the locks
read_only      sessions are read-only by default, the old ones are ended    nothing was committed since the marker
external       nothing                                                      only idle sessions, and nothing was committed
============== ============================================================ ==========================================================
"""

from __future__ import annotations

import dataclasses
import typing as t
from pathlib import Path

from ..postgres.selection import EVERYTHING, Selection
from ..spec import CutoverOptions, Endpoint
from .connectfence import ConnectFence
from .externalfence import ExternalFence
from .gates import Gate, plan_gates
from .lockfence import LockFence
from .readonlyfence import ReadOnlyFence

Change = t.Dict[str, t.Any]


class Fence(t.Protocol):
    """One part of a fence. ``raise_`` and ``confirm`` raise :class:`~..errors.CutoverAborted`; nothing is undone by them."""

    ended: int
    """Sessions that were ended."""

    def __init__(self, endpoint: Endpoint, change: Change) -> None:
        """For what :meth:`plan` said."""

    @classmethod
    def plan(cls, endpoint: Endpoint, database: str) -> Change:
        """What it is going to change, without changing it."""

    def raise_(self, deadline: float) -> str:
        """Do it, prove it, and tell it in words. ``deadline`` is of ``time.monotonic()``."""

    def confirm(self, deadline: float) -> None:
        """Right before the point of no return: it still holds, and will after us."""

    def let_go(self) -> None:
        """The cutover is over, this way or that: nothing that it holds in this process is needed any more."""

    @staticmethod
    def lift(endpoint: Endpoint, change: Change) -> None:
        """Undo it; safe to repeat, and from another process."""


KINDS: dict[str, type[Fence]] = {
    "gate": Gate,
    "revoke_connect": ConnectFence,
    "read_only": ReadOnlyFence,
    "locks": LockFence,
    "external": ExternalFence,
}


def plan_fence(endpoint: Endpoint, database: str, kind: str = "revoke_connect", selection: Selection = EVERYTHING) -> Change:
    """What the fence ``kind`` will change in ``database``, of which ``selection`` is migrated."""
    return {**KINDS[kind].plan(endpoint, database), "kind": kind, "selection": dataclasses.asdict(selection)}


def plan_fences(
    endpoint: Endpoint, databases: t.Sequence[str], options: CutoverOptions, mark: Path, selection: Selection = EVERYTHING
) -> list[Change]:
    """The whole fence, in the order in which it is raised: gates first, and opened last. ``mark``: see :func:`.gates.plan_gates`."""
    changes: list[Change] = []
    try:
        for database in databases:
            changes.append(plan_fence(endpoint, database, options.fence, selection))
    except BaseException:
        for change in changes:
            make_fence(endpoint, change).let_go()
        raise
    return [*plan_gates(databases, options, mark), *changes]


def make_fence(endpoint: Endpoint, change: Change) -> Fence:
    """What raises ``change``."""
    return KINDS[change["kind"]](endpoint, change)


def lift_fence(endpoint: Endpoint, change: Change) -> None:
    """Undo ``change``; safe to repeat."""
    KINDS[change["kind"]].lift(endpoint, change)
