# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What a base copy reports of its tables: changes only, and never more tables than a report bears."""

from __future__ import annotations

import typing as t

from ansible_collections.pgops.migration.plugins.module_utils._engine.service.status import Progress as Received
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.progress import TABLES_SHOWN, Progress


def entry(size: int, **figures: t.Any) -> dict[str, t.Any]:
    """A table that nothing is done of."""
    return {"state": "queued", "bytes": size, "done": 0, "rows": 0, **figures}


def test_tables_are_reported_when_they_change() -> None:
    """The receiver has all tables whole although a report names only those that changed."""
    reports: list[dict[str, t.Any]] = []
    progress, received = Progress(reports.append), Received()
    progress.tables({"public.a": entry(100), "public.b": entry(50)})
    progress.table("public.a", state="loading")
    progress.flush()
    progress.table("public.a", state="complete", done=100, rows=7)
    progress.flush()
    assert list(reports[-1]["copied"]) == ["public.a"]
    for report in reports:
        received.merge(report)
    done = {"state": "complete", "bytes": 100, "done": 100, "rows": 7}
    assert received.figures["copied"] == {"public.a": done, "public.b": entry(50)}


def test_only_the_largest_are_followed() -> None:
    """Ten thousand tables make no report of ten thousand lines."""
    reports: list[dict[str, t.Any]] = []
    progress = Progress(reports.append)
    progress.tables({f"public.t{n}": entry(n) for n in range(10_000)})
    progress.table("public.t3", state="loading")  # too small to be followed: no error
    progress.flush()
    followed = set().union(*(report["copied"] for report in reports))
    assert len(followed) == TABLES_SHOWN and "public.t9999" in followed and "public.t3" not in followed
