# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A PgBouncer between writers and source: paused for the cutover, led to the target, let go whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import typing as t
from pathlib import Path

import psycopg
import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.cutover.watchdog import FenceJournal
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import MigrationError
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.paths import MigrationPaths
from cutoverlab import held, prepare_hold
from pair import OWNER, PASSWORDS, Login, make_source_of_both_ways, make_target_of_both_ways
from pooler import LINE, Pooler, find

pytestmark = pytest.mark.skipif(find() is None, reason="pgbouncer is not installed (Debian's package of that name)")

DIES = """#!/bin/sh
[ -e {mark} ] && exit 0
touch {mark}
kill -9 $PPID
"""


@pytest.fixture(scope="module")
def source() -> t.Iterator[lab.Server]:
    """A source that may also be a target."""
    server = make_source_of_both_ways()
    yield server
    server.drop()


@pytest.fixture(scope="module")
def target(source: lab.Server) -> t.Iterator[lab.Server]:
    """A target that may also be a source, on which the application's login is known."""
    server = make_target_of_both_ways()
    server.create_role(OWNER, PASSWORDS[source.port])
    yield server
    server.drop()


@pytest.fixture
def shop(source: lab.Server, owner: Login, source_database: str) -> str:
    """A small database."""
    with source.connect(source_database, user=owner.name, password=owner.password) as conn:
        conn.execute("CREATE TABLE public.commits (writer int, number int, PRIMARY KEY (writer, number))")
    prepare_hold(source, source_database)
    return source_database


@pytest.fixture
def pooler(source: lab.Server, target: lab.Server, shop: str) -> t.Iterator[Pooler]:
    """In a folder that its own user can walk into."""
    folder = lab.run_folder() / f"pooler-{shop}"
    folder.mkdir(mode=0o755)
    one = Pooler(folder, shop, source, target)
    yield one
    one.close()


class Writers:
    """Clients of the pooler, each with one session for all its life: whatever happens behind it must be a wait and no error."""

    def __init__(self, dsn: str, sessions: int = 4) -> None:
        self._dsn, self._stop = dsn, threading.Event()
        self.commits: list[tuple[int, int]] = []
        self.errors: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(sessions)]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *dummy: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End them between two commits."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _run(self, writer: int) -> None:
        number = 0
        try:
            with psycopg.connect(self._dsn, autocommit=True, prepare_threshold=None) as conn:
                while not self._stop.is_set():
                    number += 1
                    conn.execute("INSERT INTO public.commits VALUES (%s, %s)", [writer, number])
                    self.commits.append((writer, number))
                    self._stop.wait(0.01)
        except psycopg.Error as exc:
            self.errors.append(str(exc))

    def until(self, more: int, seconds: float = 30.0) -> None:
        """Wait for ``more`` further commits."""
        wanted, limit = len(self.commits) + more, time.monotonic() + seconds
        while len(self.commits) < wanted:
            assert time.monotonic() < limit and not self.errors, self.errors
            time.sleep(0.02)

    def account(self, server: lab.Server, database: str) -> None:
        """No session has seen an error, and each acknowledged commit is on ``server``."""
        self.stop()
        assert self.errors == []
        with server.connect(database) as conn:
            assert {*self.commits} - {*conn.execute("SELECT writer, number FROM public.commits").fetchall()} == set()


def until_let_go(pooler: Pooler, seconds: float = 15.0) -> None:
    """Wait until its clients go on."""
    limit = time.monotonic() + seconds
    while pooler.paused:
        assert time.monotonic() < limit
        time.sleep(0.02)


def by_command(pooler: Pooler) -> dict[str, t.Any]:
    """The options that lead to the target by a command."""
    return {"pgbouncer": [pooler.admin], "release": ["cp", str(pooler.there), str(pooler.places)]}


def by_file(pooler: Pooler) -> dict[str, t.Any]:
    """The options that have the engine write the file, for the way there and back."""
    return {"pgbouncer": [pooler.admin], "release_file": str(pooler.places), "release_template": LINE}


def test_writers_wait_and_go_on_by_a_command(host, source, target, shop, pooler, spec_factory) -> None:
    """Writers in sessions of the pooler see a pause and no error; nothing is lost."""
    spec = spec_factory("pooled", [shop], cutover=by_command(pooler))
    with Writers(pooler.dsn()) as writers:
        host.manager.start(spec)
        host.until_waiting(spec.key)
        writers.until(50)
        status = host.cut_over(spec.key)
        writers.until(50)
        assert pooler.place()["port"] == str(target.port) and not pooler.paused
        writers.account(target, shop)
    assert "PgBouncer paused" in str(status["cutover"]["phases"]) and status["cutover"]["release_error"] is None


def test_there_and_back_by_a_file(host, source, target, shop, pooler, spec_factory) -> None:
    """The file of the pooler is written by the engine at the cutover and at the rollback, and keeps owner and mode."""
    spec = spec_factory("pooled", [shop], rollback="prepared", cutover=by_file(pooler))
    before = pooler.places.stat()
    with Writers(pooler.dsn()) as writers:
        host.manager.start(spec)
        host.until_waiting(spec.key)
        writers.until(50)
        status = host.cut_over(spec.key)
        assert f"{pooler.places} written" in str(status["cutover"]["phases"])
        writers.until(50)
        assert pooler.place()["port"] == str(target.port)
        host.manager.start_way_back(spec)
        back = host.manager.way_back(spec)
        host.until_waiting(back.key)
        host.cut_over(back.key)
        writers.until(50)
        assert pooler.place()["port"] == str(source.port)
        writers.account(source, shop)
    after = pooler.places.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)


def test_a_pause_that_is_not_reached_is_given_back(host, source, target, shop, pooler, spec_factory) -> None:
    """A client that stays in its transaction: the cutover is given back at its deadline, the others go on, and it may commit."""
    spec = spec_factory("pooled", [shop], cutover={**by_command(pooler), "max_pause": 3})
    host.manager.start(spec)
    host.until_waiting(spec.key)
    with Writers(pooler.dsn()) as writers, psycopg.connect(pooler.dsn(), prepare_threshold=None) as slow:
        slow.execute("INSERT INTO public.commits VALUES (99, 1)")
        status = host.try_cutover(spec.key)
        assert status["cutover"]["given_back"]["code"] == "PGM5108", status["cutover"]
        until_let_go(pooler)
        writers.until(20)
        slow.commit()
        host.until_waiting(spec.key)
        host.cut_over(spec.key, max_pause=30)
        writers.until(20)
        writers.commits.append((99, 1))
        writers.account(target, shop)


@pytest.mark.parametrize("phase", ["fence", "drain"])
def test_service_killed_while_paused(phase, host, source, target, shop, pooler, spec_factory) -> None:
    """The watchdog lets the clients go on at the source; played again, the migration goes on, and nobody saw an error."""
    spec = spec_factory("pooled", [shop], cutover={**by_command(pooler), "max_latency": 60, "max_pause": 10})
    journal = FenceJournal(MigrationPaths(host.home, spec.key).fence)
    with Writers(pooler.dsn()) as writers:
        host.manager.start(spec)
        host.until_waiting(spec.key)
        with contextlib.ExitStack() as stack:
            if phase == "fence":  # PAUSE waits for this one
                slow = stack.enter_context(psycopg.connect(pooler.dsn(), prepare_threshold=None))
                slow.execute("SELECT 1")
                host.manager.request_cutover(spec.key)
                limit = time.monotonic() + 20
                while journal.state() != "fenced" or not host.watchdogs(spec.key) or pooler.place()["paused"] != "1":
                    assert time.monotonic() < limit
                    time.sleep(0.01)
                host.kill(spec.key)
            else:
                with held(host, spec.key, target, shop, phase):
                    assert pooler.paused
                    os.kill(host.manager.status(spec.key)["service"]["pid"], signal.SIGKILL)
                host.gone(spec.key)
            until_let_go(pooler)
        writers.until(20)
        assert pooler.place()["port"] == str(source.port) and journal.state() == "lifted"
        host.manager.start(spec)
        host.until_waiting(spec.key)
        host.cut_over(spec.key)
        writers.until(20)
        writers.account(target, shop)


def test_service_killed_in_the_release(host, source, target, shop, pooler, spec_factory, tmp_path) -> None:
    """Behind the point of no return: the next start writes the file again and lets the clients go on at the target."""
    script = tmp_path / "dies"
    script.write_text(DIES.format(mark=tmp_path / "mark"))
    script.chmod(0o700)
    spec = spec_factory("pooled", [shop], cutover={**by_file(pooler), "release": [str(script)]})
    with Writers(pooler.dsn()) as writers:
        host.manager.start(spec)
        host.until_waiting(spec.key)
        writers.until(20)
        host.manager.request_cutover(spec.key)
        limit = time.monotonic() + 30
        while not (tmp_path / "mark").exists():
            assert time.monotonic() < limit
            time.sleep(0.01)
        host.gone(spec.key)
        assert pooler.paused
        host.manager.start(spec)
        host.until(spec.key, lambda s: s["state"] == "Succeeded", "Succeeded")
        writers.until(20)
        assert pooler.place()["port"] == str(target.port)
        writers.account(target, shop)


def test_a_hook_that_fails(host, source, target, shop, pooler, spec_factory) -> None:
    """The target is the server, the clients wait, and it is said what to do; done, they go on without an error."""
    spec = spec_factory("pooled", [shop], cutover={"pgbouncer": [pooler.admin], "release": ["ls", "/nonexistent/hook"]})
    with Writers(pooler.dsn()) as writers:
        host.manager.start(spec)
        host.until_waiting(spec.key)
        writers.until(20)
        status = host.cut_over(spec.key)
        assert status["state"] == "Succeeded" and pooler.paused
        said = status["cutover"]["release_error"]
        assert "/nonexistent/hook" in said and "PgBouncer stays paused" in said and "RESUME" in said
        assert any(said in str(event) for event in status["events"])
        pooler.places.write_text(pooler.there.read_text())
        pooler.ask("RELOAD")
        pooler.ask(f"RESUME {shop}")
        writers.until(20)
        writers.account(target, shop)


def test_what_leads_the_writers_is_looked_at_before(host, source, target, shop, pooler, spec_factory, tmp_path) -> None:
    """Each mistake in what is outside of both servers refuses the cutover before it begins, and says which."""
    script, plain = tmp_path / "script", tmp_path / "plain"
    script.write_text("#!/usr/bin/nosuchshell\n")
    script.chmod(0o700)
    plain.write_text("true\n")
    plain.chmod(0o600)
    spec = spec_factory("pooled", [shop], cutover=by_command(pooler))
    host.manager.start(spec)
    host.until_waiting(spec.key)
    viewer = pooler.admin.replace("user=pgbouncer", "user=viewer")
    wrong: list[tuple[dict[str, t.Any], str]] = [
        ({"release": ["systemclt", "reload", "pgbouncer"]}, "systemclt does not exist"),
        ({"release": [str(plain)]}, "cannot be executed"),
        ({"release": [str(script)]}, "nosuchshell"),
        ({"fence_command": ["true"], "unfence_command": ["/nonexistent/open"]}, "cutover.unfence_command"),
        ({"fence_command": ["/nonexistent/close"], "unfence_command": ["true"]}, "cutover.fence_command"),
        ({"release_file": str(tmp_path / "none" / "there"), "release_template": "{dbname}"}, "No such file"),
        ({"pgbouncer": [pooler.admin.replace(str(pooler.port), str(lab.free_port()))]}, "PgBouncer, Could not"),
        ({"pgbouncer_databases": ["elsewhere"]}, "does not know elsewhere"),
        ({"pgbouncer": [viewer]}, "viewer may look, but not PAUSE"),
    ]
    for options, words in wrong:
        told = host.manager.precheck(spec.key, options)["refused"]
        assert told and told["code"] == "PGM5005" and words in told["message"] and told["hint"], (options, told)
    with pytest.raises(MigrationError, match="systemclt") as caught:
        host.manager.request_cutover(spec.key, {"release": ["systemclt"]})
    assert caught.value.code == "PGM5005"
    unknown = {"release_file": str(pooler.places), "release_template": "{dbname} {name}"}
    with pytest.raises(MigrationError, match="unknown placeholder {name}"):
        host.manager.precheck(spec.key, unknown)
    told = host.manager.precheck(spec.key, {"rollback_release": ["/nonexistent/never"]})
    assert told["refused"] is None, "without a way back nobody runs it"
    assert {check["name"] for check in told["checks"]} >= {"cutover.release", "PgBouncer"}
    assert Path(pooler.places).exists()
