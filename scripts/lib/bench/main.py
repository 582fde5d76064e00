# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The benchmarks. ``scripts/bench --help`` says what is measured."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import typing as t
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests"))
import conftest  # noqa: F401  # makes the checkout importable  # pylint: disable=unused-import
import cutover
import databases
import latency
import link
import measure
import memory
import pair
import snapshot
import soak
import stream
import verify
from backlogs import CASES as BACKLOGS

SETTINGS = {
    "fsync": "on",
    "full_page_writes": "on",
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "maintenance_work_mem": "256MB",
}
CASES: dict[str, t.Callable[..., None]] = {
    "stream": stream.run,
    "snapshot": snapshot.run,
    "memory": memory.run,
    "latency": latency.run,
    "cutover": cutover.run,
    "verify": verify.run,
    "link": link.run,
    "soak": soak.run,
}
LONG = ("memory", "link", "soak")
"""Cases that run only when they are named."""


def main() -> int:
    """Arguments, servers, cases, results."""
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], metavar="case")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=3)
    snapshots = [*databases.WHOLE, *databases.ROWS]
    parser.add_argument("--only", choices=[*(case.name for case in BACKLOGS), *snapshots], default="")
    parser.add_argument("--plugin", choices=["pgoutput", "wal2json"], default="")
    parser.add_argument("--minutes", type=float, default=60.0)
    arguments = parser.parse_args()
    results = measure.Results()
    failed = []
    chosen = {
        "stream": ("only", "plugin"),
        "snapshot": ("only",),
        "verify": ("only",),
        "memory": ("plugin",),
        "latency": ("plugin",),
        "soak": ("minutes",),
    }
    for name in arguments.cases or [case for case in CASES if case not in LONG]:
        source, target = pair.make_source(settings=SETTINGS), pair.make_target(settings=SETTINGS)
        sys.stdout.write(
            f"{name}: PostgreSQL {source.version // 10000}.{source.version % 10000}, {os.cpu_count()} cores, {platform.machine()}\n"
        )
        with tempfile.TemporaryDirectory(prefix="pgm-bench-", dir=os.environ.get("TMPDIR") or "/var/tmp") as folder:
            try:
                more = {option: getattr(arguments, option) for option in chosen.get(name, ())}
                CASES[name](results, source, target, Path(folder), arguments.scale, arguments.runs, **more)
            except RuntimeError as exc:
                failed.append(name)
                sys.stdout.write(f"{name} FAILED: {exc}\n")
        source.drop()
        target.drop()
    sys.stdout.write("\n".join(["", *results.compare(), ""]))
    if arguments.json:
        arguments.json.write_text(json.dumps(results.to_list(), indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
