# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The course of a migration as it was asked for: what each option does and leaves out, its states one after the other, how it is ended."""

from __future__ import annotations

import itertools
import threading
import time
import typing as t

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.states import State, Substate
from host import Host, run_whole
from pair import make_target
from rows import differences

PREREQUISITES, VALIDATING, MIGRATING = (
    "InProgress / PerformingPreRequisiteSteps",
    "InProgress / ValidationInProgress",
    "InProgress / MigratingData",
)
WAITING, COMPLETING, DONE = "WaitingForUserAction / WaitingForCutoverTrigger", "InProgress / CompletingMigration", "Succeeded / Completed"


@pytest.fixture(scope="module")
def target() -> t.Iterator[lab.Server]:
    """A target of this module's own: migrations leave roles and memberships on it."""
    server = make_target()
    yield server
    server.drop()


@pytest.fixture
def shop(source, owner, source_database) -> str:
    """A small database."""
    with source.connect(source_database, user=owner.name, password=owner.password) as conn:
        conn.execute("CREATE TABLE public.item (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text)")
        conn.execute("INSERT INTO public.item (name) SELECT 'item ' || i FROM generate_series(1, 500) i")
    return source_database


def course(status: dict[str, t.Any]) -> list[str]:
    """States and substates that the record names, in their order, each once in a row."""
    points = {f"{state.value} / {substate.value}" for state in State for substate in Substate}
    told = [event["text"].partition(":")[0] for event in sorted(status["events"], key=lambda event: event["time"])]
    return [point for point, dummy in itertools.groupby(text for text in told if text in points)]


def slots(source: lab.Server) -> list[t.Any]:
    return source.execute("SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'pgm%'")


def databases(target: lab.Server, name: str) -> int:
    return int(target.execute(f"SELECT count(*) FROM pg_database WHERE datname = '{name}'")[0][0])


@pytest.mark.parametrize(
    ("option", "before"), [("migrate", [PREREQUISITES]), ("validate_and_migrate", [PREREQUISITES, VALIDATING])], ids=["migrate", "both"]
)
def test_online_waits_for_the_user(option: str, before: list[str], host: Host, source, target, shop: str, spec_factory) -> None:
    """R47, R48, R71, R79, R81, R88, R98, R99, R118: the option says whether it is validated; warnings do not stop it; it answers at once,
    and waits for its cutover however near the target is; the record has every state, the certificate the pause and its forecast."""
    spec = spec_factory(f"course-{option.replace('_', '-')}", [shop], option=option)
    source.execute(f"ALTER DATABASE {shop} CONNECTION LIMIT 50")
    began = time.monotonic()
    started = host.manager.start(spec)
    assert time.monotonic() - began < 10 and started["key"] == spec.key and started["state"] == "InProgress"
    status = host.until_waiting(spec.key)
    assert course(status) == [*before, MIGRATING, WAITING]
    assert (status["validation"] is None) == (option == "migrate")
    if status["validation"]:
        assert status["validation"]["status"] == "Warning"
    for dummy in range(3):  # three more rounds of news, and nothing happens by itself
        news = host.manager.status(spec.key)["progress"]
        host.until(spec.key, lambda now, news=news: now["progress"] != news, "news of the stream")
    assert host.manager.status(spec.key)["state"] == "WaitingForUserAction"
    forecast = host.manager.precheck(spec.key)["forecast_seconds"]
    limit = f"SELECT datconnlimit FROM pg_database WHERE datname = '{shop}'"
    assert target.execute(limit) == [(-1,)], "our own sessions must not be counted"
    done = host.cut_over(spec.key)
    assert target.execute(limit) == [(50,)]
    assert course(done) == [*before, MIGRATING, WAITING, COMPLETING, DONE]
    assert 0 < done["cutover"]["pause_seconds"] < 30 and 0 < forecast < 30 and done["cutover"]["forecast_seconds"] > 0


def test_offline_ends_by_itself(host: Host, source, target, shop: str, spec_factory) -> None:
    """R99: copied, proven, Succeeded; nobody has to do anything."""
    spec = spec_factory("course-offline", [shop], mode="offline")
    source.execute(f"ALTER DATABASE {shop} CONNECTION LIMIT 37 IS_TEMPLATE true")
    host.manager.start(spec)
    status = host.until(spec.key, lambda s: s["state"] == "Succeeded", "Succeeded")
    assert course(status) == [PREREQUISITES, VALIDATING, MIGRATING, COMPLETING, DONE]
    limits = f"SELECT datconnlimit, datistemplate FROM pg_database WHERE datname = '{shop}'"
    assert target.execute(limits) == [(37, True)]
    for server in (source, target):  # a template cannot be dropped
        server.execute(f"ALTER DATABASE {shop} IS_TEMPLATE false")


def test_a_failed_validation_starts_nothing(host: Host, source, target, shop: str, owner, spec_factory) -> None:
    """R48, R80: a table without identity; no data step has begun, no slot, no database; mended, the same start goes on to the end."""
    with source.connect(shop, user=owner.name, password=owner.password) as conn:
        conn.execute("CREATE TABLE public.note (text text)")
    spec = spec_factory("course-refused", [shop])
    host.manager.start(spec)
    with pytest.raises(AssertionError, match="ValidationFailed|Validation failed"):
        host.until_waiting(spec.key)
    status = host.manager.status(spec.key)
    assert status["state"] == "ValidationFailed" and "PGM" in status["error"]["code"]
    assert course(status)[-1].startswith("ValidationFailed") and MIGRATING not in course(status)
    assert slots(source) == [] and databases(target, shop) == 0
    with source.connect(shop, user=owner.name, password=owner.password) as conn:
        conn.execute("ALTER TABLE public.note REPLICA IDENTITY FULL")
    assert host.manager.plan(spec).action == "resume"
    assert run_whole(host, spec)["state"] == "Succeeded"


def test_a_validation_is_canceled(host: Host, source, target, shop: str, spec_factory) -> None:
    """R102, R104: while it is at work; the checks that are left are not made, the state is Canceled."""
    spec = spec_factory("course-validation", [shop], option="validate")
    with source.connect(shop) as lock:
        lock.execute("BEGIN")
        lock.execute("LOCK TABLE pg_catalog.pg_largeobject_metadata, pg_catalog.pg_ts_config_map IN ACCESS EXCLUSIVE MODE")
        host.manager.start(spec)
        waits = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgops%' AND wait_event_type = 'Lock'"
        host.until(spec.key, lambda _s: source.execute(waits)[0][0], "a check at work")
        assert course(host.manager.status(spec.key))[-1] == VALIDATING
        release = threading.Timer(2, lock.execute, ["ROLLBACK"])
        release.start()
        status = host.manager.cancel(spec.key)
        release.join()
    assert (status["state"], status["service"]["running"], status["validation"]) == ("Canceled", False, None)
    assert host.manager.cancel(spec.key)["state"] == "Canceled"


def test_cancel_spares_what_is_not_ours(host: Host, source, target, shop: str, spec_factory) -> None:
    """R105, R106: no session of ours is left on the target; somebody made a database of that name of his own, and ``drop_target`` leaves
    it."""
    spec = spec_factory("course-spared", [shop], copy={"chunk_bytes": 1 << 20})
    host.manager.start(spec)
    host.until_waiting(spec.key)
    host.manager.stop(spec.key)
    target.execute(f"DROP DATABASE {shop} WITH (FORCE)")
    target.create_database(shop, "admin")
    with target.connect(shop) as conn:
        conn.execute("CREATE TABLE public.theirs (i int)")
    status = host.manager.cancel(spec.key, drop_target=True)
    assert (status["canceled"]["dropped"], status["canceled"]["kept"]) == ([], [shop])
    assert target.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgops%'") == [(0,)]
    with target.connect(shop) as conn:
        assert conn.execute("SELECT to_regclass('public.theirs') IS NOT NULL").fetchone() == (True,)


def test_overwrite(host: Host, source, target, shop: str, spec_factory) -> None:
    """R106, R108: a canceled migration keeps its databases and names them; a new attempt is refused with 603101, before and while it
    starts; with ``copy.overwrite`` it takes their place, unless somebody is connected."""
    first = spec_factory("course-first", [shop])
    host.manager.start(first)
    host.until_waiting(first.key)
    assert host.manager.cancel(first.key)["canceled"]["kept"] == [shop]

    def refused(name: str, **options: t.Any) -> dict[str, t.Any]:
        spec = spec_factory(name, [shop], **options)
        host.manager.start(spec)
        limit = time.monotonic() + 60
        while (status := host.manager.status(spec.key))["state"] not in ("Failed", "ValidationFailed"):
            assert time.monotonic() < limit, status["summary"]
            time.sleep(0.05)
        assert slots(source) == []
        return status

    assert refused("course-second", option="migrate")["error"]["details"]["azure_code"] == "603101"
    findings = refused("course-third")["validation"]["findings"]
    assert [one["azure_code"] for one in findings if one["severity"] == "Failed"] == ["603101"]
    with target.connect(shop):
        error = refused("course-fourth", option="migrate", copy={"overwrite": True})["error"]
        assert error["sqlstate"] == "55006" and shop in error["message"] and error["hint"]
    assert databases(target, shop) == 1
    status = run_whole(host, spec_factory("course-fifth", [shop], copy={"overwrite": True}))
    warned = [one["message"] for one in status["validation"]["findings"] if one["azure_code"] == "603101"]
    assert len(warned) == 1 and "overwrite" in warned[0]
    with source.connect(shop) as left, target.connect(shop) as right:
        assert differences(left, right) == {}


def test_states_are_spelled_as_the_service_spells_them() -> None:
    """R83: these and no others."""
    assert {state.value for state in State} == {
        *("InProgress", "WaitingForUserAction", "Canceled", "Failed", "ValidationFailed", "Succeeded", "CleaningUp")
    }


def test_an_error_is_no_success(host: Host, source, target, shop: str, spec_factory) -> None:
    """R99: what the target cannot take fails with its message, and the source can be written at once."""
    spec = spec_factory("course-error", [shop], mode="offline")
    with source.connect(shop) as conn:
        conn.execute(
            "CREATE FUNCTION public.here() RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$BEGIN"
            f" IF current_setting('port') <> '{source.port}' THEN RAISE 'not here'; END IF; RETURN 1; END$$"
        )
        conn.execute("CREATE INDEX ON public.item ((public.here() + id))")
    host.manager.start(spec)
    status = host.until_failed(spec.key)
    assert "not here" in status["error"]["message"] and status["error"]["hint"]
    with source.connect(shop) as conn:
        conn.execute("INSERT INTO public.item (name) VALUES ('afterwards')")
