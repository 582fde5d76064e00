# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The copy is held back as much as was asked for, and no session more is opened than there is room for."""

from __future__ import annotations

import asyncio
import threading
import time
import typing as t

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.budget import besides_jobs, jobs_within, least, least_of_copy
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.pace import Pace
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.restraint import no_pressure, ramp
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.tools import Stopped
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from hypothesis import given
from hypothesis import strategies as st


async def pass_all(brake: Pace, count: int, size: int, worked: float = 0.0) -> float:
    began = time.monotonic()
    for dummy in range(count):
        await brake.pass_(size, worked)
    return time.monotonic() - began


def test_rate_is_kept_by_all_relays_together() -> None:
    async def both() -> float:
        brake = Pace(1_000_000, no_pressure)
        return max(await asyncio.gather(pass_all(brake, 10, 50_000), pass_all(brake, 10, 50_000)))

    seconds = asyncio.run(both())
    assert seconds > 0.7, "a million bytes at a million a second, a quarter of a second's worth at once"


def test_without_a_wish_nothing_waits() -> None:
    assert asyncio.run(pass_all(Pace(0, no_pressure), 1000, 1 << 20)) < 5


def test_pressure_is_a_duty_cycle() -> None:
    seconds = asyncio.run(pass_all(Pace(0, lambda: 0.75), 5, 1, worked=0.02))
    assert seconds >= 0.3, "three times as long as the work, five times"


def test_full_pressure_stops_until_it_is_less() -> None:
    wishes = [1.0, 1.0, 1.0, 0.0]
    seconds = asyncio.run(pass_all(Pace(0, lambda: wishes.pop(0) if len(wishes) > 1 else wishes[0]), 1, 1))
    assert seconds >= 0.5 and wishes == [0.0]


def test_a_thread_shares_the_rate_and_hears_the_stop() -> None:
    """Large objects are copied by a thread of their own."""
    brake, stop = Pace(1_000_000, no_pressure), threading.Event()
    began = time.monotonic()
    for dummy in range(10):
        brake.wait(50_000, 0.0, stop)
    assert time.monotonic() - began > 0.2
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(Stopped):
        brake.wait(1_000_000_000, 0.0, stop)


@pytest.mark.parametrize(("value", "limit", "wanted"), [(0, 10, 0), (5, 10, 0), (7.5, 10, 0.5), (10, 10, 1), (99, 10, 1), (99, 0, 0)])
def test_ramp(value: float, limit: float, wanted: float) -> None:
    assert ramp(value, limit) == wanted


@given(st.integers(1, 64), st.integers(1, 64), st.integers(0, 200), st.integers(0, 200))
def test_sessions_stay_within_their_budget(jobs: int, index_jobs: int, source: int, target: int) -> None:
    relays, builders = jobs_within(jobs, index_jobs, source, target)
    assert 1 <= relays <= jobs and 1 <= builders <= index_jobs
    assert relays <= max(1, source)
    assert relays + builders <= target or (relays, builders) == (1, 1)
    if source >= jobs and target >= jobs + index_jobs:
        assert (relays, builders) == (jobs, index_jobs)


def test_the_budget_counts_whatever_is_opened() -> None:
    """Walsenders take a place of max_connections before 12; an offline copy holds its snapshot by an ordinary session."""
    ends = {side: {"host": side, "user": "u"} for side in ("source", "target")}

    def spec(count: int = 1, **more: t.Any) -> MigrationSpec:
        return MigrationSpec.from_dict({"name": "x", "databases": [f"d{i}" for i in range(count)], **more, **ends})

    online = spec(mode="online")
    assert least_of_copy(online, "source", 150000) == 3 + 1 + 1  # plan, large objects, look; guard; relay
    assert least_of_copy(online, "source", 110000) == 3 + 1 + 1 + 2  # holder and receiver are walsenders
    assert least_of_copy(spec(), "source", 150000) == 3 + 1 + 1  # the snapshot instead of the guard
    assert least_of_copy(online, "target", 150000) == 3 + 2
    assert besides_jobs(spec(copy={"probe_query": "SELECT 1"}), "source", 150000)["standbys and probe"] == 1
    assert least(spec(8, mode="online"), "target", 150000) == 2 * 5 + 6 * 3 + 1
    assert least(spec(8), "target", 150000) == 2 * 5 + 1
