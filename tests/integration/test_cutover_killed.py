# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""SIGKILL of everything that takes part in a cutover, in each of its phases and under each kind of fence: the source is writable again
within the deadline, a second cutover succeeds, no acknowledged commit is lost; behind the release the first one comes to its end.

``PG_MIGRATION_KILL_MATRIX=1`` for every combination (half an hour); else a part in which each of them is met.
"""

from __future__ import annotations

import contextlib
import dataclasses
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
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from cutoverlab import Hook, held, lead, prepare_hold, shop_writers, state_of, stuck
from host import Host
from pair import describe, make_source, make_target
from plays import Playbooks

FENCES = ("revoke_connect", "locks", "read_only", "external")
PHASES = ("fence", "drain", "complete", "confirm", "release")
VICTIMS = ("service", "worker", "receiver", "watchdog", "target", "source")
MAX_PAUSE = 8.0
"""Of cutovers that end by it: a target that is away is waited for until then."""

CONNECT = 30.0
"""What whoever lifts a fence may take to do so, on a machine that has much else to do."""

LONG_PAUSE = 120.0
"""Of all others, so that the phase is reached however slow the machine is; the fence is lifted long before."""

PART = (
    ("service", "revoke_connect", "fence"),
    ("service", "locks", "drain"),
    ("service", "read_only", "complete"),
    ("service", "locks", "complete"),
    ("service", "external", "confirm"),
    ("service", "read_only", "confirm"),
    ("worker", "revoke_connect", "complete"),
    ("worker", "locks", "release"),
    ("receiver", "external", "drain"),
    ("watchdog", "revoke_connect", "confirm"),
    ("target", "revoke_connect", "fence"),
    ("target", "locks", "complete"),
    ("target", "read_only", "release"),
    ("source", "locks", "confirm"),
    ("source", "revoke_connect", "drain"),
    ("playbook", "revoke_connect", "drain"),
)
WHOLE = (
    *((victim, fence, phase) for victim in VICTIMS for fence in FENCES for phase in PHASES if (victim, phase) != ("watchdog", "release")),
    *(("playbook", "revoke_connect", phase) for phase in PHASES),  # what stands between it and the fence is the service
)
KILLS = WHOLE if os.environ.get("PG_MIGRATION_KILL_MATRIX") else PART
STOP = """#!/bin/sh
# nobody finds the source any more, and who is there is shown out
sleep 1
echo host=/nowhere > {dsn}.new && mv {dsn}.new {dsn}
exec {psql} -qAt -d "{admin}" -c "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'shop writer%'"
"""


@pytest.fixture(scope="module")
def source() -> t.Iterator[lab.Server]:
    """A source of this module's own: it is restarted."""
    server = make_source()
    yield server
    server.drop()


@pytest.fixture(scope="module")
def target() -> t.Iterator[lab.Server]:
    """A target of this module's own: it is killed."""
    server = make_target()
    yield server
    server.drop()


@pytest.fixture
def application(source, owner, source_database, tmp_path) -> t.Iterator[writers.Workload]:
    """Writers of every kind on the source; the release hook leads them to the target."""
    workload = shop_writers(source, owner, source_database, tmp_path, 4, 20)
    prepare_hold(source, source_database)
    yield workload
    workload.stop()


def writable_again(application: writers.Workload, source: lab.Server) -> None:
    """The source acknowledges commits."""
    application.wait_acknowledged(application.acknowledged(source.port) + 10, 60, port=source.port)


def until_guarded(host: Host, key: str, journal: FenceJournal, dead: t.Collection[int] = ()) -> None:
    """The fence is announced and its watchdog runs, one that is not among the ``dead``. A kill between the two finds a source that nothing
    was done to."""
    limit = time.monotonic() + 60
    while journal.state() != "fenced" or not set(host.watchdogs(key)).difference(dead):
        assert time.monotonic() < limit, journal.state()
        time.sleep(0.001)


def until_lifted(journal: FenceJournal, since: float, seconds: float = MAX_PAUSE + CONNECT) -> None:
    """The fence is lifted within ``seconds`` after ``since`` (``time.time()``)."""
    limit = time.monotonic() + seconds + 60
    while journal.state() != "lifted":
        assert time.monotonic() < limit, journal.state()
        time.sleep(0.01)
    assert journal.path.stat().st_mtime - since < seconds


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
    stop.write_text(STOP.format(dsn=folder / "dsn", psql=source.bindir / "psql", admin=source.dsn(database)))
    stop.chmod(0o700)
    here.write_text((folder / "dsn").read_text())
    return {"fence_command": [str(stop)], "unfence_command": ["cp", str(here), str(folder / "dsn")]}


@dataclasses.dataclass
class Stage:
    """A migration that waits for its cutover, under writers."""

    host: Host
    spec: MigrationSpec
    source: lab.Server
    target: lab.Server
    application: writers.Workload
    plays: Playbooks
    hook: Hook
    before: t.Any

    @property
    def key(self) -> str:
        """Of the migration."""
        return self.spec.key

    @property
    def database(self) -> str:
        """The one database."""
        return self.spec.databases[0]

    @property
    def journal(self) -> FenceJournal:
        """Of the fence."""
        return FenceJournal(MigrationPaths(self.host.home, self.key).fence)

    def status(self) -> dict[str, t.Any]:
        """As ``Manager.status``."""
        return self.host.manager.status(self.key) or {}

    @contextlib.contextmanager
    def held(self, phase: str, request: t.Callable[[str], t.Any]) -> t.Iterator[t.Callable[[], None]]:
        """Ask for a cutover, which stays at ``phase``; the value given lets it go on."""
        if phase != "release":
            self.hook.let_go()
        if phase == "fence":
            with stuck(self.source, self.database) as go_on:
                request(self.key)
                until_guarded(self.host, self.key, self.journal)
                yield go_on
        elif phase == "release":
            request(self.key)
            self.hook.until_at_work(self.host, self.key)
            yield self.hook.let_go
        else:
            with held(self.host, self.key, self.target, self.database, phase, request) as go_on:
                yield go_on

    def strike(self, victim: str) -> list[int]:
        """Kill it; its process ids. The source is told to stop as for a restart."""
        if victim == "source":
            os.kill(self.source.pid, signal.SIGINT)
            return [self.source.pid]
        pids = {
            "service": lambda: [self.status()["service"]["pid"]],
            "target": lambda: [self.target.pid],
            "watchdog": lambda: self.host.watchdogs(self.key),
            "worker": lambda: self.host.children(self.key, "work"),
            "receiver": lambda: self.host.children(self.key, "receive"),
        }[victim]()
        assert pids, victim
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return list(pids)

    def until_over(self) -> bool:
        """Wait for the end of the cutover; True if it has succeeded, False if it was given back."""
        host, key = self.host, self.key
        status = host.until(key, lambda s: s["state"] == "Succeeded" or (s["cutover"] or {}).get("given_back"), "the end of the cutover")
        return bool(status["state"] == "Succeeded")

    def given_back(self, since: float) -> None:
        """The source is as it was, and writes."""
        until_lifted(self.journal, since)
        writable_again(self.application, self.source)
        assert state_of(self.source, self.database) == self.before


@pytest.fixture
def stage(victim, fence, phase, host, source, target, application, source_database, tmp_path) -> t.Iterator[Stage]:
    """For one cell; the writers begin afterwards, for a base copy under writers takes its time."""

    hook = Hook(tmp_path, lead(tmp_path, target, source_database))
    pause = MAX_PAUSE if victim == "target" and phase in ("fence", "drain") else LONG_PAUSE
    options = {"fence": fence, "max_latency": 3600, "max_pause": pause, "release": [str(hook.program)]}
    if fence == "external":
        options.update(commands(tmp_path, source, source_database))
    described = describe(source, target, "killed", [source_database], cutover=options)
    plays = Playbooks(tmp_path, described)
    plays.home = host.home
    plays.describe(described)
    spec = MigrationSpec.from_dict(described)
    before = state_of(source, source_database)
    host.manager.start(spec)
    host.until_waiting(spec.key)
    yield Stage(host, spec, source, target, application, plays, hook, before)
    for server in (source, target):
        if not server.running:
            revive(server)


def revive(server: lab.Server) -> None:
    """Start it; what a killed postmaster leaves behind takes a moment to be gone."""
    limit = time.monotonic() + 60
    while True:
        try:
            server.start()
            return
        except RuntimeError:
            if time.monotonic() > limit:
                raise


def cells(*victims: str) -> pytest.MarkDecorator:
    """What is killed, the fence and the phase, of ``KILLS``."""
    return pytest.mark.parametrize(("victim", "fence", "phase"), [one for one in KILLS if one[0] in victims])


def to_the_end(one: Stage, kill: t.Callable[[Stage, str, str], bool], victim: str, phase: str) -> None:
    """Kill under writers, cut over again where it was given back; the account.

    :param kill: kills ``victim`` in ``phase``, and mends what has to be mended by hand; True if the cutover has succeeded even so.
    """
    application = one.application
    with application:
        application.wait_acknowledged(20, timeout=60, port=one.source.port)
        if not kill(one, victim, phase):
            one.host.until_waiting(one.key)
            one.host.cut_over(one.key, max_pause=LONG_PAUSE)
        application.wait_acknowledged(10, port=one.target.port, timeout=60)
    account = writers.check(one.target.dsn(one.database), application.folder)
    assert account.good, account
    status = one.status()
    assert (status["verification"] or {}).get("equal") or status["unproven"], status


def carried_on(one: Stage, victim: str, phase: str) -> bool:
    """A process of the engine: whatever becomes of the cutover is told, and nobody has to play anything. A watchdog is replaced at once."""
    with one.held(phase, one.host.manager.request_cutover) as go_on:
        began = time.time()
        killed = one.strike(victim)
        if victim == "watchdog":
            until_guarded(one.host, one.key, one.journal, killed)
        go_on()
        succeeded = one.until_over()
    if not succeeded:
        assert phase != "release" and victim != "watchdog"
        one.given_back(began)
    return succeeded


def service_killed(one: Stage, victim: str, phase: str) -> bool:
    """The watchdog opens the source, at once and by itself; played again, the migration goes on. Behind the release it ends."""
    with one.held(phase, one.host.manager.request_cutover):
        began = time.time()
        one.strike(victim)
    one.host.gone(one.key)
    if phase != "release":
        one.given_back(began)
    one.hook.let_go()
    one.host.manager.start(one.spec)
    return phase == "release" and one.until_over()


def target_killed(one: Stage, victim: str, phase: str) -> bool:
    """The source is open again while the target is still away."""
    with one.held(phase, one.host.manager.request_cutover) as go_on:
        began = time.time()
        one.strike(victim)
        go_on()
        if phase in ("fence", "drain", "complete"):
            one.given_back(began)
        elif phase == "confirm":  # without sessions that live, the proof does not need the target, and all is committed there
            one.host.until(one.key, lambda s: s["cutover"], "the end of the cutover")
    revive(one.target)
    return one.until_over()


def source_restarted(one: Stage, victim: str, phase: str) -> bool:
    """Whoever is asked again afterwards: the fence stands or was lifted, and a lock that is gone is noticed."""
    with one.held(phase, one.host.manager.request_cutover) as go_on:
        one.strike(victim)
        go_on()
        one.source.stop()
        revive(one.source)
        began = time.time()
        succeeded = one.until_over()
    if not succeeded:
        one.given_back(began)
    return succeeded


def as_playbook(one: Stage, victim: str, phase: str) -> bool:
    """Nobody needs ``ansible-playbook``, which is killed with all that it started: the cutover that it asked for goes on and succeeds."""

    def request(key: str) -> None:
        plays.append(one.plays.begin("cutover"))
        one.host.until(key, lambda s: s["cutover_phase"], "the cutover", 300)

    plays: list[subprocess.Popen[bytes]] = []
    with one.held(phase, request) as go_on:
        (play,) = plays
        one.plays.kill(play)
        go_on()
        assert one.until_over()
    return True


@cells("service")
def test_service_killed(victim: str, fence: str, phase: str, stage) -> None:
    """Its children and the watchdog notice by themselves."""
    to_the_end(stage, service_killed, victim, phase)


@cells("worker", "receiver", "watchdog")
def test_process_killed(victim: str, fence: str, phase: str, stage) -> None:
    """It is started again by the service."""
    to_the_end(stage, carried_on, victim, phase)


@cells("target")
def test_target_killed(victim: str, fence: str, phase: str, stage) -> None:
    """Its postmaster, and all sessions with it."""
    to_the_end(stage, target_killed, victim, phase)


@cells("source")
def test_source_restarted(victim: str, fence: str, phase: str, stage) -> None:
    """All sessions end, also those that hold a fence's locks."""
    to_the_end(stage, source_restarted, victim, phase)


@cells("playbook")
def test_playbook_killed(victim: str, fence: str, phase: str, stage) -> None:
    """A real ``ansible-playbook``."""
    to_the_end(stage, as_playbook, victim, phase)


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
            until_lifted(journal, time.time(), 60)
            writable_again(application, source)
            assert state_of(source, source_database) == before
            target.start()
            finish(host, spec, application, target, source_database)
        finally:
            unit.terminate()
            unit.wait(60)
