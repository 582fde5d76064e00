# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Everything that we ever made is found and removed on source, target and runtime host, also when the state is lost (B20)."""

from __future__ import annotations

import contextlib
import json
import shutil
import typing as t

import psycopg
import pytest
import servers as lab
from ansible.module_utils.testing import patch_module_args
from ansible_collections.pgops.migration.plugins.module_utils._ansible.module import MigrationModule
from ansible_collections.pgops.migration.plugins.module_utils._engine.cutover.fence import make_fence, plan_fence
from ansible_collections.pgops.migration.plugins.module_utils._engine.cutover.watchdog import FenceJournal
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import IllegalTransition
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.catalogue import Catalogue
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.paths import MigrationPaths
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.states import State, Substate
from ansible_collections.pgops.migration.plugins.modules import pg_cdc_stream
from host import Host
from pair import describe, make_target


@pytest.fixture(scope="module")
def target() -> t.Iterator[lab.Server]:
    """A target of this module's own: all that is ours on it is removed."""
    server = make_target()
    yield server
    server.drop()


@pytest.fixture
def shop(source, owner, source_database) -> str:
    """A small database."""
    with source.connect(source_database, user=owner.name, password=owner.password) as conn:
        conn.execute("CREATE TABLE public.item (id int PRIMARY KEY, name text)")
        conn.execute("INSERT INTO public.item SELECT i, 'item ' || i FROM generate_series(1, 100) i")
    return source_database


def traces(source: lab.Server, target: lab.Server, database: str) -> dict[str, t.Any]:
    """What is ours on both servers."""
    ledger = None
    if target.execute(f"SELECT FROM pg_database WHERE datname = '{database}'"):
        ledger = target.execute("SELECT to_regnamespace('pgm_migration')::text", database)[0][0]
    return {
        "slots": source.execute("SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'pgm%'"),
        "publications": source.execute("SELECT pubname FROM pg_publication", database),
        "sessions": source.execute("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'pgops%'"),
        "ledger": ledger,
        "role": target.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'pgm%'"),
    }


def lose_slots(source: lab.Server) -> None:
    """Drop our slots under their walsenders."""
    with contextlib.suppress(IndexError):
        while source.execute("SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'pgm%'")[0]:
            source.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active")
            with contextlib.suppress(psycopg.errors.ObjectInUse):
                source.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name LIKE 'pgm%'")


def lose_state(host: Host, key: str) -> None:
    """The runtime host forgets all that it knows, the service among it."""
    host.kill(key)
    (host.home / "catalogue.db").unlink()
    shutil.rmtree(host.home / "migrations")


CLEAN = {"slots": [], "publications": [], "sessions": [], "ledger": None, "role": []}


def test_lost_state(host, source, target, shop, spec_factory) -> None:
    """The runtime host has lost everything: listed in a dry run without harm, then removed by name, then nothing is left to do."""
    spec = spec_factory("lost", [shop], changes={"plugin": "pgoutput"})
    host.manager.start(spec)
    host.until_waiting(spec.key)
    lose_state(host, spec.key)
    before = traces(source, target, shop)
    assert before != CLEAN
    seen = host.manager.cleanup(spec.source, spec.target, dry=True)
    assert traces(source, target, shop) == before and seen["removed"] == []
    assert any("slot" in line for line in seen["found"]) and any("ledger" in line for line in seen["found"])
    assert any(f"database {shop}" in line for line in seen["kept"])
    done = host.manager.cleanup(spec.source, spec.target)
    assert done["removed"] == seen["found"]
    assert traces(source, target, shop) == CLEAN
    assert host.manager.cleanup(spec.source, spec.target) == {"found": [], "removed": [], "kept": []}
    assert target.execute("SELECT count(*) FROM public.item", shop) == [(100,)]


def test_cancel_of_a_forgotten_migration(host, source, target, shop, spec_factory, monkeypatch, capsys) -> None:
    """R107 and the issue's "works when the runtime host's state is lost": the module leaves nothing on the source, and says so once."""
    options = describe(source, target, "lost-too", [shop])
    spec = spec_factory("lost-too", [shop])
    host.manager.start(spec)
    host.until_waiting(spec.key)
    lose_state(host, spec.key)
    monkeypatch.setattr(MigrationModule, "manager", lambda self: host.manager)
    for changed in (True, False):
        with patch_module_args({**options, "state": "absent"}), pytest.raises(SystemExit):
            pg_cdc_stream.main()
        done = json.loads(capsys.readouterr().out)
        assert done["changed"] is changed, done
        assert any("slot" in line for line in done["removed"]) is changed
        assert traces(source, target, shop)["slots"] == [] and traces(source, target, shop)["publications"] == []
    host.manager.cleanup(spec.source, spec.target, name=spec.name)
    assert traces(source, target, shop) == CLEAN, "by its name alone, as nobody else is there"
    assert host.manager.cleanup(spec.source, spec.target)["found"] == []


def test_what_is_active_stays(host, source, target, shop, spec_factory, tmp_path_factory) -> None:
    """A migration at work loses nothing, neither by its own host nor by another one that does not know it; forced, it does."""
    spec = spec_factory("busy", [shop])
    host.manager.start(spec)
    host.until_waiting(spec.key)
    seen = host.manager.cleanup(spec.source, spec.target)
    assert seen["removed"] == [] and any("cancel it first" in line for line in seen["kept"])
    other = Host(tmp_path_factory.mktemp("other"))
    seen = other.manager.cleanup(spec.source, spec.target, dry=True)
    assert not any("slot" in line or "session" in line for line in seen["found"])
    assert any("another runtime host" in line for line in seen["kept"])
    assert traces(source, target, shop)["slots"]
    host.manager.cancel(spec.key)
    done = other.manager.cleanup(spec.source, spec.target, force=True, drop_target=True)
    assert any("database" in line for line in done["removed"])
    assert traces(source, target, shop) == CLEAN
    assert target.execute(f"SELECT FROM pg_database WHERE datname = '{shop}'") == []


def test_a_failed_migration_is_cleaned_up_not_canceled(host, source, target, shop, spec_factory) -> None:
    """R103: cancel in Failed is refused and names cleanup; that ends it, and spares what has another name."""
    spec = spec_factory("broken", [shop], changes={"plugin": "pgoutput"})
    host.manager.start(spec)
    host.until_waiting(spec.key)
    lose_slots(source)
    host.until_failed(spec.key)
    with pytest.raises(IllegalTransition) as refused:
        host.manager.cancel(spec.key)
    assert "cleanup" in refused.value.hint and "Failed" in refused.value.message
    source.execute("SELECT pg_create_logical_replication_slot('pgm_other_shop_00000000', 'pgoutput')", shop)
    try:
        done = host.manager.cleanup(spec.source, spec.target, name="broken", drop_target=True)
        assert any("publication" in line for line in done["removed"]) and any("files" in line for line in done["removed"])
        assert traces(source, target, shop)["slots"] == [("pgm_other_shop_00000000",)]
    finally:
        source.execute("SELECT pg_drop_replication_slot('pgm_other_shop_00000000')")
    assert host.manager.status(spec.key)["state"] == "Canceled"
    assert not (host.home / "migrations" / spec.key / "secrets.json").exists()
    assert host.manager.cancel(spec.key)["state"] == "Canceled"


def test_a_fence_that_nobody_lifted(host, source, owner, target, shop, spec_factory) -> None:
    """Service and watchdog died together in the fence: the clean-up opens the source."""
    spec = spec_factory("walled", [shop], changes={"plugin": "pgoutput"})
    host.manager.start(spec)
    host.until_waiting(spec.key)
    host.manager.stop(spec.key)
    change = plan_fence(spec.source, shop)
    journal = FenceJournal(MigrationPaths(host.home, spec.key).fence)
    journal.open([change], 1e12)
    make_fence(spec.source, change).raise_(1e12)
    Catalogue(host.home / "catalogue.db").move(spec.key, State.FAILED, Substate.WAITING_FOR_CUTOVER_TRIGGER)
    done = host.manager.cleanup(spec.source, spec.target, name="walled")
    assert any("fence" in line for line in done["removed"]) and journal.state() == "lifted"
    source.connect(shop, user=owner.name, password=owner.password).close()
