# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The service and the host's start: whose unit is enabled when, what a unit does that nobody has asked to go on, and which database a
process is for."""

from __future__ import annotations

import asyncio
import subprocess
import typing as t
from pathlib import Path

import hostilenames
import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine import cli
from ansible_collections.pgops.migration.plugins.module_utils._engine.cutover.watchdog import FenceJournal
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import ConnectionFailed, ServiceError
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.catalogue import Catalogue
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.paths import MigrationPaths
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.states import State, Substate
from ansible_collections.pgops.migration.plugins.module_utils._engine.service import launcher, prerequisites, supervisor
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from hypothesis import example, given

SPEC = MigrationSpec.from_dict(
    {"name": "shop", "databases": ["a"], "mode": "online", "source": {"host": "a", "user": "u"}, "target": {"host": "b", "user": "v"}}
)
patience: list[bool] = []
"""How patient the services of :func:`served` were to be."""
BEGIN = Substate.PERFORMING_PREREQUISITE_STEPS


@pytest.fixture
def paths(tmp_path: Path) -> MigrationPaths:
    """A migration that this host knows."""
    paths = MigrationPaths(tmp_path, SPEC.key)
    paths.make()
    paths.write_spec(SPEC)
    Catalogue(paths.catalogue).create(SPEC)
    paths.engine.parent.mkdir()
    paths.engine.write_bytes(b"engine")
    return paths


@pytest.fixture
def said(paths: MigrationPaths, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What systemctl is told; it starts a service that comes up."""
    calls: list[str] = []

    def run(words: t.Sequence[str], **dummy: t.Any) -> subprocess.CompletedProcess[str]:
        calls.append(" ".join(words))
        if words[1] == "restart":
            paths.status.touch()
        return subprocess.CompletedProcess(words, 1 if "no" in calls else 0, "", "refused")

    monkeypatch.setattr(launcher.subprocess, "run", run)
    return calls


def test_a_unit_is_enabled_with_its_start(paths: MigrationPaths, said: list[str]) -> None:
    """And disabled where it is stopped, also when it does not run."""
    launcher.start(paths, "systemd", "python")
    assert said == [f"systemctl enable pg-migration@{SPEC.key}", f"systemctl restart pg-migration@{SPEC.key}"]
    launcher.stop(paths, "systemd")
    assert said[2:] == [f"systemctl disable pg-migration@{SPEC.key}"]


def test_who_cannot_enable_it_is_told(paths: MigrationPaths, said: list[str]) -> None:
    """A migration that a reboot would end in silence is no good start."""
    said.append("no")
    with pytest.raises(ServiceError, match="systemctl enable .* refused") as caught:
        launcher.start(paths, "systemd", "python")
    assert caught.value.code == "PGM8007"


def test_without_systemd_nothing_is_said_to_it(paths: MigrationPaths, said: list[str]) -> None:
    """A detached process begins with no host."""
    launcher.stop(paths, "process")
    assert said == []


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The services that went to work."""
    done: list[str] = []
    patience.clear()

    class Nothing:
        successor = None

        def __init__(self, paths: MigrationPaths, *dummy: t.Any, patient: bool) -> None:
            self._key = paths.key
            patience.append(patient)

        async def run(self) -> None:
            done.append(self._key)

    monkeypatch.setattr(supervisor, "Supervisor", Nothing)
    return done


def serve(paths: MigrationPaths) -> int:
    """What the unit runs."""
    return cli.main(["serve", "--home", str(paths.home), "--migration", paths.key])


def test_what_was_under_way_goes_on(paths: MigrationPaths, served: list[str]) -> None:
    """Nobody has to ask."""
    assert serve(paths) == 0 and served == [SPEC.key] and patience == [True]


@pytest.mark.parametrize("end", [State.FAILED, State.VALIDATION_FAILED])
def test_what_has_failed_waits_to_be_asked_for(end: State, paths: MigrationPaths, served: list[str]) -> None:
    """The start of a host is no cure; a play says that it was cured, once."""
    catalogue = Catalogue(paths.catalogue)
    if end is State.VALIDATION_FAILED:
        catalogue.move(SPEC.key, State.IN_PROGRESS, Substate.VALIDATION_IN_PROGRESS)
    catalogue.move(SPEC.key, end, BEGIN if end is State.FAILED else Substate.VALIDATION_IN_PROGRESS)
    assert serve(paths) == 0 and served == []
    paths.asked.touch()
    assert serve(paths) == 0 and served == [SPEC.key] and patience == [False]
    assert serve(paths) == 0 and served == [SPEC.key]


def test_what_is_over_ends_at_once(paths: MigrationPaths, served: list[str]) -> None:
    """With a status that systemd leaves alone: canceled, cleaned up, or forgotten behind the back of systemd."""
    catalogue = Catalogue(paths.catalogue)
    catalogue.move(SPEC.key, State.CLEANING_UP, BEGIN)
    catalogue.move(SPEC.key, State.CANCELED, BEGIN)
    assert serve(paths) == 0
    paths.spec.unlink()
    assert serve(paths) == 0
    assert serve(MigrationPaths(paths.home, "gone-000000")) == 0
    assert served == [] and not (paths.home / "migrations" / "gone-000000").exists()


def test_the_source_is_opened_first_and_until_it_answers(paths: MigrationPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal's deadline is of another life of the host, far ahead or long over: an unreleased fence is lifted all the same."""
    journal, tried = FenceJournal(paths.fence), []

    def lift(self: FenceJournal, endpoint: t.Any, **dummy: t.Any) -> bool:
        tried.append(endpoint.host)
        if len(tried) < 3:
            raise ConnectionFailed("The source does not answer.")
        return real(self, endpoint)

    real = FenceJournal.lift
    monkeypatch.setattr(FenceJournal, "lift", lift)
    monkeypatch.setattr(supervisor, "RETRY_SECONDS", 0.01)
    for deadline in (1e12, -1e12):
        tried.clear()
        journal.open([], deadline)
        service = supervisor.Supervisor(paths, SPEC, "engine")
        asyncio.run(service._open_source())
        assert tried == ["a"] * 3 and journal.state() == "lifted"
    events = (Catalogue(paths.catalogue).get(SPEC.key) or {})["events"]
    assert sum("still fenced" in str(event) for event in events) == 2


@pytest.mark.parametrize(("patient", "reason", "tries"), [(True, "tcp", 3), (False, "tcp", 1), (True, "password", 1)])
def test_servers_that_start_with_the_host_are_waited_for(
    patient: bool, reason: str, tries: int, paths: MigrationPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody is there to play again, and the cause may pass."""
    tried: list[int] = []

    def ground(*dummy: t.Any, **dummy2: t.Any) -> None:
        tried.append(1)
        if len(tried) < 3:
            raise ConnectionFailed("The target does not answer.", details={"reason": reason})

    monkeypatch.setattr(prerequisites, "check_ground", ground)
    monkeypatch.setattr(supervisor, "RETRY_SECONDS", 0.01)
    service = supervisor.Supervisor(paths, SPEC, "engine", patient=patient)
    if tries == 1:
        with pytest.raises(ConnectionFailed):
            asyncio.run(service._prerequisites(True))
    else:
        asyncio.run(service._prerequisites(True))
    assert len(tried) == tries


@example("-x")
@given(hostilenames.names)
def test_a_process_learns_its_database(name: str) -> None:
    """Whatever it is called, also like an option."""
    told: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cli, "_child", lambda role, paths, database: told.append(database))
        cli.main(MigrationPaths(Path("/home"), SPEC.key).command("work", name)[2:])
    assert told == [name]
