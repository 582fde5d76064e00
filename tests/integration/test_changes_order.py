# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Order and atomicity: interleaved transactions, large ones in pieces, errors, tables with start positions of their own."""

from __future__ import annotations

import time

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import StreamError
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.lsn import parse_lsn
from changelab import PLUGINS, Start, same


@pytest.mark.parametrize("plugin", PLUGINS)
def test_order_and_interleaving(streaming: Start, plugin: str) -> None:
    """A transaction that began before others and commits after them is there, and in the right order (laws 1 and 2)."""
    stream = streaming(
        plugin, "CREATE TABLE t (id int PRIMARY KEY, v int); CREATE TABLE u (id int PRIMARY KEY, t int REFERENCES t, self int REFERENCES u)"
    )
    with stream.app() as one, stream.app() as two:  # type: ignore[attr-defined]
        with one.transaction():
            one.execute("INSERT INTO t VALUES (1, 1)")
            two.execute("INSERT INTO t VALUES (2, 2); UPDATE t SET v = 3 WHERE id = 2; INSERT INTO u VALUES (1, 2, NULL), (2, 2, 1)")
            one.execute("UPDATE t SET v = 10 WHERE id = 1")
        two.execute("UPDATE t SET v = v + 1; DELETE FROM u; DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (2, 9)")
    same(stream)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_large_transaction_in_pieces(streaming: Start, plugin: str) -> None:
    """A transaction of many batches is applied in one target transaction."""
    stream = streaming(
        plugin, "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE f (a int); ALTER TABLE f REPLICA IDENTITY FULL", batch_rows=500
    )
    with stream.app() as conn, conn.transaction():  # type: ignore[attr-defined]
        conn.execute(
            "INSERT INTO t SELECT g, 'x' FROM generate_series(1, 5000) g;"
            " UPDATE t SET v = 'y' WHERE id % 2 = 0; DELETE FROM t WHERE id % 3 = 0"
        )
        conn.execute(
            "INSERT INTO f SELECT 1 FROM generate_series(1, 600); DELETE FROM f WHERE ctid < '(0,5)'; TRUNCATE f; INSERT INTO f VALUES (7)"
        )
    same(stream)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_error_stops_with_its_change_and_resumes(streaming: Start, plugin: str) -> None:
    """A change that the target refuses stops the stream, says which, and goes on when the cause is gone (issue 3, 7)."""
    stream = streaming(plugin, "CREATE TABLE t (id int PRIMARY KEY, v int); CREATE TABLE o (id int PRIMARY KEY)")
    with stream.app() as conn, stream.there() as there:  # type: ignore[attr-defined]
        conn.execute("INSERT INTO t SELECT g, g FROM generate_series(1, 50) g")
        stream.drain()
        before = stream.stream.position  # type: ignore[union-attr]
        there.execute("ALTER TABLE t ADD CONSTRAINT small CHECK (v < 100)")
        with conn.transaction():
            conn.execute("INSERT INTO o VALUES (1); UPDATE t SET v = v WHERE id < 10; UPDATE t SET v = 500 WHERE id = 33")
        with pytest.raises(StreamError) as caught:
            stream.drain(20)
        assert caught.value.code == "PGM4024"
        assert caught.value.sqlstate == "23514"
        assert caught.value.details["table"] == "public.t"
        assert caught.value.details["key"] == "id=33"
        assert caught.value.details["statement"] == "UPDATE"
        assert "/" in caught.value.details["lsn"]
        assert there.execute("SELECT count(*) FROM o").fetchone() == (0,)
        position = stream.stream.position  # type: ignore[union-attr]
        assert before.end_lsn <= position.end_lsn <= parse_lsn(caught.value.details["lsn"])
        there.execute("ALTER TABLE t DROP CONSTRAINT small")
        stream.errors.clear()
        stream.apply()
    same(stream)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_tables_start_at_their_own_lsn(streaming: Start, plugin: str) -> None:
    """Law 8: changes that a table's copy already holds are left out, of this table alone."""
    stream = streaming(plugin, "CREATE TABLE early (id int PRIMARY KEY); CREATE TABLE late (id int PRIMARY KEY, v int)", running=False)
    with stream.app() as conn, stream.there() as there:  # type: ignore[attr-defined]
        conn.execute("INSERT INTO early VALUES (1); INSERT INTO late VALUES (1, 1), (2, 2)")
        conn.execute("UPDATE late SET v = v + 1; TRUNCATE late; INSERT INTO late VALUES (3, 3)")
        lsn = conn.execute("SELECT pg_current_wal_lsn()::text").fetchone()[0]
        for name, start in (("early", "0/0"), ("late", lsn)):
            there.execute(
                "INSERT INTO pgm_migration.chunk (relation, chunk, chunks, start_lsn, rows, bytes) VALUES (%s, 0, 1, %s::pg_lsn, 0, 0)",
                [f'"public"."{name}"', start],
            )
        there.execute("INSERT INTO late VALUES (3, 3)")  # the new copy of it
        conn.execute("UPDATE late SET v = 30; INSERT INTO late VALUES (4, 4)")
        stream.start()
        same(stream)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_what_the_target_has_is_not_applied_again(streaming: Start, plugin: str) -> None:
    """Law 3: an applier that begins again reads transactions that are on the target, and in one batch with them some that are not."""
    stream = streaming(plugin, "CREATE TABLE t (id int PRIMARY KEY, v int)")
    with stream.app() as conn, stream.there() as there:  # type: ignore[attr-defined]
        for number in range(5):
            conn.execute("INSERT INTO t VALUES (%s, 0)", [number])
        conn.execute("UPDATE t SET v = v + 1; UPDATE t SET id = id + 10 WHERE id < 2")
        deadline = time.monotonic() + 30  # a marker would end the batch here, also when it is read again
        while there.execute("SELECT count(*) FROM t WHERE v = 1 AND id > 1").fetchone() != (5,):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        there.execute("ALTER TABLE t ADD CONSTRAINT small CHECK (v < 5)")
        conn.execute("INSERT INTO t VALUES (20, 7)")
        for thread in stream.threads[1:]:  # the applier
            thread.join(30)
        assert [getattr(error, "code", error) for error in stream.errors] == ["PGM4024"]
        stream.errors.clear()
        there.execute("ALTER TABLE t DROP CONSTRAINT small")
        conn.execute("INSERT INTO t VALUES (0, 8)")
        stream.apply()
        same(stream)
        assert stream.reports["fallbacks"] == 0


@pytest.mark.parametrize("plugin", PLUGINS)
def test_prepared_transactions(streaming: Start, plugin: str) -> None:
    """One counts from its COMMIT PREPARED on, and in that order; one that is rolled back, or still prepared, not at all."""
    stream = streaming(plugin, "CREATE TABLE t (id int PRIMARY KEY, v int)", "INSERT INTO t VALUES (1, 1), (2, 2)")
    with stream.app() as conn:  # type: ignore[attr-defined]
        for name, statement in (
            ("late", "UPDATE t SET v = 10 WHERE id = 1"),
            ("lost", "DELETE FROM t WHERE id = 2"),
            ("open", "INSERT INTO t VALUES (9)"),
        ):
            conn.execute(f"BEGIN; {statement}; PREPARE TRANSACTION '{stream.slot} {name}'")
        conn.execute("INSERT INTO t VALUES (3, 3)")
        conn.execute(f"ROLLBACK PREPARED '{stream.slot} lost'")
        stream.drain()
        with stream.there() as there:  # type: ignore[attr-defined]
            assert there.execute("SELECT v FROM t ORDER BY id").fetchall() == [(1,), (2,), (3,)]
        conn.execute(f"COMMIT PREPARED '{stream.slot} late'")
        conn.execute("UPDATE t SET v = v + 1")
        same(stream)
        conn.execute(f"ROLLBACK PREPARED '{stream.slot} open'")
