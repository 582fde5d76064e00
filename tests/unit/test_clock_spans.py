# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Spans of time that no step of the clock changes: over processes and over reboots."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration import clock


@pytest.mark.parametrize(
    ("begin", "end", "otherwise", "seconds"),
    [
        ({"boot": "a", "uptime": 10.0}, {"boot": "a", "uptime": 12.5}, 3602.5, 2.5),
        ({"boot": "a", "uptime": 10.0}, {"boot": "a", "uptime": 12.5}, -3597.5, 2.5),
        ({"boot": "a", "uptime": 900.0}, {"boot": "b", "uptime": 3.0}, 60.0, 60.0),
        ({"boot": "a", "uptime": 900.0}, {"boot": "b", "uptime": 3.0}, -60.0, 0.0),
        ({"boot": "", "uptime": 900.0}, {"boot": "", "uptime": 3.0}, 60.0, 60.0),
        (None, {"boot": "a", "uptime": 3.0}, 60.0, 60.0),
    ],
)
def test_spans(begin: dict[str, object] | None, end: dict[str, object], otherwise: float, seconds: float) -> None:
    """The monotonic clock within one boot of the host, else the clock that shows the day, which never counts backwards."""
    assert clock.span(begin, end, otherwise) == seconds


def test_marks_of_one_boot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two marks of this process are as far apart as they were made; without Linux's name of the boot they are not compared."""
    first = clock.mark()
    time.sleep(0.01)
    assert 0.005 < clock.span(first, clock.mark(), 3600.0) < 60
    monkeypatch.setattr(clock, "BOOT", tmp_path / "nothing")
    assert clock.span(clock.mark(), clock.mark(), 7.0) == 7.0
