# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The snapshot outlives the service: what is copied stays copied, and nothing is held longer than needed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import typing as t

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.ledger import Ledger
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.paths import read_json
from ansible_collections.pgops.migration.plugins.module_utils._engine.source.cleanup import remove_ours
from host import Host
from pair import make_source, make_target
from rows import differences

ROWS = 120_000
"""In each of two tables of some 15 MB."""

SLOW = {"chunk_bytes": 256 << 10, "jobs": 2, "throttle": 3 << 20}


@pytest.fixture(scope="module")
def source() -> t.Iterator[lab.Server]:
    """A source that these tests may restart."""
    server = make_source()
    yield server
    server.drop()


@pytest.fixture(scope="module")
def target() -> t.Iterator[lab.Server]:
    """A target of this module's own: migrations leave roles on it."""
    server = make_target()
    yield server
    server.drop()


@pytest.fixture
def loaded(source: lab.Server, owner: t.Any, source_database: str) -> str:
    """A database with two tables of many chunks, indexes and a foreign key."""
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute(
            "CREATE TABLE big (id int PRIMARY KEY, k int, filler text); CREATE TABLE other (id int PRIMARY KEY, k int, filler text)"
        )
        for name in ("big", "other"):
            conn.execute(f"INSERT INTO {name} SELECT i, i % 7, repeat(md5(i::text), 3) FROM generate_series(1, {ROWS}) i".encode())
            conn.execute(f"CREATE INDEX ON {name} (k)".encode())
        conn.execute("CREATE TABLE small (id int PRIMARY KEY REFERENCES big); INSERT INTO small SELECT generate_series(1, 10)")
    return source_database


MANY = 30
"""Further tables of two indexes each, the second of which takes its time."""


@pytest.fixture
def with_many(source: lab.Server, owner: t.Any, loaded: str) -> str:
    """The same with :data:`MANY` small tables, which are copied first: 33 tables, 65 indexes."""
    with source.connect(loaded, owner.name, owner.password) as conn:
        conn.execute(
            "CREATE FUNCTION slow(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM pg_catalog.pg_sleep(0.004); RETURN $1; END'"
        )
        for number in range(MANY):
            conn.execute(f"CREATE TABLE t{number} (id int PRIMARY KEY, k int, filler text)".encode())
            conn.execute(f"INSERT INTO t{number} SELECT i, i, repeat('x', 1000) FROM generate_series(1, 10) i".encode())
            conn.execute(f"CREATE INDEX ON t{number} (public.slow(k))".encode())
    return loaded


def copying(database: str, chunks: int = 1) -> t.Callable[[dict[str, t.Any]], bool]:
    """Have so many chunks been copied?"""
    return lambda status: bool((status["progress"].get(database) or {}).get("chunks_done", 0) >= chunks)


def facts(host: Host, key: str, database: str) -> dict[str, t.Any] | None:
    found: dict[str, t.Any] | None = read_json(host.home / "migrations" / key / "work" / database / "holder.json")
    return found


def start_lsns(target: lab.Server, database: str) -> dict[str, set[int]]:
    with target.connect(database) as conn:
        found: dict[str, set[int]] = {}
        for chunk in Ledger(conn).chunks():
            found.setdefault(chunk.relation, set()).add(chunk.start_lsn)
    return found


def equal(source: lab.Server, target: lab.Server, database: str) -> None:
    with source.connect(database) as left, target.connect(database) as right:
        assert differences(left, right) == {}


def until(condition: t.Callable[[], t.Any], seconds: float = 30.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not come"
        time.sleep(0.02)


def building(target: lab.Server, database: str) -> bool:
    """Is an index being built on the target at this moment?"""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND state = 'active' AND application_name LIKE 'pgops%% index'"
    with target.connect() as conn:
        row = conn.execute(query, [database]).fetchone()
    return bool(row and row[0])


def test_killed_twenty_times_in_one_copy(host, source, target, with_many, spec_factory) -> None:
    """SIGKILL of the service, in three builds of indexes and at 17 random moments: every chunk is of the one snapshot, less than a tenth of
    the bytes is copied twice, and the end is equal. Rows of transactions that were broken off count in the target's statistics, so nothing
    is overlooked."""
    loaded = with_many
    spec = spec_factory("often", [loaded], option="migrate", copy=SLOW)
    moments = random.Random(4)
    host.manager.start(spec)
    host.until(spec.key, copying(loaded), "the first chunk")
    before = facts(host, spec.key, loaded)
    kills = in_builds = 0
    while kills < 20:
        if kills < 3:  # what is broken off has to be built again in the next life
            host.until(spec.key, lambda s: building(target, loaded), "an index build")
        in_builds += building(target, loaded)
        host.kill(spec.key)
        kills += 1
        host.manager.start(spec)
        limit = time.monotonic() + moments.uniform(0.0, 1.2)
        host.until(spec.key, lambda s, limit=limit: time.monotonic() > limit, "the next moment")
        status = host.manager.status(spec.key)
        if status["state"] == "WaitingForUserAction":
            break
    assert kills >= 20, f"the copy was over after {kills}; make it slower"
    assert in_builds >= 2, "the kills came too late"
    assert facts(host, spec.key, loaded) in (before, None), "it went on under another snapshot"
    host.until_waiting(spec.key)
    lsns = start_lsns(target, loaded)
    assert {lsn for found in lsns.values() for lsn in found} == {next(iter(lsns['"public"."big"']))}
    until(lambda: not target.execute("SELECT FROM pg_stat_activity WHERE application_name LIKE '%relay%'"))
    inserted = int(target.execute("SELECT sum(n_tup_ins) FROM pg_stat_user_tables WHERE schemaname = 'public'", loaded)[0][0])
    again = inserted / (2 * ROWS + 10 + 10 * MANY) - 1
    print(f"copied again: {again:.1%}; {in_builds} kills in builds")
    assert 0 <= again < 0.1
    assert host.holders(spec.key) == [], "the snapshot is given back when the last row is copied"
    host.cut_over(spec.key)
    equal(source, target, loaded)


def test_offline_copy_goes_on_under_its_snapshot(host, source, target, loaded, spec_factory) -> None:
    """A broken-off offline copy ends as of one moment, though the source was written to meanwhile."""
    spec = spec_factory("offline-holder", [loaded], mode="offline", option="migrate", copy=SLOW, cutover={"verify": False})
    host.manager.start(spec)
    host.until(spec.key, copying(loaded), "the first chunk")
    host.kill(spec.key)
    source.execute("UPDATE big SET k = -1; DELETE FROM small", loaded)
    host.manager.start(spec)
    host.until(spec.key, lambda s: s["state"] == "Succeeded", "Succeeded")
    assert target.execute("SELECT count(*), min(k) FROM big", loaded) == [(ROWS, 0)]
    assert target.execute("SELECT count(*) FROM small", loaded) == [(10,)]


def test_source_restart_costs_the_unfinished_tables_alone(host, source, target, loaded, owner, spec_factory) -> None:
    """The snapshot is lost with the source's sessions: tables that were complete keep their start LSN, the others get a later one, and
    the stream makes both equal."""
    spec = spec_factory("restart", [loaded], option="migrate", copy={**SLOW, "jobs": 1})
    host.manager.start(spec)

    def one_is_done(status: dict[str, t.Any]) -> bool:
        return bool((status["progress"].get(loaded) or {}).get("tables_complete"))

    host.until(spec.key, one_is_done, "the first table")
    done = {name for name, found in complete(target, loaded).items()}
    with source.connect(loaded, owner.name, owner.password) as conn:
        conn.execute("UPDATE big SET k = 100 WHERE id < 1000; UPDATE other SET k = 100 WHERE id < 1000")
    source.restart()
    host.until_waiting(spec.key)
    lsns = start_lsns(target, loaded)
    assert all(len(found) == 1 for found in lsns.values())
    first = min(lsn for found in lsns.values() for lsn in found)
    assert {name for name, found in lsns.items() if found == {first}} >= done
    assert any(found != {first} for found in lsns.values()), "nothing was left to copy again"
    assert host.holders(spec.key) == []
    host.cut_over(spec.key)
    equal(source, target, loaded)


def complete(target: lab.Server, database: str) -> dict[str, int]:
    with target.connect(database) as conn:
        return Ledger(conn).start_lsns()


@pytest.mark.parametrize("state_lost", [False, True])
def test_cancel_ends_the_holder(state_lost, host, source, target, loaded, spec_factory) -> None:
    """The holder of a killed service ends with its session on the source, even where all that is known of it is its name there."""
    spec = spec_factory("cancel-holder", [loaded], option="migrate", copy=SLOW)
    host.manager.start(spec)
    host.until(spec.key, copying(loaded), "the first chunk")
    host.kill(spec.key)
    assert len(host.holders(spec.key)) == 1
    if state_lost:
        remove_ours(spec.source)
    else:
        host.manager.cancel(spec.key)
    until(lambda: not host.holders(spec.key))
    assert facts(host, spec.key, loaded) is None
    assert source.execute("SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'pgm%'") == []
    assert source.execute("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'pgops%'") == []


HOLD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from pg_migration_engine.migration.paths import MigrationPaths
from pg_migration_engine.service import holder
paths = MigrationPaths(Path(sys.argv[2]), sys.argv[3])
holder.LOOK = 0.1
sys.exit(holder.hold(paths, paths.read_spec(), sys.argv[4], patience=float(sys.argv[5])))
"""


def test_nobody_takes_it_up(host, source, target, loaded, spec_factory) -> None:
    """After its deadline an unused snapshot ends, so that VACUUM on the source is not held back for ever; one in use does not."""
    spec = spec_factory("deadline", [loaded])
    paths = host.manager._paths(spec.key)
    paths.make()
    paths.write_spec(spec)
    work = paths.work(loaded)
    work.mkdir(parents=True)
    words = [sys.executable, "-c", HOLD, str(paths.engine), str(host.home), spec.key, loaded, "0.5"]
    with (
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
        (work / "holder.use").open("a") as use,
    ):
        import fcntl

        fcntl.flock(use, fcntl.LOCK_EX)
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps({"kind": "plain"}) + "\n")
        process.stdin.close()
        snapshot = json.loads(process.stdout.readline())["snapshot"]
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.5)
        with source.connect(loaded) as conn:
            conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            conn.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'".encode())
        fcntl.flock(use, fcntl.LOCK_UN)
        assert process.wait(10) == 0
    assert not (work / "holder.json").exists()
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
