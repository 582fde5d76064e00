# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Triggers, rules, foreign keys and row security of the target: they rest while changes are applied, and are as before at the cutover."""

from __future__ import annotations

import typing as t

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.quiet import restore, validate_restored
from changelab import PLUGINS, Start, StreamLab, same

DDL = """
CREATE TABLE t (id int PRIMARY KEY, v int);
CREATE TABLE audit (id serial PRIMARY KEY, t int);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.audit (t) VALUES (new.id); RETURN new; END';
CREATE TRIGGER plain AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER always AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION note();
ALTER TABLE t ENABLE ALWAYS TRIGGER always;
CREATE TRIGGER replica AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION note();
ALTER TABLE t ENABLE REPLICA TRIGGER replica;
CREATE TRIGGER never AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION note();
ALTER TABLE t DISABLE TRIGGER never;
CREATE TABLE ruled (id int PRIMARY KEY, v int);
CREATE TABLE part (id int, r text, PRIMARY KEY (id, r)) PARTITION BY LIST (r);
CREATE TABLE part_a PARTITION OF part FOR VALUES IN ('a');
CREATE TRIGGER always AFTER INSERT ON part FOR EACH ROW EXECUTE FUNCTION note();
ALTER TABLE part_a ENABLE ALWAYS TRIGGER always;
CREATE TABLE parent (id int PRIMARY KEY, up int REFERENCES parent);
CREATE TABLE child (id int PRIMARY KEY, parent int, CONSTRAINT "to Parent" FOREIGN KEY (parent) REFERENCES parent ON DELETE CASCADE);
COMMENT ON CONSTRAINT "to Parent" ON child IS 'it''s ours';
ALTER TABLE child ADD CONSTRAINT loose FOREIGN KEY (id) REFERENCES parent NOT VALID;
CREATE TABLE secret (id int PRIMARY KEY, v int);
ALTER TABLE secret ENABLE ROW LEVEL SECURITY; ALTER TABLE secret FORCE ROW LEVEL SECURITY;
CREATE POLICY nobody ON secret USING (false);
"""
RULE = "CREATE RULE twice AS ON UPDATE TO ruled DO ALSO INSERT INTO ruled VALUES (new.id + 1000, 0)"
SCHEMA = (
    "SELECT tgrelid::regclass::text, tgname, tgenabled::text FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1, 2",
    "SELECT ev_class::regclass::text, rulename, ev_enabled::text FROM pg_rewrite WHERE ev_class > 16384 ORDER BY 1, 2",
    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated, obj_description(oid, 'pg_constraint')"
    " FROM pg_constraint WHERE contype = 'f' ORDER BY 1, 2",
    "SELECT relname, relforcerowsecurity FROM pg_class WHERE relname = 'secret'",
)


def schema(stream: StreamLab) -> list[list[t.Any]]:
    """What may rest, as it is on the target."""
    with stream.there() as conn:  # type: ignore[attr-defined]
        return [conn.execute(query.encode()).fetchall() for query in SCHEMA]


def work(stream: StreamLab, base: int) -> None:
    """Changes that each trigger, rule and key would notice."""
    with stream.app() as conn:  # type: ignore[attr-defined]
        conn.execute("ALTER TABLE secret NO FORCE ROW LEVEL SECURITY")
        conn.execute(f"INSERT INTO t SELECT {base} + g, 0 FROM generate_series(1, 40) g; INSERT INTO part VALUES ({base}, 'a')")
        conn.execute(f"INSERT INTO ruled VALUES ({base}, 0); UPDATE ruled SET v = v + 1; INSERT INTO secret VALUES ({base}, 1)")
        conn.execute(f"INSERT INTO parent VALUES ({base}, {base}); INSERT INTO child VALUES ({base}, {base})")
        conn.execute("UPDATE secret SET v = v + 1")
        conn.execute(f"DELETE FROM parent WHERE id = {base - 100}")


@pytest.fixture(params=["granted", "refused"])
def replica(request: pytest.FixtureRequest, target: lab.Server) -> t.Iterator[str]:
    """May the target's user set ``session_replication_role``?"""
    if target.major < 15 and request.param == "granted":
        pytest.skip("only superusers may, before version 15")
    if request.param == "refused" and target.major >= 15:
        target.execute("REVOKE SET ON PARAMETER session_replication_role FROM admin")
    yield request.param
    if request.param == "refused" and target.major >= 15:
        target.execute("GRANT SET ON PARAMETER session_replication_role TO admin")


@pytest.mark.parametrize("plugin", PLUGINS)
def test_they_rest_and_come_back(streaming: Start, replica: str, plugin: str) -> None:
    """Nothing fires twice, no row is hidden; a cutover that was given back lets them rest again; afterwards all is as it was."""
    stream = streaming(plugin, DDL, running=False, target_ddl=f"{DDL}; {RULE}; ALTER TABLE ruled ENABLE ALWAYS RULE twice", on_ddl="ignore")
    before = schema(stream)
    stream.start()
    work(stream, 1000)
    same(stream)
    assert schema(stream) != before
    stream.stream.hold_at("held")  # type: ignore[union-attr]
    with stream.app() as conn:  # type: ignore[attr-defined]
        conn.execute("SELECT pg_logical_emit_message(true, 'pgm.marker', 'held')")
    stream.stream.wait_marker("held", 0, 30)  # type: ignore[union-attr]
    with stream.there() as conn:  # type: ignore[attr-defined]
        conn.execute("SET search_path = pg_catalog")
        assert restore(conn) > 0
        assert restore(conn) == 0
    stream.stream.hold_at(None)  # type: ignore[union-attr]
    work(stream, 1100)
    same(stream)
    with stream.there() as conn:  # type: ignore[attr-defined]
        conn.execute("SET search_path = pg_catalog")
        restore(conn)
        assert validate_restored(conn) == []
    assert schema(stream) == before


def test_a_key_that_does_not_hold_is_told(streaming: Start, target: lab.Server) -> None:
    """A row without its parent, which the source cannot have: the key stays NOT VALID and is named."""
    if target.major >= 15:
        target.execute("REVOKE SET ON PARAMETER session_replication_role FROM admin")
    try:
        stream = streaming("pgoutput", DDL)
        stream.drain()
        with stream.there() as conn:  # type: ignore[attr-defined]
            conn.execute("INSERT INTO child VALUES (1, 99)")
            conn.execute("SET search_path = pg_catalog")
            restore(conn)
            told = validate_restored(conn)
        assert len(told) == 1 and "to Parent" in told[0]
    finally:
        if target.major >= 15:
            target.execute("GRANT SET ON PARAMETER session_replication_role TO admin")
