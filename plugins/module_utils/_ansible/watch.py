# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Watching a migration for a slice of time, and telling where it stands."""

from __future__ import annotations

import time
import typing as t

from .._engine.errors import MigrationError
from .module import MigrationModule

if t.TYPE_CHECKING:
    from .._engine.service.manager import Manager

Status = t.Dict[str, t.Any]
POLL_SECONDS = 0.5


def watch(manager: Manager, key: str, ended: t.Callable[[Status], bool], seconds: float, databases: t.Collection[str] = ()) -> Status:
    """The status of ``key`` as soon as ``ended`` holds, the migration has come to an end or a database of it (one of ``databases``, where
    they are given) is in error, or the last one after ``seconds``."""
    limit = time.monotonic() + seconds
    while True:
        status = manager.status(key)
        if status is None:
            raise MigrationError(f"The record of the migration {key} has gone while it was watched.", code="PGM8008")
        left = limit - time.monotonic()
        dead = status["state"] in ("Failed", "ValidationFailed", "Canceled") or not status["service"]["running"]
        over = dead or error_of(status, databases)
        if left <= 0 or ended(status) or over:
            return status
        time.sleep(min(POLL_SECONDS, left))


def _without_tables(status: Status) -> Status:
    """``status`` without the progress of single tables: a loop that follows a migration for days keeps every result."""
    progress = {database: {k: v for k, v in figures.items() if k != "copied"} for database, figures in status["progress"].items()}
    return {**status, "progress": progress}


def describe(module: MigrationModule, status: Status, *, reached: bool) -> None:
    """Put into the result where the migration stands."""
    module.result.add(
        migration=status["name"],
        key=status["key"],
        state=status["state"],
        substate=status["substate"],
        summary=status["summary"],
        reached=reached,
        status=_without_tables(status),
    )


def error_of(status: Status, databases: t.Collection[str] = ()) -> dict[str, t.Any] | None:
    """The migration's own error if that is how it ended, or that of the first database that is in error, of any or of ``databases``."""
    known: dict[str, t.Any] | None = status.get("error")
    if status["state"] in ("Failed", "ValidationFailed"):
        return known or {"message": f"The migration {status['name']} is {status['state']}."}
    database = ((known or {}).get("details") or {}).get("database")
    return known if not databases or database is None or database in databases else None


def fail_if_failed(module: MigrationModule, status: Status, databases: t.Collection[str] = ()) -> None:
    """Fail the task with what :func:`error_of` finds: the other databases go on meanwhile."""
    error = error_of(status, databases)
    if error:
        module.fail(MigrationError.from_dict(error), phase=status["substate"], state=status["state"])


def copied(status: Status) -> bool:
    """Is the base copy complete (or, for ``option: validate``, the validation)?"""
    waits = (status["state"], status["substate"]) == ("WaitingForUserAction", "WaitingForCutoverTrigger")
    return waits or status["state"] == "Succeeded" or status["substate"] == "CompletingMigration"


def validated(status: Status) -> bool:
    """Is the validation's outcome known, or is there none to wait for?"""
    early = ("PerformingPreRequisiteSteps", "ValidationInProgress")
    return bool(status.get("validation")) or status["substate"] not in early or status["option"] == "migrate"


def latency(status: Status) -> float | None:
    """Seconds that the slowest database is behind; None as long as one of them is not known (never a false zero)."""
    known = [figures.get("latency_seconds") for figures in status["progress"].values()]
    if not known or any(value is None for value in known):
        return None
    return max(float(value) for value in known if value is not None)


def lag(status: Status) -> int | None:
    """Bytes of WAL that the slowest database is behind; None as long as one is not known."""
    known = [figures.get("lag_bytes") for figures in status["progress"].values()]
    if not known or any(value is None for value in known):
        return None
    return max(int(value) for value in known if value is not None)
