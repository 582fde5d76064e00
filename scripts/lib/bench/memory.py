# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""One transaction of five million changes through a whole migration: exact, and no process above 300 MB."""

from __future__ import annotations

import time
from pathlib import Path

import measure
import servers as lab
from hugelab import ARRIVED, LIMIT, SCHEMA, huge
from whole import Streaming

TIMEOUT = 3600.0


def run(
    results: measure.Results, source: lab.Server, target: lab.Server, folder: Path, scale: float, runs: int, *, plugin: str = ""
) -> None:
    """Each plugin once: the figure hardly moves.

    :raises RuntimeError: if a process took more than :data:`hugelab.LIMIT`, or the rows differ.
    """
    changes = max(1000, round(5_000_000 * scale))
    for one in measure.plugins(results, "memory", source, plugin):
        with Streaming(source, target, folder, one, f"memory_{one}", SCHEMA) as streaming:
            huge(source, streaming.database, changes)
            began = time.monotonic()
            with target.connect(streaming.database) as conn:
                while conn.execute(ARRIVED).fetchone() != (True,):
                    streaming.refuse_errors()
                    if time.monotonic() - began > TIMEOUT:
                        raise RuntimeError(f"not applied within {TIMEOUT:.0f} s")
                    time.sleep(0.2)
            seconds = time.monotonic() - began
            peaks = streaming.peaks()
            streaming.digest("big")
        for process, peak in sorted(peaks.items()):
            results.add("memory", f"{changes}-{one}", process, {"rss_bytes": peak, "seconds": seconds})
        above = {process: peak for process, peak in peaks.items() if peak > LIMIT}
        if above or set(peaks) != {"service", "receiver", "worker"}:
            raise RuntimeError(f"{one}: resident bytes {peaks}, allowed are {LIMIT} for each of service, receiver, worker")
