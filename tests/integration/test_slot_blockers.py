# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A transaction on the source that keeps the replication slot, or the publication, from being made is named, and a cancel does not wait
for it."""

from __future__ import annotations

import time
import typing as t

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import MigrationError
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.session import connect
from ansible_collections.pgops.migration.plugins.module_utils._engine.source import blockers
from ansible_collections.pgops.migration.plugins.module_utils._engine.source.publication import ensure_publication, streamed_tables
from host import Host


@pytest.fixture
def shop(source: lab.Server, source_database: str, owner: t.Any) -> str:
    """A database with one table."""
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    return source_database


def message(status: dict[str, t.Any], database: str) -> str:
    return str(status["progress"][database]["message"])


def test_named_with_pid_age_and_query_until_it_ends(host: Host, source, shop, owner, spec_factory) -> None:
    """Its age grows; after its COMMIT the migration goes on, with its row, and says no more of it."""
    spec = spec_factory("waits", [shop], option="migrate")
    with source.connect(shop, owner.name, owner.password) as conn:
        conn.execute("BEGIN")
        conn.execute("INSERT INTO t VALUES (2) -- long since")
        pid = conn.info.backend_pid
        host.manager.start(spec)
        status = host.until(spec.key, lambda s: f"pid {pid} " in message(s, shop), "the name of the transaction")
        said = message(status, shop)
        for part in (f"of {owner.name} in {shop}, open for ", "idle in transaction", "-- long since", f"pg_terminate_backend({pid})"):
            assert part in said, (part, said)
        host.until(spec.key, lambda s: message(s, shop) not in ("", said), "its greater age")
        assert status["progress"][shop]["phase"] == "preparing"
        conn.execute("COMMIT")
    status = host.until_waiting(spec.key)
    assert message(status, shop) == ""
    assert host.cut_over(spec.key)["verification"]["equal"]


def test_a_cancel_does_not_wait_for_it(host: Host, source, shop, owner, spec_factory) -> None:
    """Neither a slot nor a session of ours is left, while the transaction is still open and after it."""
    spec = spec_factory("waits-canceled", [shop], option="migrate")
    left = "SELECT (SELECT count(*) FROM pg_replication_slots), (SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE %s)"
    with source.connect(shop, owner.name, owner.password) as conn:
        conn.execute("BEGIN")
        conn.execute("INSERT INTO t VALUES (2)")
        host.manager.start(spec)
        host.until(spec.key, lambda s: f"pid {conn.info.backend_pid} " in message(s, shop), "the name of the transaction")
        assert host.manager.cancel(spec.key)["state"] == "Canceled"
        with source.connect() as other:
            assert other.execute(left, [f"%{spec.key}%"]).fetchone() == (0, 0)
            conn.execute("COMMIT")
            assert other.execute(left, [f"%{spec.key}%"]).fetchone() == (0, 0)
    assert not host.holders(spec.key)


def test_prepared_transactions_are_named_too(source, shop, owner, spec_factory) -> None:
    spec = spec_factory("waits-prepared", [shop])
    with source.connect(shop, owner.name, owner.password) as conn:
        conn.execute("BEGIN; INSERT INTO t VALUES (3); PREPARE TRANSACTION 'forgotten'")
    waiter = source.connect(shop, owner.name, owner.password)
    one = blockers.Blockers(spec.source, shop, waiter.info.backend_pid)
    try:
        assert one.look() == ""
        waiter.pgconn.send_query(b"INSERT INTO t VALUES (3)")  # the same key: it waits, as the making of a slot does
        limit = time.monotonic() + 20
        while not (said := one.look()):
            assert time.monotonic() < limit
        assert "prepared transaction forgotten" in said and "ROLLBACK PREPARED" in said
    finally:
        source.execute("ROLLBACK PREPARED 'forgotten'", shop)
        one.close()
        waiter.close()


@pytest.mark.parametrize("ends", [True, False], ids=["ends", "stays"])
def test_a_lock_that_a_publication_waits_for_is_named(host: Host, source, shop, owner, spec_factory, ends: bool) -> None:
    """The migration goes on when it has ended; a cancel does not wait and leaves nothing."""
    spec = spec_factory(f"locked-{ends}", [shop], option="migrate", changes={"plugin": "pgoutput"})
    with source.connect(shop, owner.name, owner.password) as conn:
        conn.execute("BEGIN; LOCK TABLE t IN SHARE MODE")  # as CREATE INDEX does
        host.manager.start(spec)
        status = host.until(spec.key, lambda s: f"pid {conn.info.backend_pid} " in message(s, shop), "the name of the session")
        assert "LOCK TABLE t IN SHARE MODE" in message(status, shop)
        if ends:
            conn.execute("COMMIT")
            status = host.until_waiting(spec.key)
            assert message(status, shop) == ""
        else:
            assert host.manager.cancel(spec.key)["state"] == "Canceled"
        assert source.execute("SELECT count(*) FROM pg_publication", shop) == [(1 if ends else 0,)]


@pytest.mark.parametrize("statement", ["ALTER TABLE t ADD x int", "LOCK TABLE t IN SHARE MODE"])
def test_a_lock_that_stays(source, shop, owner, spec_factory, monkeypatch, statement: str) -> None:
    """A prepared transaction holds it, which has no process."""
    monkeypatch.setattr(blockers, "PATIENCE", 0.0)
    endpoint = spec_factory("stays", [shop]).source
    with source.connect(shop, owner.name, owner.password) as conn:
        conn.execute(f"BEGIN; {statement}; PREPARE TRANSACTION 'half an index'")

    def publish() -> None:
        ensure_publication(conn, "pgm_stays", streamed_tables(conn))

    try:
        with connect(endpoint, shop) as conn, pytest.raises(MigrationError) as caught:
            blockers.when_unlocked(conn, "publish", publish, lambda whom: None)
        assert caught.value.code == "PGM1215" and "half an index" in caught.value.message
        assert source.execute("SELECT count(*) FROM pg_publication", shop) == [(0,)]
    finally:
        source.execute("ROLLBACK PREPARED 'half an index'", shop)
