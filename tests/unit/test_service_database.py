# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""One database as the service sees it."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.paths import MigrationPaths
from ansible_collections.pgops.migration.plugins.module_utils._engine.service.database import Database


def test_figures_that_come_after_the_end_are_not_taken(tmp_path: Path) -> None:
    """What a worker told before it heard that it is over is older than the end: a database that has ended has no latency that grows."""
    one = Database(MigrationPaths(tmp_path, "key"), "shop", lambda *dummy: None, lambda: None, lambda: None)
    hear = one._heard  # pylint: disable=protected-access
    hear({"progress": {"latency_seconds": 0.2, "lag_bytes": 100}})
    one.finished()
    hear({"progress": {"latency_seconds": 3.9, "lag_bytes": 418496}})
    assert (one.progress.present()["latency_seconds"], one.progress.present()["lag_bytes"]) == (0.0, 0)


def test_a_stream_that_ended_before_it_told_its_latency_has_none(tmp_path: Path) -> None:
    """A release that another life of the service had begun may be over before the first heartbeat has come through."""
    one = Database(MigrationPaths(tmp_path, "key"), "shop", lambda *dummy: None, lambda: None, lambda: None)
    one.plugin = {"plugin": "pgoutput", "reason": ""}
    one.finished()
    assert one.progress.present()["latency_seconds"] == 0.0
