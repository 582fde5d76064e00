# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Counters of a base copy, reported at most twice a second whoever changes them."""

from __future__ import annotations

import threading
import time
import typing as t

INTERVAL = 0.5
"""Least seconds between two reports."""


class Progress:
    """The figures of one database's base copy; safe to use from several threads.

    ``bytes_*`` are bytes of the source's tables, so that total and done are of one kind whatever the COPY format.
    """

    def __init__(self, report: t.Callable[[dict[str, t.Any]], None]) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._figures: dict[str, t.Any] = {}
        self._changed: set[str] = set()
        self._last = 0.0
        self.notes: list[str] = []

    def set(self, **figures: t.Any) -> None:
        """Replace figures; a new ``step`` is reported at once."""
        with self._lock:
            self._figures.update(figures)
            self._changed.update(figures)
            self._send(now="step" in figures)

    def add(self, **figures: int) -> None:
        """Add to figures."""
        with self._lock:
            for name, value in figures.items():
                self._figures[name] = self._figures.get(name, 0) + value
            self._changed.update(figures)
            self._send()

    def note(self, text: str) -> None:
        """Say once what was dropped or adapted."""
        with self._lock:
            if text not in self.notes:
                self.notes.append(text)
                self._figures["notes"] = list(self.notes)
                self._changed.add("notes")
                self._send()

    def flush(self) -> None:
        """Report now what has changed."""
        with self._lock:
            self._send(now=True)

    def get(self, name: str) -> t.Any:
        """The present value of a figure, 0 if it was never set."""
        with self._lock:
            return self._figures.get(name, 0)

    def _send(self, now: bool = False) -> None:
        moment = time.monotonic()
        if self._changed and (now or moment - self._last >= INTERVAL):
            self._last = moment
            figures = {name: self._figures[name] for name in self._changed}
            self._changed.clear()
            self._report(figures)
