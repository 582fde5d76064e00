# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The journal of a fence and the process that lifts it when the cutover cannot (law 10).

The journal is written before the fence and says what to undo. One lock decides between "released" (the target is the server now, the source
stays closed) and "lifted" (the source is open again): whoever comes second finds the other's word and keeps to it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import select
import sys
import time
import typing as t
from pathlib import Path

from ..errors import CutoverAborted, MigrationError
from ..migration.paths import read_json, write_json
from ..spec import Endpoint
from .fence import Change, lift_fence

RETRY_SECONDS = 1.0
"""Pause between attempts to lift a fence on a source that does not answer."""


class FenceJournal:
    """The file ``fence.json`` of a migration: ``{"state", "attempt", "deadline", "changes", "before"}``. Each attempt to cut over has a
    name, so that a watchdog that comes late cannot lift the fence of the next. ``before`` are the changes of earlier attempts that were
    released, where databases are switched over one after the other: no lift touches them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def _locked(self) -> t.Iterator[dict[str, t.Any] | None]:
        with open(self.path.with_suffix(".lock"), "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield read_json(self.path)

    def open(self, changes: list[Change], deadline: float, options: t.Mapping[str, t.Any] | None = None) -> str:
        """Say what is about to be changed and until when (``time.monotonic()``) it may last; the name of the attempt.

        :param options: of this cutover, for who has to finish its release: those of the specification may be others by then.
        """
        attempt = secrets.token_hex(8)
        with self._locked() as journal:
            before = _released(journal)
            told = {"deadline": deadline, "changes": changes, "before": before, "options": dict(options or {})}
            write_json(self.path, {"state": "fenced", "attempt": attempt, **told})
        return attempt

    def release(self) -> None:
        """The point of no return: the source stays closed.

        :raises CutoverAborted: if the fence was lifted or its time is over.
        """
        with self._locked() as journal:
            if not journal or journal["state"] != "fenced" or time.monotonic() >= journal["deadline"]:
                raise CutoverAborted("The pause lasted longer than allowed; the source was opened again.", code="PGM5106")
            write_json(self.path, {**journal, "state": "released"})

    def lift(self, endpoint: Endpoint, *, attempt: str = "", again: bool = False) -> bool:
        """Undo the fence unless it was released; True if the source is open now.

        :param attempt: only if it is the fence of this attempt.
        :param again: also where it was lifted already: the caller was still at work on the fence at that time.
        """
        with self._locked() as journal:
            if not journal or attempt and journal["attempt"] != attempt or journal["state"] == "lifted" and not again:
                return True
            if journal["state"] == "released":
                return False
            _lift_all(endpoint, journal["changes"])
            write_json(self.path, {**journal, "state": "lifted"})
            return True

    def give_back(self, endpoint: Endpoint) -> None:
        """Open a source that was released long ago, because a rollback has led back to it; safe to repeat. The gates lead elsewhere since.

        :raises MigrationError: the first error; the rest is opened.
        """
        with self._locked() as journal:
            if journal and (closed := _released(journal)):
                _lift_all(endpoint, [change for change in closed if change["kind"] != "gate"])
                write_json(self.path, {**journal, "state": "given back", "before": []})

    def changes(self) -> list[Change]:
        """What the fence changed, or is about to."""
        journal = read_json(self.path)
        return list(journal["changes"]) if journal else []

    def options(self) -> dict[str, t.Any]:
        """The options that the last attempt was begun with, as far as its release needs them."""
        return dict((read_json(self.path) or {}).get("options") or {})

    def released(self) -> set[str]:
        """Databases whose cutover is behind the point of no return: the target is their server."""
        return {change["database"] for change in _released(read_json(self.path)) if change["kind"] != "gate"}

    def state(self) -> str:
        """``none``, ``fenced``, ``released``, ``lifted``, or ``given back`` after a rollback."""
        journal = read_json(self.path)
        return str(journal["state"]) if journal else "none"

    def deadline(self, attempt: str) -> float | None:
        """Until when the fence of ``attempt`` may last; None if it does not stand any more."""
        journal = read_json(self.path)
        return float(journal["deadline"]) if journal and journal["state"] == "fenced" and journal["attempt"] == attempt else None


def _released(journal: t.Mapping[str, t.Any] | None) -> list[Change]:
    """The changes that keep the source closed for good, those of the last attempt among them if it was released."""
    if not journal:
        return []
    return [*journal.get("before", []), *(journal["changes"] if journal["state"] == "released" else [])]


def _lift_all(endpoint: Endpoint, changes: t.Sequence[Change]) -> None:
    """Undo all, the gates last; what goes wrong with one keeps none of the others closed.

    :raises MigrationError: the first error.
    """
    error: Exception | None = None
    for change in reversed(changes):
        try:
            lift_fence(endpoint, change)
        except Exception as exc:  # whatever it is, the rest of the source has to be opened
            error = error or exc
    if error:
        raise error


def watch(path: Path, endpoint: Endpoint, attempt: str) -> int:
    """Wait for the end of standard input or for the journal's deadline, then lift the fence of ``attempt`` if it was not released; the exit
    status.

    Standard input is held by the cutover's process: its end, for whatever reason, is what is waited for.
    """
    journal = FenceJournal(path)
    while (deadline := journal.deadline(attempt)) is not None:
        readable, dummy, dummy2 = select.select([sys.stdin], [], [], max(0.0, min(deadline - time.monotonic(), 1.0)))
        gone = bool(readable) and not os.read(sys.stdin.fileno(), 4096)
        if not gone and time.monotonic() < deadline:
            continue
        try:
            journal.lift(endpoint, attempt=attempt)
        except MigrationError as exc:
            sys.stderr.write(f"watchdog: {exc}; trying again\n")
            time.sleep(RETRY_SECONDS)
        except Exception as exc:  # the source must be opened whatever happens
            sys.stderr.write(f"watchdog: {type(exc).__name__}: {exc}; trying again\n")
            time.sleep(RETRY_SECONDS)
    return 0
