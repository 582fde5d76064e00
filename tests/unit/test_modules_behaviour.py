# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What the modules of a running migration do with what the manager tells: changed, reached, refused, failed, redacted."""

from __future__ import annotations

import copy
import importlib
import json
import typing as t

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._ansible.module import MigrationModule
from ansible_collections.pgops.migration.plugins.module_utils._ansible.redact import MASK, Redactor
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import Conflict, ServiceError
from ansible_collections.pgops.migration.plugins.module_utils._engine.monitor.text import COLUMNS, duration, grid
from ansible_collections.pgops.migration.plugins.module_utils._engine.service.manager import StartPlan
from arguments import patch_module_args

CANARY = "canary-7f3a91c2-it's"
MIGRATION = {
    "name": "shop-2026",
    "mode": "online",
    "source": {"host": "db1", "user": "migrator", "password": CANARY},
    "target": {"host": "db2", "user": "admin", "password": CANARY + "-target"},
    "databases": ["shop"],
}


def status(state: str = "InProgress", substate: str = "MigratingData", **facts: t.Any) -> dict[str, t.Any]:
    """A status as the manager gives it."""
    known: dict[str, t.Any] = {
        "key": "shop-2026-abcdef",
        "name": "shop-2026",
        "state": state,
        "substate": substate,
        "mode": "online",
        "option": "validate_and_migrate",
        "source": {"host": "db1", "type": "on_premises"},
        "target": {"host": "db2", "type": "azure_flexible"},
        "databases": ["shop"],
        "created": "2026-11-22T10:00:00.000Z",
        "started": "2026-11-22T10:00:00.000Z",
        "ended": None,
        "duration_seconds": 4360.0,
        "summary": f"{substate}",
        "error": None,
        "validation": None,
        "progress": {"shop": {"latency_seconds": 0.4, "lag_bytes": 100}},
        "plugin": {},
        "cutover": None,
        "verification": None,
        "canceled": None,
        "events": [],
        "engine": "x",
        "service": {"running": True, "pid": 1, "supervisor": "process"},
        "files": {"log": "/l", "report": "/r"},
    }
    known.update(facts)
    return known


WAITING = ("WaitingForUserAction", "WaitingForCutoverTrigger")


class FakeManager:
    """Answers from a list of statuses, the last one for ever; notes what it is asked to do."""

    def __init__(self, *statuses: dict[str, t.Any] | None, action: str = "none") -> None:
        self.statuses = list(statuses)
        self.action = action
        self.calls: list[str] = []
        self.left: list[str] = []

    def _next(self) -> dict[str, t.Any] | None:
        known = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return copy.deepcopy(known)

    def plan(self, spec: t.Any) -> StartPlan:
        return StartPlan(self.action, spec, {}, {"state": "InProgress"} if self.action != "none" else {}, self.statuses[0])

    def begun(self, spec: t.Any) -> t.Any:
        return spec

    def start(self, spec: t.Any) -> dict[str, t.Any]:
        self.calls.append("start")
        return {"key": spec.key}

    def status(self, name: str, target: str | None = None) -> dict[str, t.Any] | None:
        return self._next()

    def copied_tables(self, known: dict[str, t.Any]) -> dict[str, t.Any]:
        return {"shop": {"count": 1}}

    def list(self, target: str | None = None) -> list[dict[str, t.Any]]:
        return [known for known in self.statuses if known]

    def request_cutover(self, key: str, options: dict[str, t.Any] | None) -> dict[str, t.Any]:
        self.calls.append("cutover")
        return {}

    def cancel(self, key: str, *, drop_target: bool = False) -> dict[str, t.Any]:
        self.calls.append("cancel")
        return status("Canceled", canceled={"removed": ["slot pgm_x"], "dropped": [], "kept": ["shop"]})

    def cleanup(self, source: t.Any, target: t.Any, *, name: str, drop_target: bool, dry: bool) -> dict[str, list[str]]:
        return {"found": self.left, "removed": [] if dry else self.left, "kept": []}

    def stop(self, key: str) -> dict[str, t.Any]:
        self.calls.append("stop")
        return status()


class Outcome(t.NamedTuple):
    """What a module said."""

    failed: bool
    result: dict[str, t.Any]
    text: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> t.Callable[..., Outcome]:
    """``run(module, manager, check=False, **options)``."""

    def call(module_name: str, manager: t.Any, /, *, check: bool = False, **arguments: t.Any) -> Outcome:
        module = importlib.import_module(f"ansible_collections.pgops.migration.plugins.modules.{module_name}")
        monkeypatch.setattr(MigrationModule, "manager", lambda self: manager)
        given = {"_ansible_check_mode": check, "_ansible_diff": True, **arguments}
        with patch_module_args(given), pytest.raises(SystemExit):
            module.main()
        text = capsys.readouterr().out
        result = json.loads(text)
        return Outcome(bool(result.get("failed")), result, text)

    return call


def test_copy_creates_and_watches(run: t.Any) -> None:
    """A new migration: changed, a difference, and reached when the copy is complete."""
    done = run("pg_snapshot_copy", FakeManager(status(), status(*WAITING), action="create"), wait_timeout=5, **MIGRATION)
    assert done.result["changed"] and done.result["reached"] and done.result["action"] == "create"
    assert done.result["diff"]["after"] == {"state": "InProgress"}
    assert done.result["substate"] == "WaitingForCutoverTrigger" and done.result["copied"] == {"shop": {"count": 1}}


def test_copy_returns_after_its_slice(run: t.Any) -> None:
    """Not reached in time is no failure: the next call goes on watching."""
    done = run("pg_snapshot_copy", FakeManager(status()), wait_timeout=0, **MIGRATION)
    assert not done.failed and not done.result["changed"] and not done.result["reached"] and "copied" not in done.result


def test_copy_in_check_mode_starts_nothing(run: t.Any) -> None:
    """The plan is told, nothing is done (R116)."""
    manager = FakeManager(None, action="create")
    done = run("pg_snapshot_copy", manager, check=True, **MIGRATION)
    assert done.result["changed"] and manager.calls == []


def test_failed_migration_fails_the_task_with_its_own_error(run: t.Any) -> None:
    """Message, code, hint, server and phase come from the engine; no traceback, no secret."""
    error = ServiceError(f"Could not do it with {CANARY}", code="PGM1104", hint="Do that.", server="source db1:5432/shop as migrator")
    done = run("pg_snapshot_copy", FakeManager(status("Failed", "MigratingData", error=error.to_dict())), **MIGRATION)
    assert done.failed and done.result["error_code"] == "PGM1104" and done.result["hint"] == "Do that."
    assert done.result["phase"] == "MigratingData" and done.result["state"] == "Failed" and done.result["server"].startswith("source")
    assert "traceback" not in done.result and CANARY not in done.text


def test_another_specification_is_refused(run: t.Any) -> None:
    """R45: the difference is in the result."""
    manager = FakeManager(status())
    manager.plan = lambda spec: (dummy for dummy in ()).throw(Conflict("other", details={"differences": {"mode": 1}}))  # type: ignore[method-assign]
    done = run("pg_snapshot_copy", manager, **MIGRATION)
    assert done.failed and done.result["error_code"] == "PGM1005" and done.result["details"] == {"differences": {"mode": 1}}


@pytest.mark.parametrize("name", ["shop_2026", "shop.x", "", "-shop", "shöp", "shop x"])
def test_name_is_refused(run: t.Any, name: str) -> None:
    """R44."""
    done = run("pg_snapshot_copy", FakeManager(status()), **{**MIGRATION, "name": name})
    assert done.failed and done.result["error_code"] == "PGM1002" and "hyphen" in done.result["msg"]


def test_bug_is_told_as_one(run: t.Any) -> None:
    """Only what was not foreseen has a traceback, without secrets."""
    manager = FakeManager(status())
    manager.plan = lambda spec: 1 / 0  # type: ignore[method-assign,return-value]
    done = run("pg_snapshot_copy", manager, **MIGRATION)
    assert done.failed and done.result["error_code"] == "PGM9000" and "ZeroDivisionError" in done.result["traceback"][-1]


def test_missing_library_in_check_mode_is_a_prediction(run: t.Any) -> None:
    """A check run on a fresh host has nothing provisioned yet."""
    manager = FakeManager(None)
    manager.plan = lambda spec: (dummy for dummy in ()).throw(ServiceError("psycopg is missing", code="PGM8002"))  # type: ignore[method-assign]
    done = run("pg_snapshot_copy", manager, check=True, **MIGRATION)
    assert not done.failed and done.result["changed"] and done.result["warnings"]


@pytest.mark.parametrize(
    ("wanted", "reached"), [({"latency_seconds": 0.5}, True), ({"latency_seconds": 0.1}, False), ({"lag_bytes": 99}, False), ({}, True)]
)
def test_stream_is_near_enough(run: t.Any, wanted: dict[str, t.Any], reached: bool) -> None:
    """R91: latency and lag of the slowest database decide."""
    done = run("pg_cdc_stream", FakeManager(status(*WAITING)), wait_for=wanted, wait_timeout=0, **MIGRATION)
    assert done.result["reached"] is reached and done.result["latency_seconds"] == 0.4 and done.result["latency_minutes"] == 0.01


@pytest.mark.parametrize("wanted, reached", [("1/0", True), ("1/1", False)])
def test_stream_waits_for_a_position(run: t.Any, wanted: str, reached: bool) -> None:
    """The slowest database decides."""
    progress = {name: {"latency_seconds": 0.1, "applied_lsn": lsn} for name, lsn in (("a", 1 << 32), ("b", 2 << 32))}
    known = status(*WAITING, progress=progress)
    done = run("pg_cdc_stream", FakeManager(known), wait_for={"lsn": wanted}, wait_timeout=0, **MIGRATION)
    assert done.result["reached"] is reached and done.result["databases"]["b"]["applied_lsn"] == "2/0"


def test_stream_refuses_what_is_no_position(run: t.Any) -> None:
    """With the way to write one."""
    done = run("pg_cdc_stream", FakeManager(status(*WAITING)), wait_for={"lsn": "tomorrow"}, **MIGRATION)
    assert done.failed and done.result["error_code"] == "PGM1001" and "16/B374D848" in done.result["hint"]


@pytest.mark.parametrize("module", ["pg_cdc_stream", "pg_snapshot_copy"])
def test_an_error_of_one_database_fails_the_task(run: t.Any, module: str) -> None:
    """While the others go on: the task has the error, the figures have the table."""
    error = ServiceError("no room", code="PGM4024", hint="Remove it.", details={"database": "shop", "table": "public.item"}).to_dict()
    figures = {"state": "Failed", "error": error, "tables": {"public.other": {"inserts": 2}}}
    known = status("WaitingForUserAction", "MigratingData", error=error, progress={"shop": figures})
    done = run(module, FakeManager(known, action="resume"), wait_timeout=5, **MIGRATION)
    assert done.failed and done.result["error_code"] == "PGM4024" and done.result["details"]["database"] == "shop"
    assert not done.result["reached"]
    if module == "pg_cdc_stream":
        tables = done.result["databases"]["shop"]["tables"]
        assert tables["public.item"]["errors"] == 1 and tables["public.other"]["applied"] == 2


def test_unknown_latency_is_never_near(run: t.Any) -> None:
    """R91: no false zero."""
    known = status(*WAITING, progress={"shop": {"latency_seconds": None}})
    done = run("pg_cdc_stream", FakeManager(known), wait_for={"latency_seconds": 100}, wait_timeout=0, **MIGRATION)
    assert not done.result["reached"] and done.result["latency_seconds"] is None


def test_cancel_and_again(run: t.Any) -> None:
    """R105 to R107: canceled once; what stays on the target is named."""
    manager = FakeManager(status())
    done = run("pg_cdc_stream", manager, state="absent", **MIGRATION)
    assert done.result["changed"] and done.result["kept"] == ["shop"] and manager.calls == ["cancel"]
    assert not run("pg_cdc_stream", FakeManager(None), state="absent", **MIGRATION).result["changed"]
    forgotten = FakeManager(None)
    forgotten.left = ["source: slot pgm_x in shop"]
    done = run("pg_cdc_stream", forgotten, state="absent", **MIGRATION)
    assert done.result["changed"] and done.result["removed"] == forgotten.left and "forgotten" in done.result["summary"]
    check = FakeManager(status())
    assert run("pg_cdc_stream", check, check=True, state="absent", **MIGRATION).result["changed"] and check.calls == []


def test_cutover_succeeds_and_again(run: t.Any) -> None:
    """R100, R101: the same result, changed only once."""
    cutover = {
        "phases": [{"name": "fence", "seconds": 0.1, "text": "x"}],
        "pause_seconds": 1.02,
        "lsn": {"shop": "4/7A"},
        "released_at": "now",
    }
    proof = {"equal": True, "databases": {"shop": {"equal": True, "tables": [{"equal": True}], "seconds": 0.2}}}
    ended = status("Succeeded", "Completed", cutover=cutover, verification=proof)
    manager = FakeManager(status(*WAITING), status("InProgress", "CompletingMigration"), ended)
    first = run("pg_cutover", manager, **MIGRATION)
    assert first.result["changed"] and first.result["reached"] and first.result["pause_seconds"] == 1.02 and manager.calls == ["cutover"]
    again = FakeManager(ended)
    second = run("pg_cutover", again, **MIGRATION)
    assert not second.result["changed"] and again.calls == []
    assert second.result["lines"] == first.result["lines"] and "1.02 s" in second.result["lines"][-1]


def test_cutover_given_back_fails_the_task(run: t.Any) -> None:
    """R99: the reason is the service's; nothing counts as changed."""
    reason = ServiceError("Cutover given back: too slow", code="PGM5105", hint="Wait.").to_dict()
    back = status(*WAITING, cutover={"given_back": reason, "phases": [], "fenced_at": "t1"})
    done = run("pg_cutover", FakeManager(status(*WAITING), status("InProgress", "CompletingMigration"), back), **MIGRATION)
    assert done.failed and done.result["error_code"] == "PGM5105" and not done.result["changed"]


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"state": "InProgress"}, "PGM5001"),
        ({"state": "WaitingForUserAction", "mode": "offline"}, "PGM5003"),
        ({"state": "Canceled"}, "PGM5001"),
    ],
)
def test_cutover_is_refused_early(run: t.Any, facts: dict[str, t.Any], code: str) -> None:
    """R90; check mode says the same."""
    for check in (False, True):
        manager = FakeManager(status(**facts))
        done = run("pg_cutover", manager, check=check, **MIGRATION)
        assert done.failed and done.result["error_code"] == code and manager.calls == []


def test_cutover_with_differences_is_no_success(run: t.Any) -> None:
    """A proof that failed is told, every time."""
    ended = status("Succeeded", "Completed", cutover={"phases": []}, verification={"equal": False, "databases": {}})
    assert run("pg_cutover", FakeManager(ended), **MIGRATION).result["error_code"] == "PGM6001"


def test_cutover_without_migration(run: t.Any) -> None:
    """An error for real; in a chain of check runs a warning."""
    assert run("pg_cutover", FakeManager(None), **MIGRATION).result["error_code"] == "PGM5004"
    check = run("pg_cutover", FakeManager(None), check=True, **MIGRATION)
    assert not check.failed and check.result["warnings"]


def test_list_has_the_columns_of_the_service(run: t.Any) -> None:
    """R73, R80, R87."""
    done = run("pg_migration_info", FakeManager(status("ValidationFailed", "ValidationInProgress")))
    columns = [
        "Name",
        "Status",
        "Migration mode",
        "Migration type",
        "Source server",
        "Source server type",
        "Databases",
        "Duration",
        "Start time",
    ]
    assert list(COLUMNS) == columns
    head, line = done.result["grid"]
    assert [word for word in COLUMNS if word not in head] == [] and "Validation Failed" in line and "1:12:40" in line
    assert "2026-11-22 10:00" in line and done.result["changed"] is False


def test_list_of_some_states(run: t.Any) -> None:
    """R83: states are spelled as they are shown, the tutorial's other spelling is an alias, anything else is refused."""
    manager = FakeManager(status(), status("Canceled"), status("Failed"))

    def listed(*states: str) -> list[str]:
        return [one["status"] for one in run("pg_migration_info", manager, states=list(states)).result["migrations"]]

    assert listed() == ["InProgress", "Canceled", "Failed"]
    assert listed("Canceled") == listed("Cancelled") == ["Canceled"]
    assert listed("Failed", "InProgress") == ["InProgress", "Failed"]
    assert run("pg_migration_info", manager, states=["Succeeded"]).result["grid"] == ["No migration is Succeeded."]
    for wrong in ("cancelled", "canceled", "Validation Failed", "Waiting"):
        assert run("pg_migration_info", manager, states=[wrong]).failed


def test_empty_list_says_so(run: t.Any) -> None:
    """R42."""
    assert grid([]) == ["No migrations yet."]


def test_details_have_two_parts(run: t.Any) -> None:
    """R76, R82: one migration, its validation and its migration each complete."""
    report = {"status": "Succeeded", "findings": []}
    done = run("pg_migration_info", FakeManager(status(validation=report)), name="shop-2026")
    assert done.result["details"]["validation"] == report
    assert done.result["details"]["migration"]["progress"] and done.result["details"]["migration"]["state"] == "InProgress"


def test_duration() -> None:
    """Hours are not limited to a day."""
    assert [duration(s) for s in (0, 59.9, 4360, 90000)] == ["0:00:00", "0:00:59", "1:12:40", "25:00:00"]


@pytest.mark.parametrize(
    "text",
    [
        f"password {CANARY} is wrong",
        f"ALTER ROLE x PASSWORD '{CANARY.replace(chr(39), chr(39) * 2)}'",
        "CREATE ROLE a PASSWORD 'SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy'",
        "md5" + "0123456789abcdef" * 2,
        "host=x password=hunter22 user=y",
        "postgresql://u:hunter22@host/db",
        "ALTER USER x WITH PASSWORD 'hunter22'",
    ],
)
def test_secrets_are_masked(text: str) -> None:
    """R117: whatever form a secret has."""
    cleaned = Redactor([CANARY]).clean({"a": [text, {"b": text}]})
    shown = json.dumps(cleaned)
    assert MASK in shown
    for secret in (CANARY, CANARY.replace("'", "''"), "hunter22", "c3RvcmVk", "0123456789abcdef"):
        assert secret not in shown
