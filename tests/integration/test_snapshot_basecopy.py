# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The base copy against real servers: a schema with one of everything, target administrator without superuser rights."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import typing as t
from pathlib import Path

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import Conflict, CopyError
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.ledger import Ledger
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.catalog import read_tables
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.lsn import parse_lsn
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot import basecopy, plan
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.basecopy import BaseCopy, CopyJob
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.finish import refresh_matviews
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.largeobjects import sync_differences
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.target import prepare_target
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.tools import connection_string, environment, password_file
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec

RICH = (Path(__file__).parent / "snapshot_rich.sql").read_text(encoding="utf-8")


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
        self.closed += 1
        self.conn.close()


@pytest.fixture
def members(source: lab.Server, target: lab.Server) -> None:
    """The roles that the globals would have made: owners of whom the administrator is a member, and a grantee."""
    for server in (source, target):
        for role in ("app", "Sales Team", "reader"):
            if not server.execute(f"SELECT 1 FROM pg_roles WHERE rolname = '{role}'"):
                server.create_role(role)
    target.execute('GRANT app, "Sales Team", reader TO admin')
    source.execute('GRANT "Sales Team" TO migrator; GRANT "Sales Team" TO app')


def copy(
    spec: MigrationSpec, database: str, workdir: Path, held: Held, stop: threading.Event | None = None, **options: t.Any
) -> dict[str, t.Any]:
    reports: list[dict[str, t.Any]] = []
    job = CopyJob(spec, database, workdir, held.snapshot, held.consistent_point)
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
    " k.conrelid::regclass::text FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace WHERE {user}",
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


def test_rich_schema(
    source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Any, members: None, tmp_path: Path, owner: t.Any
) -> None:
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute(t.cast(t.Any, RICH))
    spec = spec_factory("rich", [source_database])
    held = Held(source, source_database)
    prepare_target(spec, source_database)
    source.execute("INSERT INTO shop.customer (name) VALUES ('after the snapshot')", source_database)
    result = copy(spec, source_database, tmp_path, held)
    assert held.closed == 1
    source.execute("DELETE FROM shop.customer WHERE name = 'after the snapshot'", source_database)
    assert_equal(source, target, source_database)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")], "password or script files are left"
    formats = {item["table"]: item["format"] for item in result["tables"]}
    assert formats["shop.customer"] == "binary" and formats["shop.odd"] == "text"
    notes = " ".join(result["notes"])
    assert "ublication" in notes
    last: dict[str, t.Any] = {}
    for report in result["reports"]:
        last.update(report)
    assert (
        last["step"] == "done"
        and last["tables_complete"] > 0
        and last["tables_queued"] == last["tables_loading"] == last["tables_errored"] == 0
    )
    assert (
        last["indexes_done"] == last["indexes_total"] > 0
        and last["bytes_done"] == last["bytes_total"]
        and last["chunks_done"] == last["chunks_total"]
    )
    assert target.execute("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()", source_database) == [
        ("app",)
    ]


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


def chunked(spec_factory: t.Any, database: str, name: str) -> MigrationSpec:
    spec: MigrationSpec = spec_factory(name, [database])
    return type(spec).from_dict({**spec.public(), "copy": {**spec.public()["copy"], **SMALL}, **_secrets(spec)})


def _secrets(spec: MigrationSpec) -> dict[str, t.Any]:
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


def test_stop_in_the_copy_and_resume_under_a_new_snapshot(
    source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Any, members: None, tmp_path: Path, owner: t.Any
) -> None:
    fill(source, source_database, owner)
    spec = chunked(spec_factory, source_database, "resume")
    prepare_target(spec, source_database)
    stop = threading.Event()

    def stop_in_the_middle(figures: dict[str, t.Any]) -> None:
        if figures.get("rows_done", 0) > 0:
            stop.set()

    first = Held(source, source_database)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.progress.INTERVAL", 0)
        result = copy(spec, source_database, tmp_path, first, stop, report=stop_in_the_middle)
    assert result["stopped"] and first.closed == 0, "the next run may take it up"
    first.close()
    half = ledger(target, source_database)
    assert half and len(half) < 3 or any(lsns for lsns in half.values())

    source.execute(
        "UPDATE big SET k = k + 1; DELETE FROM bigger WHERE id % 2 = 0; INSERT INTO bigger SELECT generate_series(10001, 10100), 1, 'new'",
        source_database,
    )
    prepare_target(spec, source_database)  # accepted: ours, schema done
    second = Held(source, source_database)
    result = copy(spec, source_database, tmp_path, second)
    assert not result["stopped"]
    after = ledger(target, source_database)
    assert all(len(lsns) == 1 for lsns in after.values()), "chunks of one table from two snapshots"
    assert second.consistent_point in after['"public"."bigger"'] | after['"public"."big"']
    third = copy(spec, source_database, tmp_path, Held(source, source_database))
    assert third["tables"] == [], "nothing was left to copy"
    finished = [name for name, lsns in after.items() if lsns == {second.consistent_point}]
    if len(finished) == 3:
        assert_equal(source, target, source_database)


KILLED = """
import json, sys, threading
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot import relay
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.basecopy import BaseCopy, CopyJob
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
told = json.load(sys.stdin)
job = CopyJob(MigrationSpec.from_dict(told["spec"]), told["database"], Path(told["workdir"]), told["snapshot"], told["lsn"])
BaseCopy(job, lambda figures: print(json.dumps(figures), flush=True), lambda: None, threading.Event()).run()
"""


@pytest.mark.parametrize("at", ["schema", "copy", "rows", "indexes", "constraints", "finish"])
def test_killed_and_run_again(
    at: str, source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Any, members: None, tmp_path: Path, owner: t.Any
) -> None:
    """SIGKILL at each step: the next run, under another snapshot, ends with the same database."""
    fill(source, source_database, owner)
    spec = chunked(spec_factory, source_database, "killed")
    prepare_target(spec, source_database)
    first = Held(source, source_database)
    public = {**spec.public(), **_secrets(spec)}
    told = {
        "spec": public,
        "database": source_database,
        "workdir": str(tmp_path),
        "snapshot": first.snapshot,
        "lsn": first.consistent_point,
    }
    root = next(entry for entry in sys.path if entry.endswith("link"))
    with subprocess.Popen([sys.executable, "-c", KILLED, root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin and child.stdout
        child.stdin.write(json.dumps(told))
        child.stdin.close()
        for line in child.stdout:
            figures = json.loads(line)
            if figures.get("step") == at or (at == "rows" and figures.get("rows_done")):
                break
        child.kill()
    first.close()
    prepare_target(spec, source_database)
    copy(spec, source_database, tmp_path, Held(source, source_database))
    assert_equal(source, target, source_database)


def test_truncated_table_gets_another_snapshot(
    source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Any, members: None, tmp_path: Path, owner: t.Any
) -> None:
    fill(source, source_database, owner)
    spec = chunked(spec_factory, source_database, "renewed")
    prepare_target(spec, source_database)
    held = Held(source, source_database)
    source.execute("TRUNCATE small; INSERT INTO small VALUES (1)", source_database)
    made: list[Held] = []

    def renew() -> Held:
        made.append(Held(source, source_database))
        return made[-1]

    with pytest.raises(CopyError, match="emptied or rewritten") as caught:
        copy(spec, source_database, tmp_path, held)
    assert caught.value.code == "PGM3009" and "public.small" in str(caught.value)
    held = Held(source, source_database)
    source.execute("TRUNCATE small; INSERT INTO small VALUES (2)", source_database)
    result = copy(spec, source_database, tmp_path, held, renew=renew)
    assert len(made) == 1 and made[0].closed == 1 and held.closed == 1
    assert ledger(target, source_database)['"public"."small"'] == {made[0].consistent_point}
    assert any("small" in note for note in result["notes"])
    assert_equal(source, target, source_database)


def test_lost_snapshot(
    source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Any, tmp_path: Path, owner: t.Any, members: None
) -> None:
    fill(source, source_database, owner)
    spec = chunked(spec_factory, source_database, "lost")
    prepare_target(spec, source_database)
    held = Held(source, source_database)
    held.conn.close()
    with pytest.raises(CopyError) as caught:
        copy(spec, source_database, tmp_path, held)
    assert caught.value.code == "PGM3008"
    copy(spec, source_database, tmp_path, Held(source, source_database))
    assert_equal(source, target, source_database)


def test_existing_database_is_not_touched(source: lab.Server, target: lab.Server, target_database: str, spec_factory: t.Any) -> None:
    target.execute("CREATE TABLE precious ()", target_database)
    with pytest.raises(Conflict) as caught:
        prepare_target(spec_factory("conflict", [target_database]), target_database)
    assert caught.value.code == "PGM3001" and caught.value.details["azure_code"] == "603101"
    with target.connect(target_database) as conn:
        Ledger(conn).create("somebody-else")
    with pytest.raises(Conflict, match="another user|somebody-else"):
        prepare_target(spec_factory("conflict", [target_database]), target_database)
    assert target.execute("SELECT to_regclass('public.precious')::text", target_database) == [("precious",)]


def test_half_made_database_is_made_anew(source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Any) -> None:
    spec = spec_factory("half", [source_database])
    prepare_target(spec, source_database)
    target.execute("CREATE TABLE left_over ()", source_database)
    prepare_target(spec, source_database)
    assert target.execute("SELECT to_regclass('public.left_over')::text", source_database) == [(None,)]
    with target.connect(source_database) as conn:
        assert Ledger(conn).owner() == spec.key


def test_row_security_that_hides_rows_is_refused(
    source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Any, members: None, tmp_path: Path, owner: t.Any
) -> None:
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute(
            "CREATE TABLE hidden (id int); INSERT INTO hidden VALUES (1); ALTER TABLE hidden ENABLE ROW LEVEL"
            " SECURITY, FORCE ROW LEVEL SECURITY"
        )
    spec = spec_factory("rls", [source_database])
    prepare_target(spec, source_database)
    with pytest.raises(CopyError) as caught:
        copy(spec, source_database, tmp_path, Held(source, source_database))
    assert caught.value.code == "PGM3011" and "hidden" in str(caught.value) and caught.value.sqlstate == "42501"


def test_missing_role_is_named_before_anything_is_made(
    source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Any, tmp_path: Path, members: None
) -> None:
    source.create_role("only_here")
    try:
        source.execute("CREATE TABLE given (id int); GRANT SELECT ON given TO only_here", source_database)
        spec = spec_factory("missing-role", [source_database])
        prepare_target(spec, source_database)
        with pytest.raises(CopyError, match="only_here") as caught:
            copy(spec, source_database, tmp_path, Held(source, source_database))
        assert caught.value.code == "PGM3005"
    finally:
        source.execute("DROP OWNED BY only_here", source_database)
        source.execute("DROP ROLE only_here")


def test_objects_of_the_superuser_go_to_the_administrator(
    source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Any, tmp_path: Path, members: None
) -> None:
    source.execute("CREATE TABLE given (id int PRIMARY KEY); INSERT INTO given VALUES (1); GRANT SELECT ON given TO app", source_database)
    spec = spec_factory("superuser", [source_database])
    prepare_target(spec, source_database)
    result = copy(spec, source_database, tmp_path, Held(source, source_database))
    assert target.execute(
        "SELECT relowner::regrole::text, has_table_privilege('app', oid, 'SELECT') FROM pg_class WHERE relname = 'given'", source_database
    ) == [("admin", True)]
    assert any("postgres" in note for note in result["notes"])


def test_index_on_duplicates_fails_clearly_and_resumes(
    source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Any, members: None, tmp_path: Path, owner: t.Any
) -> None:
    """As after a change of collation: the target refuses what the source's index let in."""
    fill(source, source_database, owner)
    spec = chunked(spec_factory, source_database, "duplicate")
    prepare_target(spec, source_database)
    held = Held(source, source_database)
    with pytest.MonkeyPatch.context() as patch:
        original = basecopy.SchemaCopy.apply_pre_data

        def doubled(self: t.Any) -> None:
            original(self)
            target.execute("CREATE FUNCTION twice() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.id := 1; RETURN NEW; END $$;"
                           " CREATE TRIGGER twice BEFORE INSERT ON small FOR EACH ROW EXECUTE FUNCTION twice();"
                           " ALTER TABLE small ENABLE ALWAYS TRIGGER twice", source_database)  # fmt: skip

        patch.setattr(basecopy.SchemaCopy, "apply_pre_data", doubled)
        with pytest.raises(CopyError) as caught:
            copy(spec, source_database, tmp_path, held)
    assert caught.value.sqlstate == "23505" and "public.small" in str(caught.value)
    target.execute("DROP FUNCTION twice CASCADE; DELETE FROM small; INSERT INTO small SELECT generate_series(1, 10)", source_database)
    copy(spec, source_database, tmp_path, Held(source, source_database))
    assert_equal(source, target, source_database)


def test_large_objects_and_views_at_the_cutover(
    source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Any, members: None, tmp_path: Path, owner: t.Any
) -> None:
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute("SELECT lo_from_bytea(1001, 'same'), lo_from_bytea(1002, 'old'), lo_from_bytea(1003, 'goes')")
        conn.execute("CREATE TABLE numbers (n int PRIMARY KEY); CREATE MATERIALIZED VIEW total AS SELECT sum(n) FROM numbers")
    spec = spec_factory("objects", [source_database])
    prepare_target(spec, source_database)
    copy(spec, source_database, tmp_path, Held(source, source_database))
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute("SELECT lo_put(1002, 0, 'new and longer'), lo_unlink(1003), lo_from_bytea(1004, 'fresh')")
        conn.execute("COMMENT ON LARGE OBJECT 1001 IS 'said later'")
        conn.execute("INSERT INTO numbers VALUES (42); REFRESH MATERIALIZED VIEW total")
    target.execute("INSERT INTO numbers VALUES (42)", source_database)
    ends = (source, "migrator"), (target, "admin")
    passwords = {"migrator": spec.source.password, "admin": spec.target.password}
    here, there = (server.connect(source_database, user, passwords[user]) for server, user in ends)
    with here, there:
        assert sync_differences(here, there) == 4
        assert sync_differences(here, there) == 0
        assert refresh_matviews(there) == 1
    assert_equal(source, target, source_database)


def test_key_histogram_partitions_a_table(source: lab.Server, source_database: str) -> None:
    """The plan for servers before 14: every row in exactly one chunk, also with negative and skewed keys and odd collations."""
    numbers = "CREATE TABLE numbers (k bigint PRIMARY KEY)"
    some = "INSERT INTO numbers SELECT (random() ^ 5 * 1e9)::bigint * (i % 2 * 2 - 1) + i FROM generate_series(1, 5000) i"
    some += " ON CONFLICT DO NOTHING"
    words = "CREATE TABLE words (a text, b int, PRIMARY KEY (a, b))"
    more = "INSERT INTO words SELECT chr(30 + i % 600) || 'é''\\', i FROM generate_series(1, 3000) i"
    source.execute("; ".join([numbers, some, words, more, "ANALYZE"]), source_database)
    with source.connect(source_database) as conn:
        tables = {table.name: table for table in read_tables(conn)}
        for name in ("numbers", "words"):
            conditions = plan.key_conditions(conn, tables[name], 7)
            assert len(conditions) >= 5
            counts = [conn.execute(t.cast(t.Any, f"SELECT count(*) FROM ONLY {name} WHERE {c}")).fetchone() for c in conditions]
            whole = conn.execute(t.cast(t.Any, f"SELECT count(*) FROM {name}")).fetchone()
            assert sum(c[0] for c in counts if c) == (whole or (0,))[0]


def test_wrong_tools(
    source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Any, tmp_path: Path, members: None
) -> None:
    spec = spec_factory("tools", [source_database], copy={"bindir": str(tmp_path)})
    prepare_target(spec, source_database)
    with pytest.raises(CopyError) as caught:
        copy(spec, source_database, tmp_path, Held(source, source_database))
    assert caught.value.code == "PGM3002"


def test_password_is_in_no_command_line(spec_factory: t.Any, source_database: str, tmp_path: Path) -> None:
    spec = spec_factory("argv", [source_database])
    with password_file(spec.source, tmp_path) as passfile:
        assert passfile.stat().st_mode & 0o777 == 0o600
        assert spec.source.password in passfile.read_text()
        assert spec.source.password not in connection_string(spec.source, source_database, passfile)
    assert not passfile.exists()
    assert not [k for k in environment() if k.startswith("PG")]
