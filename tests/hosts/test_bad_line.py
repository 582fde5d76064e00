# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A whole migration whose runtime host is 300 ms away from both servers, over a line that loses one frame in twenty."""

from __future__ import annotations

import threading
import typing as t
from pathlib import Path

import psycopg
import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from host import Host
from pair import OWNER, PASSWORDS, describe, make_source, make_target
from rows import differences
from slowlink import POSSIBLE, SlowLink

DATABASE = "shop"
RATE, DELAY, LOSS = 20e6, 0.15, 0.05
PAUSE, LATENCY = 0.2, 15
"""Seconds between two commits, and how late the target may be: such a line carries some 25 KB a second, and a commit on the target takes
several round trips."""

pytestmark = pytest.mark.skipif(not POSSIBLE, reason="a link in user space needs root and TAP devices")


@pytest.fixture
def ends() -> t.Iterator[tuple[lab.Server, lab.Server]]:
    """Two servers, the source with a few thousand rows."""
    source, target = make_source(), make_target()
    source.create_database(DATABASE, OWNER)
    with source.connect(DATABASE, OWNER, PASSWORDS[source.port]) as conn:
        conn.execute("CREATE TABLE item (id int PRIMARY KEY, v int NOT NULL, filler text)")
        conn.execute("INSERT INTO item SELECT i, 0, md5(i::text) FROM generate_series(1, 5000) i")
    yield source, target
    source.drop()
    target.drop()


class Writer(threading.Thread):
    """An application near the source; ``acknowledged`` commits, until the fence ends it."""

    def __init__(self, source: lab.Server) -> None:
        super().__init__(daemon=True)
        self.source, self.acknowledged, self.over = source, 0, threading.Event()
        self.start()

    def run(self) -> None:
        """Count in the table what was committed."""
        try:
            with self.source.connect(DATABASE, OWNER, PASSWORDS[self.source.port]) as conn:
                while not self.over.wait(PAUSE):
                    conn.execute("UPDATE item SET v = v + 1 WHERE id = %s", [1 + self.acknowledged % 5000])
                    self.acknowledged += 1
        except psycopg.OperationalError:
            pass


def near_enough(status: dict[str, t.Any]) -> bool:
    """Does it wait for its cutover, less than the pre-check's limit behind?"""
    latency = status["progress"].get(DATABASE, {}).get("latency_seconds")
    return status["state"] == "WaitingForUserAction" and latency is not None and latency < LATENCY


def test_migration_over_a_bad_line(ends: tuple[lab.Server, lab.Server], tmp_path: Path) -> None:
    source, target = ends
    host = Host(tmp_path)
    with SlowLink(RATE, DELAY, LOSS) as link:
        reached = {}
        for side, server in (("source", source), ("target", target)):
            reached[side] = {"host": link.near, "port": link.lead(server.host, server.port), "password": PASSWORDS[server.port]}
            reached[side]["connect_timeout"] = 60
        described = describe(source, target, "far", [DATABASE], cutover={"max_pause": 120, "max_latency": 2 * LATENCY}, **reached)
        spec = MigrationSpec.from_dict(described)
        writer = Writer(source)
        try:
            link.start(tmp_path, described)
            host.until(spec.key, near_enough, "a stream that has caught up", 600)
            assert writer.is_alive()
            host.cut_over(spec.key, 300)
        finally:
            writer.over.set()
            writer.join()
            host.close()
    with source.connect(DATABASE) as left, target.connect(DATABASE) as right:
        assert differences(left, right) == {}
        row = right.execute("SELECT sum(v) FROM item").fetchone()
    assert row and row[0] >= writer.acknowledged > 0
