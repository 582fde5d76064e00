# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""One of everything that a schema can hold, each with a change and what the comparison of definitions has to say of that change, exactly.

``{role}`` and ``{other}`` are roles that both servers have. Everything is made by a superuser.
"""

from __future__ import annotations

import typing as t


class Thing(t.NamedTuple):
    """``make`` on both servers (from version ``since`` on), then ``change`` on the target alone; ``told`` are kinds and objects."""

    make: str
    change: str
    told: tuple[tuple[str, str], ...]
    since: int = 10
    change_since: int = 10


def _one(make: str, change: str, kind: str, name: str, since: int = 10, change_since: int = 10) -> Thing:
    return Thing(make, change, ((kind, name),), since, change_since)


BASE = """CREATE SCHEMA s;
CREATE FUNCTION s.call_handler() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler';
CREATE FUNCTION s.inline_handler(internal) RETURNS void LANGUAGE c STRICT AS '$libdir/plpgsql', 'plpgsql_inline_handler';
CREATE FUNCTION s.fire() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
"""

RELATIONS = [
    _one("CREATE SCHEMA gone", "DROP SCHEMA gone", "schema", "gone"),
    _one("CREATE TABLE s.lone (a int, CHECK (a > 0))", "DROP TABLE s.lone", "table", "s.lone"),
    _one("CREATE TABLE s.logged (a int)", "ALTER TABLE s.logged SET UNLOGGED", "table", "s.logged"),
    _one("CREATE TABLE s.filled (a int) WITH (fillfactor = 70)", "ALTER TABLE s.filled SET (fillfactor = 71)", "table", "s.filled"),
    _one("CREATE TABLE s.vacuumed (a text)", "ALTER TABLE s.vacuumed SET (autovacuum_enabled = off)", "table", "s.vacuumed"),
    _one(
        "CREATE TABLE s.toasted (a text) WITH (toast.autovacuum_enabled = off)",
        *("ALTER TABLE s.toasted RESET (toast.autovacuum_enabled)", "table", "s.toasted"),
    ),
    _one("CREATE TABLE s.whole (a int)", "ALTER TABLE s.whole REPLICA IDENTITY FULL", "table", "s.whole"),
    _one(
        "CREATE TABLE s.known (a int NOT NULL CONSTRAINT known_a UNIQUE, b int NOT NULL CONSTRAINT known_b UNIQUE);"
        "ALTER TABLE s.known REPLICA IDENTITY USING INDEX known_a",
        *("ALTER TABLE s.known REPLICA IDENTITY USING INDEX known_b", "table", "s.known"),
    ),
    _one("CREATE TABLE s.guarded (a int)", "ALTER TABLE s.guarded ENABLE ROW LEVEL SECURITY", "table", "s.guarded"),
    _one("CREATE TABLE s.forced (a int)", "ALTER TABLE s.forced FORCE ROW LEVEL SECURITY", "table", "s.forced"),
    _one(
        "CREATE TABLE s.p1 (a int); CREATE TABLE s.p2 (a int); CREATE TABLE s.kid () INHERITS (s.p1, s.p2)",
        *("ALTER TABLE s.kid NO INHERIT s.p1; ALTER TABLE s.kid INHERIT s.p1", "table", "s.kid"),
    ),
    _one(
        "CREATE TABLE s.parted (a int, b int) PARTITION BY RANGE (a); "
        "CREATE TABLE s.part_1 PARTITION OF s.parted FOR VALUES FROM (1) TO (5)",
        "ALTER TABLE s.parted DETACH PARTITION s.part_1; ALTER TABLE s.parted ATTACH PARTITION s.part_1 FOR VALUES FROM (1) TO (6)",
        *("table", "s.part_1"),
    ),
    _one(
        "CREATE TABLE s.keyed (a int, b int) PARTITION BY LIST (a)",
        *("DROP TABLE s.keyed; CREATE TABLE s.keyed (a int, b int) PARTITION BY LIST (b)", "table", "s.keyed"),
    ),
    _one(
        "CREATE ACCESS METHOD heap2 TYPE TABLE HANDLER heap_tableam_handler; CREATE TABLE s.other_method (a int) USING heap2",
        *("ALTER TABLE s.other_method SET ACCESS METHOD heap", "table", "s.other_method"),
        *(12, 15),
    ),
    _one("CREATE TYPE s.of_it AS (a int); CREATE TABLE s.typed OF s.of_it", "ALTER TABLE s.typed NOT OF", "table", "s.typed"),
    _one("CREATE TABLE s.c1 (a int, b int)", "ALTER TABLE s.c1 DROP COLUMN b", "column", "s.c1.b"),
    _one("CREATE TABLE s.c2 (a int)", "ALTER TABLE s.c2 ALTER a TYPE bigint", "column", "s.c2.a"),
    _one("CREATE TABLE s.c3 (a int)", "ALTER TABLE s.c3 ALTER a SET NOT NULL", "column", "s.c3.a"),
    _one("CREATE TABLE s.c4 (a int DEFAULT 1)", "ALTER TABLE s.c4 ALTER a SET DEFAULT 2", "column", "s.c4.a"),
    _one('CREATE TABLE s.c5 (a text COLLATE "C")', 'ALTER TABLE s.c5 ALTER a TYPE text COLLATE "POSIX"', "column", "s.c5.a"),
    _one("CREATE TABLE s.c6 (a text)", "ALTER TABLE s.c6 ALTER a SET STORAGE EXTERNAL", "column", "s.c6.a"),
    _one("CREATE TABLE s.c7 (a int)", "ALTER TABLE s.c7 ALTER a SET STATISTICS 500", "column", "s.c7.a"),
    _one("CREATE TABLE s.c8 (a int)", "ALTER TABLE s.c8 ALTER a SET (n_distinct = 5)", "column", "s.c8.a"),
    _one("CREATE TABLE s.c9 (a text COMPRESSION pglz)", "ALTER TABLE s.c9 ALTER a SET COMPRESSION default", "column", "s.c9.a", 14),
    _one(
        "CREATE TABLE s.c10 (a int, b int GENERATED ALWAYS AS (a + 1) STORED)",
        *("ALTER TABLE s.c10 ALTER b DROP EXPRESSION", "column", "s.c10.b"),
        *(12, 13),
    ),
    _one(
        "CREATE TABLE s.c11 (a int GENERATED ALWAYS AS IDENTITY)",
        *("ALTER TABLE s.c11 ALTER a SET GENERATED BY DEFAULT", "column", "s.c11.a"),
    ),
    _one(
        "CREATE TABLE s.c12 (a int GENERATED ALWAYS AS IDENTITY)",
        *("ALTER TABLE s.c12 ALTER a SET INCREMENT 7", "sequence options", "s.c12_a_seq"),
    ),
    _one("CREATE SEQUENCE s.q1 CACHE 3", "ALTER SEQUENCE s.q1 CACHE 4", "sequence options", "s.q1"),
    _one("CREATE SEQUENCE s.q2 AS smallint", "ALTER SEQUENCE s.q2 AS int", "sequence options", "s.q2"),
    _one(
        "CREATE TABLE s.with_serial (a serial)",
        "ALTER SEQUENCE s.with_serial_a_seq OWNED BY NONE",
        "sequence options",
        "s.with_serial_a_seq",
    ),
    _one("CREATE TABLE s.i1 (a int); CREATE INDEX i1_a ON s.i1 (a)", "DROP INDEX s.i1_a", "index", "s.i1_a"),
    _one("CREATE TABLE s.i2 (a int); CREATE INDEX i2_a ON s.i2 (a)", "ALTER INDEX s.i2_a SET (fillfactor = 50)", "index", "s.i2_a"),
    _one(
        "CREATE TABLE s.i3 (a int); CREATE INDEX i3_a ON s.i3 ((a + 1))",
        "ALTER INDEX s.i3_a ALTER COLUMN 1 SET STATISTICS 9",
        "index",
        "s.i3_a",
        11,
    ),
    _one(
        "CREATE TABLE s.i4 (a int); CREATE INDEX i4_a ON s.i4 (a)",
        *("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 's.i4_a'::regclass", "index", "s.i4_a"),
    ),
    _one(
        "CREATE TABLE s.i5 (a int); CREATE INDEX i5_a ON s.i5 (a); ALTER TABLE s.i5 CLUSTER ON i5_a",
        *("ALTER TABLE s.i5 SET WITHOUT CLUSTER", "index", "s.i5_a"),
    ),
    _one(
        "CREATE TABLE s.i6 (a int); CREATE UNIQUE INDEX i6_a ON s.i6 (a)",
        "DROP INDEX s.i6_a; CREATE INDEX i6_a ON s.i6 (a)",
        "index",
        "s.i6_a",
    ),
    Thing(
        "CREATE TABLE s.i7 (a int PRIMARY KEY); CREATE TABLE s.pp (a int PRIMARY KEY, b int REFERENCES s.i7) PARTITION BY LIST (a);"
        "CREATE TABLE s.pp_1 PARTITION OF s.pp FOR VALUES IN (1); CREATE INDEX pp_b ON s.pp (b);"
        "CREATE TABLE s.refers (a int REFERENCES s.pp);"
        "CREATE TRIGGER g AFTER INSERT ON s.pp FOR EACH ROW EXECUTE PROCEDURE s.fire()",
        "DROP INDEX s.pp_b",
        (("index", "s.pp_b"), ("index", "s.pp_1_b_idx")),
        12,
    ),
    _one("CREATE TABLE s.k1 (a int CONSTRAINT pos CHECK (a > 0))", "ALTER TABLE s.k1 DROP CONSTRAINT pos", "constraint", "s.k1.pos"),
    _one(
        "CREATE TABLE s.k2 (a int CONSTRAINT pos CHECK (a > 0))",
        *("UPDATE pg_constraint SET convalidated = false WHERE conrelid = 's.k2'::regclass", "constraint", "s.k2.pos"),
    ),
    _one(
        "CREATE TABLE s.k3 (a int PRIMARY KEY); CREATE TABLE s.k4 (a int CONSTRAINT fk REFERENCES s.k3)",
        *("ALTER TABLE s.k4 ALTER CONSTRAINT fk DEFERRABLE", "constraint", "s.k4.fk"),
    ),
    _one(
        "CREATE TABLE s.k5 (a int CONSTRAINT fk REFERENCES s.k3 ON DELETE CASCADE)",
        "ALTER TABLE s.k5 DROP CONSTRAINT fk; ALTER TABLE s.k5 ADD CONSTRAINT fk FOREIGN KEY (a) REFERENCES s.k3",
        *("constraint", "s.k5.fk"),
    ),
    Thing(
        "CREATE TABLE s.k6 (a int CONSTRAINT un UNIQUE)",
        "ALTER TABLE s.k6 DROP CONSTRAINT un",
        (("constraint", "s.k6.un"), ("index", "s.un")),
    ),
    Thing(
        "CREATE TABLE s.k7 (a int4range, CONSTRAINT ex EXCLUDE USING gist (a WITH &&))",
        "ALTER TABLE s.k7 DROP CONSTRAINT ex",
        (("constraint", "s.k7.ex"), ("index", "s.ex")),
    ),
    _one(
        "CREATE TABLE s.k8 (a int CONSTRAINT ni CHECK (a > 0) NO INHERIT)",
        "UPDATE pg_constraint SET connoinherit = false WHERE conname = 'ni'",
        "constraint",
        "s.k8.ni",
    ),
    _one(
        "CREATE TABLE s.g1 (a int);CREATE TRIGGER g AFTER INSERT ON s.g1 FOR EACH ROW EXECUTE PROCEDURE s.fire()",
        *("ALTER TABLE s.g1 DISABLE TRIGGER g", "trigger", "s.g1.g"),
    ),
    _one(
        "CREATE TABLE s.g2 (a int); CREATE TRIGGER g AFTER INSERT ON s.g2 FOR EACH ROW WHEN (NEW.a > 0) EXECUTE PROCEDURE s.fire()",
        "DROP TRIGGER g ON s.g2; CREATE TRIGGER g AFTER INSERT ON s.g2 FOR EACH ROW WHEN (NEW.a > 1) EXECUTE PROCEDURE s.fire()",
        *("trigger definition", "s.g2.g"),
    ),
    _one(
        "CREATE TABLE s.g3 (a int); CREATE TRIGGER g AFTER INSERT ON s.g3 EXECUTE PROCEDURE s.fire()",
        "DROP TRIGGER g ON s.g3",
        "trigger",
        "s.g3.g",
    ),
    Thing(
        "CREATE TABLE s.g4 (a int);"
        "CREATE CONSTRAINT TRIGGER g AFTER INSERT ON s.g4 DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE PROCEDURE s.fire()",
        "DROP TRIGGER g ON s.g4; CREATE CONSTRAINT TRIGGER g AFTER INSERT ON s.g4 DEFERRABLE FOR EACH ROW EXECUTE PROCEDURE s.fire()",
        (("trigger", "s.g4.g"), ("trigger definition", "s.g4.g")),
    ),
    _one(
        "CREATE TABLE s.r1 (a int); CREATE RULE ru AS ON DELETE TO s.r1 DO INSTEAD NOTHING",
        *("ALTER TABLE s.r1 DISABLE RULE ru", "rule", "s.r1.ru"),
    ),
    _one(
        "CREATE TABLE s.r2 (a int); CREATE RULE ru AS ON DELETE TO s.r2 WHERE OLD.a = 1 DO INSTEAD NOTHING",
        *("CREATE OR REPLACE RULE ru AS ON DELETE TO s.r2 WHERE OLD.a = 2 DO INSTEAD NOTHING", "rule definition", "s.r2.ru"),
    ),
    _one("CREATE TABLE s.y1 (a int); CREATE POLICY po ON s.y1 USING (a > 0)", "ALTER POLICY po ON s.y1 TO {role}", "policy", "s.y1.po"),
    _one(
        "CREATE TABLE s.y2 (a int); CREATE POLICY po ON s.y2 USING (a > 0)",
        "ALTER POLICY po ON s.y2 USING (a > 1)",
        "policy definition",
        "s.y2.po",
    ),
    _one(
        "CREATE TABLE s.y3 (a int); CREATE POLICY po ON s.y3 USING (a > 0)",
        *("DROP POLICY po ON s.y3; CREATE POLICY po ON s.y3 AS RESTRICTIVE USING (a > 0)", "policy", "s.y3.po"),
    ),
    _one("CREATE VIEW s.v1 AS SELECT 1 AS a", "CREATE OR REPLACE VIEW s.v1 AS SELECT 2 AS a", "view definition", "s.v1"),
    _one("CREATE VIEW s.v2 AS SELECT 1 AS a", "ALTER VIEW s.v2 SET (security_barrier = true)", "view", "s.v2"),
    _one("CREATE VIEW s.v3 AS SELECT 1 AS a", "DROP VIEW s.v3", "view", "s.v3"),
    _one("CREATE MATERIALIZED VIEW s.m1 AS SELECT 1 AS a", "REFRESH MATERIALIZED VIEW s.m1 WITH NO DATA", "materialized view", "s.m1"),
    _one(
        "CREATE MATERIALIZED VIEW s.m2 AS SELECT 1 AS a",
        *("DROP MATERIALIZED VIEW s.m2; CREATE MATERIALIZED VIEW s.m2 AS SELECT 2 AS a", "view definition", "s.m2"),
    ),
    _one("CREATE TABLE s.st (a int, b int); CREATE STATISTICS s.st1 ON a, b FROM s.st", "DROP STATISTICS s.st1", "statistics", "s.st1"),
    _one("CREATE STATISTICS s.st2 (ndistinct) ON a, b FROM s.st", "ALTER STATISTICS s.st2 SET STATISTICS 7", "statistics", "s.st2", 10, 13),
]

OBJECTS = [
    *(
        _one(
            f"CREATE FUNCTION s.f_{word}(a int) RETURNS int LANGUAGE sql AS 'SELECT a'",
            f"ALTER FUNCTION s.f_{word}(int) {how}",
            *("function", f"s.f_{word}(a integer)"),
        )
        for word, how in {
            "volatile": "STABLE",
            "strict": "STRICT",
            "leak": "LEAKPROOF",
            "parallel": "PARALLEL SAFE",
            "definer": "SECURITY DEFINER",
            "cost": "COST 7",
            "set": "SET work_mem = '1MB'",
        }.items()
    ),
    _one(
        "CREATE FUNCTION s.f_rows() RETURNS SETOF int LANGUAGE sql AS 'SELECT 1'",
        "ALTER FUNCTION s.f_rows() ROWS 7",
        "function",
        "s.f_rows()",
    ),
    _one(
        "CREATE FUNCTION s.f_body() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        *("CREATE OR REPLACE FUNCTION s.f_body() RETURNS int LANGUAGE sql AS 'SELECT 2'", "function", "s.f_body()"),
    ),
    _one(
        "CREATE FUNCTION s.f_given(a int DEFAULT 1) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        *(
            "CREATE OR REPLACE FUNCTION s.f_given(a int DEFAULT 2) RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "function",
            "s.f_given(a integer)",
        ),
    ),
    _one("CREATE FUNCTION s.f_gone() RETURNS int LANGUAGE sql AS 'SELECT 1'", "DROP FUNCTION s.f_gone()", "function", "s.f_gone()"),
    _one(
        "CREATE FUNCTION s.f_standard() RETURNS int LANGUAGE sql RETURN 1",
        *("CREATE OR REPLACE FUNCTION s.f_standard() RETURNS int LANGUAGE sql RETURN 2", "function definition", "s.f_standard()"),
        14,
    ),
    _one(
        "CREATE PROCEDURE s.proc() LANGUAGE sql AS 'SELECT 1'",
        *("CREATE OR REPLACE PROCEDURE s.proc() LANGUAGE sql AS 'SELECT 2'", "function", "s.proc()"),
        11,
    ),
    _one(
        "CREATE AGGREGATE s.total (int) (SFUNC = int4pl, STYPE = int, INITCOND = '0')",
        "DROP AGGREGATE s.total (int); CREATE AGGREGATE s.total (int) (SFUNC = int4pl, STYPE = int, INITCOND = '1')",
        *("function", "s.total(integer)"),
    ),
    _one("CREATE TYPE s.mood AS ENUM ('a', 'c')", "ALTER TYPE s.mood ADD VALUE 'b' BEFORE 'c'", "enum", "s.mood", 10, 12),
    _one("CREATE TYPE s.pair AS (a int, b int)", "ALTER TYPE s.pair DROP ATTRIBUTE b", "column", "s.pair.b"),
    _one("CREATE DOMAIN s.d1 AS int", "ALTER DOMAIN s.d1 SET DEFAULT 5", "domain", "s.d1"),
    _one("CREATE DOMAIN s.d2 AS int", "ALTER DOMAIN s.d2 SET NOT NULL", "domain", "s.d2"),
    _one("CREATE DOMAIN s.d3 AS int CONSTRAINT pos CHECK (VALUE > 0)", "ALTER DOMAIN s.d3 DROP CONSTRAINT pos", "domain", "s.d3"),
    _one(
        "CREATE TYPE s.span AS RANGE (SUBTYPE = int)",
        *("DROP TYPE s.span; CREATE TYPE s.span AS RANGE (SUBTYPE = int, SUBTYPE_DIFF = int4range_subdiff)", "range", "s.span"),
    ),
    _one(
        "CREATE TYPE s.width AS RANGE (SUBTYPE = int)",
        *("DROP TYPE s.width; CREATE TYPE s.width AS RANGE (SUBTYPE = int, MULTIRANGE_TYPE_NAME = s.widths)", "range", "s.width", 10, 14),
    ),
    _one(
        "CREATE TYPE s.raw; CREATE FUNCTION s.raw_in(cstring) RETURNS s.raw LANGUAGE internal IMMUTABLE STRICT AS 'int4in';"
        "CREATE FUNCTION s.raw_out(s.raw) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';"
        "CREATE TYPE s.raw (INPUT = s.raw_in, OUTPUT = s.raw_out, INTERNALLENGTH = 4, PASSEDBYVALUE, ALIGNMENT = int4)",
        *("UPDATE pg_type SET typdelim = ';' WHERE oid = 's.raw'::regtype", "base type", "s.raw"),
    ),
    _one(
        "CREATE OPERATOR s.=== (LEFTARG = int, RIGHTARG = int, PROCEDURE = int4eq)",
        *("ALTER OPERATOR s.=== (int, int) SET (RESTRICT = eqsel)", "operator", "s.===(integer,integer)"),
    ),
    _one(
        "CREATE OPERATOR FAMILY s.fam USING btree",
        "ALTER OPERATOR FAMILY s.fam USING btree ADD OPERATOR 1 < (int4, int8), FUNCTION 1 (int4, int8) btint48cmp(int4, int8)",
        *("operator family", "s.fam USING btree"),
    ),
    _one(
        "CREATE OPERATOR CLASS s.cls FOR TYPE int4 USING hash AS OPERATOR 1 =, FUNCTION 1 hashint4(int4)",
        *("UPDATE pg_opclass SET opckeytype = 23 WHERE opcname = 'cls'", "operator class", "s.cls USING hash"),
    ),
    _one(
        "CREATE CAST (s.raw AS int4) WITHOUT FUNCTION",
        *("DROP CAST (s.raw AS int4); CREATE CAST (s.raw AS int4) WITHOUT FUNCTION AS IMPLICIT", "cast", "(s.raw AS integer)"),
    ),
    _one(
        "CREATE TRANSFORM FOR money LANGUAGE sql (FROM SQL WITH FUNCTION prsd_lextype(internal), TO SQL WITH FUNCTION cash_recv(internal))",
        *("DROP TRANSFORM FOR money LANGUAGE sql", "transform", "for money language sql"),
    ),
    _one(
        "CREATE CONVERSION s.conv FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8",
        *("UPDATE pg_conversion SET condefault = true WHERE conname = 'conv'", "conversion", "s.conv"),
    ),
    _one(
        "CREATE LANGUAGE tongue HANDLER s.call_handler INLINE s.inline_handler",
        *("UPDATE pg_language SET laninline = 0 WHERE lanname = 'tongue'", "language", "tongue"),
    ),
    _one("CREATE ACCESS METHOD spare TYPE INDEX HANDLER bthandler", "DROP ACCESS METHOD spare", "access method", "spare"),
    _one(
        "CREATE TEXT SEARCH PARSER s.par (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype)",
        *("UPDATE pg_ts_parser SET prsheadline = 'prsd_headline'::regproc WHERE prsname = 'par'", "text search parser", "s.par"),
    ),
    _one(
        "CREATE TEXT SEARCH TEMPLATE s.tmpl (LEXIZE = dsimple_lexize)",
        *("UPDATE pg_ts_template SET tmplinit = 'dsimple_init'::regproc WHERE tmplname = 'tmpl'", "text search template", "s.tmpl"),
    ),
    _one(
        "CREATE TEXT SEARCH DICTIONARY s.dict (TEMPLATE = simple)",
        *("ALTER TEXT SEARCH DICTIONARY s.dict (accept = false)", "text search dictionary", "s.dict"),
    ),
    _one(
        "CREATE TEXT SEARCH CONFIGURATION s.conf (COPY = simple)",
        *("ALTER TEXT SEARCH CONFIGURATION s.conf DROP MAPPING FOR word", "text search configuration", "s.conf"),
    ),
    _one("CREATE COLLATION s.co1 (LOCALE = 'C')", "DROP COLLATION s.co1", "collation", "s.co1"),
    _one(
        "CREATE COLLATION s.co2 (LOCALE = 'C')",
        *("UPDATE pg_collation SET collversion = '0' WHERE collname = 'co2'", "collation", "s.co2"),
    ),
    _one(
        "CREATE FUNCTION s.on_event() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
        "CREATE EVENT TRIGGER ev1 ON sql_drop WHEN TAG IN ('DROP SERVER') EXECUTE PROCEDURE s.on_event()",
        *("ALTER EVENT TRIGGER ev1 DISABLE", "event trigger", "ev1"),
    ),
    _one("CREATE EVENT TRIGGER ev2 ON sql_drop EXECUTE PROCEDURE s.on_event()", "DROP EVENT TRIGGER ev2", "event trigger", "ev2"),
    _one(
        "CREATE FOREIGN DATA WRAPPER wrap OPTIONS (a 'secret one')",
        *("ALTER FOREIGN DATA WRAPPER wrap OPTIONS (SET a 'secret two')", "foreign-data wrapper", "wrap"),
    ),
    _one(
        "CREATE SERVER away TYPE 'x' VERSION '1' FOREIGN DATA WRAPPER wrap OPTIONS (host 'secret one')",
        *("ALTER SERVER away OPTIONS (SET host 'secret two')", "server", "away"),
    ),
    _one("CREATE SERVER away2 VERSION '1' FOREIGN DATA WRAPPER wrap", "ALTER SERVER away2 VERSION '2'", "server", "away2"),
    _one(
        "CREATE USER MAPPING FOR PUBLIC SERVER away OPTIONS (password 'secret one')",
        *("ALTER USER MAPPING FOR PUBLIC SERVER away OPTIONS (SET password 'secret two')", "user mapping options", "public on away"),
    ),
    Thing(
        "CREATE USER MAPPING FOR {role} SERVER away",
        *("DROP USER MAPPING FOR {role} SERVER away", (("user mapping", "{role} on away"),)),
    ),
    _one(
        "CREATE FOREIGN TABLE s.far (a int OPTIONS (x '1')) SERVER away OPTIONS (y '1')",
        *("ALTER FOREIGN TABLE s.far OPTIONS (SET y '2')", "foreign table options", "s.far"),
    ),
    _one(
        "CREATE FOREIGN TABLE s.far2 (a int OPTIONS (x '1')) SERVER away",
        *("ALTER FOREIGN TABLE s.far2 ALTER a OPTIONS (SET x '2')", "column", "s.far2.a"),
    ),
    _one(
        "CREATE TABLE s.published (a int); CREATE PUBLICATION pub1 FOR TABLE s.published",
        *("ALTER PUBLICATION pub1 SET (publish = 'insert')", "publication", "pub1"),
    ),
    Thing("CREATE PUBLICATION pub2 FOR TABLE s.published", "DROP PUBLICATION pub2", ()),
    _one(
        "CREATE TABLE s.told (a int); COMMENT ON COLUMN s.told.a IS 'x'",
        "COMMENT ON COLUMN s.told.a IS 'y'",
        "comment",
        "table column s.told.a",
    ),
    _one(
        "CREATE TABLE s.marked (a int)",
        "INSERT INTO pg_seclabel VALUES ('s.marked'::regclass, 'pg_class'::regclass, 0, 'somebody', 'secret')",
        *("security label", "table s.marked of somebody"),
    ),
]

OWNED = {
    "TABLE s.o_table": ("CREATE TABLE s.o_table (a int)", "table s.o_table"),
    "VIEW s.o_view": ("CREATE VIEW s.o_view AS SELECT 1 AS a", "view s.o_view"),
    "MATERIALIZED VIEW s.o_mat": ("CREATE MATERIALIZED VIEW s.o_mat AS SELECT 1 AS a", "materialized view s.o_mat"),
    "SEQUENCE s.o_seq": ("CREATE SEQUENCE s.o_seq", "sequence s.o_seq"),
    "FOREIGN TABLE s.o_far": ("CREATE FOREIGN TABLE s.o_far (a int) SERVER away", "foreign table s.o_far"),
    "FUNCTION s.o_fun()": ("CREATE FUNCTION s.o_fun() RETURNS int LANGUAGE sql AS 'SELECT 1'", "function s.o_fun()"),
    "AGGREGATE s.o_agg(int)": ("CREATE AGGREGATE s.o_agg (int) (SFUNC = int4pl, STYPE = int)", "aggregate s.o_agg(integer)"),
    "TYPE s.o_enum": ("CREATE TYPE s.o_enum AS ENUM ()", "type s.o_enum"),
    "TYPE s.o_pair": ("CREATE TYPE s.o_pair AS (a int)", "type s.o_pair"),
    "DOMAIN s.o_domain": ("CREATE DOMAIN s.o_domain AS int", "type s.o_domain"),
    "SCHEMA o_schema": ("CREATE SCHEMA o_schema", "schema o_schema"),
    "LANGUAGE o_tongue": ("CREATE LANGUAGE o_tongue HANDLER s.call_handler", "language o_tongue"),
    "SERVER o_away": ("CREATE SERVER o_away FOREIGN DATA WRAPPER wrap", "server o_away"),
    "OPERATOR s.<=> (int, int)": (
        "CREATE OPERATOR s.<=> (LEFTARG = int, RIGHTARG = int, PROCEDURE = int4eq)",
        "operator s.<=>(integer,integer)",
    ),
    "OPERATOR FAMILY s.o_fam USING hash": ("CREATE OPERATOR FAMILY s.o_fam USING hash", "operator family s.o_fam USING hash"),
    "OPERATOR CLASS s.o_cls USING hash": (
        "CREATE OPERATOR CLASS s.o_cls FOR TYPE int4 USING hash AS OPERATOR 1 =, FUNCTION 1 hashint4(int4)",
        "operator class s.o_cls USING hash",
    ),
    "COLLATION s.o_col": ("CREATE COLLATION s.o_col (LOCALE = 'C')", "collation s.o_col"),
    "CONVERSION s.o_conv": ("CREATE CONVERSION s.o_conv FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8", "conversion s.o_conv"),
    "TEXT SEARCH CONFIGURATION s.o_conf": (
        "CREATE TEXT SEARCH CONFIGURATION s.o_conf (COPY = simple)",
        "text search configuration s.o_conf",
    ),
    "TEXT SEARCH DICTIONARY s.o_dict": ("CREATE TEXT SEARCH DICTIONARY s.o_dict (TEMPLATE = simple)", "text search dictionary s.o_dict"),
    "STATISTICS s.o_stat": (
        "CREATE TABLE s.ost (a int, b int); CREATE STATISTICS s.o_stat ON a, b FROM s.ost",
        "statistics object s.o_stat",
    ),
}
"""What ALTER ... OWNER TO calls it, how it is made, and how it is told."""

GRANTED = {
    "SELECT ON s.g_table": ("CREATE TABLE s.g_table (a int)", "table s.g_table"),
    "UPDATE (a) ON s.g_column": ("CREATE TABLE s.g_column (a int)", "column s.g_column.a"),
    "USAGE ON SEQUENCE s.g_seq": ("CREATE SEQUENCE s.g_seq", "sequence s.g_seq"),
    "EXECUTE ON FUNCTION s.g_fun()": ("CREATE FUNCTION s.g_fun() RETURNS int LANGUAGE sql AS 'SELECT 1'", "function s.g_fun()"),
    "USAGE ON TYPE s.g_enum": ("CREATE TYPE s.g_enum AS ENUM ()", "type s.g_enum"),
    "USAGE ON DOMAIN s.g_domain": ("CREATE DOMAIN s.g_domain AS int", "type s.g_domain"),
    "USAGE ON SCHEMA g_schema": ("CREATE SCHEMA g_schema", "schema g_schema"),
    "USAGE ON FOREIGN DATA WRAPPER g_wrap": ("CREATE FOREIGN DATA WRAPPER g_wrap", "foreign-data wrapper g_wrap"),
    "USAGE ON FOREIGN SERVER g_away": ("CREATE SERVER g_away FOREIGN DATA WRAPPER wrap", "server g_away"),
    "USAGE ON LANGUAGE g_tongue": ("CREATE TRUSTED LANGUAGE g_tongue HANDLER s.call_handler", "language g_tongue"),
}

RIGHTS = [
    *(
        _one(f"{make}; ALTER {name} OWNER TO {{role}}", f"ALTER {name} OWNER TO {{other}}", "owner", told)
        for name, (make, told) in OWNED.items()
    ),
    *(
        _one(f"{make}; GRANT {what} TO {{role}}", f"REVOKE {what} FROM {{role}}", "privileges", f"{told} for {{role}}")
        for what, (make, told) in GRANTED.items()
    ),
    _one(
        "CREATE TABLE s.passed (a int); GRANT SELECT ON s.passed TO {role} WITH GRANT OPTION",
        *("REVOKE GRANT OPTION FOR SELECT ON s.passed FROM {role}", "privileges", "table s.passed for {role}"),
    ),
    _one(
        "CREATE FUNCTION s.closed() RETURNS int LANGUAGE sql AS 'SELECT 1'; REVOKE EXECUTE ON FUNCTION s.closed() FROM PUBLIC",
        *("GRANT EXECUTE ON FUNCTION s.closed() TO PUBLIC", "privileges", "function s.closed() for PUBLIC"),
    ),
    _one(
        "ALTER DEFAULT PRIVILEGES FOR ROLE {role} IN SCHEMA s GRANT SELECT, UPDATE ON TABLES TO {other}",
        "ALTER DEFAULT PRIVILEGES FOR ROLE {role} IN SCHEMA s REVOKE UPDATE ON TABLES FROM {other}",
        *("default privileges", "of {role} on tables in s for {other}"),
    ),
    _one("GRANT CREATE ON SCHEMA public TO {role}", "REVOKE CREATE ON SCHEMA public FROM {role}", "privileges", "schema public for {role}"),
    Thing(
        "ALTER DEFAULT PRIVILEGES FOR ROLE {other} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
        "ALTER DEFAULT PRIVILEGES FOR ROLE {other} GRANT EXECUTE ON FUNCTIONS TO PUBLIC",
        (("default privileges", "of {other} on functions"), ("default privileges", "of {other} on functions for {other}")),
    ),
]

THINGS = [*RELATIONS, *OBJECTS, *RIGHTS]


def script(version: int, role: str, other: str) -> str:
    """What makes all that a server of the major ``version`` knows."""
    made = [thing.make for thing in THINGS if thing.since <= version]
    return (BASE + ";".join(made)).replace("{role}", role).replace("{other}", other)
