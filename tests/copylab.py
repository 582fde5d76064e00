# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What tests of the base copy share: a held snapshot, the copy itself, and the comparison of catalog and rows of both sides."""

from __future__ import annotations

import threading
import typing as t
from pathlib import Path

import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.ledger import Ledger
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.lsn import parse_lsn
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.basecopy import BaseCopy, CopyJob
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec


class Held:
    """A snapshot of the source, as the worker gives it to the base copy."""

    def __init__(self, server: lab.Server, database: str) -> None:
        self.conn = server.connect(database)
        self.conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        row = self.conn.execute("SELECT pg_export_snapshot(), pg_current_wal_lsn()::text").fetchone()
        assert row
        self.snapshot, self.consistent_point = row[0], parse_lsn(row[1])
        self.closed = 0

    def close(self) -> None:
        """End it; counted."""
        self.closed += 1
        self.conn.close()


def copy(
    spec: MigrationSpec, database: str, workdir: Path, held: Held, stop: threading.Event | None = None, **options: t.Any
) -> dict[str, t.Any]:
    """Run a base copy; its result and all its ``reports``."""
    reports: list[dict[str, t.Any]] = []
    job = CopyJob(spec, database, workdir, held.snapshot, held.consistent_point, options.pop("relay_command", ()))
    result = BaseCopy(job, options.pop("report", reports.append), held.close, stop or threading.Event(), **options).run()
    result["reports"] = reports
    return result


CATALOG = {
    "relations": "SELECT n.nspname, c.relname, c.relkind, c.relpersistence, c.relreplident, c.relrowsecurity,"
    " c.relforcerowsecurity, c.relispopulated,"
    " pg_get_userbyid(c.relowner), c.relispartition, array_to_string(c.reloptions, ','), obj_description(c.oid, 'pg_class') FROM pg_class c"
    " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {user}",
    "columns": "SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated,"
    " pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum), a.attstorage, a.attstattarget FROM"
    " pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
    " JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum"
    " WHERE a.attnum > 0 AND NOT a.attisdropped AND {user}",
    "indexes": "SELECT n.nspname, c.relname, pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisclustered,"
    " i.indisreplident, i.indisprimary"
    " FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {user}",
    "constraints": "SELECT n.nspname, k.conname, k.contype, pg_get_constraintdef(k.oid), k.convalidated, k.condeferrable, k.condeferred,"
    " k.conrelid::regclass::text, obj_description(k.oid, 'pg_constraint') FROM pg_constraint k"
    " JOIN pg_namespace n ON n.oid = k.connamespace WHERE {user}",
    "triggers": "SELECT pg_get_triggerdef(g.oid), g.tgenabled FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace n"
    " ON n.oid = c.relnamespace WHERE NOT g.tgisinternal AND {user}",
    "policies": "SELECT schemaname, tablename, policyname, permissive, roles::text, cmd, qual, with_check FROM pg_policies",
    "views": "SELECT schemaname, viewname, definition FROM pg_views n WHERE {schemaname}",
    "rules": "SELECT schemaname, tablename, rulename, definition FROM pg_rules n WHERE {schemaname}",
    "functions": "SELECT n.nspname, p.proname, pg_get_functiondef(p.oid), pg_get_userbyid(p.proowner),"
    " p.proacl::text FROM pg_proc p JOIN pg_namespace n"
    " ON n.oid = p.pronamespace WHERE {user} AND p.prokind <> 'a' AND NOT EXISTS (SELECT FROM pg_depend d"
    " WHERE d.objid = p.oid AND d.deptype = 'e')",
    "statistics": "SELECT stxname, pg_get_statisticsobjdef(oid) FROM pg_statistic_ext",
    "inheritance": "SELECT inhrelid::regclass::text, inhparent::regclass::text, inhseqno FROM pg_inherits",
    "sequences": "SELECT schemaname, sequencename, data_type::text, last_value, increment_by, cycle FROM pg_sequences",
    "grants": "SELECT n.nspname, c.relname, a.grantee::regrole::text, a.privilege_type, a.is_grantable FROM pg_class c JOIN pg_namespace n"
    " ON n.oid = c.relnamespace, aclexplode(c.relacl) a WHERE {user}",
    "schemas": "SELECT nspname, pg_get_userbyid(nspowner), nspacl::text FROM pg_namespace n WHERE {user}",
    "large objects": "SELECT oid::bigint, lo_get(oid), pg_get_userbyid(lomowner), obj_description(oid,"
    " 'pg_largeobject') FROM pg_largeobject_metadata",
    "default grants": "SELECT defaclrole::regrole::text, defaclobjtype, defaclacl::text FROM pg_default_acl",
    "extensions": "SELECT extname, extversion FROM pg_extension",
}


def catalog(server: lab.Server, database: str) -> dict[str, list[str]]:
    """What the two databases must agree on, as sorted text."""
    user = "n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema')"
    found = {}
    with server.connect(database) as conn:
        conn.execute("SET search_path = pg_catalog")
        for name, query in CATALOG.items():
            text = query.replace("{user}", user).replace("{schemaname}", user.replace("nspname", "schemaname"))
            found[name] = sorted(repr(row) for row in conn.execute(t.cast(t.Any, text)))
    return found


def rows(server: lab.Server, database: str) -> dict[str, list[str]]:
    """All rows of all tables and materialized views, as sorted text."""
    found = {}
    with server.connect(database) as conn:
        conn.execute("SET row_security = off; SET search_path = pg_catalog")
        names = conn.execute(
            "SELECT format('%I.%I', nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid ="
            " relnamespace WHERE relkind IN ('r', 'm') AND relispopulated"
            " AND nspname !~ '^pg_' AND nspname <> 'information_schema'"
        ).fetchall()
        for (name,) in names:
            found[name] = sorted(row[0] for row in conn.execute(t.cast(t.Any, f"SELECT t::text FROM ONLY {name} t")))
    return found


def assert_equal(source: lab.Server, target: lab.Server, database: str) -> None:
    """Catalog and rows of both sides agree; the ledger is dropped first."""
    with target.connect(database) as conn:
        Ledger(conn).drop()
    for reader in (catalog, rows):
        here, there = reader(source, database), reader(target, database)
        assert sorted(here) == sorted(there)
        for part in here:
            assert there[part] == here[part], part


SMALL = {"chunk_bytes": 64 << 10, "jobs": 2, "index_jobs": 2}


def fill(server: lab.Server, database: str, login: t.Any) -> None:
    """Two tables of some megabytes, cut into many chunks by :data:`SMALL`, and one that fits in one."""
    with server.connect(database, login.name, login.password) as conn:
        for name in ("big", "bigger"):
            conn.execute(t.cast(t.Any, f"CREATE TABLE {name} (id int PRIMARY KEY, k int, filler text)"))
            conn.execute(t.cast(t.Any, f"INSERT INTO {name} SELECT i, i % 7, repeat('x', 200) FROM generate_series(1, 8000) i"))
            conn.execute(t.cast(t.Any, f"CREATE INDEX ON {name} (k)"))
        conn.execute("CREATE TABLE small (id int PRIMARY KEY REFERENCES big)")
        conn.execute("INSERT INTO small SELECT generate_series(1, 10)")


def chunked(spec_factory: t.Any, database: str, name: str, **options: t.Any) -> MigrationSpec:
    """A specification whose copy is cut into many chunks, with further ``options`` of the copy."""
    spec: MigrationSpec = spec_factory(name, [database])
    return type(spec).from_dict({**spec.public(), "copy": {**spec.public()["copy"], **SMALL, **options}, **secrets(spec)})


def secrets(spec: MigrationSpec) -> dict[str, t.Any]:
    """Both endpoints with their passwords, for a specification that is made again."""
    ends = {}
    for side, end in (("source", spec.source), ("target", spec.target)):
        ends[side] = {k: v for k, v in {**end.public(), "password": end.password}.items() if k != "side"}
    return ends


def ledger(server: lab.Server, database: str) -> dict[str, set[int]]:
    """Start LSNs by relation of the chunks that are done."""
    with server.connect(database) as conn:
        lsns: dict[str, set[int]] = {}
        for chunk in Ledger(conn).chunks():
            lsns.setdefault(chunk.relation, set()).add(chunk.start_lsn)
    return lsns
