# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Backlogs of five kinds, drained by the built-in subscription and by the project into the same warm target."""

from __future__ import annotations

from pathlib import Path

import measure
import servers as lab
from backlogs import CASES
from drain import Backlog, project, subscription


def run(
    results: measure.Results,
    source: lab.Server,
    target: lab.Server,
    folder: Path,
    scale: float,
    runs: int,
    *,
    only: str = "",
    plugin: str = "",
) -> None:
    """All subjects in turn, ``runs`` times; ``only`` one case, one ``plugin``."""
    plugins = measure.plugins(results, "stream", source, plugin)
    for case in CASES:
        if only not in ("", case.name):
            continue
        backlog = Backlog(case, source, target, folder, scale)
        backlog.build(["pgoutput", *(p for p in plugins if p != "pgoutput")])
        for dummy in range(runs):
            sample = subscription(backlog)
            for one in plugins:
                results.add("stream", f"{case.name}-{one}", "subscription", sample)
                results.add("stream", f"{case.name}-{one}", "project", project(backlog, one))
        backlog.drop(["pgoutput", *(p for p in plugins if p != "pgoutput")])
