# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Counters of a base copy, reported at most twice a second whoever changes them."""

from __future__ import annotations

import threading
import time
import typing as t

INTERVAL = 0.5
"""Least seconds between two reports."""

TABLES_SHOWN = 200
"""Tables that are reported one by one, the largest of a database; the others are in the totals."""


class Progress:
    """The figures of one database's base copy; safe to use from several threads. ``moved`` is when one changed (monotonic clock).

    ``bytes_*`` are bytes of the source's tables, so that total and done are of one kind whatever the COPY format. ``copied`` in a report
    holds the tables, by label, that have changed since the last one.
    """

    def __init__(self, report: t.Callable[[dict[str, t.Any]], None]) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._figures: dict[str, t.Any] = {}
        self._changed: set[str] = set()
        self._last = 0.0
        self._tables: dict[str, dict[str, t.Any]] = {}
        self._moved: set[str] = set()
        self.notes: list[str] = []
        self.moved = time.monotonic()

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

    def tables(self, tables: t.Mapping[str, dict[str, t.Any]]) -> None:
        """Follow these tables one by one, by label: ``state`` (queued, loading, complete, errored), ``bytes``, ``done`` (bytes), ``rows``.
        Only the :data:`TABLES_SHOWN` largest are."""
        with self._lock:
            largest = sorted(tables, key=lambda label: -int(tables[label]["bytes"]))[:TABLES_SHOWN]
            self._tables.update({label: dict(tables[label]) for label in largest})
            self._moved.update(largest)
            self._send()

    def table(self, label: str, *, state: str = "", done: int = 0, rows: int = 0) -> None:
        """Give a table that is followed another state, and add to what is done of it."""
        with self._lock:
            entry = self._tables.get(label)
            if entry is not None:
                entry.update(state=state or entry["state"], done=entry["done"] + done, rows=entry["rows"] + rows)
                self._moved.add(label)
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
        self.moved = moment if self._changed or self._moved else self.moved
        if (self._changed or self._moved) and (now or moment - self._last >= INTERVAL):
            self._last = moment
            figures = {name: self._figures[name] for name in self._changed}
            if self._moved:
                figures["copied"] = {label: dict(self._tables[label]) for label in self._moved}
            self._changed.clear()
            self._moved.clear()
            self._report(figures)
