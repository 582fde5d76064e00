# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The forecast of a base copy: rows and indexes, and nothing where nothing is known."""

from __future__ import annotations

import time
import typing as t

from ansible_collections.pgops.migration.plugins.module_utils._engine.service.copyforecast import CopyForecast
from ansible_collections.pgops.migration.plugins.module_utils._engine.service.status import Progress as Status
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.indexwork import IndexWork
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.progress import Progress
from hypothesis import given, settings
from hypothesis import strategies as st

MB = 1_000_000


class One(t.NamedTuple):
    cost: float


def copying(done: int, **more: int) -> dict[str, t.Any]:
    return {"bytes_total": 1000 * MB, "bytes_done": done * MB, **{name: value * MB for name, value in more.items()}}


def watched(*samples: dict[str, t.Any], step: float = 10.0) -> tuple[CopyForecast, float]:
    """A forecast that was told ``samples``, and the moment of the last."""
    forecast, moment = CopyForecast(), 0.0
    for sample in samples:
        forecast.add(moment, sample)
        moment += step
    return forecast, moment - step


def test_rows_alone() -> None:
    forecast, moment = watched(copying(0), copying(500))
    assert forecast.rate == 50 * MB
    assert forecast.seconds(moment, copying(500)) == 10


def test_nothing_is_known_before_a_second_has_passed() -> None:
    forecast, moment = watched(copying(0))
    assert forecast.rate is None and forecast.seconds(moment, copying(0)) is None
    assert forecast.seconds(0.0, {}) is None


def test_indexes_behind_the_rows_come_on_top() -> None:
    """Before the first is built they are taken to be as fast as rows, afterwards as fast as they are."""
    now = copying(500, index_work_total=250)
    forecast, moment = watched(copying(0, index_work_total=250), now)
    assert forecast.seconds(moment, now) == 10 + 5
    assert forecast.seconds(moment, {**now, "index_work_rate": 10 * MB}) == 10 + 25


def test_indexes_that_are_built_meanwhile_count_where_they_take_longer() -> None:
    now = copying(500, index_work_total=300, index_work_ready=300, index_work_rate=10)
    forecast, moment = watched(copying(0), now)
    assert forecast.seconds(moment, now) == 30
    assert forecast.seconds(moment, {**now, "index_work_ready": 50 * MB}) == 10 + 25


def test_after_the_rows_it_is_not_over() -> None:
    """R90's trap: all bytes are there, and the indexes take an hour more."""
    now = copying(1000, index_work_total=300, index_work_done=100, index_work_ready=200, index_work_rate=10)
    forecast, moment = watched(copying(0), copying(500), now)
    assert forecast.seconds(moment, now) == 20
    assert forecast.seconds(moment + 15, now) == 5, "it counts down while nobody reports"
    assert forecast.seconds(moment + 30, now) is None, "longer than was forecast: not known"
    over = copying(1000, index_work_total=300, index_work_done=300)
    for step in ("indexes", "constraints", "finish"):
        assert forecast.seconds(moment + 30, {**over, "step": step}) is None, "foreign keys and statistics are still to come"
    assert forecast.seconds(moment + 30, {**over, "step": "done"}) == 0


def test_a_copy_that_stands_still_has_no_end() -> None:
    forecast, moment = watched(copying(500), copying(500), copying(500))
    assert forecast.rate == 0 and forecast.seconds(moment, copying(500)) is None


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 40), st.integers(0, 500), st.integers(1, 40), st.integers(1, 400))
def test_at_an_even_pace_it_never_promises_too_little(pace: int, work: int, building: int, before: int) -> None:
    """One table and its indexes behind it: what is told is what it takes."""
    done = min(1000, pace * before)
    now = copying(done, index_work_total=work, index_work_rate=building)
    forecast, moment = watched(copying(max(0, done - pace)), now, step=1.0)
    told = forecast.seconds(moment, now)
    takes = (1000 - done) / (done - max(0, done - pace)) + work / building
    assert told is None if takes < 0.5 else told is not None and abs(told - takes) <= 1


def test_work_on_indexes_is_counted() -> None:
    """What an earlier run has built is done and says nothing of the pace; two builders count twice."""
    seen: dict[str, t.Any] = {}
    progress = Progress(seen.update)
    work = IndexWork([One(100), One(300), One(600)], 2, progress)
    work.found([One(100)])
    progress.flush()
    assert (seen["index_work_total"], seen["index_work_done"], seen["index_work_rate"]) == (1000, 100, 0)
    work.ready([One(300)])
    progress.flush()
    assert seen["index_work_ready"] == 300
    work.build([One(300)], lambda: time.sleep(0.05))
    progress.flush()
    assert (seen["index_work_ready"], seen["index_work_done"]) == (0, 400)
    assert 600 < seen["index_work_rate"] <= 2 * 300 / 0.05


def test_the_status_has_it() -> None:
    """Not 0 when the rows are there but the indexes are not; 0 when the phase is over."""
    status = Status()
    status.phase("copying")
    status.merge({"bytes_total": 100, "bytes_done": 100, "index_work_total": 1000, "index_work_done": 0, "index_work_ready": 1000})
    assert status.present()["eta_seconds"] is None
    status.merge({"index_work_done": 100, "index_work_ready": 900, "index_work_rate": 10})
    assert status.present()["eta_seconds"] in (89, 90)
    status.merge({"index_work_done": 1000, "index_work_ready": 0, "step": "constraints"})
    assert status.present()["eta_seconds"] is None
    status.phase("streaming")
    assert status.present()["eta_seconds"] == 0
    status.phase("preparing")
    assert status.present()["eta_seconds"] is None, "it is begun again"
