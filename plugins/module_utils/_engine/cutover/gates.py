# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What stands between the application and the source: a PgBouncer that is paused, a command of the user's that stops the writers.

A gate is closed before the fence, so that clients wait instead of seeing errors, and opened when the cutover is over: towards the target,
or, where it was given back, towards the source.
"""

from __future__ import annotations

import time
import typing as t
from pathlib import Path

from ..errors import CutoverAborted
from ..postgres.identifiers import quote_ident
from ..postgres.pgbouncer import order
from ..spec import CutoverOptions, Endpoint
from .commands import end_command, run_command

OPEN_SECONDS = 10.0
"""How long an order to a pooler may take that lets clients go on."""

COMMAND_SECONDS = 60.0


def plan_gates(databases: t.Sequence[str], options: CutoverOptions, mark: Path) -> list[dict[str, t.Any]]:
    """The gates that ``options`` name, as changes of a fence; ``mark`` is the file that tells of a command at work."""
    paused = list(options.pgbouncer_databases or databases)
    gates: list[dict[str, t.Any]] = [{"kind": "gate", "admin": admin, "databases": paused} for admin in options.pgbouncer]
    if options.fence_command or options.unfence_command:
        words = {"close": list(options.fence_command), "open": list(options.unfence_command)}
        gates.append({"kind": "gate", "mark": str(mark), **words})
    return gates


class Gate:
    """See :class:`~.fence.Fence`. The change is ``{"admin", "databases"}`` for a PgBouncer, ``{"close", "open", "mark"}`` for commands."""

    def __init__(self, endpoint: Endpoint, change: dict[str, t.Any]) -> None:
        self._change = change
        self.ended = 0

    @classmethod
    def plan(cls, endpoint: Endpoint, database: str) -> dict[str, t.Any]:
        """Gates are planned by :func:`plan_gates`."""
        raise NotImplementedError

    def raise_(self, deadline: float) -> str:
        """PAUSE and wait until PgBouncer's sessions on the server have ended; or run the command."""
        change = self._change
        if "admin" not in change:
            run_command(change["close"], max(1.0, deadline - time.monotonic()), Path(change["mark"]))
            return f"{change['close'][0]} run" if change["close"] else "no command"
        for name in change["databases"]:
            order(change["admin"], f"PAUSE {quote_ident(name)}", deadline)
        return "PgBouncer paused"

    def confirm(self, deadline: float) -> None:
        """The fence behind it proves it."""

    def let_go(self) -> None:
        """Nothing is held."""

    def reopen(self) -> str:
        """After the release: let the clients go on, to where the pooler's configuration leads by now."""
        change = self._change
        if "admin" not in change:
            return ""
        deadline = time.monotonic() + OPEN_SECONDS
        order(change["admin"], "RELOAD", deadline)
        for name in change["databases"]:
            order(change["admin"], f"RESUME {quote_ident(name)}", deadline)
        return "PgBouncer RELOAD, RESUME"

    @staticmethod
    def lift(endpoint: Endpoint, change: dict[str, t.Any]) -> None:
        """RESUME, or the command that lets the writers go on at the source."""
        if "admin" not in change:
            end_command(Path(change["mark"]))
            run_command(change["open"], COMMAND_SECONDS)
            return
        for name in change["databases"]:
            try:
                order(change["admin"], f"RESUME {quote_ident(name)}", time.monotonic() + OPEN_SECONDS)
            except CutoverAborted as exc:
                if "not paused" not in exc.message:
                    raise
