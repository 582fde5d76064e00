# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The table of contents of a dump: parsed, filtered, and its SQL adapted to an administrator without superuser rights."""

from __future__ import annotations

from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.identifiers import SCHEMA
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.archive import adapt, parse_contents, split_script, wanted
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.finish import in_dependency_order
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.indexes import Index

LISTING = f"""\
;
; Archive created at 2026-11-22 23:00:00 UTC
;     dbname: x
;
; Selected TOC Entries:
;
6; 2615 16390 SCHEMA - shop app
7; 2615 16391 SCHEMA - {SCHEMA} app
2; 3079 16400 EXTENSION - citext
3500; 0 0 COMMENT - EXTENSION citext{" "}
3501; 0 0 ACL - SCHEMA shop app
215; 1259 16500 TABLE shop table with spaces app
216; 1259 16501 MATERIALIZED VIEW shop totals app
900; 0 0 TABLE ATTACH shop orders_2020 app
901; 1259 16900 TABLE {SCHEMA} chunk app
3300; 2606 16600 CONSTRAINT shop customer customer_pkey app
3301; 1259 16601 INDEX shop customer_name app
3502; 0 0 COMMENT shop INDEX customer_name app
3302; 0 0 INDEX ATTACH shop orders_2020_pkey app
3303; 2606 16602 FK CONSTRAINT shop orders orders_fkey app
3304; 6104 16700 PUBLICATION - mine app
3305; 6104 16701 PUBLICATION - pgm_abc app
3306; 6106 16702 PUBLICATION TABLE shop mine customer app
3307; 3466 16703 EVENT TRIGGER - guard postgres
3308; 0 0 COMMENT - EVENT TRIGGER guard postgres
3309; 0 16501 MATERIALIZED VIEW DATA shop totals app
3310; 826 16800 DEFAULT ACL shop DEFAULT PRIVILEGES FOR TABLES app
"""


def test_contents() -> None:
    entries = parse_contents(LISTING)
    assert len(entries) == 21
    by_kind = {(e.kind, e.rest.rsplit(" ", 1)[0]): e for e in entries}
    assert by_kind["MATERIALIZED VIEW", "shop totals"].oid == 16501
    assert not by_kind["TABLE", "shop table with spaces"].post and by_kind["CONSTRAINT", "shop customer customer_pkey"].post
    assert by_kind["COMMENT", "shop INDEX customer_name"].post, "a comment on an index comes with the index"
    assert by_kind["INDEX ATTACH", "shop orders_2020_pkey"].kind == "INDEX ATTACH"


def test_filter_says_what_it_drops() -> None:
    kept, notes = [], []
    for entry in parse_contents(LISTING):
        yes, note = wanted(entry, event_triggers=False)
        kept += [entry.line] if yes else []
        notes += [note] if note else []
    text = "\n".join(kept)
    for gone in ("PUBLICATION", "EVENT TRIGGER", SCHEMA, "MATERIALIZED VIEW DATA", "COMMENT - EXTENSION"):
        assert gone not in text
    for stays in ("SCHEMA - shop", "EXTENSION - citext", "ACL - SCHEMA shop", "MATERIALIZED VIEW shop", "FK CONSTRAINT", "DEFAULT ACL"):
        assert stays in text
    assert any("mine" in n for n in notes) and any("guard" in n for n in notes) and any("citext" in n for n in notes)
    assert not any("pgm_abc" in n for n in notes)
    guard = next(e for e in parse_contents(LISTING) if e.kind == "EVENT TRIGGER")
    assert wanted(guard, event_triggers=True) == (True, "")


SCRIPT = b"""\
--
-- PostgreSQL database dump
--

\\restrict abcDEF123

SET statement_timeout = 0;
SET transaction_timeout = 0;

--
-- Name: t; Type: TABLE; Schema: s; Owner: postgres
--

CREATE TABLE s.t (id integer);


ALTER TABLE s.t OWNER TO postgres;

--
-- Name: f(); Type: FUNCTION; Schema: s; Owner: app
--

CREATE FUNCTION s.f() RETURNS text LANGUAGE sql AS $$ SELECT '
\\restrict kept
GRANT x TO gone;' $$;


ALTER FUNCTION s.f() OWNER TO app;

--
-- Name: TABLE t; Type: ACL; Schema: s; Owner: postgres
--

REVOKE ALL ON TABLE s.t FROM postgres;
GRANT SELECT ON TABLE s.t TO gone;
GRANT SELECT ON TABLE s.t TO gone2;
SET SESSION AUTHORIZATION "Sales Team";
GRANT SELECT ON TABLE s.t TO "Gone Too" WITH GRANT OPTION;
GRANT SELECT ON TABLE s.t TO app;
RESET SESSION AUTHORIZATION;


--
-- PostgreSQL database dump complete
--

\\unrestrict abcDEF123

"""


def test_script_is_split_without_psqls_own_lines() -> None:
    statements = split_script(SCRIPT)
    assert [s.title for s in statements] == ["TABLE s.t", "FUNCTION s.f()", "ACL s.TABLE t"]
    joined = b"".join(s.sql for s in statements)
    assert b"transaction_timeout" not in joined and b"abcDEF123" not in joined and b"dump complete" not in joined
    assert b"\\restrict kept" in joined, "what a function holds stays"


def test_owners_and_grants_that_the_target_cannot_have() -> None:
    table, function, acl = (adapt(s, unowned={"postgres"}, absent={"gone", "Gone Too"}).sql for s in split_script(SCRIPT))
    assert b"CREATE TABLE" in table and b"OWNER TO" not in table
    assert b"OWNER TO app" in function and b"GRANT x TO gone" in function
    assert b"TO gone;" not in acl and b"Gone Too" not in acl and b"TO gone2;" in acl and b"TO app;" in acl
    assert b'SET LOCAL ROLE "Sales Team";' in acl and b"RESET ROLE;" in acl and b"SESSION AUTHORIZATION" not in acl


def test_notes_of_newer_minor_servers_are_left_out() -> None:
    script = SCRIPT.replace(
        b"CREATE TABLE s.t (id integer);", b"CREATE TABLE s.t (id integer);\nALTER TABLE ONLY s.t ALTER COLUMN id SET (pg_attver=3);"
    )
    assert b"pg_attver" not in adapt(split_script(script)[0], unowned=(), absent=()).sql


def index(**changes: object) -> Index:
    values: dict[str, object] = {
        "table_oid": 1, "oid": 2, "schema": "s", "table": "t", "name": "i", "valid": True,
        "definition": "CREATE UNIQUE INDEX i ON s.t USING btree (a)",
        "constraint_oid": 0, "contype": "", "condef": None, "deferrable": False, "deferred": False, "clustered": False, "replident": False,
        "bytes": 10, "method": "btree", "tablespace": "", "statistics": (),
    }  # fmt: skip
    return Index(**{**values, **changes})  # type: ignore[arg-type]


def test_index_statements() -> None:
    assert index().create() == "CREATE UNIQUE INDEX IF NOT EXISTS i ON s.t USING btree (a)"
    key = index(contype="p", deferrable=True, deferred=True)
    assert key.attach() == 'ALTER TABLE ONLY "s"."t" ADD CONSTRAINT "i" PRIMARY KEY USING INDEX "i" DEFERRABLE INITIALLY DEFERRED'
    assert index(contype="x", method="gist", condef="EXCLUDE USING gist (a WITH =)").attach().endswith('"i" EXCLUDE USING gist (a WITH =)')
    assert index(contype="p", method="gist", condef="PRIMARY KEY (a, b WITHOUT OVERLAPS)").whole
    assert index(clustered=True, replident=True).marks() == [
        'ALTER TABLE "s"."t" CLUSTER ON "i"',
        'ALTER TABLE ONLY "s"."t" REPLICA IDENTITY USING INDEX "i"',
    ]


def test_dependency_order_goes_through_plain_views() -> None:
    uses = {1: {10}, 10: {2}, 2: {3}, 3: {99}}
    assert in_dependency_order([1, 2, 3], uses) == [3, 2, 1]
    assert in_dependency_order([3, 1, 2], uses) == [3, 2, 1]
