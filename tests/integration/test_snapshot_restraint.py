# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What holds a base copy back, on real servers: a rate, a standby that lags, a slow probe, few sessions, locks of others."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
import typing as t
from pathlib import Path

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import CopyError
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres import session
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot import basecopy, locks, tables, units
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.restraint import Restraint, no_pressure
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.target import prepare_target
from copylab import Held, assert_equal, copy, fill
from pair import OWNER, PASSWORDS, Login, make_source, make_standby

CHUNKS = {"chunk_bytes": 64 << 10, "jobs": 2, "index_jobs": 2}


@dataclasses.dataclass
class Running:
    """A base copy in a thread. ``figures`` are the newest that it has reported."""

    figures: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    result: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    failure: list[BaseException] = dataclasses.field(default_factory=list)

    def until(self, reached: t.Callable[[], t.Any], what: str, seconds: float = 90.0) -> None:
        limit = time.monotonic() + seconds
        while not reached():
            assert not self.failure, self.failure
            assert time.monotonic() < limit, f"waited for {what}: {self.figures}"
            time.sleep(0.02)

    @property
    def moved(self) -> int:
        return int(self.figures.get("bytes_moved", 0))

    def until_it_rests(self) -> None:
        """Look until no byte has moved for two seconds; it must not be over then."""
        seen, since = -1, time.monotonic()

        def resting() -> bool:
            nonlocal seen, since
            if self.moved != seen:
                seen, since = self.moved, time.monotonic()
            return time.monotonic() - since > 2

        self.until(resting, "a rest")
        assert not self.result, "it was over before it rested"


@contextlib.contextmanager
def copying(spec: t.Any, database: str, folder: Path, held: Held) -> t.Iterator[Running]:
    """A copy that is stopped at the end of the block."""
    running, stop = Running(), threading.Event()

    def work() -> None:
        try:
            running.result = copy(spec, database, folder, held, stop, report=running.figures.update)
        except BaseException as exc:
            running.failure.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield running
    finally:
        stop.set()
        thread.join(60)


def wide(server: lab.Server, database: str, login: t.Any, rows: int) -> None:
    """A table of a kilobyte a row."""
    with server.connect(database, login.name, login.password) as conn:
        conn.execute("CREATE TABLE wide (id int PRIMARY KEY, filler text)")
        conn.execute(f"INSERT INTO wide SELECT i, repeat(md5(i::text), 31) FROM generate_series(1, {rows}) i".encode())


def test_no_more_than_so_many_bytes_a_second(source, target, source_database, spec_factory, members, tmp_path, owner) -> None:
    """All relays together keep to the rate."""
    wide(source, source_database, owner, 4000)
    spec = spec_factory("rate", [source_database], copy={**CHUNKS, "throttle": 1_000_000})
    prepare_target(spec, source_database)
    began = time.monotonic()
    result = copy(spec, source_database, tmp_path, Held(source, source_database))
    seconds, moved = time.monotonic() - began, sum(table["bytes"] for table in result["tables"])
    assert moved > 3_500_000 and seconds >= moved / 1_000_000 - 1.0
    assert_equal(source, target, source_database)


def test_it_rests_while_the_probe_is_slow(source, target, source_database, spec_factory, members, tmp_path, owner) -> None:
    wide(source, source_database, owner, 6000)
    source.execute(
        "CREATE TABLE public.pace (seconds float8); INSERT INTO pace VALUES (0.3); GRANT SELECT ON pace TO PUBLIC", source_database
    )
    probe = "SELECT pg_sleep(seconds) FROM public.pace"
    spec = spec_factory("probe", [source_database], copy={**CHUNKS, "throttle": 500_000, "probe_query": probe, "probe_limit": 200})
    prepare_target(spec, source_database)
    with copying(spec, source_database, tmp_path, Held(source, source_database)) as running:
        running.until_it_rests()
        source.execute("UPDATE pace SET seconds = 0", source_database)
        running.until(lambda: running.result, "the end")
    assert target.execute("SELECT count(*) FROM wide", source_database) == [(6000,)]


def blind_note(spec: t.Any, database: str) -> str:
    """What is said where the standbys' positions are not shown to us."""
    notes: list[str] = []
    with Restraint(spec, database, no_pressure, notes.append):
        limit = time.monotonic() + 60
        while not notes:
            assert time.monotonic() < limit
            time.sleep(0.02)
    return notes[0]


def test_it_rests_while_a_standby_lags(target, spec_factory, members, tmp_path) -> None:
    """A standby that does not replay stops the copy, and lets it go on when it has caught up."""
    source = make_source()
    standby = None
    database = "lagging"
    try:
        source.create_database(database, OWNER)
        login = Login(OWNER, PASSWORDS[source.port])
        standby = make_standby(source)
        standby.execute("SELECT pg_wal_replay_pause()")
        wide(source, database, login, 6000)
        options = {**CHUNKS, "throttle": 500_000, "max_standby_lag": 1 << 20}
        spec = spec_factory("lag", [database], source={"port": source.port, "password": PASSWORDS[source.port]}, copy=options)
        prepare_target(spec, database)
        assert "pg_monitor" in blind_note(spec, database)
        source.execute("GRANT pg_monitor TO migrator")
        with copying(spec, database, tmp_path, Held(source, database)) as running:
            running.until_it_rests()
            standby.execute("SELECT pg_wal_replay_resume()")
            running.until(lambda: running.result, "the end")
        assert target.execute("SELECT count(*) FROM wide", database) == [(6000,)]
    finally:
        target.drop_database(database)
        for server in (standby, source):
            if server is not None:
                server.drop()


def test_no_more_sessions_than_granted(source, target, source_database, spec_factory, members, tmp_path, owner) -> None:
    """Neither side ever sees more of ours than ``max_connections``, whatever the numbers of jobs."""
    fill(source, source_database, owner)
    wide(source, source_database, owner, 500)
    options = {**CHUNKS, "jobs": 6, "index_jobs": 6, "max_connections": 5, "throttle": 4_000_000}
    spec = spec_factory("budget", [source_database], copy=options)
    prepare_target(spec, source_database)
    ours = "backend_type = 'client backend' AND application_name ~ 'pgops|pg_dump'"
    query = f"SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND {ours}"
    most = [0, 0]
    with (
        source.connect() as here,
        target.connect() as there,
        copying(spec, source_database, tmp_path, Held(source, source_database)) as running,
    ):

        def counted() -> bool:
            for side, conn in enumerate((here, there)):
                row = conn.execute(query.encode(), [source_database]).fetchone()
                most[side] = max(most[side], row[0] if row else 0)
            return bool(running.result)

        running.until(counted, "the end")
    assert 2 <= most[0] <= 5 and 2 <= most[1] <= 5, most
    assert any("relays and" in note for note in running.result["notes"])
    assert_equal(source, target, source_database)


def test_locks_of_others_are_not_waited_for_in_one_go(source, target, source_database, spec_factory, members, tmp_path, owner) -> None:
    """A table that somebody has locked is asked for again and again, each time briefly, so that others never queue up behind us for long;
    when it is free the copy goes on."""
    fill(source, source_database, owner)
    spec = spec_factory("locks", [source_database], copy=CHUNKS)
    prepare_target(spec, source_database)
    waits = "SELECT pid, xact_start FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE '%relay%'"
    with source.connect(source_database) as locker, source.connect() as other, pytest.MonkeyPatch.context() as patch:
        original = basecopy.TableCopy.run

        def lock(self: t.Any, *words: t.Any) -> t.Any:
            locker.execute("BEGIN; LOCK TABLE bigger IN ACCESS EXCLUSIVE MODE")
            return original(self, *words)

        patch.setattr(basecopy.TableCopy, "run", lock)
        patch.setitem(session.PINNED, "lock_timeout", "300ms")
        seen: set[t.Any] = set()
        with copying(spec, source_database, tmp_path, Held(source, source_database)) as running:

            def asked_twice() -> bool:
                seen.update(other.execute(waits).fetchall())
                return len(seen) >= 2

            running.until(asked_twice, "a second attempt")
            locker.execute("COMMIT")
            running.until(lambda: running.result, "the end")
    assert_equal(source, target, source_database)


@contextlib.contextmanager
def locked(connect: t.Any, database: str, login: t.Any, table: str, **limits: float) -> t.Iterator[t.Any]:
    """From when the plan is made a session of its own has locked ``table``, until it says COMMIT; the copy knows it after a short while."""
    with connect(database, login.name, login.password) as locker, pytest.MonkeyPatch.context() as patch:
        original = basecopy.TableCopy.run

        def lock(self: t.Any, *words: t.Any) -> t.Any:
            if not locker.info.transaction_status:
                locker.execute(f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
            return original(self, *words)

        patch.setattr(basecopy.TableCopy, "run", lock)
        patch.setitem(session.PINNED, "lock_timeout", "300ms")
        patch.setattr(tables, "BRIEF", 0.2)
        patch.setattr(units, "LOCK_PAUSE", 0.2)
        for name, value in limits.items():
            patch.setattr(tables, name, value)
        yield locker


@pytest.mark.parametrize("table", ["bigger", "small"])
def test_a_locked_table_is_copied_after_the_others(table, source, target, source_database, spec_factory, members, tmp_path, owner) -> None:
    """Whether it is cut into chunks or in a bundle with others: they are complete while it waits, and it is said whom for."""
    fill(source, source_database, owner)
    wide(source, source_database, owner, 50)
    spec = spec_factory("locked", [source_database], copy=CHUNKS)
    prepare_target(spec, source_database)
    with (
        locked(source.connect, source_database, owner, table) as locker,
        copying(spec, source_database, tmp_path, Held(source, source_database)) as running,
    ):
        running.until(lambda: running.figures.get("tables_complete") == 3 and running.figures.get("locked"), "the others")
        whom = running.figures["locked"][f"public.{table}"]
        assert f"pid {locker.info.backend_pid} of app (BEGIN; LOCK TABLE {table}" in whom and whom.endswith("on the source")
        assert whom in running.figures["message"] and not running.result
        locker.execute("COMMIT")
        running.until(lambda: running.result, "the end")
    assert running.figures["locked"] == {} and running.figures["message"] == ""
    assert sum(f"public.{table} was locked by" in note for note in running.result["notes"]) == 1
    assert_equal(source, target, source_database)


def test_a_table_that_stays_locked_ends_the_copy_at_last(source, target, source_database, spec_factory, members, tmp_path, owner) -> None:
    """After the named limit, with nothing else left: the error names table and holder, and the next run copies that table alone. The lock
    may as well be on the target."""
    fill(source, source_database, owner)
    spec = spec_factory("stays-locked", [source_database], copy={**CHUNKS, "chunk_bytes": 1 << 30})
    prepare_target(spec, source_database)
    held = Held(source, source_database)
    with locked(
        target.connect, source_database, Login("postgres", target.superuser_password), "public.bigger", LOCKED_SECONDS=1.0
    ) as locker:
        with pytest.raises(CopyError) as caught:
            copy(spec, source_database, tmp_path, held)
        assert caught.value.code == "PGM3021" and caught.value.details["table"] == "public.bigger"
        assert f"pid {locker.info.backend_pid} " in str(caught.value) and "on the target" in str(caught.value)
        locker.execute("COMMIT")
    result = copy(spec, source_database, tmp_path, held)
    assert [item["table"] for item in result["tables"]] == ["public.bigger"]
    assert_equal(source, target, source_database)


@pytest.mark.parametrize("moment", ["_choose", "dump", "_read_rest", "_planned"])
def test_a_lock_met_before_the_rows_is_waited_for(
    moment, source, target, source_database, spec_factory, members, tmp_path, owner, monkeypatch
) -> None:
    """While the plan is made, in pg_dump, before the chunks: it is said whom it waits for, and it goes on when the lock is gone."""
    fill(source, source_database, owner)
    spec = spec_factory("early-lock", [source_database], copy=CHUNKS)
    prepare_target(spec, source_database)
    monkeypatch.setitem(session.PINNED, "lock_timeout", "300ms")
    monkeypatch.setattr(locks, "FIRST_PAUSE", 0.1)
    with source.connect(source_database, owner.name, owner.password) as locker:
        lock_before(monkeypatch, basecopy.SchemaCopy if moment == "dump" else basecopy.BaseCopy, moment, locker)
        with copying(spec, source_database, tmp_path, Held(source, source_database)) as running:
            running.until(lambda: running.figures.get("locked"), "the holder")
            whom = running.figures["locked"].get("public.big") or running.figures["locked"]["public.big_pkey"]
            assert f"pid {locker.info.backend_pid} of app (LOCK TABLE big" in whom and "open for" in whom and whom.endswith("on the source")
            assert whom in running.figures["message"] and not running.result
            locker.execute("COMMIT")
            running.until(lambda: running.result, "the end")
    assert running.figures["locked"] == {} and running.figures["message"] == ""
    assert_equal(source, target, source_database)


def lock_before(patch: pytest.MonkeyPatch, kind: type, method: str, locker: t.Any) -> None:
    """Lock a table and its index when ``method`` is called for the first time."""
    original, seen = getattr(kind, method), []

    def lock(self: t.Any, *words: t.Any) -> t.Any:
        if not seen:
            seen.append(locker.execute("BEGIN"))
            locker.execute("REINDEX INDEX big_pkey" if method == "_read_rest" else "SELECT")
            locker.execute("LOCK TABLE big IN ACCESS EXCLUSIVE MODE")
        return original(self, *words)

    patch.setattr(kind, method, lock)


def test_a_lock_before_the_rows_ends_the_copy_at_last(
    source, target, source_database, spec_factory, members, tmp_path, owner, monkeypatch
) -> None:
    """After the same patience as with rows, naming the holder; the next run goes on."""
    fill(source, source_database, owner)
    spec = spec_factory("stays-locked-early", [source_database], copy=CHUNKS)
    prepare_target(spec, source_database)
    held = Held(source, source_database)
    with source.connect(source_database, owner.name, owner.password) as locker, pytest.MonkeyPatch.context() as patch:
        patch.setitem(session.PINNED, "lock_timeout", "300ms")
        patch.setattr(locks, "LOCKED_SECONDS", 0.5)
        locker.execute("BEGIN; LOCK TABLE big IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(CopyError) as caught:
            copy(spec, source_database, tmp_path, held)
        assert caught.value.code == "PGM3021" and caught.value.details["table"] == "public.big"
        assert f"Could not plan the copy: public.big is locked by pid {locker.info.backend_pid} of app" in str(caught.value)
        locker.execute("COMMIT")
    copy(spec, source_database, tmp_path, held)
    assert_equal(source, target, source_database)


def test_every_session_has_a_lock_timeout(source, target, source_database, spec_factory) -> None:
    """Ours on both sides and of both drivers."""
    spec = spec_factory("timeouts", [source_database])
    for endpoint, database in ((spec.source, source_database), (spec.target, "postgres")):
        with session.connect(endpoint, database) as conn:
            assert conn.execute("SHOW lock_timeout").fetchone() == ("30s",)
