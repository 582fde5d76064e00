# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The list of migrations and the rules of their names, through the real manager and record; only the service is not started."""

from __future__ import annotations

import importlib
import json
import sqlite3
import typing as t
from pathlib import Path

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._ansible.module import MigrationModule
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import Conflict, IllegalTransition, ServiceError
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.catalogue import Catalogue
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.states import State, Substate
from ansible_collections.pgops.migration.plugins.module_utils._engine.service import launcher
from ansible_collections.pgops.migration.plugins.module_utils._engine.service.manager import Manager
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from arguments import patch_module_args

BEGIN = Substate.PERFORMING_PREREQUISITE_STEPS


def spec(name: str = "shop-2026", target: str = "b", **changes: t.Any) -> MigrationSpec:
    """A specification whose databases need no look at the source."""
    base = {"name": name, "source": {"host": "a", "user": "u"}, "target": {"host": target, "user": "v"}, "databases": ["shop"]}
    return MigrationSpec.from_dict({**base, **changes})


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manager:
    """A runtime host on which no service runs."""
    monkeypatch.setattr(launcher, "start", lambda *dummy: None)
    return Manager(tmp_path, supervisor="process")


@pytest.fixture
def record(tmp_path: Path) -> Catalogue:
    """What ``manager`` writes to."""
    return Catalogue(tmp_path / "catalogue.db")


def backdate(home: Path, key: str, started: str, ended: str | None = None) -> None:
    """Give the record other times, of an earlier boot of the host: there is nothing but the clock to tell how long it took."""
    with sqlite3.connect(home / "catalogue.db") as conn:
        query = "UPDATE migration SET started = ?, ended = coalesce(?, ended), facts = json_remove(facts, '$.marks') WHERE key = ?"
        conn.execute(query, [started, ended, key])
    conn.close()


def look(manager: Manager, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **options: t.Any) -> dict[str, t.Any]:
    """The result of ``pg_migration_info``."""
    module = importlib.import_module("ansible_collections.pgops.migration.plugins.modules.pg_migration_info")
    monkeypatch.setattr(MigrationModule, "manager", lambda self: manager)
    with patch_module_args(options), pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0
    return dict(json.loads(capsys.readouterr().out))


def test_a_target_without_any_is_empty_and_says_so(manager, monkeypatch, capsys) -> None:
    """R42: migrations belong to one target."""
    manager.start(spec())
    result = look(manager, monkeypatch, capsys, target_host="elsewhere")
    assert result["migrations"] == [] and result["grid"] == ["No migrations yet."]
    assert [line["name"] for line in look(manager, monkeypatch, capsys, target_host="b")["migrations"]] == ["shop-2026"]


def test_earlier_attempts_stay_listed_with_their_data(manager, record) -> None:
    """R43."""
    manager.start(spec("first"))
    record.remember(spec("first").key, validation={"status": "Failed"})
    record.move(spec("first").key, State.FAILED, BEGIN, {"message": "no space", "code": "PGM3001"})
    manager.start(spec("second"))
    second, first = manager.list("b:5432")
    assert (second["name"], first["name"], first["state"]) == ("second", "first", "Failed")
    assert first["error"]["message"] == "no space" and first["validation"] == {"status": "Failed"} and first["events"]


def test_a_name_and_its_specification(manager, record) -> None:
    """R45: the same goes on or stays, another is refused with the difference, and other targets have names of their own."""
    manager.start(spec())
    assert manager.plan(spec()).action == "resume"
    with pytest.raises(Conflict) as caught:
        manager.plan(spec(databases=["other"]))
    assert caught.value.code == "PGM1005" and "databases" in caught.value.details["differences"]
    assert manager.plan(spec(target="c")).action == "create"
    record.move(spec().key, State.IN_PROGRESS, Substate.VALIDATION_IN_PROGRESS)
    record.move(spec().key, State.SUCCEEDED, Substate.COMPLETED)
    assert manager.plan(spec()).action == "none"


def test_a_second_active_one_is_refused_by_the_name_of_the_first(manager, record) -> None:
    """R68."""
    manager.start(spec("first"))
    for act in (manager.plan, manager.start):
        with pytest.raises(Conflict, match="first"):
            act(spec("second"))
    assert [one["name"] for one in manager.list()] == ["first"]
    record.move(spec("first").key, State.FAILED, BEGIN)
    assert manager.plan(spec("second")).action == "create"


def test_more_than_eight_databases_go_in_sets(manager, record, monkeypatch, capsys) -> None:
    """R65, R66, R67: eight are one attempt, nine are two; the second begins when the first has succeeded, one that failed goes on."""
    nine = [f"d{n}" for n in range(9)]
    assert manager.plan(spec(databases=nine[:8])).set is None
    first = manager.plan(spec(databases=[*nine, "d0"]))
    assert (first.spec.name, first.spec.databases, first.set["of"]) == ("shop-2026-b1", tuple(nine[:8]), 2)
    assert manager.upcoming(spec(databases=nine)).name == "shop-2026-b1" and manager.begun(spec(databases=nine)).name == "shop-2026"
    key = manager.start(spec(databases=nine))["key"]
    record.move(key, State.FAILED, BEGIN)
    again = manager.plan(spec(databases=nine))
    assert (again.action, again.spec.name, again.more) == ("resume", "shop-2026-b1", True)
    record.move(key, State.IN_PROGRESS, BEGIN)
    record.move(key, State.IN_PROGRESS, Substate.VALIDATION_IN_PROGRESS)
    record.move(key, State.SUCCEEDED, Substate.COMPLETED)
    assert "play migrate for the next" in manager.status("shop-2026")["summary"]
    assert manager.begun(spec(databases=nine)).name == "shop-2026-b1"  # what a second cutover means before the next set begins
    second = manager.plan(spec(databases=["all"]))  # the list is the one that was begun with
    assert (second.action, second.spec.name, second.spec.databases, second.more) == ("create", "shop-2026-b2", ("d8",), False)
    manager.start(spec(databases=nine))
    assert look(manager, monkeypatch, capsys, name="shop-2026")["details"]["set"]["number"] == 2
    with pytest.raises(Conflict, match="databases"):
        manager.plan(spec(databases=nine[:8] + ["other"]))


def test_newest_first_whatever_the_order_of_creation(manager, tmp_path: Path) -> None:
    """R74: times out of order, and two that are equal."""
    for name, time in (("m0", "03"), ("m1", "01"), ("m2", "02"), ("m3", "02")):
        manager.start(spec(name, target=name))
        backdate(tmp_path, spec(name, target=name).key, f"2026-11-{time}T10:00:00.000Z")
    assert [one["name"] for one in manager.list()] == ["m0", "m3", "m2", "m1"]


def test_looking_again_changes_nothing(manager, record, monkeypatch, capsys) -> None:
    """R75."""
    manager.start(spec())
    before = record.list()
    for options in ({}, {"name": "shop-2026"}, {"name": "nobody"}):
        assert look(manager, monkeypatch, capsys, **options)["changed"] is False
    assert record.list() == before


def test_a_name_gives_the_details_of_it_only(manager, monkeypatch, capsys) -> None:
    """R76."""
    for name in ("one", "two"):
        manager.start(spec(name, target=name, databases=[f"database-of-{name}"]))
    details = look(manager, monkeypatch, capsys, name="one")["details"]
    assert details["name"] == "one" and "database-of-two" not in json.dumps(details)


def test_a_new_one_is_listed_in_its_first_state(manager) -> None:
    """R72, R77."""
    assert manager.list() == []
    status = manager.start(spec())
    assert [one["key"] for one in manager.list()] == [status["key"]] == [spec().key]
    assert (status["state"], status["substate"], status["ended"]) == ("InProgress", "PerformingPreRequisiteSteps", None)


def test_duration_runs_while_active_and_is_fixed_at_the_end(manager, record, tmp_path: Path) -> None:
    """R87."""
    key = manager.start(spec())["key"]
    backdate(tmp_path, key, "2026-01-01T10:00:00.000Z")
    running = manager.status(key)["duration_seconds"]
    backdate(tmp_path, key, "2025-01-01T10:00:00.000Z")
    assert manager.status(key)["duration_seconds"] > running + 86400
    record.move(key, State.FAILED, BEGIN)
    backdate(tmp_path, key, "2026-01-01T10:00:00.000Z", "2026-01-01T10:01:40.000Z")
    assert [manager.status(key)["duration_seconds"] for dummy in range(2)] == [100.0, 100.0]


def test_a_failed_one_is_not_forgotten(manager, record) -> None:
    """It may have a slot on the source, which nobody would know any more; the hint names the playbook that removes it."""
    key = manager.start(spec())["key"]
    record.move(key, State.FAILED, BEGIN)
    with pytest.raises(IllegalTransition) as caught:
        manager.forget(key)
    assert "cleanup" in caught.value.hint and [one["key"] for one in manager.list()] == [key]


def test_forgotten_is_off_the_list(manager, record, tmp_path: Path) -> None:
    """R119: an ended one only leaves the list, without a look at a server; its secrets go too."""
    key = manager.start(spec())["key"]
    record.move(key, State.CLEANING_UP, BEGIN)
    record.move(key, State.CANCELED, BEGIN)
    assert list((tmp_path / "migrations" / key).iterdir())
    manager.forget(key)
    assert manager.list() == [] and not (tmp_path / "migrations" / key).exists()
    with pytest.raises(ServiceError):
        manager.forget(key)
