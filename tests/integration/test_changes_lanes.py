# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Several lanes: exact after a crash between their commits, whatever number of them comes next; few round trips for a
lone commit."""

from __future__ import annotations

import dataclasses
import time
import typing as t

import psycopg
import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes import lanes as lanes_module
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.apply import Applier
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.lanes import Lanes
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import StreamError
from changelab import PLUGINS, Start, StreamLab, same

DDL = """CREATE TABLE t (id int PRIMARY KEY, v int, x text); CREATE TABLE w (k text PRIMARY KEY, v int);
CREATE TABLE u (id int PRIMARY KEY, other int UNIQUE); CREATE TABLE heap (a int, b text); ALTER TABLE heap REPLICA IDENTITY FULL"""
ROWS = "INSERT INTO t SELECT g, 0, 'x' FROM generate_series(1, 3000) g"
WORK = (
    "INSERT INTO t SELECT g, 0, 'first' FROM generate_series(4001, 4600) g; UPDATE t SET v = v + 1;"
    " INSERT INTO w SELECT 'k' || g, 0 FROM generate_series(1, 500) g;"
    " INSERT INTO heap SELECT 1, 'a' FROM t LIMIT 50",
    "UPDATE t SET id = id + 10000 WHERE id % 5 = 0; UPDATE w SET k = k || '+', v = v + 1;"
    " INSERT INTO u SELECT g, g FROM generate_series(1, 60) g",
    "DELETE FROM t WHERE id % 7 = 0; UPDATE u SET other = other + 100; UPDATE u SET other = 161 - other;"
    " DELETE FROM heap WHERE ctid <= '(0,9)'",
    "UPDATE t SET x = x || id; DELETE FROM w; UPDATE t SET id = -id WHERE id > 9000;"
    " INSERT INTO t SELECT g, 1, 'new' FROM generate_series(20000, 21000) g",
)


def work(stream: StreamLab) -> None:
    """Some transactions."""
    with stream.app() as conn:  # type: ignore[attr-defined]
        for statements in WORK:
            conn.execute(statements.encode())


def positions(stream: StreamLab) -> list[str]:
    """Of the lanes, as the target has them."""
    with stream.there() as conn:  # type: ignore[attr-defined]
        return [row[0] for row in conn.execute("SELECT end_lsn::text FROM pgm_migration.progress ORDER BY lane")]


def with_lanes(stream: StreamLab, lanes: int) -> None:
    """The option of the next applier."""
    stream.spec = dataclasses.replace(stream.spec, changes=dataclasses.replace(stream.spec.changes, lanes=lanes))


def halt(stream: StreamLab) -> None:
    """End receiver and applier."""
    stream.stop.set()
    for thread in stream.threads:
        thread.join(20)
    stream.stop.clear()
    stream.threads.clear()


@pytest.fixture(autouse=True)
def divided(monkeypatch: pytest.MonkeyPatch) -> None:
    """Divide small batches too."""
    monkeypatch.setattr(lanes_module, "TOGETHER", 10)


@pytest.mark.parametrize("plugin", PLUGINS)
@pytest.mark.parametrize("lanes, batch_rows", [(3, 50_000), (4, 700)])
def test_lanes_give_the_same_rows(streaming: Start, plugin: str, lanes: int, batch_rows: int) -> None:
    """By table and by key, moved keys and clashing unique values included; large transactions in pieces as well."""
    stream = streaming(plugin, DDL, ROWS, lanes=lanes, batch_rows=batch_rows)
    work(stream)
    same(stream)
    assert len(set(positions(stream))) == 1 and len(positions(stream)) == lanes


@pytest.mark.parametrize("plugin", PLUGINS)
@pytest.mark.parametrize("after", [1, 2, 5])
def test_crash_between_commits(streaming: Start, monkeypatch: pytest.MonkeyPatch, plugin: str, after: int) -> None:
    """Lanes at different positions are brought level by the old partition, whatever the options say now; then the new number holds."""
    stream = streaming(plugin, DDL, ROWS, lanes=3)
    stream.drain()
    whole = Applier.commit

    def broken(self: Applier, part: t.Any) -> None:
        if self.lane != 1:
            whole(self, part)
            return
        raise psycopg.OperationalError("the commit was lost")

    monkeypatch.setattr(Applier, "commit", broken)
    work(stream)
    deadline = time.monotonic() + 30
    while len(set(positions(stream))) != 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    halt(stream)
    assert positions(stream)[0] == positions(stream)[2] != positions(stream)[1]
    monkeypatch.undo()
    monkeypatch.setattr(lanes_module, "TOGETHER", 10)
    with stream.there() as there:  # type: ignore[attr-defined]  # an index that would keep the table together today
        there.execute("CREATE UNIQUE INDEX ON t (id, v)")
    with_lanes(stream, after)
    stream.start()
    same(stream)
    work_more = "UPDATE t SET v = v - 1; INSERT INTO w SELECT 'z' || g, 0 FROM generate_series(1, 500) g"
    with stream.app() as conn:  # type: ignore[attr-defined]
        conn.execute(work_more.encode())
    same(stream)
    assert len(positions(stream)) == after and len(set(positions(stream))) == 1


@pytest.mark.parametrize("plugin", PLUGINS)
def test_order_is_found_to_matter_late(streaming: Start, plugin: str) -> None:
    """A TRUNCATE, or a moved row with an unchanged large value, in a later piece of a divided transaction: it begins again alone."""
    stream = streaming(
        plugin,
        "CREATE TABLE t (id int PRIMARY KEY, big text, v int); ALTER TABLE t ALTER big SET STORAGE EXTERNAL;"
        " CREATE TABLE o (id int PRIMARY KEY)",
        "INSERT INTO t SELECT g, repeat('x' || g, 1500), 0 FROM generate_series(1, 40) g",
        lanes=3,
        batch_rows=300,
    )
    with stream.app() as conn:  # type: ignore[attr-defined]
        conn.execute("INSERT INTO o SELECT generate_series(1, 1000); TRUNCATE o; INSERT INTO o SELECT generate_series(1, 500)")
        conn.execute("DELETE FROM o; INSERT INTO o SELECT generate_series(1, 900); UPDATE t SET id = id + 100, v = 1")
    same(stream)


def test_error_leaves_no_part_of_its_batch(streaming: Start) -> None:
    """What one lane cannot apply, the others do not commit; the error names the change."""
    stream = streaming("pgoutput", DDL, ROWS, lanes=3)
    stream.drain()
    with stream.app() as conn, stream.there() as there:  # type: ignore[attr-defined]
        there.execute("ALTER TABLE t ADD CONSTRAINT small CHECK (v < 9 OR id <> 77)")
        conn.execute("UPDATE t SET v = 9; INSERT INTO w SELECT 'k' || g, 0 FROM generate_series(1, 500) g")
        with pytest.raises(StreamError) as caught:
            stream.drain(30)
        assert (caught.value.code, caught.value.details["key"], caught.value.details["statement"]) == ("PGM4024", "id=77", "UPDATE")
        assert there.execute("SELECT count(*) FROM w").fetchone() == (0,)
        assert there.execute("SELECT count(*) FROM t WHERE v = 9").fetchone() == (0,)
        there.execute("ALTER TABLE t DROP CONSTRAINT small")
        stream.errors.clear()
        stream.apply()
    same(stream)


def test_round_trips_of_a_lone_commit(streaming: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lone commit waits for the target twice: once for all that it does, once for COMMIT."""
    seen: list[int] = []
    plain = Lanes.apply

    def counted(self: Lanes, batch: t.Any, parts: t.Any) -> bool:
        before = self.trips
        done = plain(self, batch, parts)
        if batch.rows:
            seen.append(self.trips - before)
        return done

    monkeypatch.setattr(lanes_module, "TOGETHER", 2000)
    monkeypatch.setattr(Lanes, "apply", counted)
    stream = streaming("pgoutput", DDL, ROWS, lanes=2)
    stream.drain()
    with stream.app() as conn:  # type: ignore[attr-defined]
        for key in (1, 2, 3):
            conn.execute("UPDATE t SET v = 5 WHERE id = %s", [key])
            stream.drain()
    assert seen == [2, 2, 2]
