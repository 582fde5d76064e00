# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The forecast of a stream: when it will have caught up, or which side keeps it from that."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.heartbeat import pressure
from ansible_collections.pgops.migration.plugins.module_utils._engine.monitor.parts import copied_bar
from ansible_collections.pgops.migration.plugins.module_utils._engine.service import status

MEGA = 1_000_000


def forecast(source: int, received: int, applied: int, *, latency: float = 60.0, waits: bool = False, **more: t.Any) -> tuple[t.Any, str]:
    """The judgement after ten seconds in which the three positions moved at these rates (bytes a second), from a backlog of 100 MB that has
    been received."""
    judge = status.Forecast()
    figures: dict[str, t.Any] = {}
    for second in range(11):
        places = {"source_lsn": 200 * MEGA + source * second, "received_lsn": 200 * MEGA + received * second}
        figures = {**places, "applied_lsn": 100 * MEGA + applied * second, "latency_seconds": latency, "sender_waits": waits, **more}
        if more.get("far"):
            figures["received_lsn"] = figures["applied_lsn"] + MEGA
        judge.add(float(second), figures)
    return judge.judge(figures)


def test_eta_from_both_rates() -> None:
    """100 MB behind, 5 MB/s in, 10 MB/s out: after ten seconds 50 MB are left, for ten more."""
    assert forecast(5 * MEGA, 5 * MEGA, 10 * MEGA) == (10.0, "catching up")


def test_near_is_caught_up() -> None:
    """A lone commit under way is no backlog."""
    assert forecast(5 * MEGA, 5 * MEGA, 5 * MEGA, latency=0.3) == (0.0, "caught up")


@pytest.mark.parametrize(
    "facts, side",
    [({}, "target apply"), ({"far": True}, "source decoding"), ({"far": True, "waits": True}, "network or receiver")],
)
def test_will_not_catch_up_names_the_side(facts: dict[str, t.Any], side: str) -> None:
    """The side before which the backlog stands is named."""
    assert forecast(10 * MEGA, 10 * MEGA, 2 * MEGA, **facts) == (None, f"will not catch up: {side} is the limit")


def test_summary_says_it() -> None:
    """The line of progress has the worst of all databases."""
    figures = {"phase": "streaming", "latency_seconds": 60.0, "applied": 5, "changes_per_second": 3.0}
    line = {"state": "WaitingForUserAction", "substate": "WaitingForCutoverTrigger"}
    never = {**figures, "verdict": "will not catch up: target apply is the limit", "eta_catch_up_seconds": None}
    soon = {**figures, "verdict": "catching up", "eta_catch_up_seconds": 12.0}
    assert status.summarize({**line, "progress": {"a": soon, "b": never}}).endswith("will not catch up: target apply is the limit")
    assert status.summarize({**line, "progress": {"a": soon}}).endswith("caught up in 12 s")


def test_large_objects_are_told_while_they_are_copied() -> None:
    """In the line of the loop and on the page; not any more when all are there."""
    figures: dict[str, t.Any] = {"phase": "copying", "chunks_total": 1, "bytes_total": 10, "large_objects_total": 12_000}
    figures |= {"large_objects_done": 3500, "large_object_bytes": 14_000_000}
    line: dict[str, t.Any] = {"state": "InProgress", "substate": "MigratingData", "error": None, "progress": {"a": figures}}
    assert "large objects 3,500 of 12,000, 14.0 MB" in status.summarize(line) and "3,500 of 12,000" in str(copied_bar(figures))
    figures["large_objects_done"] = 12_000
    assert "large objects" not in status.summarize(line) and "large objects" not in str(copied_bar(figures))


def test_figures_of_a_database_have_it() -> None:
    """Eta and verdict are in the status as soon as both sides have spoken."""
    progress = status.Progress()
    progress.merge({"source_lsn": 10, "received_lsn": 5})
    assert "verdict" not in progress.figures
    progress.merge({"applied_lsn": 5, "latency_seconds": 0.1})
    assert (progress.figures["eta_catch_up_seconds"], progress.figures["verdict"]) == (0.0, "caught up")


@pytest.mark.parametrize(
    "retained, safe, limit, room, expected",
    [
        (50, None, 100, None, 0.5),
        (50, None, 0, None, 0.0),
        (50, 150, 0, None, 0.25),
        (50, 50, 400, 1000, 0.5),
        (500, None, 100, None, 1.0),
        (50, -5, 0, None, 1.0),
        (0, 0, 0, None, 1.0),
        (50, 150, 400, 50, 0.5),
    ],
)
def test_pressure_is_the_nearest_limit(retained: int, safe: int | None, limit: int, room: int | None, expected: float) -> None:
    """Ours, the server's or its disk's, whichever is nearest."""
    assert pressure(retained, safe, limit, room) == expected


def test_latency_grows_when_nobody_tells_it() -> None:
    """R91: no small latency of a dead stream; what is not known stays so, and an ended one stays as it was."""
    known = {"latency_seconds": 0.4, "phase": "streaming", "changes_per_second": 100.0}
    assert status.aged(known, 1.0) == known
    assert status.aged(known, 30.0) == {**known, "latency_seconds": 30.4, "changes_per_second": 0.0}
    assert status.aged({**known, "latency_seconds": None}, 30.0)["latency_seconds"] is None
    assert status.aged({**known, "phase": "finished"}, 30.0)["latency_seconds"] == 0.4
