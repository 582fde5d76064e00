# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Behind the point of no return: nobody drops what serves, nobody takes a proof for made that was not, and what sessions did until the last
moment is on the target."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from pathlib import Path

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import Conflict, ConnectionFailed, IllegalTransition
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.catalogue import Catalogue
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.states import State, Substate
from ansible_collections.pgops.migration.plugins.module_utils._engine.monitor.text import cutover_lines
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.session import connect_bulk
from ansible_collections.pgops.migration.plugins.module_utils._engine.service.cancel import drop_databases
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import Endpoint
from cutoverlab import Hook, held, prepare_hold
from host import Host
from pair import Login

DDL = """CREATE TABLE public.item (id int PRIMARY KEY, word text);
    INSERT INTO public.item SELECT i, 'w' || i FROM generate_series(1, 100) i;
    CREATE SEQUENCE public.ticket; SELECT lo_from_bytea(4711, 'first')"""


@pytest.fixture
def database(source: lab.Server, owner: Login, source_database: str) -> str:
    """A table, a sequence, a large object."""
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute(DDL)
    prepare_hold(source, source_database)
    return source_database


def test_what_serves_is_never_dropped(host: Host, target, database, spec_factory, tmp_path) -> None:
    """R106: a cancel is refused once the cutover was released, and no path drops the database, also for a killed service."""
    spec, hook = spec_factory("serving", [database], cutover={"max_latency": 60}), Hook(tmp_path)
    host.manager.start(spec)
    host.until_waiting(spec.key)
    host.manager.request_cutover(spec.key, {"release": [str(hook.program)]})
    hook.until_at_work(host, spec.key)
    for dead in (False, True):
        if dead:
            host.kill(spec.key)
        with pytest.raises(IllegalTransition, match="switched over"):
            host.manager.cancel(spec.key, drop_target=True)
        assert drop_databases(spec) == []
    cleaned = host.manager.cleanup(spec.source, spec.target, name="serving", drop_target=True)
    assert not any("database" in item for item in cleaned["removed"]), cleaned
    hook.let_go()
    host.manager.start(spec)
    host.until(spec.key, lambda status: status["state"] == "Succeeded", "Succeeded")
    assert target.execute("SELECT count(*) FROM public.item", database) == [(100,)]


def test_given_back_it_may_be_dropped_again(host: Host, target, database, spec_factory) -> None:
    """A cutover that was given back has led nobody to the target."""
    spec = spec_factory("not-serving", [database], cutover={"max_latency": 60, "max_pause": 3})
    host.manager.start(spec)
    host.until_waiting(spec.key)
    with held(host, spec.key, target, database, "confirm"):
        host.until(spec.key, lambda status: (status["cutover"] or {}).get("given_back"), "given back")
    host.until_waiting(spec.key)
    assert host.manager.cancel(spec.key, drop_target=True)["canceled"]["dropped"] == [database]


def test_a_proof_that_was_broken_off_is_told(host: Host, database, spec_factory, tmp_path) -> None:
    """The service is killed behind the release: the next one ends the migration with the hook of that cutover, and says in record, lines
    and certificate that rows were not compared."""
    spec, hook = spec_factory("unproven", [database], cutover={"max_latency": 60}), Hook(tmp_path)
    host.manager.start(spec)
    host.until_waiting(spec.key)
    host.manager.request_cutover(spec.key, {"release": [str(hook.program)]})
    hook.until_at_work(host, spec.key)
    host.kill(spec.key)
    hook.let_go()
    host.manager.start(spec)
    status = host.until(spec.key, lambda status: status["state"] == "Succeeded", "Succeeded")
    assert hook.runs == 2, "the release was finished without the hook that the cutover was asked for with"
    assert status["verification"] is None and "broken off" in status["unproven"][database]
    assert any("were not compared" in line for line in cutover_lines(status))
    assert any("were not compared" in event["text"] for event in status["events"])
    assert "broken off" in json.loads(Path(status["files"]["report"]).read_text(encoding="utf-8"))["unproven"][database]


def test_a_source_that_is_switched_off_behind_the_release(host: Host, source, target, database, spec_factory, tmp_path) -> None:
    """The target serves: the migration has succeeded, says what could not be removed, and cleanup removes it when the source is back."""
    spec, hook = spec_factory("switched-off", [database], cutover={"max_latency": 60}), Hook(tmp_path)
    host.manager.start(spec)
    host.until_waiting(spec.key)
    host.manager.request_cutover(spec.key, {"release": [str(hook.program)]})
    hook.until_at_work(host, spec.key)
    source.stop()
    try:
        hook.let_go()
        status = host.until(spec.key, lambda status: status["state"] == "Succeeded", "Succeeded")
    finally:
        source.start()
    assert "broken off" in status["unproven"][database]
    assert any("stay on the source" in event["text"] and event["level"] == "warning" for event in status["events"]), status["events"]
    assert target.execute("SELECT count(*) FROM public.item", database) == [(100,)]
    slots = "SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'pgm%'"
    assert source.execute(slots) == [(1,)]
    assert host.manager.cleanup(spec.source, spec.target, name="switched-off")["removed"]
    assert source.execute(slots) == [(0,)]


def test_a_row_changed_by_hand_is_found_by_the_cutover(host: Host, target, database, spec_factory) -> None:
    """The proof after the release: the migration has not succeeded, and names key and both values."""
    spec = spec_factory("by-hand", [database], cutover={"max_latency": 60})
    host.manager.start(spec)
    host.until_waiting(spec.key)
    target.execute("UPDATE public.item SET word = 'by hand' WHERE id = 42", database)
    host.manager.request_cutover(spec.key)
    status = host.until_failed(spec.key)
    assert status["error"]["code"] == "PGM6001" and "public.item" in status["error"]["message"]
    (item,) = [table for table in status["verification"]["databases"][database]["tables"] if not table["equal"]]
    told = json.dumps(item["differences"])
    assert '"42"' in told and "w42" in told and "by hand" in told


def test_a_row_changed_by_hand_is_found_before_the_release(host: Host, source, target, owner, database, spec_factory) -> None:
    """``verify_before_release``: given back, the source goes on; mended, the next cutover has its proof from within the pause."""
    spec = spec_factory("first", [database], cutover={"max_latency": 60, "verify_before_release": True, "verify": False})
    host.manager.start(spec)
    host.until_waiting(spec.key)
    target.execute("UPDATE public.item SET word = 'by hand' WHERE id = 42", database)
    given_back = host.try_cutover(spec.key)["cutover"]["given_back"]
    assert given_back["code"] == "PGM5113" and "public.item" in given_back["message"]
    with source.connect(database, owner.name, owner.password) as conn:
        conn.execute("INSERT INTO public.item VALUES (101, 'goes on')")
    target.execute("UPDATE public.item SET word = 'w42' WHERE id = 42", database)
    host.until_waiting(spec.key)
    status = host.cut_over(spec.key)
    assert [phase["name"] for phase in status["cutover"]["phases"]][-2:] == ["verify", "release"]
    assert status["verification"]["equal"] and not status["unproven"]
    assert target.execute("SELECT word FROM public.item WHERE id IN (42, 101) ORDER BY id", database) == [("w42",), ("goes on",)]


@pytest.mark.parametrize("fence", ["locks", "read_only"])
def test_until_the_last_moment(fence: str, host: Host, source, target, owner, database, spec_factory) -> None:
    """Fences that let sessions live: what one of them draws from a sequence or writes to a large object behind the first reading of both
    is on the target."""
    spec = spec_factory(f"late-{fence.replace('_', '-')}", [database], cutover={"max_latency": 60, "max_pause": 60, "fence": fence})
    host.manager.start(spec)
    host.until_waiting(spec.key)
    with held(host, spec.key, target, database, "confirm") as go_on:
        with contextlib.closing(source.connect(database, owner.name, owner.password)) as session:
            session.execute("BEGIN READ WRITE; SELECT nextval('public.ticket') FROM generate_series(1, 77)")
            session.execute("SELECT lo_put(4711, 0, 'late!'); COMMIT")
        go_on()
    status = host.until(spec.key, lambda status: status["state"] == "Succeeded", "Succeeded")
    assert "sequences set again" in next(phase["text"] for phase in status["cutover"]["phases"] if phase["name"] == "confirm")
    assert target.execute("SELECT last_value, is_called FROM public.ticket", database) == [(77, True)]
    assert target.execute("SELECT lo_get(4711)", database) == [(b"late!",)]
    assert status["verification"]["equal"]


def test_a_table_made_at_the_last_moment(host: Host, source, target, owner, database, spec_factory) -> None:
    """It is in no stream: the cutover is given back, and its rows are not lost."""
    spec = spec_factory("late-ddl", [database], cutover={"max_latency": 60, "max_pause": 60, "fence": "locks"})
    host.manager.start(spec)
    host.until_waiting(spec.key)
    with contextlib.closing(source.connect(database, owner.name, owner.password)) as session:
        with held(host, spec.key, target, database, "confirm") as go_on:
            session.execute("CREATE TABLE public.late (id int PRIMARY KEY); INSERT INTO public.late VALUES (1)")
            go_on()
        status = host.until(spec.key, lambda status: (status["cutover"] or {}).get("given_back"), "given back")
    assert "late" in status["cutover"]["given_back"]["message"]
    assert source.execute("SELECT count(*) FROM public.late", database) == [(1,)]


def test_a_cancel_that_was_broken_off(host: Host, database, spec_factory) -> None:
    """Playing migrate says to play cancel again; a second cancel ends it."""
    spec = spec_factory("half-canceled", [database])
    host.manager.start(spec)
    host.until_waiting(spec.key)
    host.manager.stop(spec.key)
    Catalogue(host.home / "catalogue.db").move(spec.key, State.CLEANING_UP, Substate.WAITING_FOR_CUTOVER_TRIGGER)
    with pytest.raises(Conflict, match="canceled") as refused:
        host.manager.plan(spec)
    assert "cancel again" in refused.value.hint
    assert host.manager.cancel(spec.key)["state"] == "Canceled"


def test_certificates_with_odd_names(source, tmp_path, migrator) -> None:
    """A file name with characters that mean something in a URL reaches the driver of the bulk connections as it is."""
    odd = tmp_path / "r&d#1+a b.crt"
    endpoint = Endpoint.at(source.host, source.port)
    endpoint = dataclasses.replace(endpoint, user=migrator.name, password=migrator.password, sslmode="verify-full", sslrootcert=str(odd))
    odd.write_text("no certificate at all")
    with pytest.raises(ConnectionFailed, match="(?i)certificate|PEM"):  # it was found and read
        asyncio.run(connect_bulk(endpoint, "postgres"))
