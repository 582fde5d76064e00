# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The flow of the stream: latency, what is acknowledged, the limit of the spool, the choice of the plugin, many tables."""

from __future__ import annotations

import time
import typing as t

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import MigrationError, StreamError
from ansible_collections.pgops.migration.plugins.module_utils._engine.source.plugin import choose_plugin
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from changelab import PLUGINS, Start, same


def test_idle_source_and_latency(streaming: Start) -> None:
    """On an idle source the position advances, latency is small, and the slot is confirmed."""
    stream = streaming("pgoutput", "CREATE TABLE t (id int PRIMARY KEY)", heartbeat=0.3)
    stream.drain()
    time.sleep(2.5)
    assert stream.reports["latency_seconds"] < 2
    first = stream.stream.position.end_lsn  # type: ignore[union-attr]
    stream.stop.set()
    for thread in stream.threads:
        thread.join(10)
    frozen = stream.stream.latency()  # type: ignore[union-attr]
    time.sleep(1.2)
    assert stream.stream.latency() > frozen + 1  # type: ignore[union-attr,operator]
    with stream.app() as conn:  # type: ignore[attr-defined]
        row = conn.execute(
            "SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots WHERE slot_name = %s", [stream.slot]
        ).fetchone()
    assert row is not None and int(row[0]) >= stream.start_lsn
    assert first > stream.start_lsn


@pytest.mark.parametrize("plugin", PLUGINS)
def test_latency_where_messages_are_refused(streaming: Start, source: lab.Server, source_database: str, plugin: str) -> None:
    """The source's position at the beat does what the message cannot: latency is small on an idle source, and grows with a dead stream."""
    source.execute("REVOKE EXECUTE ON FUNCTION pg_catalog.pg_logical_emit_message(boolean, text, text) FROM PUBLIC", source_database)
    stream = streaming(plugin, "CREATE TABLE t (id int PRIMARY KEY)", heartbeat=0.3)
    assert not stream.choice.messages
    deadline = time.monotonic() + 20
    while not (stream.stream.latency() or 99.0) < 2:  # type: ignore[union-attr]
        assert time.monotonic() < deadline, str(stream.reports)
        time.sleep(0.1)
    stream.stop.set()
    for thread in stream.threads:
        thread.join(10)
    frozen = stream.stream.latency()  # type: ignore[union-attr]
    time.sleep(1.2)
    assert stream.stream.latency() > frozen + 1  # type: ignore[union-attr,operator]


def test_lone_commit_within_a_second(streaming: Start) -> None:
    """A lone commit is on the target at once."""
    stream = streaming("pgoutput", "CREATE TABLE t (id int PRIMARY KEY)")
    stream.drain()
    with stream.app() as conn, stream.there() as there:  # type: ignore[attr-defined]
        conn.execute("INSERT INTO t VALUES (1)")
        begun = time.monotonic()
        while not there.execute("SELECT count(*) FROM t").fetchone()[0]:
            assert time.monotonic() < begun + 1.0
            time.sleep(0.01)


def test_acknowledge_applied_confirms_only_what_the_target_has(streaming: Start) -> None:
    """``acknowledge: applied``: without an applier nothing is confirmed (law 4)."""
    stream = streaming("pgoutput", "CREATE TABLE t (id int PRIMARY KEY)", running=False, acknowledge="applied")
    stream.receive()
    with stream.app() as conn:  # type: ignore[attr-defined]
        conn.execute("INSERT INTO t SELECT generate_series(1, 100)")
        time.sleep(1.5)
        query = "SELECT (confirmed_flush_lsn - '0/0'::pg_lsn)::bigint FROM pg_replication_slots WHERE slot_name = %s"
        assert conn.execute(query, [stream.slot]).fetchone()[0] == stream.start_lsn
        stream.apply()
        position = stream.drain()
        deadline = time.monotonic() + 8
        while conn.execute(query, [stream.slot]).fetchone()[0] < position.commit_lsn:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_spool_limit_holds_back_and_goes_on(streaming: Start) -> None:
    """Above ``spool_max_bytes`` the receiver waits for the applier; segments go when they are applied."""
    stream = streaming(
        "pgoutput",
        "CREATE TABLE t (id int PRIMARY KEY, v text)",
        running=False,
        spool_max_bytes=400_000,
        segment_bytes=100_000,
        heartbeat=0.5,
    )
    stream.receive()
    with stream.app() as conn:  # type: ignore[attr-defined]
        for part in range(60):
            conn.execute(f"INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series({part * 1000}, {part * 1000 + 999}) g")
    deadline = time.monotonic() + 60
    while not stream.reports.get("paused"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    size = sum(p.stat().st_size for p in stream.folder.glob("*.seg"))
    assert size < 1_500_000  # of eight million; what comes at one look is one block
    stream.apply()
    same(stream)
    assert len(list(stream.folder.glob("*.seg"))) < 10


def test_choice_of_the_plugin(streaming: Start, spec_factory: t.Callable[..., MigrationSpec], source: lab.Server) -> None:
    """auto takes wal2json only where nothing can be lost, and says why; the probe leaves no slot."""
    stream = streaming("auto", "CREATE TABLE t (id int PRIMARY KEY, f float8)", running=False)
    assert stream.choice.plugin in PLUGINS
    assert stream.choice.reason
    plain = choose_plugin(stream.spec.source, "postgres", "auto")
    assert plain.plugin == "wal2json"
    with pytest.raises(MigrationError):
        choose_plugin(stream.spec.source, "postgres", "decoderbufs")
    assert source.execute("SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'pgm_probe%'")[0][0] == 0


@pytest.mark.parametrize("plugin", PLUGINS)
def test_many_tables_and_materialized_views(streaming: Start, plugin: str) -> None:
    """More tables than are named one by one; what is not streamed (a materialized view, a table without identity) stops nothing."""
    tables = ";".join(f"CREATE TABLE t{n} (id int PRIMARY KEY)" for n in range(310))
    stream = streaming(plugin, f"{tables}; CREATE TABLE bare (a int); CREATE MATERIALIZED VIEW mv AS SELECT 1 AS one")
    with stream.app() as conn:  # type: ignore[attr-defined]
        conn.execute(";".join(f"INSERT INTO t{n} VALUES ({n})" for n in range(310)))
        conn.execute("REFRESH MATERIALIZED VIEW mv; INSERT INTO bare VALUES (1)")
    stream.drain()
    assert list(stream.differences()) == ["bare"]
    assert stream.errors == []


@pytest.mark.parametrize("plugin", PLUGINS)
def test_counters_of_each_table(streaming: Start, plugin: str) -> None:
    """R86: what is committed on the target, each change once, whatever broke off in between; what is on its way; what failed."""
    ddl = "CREATE TABLE a (id int PRIMARY KEY, v int); CREATE TABLE b (id int PRIMARY KEY)"
    stream = streaming(plugin, ddl, batch_rows=200, on_ddl="ignore")
    with stream.app() as conn, stream.there() as there:  # type: ignore[attr-defined]
        conn.execute(
            "INSERT INTO a SELECT g, 0 FROM generate_series(1, 1000) g; UPDATE a SET v = 1 WHERE id <= 100; DELETE FROM a WHERE id = 5"
        )
        conn.execute("INSERT INTO b VALUES (1); TRUNCATE b")
        stream.drain()
        a = {"inserts": 1000, "updates": 100, "deletes": 1, "truncates": 0, "incoming": 1101, "applied": 1101, "errors": 0}
        b = {"inserts": 1, "updates": 0, "deletes": 0, "truncates": 1, "incoming": 2, "applied": 2, "errors": 0}
        assert stream.stream.tables() == {"public.a": a, "public.b": b}  # type: ignore[union-attr]
        there.execute("ALTER TABLE b ADD CONSTRAINT none CHECK (id < 0)")
        conn.execute("INSERT INTO a SELECT g, 0 FROM generate_series(2001, 2500) g; INSERT INTO b VALUES (1)")
        with pytest.raises(StreamError):
            stream.drain(20)
        found = stream.stream.tables()  # type: ignore[union-attr]
        assert (found["public.a"]["applied"], found["public.b"]["applied"], found["public.b"]["errors"]) == (1101, 2, 1)
        assert found["public.b"]["incoming"] == 3
        assert stream.reports["applied"] == 1103
        assert stream.reports["tables"] == found
