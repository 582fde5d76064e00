# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The latency of single commits under a steady load: each row carries its moment, and is looked for on the target."""

from __future__ import annotations

import statistics
import threading
import time
import typing as t
from pathlib import Path

import measure
import servers as lab
from whole import Streaming

RATE = 2000
"""Commits a second."""

SECONDS = 30.0
WARM_UP = 3.0
"""Seconds at the beginning that do not count."""

LOOK = 0.02
"""Seconds between two looks at the target: the figures are too large by up to so much."""

SCHEMA = "CREATE TABLE tick (id bigserial PRIMARY KEY, at timestamptz NOT NULL)"
ARRIVED = "SELECT id, extract(epoch FROM at)::float8 FROM tick WHERE id > %s"


class Looker(threading.Thread):
    """Looks for new rows on the target; ``seen`` is, for each, its moment and its latency in seconds."""

    def __init__(self, target: lab.Server, database: str) -> None:
        super().__init__(daemon=True)
        self._login = target, database
        self.over = threading.Event()
        self.seen: list[tuple[float, float]] = []

    def run(self) -> None:
        target, database = self._login
        ids: set[int] = set()
        with target.connect(database) as conn:
            while not self.over.is_set():
                # ids are given out before the commits, so a few low ones come late
                rows = conn.execute(ARRIVED, [max(ids, default=0) - 500]).fetchall()
                now = time.time()
                self.seen += [(at, now - at) for key, at in rows if key not in ids]
                ids.update(key for key, dummy in rows)
                self.over.wait(LOOK)


def load(source: lab.Server, database: str, folder: Path, seconds: float) -> None:
    """:data:`RATE` transactions a second of one row each."""
    script = folder / "tick.sql"
    script.write_text("INSERT INTO tick (at) VALUES (clock_timestamp());\n")
    words: list[t.Any] = [source.bindir / "pgbench", "-h", source.host, "-p", str(source.port), "-U", source.superuser, "-n"]
    words += ["-M", "prepared", "-c", "16", "-j", "2", "-R", str(RATE), "-T", str(round(seconds)), "-f", script, database]
    measure.run(words, folder / "latency.log", measure.passfile(folder, source))


def run(
    results: measure.Results, source: lab.Server, target: lab.Server, folder: Path, scale: float, runs: int, *, plugin: str = ""
) -> None:
    """Each plugin ``runs`` times, ``30 * scale`` seconds each.

    :raises RuntimeError: if rows are missing at the end.
    """
    seconds = max(WARM_UP + 2, SECONDS * scale)
    for one in measure.plugins(results, "latency", source, plugin):
        with Streaming(source, target, folder, one, f"latency_{one}", SCHEMA) as streaming:
            for dummy in range(runs):
                results.add("latency", f"{RATE}-{one}", "project", _once(streaming, folder, seconds))
            streaming.digest("tick")


def _once(streaming: Streaming, folder: Path, seconds: float) -> dict[str, float]:
    source, target, database = streaming.source, streaming.target, streaming.database
    source.execute("TRUNCATE tick RESTART IDENTITY", database)
    _wait(target, database, 0, streaming)
    looker = Looker(target, database)
    looker.start()
    began = time.time()
    try:
        load(source, database, folder, seconds)
        written = source.execute("SELECT count(*) FROM tick", database)[0][0]
        _wait(target, database, written, streaming)
    finally:
        time.sleep(5 * LOOK)
        looker.over.set()
        looker.join()
    late = [latency for at, latency in looker.seen if at > began + WARM_UP]
    cuts = statistics.quantiles(late, n=100)
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "worst": max(late), "commit_rate": written / seconds}


def _wait(target: lab.Server, database: str, rows: int, streaming: Streaming, patience: float = 120.0) -> None:
    limit = time.monotonic() + patience
    while target.execute("SELECT count(*) FROM tick", database)[0][0] != rows:
        streaming.refuse_errors()
        if time.monotonic() > limit:
            raise RuntimeError(f"{rows} rows were written, the target does not get them")
        time.sleep(0.1)
