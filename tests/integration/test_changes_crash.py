# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Receiver and applier killed, servers restarted, connections cut, all under load: every row arrives once (laws 3 and 4)."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import threading
import time
import typing as t
from pathlib import Path

import psycopg
import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes import lanes as lanes_module
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import MigrationError, StreamError
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from changelab import PLUGINS, StreamLab, same
from pair import Login
from proxies import Cutter
from waits import until

DDL = """CREATE TABLE t (id int PRIMARY KEY, v int, x text); CREATE TABLE heap (a int, b text); ALTER TABLE heap REPLICA IDENTITY FULL;
CREATE TABLE log (id bigserial PRIMARY KEY, t int)"""
ROWS = "INSERT INTO t SELECT g, 0, 'x' FROM generate_series(1, 200) g"
KILLS = int(os.environ.get("PG_MIGRATION_KILLS", "8"))
"""How often a process is killed; 50 is the proof."""

CUTS = 3
"""How often the connections of each side must have been cut under load."""


class Load(threading.Thread):
    """Steady changes, through restarts of the source."""

    def __init__(self, open_: t.Callable[[], psycopg.Connection[t.Any]], seed: int) -> None:
        super().__init__(daemon=True)
        self.open, self.random, self.done = open_, random.Random(seed), threading.Event()
        self.start()

    def run(self) -> None:
        while not self.done.is_set():
            try:
                with self.open() as conn:
                    while not self.done.is_set():
                        self.once(conn)
            except psycopg.Error:
                time.sleep(0.1)

    def once(self, conn: psycopg.Connection[t.Any]) -> None:
        key = self.random.randrange(1, 201)
        with contextlib.suppress(psycopg.errors.DeadlockDetected, psycopg.errors.UniqueViolation), conn.transaction():
            conn.execute("UPDATE t SET v = v + 1, x = x || %s WHERE id = %s AND length(x) < 200", [str(key), key])
            conn.execute("INSERT INTO log (t) VALUES (%s)", [key])
            conn.execute("INSERT INTO heap VALUES (%s, 'a'), (%s, 'a')", [key % 5, key % 5])
            conn.execute("DELETE FROM heap WHERE ctid IN (SELECT ctid FROM heap WHERE a = %s LIMIT 2 FOR UPDATE SKIP LOCKED)", [key % 5])
            if key % 20 == 0:
                conn.execute("DELETE FROM t WHERE id = %s", [key])
                conn.execute("INSERT INTO t VALUES (%s, 0, 'new')", [key])
            if key % 50 == 0:
                conn.execute("UPDATE t SET v = v + 1")


@pytest.fixture
def prepared(
    source: lab.Server,
    target: lab.Server,
    owner: Login,
    admin: Login,
    source_database: str,
    target_database: str,
    spec_factory: t.Callable[..., MigrationSpec],
    tmp_path: Path,
) -> t.Iterator[t.Callable[..., tuple[StreamLab, list[Load]]]]:
    """``prepare(plugin, limits, **overrides)``: a stream that is not running (``limits`` are options of it), and writers that are."""
    made: list[tuple[StreamLab, list[Load]]] = []

    def prepare(plugin: str, limits: dict[str, t.Any] | None = None, **overrides: t.Any) -> tuple[StreamLab, list[Load]]:
        for server, login in ((source, owner), (target, admin)):
            with server.connect(source_database, login.name, login.password) as conn:
                conn.execute(DDL)
                conn.execute(ROWS)
        changes = {"batch_rows": 300, "segment_bytes": 200_000, "heartbeat": 0.5, **(limits or {})}
        stream = StreamLab(spec_factory("crash", [source_database], changes=changes, **overrides), tmp_path / "spool", plugin)
        loads = [Load(lambda: source.connect(source_database, owner.name, owner.password), seed) for seed in range(4)]
        made.append((stream, loads))
        return stream, loads

    yield prepare
    for stream, loads in made:
        for load in loads:
            load.done.set()
        stream.close()


def finish(stream: StreamLab, loads: list[Load]) -> None:
    """End the writers, drain, compare."""
    for load in loads:
        load.done.set()
    for load in loads:
        load.join(30)
    stream.drain_by_position(60)
    assert stream.differences() == {}


@pytest.mark.parametrize("plugin", PLUGINS)
def test_killed_at_random(prepared: t.Callable[..., t.Any], plugin: str) -> None:
    """SIGKILL of receiver and applier, again and again."""
    stream, loads = prepared(plugin)
    dice = random.Random(plugin)
    for role in ("receive", "apply"):
        stream.spawn(role)
    for dummy in range(KILLS):
        time.sleep(dice.uniform(0.3, 1.2))
        role = dice.choice(["receive", "apply"])
        stream.kill(role)
        stream.spawn(role)
    finish(stream, loads)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_lanes_killed_at_random(prepared: t.Callable[..., t.Any], monkeypatch: pytest.MonkeyPatch, plugin: str) -> None:
    """SIGKILL of an applier with three lanes, then two, then one, then three again."""
    monkeypatch.setattr(lanes_module, "TOGETHER", 1)
    stream, loads = prepared(plugin)
    dice = random.Random(plugin)
    stream.spawn("receive")
    for lanes in (3, 2, 1, 3) * max(1, KILLS // 4):
        stream.spec = dataclasses.replace(stream.spec, changes=dataclasses.replace(stream.spec.changes, lanes=lanes))
        stream.spawn("apply")
        time.sleep(dice.uniform(0.5, 1.5))
        stream.kill("apply")
    stream.spawn("apply")
    finish(stream, loads)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_servers_restart(prepared: t.Callable[..., t.Any], source: lab.Server, target: lab.Server, plugin: str) -> None:
    """The target crashes, the source restarts, then the other way round: the stream comes back by itself."""
    stream, loads = prepared(plugin)
    for role in ("receive", "apply"):
        stream.spawn(role)
    for crashed, restarted in ((target, source), (source, target)):
        time.sleep(1.0)
        crashed.crash()
        crashed.start()
        time.sleep(1.0)
        restarted.restart()
    time.sleep(1.0)
    finish(stream, loads)


def written(source: lab.Server, stream: StreamLab) -> int:
    """Transactions of the writers so far."""
    with source.connect(stream.database) as conn:
        row = conn.execute("SELECT count(*) FROM log").fetchone()
    return int(row[0]) if row else 0


@pytest.mark.parametrize("plugin", PLUGINS)
def test_connections_cut(prepared: t.Callable[..., t.Any], source: lab.Server, target: lab.Server, plugin: str) -> None:
    """Both connections cut after random numbers of bytes."""
    near, far = Cutter(source.host, source.port, 1, 20_000, 120_000), Cutter(target.host, target.port, 2, 15_000, 60_000)
    near.cutting = far.cutting = False
    stream, loads = prepared(plugin, source={"port": near.port}, target={"port": far.port})
    near.cutting = far.cutting = True
    for role in ("receive", "apply"):
        stream.spawn(role)
    began, rows = time.monotonic(), written(source, stream)
    while time.monotonic() < began + 300 and (near.cutting or far.cutting):  # seconds; a backlog of minutes would prove no more
        near.cutting, far.cutting = near.cuts < CUTS, far.cuts < CUTS
        time.sleep(0.05)
    load = written(source, stream) - rows
    near.cutting = far.cutting = False
    stream.check_processes()
    assert near.cuts >= CUTS, "the source's connections were not cut often enough"
    assert far.cuts >= CUTS, "the target's connections were not cut often enough"
    assert load > 100, "there was no load to speak of"
    finish(stream, loads)


def test_whoever_waits_for_a_marker_hears_the_stop(prepared: t.Callable[..., t.Any]) -> None:
    """A worker whose service was killed in a cutover ends at once, not at the end of the pause."""
    stream, dummy = prepared("pgoutput")
    stream.start()
    stream.drain()
    began = time.monotonic()
    threading.Timer(0.5, stream.stop.set).start()
    with pytest.raises(StreamError, match="stopped"):
        stream.stream.wait_marker("never written", 0, 600)
    assert time.monotonic() - began < 120


def test_lost_slot_and_lost_spool_are_told(prepared: t.Callable[..., t.Any], source: lab.Server, tmp_path: Path) -> None:
    """What no waiting cures ends the stream with the reason: the slot is gone, or the spool does not join it."""
    stream, loads = prepared("pgoutput")
    stream.start()
    stream.drain()
    stream.stop.set()
    for thread in stream.threads:
        thread.join(20)
    for path in stream.folder.glob("*.seg"):
        path.unlink()
    for load in loads:
        load.done.set()
        load.join(20)
    stream.stop.clear()
    stream.receive()
    stream.apply()
    deadline = time.monotonic() + 20
    time.sleep(1.0)
    source.execute(f"SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{stream.slot}' AND active")
    while not stream.errors:
        with contextlib.suppress(psycopg.Error):
            source.execute(
                f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{stream.slot}' AND NOT active"
            )
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert all(isinstance(error, MigrationError) for error in stream.errors)
    assert {error.code for error in stream.errors if isinstance(error, MigrationError)} <= {"PGM4001", "PGM4004", "PGM4011"}


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_paused_spool_keeps_the_connection(prepared: t.Callable[..., t.Any], source: lab.Server, plugin: str) -> None:
    """The spool is at its limit for longer than ``wal_sender_timeout``: the walsender is answered all the while, and nothing is lost."""
    source.execute("ALTER SYSTEM SET wal_sender_timeout = '2s'")
    source.reload()
    try:
        stream, loads = prepared(plugin, limits={"spool_max_bytes": 300_000})
        stream.receive()
        until(lambda: bool(stream.reports.get("paused")))
        query = f"SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{stream.slot}'"
        before = source.execute(query)
        time.sleep(5.0)
        assert source.execute(query) == before != [(None,)]
        stream.apply()
        for load in loads:
            load.done.set()
            load.join(30)
        same(stream)
    finally:
        source.execute("ALTER SYSTEM RESET wal_sender_timeout")
        source.reload()
