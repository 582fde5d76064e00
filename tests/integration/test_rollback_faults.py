# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The way back when something went wrong: its slot is gone, or the runtime host has forgotten it. It can always be given up."""

from __future__ import annotations

import json
import time
import typing as t

import psycopg
import pytest
import servers as lab
from ansible.module_utils.testing import patch_module_args
from ansible_collections.pgops.migration.plugins.module_utils._ansible.module import MigrationModule
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import ServiceError
from ansible_collections.pgops.migration.plugins.modules import pg_cutover
from host import Host, run_whole
from pair import OWNER, Login, describe, make_source_of_both_ways, make_target_of_both_ways
from plays import Playbooks

LIMIT = 40_000_000
TABLE = "CREATE TABLE public.item (id int PRIMARY KEY, name text); INSERT INTO public.item SELECT g, 'item' FROM generate_series(1, 100) g"
Ask = t.Callable[..., dict[str, t.Any]]


@pytest.fixture(scope="module")
def source() -> t.Iterator[lab.Server]:
    """A source that may also be a target."""
    server = make_source_of_both_ways()
    yield server
    server.drop()


@pytest.fixture(scope="module")
def target() -> t.Iterator[lab.Server]:
    """A target that may also be a source."""
    server = make_target_of_both_ways()
    yield server
    server.drop()


@pytest.fixture
def shop(source: lab.Server, owner: Login, source_database: str) -> str:
    """A small database."""
    with source.connect(source_database, user=owner.name, password=owner.password) as conn:
        conn.execute(TABLE)
    return source_database


@pytest.fixture
def module(host: Host, monkeypatch, capsys) -> Ask:
    """``module(description, state)``: what ``pg_cutover`` answers on this runtime host."""
    monkeypatch.setattr(MigrationModule, "manager", lambda self: host.manager)

    def ask(description: dict[str, t.Any], state: str, **more: t.Any) -> dict[str, t.Any]:
        with patch_module_args({**description, "state": state, **more}), pytest.raises(SystemExit):
            pg_cutover.main()
        return dict(json.loads(capsys.readouterr().out))

    return ask


def slots(server: lab.Server) -> list[t.Any]:
    """Our slots there."""
    return server.execute("SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'pgm%'")


def ledgers(server: lab.Server, database: str) -> list[t.Any]:
    """Our schema there."""
    return server.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'pgm%'", database)


def test_the_guard_has_dropped_its_slot(host: Host, source, target, shop: str, spec_factory, module: Ask) -> None:
    """The target's WAL is watched as the source's is: warned near the limit, the slot dropped at it. The target serves on, a rollback says
    why there is none, ``finish`` takes the rest away, and the record can be forgotten."""
    options = {"rollback": "prepared", "changes": {"plugin": "pgoutput", "max_retained_wal_bytes": LIMIT}}
    spec = spec_factory("guard", [shop], **options)
    run_whole(host, spec)
    back = host.manager.way_back(spec)
    host.until_waiting(back.key)

    def warned() -> bool:
        return any("max_retained_wal_bytes" in event["text"] for event in host.manager.status(back.key)["events"])

    filler, limit = 0, time.monotonic() + 90
    with target.connect(shop) as conn, target.connect(shop) as other:
        conn.execute("BEGIN; INSERT INTO public.item VALUES (-1, 'open')")  # nothing from here on can be let go of
        while host.manager.status(back.key)["state"] != "Failed":
            if filler < 0.9 * LIMIT or warned():
                other.execute("SELECT pg_logical_emit_message(false, 'filler', repeat('x', 500000))")
                filler += 500_000
            assert time.monotonic() < limit, host.manager.status(back.key)
        conn.execute("ROLLBACK")
    assert warned() and slots(target) == []
    told = host.manager.status(spec.key)
    assert told["way_back"]["state"] == "Failed" and "PGM4006" in json.dumps(host.manager.status(back.key)["error"])
    with target.connect(shop) as conn:
        conn.execute("INSERT INTO public.item VALUES (-2, 'on the target')")
    description = describe(source, target, "guard", [shop], **options)
    refused = module(description, "rolled_back")
    assert refused.get("failed") and refused["error_code"] in ("PGM4006", "PGM4010", "PGM5202"), refused
    done = module(description, "finished")
    assert done.get("changed"), done
    assert ledgers(source, shop) == [] and ledgers(target, shop) == []
    assert host.manager.status(spec.key)["way_back"]["state"] == "Canceled"
    assert not module(description, "finished")["changed"]
    assert module(description, "rolled_back")["error_code"] == "PGM5202"
    with pytest.raises(psycopg.OperationalError):
        source.connect(shop, OWNER, "")
    host.manager.forget(spec.key)


def test_the_host_has_forgotten_it(host: Host, source, target, shop: str, spec_factory, tmp_path) -> None:
    """On a runtime host that knows nothing the playbook ``finish`` finds by name what is on both servers; in check mode it only says so,
    played again it changes nothing, and a rollback is refused."""
    options = {"rollback": "prepared", "changes": {"plugin": "pgoutput"}}
    spec = spec_factory("forgotten", [shop], **options)
    run_whole(host, spec)
    back = host.manager.way_back(spec)
    host.until_waiting(back.key)
    host.kill(back.key)
    one = Playbooks(tmp_path, describe(source, target, "forgotten", [shop], **options))  # its home is empty
    with pytest.raises(ServiceError, match="no way back"):
        Host(tmp_path / "another").manager.start_way_back(spec)
    assert one.play("finish", "--check").fine().changed > 0
    assert slots(target) and ledgers(source, shop)
    done = one.play("finish").fine()
    assert done.changed > 0 and "slot pgm_" in done.text
    assert slots(target) == [] and ledgers(source, shop) == []
    assert target.execute("SELECT count(*) FROM pg_publication", shop) == [(0,)]
    assert one.play("finish").fine().changed == 0


def test_cleanup_by_name(host: Host, source, target, shop: str, spec_factory) -> None:
    """A way back that has failed goes with the migration whose name is cleaned up, and is over; that of another one stays."""
    spec = spec_factory("named", [shop], rollback="prepared", changes={"plugin": "pgoutput"})
    run_whole(host, spec)
    back = host.manager.way_back(spec)
    host.until_waiting(back.key)
    kept = host.manager.cleanup(spec.source, spec.target, name="named")["kept"]
    assert any("play finish" in line for line in kept)
    host.kill(back.key)
    target.execute(f"SELECT pg_drop_replication_slot('{slots(target)[0][0]}')")
    assert host.manager.start_way_back(spec)
    host.until_failed(back.key)
    host.manager.cleanup(spec.source, spec.target, name="another")
    assert ledgers(source, shop)
    assert "failed" in host.manager.status(spec.key)["summary"]
    assert host.manager.cleanup(spec.source, spec.target, name="named")["removed"]
    assert ledgers(source, shop) == [] and host.manager.status(spec.key)["way_back"]["state"] == "Canceled"
    assert source.execute("SELECT count(*) FROM public.item", shop) == [(100,)]
    host.manager.forget(spec.key)


def test_what_no_stream_carries(host: Host, source, target, owner: Login, shop: str, spec_factory) -> None:
    """Large objects and rows of unlogged tables that were written on the target come back with the rollback."""
    with source.connect(shop, owner.name, owner.password) as conn:
        conn.execute("CREATE UNLOGGED TABLE public.cache (id int PRIMARY KEY); INSERT INTO public.cache VALUES (1)")
        conn.execute("SELECT lo_from_bytea(424242, 'before')")
    spec = spec_factory("apart", [shop], rollback="prepared", changes={"plugin": "pgoutput"})
    run_whole(host, spec)
    back = host.manager.way_back(spec)
    host.until_waiting(back.key)
    with target.connect(shop) as conn:
        conn.execute("SET ROLE app; INSERT INTO public.cache VALUES (2)")
        conn.execute("SELECT lo_put(424242, 0, 'BEFORE'), lo_from_bytea(434343, 'after')")
    host.cut_over(back.key)
    assert source.execute("SELECT id FROM public.cache ORDER BY id", shop) == [(1,), (2,)]
    found = source.execute("SELECT oid, lo_get(oid) FROM pg_largeobject_metadata ORDER BY oid", shop)
    assert found == [(424242, b"BEFORE"), (434343, b"after")]
