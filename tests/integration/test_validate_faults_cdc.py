# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Faults of the source as a server of changes: made, found, repaired, gone."""

from __future__ import annotations

import threading
import typing as t

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.source.slot import create_slot
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate import cdc
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.registry import CHECKS
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.runner import validate, wait_until
from faults import RELOAD, WAL2JSON, Fault, Pair, lacks, look
from pair import PASSWORDS, make_source

FAULTS = [
    Fault(
        "stale slot",
        "PGM2102",
        "Warning",
        "app_old",
        ("d:SELECT pg_create_logical_replication_slot('app_old', 'pgoutput')",),
        ("d:SELECT pg_drop_replication_slot('app_old')",),
        fix="pg_drop_replication_slot('app_old')",
    ),
    Fault(
        "short timeout",
        "PGM2104",
        "Warning",
        "5 s",
        ("s:ALTER SYSTEM SET wal_sender_timeout = '5s'", *RELOAD),
        ("s:ALTER SYSTEM RESET wal_sender_timeout", *RELOAD),
    ),
    Fault(
        "no replication right",
        "PGM2105",
        "Failed",
        "migrator lacks REPLICATION",
        ("s:ALTER ROLE migrator NOREPLICATION",),
        ("s:ALTER ROLE migrator REPLICATION",),
        fix='ALTER ROLE "migrator" REPLICATION',
    ),
    Fault(
        "plugin refused",
        "PGM2106",
        "Failed",
        "wal2json",
        ("s:ALTER ROLE migrator SET output_plugin_libraries = pgoutput, test_decoding",),
        ("s:ALTER ROLE migrator RESET output_plugin_libraries",),
        spec=WAL2JSON,
        fix="output_plugin_libraries",
        needs="wal2json",
    ),
    Fault(
        "library not allowed",
        "PGM2107",
        "Failed",
        "pgoutput, test_decoding",
        ("s:ALTER ROLE migrator SET output_plugin_libraries = pgoutput, test_decoding",),
        ("s:ALTER ROLE migrator SET output_plugin_libraries = pgoutput, test_decoding, wal2json",),
        ("s:ALTER ROLE migrator RESET output_plugin_libraries",),
        spec=WAL2JSON,
        fix='ALTER ROLE "migrator" SET output_plugin_libraries = pgoutput, test_decoding, wal2json;',
        needs="output_plugin_libraries",
    ),
    Fault(
        "read-only",
        "PGM2108",
        "Failed",
        "is on",
        ("s:ALTER DATABASE {db} SET default_transaction_read_only = on",),
        ("s:ALTER DATABASE {db} RESET default_transaction_read_only",),
    ),
    Fault(
        "WAL limit",
        "PGM2110",
        "Warning",
        "1024 MB",
        ("s:ALTER SYSTEM SET max_slot_wal_keep_size = '1GB'", *RELOAD),
        ("s:ALTER SYSTEM RESET max_slot_wal_keep_size", *RELOAD),
    ),
    Fault(
        "prepared transaction",
        "PGM2111",
        "Failed",
        "forgotten",
        ("d:BEGIN; CREATE TABLE pt (i int); PREPARE TRANSACTION 'forgotten'",),
        ("d:ROLLBACK PREPARED 'forgotten'",),
        fix="ROLLBACK PREPARED 'forgotten'",
    ),
]
"""What cannot be said in SQL alone has a test of its own below."""


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f"{f.code} {f.name}")
def test_fault_is_found_and_gone_after_its_repair(
    fault: Fault, source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Callable[..., MigrationSpec]
) -> None:
    if fault.needs and lacks(source, fault.needs):
        pytest.skip(f"this server has no {fault.needs}")
    Pair(source, target, source_database, spec_factory).show(fault)


def test_a_long_transaction_is_named(
    source: lab.Server, owner: t.Any, source_database: str, spec_factory: t.Callable[..., MigrationSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cdc, "LONG_SECONDS", 0.3)
    spec = spec_factory("shop-1", [source_database])
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute("BEGIN")
        conn.execute("SELECT pg_sleep(0.5)")
        found = look(spec, "PGM2112", str(conn.info.backend_pid))
        assert found and f"pg_terminate_backend({conn.info.backend_pid})" in found[0].fix
        pid = conn.info.backend_pid
        conn.execute("ROLLBACK")
    assert look(spec, "PGM2112", str(pid)) == []


def test_age_of_transaction_ids(
    source_database: str, spec_factory: t.Callable[..., MigrationSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_factory("shop-1", [source_database])
    with monkeypatch.context() as patch:
        patch.setattr(cdc, "OLD_TRANSACTIONS", 1)
        found = look(spec, "PGM2113")
        assert found and "VACUUM" in found[0].fix
    assert look(spec, "PGM2113") == []


def test_a_wait_ends_when_it_is_repaired(source: lab.Server, source_database: str, spec_factory: t.Callable[..., MigrationSpec]) -> None:
    spec = spec_factory("shop-1", [source_database])
    source.execute("ALTER ROLE migrator NOREPLICATION")
    try:
        assert not wait_until(spec, ["PGM2105"], seconds=0.5, pause=0.1).passed
        repair = threading.Timer(1.0, source.execute, ["ALTER ROLE migrator REPLICATION"])
        repair.start()
        assert wait_until(spec, ["PGM2105"], seconds=30, pause=0.2).passed
        repair.join()
    finally:
        source.execute("ALTER ROLE migrator REPLICATION")


@pytest.fixture(scope="module")
def bare() -> t.Iterator[lab.Server]:
    """A source that nobody prepared."""
    few = {"max_connections": "15", "max_locks_per_transaction": "10", "max_prepared_transactions": "0"}
    server = make_source("bare", settings={"wal_level": "replica", "max_replication_slots": "1", "max_wal_senders": "1", **few})
    yield server
    server.drop()


def test_a_source_that_nobody_prepared(bare: lab.Server, spec_factory: t.Callable[..., MigrationSpec]) -> None:
    here = {"host": bare.host, "port": bare.port, "password": PASSWORDS[bare.port]}
    for name in ("one", "two"):
        bare.create_database(name, "app")
    bare.execute("DO 'BEGIN FOR i IN 1..120 LOOP EXECUTE format(''CREATE TABLE t%s (i int PRIMARY KEY)'', i); END LOOP; END'", "one")
    spec = spec_factory("shop-1", ["one", "two"], source=here)
    level, slots, senders, locks = (look(spec, code) for code in ("PGM2101", "PGM2102", "PGM2103", "PGM2317"))
    assert [f.severity for f in level + slots + senders] == ["Failed"] * 3 and [f.severity for f in locks] == ["Warning"]
    assert "logical" in level[0].fix and "restart" in level[0].fix and level[0].azure_code == "603107"
    assert [(f.who, f.restart) for f in level + slots + senders + locks] == [("superuser on the source", True)] * 4
    assert "2 needed" in slots[0].message and "max_replication_slots = '2'" in slots[0].fix
    assert "max_wal_senders = '2'" in senders[0].fix and "room for 150 locks" in locks[0].message
    offline = validate(spec_factory("shop-1", ["one", "two"], source=here, mode="offline"))
    assert not {f.code for f in offline.findings} & {c.code for c in CHECKS.values() if c.online}
    bare.execute("ALTER SYSTEM SET wal_level = logical")
    bare.reload()
    assert "only the restart is missing" in look(spec, "PGM2101")[0].message and look(spec, "PGM2101")[0].restart
    for name, value in {"max_replication_slots": 2, "max_wal_senders": 2, "max_locks_per_transaction": 64}.items():
        bare.execute(f"ALTER SYSTEM SET {name} = {value}")
    bare.restart()
    assert [f for code in ("PGM2101", "PGM2102", "PGM2103", "PGM2317") for f in look(spec, code)] == []
    bare.stop()
    (bare.data / "standby.signal").touch()
    lab.hand_over(bare.data / "standby.signal")
    bare.start()
    assert look(spec, "PGM2109", "standby")
    bare.execute("SELECT pg_promote()")
    assert look(spec, "PGM2109") == []


def test_a_failover_slot(source: lab.Server, source_database: str, spec_factory: t.Callable[..., MigrationSpec]) -> None:
    """Asked for, it is made where the source can (17 and later); elsewhere the validation says so."""
    wanted = spec_factory("shop-1", [source_database], changes={"failover_slot": True})
    found = look(wanted, "PGM2114")
    assert [f.severity for f in found] == (["Warning"] if source.major < 17 else [])
    assert look(spec_factory("shop-1", [source_database]), "PGM2114") == []
    made = create_slot(wanted.source, source_database, "pgm_failover", "pgoutput", failover=True)
    made.close()
    if source.major >= 17:
        assert source.execute("SELECT failover FROM pg_replication_slots WHERE slot_name = 'pgm_failover'") == [(True,)]
    source.execute("SELECT pg_drop_replication_slot('pgm_failover')")


def test_the_trial_slot_is_gone(source: lab.Server, source_database: str, spec_factory: t.Callable[..., MigrationSpec]) -> None:
    """R14: proven by a temporary slot that is gone afterwards, also where the plugin is refused or not there at all."""
    before = source.execute("SELECT slot_name::text FROM pg_replication_slots ORDER BY 1")
    for plugin in ("pgoutput", "wal2json", "auto"):
        look(spec_factory("shop-1", [source_database], changes={"plugin": plugin}), "PGM2106")
        assert source.execute("SELECT slot_name::text FROM pg_replication_slots ORDER BY 1") == before
    if lab.has_wal2json(source.bindir) and source.execute("SELECT 1 FROM pg_settings WHERE name = 'output_plugin_libraries'"):
        source.execute("ALTER ROLE migrator SET output_plugin_libraries = pgoutput")
        try:
            assert look(spec_factory("shop-1", [source_database], changes={"plugin": "wal2json"}), "PGM2106")
        finally:
            source.execute("ALTER ROLE migrator RESET output_plugin_libraries")
        assert source.execute("SELECT slot_name::text FROM pg_replication_slots ORDER BY 1") == before


def test_truncate_is_streamed(source: lab.Server, source_database: str, spec_factory: t.Callable[..., MigrationSpec]) -> None:
    """By every source from 11 on; tests/integration/test_versions.py has one that does not."""
    found = look(spec_factory("shop-1", [source_database]), "PGM2115")
    assert bool(found) == (source.major < 11)
