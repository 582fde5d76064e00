# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""For each check: the fault is made on a real server, the finding is there; it is repaired, the finding is gone."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import secrets
import threading
import types
import typing as t

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.ledger import Ledger
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.identifiers import SCHEMA
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.profiles import RESTRICTED_CATALOGS
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate import cdc, servers
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.registry import CHECKS, Finding
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.runner import validate, wait_until
from pair import PASSWORDS, make_source

AZURE = {"target": {"type": "azure_flexible"}}
WAL2JSON = {"changes": {"plugin": "wal2json"}}
PGOUTPUT = {"changes": {"plugin": "pgoutput"}}


@dataclasses.dataclass(frozen=True)
class Fault:
    """Statements begin with where they run: ``d:`` the source's database, ``s:`` the source's postgres, ``t:`` the target's postgres.

    ``message`` must be found in the finding's message while the fault is there; ``undo`` cleans up what the repair leaves.
    """

    name: str
    code: str
    severity: str
    message: str
    make: tuple[str, ...]
    repair: tuple[str, ...]
    undo: tuple[str, ...] = ()
    spec: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    fix: str = ""
    needs: str = ""  # what a server may lack: icu, wal2json, output_plugin_libraries


def lacks(server: lab.Server, need: str) -> bool:
    """Is the server built without what a test needs?"""
    if need == "icu":
        return not server.execute("SELECT 1 FROM pg_collation WHERE collprovider = 'i' LIMIT 1")
    libraries = server.execute("SELECT 1 FROM pg_settings WHERE name = 'output_plugin_libraries'")
    return need == "output_plugin_libraries" and not libraries or need == "wal2json" and not (libraries and lab.has_wal2json(server.bindir))


TABLE = "d:CREATE TABLE item (id int PRIMARY KEY, note text)"
OWNED = (TABLE, "d:ALTER TABLE item OWNER TO app")
RELOAD = "s:SELECT pg_reload_conf()", "s:SELECT pg_sleep(0.2)"
HSTORE = "d:CREATE EXTENSION hstore"
RENAME = "d:UPDATE pg_extension SET extname = '{0}' WHERE extname = '{1}'"

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
    Fault(
        "unknown database",
        "PGM2201",
        "Failed",
        "does not exist",
        (),
        ("s:CREATE DATABASE nobody_made OWNER app",),
        ("s:DROP DATABASE nobody_made",),
        spec={"databases": ["nobody_made"]},
    ),
    Fault(
        "no CONNECT",
        "PGM2201",
        "Failed",
        "permission denied",
        ("s:ALTER DATABASE {db} OWNER TO postgres", "s:REVOKE CONNECT ON DATABASE {db} FROM PUBLIC"),
        ("s:GRANT CONNECT ON DATABASE {db} TO migrator",),
        fix="GRANT CONNECT ON DATABASE",
    ),
    Fault(
        "exists on target",
        "PGM2202",
        "Failed",
        "exists on the target",
        ("t:CREATE DATABASE {db} OWNER admin",),
        ("t:DROP DATABASE {db}",),
        fix='DROP DATABASE "{db}"',
    ),
    Fault(
        "unreadable table",
        "PGM2203",
        "Failed",
        "public.item",
        (TABLE, "s:REVOKE pg_read_all_data FROM migrator"),
        ("s:GRANT pg_read_all_data TO migrator",),
        fix='GRANT pg_read_all_data TO "migrator"',
    ),
    Fault(
        "schema without USAGE",
        "PGM2203",
        "Failed",
        "schemas without USAGE: closed",
        ("d:CREATE SCHEMA closed CREATE TABLE item (id int PRIMARY KEY)", "s:REVOKE pg_read_all_data FROM migrator"),
        ("s:GRANT pg_read_all_data TO migrator",),
    ),
    Fault(
        "unreadable large object",
        "PGM2204",
        "Failed",
        "4711",
        ("d:SELECT lo_create(4711)",),
        ("d:GRANT SELECT ON LARGE OBJECT 4711 TO migrator",),
        fix="GRANT SELECT ON LARGE OBJECT 4711",
    ),
    Fault(
        "row security",
        "PGM2205",
        "Failed",
        "public.item",
        (TABLE, "d:ALTER TABLE item ENABLE ROW LEVEL SECURITY"),
        ("s:ALTER ROLE migrator BYPASSRLS",),
        ("s:ALTER ROLE migrator NOBYPASSRLS",),
        fix='ALTER ROLE "migrator" BYPASSRLS',
    ),
    Fault(
        "forced row security",
        "PGM2205",
        "Failed",
        "public.item",
        (*OWNED, "d:ALTER TABLE item ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"),
        ("d:ALTER TABLE item NO FORCE ROW LEVEL SECURITY",),
    ),
    Fault(
        "not the owner",
        "PGM2206",
        "Failed",
        "does not own database",
        ("s:ALTER DATABASE {db} OWNER TO postgres",),
        ("s:ALTER DATABASE {db} OWNER TO app",),
    ),
    Fault(
        "no signal",
        "PGM2206",
        "Failed",
        "may not end other sessions",
        ("s:REVOKE pg_signal_backend FROM migrator",),
        ("s:GRANT pg_signal_backend TO migrator",),
    ),
    Fault("cannot publish", "PGM2207", "Failed", "1 of postgres", (TABLE,), ("d:ALTER TABLE item OWNER TO app",), spec=PGOUTPUT),
    Fault(
        "no CREATEDB",
        "PGM2211",
        "Failed",
        "may not create databases",
        ("t:ALTER ROLE admin NOCREATEDB",),
        ("t:ALTER ROLE admin CREATEDB",),
        fix='ALTER ROLE "admin" CREATEDB',
    ),
    Fault(
        "no CREATEROLE",
        "PGM2212",
        "Failed",
        "may not create roles",
        ("t:ALTER ROLE admin NOCREATEROLE",),
        ("t:ALTER ROLE admin CREATEROLE",),
    ),
    Fault(
        "no replica role",
        "PGM2213",
        "Warning",
        "session_replication_role",
        ("t:REVOKE SET ON PARAMETER session_replication_role FROM admin",),
        ("t:GRANT SET ON PARAMETER session_replication_role TO admin",),
        fix='GRANT SET ON PARAMETER session_replication_role TO "admin"',
    ),
    Fault(
        "no signal on target",
        "PGM2214",
        "Warning",
        "may not end",
        (),
        ("t:GRANT pg_signal_backend TO admin",),
        ("t:REVOKE pg_signal_backend FROM admin",),
    ),
    Fault(
        "no server of Azure",
        "PGM2215",
        "Failed",
        "has no role azure_pg_admin",
        (),
        ("t:CREATE ROLE azure_pg_admin ROLE admin",),
        ("t:DROP ROLE azure_pg_admin",),
        spec=AZURE,
    ),
    Fault(
        "no administrator",
        "PGM2215",
        "Failed",
        "no member of azure_pg_admin",
        ("t:CREATE ROLE azure_pg_admin",),
        ("t:GRANT azure_pg_admin TO admin",),
        ("t:DROP ROLE azure_pg_admin",),
        spec=AZURE,
        fix='GRANT azure_pg_admin TO "admin"',
    ),
    Fault(
        "no primary key",
        "PGM2301",
        "Failed",
        "public.log .it has no primary key.",
        ("d:CREATE TABLE log (at int)",),
        ("d:ALTER TABLE public.log REPLICA IDENTITY FULL",),
        fix='ALTER TABLE "public"."log" REPLICA IDENTITY FULL',
    ),
    Fault(
        "deferrable key",
        "PGM2301",
        "Warning",
        "deferrable",
        ("d:CREATE TABLE log (at int PRIMARY KEY DEFERRABLE)",),
        ("d:ALTER TABLE log DROP CONSTRAINT log_pkey, ADD PRIMARY KEY (at)",),
        spec={"changes": {"replica_identity": "set_full"}},
    ),
    Fault(
        "unlogged",
        "PGM2302",
        "Warning",
        "public.cache",
        ("d:CREATE UNLOGGED TABLE cache (i int)",),
        ("d:ALTER TABLE cache SET LOGGED",),
        fix='ALTER TABLE "public"."cache" SET LOGGED',
    ),
    Fault(
        "foreign table",
        "PGM2303",
        "Warning",
        "public.far",
        (
            "d:CREATE EXTENSION postgres_fdw",
            "d:CREATE SERVER away FOREIGN DATA WRAPPER postgres_fdw",
            "d:CREATE FOREIGN TABLE far (i int) SERVER away",
        ),
        ("d:DROP SERVER away CASCADE",),
    ),
    Fault("large object", "PGM2305", "Warning", "1 large object", ("d:SELECT lo_create(4711)",), ("d:SELECT lo_unlink(4711)",)),
    Fault(
        "cast",
        "PGM2307",
        "Warning",
        "text AS json",
        ("d:CREATE CAST (text AS json) WITH INOUT",),
        ("d:DROP CAST (text AS json)",),
        fix="DROP CAST (text AS json)",
    ),
    Fault(
        "language",
        "PGM2308",
        "Failed",
        "homemade",
        ("d:CREATE LANGUAGE homemade HANDLER plpgsql_call_handler",),
        ("d:DROP LANGUAGE homemade",),
    ),
    Fault(
        "C function",
        "PGM2309",
        "Failed",
        "plus.integer,integer.",
        ("d:CREATE FUNCTION plus(int, int) RETURNS int LANGUAGE internal AS 'int4pl'",),
        ("d:DROP FUNCTION plus",),
        spec=AZURE,
    ),
    Fault(
        "catalog grant",
        "PGM2310",
        "Failed",
        "SELECT on pg_authid to app",
        ("d:GRANT SELECT ON pg_authid TO app",),
        ("d:REVOKE SELECT ON pg_authid FROM app",),
        spec=AZURE,
        fix="REVOKE SELECT ON pg_catalog.pg_authid",
    ),
    Fault(
        "catalog grant, own server",
        "PGM2310",
        "Warning",
        "SELECT on pg_authid to app",
        ("d:GRANT SELECT ON pg_authid TO app",),
        ("d:REVOKE SELECT ON pg_authid FROM app",),
    ),
    Fault(
        "event trigger",
        "PGM2311",
        "Warning",
        "watch_ddl",
        (
            "d:CREATE FUNCTION ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'",
            "d:CREATE EVENT TRIGGER watch_ddl ON ddl_command_end EXECUTE FUNCTION ddl()",
        ),
        ("d:DROP EVENT TRIGGER watch_ddl",),
    ),
    Fault("publication", "PGM2312", "Warning", "theirs", ("d:CREATE PUBLICATION theirs FOR ALL TABLES",), ("d:DROP PUBLICATION theirs",)),
    Fault(
        "subscription",
        "PGM2313",
        "Warning",
        "from_afar",
        ("d:CREATE SUBSCRIPTION from_afar CONNECTION 'host=nowhere.invalid' PUBLICATION p WITH (connect = false)",),
        ("d:ALTER SUBSCRIPTION from_afar SET (slot_name = NONE)", "d:DROP SUBSCRIPTION from_afar"),
    ),
    Fault(
        "always trigger",
        "PGM2314",
        "Warning",
        "item_t on public.item",
        (
            *OWNED,
            "d:CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
            "d:CREATE TRIGGER item_t BEFORE INSERT ON item FOR EACH ROW EXECUTE FUNCTION nothing()",
            "d:ALTER TABLE item ENABLE ALWAYS TRIGGER item_t",
        ),
        ('d:ALTER TABLE "public"."item" ENABLE TRIGGER "item_t"',),
        fix='ALTER TABLE "public"."item" ENABLE TRIGGER "item_t"',
    ),
    Fault(
        "sequence",
        "PGM2315",
        "Warning",
        "public.s_id_seq at 2000000000 of 2147483647",
        (
            "d:CREATE TABLE s (id int PRIMARY KEY)",
            "d:CREATE SEQUENCE s_id_seq AS bigint OWNED BY s.id",
            "d:SELECT setval('s_id_seq', 2000000000)",
        ),
        ("d:ALTER TABLE s ALTER id TYPE bigint",),
    ),
    Fault(
        "not offered",
        "PGM2401",
        "Failed",
        "not_of_this_world",
        (HSTORE, RENAME.format("not_of_this_world", "hstore")),
        (RENAME.format("hstore", "not_of_this_world"),),
        fix='DROP EXTENSION "not_of_this_world"',
    ),
    Fault(
        "preload unreadable",
        "PGM2403",
        "Warning",
        "cannot be read",
        ("d:CREATE EXTENSION pg_stat_statements",),
        ("d:DROP EXTENSION pg_stat_statements",),
        fix='GRANT pg_read_all_settings TO "admin"',
    ),
    Fault(
        "older on the target",
        "PGM2404",
        "Warning",
        "hstore 99.1 to",
        (HSTORE, "d:UPDATE pg_extension SET extversion = '99.1' WHERE extname = 'hstore'"),
        ("d:UPDATE pg_extension SET extversion = '1.8' WHERE extname = 'hstore'",),
    ),
    Fault(
        "newer major on the target",
        "PGM2404",
        "Warning",
        "another major version",
        (HSTORE, "d:UPDATE pg_extension SET extversion = '0.9' WHERE extname = 'hstore'"),
        ("d:UPDATE pg_extension SET extversion = '1.8' WHERE extname = 'hstore'",),
    ),
    Fault(
        "in pg_catalog",
        "PGM2405",
        "Warning",
        "hstore",
        (HSTORE, "d:UPDATE pg_extension SET extnamespace = 'pg_catalog'::regnamespace WHERE extname = 'hstore'"),
        ("d:UPDATE pg_extension SET extnamespace = 'public'::regnamespace WHERE extname = 'hstore'",),
    ),
    Fault(
        "cannot stream",
        "PGM2406",
        "Failed",
        "timescaledb cannot be streamed",
        (HSTORE, RENAME.format("timescaledb", "hstore")),
        (RENAME.format("hstore", "timescaledb"),),
    ),
    Fault(
        "locale missing",
        "PGM2411",
        "Failed",
        "C.UTF-8",
        ("t:DELETE FROM pg_collation WHERE collcollate ILIKE 'C.utf%'",),
        ("t:SELECT pg_import_system_collations('pg_catalog')",),
        fix="pg_import_system_collations",
    ),
    Fault(
        "column collation missing",
        "PGM2412",
        "Failed",
        "de-x-icu",
        ('d:CREATE TABLE name (t text COLLATE "de-x-icu")', "t:DELETE FROM pg_collation WHERE collname = 'de-x-icu'"),
        ("t:SELECT pg_import_system_collations('pg_catalog')",),
        needs="icu",
    ),
    Fault(
        "own collation",
        "PGM2413",
        "Failed",
        "public.mine .icu.",
        ("d:CREATE COLLATION public.mine (provider = icu, locale = 'de')",),
        ("d:DROP COLLATION public.mine",),
        spec=AZURE,
        fix='DROP COLLATION "public"."mine"',
        needs="icu",
    ),
    Fault(
        "own collation, own server",
        "PGM2413",
        "Warning",
        "public.mine",
        ("d:CREATE COLLATION public.mine (provider = icu, locale = 'de')",),
        ("d:DROP COLLATION public.mine",),
        needs="icu",
    ),
    Fault(
        "collation drift",
        "PGM2415",
        "Warning",
        "0.1",
        ("s:UPDATE pg_database SET datcollversion = '0.1' WHERE datname = '{db}'",),
        ("s:UPDATE pg_database SET datcollversion = NULL WHERE datname = '{db}'",),
        fix="REFRESH COLLATION VERSION",
    ),
    Fault(
        "superuser",
        "PGM2501",
        "Warning",
        "boss .1 objects.",
        ("s:CREATE ROLE boss SUPERUSER", TABLE, "d:ALTER TABLE item OWNER TO boss"),
        ("d:REASSIGN OWNED BY boss TO app", "s:DROP ROLE boss"),
        fix='REASSIGN OWNED BY "boss"',
    ),
    Fault("superuser's table", "PGM2502", "Warning", "postgres owns 1: public.item", (TABLE,), ("d:ALTER TABLE item OWNER TO app",)),
    Fault(
        "attribute",
        "PGM2503",
        "Warning",
        "streamer REPLICATION",
        ("s:CREATE ROLE streamer REPLICATION",),
        ("s:DROP ROLE streamer",),
        spec={"target": {"type": "aws_rds"}},
    ),
    Fault(
        "no passwords",
        "PGM2504",
        "Warning",
        "cannot be read by migrator",
        ("s:REVOKE pg_read_all_data FROM migrator",),
        ("s:GRANT SELECT ON pg_catalog.pg_authid TO migrator",),
        ("s:REVOKE SELECT ON pg_catalog.pg_authid FROM migrator", "s:GRANT pg_read_all_data TO migrator"),
    ),
    Fault(
        "md5",
        "PGM2504",
        "Warning",
        "old_hand",
        ("s:SET password_encryption = 'md5'; CREATE ROLE old_hand LOGIN PASSWORD 'x'",),
        ("s:DROP ROLE old_hand",),
    ),
    Fault(
        "parameters",
        "PGM2510",
        "Warning",
        "random_page_cost = 1.1 .target 4",
        ("s:ALTER SYSTEM SET random_page_cost = 1.1", *RELOAD),
        ("s:ALTER SYSTEM RESET random_page_cost", *RELOAD),
        fix="random_page_cost",
    ),
]
"""What cannot be said in SQL alone has a test of its own below."""


@pytest.fixture
def run(source: lab.Server, target: lab.Server, source_database: str) -> t.Callable[..., None]:
    """Run a list of statements of a :class:`Fault`."""

    def execute(statements: t.Sequence[str]) -> None:
        for statement in statements:
            where, dummy, text = statement.partition(":")
            server = target if where == "t" else source
            server.execute(text.format(db=source_database), source_database if where == "d" else "postgres")

    return execute


def look(spec: MigrationSpec, code: str, message: str = "") -> list[Finding]:
    """The findings of one check that are not Succeeded."""
    found = validate(spec, only=[code]).findings
    assert any(f.code == code for f in found), f"{code} did not run: {[f.message for f in found if f.severity == 'Failed']}"
    return [f for f in found if f.code == code and f.severity != "Succeeded" and re.search(message, f.message)]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f"{f.code} {f.name}")
def test_fault_is_found_and_gone_after_its_repair(
    fault: Fault, run: t.Callable[..., None], source: lab.Server, source_database: str, spec_factory: t.Callable[..., MigrationSpec]
) -> None:
    if fault.needs and lacks(source, fault.needs):
        pytest.skip(f"this server has no {fault.needs}")
    overrides = dict(fault.spec)
    spec = spec_factory("shop-1", overrides.pop("databases", [source_database]), **overrides)
    try:
        run(fault.make)
        found = look(spec, fault.code, fault.message)
        assert [f.severity for f in found] == [fault.severity]
        assert fault.fix.format(db=source_database) in found[0].fix and found[0].fix
        assert found[0].azure_code == (CHECKS[fault.code].azure_code if " " not in CHECKS[fault.code].azure_code else found[0].azure_code)
    except BaseException:
        with contextlib.suppress(Exception):
            run(fault.repair)
        with contextlib.suppress(Exception):
            run(fault.undo)
        raise
    run(fault.repair)
    try:
        assert look(spec, fault.code, fault.message) == []
    finally:
        run(fault.undo)


def test_every_check_has_a_fault() -> None:
    text = (lab.Path(__file__)).read_text(encoding="utf-8") + lab.Path(__file__).with_name("test_validate.py").read_text(encoding="utf-8")
    unit = {"PGM2010", "PGM2011", "PGM2306"}  # servers of other ages: tests/unit/test_validate_report.py
    advice = {"PGM2016"}
    missing = [code for code in CHECKS if f'"{code}"' not in text and code not in unit | advice]
    assert missing == []


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


def test_temporary_tables(source: lab.Server, owner: t.Any, source_database: str, spec_factory: t.Callable[..., MigrationSpec]) -> None:
    spec = spec_factory("shop-1", [source_database])
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute("CREATE TEMP TABLE passing (i int)")
        assert look(spec, "PGM2304", "passing")
        conn.execute("DROP TABLE passing")
        assert look(spec, "PGM2304") == []


def test_nan_before_wal2json_26(source: lab.Server, source_database: str, spec_factory: t.Callable[..., MigrationSpec]) -> None:
    if not lab.has_wal2json(source.bindir):
        pytest.skip("this server has no wal2json")
    spec = spec_factory("shop-1", [source_database], changes={"plugin": "wal2json"})
    source.execute(
        "CREATE TABLE m (id int PRIMARY KEY, v float8, n numeric); INSERT INTO m VALUES (1, 'NaN', 1); ALTER TABLE m OWNER TO app",
        source_database,
    )
    found = look(spec, "PGM2316")
    if not found:
        pytest.skip("this wal2json writes numbers as strings")
    assert found[0].severity == "Failed" and "public.m.v" in found[0].message and "public.m.n" not in found[0].message
    source.execute("UPDATE m SET v = 0", source_database)
    assert [f.severity for f in look(spec, "PGM2316")] == ["Warning"]
    source.execute("ALTER TABLE m DROP v, DROP n", source_database)
    assert look(spec, "PGM2316") == []


def test_our_own_half_made_database_is_no_conflict(
    target: lab.Server, target_database: str, spec_factory: t.Callable[..., MigrationSpec]
) -> None:
    spec = spec_factory("shop-1", [target_database])
    with target.connect(target_database) as conn:
        Ledger(conn).create("other-abc123")
        conn.execute(f"GRANT USAGE ON SCHEMA {SCHEMA} TO admin; GRANT SELECT ON ALL TABLES IN SCHEMA {SCHEMA} TO admin")
        assert look(spec, "PGM2202", "of the migration other-abc123")
        conn.execute(f"UPDATE {SCHEMA}.migration SET key = %s", [spec.key])
    assert look(spec, "PGM2202") == []


def test_azure_extension_lists(
    target: lab.Server, source: lab.Server, source_database: str, spec_factory: t.Callable[..., MigrationSpec]
) -> None:
    spec = spec_factory("shop-1", [source_database], target={"type": "azure_flexible"})
    source.execute("CREATE EXTENSION hstore; CREATE EXTENSION pg_stat_statements", source_database)
    target.configure({"azure.extensions": "citext,PG_STAT_STATEMENTS"})
    target.execute("GRANT pg_read_all_settings TO admin")
    target.reload()
    try:
        found = look(spec, "PGM2402")
        assert [f.severity for f in found] == ["Failed"] and found[0].azure_code == "603108"
        assert found[0].data["value"] == "citext,PG_STAT_STATEMENTS,hstore" and "--name azure.extensions" in found[0].fix
        preload = look(spec, "PGM2403")
        assert [f.severity for f in preload] == ["Failed"] and preload[0].azure_code == "603109" and "restart" in preload[0].message
        target.configure({"azure.extensions": found[0].data["value"], "shared_preload_libraries": preload[0].data["value"]})
        target.restart()
        assert look(spec, "PGM2402") == [] and look(spec, "PGM2403") == []
    finally:
        target.configure({"azure.extensions": "", "shared_preload_libraries": ""})
        target.execute("REVOKE pg_read_all_settings FROM admin")
        target.restart()


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


def test_encoding(source: lab.Server, spec_factory: t.Callable[..., MigrationSpec]) -> None:
    name = f"db{secrets.token_hex(4)}"
    source.create_database(name, "app", "ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE 'C'")
    try:
        assert look(spec_factory("shop-1", [name]), "PGM2414", "SQL_ASCII")
    finally:
        source.drop_database(name)
    source.create_database(name, "app")
    try:
        assert look(spec_factory("shop-1", [name]), "PGM2414") == []
    finally:
        source.drop_database(name)


def test_runtime_host(
    source: lab.Server, source_database: str, spec_factory: t.Callable[..., MigrationSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = spec_factory("shop-1", [source_database], copy={"jobs": 1, "bindir": str(source.bindir)})
    assert look(good, "PGM2012") == [] and look(good, "PGM2014") == [] and look(good, "PGM2013") == [] and look(good, "PGM2015") == []
    assert look(spec_factory("shop-1", [source_database], copy={"bindir": "/nonexistent"}), "PGM2012", "/nonexistent")
    assert look(spec_factory("shop-1", [source_database], copy={"jobs": 9999}), "PGM2014", "more relays than CPUs")
    usage = types.SimpleNamespace(disk_usage=lambda dummy: types.SimpleNamespace(free=1 << 20))
    with monkeypatch.context() as patch:
        patch.setattr(servers, "shutil", usage)
        assert [f.severity for f in look(good, "PGM2015", "1.0 MB free")] == ["Failed"]
    with monkeypatch.context() as patch:
        patch.setattr(servers, "SKEW_SECONDS", -1.0)
        assert look(good, "PGM2013", "clocks differ")


def test_one_server_under_two_names(source: lab.Server, source_database: str, spec_factory: t.Callable[..., MigrationSpec]) -> None:
    same = {"host": "localhost", "port": source.port, "user": "migrator", "password": PASSWORDS[source.port]}

    spec = spec_factory("shop-1", [source_database], target=same)
    assert look(spec, "PGM2003", "same server")
    assert look(spec_factory("shop-1", [source_database]), "PGM2003") == []


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
    assert "2 needed" in slots[0].message and "max_replication_slots = '2'" in slots[0].fix
    assert "max_wal_senders = '2'" in senders[0].fix and "room for 150 locks" in locks[0].message
    offline = validate(spec_factory("shop-1", ["one", "two"], source=here, mode="offline"))
    assert not {f.code for f in offline.findings} & {c.code for c in CHECKS.values() if c.online}
    bare.execute("ALTER SYSTEM SET wal_level = logical")
    bare.reload()
    assert "only the restart is missing" in look(spec, "PGM2101")[0].message
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


def test_restricted_catalogs_are_known_to_servers(source: lab.Server) -> None:
    known = {row[0] for row in source.execute("SELECT relname::text FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace")}
    assert set(RESTRICTED_CATALOGS) - known <= {"pg_pltemplate"}
