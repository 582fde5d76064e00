# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The plan against a real server: whatever its keys, every row of a table is in exactly one chunk."""

from __future__ import annotations

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.catalog import read_tables
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot import plan

KEYS = {
    "negative and skewed": ("k bigint PRIMARY KEY", "SELECT (random() ^ 5 * 1e9)::bigint * (i % 2 * 2 - 1) + i FROM"
                            " generate_series(1, 5000) i ON CONFLICT DO NOTHING"),
    "composite": ("k text, b int, PRIMARY KEY (k, b)", "SELECT chr(30 + i % 600) || 'é\'\'\\', i FROM generate_series(1, 3000) i"),
    "one value almost everywhere": ("k int, b int, PRIMARY KEY (k, b)", "SELECT CASE WHEN i < 20 THEN -i ELSE 7 END, i FROM"
                                    " generate_series(1, 3000) i"),
    "uuid": ("k uuid PRIMARY KEY", "SELECT md5(i::text)::uuid FROM generate_series(1, 3000) i"),
    "infinite dates": ("k date PRIMARY KEY", "SELECT d FROM (SELECT 'infinity'::date UNION SELECT '-infinity' UNION"
                       " SELECT date '2000-01-01' + i FROM generate_series(-900, 900) i) x(d)"),
    "NaN": ("k float8 PRIMARY KEY", "SELECT 'NaN'::float8 UNION SELECT 'Infinity' UNION SELECT '-Infinity' UNION SELECT -i / 7.0 FROM"
            " generate_series(1, 2000) i"),
    "bytes": ("k bytea PRIMARY KEY", "SELECT decode(md5(i::text), 'hex') FROM generate_series(1, 2000) i"),
    "enum": ("k weekday, b int, PRIMARY KEY (k, b)", "SELECT (ARRAY['sun','mon','a''b'])[1 + i % 3]::weekday, i FROM"
             " generate_series(1, 999) i"),
    "other order": ("k text COLLATE \"C\" PRIMARY KEY", "SELECT CASE WHEN i % 2 = 0 THEN upper(md5(i::text)) ELSE md5(i::text) END FROM"
                    " generate_series(1, 2000) i"),
    "no key, NULL": ("k int", "SELECT CASE WHEN i % 3 = 0 THEN NULL ELSE i END FROM generate_series(1, 2000) i"),
    "a nullable unique key": ("k int UNIQUE", "SELECT CASE WHEN i % 3 = 0 THEN NULL ELSE i END FROM generate_series(1, 2000) i"),
}  # fmt: skip


@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("by", ["key", "block"])
def test_chunks_partition_a_table(by: str, keys: str, source: lab.Server, source_database: str) -> None:
    """Each row is in exactly one chunk, also those written after the statistics were made and NULLs; on servers before 14 (by key) and
    from 14 on (by block)."""
    columns, rows_ = KEYS[keys]
    with source.connect(source_database) as conn:
        conn.execute("CREATE TYPE weekday AS ENUM ('sun', 'mon', 'a''b')")
        conn.execute(f"CREATE TABLE t ({columns}); ALTER TABLE t ADD COLUMN filler text".encode())
        names = "k, b" if "b int" in columns else "k"
        conn.execute(f"INSERT INTO t ({names}) {rows_}; DELETE FROM t WHERE ctid < '(3,0)' AND ctid > '(1,0)'; ANALYZE t".encode())
        conn.execute(f"INSERT INTO t ({names}) SELECT {names} FROM (SELECT * FROM t) s ON CONFLICT DO NOTHING".encode())
        table = next(table for table in read_tables(conn) if table.name == "t")
        if by == "key":
            conditions = plan.key_conditions(conn, table, 7) or [""]
        else:
            row = conn.execute("SELECT pg_relation_size('t') / 8192").fetchone()
            conditions = [plan.block_condition(low, high) for low, high in plan.cut(row[0] if row else 0, 7)]
        found: dict[str, int] = {}
        for condition in conditions:
            for (place,) in conn.execute(f"SELECT ctid::text FROM ONLY t WHERE {condition or 'true'}".encode()):
                found[place] = found.get(place, 0) + 1
        everything = {place for (place,) in conn.execute("SELECT ctid::text FROM t")}
    assert set(found) == everything and set(found.values()) == {1}
    if by == "block" or keys in ("negative and skewed", "composite", "uuid", "infinite dates", "NaN", "bytes", "other order"):
        assert len(conditions) >= 5, "it was not cut at all"
