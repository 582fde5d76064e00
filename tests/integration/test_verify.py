# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The comparison on real servers: equal where it is the same, and the very row where it is not; between every major at hand."""

from __future__ import annotations

import re
import secrets
import subprocess
import threading
import typing as t
from pathlib import Path

import psycopg
import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import VerificationFailed
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from ansible_collections.pgops.migration.plugins.module_utils._engine.verify import compare
from ansible_collections.pgops.migration.plugins.module_utils._engine.verify.canonical import Method
from ansible_collections.pgops.migration.plugins.module_utils._engine.verify.compare import TableResult, VerifyResult, verify_database
from ansible_collections.pgops.migration.plugins.module_utils._engine.verify.sides import CTID_RANGES
from pair import make_source, make_target

TYPES = r'''
CREATE SCHEMA "Sch.ema %s";
CREATE TYPE mood AS ENUM ('sad', 'so "so"', 'happy');
CREATE TYPE "pa ir" AS (n int, "f" float8, t text);
CREATE DOMAIN ratio AS float8 CHECK (VALUE <> 99);
CREATE TYPE floatrange AS RANGE (SUBTYPE = float8);
CREATE TABLE "Sch.ema %s"."every ""type""" (
    id bigint PRIMARY KEY, small int2, n int, flag bool, "text %s" text, vc varchar(9), ch char(5), nm name,
    c "char", num numeric, num2 numeric(9, 2),
    f4 float4, f8 float8, fs float8[], r ratio,
    rs ratio[], p "pa ir", ps "pa ir"[], fr floatrange, d date, t time, tz timetz, ts timestamp,
    tsz timestamptz, iv interval, b bytea, u uuid, j json, jb jsonb, x xml, m mood, ms mood[], i inet, ci cidr, mac macaddr,
    bi bit(3), vb varbit,
    mon money, pt point, bx box, path path, po polygon, ln line, l lseg, ci2 circle, tv tsvector, tq tsquery, ir int4range, nr numrange,
    tr tstzrange, o oid, rc regclass, lsn pg_lsn, snap txid_snapshot, ia int[], ta text[], na numeric[][],
    g bigint GENERATED ALWAYS AS (id * 2) STORED, auto int GENERATED ALWAYS AS IDENTITY);
'''
ROWS = r'''
INSERT INTO "Sch.ema %s"."every ""type""" (id, small, n, flag, "text %s", vc, ch, nm, c, num, num2, f4, f8, fs, r, rs, p, ps, fr, d, t, tz,
    ts, tsz, iv, b, u,
    j, jb, x, m, ms, i, ci, mac, bi, vb, mon, pt, bx, path, po, ln, l, ci2, tv, tq, ir, nr, tr, o, rc, lsn, snap, ia, ta, na)
SELECT g, g % 100, -g, g % 2 = 0, CASE g % 4 WHEN 0 THEN '' WHEN 1 THEN NULL ELSE 'é "' || g || '\' END,
    'v' || g, 'ab', 'name', 'q', 1.00 * g, g / 7.0,
    CASE g % 5 WHEN 0 THEN 'NaN' WHEN 1 THEN '-0' WHEN 2 THEN 'Infinity' WHEN 3 THEN '1e-42' ELSE (0.1 * g)::float4 END,
    CASE g % 5 WHEN 0 THEN 'NaN' WHEN 1 THEN '-0' WHEN 2 THEN '-Infinity' WHEN 3 THEN '5e-324' ELSE 0.1::float8 * g END,
    ARRAY['NaN', '-0', 0.1::float8 + g * 0.2::float8, NULL], 0.3::float8 * g, ARRAY[0.1::float8 * g, NULL]::ratio[],
    ROW(g, 0.1::float8 + 0.2::float8, 'x, "y"')::"pa ir", ARRAY[ROW(g, '-0', NULL)::"pa ir", NULL],
    floatrange(0.1::float8, g + 0.7::float8),
    date '2000-02-29' + g, time '23:59:59.999999', '12:00:00.1+05:30',
    timestamp '1999-12-31 23:59:59.999999' + g * interval '1 us',
    CASE WHEN g % 3 = 0 THEN 'infinity' ELSE timestamptz '2020-01-01 00:00:00.000001+00' + g * interval '1 h' END,
    CASE WHEN g % 2 = 0 THEN interval '1 mon' ELSE interval '30 days' END,
    decode(md5(g::text), 'hex'), md5(g::text)::uuid,
    '{"b" : 1,  "a": [1.0, null]}', jsonb_build_object('n', 1.00, 'g', g), '<a b="c">&lt;</a>', 'so "so"', '{sad,NULL,"so \"so\""}',
    '10.0.0.1/8', '10.0.0.0/8', '08:00:2b:01:02:03', '101', '1100', 12.34, '(-0,0.1)', '((1,2),(3,4.4))', '[(0,0),(1,1.1)]',
    '((0,0),(1,1),(1,0))',
    '{1,2,3.3}',
    '[(0,0),(1,1)]', '<(1,2),3.3>', 'fat:1A cat:2', 'a & b', int4range(g, g + 5), '[1.10,2.0)', '[2020-01-01 00:00+00,)', g,
    'pg_class', '0/16B3748',
    '10:20:10,14,15', '{1,NULL}', '{"",NULL,"NULL"}', '{{1.0,1.00},{2,3}}'
  FROM (SELECT generate_series(1, 300) g ORDER BY random()) s;
INSERT INTO "Sch.ema %s"."every ""type""" (id) VALUES (-1);
'''
SIMPLE = """
CREATE TABLE item (id int PRIMARY KEY, name text, price numeric, at timestamptz);
CREATE TABLE unkeyed (a text, b text);
CREATE TABLE empty_table (a int);
CREATE TABLE nothing ();
CREATE TABLE event (id int, day date NOT NULL, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE event_1 PARTITION OF event FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE event_2 PARTITION OF event DEFAULT;
CREATE TABLE parent (a int); CREATE TABLE child (b int) INHERITS (parent);
CREATE SEQUENCE counter INCREMENT 5; CREATE VIEW names AS SELECT name FROM item; CREATE INDEX item_name ON item (name);
CREATE FUNCTION twice(i int) RETURNS int LANGUAGE sql AS 'SELECT i * 2';
"""
FILLED = """
INSERT INTO item SELECT g, 'item ' || g, g * 1.50, timestamptz '2020-01-01 00:00+00' + g * interval '1 s' FROM generate_series(1, 3000) g;
INSERT INTO unkeyed SELECT 'a' || g % 10, NULLIF('b' || g % 3, 'b1') FROM generate_series(1, 100) g;
INSERT INTO nothing DEFAULT VALUES; INSERT INTO event SELECT g, date '2020-06-01' + g FROM generate_series(1, 500) g;
INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (1, 1), (3, 3); SELECT nextval('counter');
SELECT lo_from_bytea(4711, 'large one'); SELECT lo_from_bytea(4712, '');
"""


def major(folder: Path) -> int:
    """The major version of the installation at ``folder``."""
    shown = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    return int(re.findall(r"\d+", shown)[0])


def pairs() -> list[tuple[Path, Path]]:
    """The oldest installation with each, from 12 on: generated columns are among what is compared (older ones: test_versions.py); and the
    oldest that hashes records with the newest."""
    found = sorted((folder for folder in lab.bindirs() if major(folder) >= 12), key=major)
    hashing = next(folder for folder in found if major(folder) >= 14)
    return list(dict.fromkeys([*((found[0], other) for other in found), (hashing, found[-1])]))


def _knows_xml(server: lab.Server) -> bool:
    try:
        return bool(server.execute("SELECT '<a/>'::xml"))
    except psycopg.errors.FeatureNotSupported:
        return False


class Lab:
    """Two servers and databases of the same name on both."""

    def __init__(self, source: lab.Server, target: lab.Server) -> None:
        self.source, self.target, self.database = source, target, ""
        self.xml = all(_knows_xml(server) for server in (source, target))

    def make(self, source: str, target: str, options: str = "") -> None:
        """A fresh database on both sides, filled by the two scripts; ``options`` for the target's."""
        self.database = f"v{secrets.token_hex(4)}"
        for server, script in ((self.source, source), (self.target, target)):
            if not self.xml:
                script = script.replace("x xml", "x text")
            server.create_database(self.database, "postgres", options if server is self.target else "")
            with server.connect(self.database) as conn:
                # what a dump of a source before 15 brings: there everybody has it from the beginning
                conn.execute("GRANT CREATE ON SCHEMA public TO PUBLIC;" + script)

    def verify(self, **options: t.Any) -> VerifyResult:
        """The comparison as superusers."""
        ends = {
            side: {"host": s.host, "port": s.port, "user": s.superuser, "password": s.superuser_password, "type": "other"}
            for side, s in (("source", self.source), ("target", self.target))
        }
        return verify_database(MigrationSpec.from_dict({"name": "v", "databases": [self.database], **ends}), self.database, **options)


@pytest.fixture(scope="module", params=pairs(), ids=lambda pair: "-".join(str(major(folder)) for folder in pair))
def both(request: pytest.FixtureRequest) -> t.Iterator[Lab]:
    """Servers for one pair of versions."""
    made = Lab(make_source("verify-source", bindir=request.param[0]), make_target("verify-target", bindir=request.param[1]))
    yield made
    made.source.drop()
    made.target.drop()


def table(result: VerifyResult, label: str) -> TableResult:
    """The table ``label`` of ``result``."""
    return next(item for item in result.tables if item.label == label)


def use(method: Method | None, both: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are hashed by ``method``; None: by the one that is chosen."""
    if method is None:
        return
    if method.hashing == "record" and min(both.source.version, both.target.version) < 140000:
        pytest.skip("hash_record_extended() is there from 14 on")
    monkeypatch.setattr(compare, "choose_method", lambda source, target: method)


METHODS = [None, Method("record", True, True), Method("text", True, True), Method("md5", False, True), Method("record", False, False)]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_every_type_is_equal_to_itself_in_any_order(both: Lab, method: Method | None, monkeypatch: pytest.MonkeyPatch) -> None:
    use(method, both, monkeypatch)
    ordered = 'ALTER TABLE "Sch.ema %s"."every ""type""" DROP COLUMN auto'
    both.make(TYPES + ROWS + ordered, TYPES + ROWS + ordered)
    result = both.verify()
    assert result.equal and not result.schema, result.to_dict()
    assert result.rows == 301


CHANGES = [
    (1, '"text %s"', "''"),
    (4, '"text %s"', "NULL"),
    (1, "f8", "0"),
    (1, "f4", "0"),
    (3, "f8", "1e-323"),
    (9, "fs", "ARRAY['NaN', 0, fs[3], NULL]"),
    (10, "fs", "fs || '{NULL}'"),
    (3, "r", "r + 4.440892098500626e-16"),
    (5, "p", """ROW((p).n, 0.3, (p).t)::"pa ir\""""),
    (5, "ps", "ps[1:1]"),
    (5, "fr", "floatrange(0.1, id + 0.7, '[]')"),
    (8, "num", "num::numeric(20, 3)"),
    (8, "iv", "interval '30 days'"),
    (8, "ts", "ts + interval '1 us'"),
    (3, "tsz", "'-infinity'"),
    (7, "t", "'24:00'"),
    (7, "j", """'{"b": 1, "a": [1.0, null]}'"""),
    (7, "jb", "jsonb_set(jb, '{n}', '1.0')"),
    (7, "pt", "'(0,0.1)'"),
    (7, "i", "'10.0.0.1/9'"),
    (7, "ms", "'{sad,NULL,happy}'"),
    (7, "c", "'Q'"),
    (7, "na", "'{{1.0,1.0},{2,3}}'"),
    (7, "ta", """'{"",NULL,NULL}'"""),
    (20, "m", "'sad'"),
    (21, "mon", "'12.35'"),
    (22, "rs", "'{0,NULL}'"),
]
"""Row, column, another value: mostly one that PostgreSQL holds to be equal or that prints alike."""


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_least_change_is_seen(both: Lab, method: Method | None, monkeypatch: pytest.MonkeyPatch) -> None:
    use(method, both, monkeypatch)
    both.make(TYPES + ROWS, TYPES + ROWS)
    relation = """"Sch.ema %s"."every ""type""\""""
    with both.target.connect(both.database) as conn:
        for row, column, value in CHANGES:
            assert conn.execute(f"UPDATE {relation} SET {column} = {value} WHERE id = {row}").rowcount == 1
        conn.execute(f"UPDATE {relation} SET id = id + 4294967296 WHERE id = 30")
    found = table(both.verify(limit=1000), 'Sch.ema %s.every "type"')
    by_key = {(d["kind"], d["key"]["id"]): set(d["source"] or ()) for d in found.differences}
    wanted: dict[tuple[str, str], set[str]] = {}
    for row, column, dummy in CHANGES:
        wanted.setdefault(("different", str(row)), set()).add(column.strip('"'))
    assert by_key.pop(("missing", "30")) and by_key.pop(("extra", "4294967326")) == set()
    # "auto" was numbered in the order of insertion, which is random
    assert {key: columns - {"auto"} for key, columns in by_key.items() if columns - {"auto"}} == wanted


def test_equal_databases_with_columns_in_another_order(both: Lab) -> None:
    other = SIMPLE.replace(
        "id int PRIMARY KEY, name text, price numeric, at timestamptz", "at timestamptz, price numeric, id int PRIMARY KEY, name text"
    )
    filled = FILLED.replace("INSERT INTO item SELECT", "INSERT INTO item (id, name, price, at) SELECT")
    both.make(SIMPLE + FILLED, other + filled)
    seen: list[dict[str, t.Any]] = []
    result = both.verify(report=seen.append)
    assert result.equal and result.schema_equal, result.to_dict()
    assert seen[-1]["tables_done"] == seen[-1]["tables_total"] == len(result.tables) == 8
    assert table(result, "public.parent").rows_source == 2 and table(result, "public.nothing").rows_source == 1
    assert result.large_objects is not None and result.large_objects.source == 2
    assert result.to_dict()["summary"].startswith(f"{both.database}: equal (8 tables")


def test_rows_changed_missing_extra_and_swapped_are_named(both: Lab) -> None:
    both.make(SIMPLE + FILLED, SIMPLE + FILLED)
    with both.target.connect(both.database) as conn:
        conn.execute("UPDATE item SET price = 4.5 WHERE id = 3; DELETE FROM item WHERE id = 5")
        conn.execute("INSERT INTO item VALUES (9999, 'new', NULL, NULL)")
        conn.execute("UPDATE item a SET name = b.name FROM item b WHERE a.id IN (10, 11) AND b.id = 21 - a.id")
        conn.execute("INSERT INTO unkeyed SELECT * FROM unkeyed WHERE b IS NULL LIMIT 1")
        conn.execute("DELETE FROM event WHERE id = 400; SELECT nextval('counter')")
        conn.execute("SELECT lo_put(4711, 0, 'X')")
    result = both.verify(jobs=1)
    assert not result.equal
    found = {(d["kind"], d["key"]["id"]): (d["source"], d["target"]) for d in table(result, "public.item").differences}
    assert found.pop(("different", "3")) == ({"price": "4.50"}, {"price": "4.5"})
    assert found.pop(("different", "10")) == ({"name": "item 10"}, {"name": "item 11"})
    assert found.pop(("different", "11")) == ({"name": "item 11"}, {"name": "item 10"})
    assert found.pop(("extra", "9999"))[1] == {"id": "9999", "name": "new", "price": None, "at": None}
    assert set(found) == {("missing", "5")}
    (copy,) = table(result, "public.unkeyed").differences
    assert (copy["kind"], copy["copies"], copy["target"]["b"]) == ("extra", 1, None)
    assert [table(result, f"public.event_{n}").equal for n in (1, 2)] == [True, False]
    assert [s.label for s in result.sequences if not s.equal] == ["public.counter"]
    assert result.large_objects is not None and result.large_objects.differing == (4711,)
    assert len(both.verify(limit=2).tables[4].differences) <= 2


def test_a_swap_of_values_between_rows_of_an_unkeyed_table_is_seen(both: Lab) -> None:
    both.make(
        "CREATE TABLE s (a int, b int); INSERT INTO s VALUES (1, 10), (2, 20)",
        "CREATE TABLE s (a int, b int); INSERT INTO s VALUES (1, 20), (2, 10)",
    )
    assert not both.verify().equal


def test_snapshots_hide_what_writers_did_since(both: Lab) -> None:
    both.make(SIMPLE + FILLED, SIMPLE + FILLED)
    with both.source.connect(both.database) as left, both.target.connect(both.database) as right:
        ids = []
        for conn in (left, right):
            conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            row = conn.execute("SELECT pg_export_snapshot()").fetchone()
            ids.append(row[0] if row else "")
        both.target.execute("DELETE FROM item WHERE id < 50; SELECT nextval('counter')", both.database)
        result = both.verify(source_snapshot=ids[0], target_snapshot=ids[1])
        assert result.equal, result.to_dict()
        assert not both.verify().equal
    with pytest.raises(VerificationFailed, match="import|snapshot"):
        both.verify(source_snapshot=ids[0], target_snapshot=ids[1])


def test_definitions_that_differ_are_named(both: Lab) -> None:
    both.make(
        SIMPLE + "ALTER TABLE item ADD CHECK (id > 0); CREATE TABLE gone (a int)",
        SIMPLE + "ALTER TABLE item ADD CHECK (id > 0) NOT VALID; DROP INDEX item_name; ALTER TABLE unkeyed ADD c int;"
        "CREATE TABLE only_here (a int);"
        "ALTER TABLE item ALTER name SET DEFAULT 'x'; CREATE OR REPLACE FUNCTION twice(i int) RETURNS int LANGUAGE sql AS 'SELECT i * 3'",
    )
    result = both.verify()
    named = {(d.kind, d.object) for d in result.schema}
    for expected in (
        ("constraint", "public.item.item_id_check"),
        ("index", "public.item_name"),
        ("column", "public.unkeyed.c"),
        ("column", "public.item.name"),
        ("table", "public.gone"),
        ("table", "public.only_here"),
        ("function", "public.twice(i integer)"),
    ):
        assert expected in named
    assert "missing" in table(result, "public.gone").note and "only on the target" in table(result, "public.only_here").note
    assert "column c exists only on the target" in table(result, "public.unkeyed").note


KINDS = """
CREATE TYPE span AS RANGE (subtype = int); CREATE COLLATION german (locale = 'C');
CREATE TEXT SEARCH DICTIONARY words (template = simple); CREATE TEXT SEARCH CONFIGURATION search (COPY = simple);
CREATE FUNCTION same(a item, b item) RETURNS boolean LANGUAGE sql AS 'SELECT a.id = b.id';
CREATE OPERATOR === (leftarg = item, rightarg = item, function = same);
CREATE STATISTICS facts ON id, name FROM item; COMMENT ON COLUMN item.name IS 'what it is called';
GRANT SELECT ON item TO PUBLIC; REVOKE EXECUTE ON FUNCTION twice(int) FROM PUBLIC; COMMENT ON SCHEMA public IS 'of the shop';
"""


def test_every_class_of_object_is_compared(both: Lab) -> None:
    """Made on both sides they are equal; each thing that is taken away or changed on one is named."""
    given = SIMPLE + KINDS + "ALTER TABLE unkeyed OWNER TO pg_signal_backend"
    both.make(given, given)
    assert both.verify().schema == ()
    both.target.execute(
        "DROP EXTENSION plpgsql; DROP TYPE span; DROP COLLATION german;"
        "DROP TEXT SEARCH CONFIGURATION search; DROP TEXT SEARCH DICTIONARY words;"
        "DROP OPERATOR === (item, item); DROP STATISTICS facts; COMMENT ON COLUMN item.name IS 'another';"
        "REVOKE SELECT ON item FROM PUBLIC;"
        "GRANT EXECUTE ON FUNCTION twice(int) TO PUBLIC; COMMENT ON SCHEMA public IS NULL; ALTER TABLE unkeyed OWNER TO pg_monitor",
        both.database,
    )
    named = {(d.kind, d.object) for d in both.verify().schema}
    assert named >= {
        ("extension", "plpgsql"),
        ("range", "public.span"),
        ("collation", "public.german"),
        ("text search configuration", "public.search"),
        ("text search dictionary", "public.words"),
        ("operator", "public.===(public.item,public.item)"),
        ("statistics", "public.facts"),
        ("comment", "table column public.item.name"),
        ("comment", "schema public"),
        ("privileges", "table public.item for PUBLIC"),
        ("privileges", "function public.twice(integer) for PUBLIC"),
        ("owner", "table public.unkeyed"),
    }, named


def test_other_encoding_same_content(both: Lab) -> None:
    script = "CREATE TABLE e (id int PRIMARY KEY, t text, j jsonb, ts text[]);"
    script += "INSERT INTO e VALUES (1, 'Grün é', '\"ü\"', '{ä}'), (2, NULL, NULL, NULL)"
    both.make(script, script, "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    assert both.verify().equal
    both.target.execute("UPDATE e SET ts = '{a}' WHERE id = 1", both.database)
    assert table(both.verify(), "public.e").differences[0]["target"] == {"ts": "{a}"}


def test_large_tables_are_read_in_pieces_and_can_be_stopped(both: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "CHUNK_BYTES", 65536)
    both.make(SIMPLE + FILLED, SIMPLE + FILLED)
    calls: list[dict[str, t.Any]] = []
    result = both.verify(report=calls.append)
    assert result.equal and table(result, "public.item").rows_source == 3000
    pieces = any(server.version >= CTID_RANGES for server in (both.source, both.target))
    assert (len(calls) > 2 * len(result.tables) + 1) == pieces
    stop = threading.Event()
    stop.set()
    with pytest.raises(VerificationFailed) as caught:
        both.verify(stop=stop)
    assert caught.value.code == "PGM6002"


def test_with_the_rights_of_a_migration(
    source: lab.Server, target: lab.Server, source_database: str, target_database: str, spec_factory: t.Callable[..., MigrationSpec]
) -> None:
    for server, role in ((source, "app"), (target, "admin")):
        server.execute(
            f"SET ROLE {role}; CREATE SCHEMA s; CREATE TABLE s.a (i int PRIMARY KEY); INSERT INTO s.a VALUES (1)", source_database
        )
    spec = spec_factory("verify", [source_database])
    assert verify_database(spec, source_database).equal
    source.execute("CREATE SCHEMA t; CREATE TABLE t.hidden (i int); REVOKE ALL ON t.hidden FROM PUBLIC", source_database)
    target.execute("CREATE SCHEMA t; CREATE TABLE t.hidden (i int)", source_database)
    with pytest.raises(VerificationFailed, match=r"Could not read t\.hidden on target .* permission denied") as caught:
        verify_database(spec, source_database)
    assert caught.value.sqlstate == "42501"


def test_rows_that_row_security_hides_are_not_called_different(
    source: lab.Server,
    target: lab.Server,
    source_database: str,
    target_database: str,
    spec_factory: t.Callable[..., MigrationSpec],
    members: None,
) -> None:
    """Forced on the owner, whose member the target's administrator is: the table is told as not compared, with what to do."""
    for server in (source, target):
        server.execute(
            "CREATE TABLE mine (id int PRIMARY KEY); INSERT INTO mine VALUES (1); CREATE TABLE other (id int PRIMARY KEY);"
            " ALTER TABLE mine OWNER TO app; ALTER TABLE other OWNER TO app; ALTER TABLE mine ENABLE ROW LEVEL SECURITY",
            source_database,
        )
    spec = spec_factory("hidden", [source_database])
    assert verify_database(spec, source_database).complete, "the owner's members see all rows while it is not forced"
    for server in (source, target):
        server.execute("ALTER TABLE mine FORCE ROW LEVEL SECURITY", source_database)
    source.execute("ALTER ROLE migrator BYPASSRLS")
    try:
        result = verify_database(spec, source_database)
    finally:
        source.execute("ALTER ROLE migrator NOBYPASSRLS")
    found = {one.label: one for one in result.tables}
    assert result.equal and not result.complete and "public.mine" in result.summary()
    assert "row security of the target hides rows from admin" in found["public.mine"].note and "BYPASSRLS" in found["public.mine"].note
    assert not found["public.mine"].compared and found["public.other"].equal


def test_truncated_after_the_snapshot_is_not_called_different(
    source: lab.Server, target: lab.Server, source_database: str, target_database: str, spec_factory: t.Any, migrator: t.Any, admin: t.Any
) -> None:
    """An application may TRUNCATE on the target while the cutover is still being proven; the snapshot sees such a table empty."""
    for server, login in ((source, migrator), (target, admin)):
        with server.connect(source_database) as conn:
            conn.execute("CREATE TABLE scratch AS SELECT generate_series(1, 30) AS id; CREATE TABLE kept AS SELECT 1 AS id")
            conn.execute(f"ALTER TABLE scratch OWNER TO {login.name}; ALTER TABLE kept OWNER TO {login.name}")
    spec = spec_factory("truncated", [source_database])
    with target.connect(source_database) as holder:
        holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        row = holder.execute("SELECT pg_export_snapshot()").fetchone()
        assert row
        target.execute("BEGIN; TRUNCATE scratch; INSERT INTO scratch VALUES (7); COMMIT", source_database)
        result = verify_database(spec, source_database, target_snapshot=row[0])
    tables = {table.label: table for table in result.tables}
    assert result.equal and tables["public.kept"].equal
    assert not tables["public.scratch"].compared and not tables["public.scratch"].equal
    assert "public.scratch" in result.summary()
