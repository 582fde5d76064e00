# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A migration in the stream under mixed load, verified again and again: no false alarm, and at the end a row changed by hand is found."""

from __future__ import annotations

import collections
import hashlib
import json
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import measure
import pair
import servers as lab
import storm
import workload
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.paths import MigrationPaths
from ansible_collections.pgops.migration.plugins.module_utils._engine.service.proof import verify_all
from whole import Streaming

DATABASE = "soak"
SESSIONS, RATE = 8, 30.0
"""Of the writers of tests/workload.py: how many, and transactions a second of each."""

TIMES = 3
"""Verifications that have to find the row changed by hand."""


def run(
    results: measure.Results, source: lab.Server, target: lab.Server, folder: Path, scale: float, runs: int, *, minutes: float = 60.0
) -> None:
    """Once, for ``minutes``; the load is that of ``scale``, so that a slow machine's stream can follow.

    :raises RuntimeError: at a false alarm, or if what was changed by hand is not found.
    """
    prepared = Streaming(source, target, folder, "pgoutput", DATABASE, storm.SCHEMA)
    with Load(source, folder, scale) as load, prepared as streaming:
        load.start()
        time.sleep(5)
        proof = Proof(streaming)
        began = time.monotonic()
        while time.monotonic() < began + minutes * 60:
            proof.once()
        figures = proof.figures(time.monotonic() - began)
        by_hand(streaming, proof)
        commits = load.stop()
        account = workload.check(source.dsn(DATABASE), load.notes)
    figures["commit_rate"] = commits / load.seconds
    results.add("soak", f"{minutes:g} minutes", "project", figures)
    sys.stdout.write(f"soak: tables not compared in a verification, by table: {dict(proof.busy)}\n")
    if proof.alarms:
        raise RuntimeError(f"false alarms: {json.dumps(proof.alarms)[:4000]}")
    if not account.good:
        raise RuntimeError(f"the source itself lost something: {account}")


class Load:
    """The writers of tests/workload.py and those of ``storm.py``, against ``source``."""

    def __init__(self, source: lab.Server, folder: Path, scale: float) -> None:
        self._scale = scale
        self.notes, self._report, self._dsn_file = folder / "notes", folder / "storm.json", folder / "dsn"
        workload.point_at(self._dsn_file, source.dsn(DATABASE, pair.OWNER, pair.PASSWORDS[source.port]))
        self._writers = workload.Workload(self._dsn_file, SESSIONS, folder=self.notes, rate=RATE * scale)
        self._writers.prepare()
        self._storm: subprocess.Popen[bytes] | None = None
        self._began = self.seconds = 0.0

    def start(self) -> None:
        """Begin; the tables are there."""
        self._writers.start()
        words = [sys.executable, storm.__file__, str(self._dsn_file), str(self._report), str(self._scale)]
        self._storm = subprocess.Popen(words, stdin=subprocess.PIPE)
        self._began = time.monotonic()

    def stop(self) -> int:
        """End; the number of commits acknowledged."""
        self.seconds = time.monotonic() - self._began
        report = self._writers.stop()
        if self._storm is not None:
            t.cast("t.IO[bytes]", self._storm.stdin).close()
            self._storm.wait(120)
            self._storm = None
        return sum(json.loads(self._report.read_text()).values()) + sum(report["acknowledged"].values())

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *dummy: object) -> None:
        if self._storm is not None:
            self.stop()


class Proof:
    """Verifications of ``streaming`` and what they found."""

    def __init__(self, streaming: Streaming) -> None:
        self._streaming = streaming
        self._paths = MigrationPaths(streaming.host.home, streaming.spec.key)
        self.alarms: list[dict[str, t.Any]] = []
        self.busy: collections.Counter[str] = collections.Counter()
        self._times, self._rows, self._tables, self._seconds = 0, 0, 0, list[float]()

    def tables(self) -> list[dict[str, t.Any]]:
        """One verification, table by table."""
        self._streaming.refuse_errors()
        found = verify_all(self._paths, self._streaming.spec, streaming=True)
        return list(found["databases"][DATABASE]["tables"])

    def once(self) -> None:
        """One that must not find anything."""
        began = time.monotonic()
        tables = self.tables()
        self._seconds.append(time.monotonic() - began)
        self._times += 1
        self._tables += len(tables)
        self._rows += sum(table["rows_source"] for table in tables if table["compared"])
        self.busy.update(table["label"] for table in tables if not table["compared"])
        alarms = [table for table in tables if table["compared"] and not table["equal"]]
        self.alarms += alarms
        told = [json.dumps(table)[:2000] for table in tables if not table["equal"]]
        sys.stdout.write(f"verification {self._times}: {self._rows} rows so far, {self._seconds[-1]:.1f} s {' '.join(told)}\n")
        sys.stdout.flush()

    def figures(self, seconds: float) -> dict[str, float]:
        """Of all so far."""
        longest = max(self._seconds, default=0.0)
        return {
            "seconds": seconds,
            "verifications": self._times,
            "tables_compared": self._tables - sum(self.busy.values()),
            "tables_busy": sum(self.busy.values()),
            "rows_compared": self._rows,
            "false_alarms": len(self.alarms),
            "longest_seconds": longest,
        }


def by_hand(streaming: Streaming, proof: Proof) -> None:
    """Change a row on the target, remove one and add one, while the load goes on; :data:`TIMES` verifications must name exactly these.

    :raises RuntimeError: if they do not.
    """
    with streaming.target.connect(DATABASE) as conn:
        row = conn.execute("SELECT word FROM big WHERE id = 7").fetchone() or ("",)
        conn.execute("UPDATE big SET word = 'changed by hand' WHERE id = 7")
        conn.execute("DELETE FROM big WHERE id = 8")
        conn.execute("INSERT INTO big VALUES (-1, 0, 'made by hand')")
    wanted = [
        ("different", {"id": "7"}, {"word": row[0]}, {"word": "changed by hand"}),
        ("extra", {"id": "-1"}, None, {"id": "-1", "n": "0", "word": "made by hand"}),
        ("missing", {"id": "8"}, {"id": "8", "n": "0", "word": word_of(8)}, None),
    ]
    for dummy in range(TIMES):
        wrong = [table for table in proof.tables() if table["compared"] and not table["equal"]]
        named = [(d["kind"], d["key"], d["source"], d["target"]) for table in wrong for d in table["differences"]]
        if sorted(named, key=lambda one: one[0]) != wanted:
            raise RuntimeError(f"changed by hand: {wanted}; found: {json.dumps(wrong)[:4000]}")
        sys.stdout.write(f"changed by hand, found: {json.dumps(named)}\n")
        sys.stdout.flush()


def word_of(number: int) -> str:
    """What ``storm.SCHEMA`` has put into the row."""
    return hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()
