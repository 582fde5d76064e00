# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Cancel while a cutover is under way and while another cancel is: done, or refused with a reason, never half (R102 to R108)."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import threading
import time
import typing as t

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import (
    Conflict,
    CutoverAborted,
    EngineMismatch,
    IllegalTransition,
    MigrationError,
)
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.paths import MigrationPaths
from ansible_collections.pgops.migration.plugins.module_utils._engine.service import launcher
from ansible_collections.pgops.migration.plugins.module_utils._engine.service.control import ask_service
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from cutoverlab import Hook, held, prepare_hold, state_of
from host import Host
from pair import Login

CANCEL = (
    "import sys; from pathlib import Path;"
    "from ansible_collections.pgops.migration.plugins.module_utils._engine.service.manager import Manager;"
    "Manager(Path(sys.argv[1]), supervisor='process').cancel(sys.argv[2])"
)


@pytest.fixture
def database(source: lab.Server, owner: Login, source_database: str) -> str:
    """One table."""
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute("CREATE TABLE public.item (id int PRIMARY KEY); INSERT INTO public.item SELECT generate_series(1, 100)")
    prepare_hold(source, source_database)
    return source_database


@pytest.fixture
def waiting(host: Host, database: str, spec_factory) -> t.Callable[..., MigrationSpec]:
    """``waiting(**cutover)``: a migration that waits for its cutover."""

    def make(**cutover: t.Any) -> MigrationSpec:
        spec = spec_factory("canceled", [database], cutover={"max_latency": 60, "max_pause": 60, **cutover})
        host.manager.start(spec)
        host.until_waiting(spec.key)
        return t.cast("MigrationSpec", spec)

    return make


class Canceling(threading.Thread):
    """A cancel in another thread; ``error`` is what it was refused with."""

    def __init__(self, host: Host, key: str) -> None:
        super().__init__(daemon=True)
        self.error: MigrationError | None = None
        self._host, self._key = host, key
        self.start()

    def run(self) -> None:
        """Once."""
        try:
            self._host.manager.cancel(self._key)
        except MigrationError as exc:
            self.error = exc

    def over(self) -> MigrationError | None:
        """Wait for its end."""
        self.join(90)
        assert not self.is_alive()
        return self.error


def left(source: lab.Server, database: str) -> list[t.Any]:
    """What is ours on the source: slots, publications, sessions."""
    slots = source.execute("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()", database)
    ours = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'pgops%'"
    return slots + source.execute("SELECT pubname FROM pg_publication", database) + source.execute(ours, database)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when a service has been told to stop."""
    event, kill = threading.Event(), os.kill

    def tell(pid: int, number: int) -> None:
        kill(pid, number)
        event.set()

    monkeypatch.setattr(launcher.os, "kill", tell)
    return event


def test_cancel_in_a_cutover_that_is_given_back(host: Host, source, database, target, waiting) -> None:
    """It waits for the end of the cutover, then all is taken back; the source is open."""
    spec = waiting(max_pause=4)
    before = state_of(source, database)
    with held(host, spec.key, target, database, "confirm"):
        assert host.manager.status(spec.key)["substate"] == "CompletingMigration"
        assert Canceling(host, spec.key).over() is None
    status = host.manager.status(spec.key)
    assert status["state"] == "Canceled" and status["canceled"]["kept"] == [database], status["canceled"]
    assert state_of(source, database) == before and left(source, database) == []


def test_cancel_in_a_cutover_that_succeeds(host: Host, database, target, waiting, told) -> None:
    """The cutover was faster: the migration has succeeded, and the cancel is refused."""
    spec = waiting()
    with held(host, spec.key, target, database, "confirm") as go_on:
        told.clear()
        canceling = Canceling(host, spec.key)
        assert told.wait(60)
        go_on()
    error = canceling.over()
    assert isinstance(error, IllegalTransition) and "Succeeded" in error.message, error
    assert host.manager.status(spec.key)["state"] == "Succeeded"


def test_cancel_in_a_cutover_that_is_released_meanwhile(host: Host, database, target, waiting, told, tmp_path, monkeypatch) -> None:
    """The cutover passes the point of no return while the cancel waits, and the hook takes longer than a service has to stop: it is
    refused, and the migration comes to its end."""
    hook = Hook(tmp_path)
    spec = waiting(release=[str(hook.program)])
    monkeypatch.setattr(launcher, "stop", functools.partial(launcher.stop, seconds=8.0))
    with held(host, spec.key, target, database, "confirm") as go_on:
        told.clear()
        canceling = Canceling(host, spec.key)
        assert told.wait(60)
        go_on()
    hook.until_at_work(host, spec.key)
    error = canceling.over()
    assert isinstance(error, IllegalTransition) and "switched over" in error.message, error
    hook.let_go()
    host.until(spec.key, lambda status: status["state"] == "Succeeded", "Succeeded")
    assert target.execute("SELECT count(*) FROM public.item", database) == [(100,)]


@contextlib.contextmanager
def stopped_in_the_middle(source: lab.Server, database: str) -> t.Iterator[None]:
    """A cancel comes as far as the publication."""
    with contextlib.closing(source.connect(database)) as conn:
        conn.execute("BEGIN; LOCK TABLE pg_catalog.pg_publication IN ACCESS EXCLUSIVE MODE")
        yield
        conn.execute("ROLLBACK")


def until_cleaning_up(host: Host, key: str) -> None:
    """Wait for the state."""
    limit = time.monotonic() + 90
    while host.manager.status(key)["state"] != "CleaningUp":
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_while_another_cancel_is_at_work(host: Host, source, database, waiting) -> None:
    """In CleaningUp: a cutover and a new run are refused, another cancel comes to the same end."""
    spec = waiting()
    with pytest.raises(MigrationError, match="does not know the command") as unknown:
        ask_service(MigrationPaths(host.home, spec.key).control, "sing")
    assert unknown.value.code == EngineMismatch.default_code
    with stopped_in_the_middle(source, database):
        first = Canceling(host, spec.key)
        until_cleaning_up(host, spec.key)
        with pytest.raises(CutoverAborted, match="CleaningUp"):
            host.manager.request_cutover(spec.key)
        with pytest.raises(Conflict, match="canceled"):
            host.manager.start(spec)
        second = Canceling(host, spec.key)
    assert (first.over(), second.over()) == (None, None)
    assert host.manager.status(spec.key)["state"] == "Canceled" and left(source, database) == []


def test_after_a_cancel_that_was_killed(host: Host, source, database, waiting) -> None:
    """SIGKILL in CleaningUp: played again, nothing is left."""
    spec = waiting()
    with stopped_in_the_middle(source, database):
        environment = {"PYTHONPATH": ":".join(sys.path)}
        with subprocess.Popen([sys.executable, "-c", CANCEL, str(host.home), spec.key], env=environment) as first:
            until_cleaning_up(host, spec.key)
            os.kill(first.pid, signal.SIGKILL)
    assert host.manager.status(spec.key)["state"] == "CleaningUp"
    assert host.manager.cancel(spec.key)["state"] == "Canceled" and left(source, database) == []
