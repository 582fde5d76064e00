# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The guards of the stream: DDL on the source is noticed, and our slot does not fill the source's disk (law 9)."""

from __future__ import annotations

import os
import threading
import time
import typing as t
from pathlib import Path

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.heartbeat import Heartbeat
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import MigrationError
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from changelab import StreamLab
from pair import Login

PLUGINS = ("wal2json", "pgoutput")
DDL = "CREATE TABLE t (id int PRIMARY KEY, v int); CREATE TABLE other (id int PRIMARY KEY); CREATE TYPE mood AS ENUM ('a')"
Start = t.Callable[..., StreamLab]


@pytest.fixture
def streaming(
    source: lab.Server,
    target: lab.Server,
    owner: Login,
    admin: Login,
    source_database: str,
    target_database: str,
    spec_factory: t.Callable[..., MigrationSpec],
    tmp_path: Path,
) -> t.Iterator[Start]:
    """``start(plugin, **changes)``: a running stream of :data:`DDL`."""
    labs: list[StreamLab] = []

    def start(plugin: str, **changes: t.Any) -> StreamLab:
        for server, login in ((source, owner), (target, admin)):
            with server.connect(source_database, login.name, login.password) as conn:
                conn.execute(DDL)
        made = StreamLab(spec_factory("guard", [source_database], changes={"heartbeat": 0.2, **changes}), tmp_path / "spool", plugin)
        labs.append(made)
        made.start()
        made.drain()
        return made

    yield start
    for one in labs:
        one.close()


def until(found: t.Callable[[], t.Any], seconds: float = 20.0) -> t.Any:
    """Wait until ``found`` gives something."""
    deadline = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return result


def ended(stream: StreamLab) -> MigrationError:
    """The error that ended the stream."""
    error = until(lambda: stream.errors)[0]
    assert isinstance(error, MigrationError)
    return error


@pytest.mark.parametrize("plugin", PLUGINS)
@pytest.mark.parametrize(
    "statement, table, words",
    [
        ("CREATE TABLE fresh (id int PRIMARY KEY); INSERT INTO fresh VALUES (1)", "public.fresh", "was created"),
        ("DROP TABLE other", "public.other", "was dropped"),
        ("ALTER TABLE t ADD w text", "public.t", "with w text"),
        ("ALTER TABLE t ALTER v TYPE bigint", "public.t", "without v integer, with v bigint"),
        ("ALTER TABLE t REPLICA IDENTITY FULL", "public.t", "identity f"),
        ("ALTER TYPE mood ADD VALUE 'b'", "public.mood", "with b"),
    ],
)
def test_ddl_ends_the_stream(
    streaming: Start, source: lab.Server, owner: Login, plugin: str, statement: str, table: str, words: str
) -> None:
    """By default DDL on the source ends the stream with the table and the change; a table made after the start is never lost in silence."""
    stream = streaming(plugin)
    with source.connect(stream.database, owner.name, owner.password) as conn:
        conn.execute(statement)
    error = ended(stream)
    assert error.code == "PGM4050"
    assert words in error.message
    assert error.details["tables"][0]["table"] == table


@pytest.mark.parametrize("plugin", PLUGINS)
def test_ddl_pauses_until_the_target_fits(streaming: Start, source: lab.Server, target: lab.Server, owner: Login, plugin: str) -> None:
    """With ``pause`` nothing is applied until the target's table was altered alike; then the stream goes on and loses nothing."""
    stream = streaming(plugin, on_ddl="pause")
    with source.connect(stream.database, owner.name, owner.password) as conn:
        conn.execute("ALTER TABLE t ADD w text")
        until(lambda: stream.reports.get("paused"))
        conn.execute("INSERT INTO t VALUES (1, 2, 'three')")
        time.sleep(0.5)
        with target.connect(stream.database, "admin", stream.spec.target.password) as there:
            assert there.execute("SELECT count(*) FROM t").fetchone() == (0,)
            there.execute("ALTER TABLE t ADD w text")
    stream.drain()
    assert stream.differences() == {}
    assert "public.t" in stream.warnings[0]
    assert stream.reports["paused"] == ""


def test_a_pause_outlives_its_worker(streaming: Start, source: lab.Server, target: lab.Server, owner: Login) -> None:
    """A stream that starts again while it has to be paused applies nothing first, not even what fits the target's table."""
    stream = streaming("pgoutput", on_ddl="pause")
    with source.connect(stream.database, owner.name, owner.password) as conn:
        conn.execute("ALTER TABLE t ADD w text")
        until(lambda: stream.reports.get("paused"))
        conn.execute("INSERT INTO other VALUES (1)")
    stream.stop.set()
    for thread in stream.threads:
        thread.join(20)
    over = threading.Event()
    beat = Heartbeat(stream.spec, stream.database, over, baseline=stream.baseline)
    beat.start()
    assert "public.t" in beat.paused  # known before a stream that starts it goes on
    over.set()
    stream.stop.clear()
    stream.reports.clear()
    stream.start()
    until(lambda: stream.reports.get("paused"))
    marked = stream.mark()[1]
    until(lambda: stream.reports.get("received_lsn", 0) > marked)
    time.sleep(0.5)
    with target.connect(stream.database, "admin", stream.spec.target.password) as there:
        assert there.execute("SELECT count(*) FROM other").fetchone() == (0,)
        there.execute("ALTER TABLE t ADD w text")
    stream.drain()
    assert stream.differences() == {}


@pytest.mark.parametrize("plugin", ["pgoutput", "wal2json"])
def test_ddl_ignored_is_said(streaming: Start, source: lab.Server, owner: Login, plugin: str) -> None:
    """With ``ignore`` the stream goes on, and says what it does not carry; the receiver's next connection makes no difference."""
    stream = streaming(plugin, on_ddl="ignore")
    with source.connect(stream.database, owner.name, owner.password) as conn:
        conn.execute("CREATE TABLE fresh (id int PRIMARY KEY); INSERT INTO t VALUES (1, 1)")
    assert "public.fresh was created" in until(lambda: stream.warnings)[0]
    stream.drain()
    source.execute(f"SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{stream.slot}'")
    with source.connect(stream.database, owner.name, owner.password) as conn:
        conn.execute("INSERT INTO fresh VALUES (2); INSERT INTO t VALUES (2, 2)")
    stream.drain()
    assert not stream.errors and set(stream.differences()) == {"fresh"}


def test_slot_that_holds_too_much_is_dropped(streaming: Start, source: lab.Server, owner: Login) -> None:
    """Beyond ``max_retained_wal_bytes`` the slot goes and the stream ends, rather than the source's disk; it is warned before."""
    stream = streaming("pgoutput", max_retained_wal_bytes=30_000_000)
    until(lambda: "retained_wal_bytes" in stream.reports)
    assert stream.reports["wal_status"] == "reserved"
    with source.connect(stream.database, owner.name, owner.password) as conn:
        conn.execute("BEGIN")
        conn.execute("INSERT INTO other VALUES (1)")  # an open transaction: the slot cannot let go of anything from here on
        with source.connect(stream.database, owner.name, owner.password) as other:
            for number in range(200):
                other.execute("SELECT pg_logical_emit_message(false, 'filler', repeat('x', 500000))")
                if stream.errors:
                    break
                if number == 52:  # between the warning and the limit
                    until(lambda: stream.warnings)
            error = ended(stream)
        conn.execute("ROLLBACK")
    assert error.code in ("PGM4006", "PGM4001")  # whichever of applier and receiver saw it first
    assert "PGM4006" in {getattr(e, "code", "") for e in until(lambda: len(stream.errors) == 2 and stream.errors)}
    assert any("max_retained_wal_bytes" in text for text in stream.warnings)
    with source.connect("postgres") as conn:
        assert conn.execute("SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s", [stream.slot]).fetchone() == (0,)


def test_room_on_the_source_s_disk(streaming: Start, source: lab.Server) -> None:
    """Where the source is this machine and says where its data is, its free room is known; it is part of what warns and slows the copy."""
    source.execute("REVOKE pg_read_all_settings FROM migrator")
    try:
        stream = streaming("pgoutput")
        until(lambda: "source_room_bytes" in stream.reports)
        assert stream.reports["source_room_bytes"] is None
    finally:
        source.execute("GRANT pg_read_all_settings TO migrator")
    found = until(lambda: stream.reports["source_room_bytes"])
    there = os.statvfs(source.folder)
    assert 0.5 < found / (there.f_bavail * there.f_frsize) < 2
