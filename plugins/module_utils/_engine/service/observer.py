# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Keeps history, page and Prometheus file of a migration up to date while its service runs."""

from __future__ import annotations

import threading
import time

from ..migration.catalogue import Catalogue
from ..migration.paths import MigrationPaths, own
from ..monitor.history import History, look
from .manager import Manager

SECONDS = 2.0
"""Least seconds between two pages."""

SHARE = 20
"""Writing them takes at most one part in so many of the time, however large they are."""


class Observer:
    """Looks at the migration of ``paths`` and writes what it sees; a failure is told once and ends nothing."""

    def __init__(self, paths: MigrationPaths) -> None:
        self._paths = paths
        self._manager = Manager(paths.home)
        self._history = History(paths.history)
        self._lock = threading.Lock()
        self._next = 0.0
        # samples come one after the other, whatever steps this host's clock makes; those of an earlier service lie before
        last = self._history.samples[-1].moment if self._history.samples else 0.0
        self._ahead = max(time.time(), last) - time.monotonic()
        self._told = ""

    def beat(self, *, force: bool = False) -> None:
        """Take a sample and write the files if it is time, or with ``force``; may be called from several threads."""
        began = time.monotonic()
        if began < self._next and not force:
            return
        with self._lock:
            try:
                self._look()
            except Exception as exc:  # whatever it is, a migration does not end because nobody can watch it
                self._tell(f"The page of the migration could not be written: {type(exc).__name__}: {exc}")
            finally:
                self._next = time.monotonic() + max(SECONDS, SHARE * (time.monotonic() - began))

    def _look(self) -> None:
        status = self._manager.status(self._paths.key)
        if status is None:
            return
        if self._history.add(look(status, time.monotonic() + self._ahead)):
            self._history.save()
            own(self._paths.history, self._paths.home)
        self._manager.write_report(status, self._history)

    def _tell(self, text: str) -> None:
        if text != self._told:
            self._told = text
            Catalogue(self._paths.catalogue).event(self._paths.key, "warning", text)
