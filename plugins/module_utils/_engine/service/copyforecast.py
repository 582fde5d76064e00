# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""When a base copy will be complete: rows at the pace of the last seconds, and the indexes behind them.

Indexes of tables that have their rows are built while others are copied, so the longer of the two counts; those of tables that are still
copied come on top. Until the first index is built, indexes are taken to go as fast as rows. What is not known is not told: None, never a
number that only looks like one.
"""

from __future__ import annotations

import collections
import typing as t

RATE_SECONDS = 20.0
"""Length of the time over which the pace of rows is measured."""

DONE = "done"
"""The base copy's last step."""


class CopyForecast:
    """Figures of one database's copy over time; ``moment`` is a monotonic clock in seconds.

    :ivar rate: bytes of tables a second, None before a second has been watched.
    """

    def __init__(self) -> None:
        self._samples: collections.deque[tuple[float, int]] = collections.deque()
        self._pace = 0.0
        self._work: tuple[t.Any, ...] = ()
        self._moved_at = 0.0
        self.rate: int | None = None

    def add(self, moment: float, figures: t.Mapping[str, t.Any]) -> None:
        """Take the present figures, see :mod:`..snapshot.progress` and :mod:`..snapshot.indexwork`."""
        if "bytes_done" not in figures:
            return
        done = int(figures["bytes_done"])
        self._samples.append((moment, done))
        while self._samples[0][0] < moment - RATE_SECONDS:
            self._samples.popleft()
        first = self._samples[0]
        if moment - first[0] >= 1:
            rate = (done - first[1]) / (moment - first[0])
            self.rate = round(rate)
            self._pace = rate if rate > 0 else self._pace
        work = (done, figures.get("index_work_done"), figures.get("index_work_ready"))
        if work != self._work:
            self._work, self._moved_at = work, moment

    def seconds(self, moment: float, figures: t.Mapping[str, t.Any]) -> int | None:
        """Seconds until rows and indexes are there; None where that is not known: when it takes longer than was forecast, and while
        foreign keys are checked and statistics are made behind them, which nobody can tell the end of. 0 only when the copy is done."""
        if figures.get("step") == DONE:
            return 0
        rows = int(figures.get("bytes_total") or 0) - int(figures.get("bytes_done") or 0)
        indexes = int(figures.get("index_work_total") or 0) - int(figures.get("index_work_done") or 0)
        if figures.get("bytes_total") is None:
            return None
        if rows <= 0 and indexes <= 0:
            return None
        pace = self.rate if rows > 0 else self._pace
        building = float(figures.get("index_work_rate") or 0) or self._pace
        if (rows > 0 and not pace) or (indexes > 0 and not building):
            return None
        ready = min(indexes, int(figures.get("index_work_ready") or 0)) / building if indexes > 0 else 0.0
        later = max(0, indexes - int(figures.get("index_work_ready") or 0)) / building if indexes > 0 else 0.0
        left = max(rows / pace if rows > 0 and pace else 0.0, ready) + later - (moment - self._moved_at)
        return round(left) if left >= 0.5 else None
