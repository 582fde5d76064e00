# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What stands between the application and the source: a PgBouncer that is paused, a command of the user's that stops the writers.

A gate is closed before the fence, so that clients wait instead of seeing errors, and opened when the cutover is over: towards the target,
or, where it was given back, towards the source. The admin console is reached by a connection string of libpq without a password
(``passfile`` names the file that holds it).
"""

from __future__ import annotations

import select
import subprocess  # nosec: the user's own command
import time
import typing as t

from ..errors import CutoverAborted
from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_ident
from ..spec import CutoverOptions, Endpoint

OPEN_SECONDS = 10.0
"""How long an order to a pooler may take that lets clients go on."""

COMMAND_SECONDS = 60.0


def plan_gates(databases: t.Sequence[str], options: CutoverOptions) -> list[dict[str, t.Any]]:
    """The gates that ``options`` name, as changes of a fence."""
    paused = list(options.pgbouncer_databases or databases)
    gates: list[dict[str, t.Any]] = [{"kind": "gate", "admin": admin, "databases": paused} for admin in options.pgbouncer]
    if options.fence_command or options.unfence_command:
        gates.append({"kind": "gate", "close": list(options.fence_command), "open": list(options.unfence_command)})
    return gates


class Gate:
    """See :class:`~.fence.Fence`. The change is ``{"admin", "databases"}`` for a PgBouncer, ``{"close", "open"}`` for commands."""

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
            run_command(change["close"], max(1.0, deadline - time.monotonic()))
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
            run_command(change["open"], COMMAND_SECONDS)
            return
        for name in change["databases"]:
            try:
                order(change["admin"], f"RESUME {quote_ident(name)}", time.monotonic() + OPEN_SECONDS)
            except CutoverAborted as exc:
                if "not paused" not in exc.message:
                    raise


def run_command(words: t.Sequence[str], seconds: float) -> None:
    """Run the user's command; its output is told where it fails.

    :raises CutoverAborted: PGM5109 if it fails or takes too long.
    """
    if not words:
        return
    try:
        done = subprocess.run(list(words), stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise CutoverAborted(f"The command {words[0]} could not be run to its end: {exc}.", code="PGM5109") from exc
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[-200:]
        raise CutoverAborted(f"The command {words[0]} ended with status {done.returncode}: {said}", code="PGM5109")


def order(admin: str, statement: str, deadline: float) -> None:
    """Have the PgBouncer behind ``admin`` do ``statement``; its console knows simple queries only.

    :raises CutoverAborted: PGM5108 with its answer, or when ``deadline`` (``time.monotonic()``) has passed.
    """
    tried = f"Could not have PgBouncer do {statement}"
    hint = "Check cutover.pgbouncer, the pooler's admin_users and pgbouncer_databases."
    try:
        conn = psycopg.connect(admin, autocommit=True, connect_timeout=5, application_name="pgops.migration gate")
    except psycopg.Error as exc:
        raise CutoverAborted(f"{tried}: {' '.join(str(exc).split())}", code="PGM5108", hint=hint) from exc
    try:
        pgconn = conn.pgconn
        pgconn.send_query(statement.encode())
        while pgconn.is_busy():
            left = deadline - time.monotonic()
            if left <= 0:
                raise CutoverAborted(f"{tried} in time: clients are still in transactions.", code="PGM5108", hint=hint)
            if select.select([pgconn.socket], [], [], min(left, 0.5))[0]:
                pgconn.consume_input()
        result = pgconn.get_result()
        if result is not None and result.error_message:
            raise CutoverAborted(f"{tried}: {result.error_message.decode(errors='replace').strip()}", code="PGM5108", hint=hint)
    except psycopg.Error as exc:
        raise CutoverAborted(f"{tried}: {' '.join(str(exc).split())}", code="PGM5108", hint=hint) from exc
    finally:
        conn.close()
