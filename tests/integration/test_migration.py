# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Whole migrations through the service, as modules drive it: offline, online, killed, canceled, refused."""

from __future__ import annotations

import dataclasses
import threading
import time
import typing as t

import psycopg
import pytest
import servers as lab
import workload as writers
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import Conflict, CutoverAborted, IllegalTransition
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from host import Host, run_whole
from pair import make_target
from rows import differences

SCHEMA = """
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE customer (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, mood mood DEFAULT 'ok',
    big text, doubled int GENERATED ALWAYS AS (length(name) * 2) STORED, UNIQUE (name));
CREATE TABLE account (id serial PRIMARY KEY, customer bigint NOT NULL REFERENCES customer, amount numeric(12,2) NOT NULL);
CREATE TABLE event (day date NOT NULL, id bigint NOT NULL, body jsonb, PRIMARY KEY (day, id)) PARTITION BY RANGE (day);
CREATE TABLE event_a PARTITION OF event FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
CREATE TABLE event_b PARTITION OF event FOR VALUES FROM ('2026-07-01') TO ('2027-01-01');
INSERT INTO customer (name, big) SELECT 'customer ' || i, repeat(md5(i::text), CASE WHEN i % 100 = 0 THEN 400 ELSE 1 END)
  FROM generate_series(1, {n}) i;
INSERT INTO account (customer, amount) SELECT i, 1000 FROM generate_series(1, {n}) i;
INSERT INTO event SELECT date '2026-01-01' + (i % 364), i, jsonb_build_object('n', i, 'x', array[i, null]) FROM generate_series(1, {n}) i;
CREATE MATERIALIZED VIEW total AS SELECT mood, count(*) FROM customer GROUP BY mood;
"""


@pytest.fixture(scope="module")
def target() -> t.Iterator[lab.Server]:
    """A target of this module's own: migrations leave roles and memberships on it."""
    server = make_target()
    yield server
    server.drop()


@pytest.fixture
def shop(source, owner, source_database) -> t.Callable[..., str]:
    """``shop(n)`` loads ``n`` rows a table as the application's role and gives the database's name."""

    def load(n: int = 2000) -> str:
        with source.connect(source_database, user=owner.name, password=owner.password) as conn:
            conn.execute("CREATE SCHEMA IF NOT EXISTS shop; SET search_path = shop")
            conn.execute(SCHEMA.format(n=n))
        return source_database

    return load


class Transfers:
    """Sessions that move money between accounts: the sum of all amounts never changes; every acknowledged transfer is counted."""

    def __init__(self, source: t.Any, owner: t.Any, database: str, sessions: int = 3) -> None:
        self._login = (source, owner, database)
        self._stop = threading.Event()
        self.acknowledged = 0
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(sessions)]

    def __enter__(self) -> Transfers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        source, owner, database = self._login
        try:
            with source.connect(database, user=owner.name, password=owner.password) as conn:
                step = 0
                while not self._stop.is_set():
                    step += 1
                    self._transfer(conn, number, step)
                    with self._lock:
                        self.acknowledged += 1
        except psycopg.OperationalError:
            return  # the fence

    @staticmethod
    def _transfer(conn: psycopg.Connection[t.Any], number: int, step: int) -> None:
        with conn.transaction():
            one, two = 1 + (step * 7 + number) % 500, 1 + (step * 11 + number * 3) % 500
            conn.execute("UPDATE shop.account SET amount = amount - 1 WHERE id = %s", [min(one, two)])
            conn.execute("UPDATE shop.account SET amount = amount + 1 WHERE id = %s", [max(one, two)])
            conn.execute("UPDATE shop.customer SET mood = 'happy' WHERE id = %s", [1 + step * 100 % 900])
            conn.execute("INSERT INTO shop.event VALUES ('2026-08-01', %s, '{}')", [10_000_000 + number * 1_000_000 + step])


def equal(source: t.Any, target: t.Any, database: str) -> dict[str, t.Any]:
    with source.connect(database) as left, target.connect(database) as right:
        return differences(left, right)


def ours_on_source(source: t.Any) -> list[t.Any]:
    with source.connect() as conn:
        slots = conn.execute("SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'pgm%'").fetchall()
        sessions = conn.execute("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'pgops%'").fetchall()
    return [*slots, *sessions]


def test_offline(host, source, target, shop, spec_factory) -> None:
    """An offline migration ends by itself, equal, with nothing of ours left on either side (R50, R99)."""
    database = shop()
    spec = spec_factory("offline", [database], mode="offline")
    host.manager.start(spec)
    status = host.until(spec.key, lambda s: s["state"] == "Succeeded", "Succeeded")
    assert equal(source, target, database) == {}
    assert status["verification"]["equal"] and ours_on_source(source) == []
    assert status["verification"]["databases"][database]["schema"] == []
    with target.connect(database) as conn:
        assert conn.execute("SELECT to_regnamespace('pgm_migration')").fetchone() == (None,)
    assert host.manager.start(spec)["state"] == "Succeeded"


@pytest.mark.parametrize("plugin", ["wal2json", "pgoutput", "test_decoding"])
def test_online_under_writers(plugin, host, source, target, owner, shop, spec_factory) -> None:
    """Writers never stop until the fence; afterwards every row is equal, the sum is kept and no acknowledged transfer is missing."""
    database = shop()
    spec = spec_factory("online", [database], changes={"plugin": plugin})
    with Transfers(source, owner, database) as transfers:
        status = run_whole(host, spec)
    assert equal(source, target, database) == {}
    assert status["plugin"][database]["plugin"] == plugin
    assert status["cutover"]["pause_seconds"] < 10 and status["verification"]["equal"]
    with target.connect(database) as conn:
        assert conn.execute("SELECT sum(amount) FROM shop.account").fetchone() == (2_000_000,)
        assert conn.execute("SELECT count(*) FROM shop.event WHERE id >= 10000000").fetchone()[0] >= transfers.acknowledged > 0
    assert ours_on_source(source) == []


@pytest.mark.parametrize("plugin", ["wal2json", "pgoutput", "test_decoding"])
def test_exact_under_eight_writers(plugin, host, source, target, owner, source_database, spec_factory, tmp_path) -> None:
    """Interleaved long and short transactions, savepoints, moved and reused keys, TRUNCATE of two tables, COPY, unchanged TOAST, rows
    without a key, during the whole migration: every row equal, the sum kept, no acknowledged commit missing (law 1 to 7)."""
    dsn_file = tmp_path / "dsn"
    writers.point_at(dsn_file, source.dsn(source_database, owner.name, owner.password))
    workload = writers.Workload(dsn_file, 8, folder=tmp_path / "notes", rate=20)
    workload.prepare()
    spec = spec_factory("eight", [source_database], changes={"plugin": plugin})
    with workload:
        host.manager.start(spec)
        host.until_waiting(spec.key)
        workload.wait_acknowledged(workload.acknowledged() + 300, 60)
        status = host.cut_over(spec.key)
    assert equal(source, target, source_database) == {}
    account = writers.check(target.dsn(source_database), workload.folder)
    assert account.good and account.acknowledged > 400, account
    kinds = workload.report()["kinds"]
    assert {"long", "savepoint", "move_key", "truncate", "copy", "replace", "document", "journal", "swap"} <= set(kinds), kinds
    assert status["verification"]["equal"] and status["verification"]["complete"]


def test_cutover_again_changes_nothing(host, shop, spec_factory) -> None:
    """R101: after success the same answer, and the record stays as it is (R85)."""
    spec = spec_factory("again", [shop(100)])
    status = run_whole(host, spec)
    assert host.manager.plan(spec).action == "none"
    with pytest.raises(CutoverAborted):
        host.manager.request_cutover(spec.key)
    assert host.manager.status(spec.key)["cutover"] == status["cutover"]
    with pytest.raises(IllegalTransition):
        host.manager.cancel(spec.key)


@pytest.mark.parametrize("moment", ["copy", "stream"])
def test_killed_and_played_again(moment, host, source, target, owner, shop, spec_factory) -> None:
    """SIGKILL in the copy and in the stream, then the same start again: the same end, rows equal (R115)."""
    database = shop(60_000 if moment == "copy" else 2000)
    spec = spec_factory(f"kill-{moment}", [database], copy={"chunk_bytes": 1 << 20, "jobs": 2, "processes": 2})
    with Transfers(source, owner, database) as transfers:
        host.manager.start(spec)
        if moment == "copy":
            host.until(spec.key, lambda s: (s["progress"].get(database) or {}).get("phase") == "copying", "the copy")
        else:
            host.until_waiting(spec.key)
        host.kill(spec.key)
        assert host.manager.plan(spec).action == "resume"
        host.manager.start(spec)
        host.until_waiting(spec.key)
        host.cut_over(spec.key)
    assert equal(source, target, database) == {}
    with target.connect(database) as conn:
        assert conn.execute("SELECT count(*) FROM shop.event WHERE id >= 10000000").fetchone()[0] >= transfers.acknowledged > 0


@pytest.mark.parametrize("moment", ["copy", "stream"])
def test_cancel_leaves_nothing_on_the_source(moment, host, source, target, shop, spec_factory) -> None:
    """R105 to R107: no slot, publication or session; the target is kept unless asked."""
    database = shop(60_000 if moment == "copy" else 500)
    spec = spec_factory(f"cancel-{moment}", [database], changes={"plugin": "pgoutput"}, copy={"chunk_bytes": 1 << 20, "jobs": 1})
    host.manager.start(spec)
    if moment == "copy":
        host.until(spec.key, lambda s: (s["progress"].get(database) or {}).get("phase") == "copying", "the copy")
    else:
        host.until_waiting(spec.key)
    status = host.manager.cancel(spec.key, drop_target=moment == "stream")
    assert status["state"] == "Canceled" and not status["service"]["running"]
    assert ours_on_source(source) == []
    with source.connect(database) as conn:
        assert conn.execute("SELECT count(*) FROM pg_publication").fetchone() == (0,)
    with target.connect() as conn:
        left = conn.execute("SELECT count(*) FROM pg_database WHERE datname = %s", [database]).fetchone()
    assert left == ((0,) if moment == "stream" else (1,))
    assert host.manager.cancel(spec.key)["state"] == "Canceled"  # repeated without harm
    with pytest.raises(Conflict):
        host.manager.start(spec)


FAULTS: dict[str, tuple[dict[str, t.Any], str]] = {
    "wrong password": ({"source": {"password": "not-the-password"}}, "28P01"),
    "wrong password of the target": ({"target": {"password": "not-the-password"}}, "28P01"),
    "closed port": ({"target": {"port": 1}}, ""),
    "unknown database": ({"databases": ["no_such_db"]}, "3D000"),
}


@pytest.mark.parametrize("option", ["migrate", "validate_and_migrate"])
@pytest.mark.parametrize("fault", FAULTS)
def test_bad_beginnings(fault, option, host, source, target, shop, spec_factory) -> None:
    """Each ends with one clear error naming server and remedy, and nothing is left behind on either side."""
    database = shop(10)
    changes, sqlstate = FAULTS[fault]
    base = spec_factory("bad", [database], option=option)
    wanted = {key: value for key, value in changes.items() if isinstance(value, dict)}
    spec = dataclasses.replace(base, **{side: dataclasses.replace(getattr(base, side), **values) for side, values in wanted.items()})
    if "databases" in changes:
        spec = dataclasses.replace(spec, databases=tuple(changes["databases"]))
    error = _failure(host, spec)
    assert error["hint"] and error["code"].startswith("PGM")
    assert sqlstate in error["sqlstate"] + error["message"]
    assert "not-the-password" not in str(error)
    assert ours_on_source(source) == []
    with target.connect() as conn:
        assert conn.execute("SELECT count(*) FROM pg_database WHERE datname = %s", [spec.databases[0]]).fetchone() == (0,)


def test_existing_target_database_is_refused(host, source, target, shop, target_database, spec_factory) -> None:
    """R10, 603101: what is there already is not ours to touch."""
    database = shop(10)
    with target.connect(database) as conn:
        conn.execute("CREATE TABLE theirs (i int)")
    error = _failure(host, spec_factory("exists", [database], option="migrate"))
    assert database in error["message"] and error["hint"]
    assert ours_on_source(source) == []
    with target.connect(database) as conn:
        assert conn.execute("SELECT to_regclass('theirs') IS NOT NULL").fetchone() == (True,)


def test_missing_right_names_the_statement(host, source, shop, spec_factory) -> None:
    """A migration user without REPLICATION: the hint is what grants it, and nothing is left."""
    database = shop(10)
    source.execute("ALTER ROLE migrator NOREPLICATION")
    try:
        for option in ("migrate", "validate_and_migrate"):
            error = _failure(host, spec_factory(f"noright-{option[:3]}{len(option)}", [database], option=option))
            assert "REPLICATION" in error["hint"]
    finally:
        source.execute("ALTER ROLE migrator REPLICATION")
    assert ours_on_source(source) == []


def _failure(host: Host, spec: MigrationSpec) -> dict[str, t.Any]:
    """The error that ``spec`` ends with, raised at once or recorded by the service."""
    from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import MigrationError

    try:
        host.manager.start(spec)
    except MigrationError as exc:
        return exc.to_dict()
    limit = time.monotonic() + 60
    while True:
        status = host.manager.status(spec.key)
        if status["state"] in ("Failed", "ValidationFailed"):
            return dict(status["error"])
        if time.monotonic() > limit:
            raise AssertionError(f"no failure: {status['summary']} {host.log(spec.key)}")
        time.sleep(0.05)
