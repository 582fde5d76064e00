# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""SIGKILL of ansible-playbook, with all that it started, at one point after the other of a migration: the service works on,
the next play takes it up."""

from __future__ import annotations

import os
import time
import typing as t
from pathlib import Path

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.service.manager import Manager
from host import end_services
from pair import describe, make_target
from plays import Playbooks
from rows import differences

POINTS = os.environ.get("PG_MIGRATION_CONTROL_KILLS", "copy").split(",")
"""Where, in this order; ``PG_MIGRATION_CONTROL_KILLS=validate,copy,stream,cutover`` for all. ``test_cutover_killed.py`` reaches its phases
by another way."""


@pytest.fixture(scope="module")
def target() -> t.Iterator[lab.Server]:
    """A target of this module's own: migrations leave roles and memberships on it."""
    server = make_target()
    yield server
    server.drop()


@pytest.fixture
def plays(tmp_path: Path, source: lab.Server, target: lab.Server, owner: t.Any, source_database: str) -> t.Iterator[Playbooks]:
    """A migration whose copy takes some seconds."""
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute("CREATE TABLE big AS SELECT g AS id, repeat('x', 200) AS text FROM generate_series(1, 40000) g")
        conn.execute("ALTER TABLE big ADD PRIMARY KEY (id)")
    copy = {"throttle": 1 << 20, "bindir": str(source.bindir)}
    told = describe(source, target, "control", [source_database], copy=copy, cutover={"max_pause": 120, "max_latency": 60})
    one = Playbooks(tmp_path, told)
    yield one
    end_services(one.home)


class Control:
    """The control node's end of it."""

    def __init__(self, plays: Playbooks, database: str) -> None:
        self.plays, self.database = plays, database

    def status(self) -> dict[str, t.Any]:
        """What the runtime host knows, empty before anything began."""
        if not (self.plays.home / "catalogue.db").exists():
            return {}
        return Manager(self.plays.home, supervisor="process").status("control") or {}

    def until(self, reached: t.Callable[[dict[str, t.Any]], t.Any], what: str, seconds: float = 240.0) -> dict[str, t.Any]:
        """Look until it is so."""
        limit = time.monotonic() + seconds
        while not ((status := self.status()) and reached(status)):
            assert time.monotonic() < limit, f"{what}: {status} {(self.plays.folder / 'play.log').read_text(encoding='utf-8')[-3000:]}"
            time.sleep(0.05)
        return status

    def at(self, point: str) -> t.Callable[[dict[str, t.Any]], t.Any]:
        """Is the migration there?"""
        if point == "validate":
            return lambda status: status["service"]["pid"]
        if point == "copy":
            return lambda status: status["progress"].get(self.database, {}).get("bytes_moved")
        return lambda status: status["state"] == "WaitingForUserAction"


def test_killed_at_one_point_after_the_other(plays: Playbooks, source: lab.Server, target: lab.Server, source_database: str) -> None:
    """The service stays the same process, and the last play changes nothing. A cutover that was asked for succeeds by itself."""
    control, pids = Control(plays, source_database), set()
    for point in POINTS:
        if point != "cutover":
            play = plays.begin("migrate")
            pids.add(control.until(control.at(point), point)["service"]["pid"])
            plays.kill(play)
    last = plays.play("migrate", timeout=600).fine()
    assert "WaitingForCutoverTrigger" in last.text
    if pids:
        assert last.changed == 0 and pids == {control.status()["service"]["pid"]}
    source.execute("DELETE FROM big WHERE id % 2 = 0", source_database)
    if "cutover" in POINTS:
        play = plays.begin("cutover")
        control.until(lambda status: status["cutover_phase"] or status["state"] == "Succeeded", "the cutover")
        plays.kill(play)
        control.until(lambda status: status["state"] == "Succeeded", "Succeeded")
    again = plays.play("cutover", timeout=600).fine()
    assert (again.changed == 0) == ("cutover" in POINTS)
    with source.connect(source_database) as left, target.connect(source_database) as right:
        assert differences(left, right) == {}
