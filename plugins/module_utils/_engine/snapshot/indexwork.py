# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""How much of the work on indexes is done, and how fast it goes: what an honest forecast of the copy needs besides the rows."""

from __future__ import annotations

import threading
import time
import typing as t

from .progress import Progress


class Costly(t.Protocol):
    """Something with a cost: an index."""

    @property
    def cost(self) -> float:
        """Its work: bytes of the source's index, weighted by access method."""


class IndexWork:
    """Counts cost and reports ``index_work_total index_work_done index_work_ready index_work_rate``.

    Ready is what could be built now, because its table has all its rows. The rate is cost a second of all builders together: what one of
    them has achieved so far, times their number; 0 before the first is built.
    """

    def __init__(self, indexes: t.Iterable[Costly], jobs: int, progress: Progress) -> None:
        self._jobs = max(1, jobs)
        self._progress = progress
        self._lock = threading.Lock()
        self._built = self._seconds = 0.0
        self._done = self._ready = 0.0
        progress.set(index_work_total=round(_cost(indexes)), index_work_done=0, index_work_ready=0, index_work_rate=0)

    def ready(self, indexes: t.Iterable[Costly]) -> None:
        """The table of ``indexes`` has its rows."""
        with self._lock:
            self._ready += _cost(indexes)
        self._tell()

    def found(self, indexes: t.Iterable[Costly]) -> None:
        """An earlier run has built ``indexes``, which were not announced as ready."""
        with self._lock:
            self._done += _cost(indexes)
        self._tell()

    def build(self, indexes: t.Sequence[Costly], work: t.Callable[[], object]) -> None:
        """Do ``work``, which builds ``indexes`` that were ready."""
        began = time.monotonic()
        work()
        cost = _cost(indexes)
        with self._lock:
            self._seconds += time.monotonic() - began
            self._built += cost
            self._done += cost
            self._ready -= cost
        self._tell()

    def _tell(self) -> None:
        rate = self._built / self._seconds * self._jobs if self._seconds and self._built else 0
        self._progress.set(index_work_done=round(self._done), index_work_ready=round(max(0.0, self._ready)), index_work_rate=round(rate))


def _cost(indexes: t.Iterable[Costly]) -> float:
    return sum(index.cost for index in indexes)
