# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Large objects: equal in content, owner, grants and comment after the copy and again after what the cutover does, whatever their size."""

from __future__ import annotations

import collections
import random
import threading
import typing as t

import psycopg
import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import CopyError
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.catalog import PIECE
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.session import connect
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.largeobjects import (
    SMALL,
    STRETCH,
    LargeObjects,
    sync_large_objects,
)
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.target import prepare_target
from copylab import Held, copy

PAGE = 2048
"""Bytes of a large object in a row of ``pg_largeobject`` (LOBLKSIZE of PostgreSQL's large_object.h)."""

SIZES = [0, 1, PAGE - 1, PAGE, PAGE + 1, SMALL - 1, SMALL, SMALL + 1, 3 << 20, PIECE - 1, PIECE, PIECE + 1, 9 << 20]
FIRST = 1_000_000
MANY = 2 * STRETCH + 7
SEED = 1
ROLES = ("app", '"Sales Team"', "reader", "PUBLIC")

READ = """
    SELECT m.oid::bigint, lo_get(m.oid), replace(pg_get_userbyid(m.lomowner), 'postgres', 'admin'),
           obj_description(m.oid, 'pg_largeobject'),
           ARRAY(SELECT replace(CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END, 'postgres', 'admin')
                        || ' ' || a.privilege_type || ' ' || a.is_grantable
                   FROM aclexplode(coalesce(m.lomacl, acldefault('L', m.lomowner))) a
                  WHERE a.grantee NOT IN (SELECT oid FROM pg_roles WHERE rolname = 'migrator') ORDER BY 1)
      FROM pg_largeobject_metadata m ORDER BY 1"""
"""What both sides must agree on. Objects of the superuser belong to the administrator; the target does not have ``migrator``."""


def contents(server: lab.Server, database: str) -> dict[int, tuple[t.Any, ...]]:
    with server.connect(database) as conn:
        return {row[0]: row[1:] for row in conn.execute(READ.encode())}


def assert_same(source: lab.Server, target: lab.Server, database: str) -> None:
    here, there = contents(source, database), contents(target, database)
    assert here.keys() == there.keys()
    wrong = {oid: (here[oid][1:], there[oid][1:]) for oid in here if here[oid][1:] != there[oid][1:]}
    assert not wrong and not [oid for oid in here if here[oid][0] != there[oid][0]]


def populate(conn: psycopg.Connection[t.Any]) -> None:
    """Objects of every size, with holes, with zeros at the end, and thousands of small ones; of several owners and with many grants."""
    for number, size in enumerate(SIZES):
        conn.execute("SELECT lo_from_bytea(%s, %b)", [FIRST + number, random.Random(size).randbytes(size)])
    conn.execute("SELECT lo_create(500), lo_put(500, 10000000, 'behind a hole'), lo_create(501), lo_put(501, 9000000, '\\x00')")
    conn.execute("SELECT lo_create(502), lo_put(502, 300, 'near'), lo_from_bytea(4294967295, 'the last one')")
    conn.execute(
        f"SELECT lo_from_bytea(10000 + i, convert_to(repeat(md5(i::text), i % 5), 'UTF8')) FROM generate_series(1, {MANY}) i".encode()
    )
    conn.execute(
        f"DO $$ BEGIN FOR i IN 10001 .. {10000 + MANY} LOOP"
        " EXECUTE format('ALTER LARGE OBJECT %s OWNER TO %s', i, (ARRAY['app', '\"Sales Team\"', 'postgres'])[1 + i % 3]);"
        " EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO migrator', i); END LOOP; END $$"
    )
    conn.execute(
        "ALTER LARGE OBJECT 10001 OWNER TO app; REVOKE UPDATE ON LARGE OBJECT 10001 FROM app; GRANT ALL ON LARGE OBJECT 10002 TO PUBLIC;"
        'GRANT SELECT ON LARGE OBJECT 10003 TO "Sales Team" WITH GRANT OPTION; GRANT UPDATE ON LARGE OBJECT 10003 TO reader;'
        "COMMENT ON LARGE OBJECT 10001 IS 'it''s \\ \"quoted\" %s {}'; COMMENT ON LARGE OBJECT 10002 IS 'goes';"
        f"ALTER LARGE OBJECT {FIRST + 9} OWNER TO \"Sales Team\"; COMMENT ON LARGE OBJECT {FIRST + 9} IS 'long'"
    )
    grant_reading(conn)


def grant_reading(conn: psycopg.Connection[t.Any]) -> None:
    for (oid,) in conn.execute("SELECT oid FROM pg_largeobject_metadata WHERE oid < 1000 OR oid >= 1000000").fetchall():
        conn.execute(f"GRANT SELECT ON LARGE OBJECT {oid} TO migrator".encode())


def change(conn: psycopg.Connection[t.Any], seed: int) -> int:
    """Some of everything that can happen to a large object, on many of them at random; how many are not as they were."""
    dice = random.Random(seed)
    changed = set()
    deeds: collections.deque[str] = collections.deque()
    for oid in dice.sample(range(10001, 10001 + MANY), 400):
        role, privilege = dice.choice(ROLES), dice.choice(["SELECT", "UPDATE", "ALL"])
        option = " WITH GRANT OPTION" if role != "PUBLIC" and dice.random() < 0.3 else ""
        deed = dice.choice(["gone", "content", "longer", "owner", "grant", "revoke", "comment"])
        deeds.append(
            {
                "gone": f"SELECT lo_unlink({oid})",
                "content": f"SELECT lo_put({oid}, 0, 'other')",
                "longer": f"SELECT lo_put({oid}, {dice.choice([SMALL, PAGE, 5])}, '{deed}{oid}')",
                "owner": f"ALTER LARGE OBJECT {oid} OWNER TO {dice.choice(ROLES[:2])}",
                "grant": f"GRANT {privilege} ON LARGE OBJECT {oid} TO {role}{option}",
                "revoke": f"REVOKE UPDATE ON LARGE OBJECT {oid} FROM PUBLIC, app CASCADE",
                "comment": f"COMMENT ON LARGE OBJECT {oid} IS {dice.choice(['NULL', quoted(oid)])}",
            }[deed]
        )
        changed.add(oid)
    for deed in deeds:
        conn.execute(deed.encode())
    conn.execute("COMMENT ON LARGE OBJECT 10002 IS NULL; SELECT lo_put(500, 5000000, 'in the hole'), lo_unlink(501)")
    conn.execute(f"SELECT lo_from_bytea({FIRST + 90}, 'fresh'), lo_put({FIRST + 11}, {PIECE}, 'x')".encode())
    grant_reading(conn)
    return len(changed | {10002}) + 4


def quoted(oid: int) -> str:
    return f"'said of {oid}'"


def test_equal_after_copy_and_cutover(source, target, source_database, spec_factory, members, tmp_path) -> None:
    """The copy is of the snapshot; the cutover brings what was made, removed, rewritten, given away, granted or said since, and nothing
    is left to do then."""
    with source.connect(source_database) as conn:
        populate(conn)
    spec = spec_factory("blobs", [source_database])
    prepare_target(spec, source_database)
    held = Held(source, source_database)
    with source.connect(source_database) as conn:
        conn.execute("SELECT lo_from_bytea(777, 'after the snapshot'); GRANT SELECT ON LARGE OBJECT 777 TO migrator")
    result = copy(spec, source_database, tmp_path, held)
    assert 777 not in contents(target, source_database)
    source.execute("SELECT lo_unlink(777)", source_database)
    assert_same(source, target, source_database)
    last: dict[str, t.Any] = {}
    for report in result["reports"]:
        last.update(report)
    total = source.execute("SELECT count(*), sum(length(lo_get(oid))) FROM pg_largeobject_metadata", source_database)[0]
    assert (last["large_objects_done"], last["large_objects_total"], last["large_object_bytes"]) == (total[0], *total)
    assert last["bytes_moved"] >= total[1]
    notes = " ".join(result["notes"])
    assert "Large objects of the role postgres belong to admin" in notes and "Grants on large objects to the role migrator" in notes
    with source.connect(source_database) as conn:
        changed = change(conn, SEED)
    target.execute("SELECT lo_from_bytea(600, 'nobody knows of it'), lo_from_bytea(2000000000, 'nor of this')", source_database)
    target.execute("ALTER LARGE OBJECT 600 OWNER TO admin; ALTER LARGE OBJECT 2000000000 OWNER TO admin", source_database)
    with connect(spec.source, source_database) as here, connect(spec.target, source_database) as there:
        assert 300 < sync_large_objects(here, there) <= changed + 2
        assert_same(source, target, source_database)
        assert sync_large_objects(here, there) == 0


def test_holes_stay_holes(source, target, source_database, target_database, spec_factory, migrator) -> None:
    """What takes no room on the source takes none on the target, but the object is as long."""
    source.execute(f"SELECT lo_create(1), lo_put(1, {20 << 20}, 'end'); GRANT SELECT ON LARGE OBJECT 1 TO migrator", source_database)
    spec = spec_factory("holes", [source_database])
    with connect(spec.source, source_database) as here, connect(spec.target, source_database) as there:
        assert sync_large_objects(here, there) == 1
    pages = target.execute("SELECT count(*) FROM pg_largeobject", source_database)[0][0]
    assert pages <= PIECE // PAGE and contents(target, source_database)[1][0] == bytes(20 << 20) + b"end"


def test_stopped_and_gone_on_with(source, target, source_database, spec_factory, members, tmp_path) -> None:
    """Held back by the rate like rows; broken off, no object is there in part, and the next run writes the others alone."""
    with source.connect(source_database) as conn:
        for oid in range(1, 9):
            conn.execute("SELECT lo_from_bytea(%s, %b)", [oid, random.Random(oid).randbytes(SMALL + 1)])
        conn.execute("DO $$ BEGIN FOR i IN 1 .. 8 LOOP EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO migrator', i); END LOOP; END $$")
    spec = spec_factory("slow-blobs", [source_database], copy={"throttle": 4 * SMALL})
    prepare_target(spec, source_database)
    held, stop = Held(source, source_database), threading.Event()

    def heard(figures: dict[str, t.Any]) -> None:
        if figures.get("large_objects_done"):
            stop.set()

    assert copy(spec, source_database, tmp_path, held, stop, report=heard)["stopped"]
    there = contents(target, source_database)
    assert 1 <= len(there) < 8 and all(len(facts[0]) == SMALL + 1 for facts in there.values())
    written: list[int] = []
    with connect(spec.source, source_database) as here, connect(spec.target, source_database) as other:
        assert LargeObjects(here, other, written.append).copy() == 8 - len(there)
    assert sum(written) == (8 - len(there)) * (SMALL + 1)
    assert_same(source, target, source_database)


def test_one_that_may_not_be_read_is_named(source, target, source_database, spec_factory, members, tmp_path) -> None:
    source.execute("SELECT lo_from_bytea(4711, 'secret')", source_database)
    spec = spec_factory("unreadable-blob", [source_database])
    prepare_target(spec, source_database)
    with pytest.raises(CopyError, match="large object 4711") as caught:
        copy(spec, source_database, tmp_path, Held(source, source_database))
    assert caught.value.code == "PGM3010" and caught.value.sqlstate == "42501" and "GRANT SELECT ON LARGE OBJECT" in caught.value.hint
