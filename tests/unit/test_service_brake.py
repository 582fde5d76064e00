# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The copy gives way to the stream."""

from __future__ import annotations

import threading
import typing as t
from pathlib import Path

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.service import worker
from ansible_collections.pgops.migration.plugins.module_utils._engine.service.brake import Brake


@pytest.mark.parametrize("share, wish", [(0.0, 0.0), (0.5, 0.0), (0.75, 0.5), (0.98, 0.9), (1.0, 0.9)])
def test_wish_grows_with_the_wal_and_never_stops_the_copy(share: float, wish: float) -> None:
    """None up to half of the limit, then more and more, never all."""
    assert Brake(lambda: share, lambda text: None)() == wish


def test_it_is_said_once() -> None:
    """With the reason, and not before there is one."""
    said: list[str] = []
    shares = iter([0.2, 0.8, 0.3, 0.9])
    brake = Brake(lambda: next(shares), said.append)
    assert brake() == 0 and not said
    for dummy in range(3):
        brake()
    assert said == ["The copy is slowed because the WAL that the replication slot holds on the source is at 80% of its limit."]


def test_the_worker_copies_with_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the heartbeat measures is what the copy is held back by, and the service is told."""
    wishes: list[float] = []
    told: list[dict[str, t.Any]] = []

    class Copy:
        def __init__(self, *arguments: t.Any) -> None:
            self.pressure = arguments[5]

        def run(self) -> None:
            wishes.append(self.pressure())

    class Guard:
        pressure = 0.75
        error = None

    class Link:
        stop = threading.Event()

        def on(self, *dummy: t.Any) -> None:
            self.stop.set()

        def send(self, **report: t.Any) -> None:
            told.append(report)

    class Paths:
        def work(self, database: str) -> Path:
            return tmp_path

        def command(self, role: str, database: str) -> list[str]:
            return []

    class Anything:
        snapshot = consistent_point = choice = messages = None
        online = True

        def close(self) -> None:
            """Nothing is open."""

    prepared = Anything()
    prepared.snapshot = prepared.choice = Anything()  # type: ignore[assignment]
    monkeypatch.setattr(worker, "BaseCopy", Copy)
    monkeypatch.setattr(worker, "CopyJob", lambda **dummy: None)
    monkeypatch.setattr(worker.Worker, "_guard", lambda *dummy: Guard())
    t.cast("t.Any", worker.Worker)(Paths(), None, "d", Link())._copy(prepared)
    assert wishes == [0.5]
    assert any("slowed because" in str(report) for report in told)
