# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""SIGKILL of the service, of the target and of the playbook in each phase of a cutover: the source is writable again within the deadline, a
second cutover succeeds, no acknowledged commit is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest
import servers as lab
import workload as writers
from ansible_collections.pgops.migration.plugins.module_utils._engine.cutover.watchdog import FenceJournal
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.paths import (
    MigrationPaths,
    read_json,
    write_json,
)
from cutoverlab import held, lead, prepare_hold, state_of
from host import Host
from pair import make_target

PHASES = ("fence", "drain", "complete", "confirm")
MAX_PAUSE = 8.0
KILLS = [
    *(("revoke_connect", phase) for phase in PHASES),
    *(("locks", phase) for phase in ("fence", "drain", "confirm")),
    *((fence, phase) for fence in ("read_only", "external") for phase in ("fence", "drain")),
]
STOP = """#!/bin/sh
# nobody finds the source any more, and who is there is shown out
touch {began}
sleep 1
echo host=/nowhere > {dsn}.new && mv {dsn}.new {dsn}
exec {psql} -qAt -d "{admin}" -c "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'shop writer%'"
"""


@pytest.fixture(scope="module")
def target() -> t.Iterator[lab.Server]:
    """A target of this module's own: it is killed."""
    server = make_target()
    yield server
    server.drop()


@pytest.fixture
def application(source, owner, source_database, tmp_path) -> t.Iterator[writers.Workload]:
    """Writers of every kind on the source; the release hook leads them to the target."""
    writers.point_at(tmp_path / "dsn", source.dsn(source_database, owner.name, owner.password))
    workload = writers.Workload(tmp_path / "dsn", 4, folder=tmp_path / "notes", rate=20)
    workload.prepare()
    prepare_hold(source, source_database)
    yield workload
    workload.stop()


def writable_again(application: writers.Workload, source: lab.Server, since: float) -> None:
    """Commits are acknowledged by the source before the deadline has passed (and a second for the watchdog to connect)."""
    before = application.acknowledged(source.port)
    application.wait_acknowledged(before + 10, MAX_PAUSE + 4, port=source.port)
    assert time.monotonic() - since < MAX_PAUSE + 4


def until_guarded(host: Host, key: str, journal: FenceJournal) -> None:
    """The fence is announced and its watchdog runs. A kill between the two finds a source that nothing was done to."""
    limit = time.monotonic() + 30
    while journal.state() != "fenced" or not host.watchdogs(key):
        assert time.monotonic() < limit, journal.state()
        time.sleep(0.001)


def until_lifted(journal: FenceJournal, seconds: float = MAX_PAUSE + 4) -> None:
    """The writers may not even have felt the fence yet when they are asked."""
    limit = time.monotonic() + seconds
    while journal.state() != "lifted":
        assert time.monotonic() < limit
        time.sleep(0.01)


def finish(host: Host, spec: t.Any, application: writers.Workload, target: lab.Server, database: str) -> None:
    """The second cutover, and the account."""
    host.until_waiting(spec.key)
    host.cut_over(spec.key)
    application.wait_acknowledged(10, port=target.port)
    application.stop()
    account = writers.check(target.dsn(database), application.folder)
    assert account.good, account


def commands(folder: Path, source: lab.Server, database: str) -> dict[str, list[str]]:
    """What stops the writers of ``application`` from outside, and what lets them go on at the source."""
    stop, here = folder / "stop", folder / "here"
    stop.write_text(STOP.format(began=folder / "began", dsn=folder / "dsn", psql=source.bindir / "psql", admin=source.dsn(database)))
    stop.chmod(0o700)
    here.write_text((folder / "dsn").read_text())
    return {"fence_command": [str(stop)], "unfence_command": ["cp", str(here), str(folder / "dsn")]}


@pytest.mark.parametrize(("fence", "phase"), KILLS)
def test_service_killed(fence, phase, host, source, target, application, source_database, spec_factory, tmp_path) -> None:
    """The watchdog opens the source, at once and by itself; played again, the migration goes on."""
    options = {"fence": fence, "max_latency": 60, "max_pause": MAX_PAUSE, "release": lead(tmp_path, target, source_database)}
    if fence == "external":
        options.update(commands(tmp_path, source, source_database))
    spec = spec_factory(f"killed-{phase}", [source_database], cutover=options)
    before = state_of(source, source_database)
    with application:
        host.manager.start(spec)
        host.until_waiting(spec.key)
        journal = FenceJournal(MigrationPaths(host.home, spec.key).fence)
        if phase == "fence":
            host.manager.request_cutover(spec.key)
            until_guarded(host, spec.key, journal)
            while fence == "external" and not (tmp_path / "began").exists():
                time.sleep(0.001)
            host.kill(spec.key)
        else:
            with held(host, spec.key, target, source_database, phase):
                pid = host.manager.status(spec.key)["service"]["pid"]
                os.kill(pid, signal.SIGKILL)
            host.gone(spec.key)
        writable_again(application, source, time.monotonic())
        until_lifted(journal)
        assert state_of(source, source_database) == before
        host.manager.start(spec)
        finish(host, spec, application, target, source_database)


@pytest.mark.parametrize("phase", ["drain", "complete", "confirm"])
def test_target_killed(phase, host, source, target, application, source_database, spec_factory, tmp_path) -> None:
    """The cutover is given back; when the target is there again, a second one succeeds."""
    options = {"max_latency": 60, "max_pause": MAX_PAUSE, "release": lead(tmp_path, target, source_database)}
    spec = spec_factory(f"target-{phase}", [source_database], cutover=options)
    before = state_of(source, source_database)
    with application:
        host.manager.start(spec)
        host.until_waiting(spec.key)
        with held(host, spec.key, target, source_database, phase) as go_on:
            began = time.monotonic()
            target.crash()
            if phase != "complete":
                go_on()
        if phase == "confirm":  # the proof does not need the target any more, and all is committed there
            status = host.until(spec.key, lambda s: s["cutover"], "the end of the cutover")
        else:
            writable_again(application, source, began)
            assert state_of(source, source_database) == before
            status = host.until(spec.key, lambda s: (s["cutover"] or {}).get("given_back"), "given back")
        target.start()
        if status["cutover"].get("given_back"):
            finish(host, spec, application, target, source_database)


@pytest.mark.parametrize("phase", ["drain", "confirm"])
def test_playbook_killed(phase, host, source, target, application, source_database, spec_factory, tmp_path) -> None:
    """Nobody needs the playbook: the cutover that it asked for goes on and succeeds."""
    options = {"max_latency": 60, "max_pause": 30, "release": lead(tmp_path, target, source_database)}
    spec = spec_factory(f"play-{phase}", [source_database], cutover=options)
    with application:
        host.manager.start(spec)
        host.until_waiting(spec.key)
        ask = (
            "import sys; from pathlib import Path;"
            "from ansible_collections.pgops.migration.plugins.module_utils._engine.service.manager import Manager;"
            "m = Manager(Path(sys.argv[1]), supervisor='process'); m.request_cutover(sys.argv[2]); sys.stdin.read()"
        )
        link = str(MigrationPaths(host.home, spec.key).home)

        def request(key: str) -> None:
            caller = subprocess.Popen([sys.executable, "-c", ask, link, key], stdin=subprocess.PIPE, env={"PYTHONPATH": ":".join(sys.path)})
            host.until(key, lambda s: s["cutover_phase"], "the cutover")
            caller.kill()
            caller.wait()

        with held(host, spec.key, target, source_database, phase, request) as go_on:
            go_on()
        host.until(spec.key, lambda s: s["state"] == "Succeeded", "Succeeded")
        application.wait_acknowledged(10, port=target.port)
    account = writers.check(target.dsn(source_database), application.folder)
    assert account.good, account


def test_host_restarted_in_the_fence(host, source, target, application, source_database, spec_factory, tmp_path) -> None:
    """The runtime host goes down in a cutover and comes back with a new clock, by which the deadline is far ahead, and the target is not
    there yet: its unit opens the source first, waits for the target, and goes on."""
    spec = spec_factory("reboot", [source_database], cutover={"max_latency": 60, "release": lead(tmp_path, target, source_database)})
    before = state_of(source, source_database)
    with application:
        host.manager.start(spec)
        host.until_waiting(spec.key)
        paths = MigrationPaths(host.home, spec.key)
        journal = FenceJournal(paths.fence)
        with held(host, spec.key, target, source_database, "complete"):
            for pid in (*host.watchdogs(spec.key), host.manager.status(spec.key)["service"]["pid"]):
                os.kill(pid, signal.SIGKILL)
        host.gone(spec.key)
        assert journal.state() == "fenced"
        write_json(paths.fence, {**read_json(paths.fence), "deadline": time.monotonic() + 1e6})
        target.stop("immediate")
        unit = subprocess.Popen([sys.executable, str(paths.engine), "serve", "--home", str(host.home), "--migration", spec.key])
        try:
            until_lifted(journal, 60)
            writable_again(application, source, time.monotonic())
            assert state_of(source, source_database) == before
            target.start()
            finish(host, spec, application, target, source_database)
        finally:
            unit.terminate()
            unit.wait(60)
