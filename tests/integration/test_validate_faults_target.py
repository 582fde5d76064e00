# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Extensions, collations, roles and parameters between both servers: made, found, repaired, gone."""

from __future__ import annotations

import secrets
import shutil
import typing as t
from pathlib import Path

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.runner import validate
from faults import AZURE, HSTORE, RELOAD, RENAME, TABLE, Fault, Pair, lacks, look
from pair import PASSWORDS, make_azure_target, make_source

OFFER = (
    "t:SET allow_system_table_mods = on; CREATE OR REPLACE VIEW pg_catalog.pg_available_extensions AS SELECT e.name, e.default_version,"
    " x.extversion AS installed_version, e.comment FROM pg_available_extensions() e LEFT JOIN pg_extension x ON e.name = x.extname{0}"
)
"""The target's own view of what it could create, with one row more or none."""
POSTGIS = " UNION ALL SELECT 'postgis', '{0}', NULL, ''"


def installed(version: str) -> tuple[str, str]:
    """Let the source pass for one with PostGIS."""
    return HSTORE, f"d:UPDATE pg_extension SET extname = 'postgis', extversion = '{version}' WHERE extname = 'hstore'"


FAULTS = [
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
        restart=False,
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
        restart=True,
    ),
    Fault(
        "locale missing at a provider",
        "PGM2411",
        "Failed",
        "C.UTF-8",
        ("t:DELETE FROM pg_collation WHERE collcollate ILIKE 'C.utf%'",),
        ("t:SELECT pg_import_system_collations('pg_catalog')",),
        spec=AZURE,
        fix="Make the database on the source anew",
        restart=False,
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
        "collation drift, its indexes",
        "PGM2415",
        "Warning",
        '2 index.es. of the source may be wrong and hide rows: "public"."Näme", "public"."word_pkey"',
        (
            'd:CREATE TABLE word (w text PRIMARY KEY, b text COLLATE "C", n int)',
            'd:CREATE INDEX "Näme" ON word (n, lower(w))',
            "d:CREATE INDEX by_bytes ON word (b)",
            "d:CREATE INDEX by_number ON word (n)",
            "s:UPDATE pg_database SET datcollversion = '0.1' WHERE datname = '{db}'",
        ),
        ("s:UPDATE pg_database SET datcollversion = NULL WHERE datname = '{db}'",),
        undo=("d:DROP TABLE word",),
        fix='REINDEX INDEX CONCURRENTLY "public"."Näme"; REINDEX INDEX CONCURRENTLY "public"."word_pkey"; ALTER DATABASE "{db}" REFRESH',
    ),
    Fault(
        "drift of one collation",
        "PGM2415",
        "Warning",
        '1 index.es. of the source may be wrong and hide rows: "public"."by_german"',
        (
            "d:CREATE COLLATION public.german (provider = icu, locale = 'de')",
            "d:CREATE TABLE word (w text PRIMARY KEY, d text COLLATE german)",
            "d:CREATE INDEX by_german ON word (d)",
            "d:UPDATE pg_collation SET collversion = '0.1' WHERE collname = 'german'",
        ),
        ('d:REINDEX INDEX "public"."by_german"', 'd:ALTER COLLATION "public"."german" REFRESH VERSION'),
        undo=("d:DROP TABLE word", "d:DROP COLLATION public.german"),
        fix='REINDEX INDEX CONCURRENTLY "public"."by_german"; ALTER COLLATION "public"."german" REFRESH VERSION',
        needs="icu",
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
    Fault(
        "ended extension",
        "PGM2407",
        "Failed",
        "tsearch2 ended with PostgreSQL 10",
        (HSTORE, RENAME.format("tsearch2", "hstore")),
        (RENAME.format("hstore", "tsearch2"),),
        fix='DROP EXTENSION "tsearch2"; no restart. Or a target of version 9',
    ),
    Fault(
        "older PostGIS",
        "PGM2408",
        "Failed",
        "postgis 3.4.0 to 3.1.2",
        (*installed("3.4.0"), OFFER.format(POSTGIS.format("3.1.2"))),
        (OFFER.format(POSTGIS.format("3.5.0")),),
        (OFFER.format(""),),
    ),
    Fault(
        "raster without its extension",
        "PGM2408",
        "Failed",
        "public.map.tile",
        (
            *installed("2.5.1"),
            "d:CREATE TYPE raster AS (i int)",
            "d:CREATE TABLE map (tile raster)",
            OFFER.format(POSTGIS.format("3.1.2")),
        ),
        ("d:DROP TABLE map",),
        (OFFER.format(""),),
        fix="postgis_raster",
    ),
    Fault(
        "role of Entra",
        "PGM2505",
        "Warning",
        "ann@example.com",
        ("s:CREATE ROLE azure_ad_user", 's:CREATE ROLE "ann@example.com" LOGIN IN ROLE azure_ad_user'),
        ('t:CREATE ROLE "ann@example.com"',),
        ('t:DROP ROLE "ann@example.com"', 's:DROP ROLE "ann@example.com", azure_ad_user'),
        spec={"source": {"type": "azure_single_server"}},
    ),
    Fault(
        "role of Entra that owns",
        "PGM2505",
        "Failed",
        "bob@example.com .objects or rights depend on it.",
        (
            's:CREATE ROLE "bob@example.com" LOGIN',
            "s:INSERT INTO pg_shseclabel VALUES ('\"bob@example.com\"'::regrole, 'pg_authid'::regclass, 'pgaadauth', 'aadauth')",
            'd:CREATE TABLE hers (i int PRIMARY KEY); ALTER TABLE hers OWNER TO "bob@example.com"',
        ),
        ('t:CREATE ROLE "bob@example.com"',),
        (
            't:DROP ROLE "bob@example.com"',
            "d:DROP TABLE hers",
            "s:DELETE FROM pg_shseclabel WHERE provider = 'pgaadauth'",
            's:DROP ROLE "bob@example.com"',
        ),
        spec={"source": {"type": "azure_flexible"}},
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
        assert [f.severity for f in preload] == ["Failed"] and preload[0].azure_code == "603109" and preload[0].restart
        assert "restart needed" in preload[0].message
        target.configure({"azure.extensions": found[0].data["value"], "shared_preload_libraries": preload[0].data["value"]})
        target.restart()
        assert look(spec, "PGM2402") == [] and look(spec, "PGM2403") == []
    finally:
        target.configure({"azure.extensions": "", "shared_preload_libraries": ""})
        target.execute("REVOKE pg_read_all_settings FROM admin")
        target.restart()


def test_a_restart_is_told_where_a_parameter_needs_one(source_database: str, spec_factory: t.Callable[..., MigrationSpec]) -> None:
    """PGM2510: whether setting them takes a restart of the target depends on which of them differ."""
    server = make_source(settings={"max_prepared_transactions": "0", "superuser_reserved_connections": "4", "random_page_cost": "1.1"})
    address = {"host": server.host, "port": server.port, "password": PASSWORDS[server.port]}
    spec = spec_factory("shop-1", [source_database], source=address)
    try:
        found = look(spec, "PGM2510")
        assert found[0].restart and "Restart needed for superuser_reserved_connections." in found[0].fix
        server.configure({"superuser_reserved_connections": "3"})
        server.restart()
        found = look(spec, "PGM2510")
        assert not found[0].restart and "No restart." in found[0].fix and "random_page_cost = 1.1" in found[0].message
    finally:
        server.drop()


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


EIGHT = {
    "PG_CRON": "pg_cron",
    "PG_HINT_PLAN": "pg_hint_plan",
    "PG_PARTMAN_BGW": "pg_partman_bgw",
    "PG_PREWARM": "pg_prewarm",
    "PG_STAT_STATEMENTS": "pg_stat_statements",
    "PG_AUDIT": "pgaudit",
    "PGLOGICAL": "pglogical",
    "WAL2JSON": "wal2json",
}
"""The tutorial's eight names, and the library of each (R30)."""


@pytest.fixture(scope="module")
def with_libraries(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[lab.Server]:
    """A target like Azure's that has preloaded libraries of these names: harmless ones, for only the names are looked at."""
    server = make_azure_target("libraries", settings={"shared_preload_libraries": "auto_explain"})
    folder = server.folder / "libraries"
    folder.mkdir()
    original = Path(server.execute("SELECT setting FROM pg_config WHERE name = 'PKGLIBDIR'")[0][0]) / "hstore.so"
    for library in EIGHT.values():
        shutil.copy(original, folder / f"{library}.so")
    lab.hand_over(folder)
    folder.chmod(0o755)
    yield server
    server.drop()


def test_the_eight_that_must_be_preloaded(
    with_libraries: lab.Server, source: lab.Server, source_database: str, spec_factory: t.Callable[..., MigrationSpec]
) -> None:
    """R30, R31: each of the eight, in any case, fails with its library, the ready value and the restart; preloaded it is well."""
    azure = with_libraries
    address = {"type": "azure_flexible", "host": azure.host, "port": azure.port, "password": PASSWORDS[azure.port]}
    spec = spec_factory("shop-1", [source_database], target=address)
    source.execute("CREATE EXTENSION hstore", source_database)
    present = "auto_explain"
    for round_ in ("missing", "preloaded"):
        installed = "hstore"
        for name, library in EIGHT.items():
            for spelled in (name, "pgaudit" if name == "PG_AUDIT" else name.lower()):
                source.execute(f"UPDATE pg_extension SET extname = '{spelled}' WHERE extname = '{installed}'", source_database)
                installed = spelled
                found = look(spec, "PGM2403")
                if round_ == "preloaded":
                    assert found == [], spelled
                    continue
                assert [(f.severity, f.azure_code) for f in found] == [("Failed", "603109")], spelled
                assert found[0].data["value"] == f"{present},{library}" and "restart" in found[0].fix and "restart" in found[0].message
        source.execute(f"UPDATE pg_extension SET extname = 'hstore' WHERE extname = '{installed}'", source_database)
        if round_ == "missing":
            files = "auto_explain," + ",".join(str(azure.folder / "libraries" / f"{library}.so") for library in EIGHT.values())
            azure.configure({"shared_preload_libraries": files})
            azure.restart()


def test_extensions_are_listed_and_looked_for(
    source: lab.Server, source_database: str, spec_factory: t.Callable[..., MigrationSpec]
) -> None:
    """R28, R29: every extension of the database with its version, beside what the target offers."""
    source.execute("CREATE EXTENSION hstore; CREATE EXTENSION citext", source_database)
    rows = source.execute("SELECT extname::text, extversion FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY 1", source_database)
    report = validate(spec_factory("shop-1", [source_database]), only=["PGM2401"])
    found = next(f for f in report.findings if f.code == "PGM2401")
    assert [(e["name"], e["version"]) for e in found.data] == rows and all(e["target"] for e in found.data)
