# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Schemas, tables and exclusions: what is chosen arrives whole, what needs the rest is left out by name or refused by name."""

from __future__ import annotations

import typing as t

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import CopyError
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.sequences import MARGIN
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.target import prepare_target
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.runner import validate
from copylab import Held, copy
from host import Host
from pair import PASSWORDS, make_target

SCHEMA = """
CREATE SCHEMA sales; CREATE SCHEMA audit; CREATE SCHEMA kinds;
CREATE TYPE kinds.colour AS ENUM ('red', 'blue');
CREATE FUNCTION audit.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TABLE sales.customer (id serial PRIMARY KEY, name text);
CREATE TABLE sales.invoice (id int PRIMARY KEY, customer int REFERENCES sales.customer, day date);
CREATE TABLE sales.tmp_load (id int PRIMARY KEY, invoice int REFERENCES sales.invoice);
ALTER TABLE sales.invoice ADD COLUMN load int REFERENCES sales.tmp_load;
CREATE TABLE audit.log (id int PRIMARY KEY, customer int REFERENCES sales.customer);
CREATE TABLE kinds.painted (id int PRIMARY KEY, colour kinds.colour);
CREATE TABLE sales.event (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE sales.event_old PARTITION OF sales.event FOR VALUES FROM ('2020-01-01') TO ('2025-01-01');
CREATE TABLE sales.event_new PARTITION OF sales.event FOR VALUES FROM ('2025-01-01') TO ('2030-01-01');
CREATE VIEW sales.logged AS SELECT c.name, l.id FROM sales.customer c JOIN audit.log l ON l.customer = c.id;
CREATE MATERIALIZED VIEW sales.counted AS SELECT count(*) AS n FROM sales.logged;
CREATE UNIQUE INDEX counted_n ON sales.counted (n);
COMMENT ON VIEW sales.logged IS 'goes with it'; COMMENT ON MATERIALIZED VIEW sales.counted IS 'goes with it';
COMMENT ON COLUMN sales.logged.name IS 'goes too'; COMMENT ON COLUMN sales.counted.n IS 'goes too';
GRANT SELECT ON sales.logged TO PUBLIC; COMMENT ON TABLE sales.customer IS 'stays';
CREATE TRIGGER noted BEFORE INSERT ON sales.customer FOR EACH ROW EXECUTE FUNCTION audit.note();
COMMENT ON TRIGGER noted ON sales.customer IS 'goes'; COMMENT ON CONSTRAINT invoice_load_fkey ON sales.invoice IS 'goes';
INSERT INTO sales.customer (name) VALUES ('a'), ('b'); INSERT INTO sales.tmp_load VALUES (1);
INSERT INTO sales.invoice VALUES (1, 1, now(), 1);
INSERT INTO audit.log VALUES (1, 1); INSERT INTO kinds.painted VALUES (1, 'red');
INSERT INTO sales.event VALUES (1, '2024-05-05'), (2, '2026-05-05');
"""

TABLES = "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN"
USERS = "AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgm_migration', 'pg_toast')"


@pytest.fixture
def shop(source: lab.Server, source_database: str, owner: t.Any, members: None) -> str:
    """The database with :data:`SCHEMA`."""
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute(SCHEMA)
    return source_database


def relations(server: lab.Server, database: str, kinds: str = "'r', 'p', 'v', 'm'") -> set[str]:
    return {row[0] for row in server.execute(f"{TABLES} ({kinds}) {USERS}", database)}


def migrate(spec: t.Any, database: str, folder: t.Any, source: lab.Server) -> dict[str, t.Any]:
    prepare_target(spec, database)
    return copy(spec, database, folder, Held(source, database))


def test_exclude_a_schema_and_some_tables(source, target, shop, spec_factory, tmp_path) -> None:
    spec = spec_factory("exclude", [shop], copy={"exclude": ["audit", "sales.tmp_*"]})
    notes = " ".join(migrate(spec, shop, tmp_path, source)["notes"])
    assert relations(target, shop) == {
        "sales.customer", "sales.invoice", "kinds.painted", "sales.event", "sales.event_old", "sales.event_new",
    }  # fmt: skip
    for left_out in ("logged", "counted", "noted", "invoice_load_fkey"):
        assert left_out in notes, left_out
    assert "RI_Constraint" not in notes
    keys = "SELECT conname FROM pg_constraint WHERE contype = 'f' AND conparentid = 0"
    assert target.execute(keys, shop) == [("invoice_customer_fkey",)]
    assert target.execute("SELECT count(*), max(obj_description('sales.customer'::regclass)) FROM sales.customer", shop) == [(2, "stays")]
    assert target.execute("SELECT last_value FROM sales.customer_id_seq", shop) == [(2 + MARGIN,)], "ahead until the cutover"


def test_tables_by_pattern_bring_their_partitions(source, target, shop, spec_factory, tmp_path) -> None:
    spec = spec_factory("tables", [shop], copy={"tables": ["sales.event", "sales.cust*"], "exclude": ["sales.event_old"]})
    migrate(spec, shop, tmp_path, source)
    assert relations(target, shop) == {"sales.customer", "sales.event", "sales.event_new"}
    assert target.execute("SELECT id FROM sales.event", shop) == [(2,)]


def test_what_a_chosen_table_needs_is_named(source, target, shop, spec_factory, tmp_path) -> None:
    source.execute("ALTER TABLE sales.customer ADD COLUMN colour kinds.colour", shop)
    with pytest.raises(CopyError) as caught:
        migrate(spec_factory("needs", [shop], copy={"schemas": ["sales", "audit"]}), shop, tmp_path, source)
    assert caught.value.code == "PGM3015" and "sales.customer" in str(caught.value) and caught.value.hint


def test_nothing_chosen_is_refused(source, target, shop, spec_factory, tmp_path) -> None:
    with pytest.raises(CopyError) as caught:
        migrate(spec_factory("nothing", [shop], copy={"schemas": ["salse"]}), shop, tmp_path, source)
    assert caught.value.code == "PGM3016"


CLOSED = """
CREATE TABLE audit.trail (at timestamptz, who text); INSERT INTO audit.trail VALUES (now(), 'x');
CREATE SEQUENCE audit.trail_seq; CREATE TABLE audit.odd (n double precision DEFAULT 'NaN', id serial);
ALTER TABLE audit.log ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; ALTER TABLE sales.tmp_load DROP CONSTRAINT tmp_load_pkey CASCADE;
CREATE TRIGGER always AFTER INSERT ON audit.trail FOR EACH ROW EXECUTE FUNCTION audit.note();
ALTER TABLE audit.trail ENABLE ALWAYS TRIGGER always; INSERT INTO audit.odd DEFAULT VALUES;
"""
"""What stands in the way of a migration of everything, all of it in ``audit`` and ``sales.tmp_load``."""

OF_OTHERS = """
CREATE ROLE auditor; CREATE SCHEMA IF NOT EXISTS audit; ALTER SCHEMA audit OWNER TO auditor;
ALTER TABLE audit.trail OWNER TO auditor; ALTER TABLE audit.log OWNER TO auditor; ALTER SEQUENCE audit.trail_seq OWNER TO auditor;
CREATE FUNCTION audit.plus(int, int) RETURNS int LANGUAGE internal AS 'int4pl'; CREATE UNLOGGED TABLE audit.cache (i int);
REVOKE pg_read_all_data FROM migrator
"""


@pytest.fixture
def closed(source: lab.Server, shop: str, owner: t.Any) -> t.Iterator[str]:
    """The database with a schema and a table that can neither be read nor streamed."""
    with source.connect(shop, owner.name, owner.password) as conn:
        conn.execute(CLOSED)
    source.execute(OF_OTHERS, shop)
    yield shop
    source.execute("DROP OWNED BY auditor CASCADE; GRANT pg_read_all_data TO migrator", shop)
    source.execute("DROP ROLE auditor")


LOOKED_INTO = {"PGM2203", "PGM2205", "PGM2207", "PGM2301", "PGM2302", "PGM2309", "PGM2314", "PGM2502"}


def test_what_is_left_out_is_no_finding(closed: str, spec_factory: t.Any) -> None:
    """The validation looks at what is chosen; without the exclusion it finds all of it."""
    chosen = {"exclude": ["audit", "sales.tmp_*"]}
    options = {"changes": {"plugin": "pgoutput"}, "rollback": "prepared"}
    everything = validate(spec_factory("all", [closed], **options), only=[*LOOKED_INTO, "PGM2217"])
    found = {f.code for f in everything.findings if f.severity != "Succeeded" and ("audit" in f.message or "auditor" in f.message)}
    assert found == {*LOOKED_INTO, "PGM2217"}
    report = validate(spec_factory("part", [closed], copy=chosen, **options))
    assert [f.message for f in report.findings if "audit" in f"{f.message} {f.object}" or "tmp_load" in f.message] == []
    assert {f.code for f in report.findings if f.severity == "Failed"} <= {"PGM2216"}, report.table()


@pytest.mark.parametrize("plugin", ["wal2json", "pgoutput"])
def test_what_is_left_out_stands_in_no_way(plugin, source, closed, owner, spec_factory, tmp_path_factory) -> None:
    """``validate_and_migrate`` of a database with a schema that can neither be read nor streamed, and is left out."""
    host, target = Host(tmp_path_factory.mktemp("runtime")), make_target()
    try:
        address = {"port": target.port, "password": PASSWORDS[target.port]}
        options = {"exclude": ["audit", "sales.tmp_*"]}
        spec = spec_factory("closed", [closed], option="validate_and_migrate", changes={"plugin": plugin}, copy=options, target=address)
        host.manager.start(spec)
        host.until_waiting(spec.key)
        source.execute("INSERT INTO audit.trail VALUES (now(), 'y')", closed)
        with source.connect(closed, owner.name, owner.password) as conn:
            conn.execute("INSERT INTO sales.customer (name) VALUES ('c')")
        status = host.cut_over(spec.key)
        assert status["verification"]["equal"] and status["verification"]["complete"]
        assert target.execute("SELECT name FROM sales.customer ORDER BY 1", closed) == [("a",), ("b",), ("c",)]
        assert not {name for name in relations(target, closed) if name.startswith("audit")}
    finally:
        host.close()
        target.drop()


@pytest.mark.parametrize("plugin", ["wal2json", "pgoutput", "test_decoding"])
def test_the_stream_has_the_same_filter(plugin, source, shop, owner, spec_factory, tmp_path_factory) -> None:
    """Changes of tables that are left out do not disturb; the others arrive, and the proof is complete."""
    host, target = Host(tmp_path_factory.mktemp("runtime")), make_target()
    try:
        address = {"port": target.port, "password": PASSWORDS[target.port]}
        options = {"exclude": ["audit", "sales.tmp_*"]}
        spec = spec_factory("stream", [shop], changes={"plugin": plugin}, copy=options, target=address)
        host.manager.start(spec)
        host.until_waiting(spec.key)
        with source.connect(shop, owner.name, owner.password) as conn:
            conn.execute(
                "INSERT INTO audit.log VALUES (2, 2); INSERT INTO sales.tmp_load VALUES (2); INSERT INTO sales.invoice VALUES (2, 2)"
            )
        status = host.cut_over(spec.key)
        assert status["verification"]["equal"] and status["verification"]["complete"]
        assert target.execute("SELECT id FROM sales.invoice ORDER BY 1", shop) == [(1,), (2,)]
        assert "audit.log" not in relations(target, shop)
    finally:
        host.close()
        target.drop()
