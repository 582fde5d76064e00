# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Databases that must or must not exist, and missing rights on both sides: made, found, repaired, gone."""

from __future__ import annotations

import typing as t

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.ledger import Ledger
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.identifiers import SCHEMA
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from faults import AZURE, OWNED, PGOUTPUT, TABLE, Fault, Pair, lacks, look

BACK = {"rollback": "prepared", "changes": {"plugin": "pgoutput"}}
FAULTS = [
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
        "present database is not there",
        "PGM2202",
        "Failed",
        "is not on the target, though copy.target_schema says present",
        (),
        ("t:CREATE DATABASE {db} OWNER admin",),
        ("t:DROP DATABASE {db}",),
        spec={"copy": {"target_schema": "present"}},
    ),
    Fault(
        "present schema without a table",
        "PGM2209",
        "Failed",
        "public.item is missing",
        (TABLE, "t:CREATE DATABASE {db} OWNER admin"),
        ("d:DROP TABLE item",),
        ("t:DROP DATABASE {db}",),
        spec={"copy": {"target_schema": "present"}},
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
        "no signal on target for the way back",
        "PGM2216",
        "Failed",
        "may not end other sessions on the target",
        (),
        ("t:GRANT pg_signal_backend TO admin",),
        ("t:REVOKE pg_signal_backend FROM admin",),
        spec=BACK,
        fix='GRANT pg_signal_backend TO "admin"',
    ),
    Fault(
        "no REPLICATION on target for the way back",
        "PGM2216",
        "Failed",
        "lacks REPLICATION on the target",
        (),
        ("t:ALTER ROLE admin REPLICATION",),
        ("t:ALTER ROLE admin NOREPLICATION",),
        spec=BACK,
        fix='ALTER ROLE "admin" REPLICATION',
    ),
    Fault(
        "no CREATE on source for the way back",
        "PGM2217",
        "Failed",
        "no CREATE on database",
        ("s:ALTER DATABASE {db} OWNER TO postgres",),
        ('s:GRANT CREATE ON DATABASE {db} TO "migrator"',),
        ("s:ALTER DATABASE {db} OWNER TO app",),
        spec=BACK,
        fix='GRANT CREATE ON DATABASE "{db}" TO "migrator"',
    ),
    Fault(
        "table of somebody else for the way back",
        "PGM2217",
        "Failed",
        r"may not write.*1 of other \(public.item",
        ("s:CREATE ROLE other", TABLE, "d:ALTER TABLE item OWNER TO other"),
        ("s:GRANT other TO migrator",),
        ("d:DROP TABLE item", "s:DROP ROLE other"),
        spec=BACK,
        fix='GRANT "other" TO "migrator"',
    ),
    Fault(
        "trigger that cannot rest for the way back",
        "PGM2217",
        "Failed",
        r"1 of other \(public.item",
        (
            "s:CREATE ROLE other",
            TABLE,
            "d:CREATE TABLE part (item int REFERENCES item)",
            "d:ALTER TABLE part OWNER TO migrator",
            "d:ALTER TABLE item OWNER TO other",
            "d:GRANT ALL ON item TO migrator",
        ),
        ("s:GRANT SET ON PARAMETER session_replication_role TO migrator",),
        ("s:REVOKE SET ON PARAMETER session_replication_role FROM migrator", "d:DROP TABLE part, item", "s:DROP ROLE other"),
        spec=BACK,
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
        "may not drop",
        "PGM2208",
        "Warning",
        "belongs to postgres",
        ("t:CREATE DATABASE {db}",),
        ("t:ALTER DATABASE {db} OWNER TO admin",),
        ("t:DROP DATABASE {db}",),
        fix='DROP DATABASE "{db}"; or GRANT "postgres" TO "admin"',
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
