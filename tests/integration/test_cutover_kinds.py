# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Every kind of fence on a whole migration under writers: exact, given back where it cannot be proven, undone whatever happens."""

from __future__ import annotations

import threading
import time
import typing as t

import psycopg
import pytest
import servers as lab
import workload as writers
from ansible_collections.pgops.migration.plugins.module_utils._engine.cutover.fence import make_fence, plan_fence
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import CutoverAborted, SpecificationError
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.selection import Selection
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from cutoverlab import lead, shop_writers, state_of
from pair import make_target
from rows import differences


@pytest.fixture(scope="module")
def target() -> t.Iterator[lab.Server]:
    """A target of this module's own: migrations leave roles and memberships on it."""
    server = make_target()
    yield server
    server.drop()


@pytest.fixture
def application(source, owner, source_database, tmp_path) -> t.Iterator[writers.Workload]:
    """Writers of every kind on the source; the release hook leads them to the target."""
    workload = shop_writers(source, owner, source_database, tmp_path, 4, 20)
    yield workload
    workload.stop()


@pytest.mark.parametrize("fence", ["revoke_connect", "locks"])
def test_exact_under_writers(fence, host, source, target, application, source_database, spec_factory, tmp_path) -> None:
    """No acknowledged commit is missing, none is accepted by the source after the point, the writers go on at the target."""
    spec = spec_factory("kinds", [source_database], cutover={"fence": fence, "release": lead(tmp_path, target, source_database)})
    with application:
        host.manager.start(spec)
        host.until_waiting(spec.key)
        application.wait_acknowledged(application.acknowledged() + 50)
        status = host.cut_over(spec.key)
        application.wait_acknowledged(20, port=target.port)
    account = writers.check(target.dsn(source_database), application.folder)
    assert account.good, account
    assert status["verification"]["equal"] and status["cutover"]["pause_seconds"] < 10
    assert "nothing committed since the marker" in str(status["cutover"]["phases"])
    assert status["cutover"]["time"][source_database]
    with source.connect() as conn:  # closed for everybody but us (and superusers)
        assert conn.execute("SELECT has_database_privilege('app', %s, 'CONNECT')", [source_database]).fetchone() == (False,)


def test_locks_are_on_migrated_tables_alone(source, owner, source_database, spec_factory) -> None:
    """Who writes to a table that is left out does not wait, before the end."""
    with source.connect(source_database, user=owner.name, password=owner.password) as conn:
        conn.execute("CREATE TABLE public.w (i int PRIMARY KEY); CREATE TABLE public.out (i int); SET lock_timeout = '200ms'")
        selection = Selection.of(spec_factory("kinds", [source_database], copy={"exclude": ["public.out"]}).copy)
        endpoint = spec_factory("kinds", [source_database]).source
        change = plan_fence(endpoint, source_database, "locks", selection)
        fence = make_fence(endpoint, change)
        assert fence.raise_(time.monotonic() + 60) == "1 tables locked against writers"
        conn.execute("INSERT INTO public.out VALUES (1)")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            conn.execute("INSERT INTO public.w VALUES (1)")
        type(fence).lift(endpoint, change)
        conn.execute("INSERT INTO public.w VALUES (1)")
    fence.let_go()


def test_locks_end_no_session_of_a_cutover_that_is_given_back(host, source, owner, source_database, spec_factory) -> None:
    """Readers read on, writers wait and then go on in the same session."""
    with source.connect(source_database, user=owner.name, password=owner.password) as conn:
        conn.execute("CREATE TABLE public.w (i int PRIMARY KEY)")
    spec = spec_factory("kinds", [source_database])
    change = plan_fence(spec.source, source_database, "locks")
    fence = make_fence(spec.source, change)
    with source.connect(source_database, user=owner.name, password=owner.password) as conn:
        fence.raise_(time.monotonic() + 10)
        assert conn.execute("SELECT count(*) FROM public.w").fetchone() == (0,)
        done = threading.Event()
        thread = threading.Thread(target=lambda: (conn.execute("INSERT INTO public.w VALUES (1)"), done.set()))
        thread.start()
        assert not done.wait(0.3)
        type(fence).lift(spec.source, change)
        assert done.wait(10)
        thread.join()
    fence.let_go()


def test_read_only_is_given_back_when_somebody_insists(host, source, owner, target, source_database, spec_factory) -> None:
    """A session that says BEGIN READ WRITE gets through; the stream shows it, and nothing is lost: the cutover is given back. Without such
    a session it succeeds, and readers are at the source all the time."""
    with source.connect(source_database, user=owner.name, password=owner.password) as conn:
        conn.execute("CREATE TABLE public.w (i int GENERATED ALWAYS AS IDENTITY PRIMARY KEY)")
    spec = spec_factory("readonly", [source_database], cutover={"fence": "read_only"})
    before = state_of(source, source_database)
    host.manager.start(spec)
    host.until_waiting(spec.key)
    stop = threading.Event()

    def insist() -> None:
        while not stop.is_set():
            try:
                with source.connect(source_database, user=owner.name, password=owner.password) as conn:
                    while not stop.is_set():
                        conn.execute("BEGIN READ WRITE")
                        conn.execute("INSERT INTO public.w DEFAULT VALUES")
                        conn.execute("COMMIT")
            except psycopg.Error:
                continue

    thread = threading.Thread(target=insist)
    thread.start()
    try:
        status = host.try_cutover(spec.key)
    finally:
        stop.set()
        thread.join()
    assert status["cutover"]["given_back"]["code"] == "PGM5112"
    assert state_of(source, source_database) == before
    with source.connect(source_database, user=owner.name, password=owner.password) as conn:
        conn.execute("INSERT INTO public.w DEFAULT VALUES")
    host.until_waiting(spec.key)
    host.cut_over(spec.key)
    reader = source.connect(source_database, user=owner.name, password=owner.password)
    with reader, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        reader.execute("INSERT INTO public.w DEFAULT VALUES")
    with source.connect(source_database) as left, target.connect(source_database) as right:
        assert differences(left, right) == {}


def test_external_is_proven_not_believed(host, source, owner, target, source_database, spec_factory, tmp_path) -> None:
    """A command that stops nobody: given back, and its counterpart is run. One that does: exact, with the idle session still there."""
    with source.connect(source_database, user=owner.name, password=owner.password) as conn:
        conn.execute("CREATE TABLE public.w (i int GENERATED ALWAYS AS IDENTITY PRIMARY KEY)")
    flag, opened = tmp_path / "stopped", tmp_path / "opened"
    commands = {"fence_command": ["touch", str(flag)], "unfence_command": ["touch", str(opened)]}
    spec = spec_factory("outside", [source_database], cutover={"fence": "external", "max_pause": 3, **commands})
    host.manager.start(spec)
    host.until_waiting(spec.key)
    obedient, end = threading.Event(), threading.Event()

    def write() -> None:
        with source.connect(source_database, user=owner.name, password=owner.password) as conn:
            while not end.is_set():
                if not (obedient.is_set() and flag.exists()):
                    conn.execute("INSERT INTO public.w DEFAULT VALUES")
                time.sleep(0.005)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        status = host.try_cutover(spec.key)
        assert status["cutover"]["given_back"]["code"] == "PGM5107" and opened.exists()
        obedient.set()
        host.until_waiting(spec.key)
        host.cut_over(spec.key)
    finally:
        end.set()
        thread.join()
    with source.connect(source_database) as left, target.connect(source_database) as right:
        assert differences(left, right) == {}


@pytest.mark.parametrize("fence", ["revoke_connect", "read_only", "locks", "external"])
def test_prepared_transactions_stop_every_fence(fence, source, owner, source_database, spec_factory) -> None:
    """They survive a fence and can be committed from anywhere."""
    spec = spec_factory("fence", [source_database])
    with source.connect(source_database, user=owner.name, password=owner.password) as conn:
        if conn.execute("SHOW max_prepared_transactions").fetchone()[0] == "0":
            pytest.skip("this server allows no prepared transactions")
        conn.execute("CREATE TABLE public.p (i int)")
        change = plan_fence(spec.source, source_database, fence)
        one = make_fence(spec.source, change)
        conn.execute("BEGIN; INSERT INTO public.p VALUES (1); PREPARE TRANSACTION 'left behind'")
        try:
            with pytest.raises(CutoverAborted, match="left behind"):
                one.raise_(time.monotonic() + 5)
        finally:
            conn.execute("ROLLBACK PREPARED 'left behind'")
            type(one).lift(spec.source, change)
            one.let_go()


WRONG: list[tuple[dict[str, t.Any], str]] = [
    ({"fence": "external"}, "nothing stops"),
    ({"fence_command": ["stop"]}, "belong together"),
    ({"pgbouncer": ["host=x user=y password=z"]}, "password"),
    ({"pgbouncer": ["postgresql://u:secret@host/pgbouncer"]}, "password"),
    ({"fence": "wall"}, "revoke_connect"),
]


@pytest.mark.parametrize(("cutover", "words"), WRONG)
def test_wrong_options(cutover, words, spec_factory) -> None:
    """What cannot work is refused before anything is touched."""
    with pytest.raises(SpecificationError, match=words):
        spec: MigrationSpec = spec_factory("wrong", ["db"], cutover=cutover)
        assert spec
