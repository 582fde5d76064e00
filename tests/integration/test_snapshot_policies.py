# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Unlogged and foreign tables, each by its policy: what is copied, when, and what is left out by name."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import SpecificationError
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.target import prepare_target
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.runner import validate
from ansible_collections.pgops.migration.plugins.module_utils._engine.verify.compare import verify_database
from ansible_collections.pgops.migration.plugins.module_utils._engine.verify.live import verify_live
from copylab import Held, assert_equal, copy
from host import Host, run_whole
from pair import PASSWORDS, describe, make_azure_target, make_target

UNLOGGED = """
CREATE TABLE kept (id int PRIMARY KEY, what text); INSERT INTO kept VALUES (1, 'a');
CREATE UNLOGGED TABLE cache (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text,
    loud text GENERATED ALWAYS AS (upper(what)) STORED);
CREATE UNLOGGED TABLE item (id int PRIMARY KEY, cache int REFERENCES cache, touched int NOT NULL DEFAULT 0);
CREATE UNLOGGED TABLE emptied (id int);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.touched := NEW.touched + 1; RETURN NEW; END $$;
CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON item FOR EACH ROW EXECUTE FUNCTION touch();
CREATE INDEX ON cache (loud);
INSERT INTO cache (what) SELECT 'x' || i FROM generate_series(1, 500) i; INSERT INTO item SELECT i, i FROM generate_series(1, 100) i;
INSERT INTO emptied VALUES (1), (2);
"""

WRITTEN_SINCE = """
DELETE FROM item WHERE id > 50; DELETE FROM cache WHERE id > 400; UPDATE cache SET what = 'later' WHERE id <= 10;
INSERT INTO cache (what) VALUES ('new'), (E'odd\\tand\\\\n'), (NULL); UPDATE item SET cache = 501 WHERE id = 1; DELETE FROM emptied;
INSERT INTO kept VALUES (2, 'b');
"""

FOREIGN = """
CREATE EXTENSION postgres_fdw; CREATE SERVER away FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'nowhere');
COMMENT ON SERVER away IS 'goes too'; GRANT USAGE ON FOREIGN SERVER away TO PUBLIC;
CREATE USER MAPPING FOR PUBLIC SERVER away OPTIONS (user 'x', password 'not to be known');
CREATE FOREIGN DATA WRAPPER homemade; COMMENT ON FOREIGN DATA WRAPPER homemade IS 'goes too';
CREATE FOREIGN TABLE far (i int DEFAULT 7, note text) SERVER away; COMMENT ON FOREIGN TABLE far IS 'goes too';
COMMENT ON COLUMN far.note IS 'goes too'; GRANT SELECT ON far TO PUBLIC;
CREATE VIEW from_far AS SELECT i FROM far; CREATE TABLE near (i int PRIMARY KEY); INSERT INTO near VALUES (1);
CREATE TABLE parted (i int) PARTITION BY RANGE (i); CREATE TABLE parted_near PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE FOREIGN TABLE parted_far PARTITION OF parted FOR VALUES FROM (10) TO (20) SERVER away; INSERT INTO parted VALUES (3);
"""


def settled(target: lab.Server, database: str) -> None:
    """Wait until the row that was written last, to a logged table, is on the target."""
    limit = time.monotonic() + 60
    while target.execute("SELECT count(*) FROM kept", database) != [(2,)]:
        if time.monotonic() > limit:
            raise AssertionError("the stream does not move")
        time.sleep(0.05)


def test_unlogged_rows_are_copied_again_at_the_cutover(source, owner, source_database, spec_factory, tmp_path_factory) -> None:
    """B15: what was written to them since the copy is on the target when the writers come, without triggers and with foreign keys; the
    proof counts them. A live comparison before makes no false alarm of them, and a cutover that has no time for them is given back."""
    host, target = Host(tmp_path_factory.mktemp("runtime")), make_target()
    try:
        with source.connect(source_database, owner.name, owner.password) as conn:
            conn.execute(UNLOGGED)
        address = {"port": target.port, "password": PASSWORDS[target.port]}
        spec = spec_factory("unlogged", [source_database], option="migrate", target=address)
        host.manager.start(spec)
        host.until_waiting(spec.key)
        assert target.execute("SELECT count(*) FROM cache", source_database) == [(500,)]
        with source.connect(source_database, owner.name, owner.password) as conn:
            conn.execute(WRITTEN_SINCE)
        live = verify_live(spec, source_database, lambda: settled(target, source_database))
        assert live.equal
        assert [table.label for table in live.tables if not table.compared] == [
            "public.cache",
            "public.emptied",
            "public.item",
        ]
        with target.connect(source_database) as reader:
            reader.execute("BEGIN; LOCK TABLE public.item IN ACCESS SHARE MODE")
            given_back = host.try_cutover(spec.key, max_pause=8)["cutover"]["given_back"]
            assert given_back["code"] == "PGM5118", given_back
            assert target.execute("SELECT count(*) FROM cache", source_database) == [(500,)], "all of them are as they were"
        host.until_waiting(spec.key)
        status = host.cut_over(spec.key)
        assert status["verification"]["equal"] and status["verification"]["complete"]
        proven = {table["label"]: table for table in status["verification"]["databases"][source_database]["tables"]}
        assert proven["public.cache"]["rows_source"] == 403 and proven["public.item"]["rows_target"] == 50
        complete = next(phase for phase in status["cutover"]["phases"] if phase["name"] == "complete")
        assert "453 unlogged rows" in complete["text"], complete
        assert_equal(source, target, source_database)
        assert target.execute("INSERT INTO item VALUES (60, 5) RETURNING touched", source_database) == [(1,)], "the trigger is back"
    finally:
        host.close()
        target.drop()


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_other_encodings(encoding, host, source, target, owner, database_factory, spec_factory) -> None:
    """SQL_ASCII holds any bytes; copied, streamed and copied again they come as they are, as the letters of another encoding do."""
    database = database_factory(options=f"TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'")
    with source.connect(database, owner.name, owner.password) as conn:
        for kind, name in (("UNLOGGED ", "cache"), ("", "logged")):
            conn.execute(f"CREATE {kind}TABLE public.{name} (id int PRIMARY KEY, word text)".encode())
            conn.execute(f"INSERT INTO public.{name} VALUES (1, E'na\\xefve')".encode())
    spec = spec_factory(encoding.lower().replace("_", "-"), [database], option="migrate")
    host.manager.start(spec)
    host.until_waiting(spec.key)
    with source.connect(database, owner.name, owner.password) as conn:
        for name in ("cache", "logged"):
            conn.execute(f"INSERT INTO public.{name} VALUES (2, E'caf\\xe9')".encode())
            conn.execute(f"UPDATE public.{name} SET word = E'\\xe9t\\xe9' WHERE id = 1".encode())
    host.cut_over(spec.key)
    for name in ("cache", "logged"):
        for server in (source, target):
            found = server.execute(f"SELECT encode(word::bytea, 'hex') FROM public.{name} ORDER BY id", database)
            assert [row[0] if isinstance(row[0], bytes) else row[0].encode() for row in found] == [b"e974e9", b"636166e9"]


def test_unlogged_tables_may_stay_empty(source, target, owner, source_database, spec_factory, members, tmp_path) -> None:
    """They are named, indexed, and no difference of the verification."""
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute(UNLOGGED)
    spec = spec_factory("empty", [source_database], mode="offline", copy={"unlogged_tables": "empty"})
    prepare_target(spec, source_database)
    result = copy(spec, source_database, tmp_path, Held(source, source_database))
    assert any("public.cache, public.emptied, public.item" in note for note in result["notes"]), result["notes"]
    assert {table["table"] for table in result["tables"]} == {"public.kept"}
    assert target.execute("SELECT count(*) FROM cache", source_database) == [(0,)]
    assert target.execute("SELECT count(*) FROM pg_indexes WHERE tablename = 'cache'", source_database) == [(2,)]
    verified = verify_database(spec, source_database)
    assert verified.equal and verified.schema_equal and [table.label for table in verified.tables] == ["public.kept"]


@pytest.mark.parametrize("policy", ["keep", "exclude"])
def test_foreign_tables(policy, source, target, source_database, spec_factory, tmp_path) -> None:
    source.execute(FOREIGN, source_database)
    ends = {
        side: {"user": server.superuser, "password": server.superuser_password} for side, server in (("source", source), ("target", target))
    }
    spec = spec_factory("foreign", [source_database], copy={"foreign_tables": policy}, **ends)
    prepare_target(spec, source_database)
    notes = " ".join(copy(spec, source_database, tmp_path, Held(source, source_database))["notes"])
    kept = target.execute("SELECT relname::text FROM pg_class WHERE relkind = 'f' ORDER BY 1", source_database)
    servers = target.execute("SELECT srvname::text, obj_description(oid, 'pg_foreign_server') FROM pg_foreign_server", source_database)
    verified = verify_database(spec, source_database)
    if policy == "keep":
        assert kept == [("far",), ("parted_far",)] and servers == [("away", "goes too")] and "far" not in notes
        assert verified.schema_equal
    else:
        assert not kept and not servers
        for name in (
            "foreign table public.far",
            "foreign table public.parted_far",
            "server away",
            "user mapping",
            "view public.from_far",
            "wrapper homemade",
            "extension postgres_fdw",
        ):
            assert name in notes, (name, notes)
        assert "not to be known" not in notes
        assert target.execute("SELECT i FROM parted UNION ALL SELECT i FROM near ORDER BY 1", source_database) == [(1,), (3,)]
    assert verified.equal


def test_a_target_without_the_wrapper(source: lab.Server, source_database: str, tmp_path: Path) -> None:
    """Its administrator may not create postgres_fdw: the migration goes through all the same, validation included, and tells what it
    left out. dblink, which has a wrapper too, is used by its functions and stays asked for."""
    host, azure = Host(tmp_path), make_azure_target(extensions="citext")
    try:
        more = "ALTER TABLE parted_near REPLICA IDENTITY FULL; GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO PUBLIC;"
        source.execute(FOREIGN + more + "CREATE EXTENSION dblink", source_database)
        ends = {"source": {"user": source.superuser, "password": source.superuser_password}, "target": {"type": "azure_flexible"}}

        def missing(policy: str) -> str:
            spec = MigrationSpec.from_dict(describe(source, azure, "unwrapped", [source_database], copy={"foreign_tables": policy}, **ends))
            return {f.code: f for f in validate(spec).problems()}["PGM2402"].data["missing"]

        assert missing("keep") == ["dblink", "postgres_fdw"] and missing("exclude") == ["dblink"]
        source.execute("DROP EXTENSION dblink", source_database)
        chosen = describe(source, azure, "unwrapped", [source_database], copy={"foreign_tables": "exclude"}, **ends)
        spec = MigrationSpec.from_dict(chosen)
        assert "PGM2402" not in {f.code for f in validate(spec).problems()}
        status = run_whole(host, spec)
        told = json.dumps(status)
        for name in ("extension postgres_fdw", "server away", "foreign table public.far", "user mapping", "wrapper homemade"):
            assert name in told, (name, status)
        left = "SELECT extname::text FROM pg_extension WHERE extname <> 'plpgsql' UNION ALL SELECT srvname::text FROM pg_foreign_server"
        assert azure.execute(left, source_database) == []
        assert azure.execute("SELECT i FROM parted UNION ALL SELECT i FROM near ORDER BY 1", source_database) == [(1,), (3,)]
    finally:
        host.close()
        azure.drop()


@pytest.mark.parametrize("option", ["unlogged_tables", "foreign_tables"])
def test_wrong_policy(option, spec_factory) -> None:
    with pytest.raises(SpecificationError, match=option):
        spec_factory("wrong", ["x"], copy={option: "perhaps"})
