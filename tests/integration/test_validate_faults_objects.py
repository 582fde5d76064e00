# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What is in a database: made, found, repaired, gone."""

from __future__ import annotations

import typing as t

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.profiles import RESTRICTED_CATALOGS
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from faults import AZURE, OWNED, Fault, Pair, lacks, look
from pair import PASSWORDS, make_source

FAULTS = [
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
        "the largest: public.log",
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
        "text search template",
        "PGM2318",
        "Failed",
        "template mine",
        ("d:CREATE TEXT SEARCH TEMPLATE mine (LEXIZE = dsimple_lexize)",),
        ("d:DROP TEXT SEARCH TEMPLATE mine",),
        spec=AZURE,
        fix="DROP TEXT SEARCH TEMPLATE",
    ),
    Fault(
        "dictionary with a file",
        "PGM2318",
        "Warning",
        "german_stop",
        ("d:CREATE TEXT SEARCH DICTIONARY german_stop (TEMPLATE = simple, STOPWORDS = german)",),
        ("d:DROP TEXT SEARCH DICTIONARY german_stop",),
        fix="tsearch_data",
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


def test_restricted_catalogs_are_known_to_servers(source: lab.Server) -> None:
    known = {row[0] for row in source.execute("SELECT relname::text FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace")}
    assert set(RESTRICTED_CATALOGS) - known <= {"pg_pltemplate"}


def test_tables_with_oids(target: lab.Server, spec_factory: t.Callable[..., MigrationSpec]) -> None:
    """603404, on a source that still has them (9.5 to 11)."""
    old = next((folder for major, folder in lab.installations().items() if major < 12), None)
    if old is None:
        pytest.skip("no PostgreSQL before 12 on this machine: scripts/majors gets one")
    server = make_source("with-oids", bindir=old)
    try:
        server.create_database("aged", "app")
        server.execute("CREATE TABLE old (id int PRIMARY KEY) WITH OIDS; CREATE TABLE new (id int PRIMARY KEY)", "aged")
        here = {"host": server.host, "port": server.port, "password": PASSWORDS[server.port]}
        spec = spec_factory("shop-1", ["aged"], source=here)
        found = look(spec, "PGM2306")
        assert [(f.severity, f.azure_code) for f in found] == [("Failed", "603404")] and "public.old" in found[0].message
        assert "public.new" not in found[0].message
        server.execute(found[0].fix.partition(": ")[2].partition(";")[0], "aged")
        assert look(spec, "PGM2306") == []
    finally:
        server.drop()
