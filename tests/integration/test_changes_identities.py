# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""How a changed row is found on the target: keys of every kind, clashes, columns that differ, rows that are missing."""

from __future__ import annotations

import time

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import StreamError
from changelab import PLUGINS, Start, same


@pytest.mark.parametrize("plugin", PLUGINS)
def test_identities(streaming: Start, plugin: str) -> None:
    """Keys of many kinds, replica identity by index and FULL with and without a key, the ALWAYS identity outside of the key."""
    stream = streaming(
        plugin,
        """CREATE TYPE mood AS ENUM ('a', 'b', 'c'); CREATE DOMAIN code AS text;
        CREATE TABLE by_index (a int NOT NULL, b text NOT NULL, c int); CREATE UNIQUE INDEX by_index_u ON by_index (b, a);
        ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_u;
        CREATE TABLE full_key (id int PRIMARY KEY, big text, v int); ALTER TABLE full_key REPLICA IDENTITY FULL;
        ALTER TABLE full_key ALTER big SET STORAGE EXTERNAL;
        CREATE TABLE full_text (f float8, n numeric, j json, c char(4), b bool, p point, i interval, x text);
        ALTER TABLE full_text REPLICA IDENTITY FULL;
        CREATE TABLE enumerated (m mood, d code, u uuid, y bytea, v int, PRIMARY KEY (y, m, d, u));
        CREATE TABLE always (id int PRIMARY KEY, seq int GENERATED ALWAYS AS IDENTITY, big text, v int);
        ALTER TABLE always ALTER big SET STORAGE EXTERNAL;
        CREATE TABLE only_key (id numeric PRIMARY KEY); CREATE TABLE spaced (c char(6) PRIMARY KEY, v int);
        CREATE TABLE bytes (y bytea PRIMARY KEY, v int)""",
    )
    with stream.app() as conn:  # type: ignore[attr-defined]
        for count in (3, 40):  # row by row, and as sets
            conn.execute(
                f"""INSERT INTO by_index SELECT g, 'x' || g, 0 FROM generate_series(1, {count}) g; UPDATE by_index SET c = c + 1;
                UPDATE by_index SET b = b || '!' WHERE a % 2 = 0; DELETE FROM by_index WHERE a % 3 = 0;
                INSERT INTO full_key SELECT g, repeat('t', 5000) || g, 0 FROM generate_series(1, {count}) g; UPDATE full_key SET v = id;
                UPDATE full_key SET id = -id WHERE id > 1; DELETE FROM full_key WHERE id = -2;
                INSERT INTO enumerated SELECT 'a', 'c' || g, md5(g::text)::uuid, decode(md5(g::text), 'hex'), 1 FROM generate_series(1,
                {count}) g;
                UPDATE enumerated SET v = 2; UPDATE enumerated SET m = 'b' WHERE d > 'c2'; DELETE FROM enumerated WHERE d = 'c3';
                INSERT INTO always (id, big, v) SELECT g, repeat('t', 5000), 0 FROM generate_series(1, {count}) g;
                UPDATE always SET v = v + 1;
                UPDATE always SET big = 'short' WHERE id = 1; UPDATE always SET id = -id WHERE id = 2;
                UPDATE always SET seq = DEFAULT WHERE id = 3;
                INSERT INTO only_key SELECT g FROM generate_series(1, {count}) g; UPDATE only_key SET id = id + 0.5;
                UPDATE only_key SET id = id;
                INSERT INTO spaced SELECT 'a' || g, 0 FROM generate_series(1, {count}) g; UPDATE spaced SET v = 1;
                UPDATE spaced SET c = c || 'b';
                INSERT INTO bytes SELECT decode(md5(g::text), 'hex'), 0 FROM generate_series(1, {count}) g; UPDATE bytes SET v = 1;
                UPDATE bytes SET y = '\\x00' WHERE y = decode(md5('1'), 'hex'); DELETE FROM bytes WHERE y = decode(md5('2'), 'hex')"""
            )
            same(stream)
            conn.execute("TRUNCATE by_index, full_key, enumerated, always, only_key, spaced, bytes")
            conn.execute(
                """INSERT INTO full_text VALUES ('-0', 1.0, '{"a": 1}', 'x', true, '(1,2)', '1 day', NULL), ('0', 1.00, '{"a":1}',
                'x ', false, '(1,2)',
                '24 hours', ''), ('0', 1.00, '{"a":1}', 'x', false, '(1,2)', '24 hours', '')"""
            )
            conn.execute(
                "UPDATE full_text SET x = 'minus' WHERE f::text = '-0';"
                " DELETE FROM full_text WHERE ctid IN (SELECT ctid FROM full_text WHERE n = 1 LIMIT 1)"
            )
            conn.execute("UPDATE full_text SET i = '1 mon' WHERE ctid IN (SELECT ctid FROM full_text WHERE x = '' LIMIT 1)")
            same(stream)


@pytest.mark.parametrize("plugin", PLUGINS)
@pytest.mark.parametrize("statement, kind", [("DELETE FROM t WHERE id = 2", "UPDATE"), ("INSERT INTO t VALUES (9, 9)", "INSERT")])
def test_missing_or_extra_row_is_an_error(streaming: Start, plugin: str, statement: str, kind: str) -> None:
    """Law 5: an UPDATE that hits no row, an INSERT of a row that is there: never skipped."""
    stream = streaming(plugin, "CREATE TABLE t (id int PRIMARY KEY, v int)", "INSERT INTO t VALUES (1, 1), (2, 2)")
    with stream.app() as conn, stream.there() as there:  # type: ignore[attr-defined]
        there.execute(statement)
        conn.execute("UPDATE t SET v = 7 WHERE id = 2" if kind == "UPDATE" else "INSERT INTO t VALUES (9, 1)")
        with pytest.raises(StreamError) as caught:
            stream.drain(20)
    assert caught.value.details["statement"] == kind


@pytest.mark.parametrize("plugin", PLUGINS)
def test_unique_values_swapped_as_a_set_fall_back(streaming: Start, plugin: str) -> None:
    """A set that clashes on a second unique index goes row by row, and the stream goes on in sets (law 7)."""
    stream = streaming(
        plugin,
        "CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE)",
        "INSERT INTO t SELECT g, g FROM generate_series(1, 60) g",
        running=False,
    )
    with stream.app() as conn:  # type: ignore[attr-defined]
        conn.execute("UPDATE t SET u = u + 1000; UPDATE t SET u = 61 - (u - 1000); UPDATE t SET u = u - 1 WHERE id = 60 AND u > 1")
        stream.start()
        same(stream)
        assert stream.stream is not None
        conn.execute("INSERT INTO t SELECT g, g FROM generate_series(100, 200) g")
    same(stream)
    time.sleep(0.6)
    assert stream.reports["fallbacks"] >= 1


@pytest.mark.parametrize("plugin", PLUGINS)
def test_other_column_order_and_generated_there(streaming: Start, plugin: str) -> None:
    """Columns are matched by name; what the target generates it generates itself; dropped columns leave no trace."""
    stream = streaming(
        plugin,
        "CREATE TABLE t (id int PRIMARY KEY, gone int, a text, b int); ALTER TABLE t DROP COLUMN gone; ALTER TABLE t ADD c int DEFAULT 5",
        target_ddl="CREATE TABLE t (c int, b int, id int PRIMARY KEY, a text)",
    )
    with stream.app() as conn:  # type: ignore[attr-defined]
        conn.execute(
            "INSERT INTO t SELECT g, 'a' || g, g FROM generate_series(1, 50) g;"
            " UPDATE t SET b = -b, c = 6 WHERE id < 5; DELETE FROM t WHERE id = 7"
        )
    same(stream)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_new_column_is_noticed(streaming: Start, plugin: str) -> None:
    """A column that the target does not have stops the stream and is named: by its first change, or by the look at the catalog."""
    stream = streaming(plugin, "CREATE TABLE t (id int PRIMARY KEY)")
    with stream.app() as conn:  # type: ignore[attr-defined]
        conn.execute("ALTER TABLE t ADD extra int")
        conn.execute("INSERT INTO t VALUES (1, 2)")
        with pytest.raises(StreamError) as caught:
            stream.drain(20)
    assert caught.value.code in ("PGM4022", "PGM4050")
    assert "extra" in caught.value.message


@pytest.mark.parametrize("plugin", PLUGINS)
def test_full_identity_as_a_set(streaming: Start, plugin: str) -> None:
    """Many changes of a table that only whole rows identify: one look at the table a batch, one row a change, duplicates, and values that
    are equal but not the same."""
    ddl = (
        "CREATE TABLE f (n numeric, x text, b bytea, big text, g int GENERATED ALWAYS AS IDENTITY);"
        " ALTER TABLE f REPLICA IDENTITY FULL; ALTER TABLE f ALTER big SET STORAGE EXTERNAL"
    )
    stream = streaming(plugin, ddl, running=False)
    with stream.app() as conn:  # type: ignore[attr-defined]
        conn.execute(
            "INSERT INTO f (n, x, b, big) SELECT (g % 9)::numeric(9, 2), nullif('a' || g % 5, 'a3'), '\\x00ff', repeat('y', 3000)"
            " FROM generate_series(1, 300) g; INSERT INTO f (n, x) SELECT 1, '' FROM generate_series(1, 40) g;"
            " INSERT INTO f (n, x) SELECT 1.0, NULL FROM generate_series(1, 40) g; UPDATE f SET n = '-0' WHERE g % 11 = 0"
        )
    stream.start()
    stream.drain()
    with stream.app() as conn:  # type: ignore[attr-defined]
        conn.execute(
            "ALTER TABLE f REPLICA IDENTITY FULL; UPDATE f SET n = n + 1 WHERE n = 1; UPDATE f SET n = n - 1 WHERE n = 2 AND x = ''"
        )
        conn.execute("DELETE FROM f WHERE ctid IN (SELECT ctid FROM f WHERE n = 2 LIMIT 17); UPDATE f SET x = big WHERE n = 4")
        conn.execute(
            "INSERT INTO f (n, x) VALUES (7, 'in'), (7, 'in'); UPDATE f SET x = 'out' WHERE x = 'in'; DELETE FROM f WHERE x = 'a1'"
        )
        conn.execute("TRUNCATE f; INSERT INTO f (n) SELECT g % 3 FROM generate_series(1, 90) g; DELETE FROM f WHERE g % 2 = 0")
    same(stream)
    assert stream.reports.get("fallbacks", 0) == 0
