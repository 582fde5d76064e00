# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Values of every kind through each plugin: extremes, long numbers, quotes, control characters."""

from __future__ import annotations

import pytest
from changelab import PLUGINS, Start, same

TYPES = """
CREATE TYPE mood AS ENUM ('sad', 'o''k', 'happy, very');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN blob AS bytea;
CREATE TYPE pair AS (a int, b text);
CREATE TABLE kinds (id int PRIMARY KEY, i2 smallint, i8 bigint, n numeric, np numeric(30, 10), f4 real, f8 double precision, b boolean,
    c "char", bc char(5), vc varchar(40), tx text, by bytea, bl blob, d date, ts timestamp, tz timestamptz, ti time, tt timetz,
    iv interval,
    u uuid, ip inet, ci cidr, ma macaddr, j json, jb jsonb, x xml, m money, bt bit(5), bv bit varying, pt point, bx box, pg polygon,
    cr circle,
    ai int[], at text[], ab bytea[], ra int4range, mr nummultirange, mo mood, am mood[], po positive, pa pair, apa pair[], nm name,
    oi oid,
    ts_v tsvector, ts_q tsquery, lsn pg_lsn, xi xid8);
"""
ROWS = (
    r"""INSERT INTO kinds VALUES (1, -32768, -9223372036854775808, 1e-40, -0.0000000001, 1.17549435e-38, 2.2250738585072014e-308, true,
    'x', 'ab',
    E'a\tb\nc\\d', E'\\N\t\\.\r\n\x01\x7f', '\x00ff5c', '\xdeadbeef', '0044-03-15 BC', 'infinity', '-infinity', '24:00',
    '23:59:59.999999-15:59',
    '-1 year -2 mons +3 days -04:05:06.789', '00000000-0000-0000-0000-000000000001', '1.2.3.4/24', '10.0.0.0/8', '08:00:2b:01:02:03',
    '{"b":1,  "a":"\u00e9\\"}', '{"b":[1,2.50,null],"a":"\u00e9"}', '<a b="c">&lt;</a>', -12345.67, B'10101', B'', '(1e300,-0)',
    '((0,0),(1,1))',
    '((0,0),(1,1),(2,0))', '<(0,0),5>', '{NULL,1,-2}', E'{NULL,"NULL","a\\"b","c\\\\d","",","}', '{"\\xde","\\x"}', '[1,5)',
    '{[1,2),(3,)}',
    'o''k', '{sad,"happy, very"}', 5, '(1,"a,b")', '{"(1,\"x y\")","(,)"}', 'Na"me', 4294967295, 'a:1 b:2A', 'a & b', '16/B374D848',
    '18446744073709551615')""",
    "INSERT INTO kinds (id) VALUES (2)",
    "INSERT INTO kinds (id, n, f4, f8, tx, bc) VALUES (3, repeat('9', 1000)::numeric, '-0', '-0', '', '')",
    "INSERT INTO kinds (id, n, np, f8, f4) VALUES (4, ('0.' || repeat('1', 1000))::numeric, 12345678901234567890.0123456789, 1e300, 0.1)",
    "INSERT INTO kinds (id, n, f8, i8) VALUES (5, (repeat('7', 6000) || '.5')::numeric, 0.1 + 0.2, 9007199254740993)",
    "INSERT INTO kinds (id, n, f8) VALUES (6, repeat('7', 6000)::numeric, 123456789012345678)",
    "INSERT INTO kinds (id, tx) VALUES (7, E'\\U0001F600 \\u00e9 \\u2028 \"quoted\" \\\\u0041')",
    "UPDATE kinds SET i8 = i8 - 1, bt = B'00000' WHERE id = 5",
    "UPDATE kinds SET f8 = '-0', id = 30 WHERE id = 3",
    "DELETE FROM kinds WHERE id = 6",
)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_types(streaming: Start, plugin: str) -> None:
    """Values of every kind arrive as they are: extremes, long numbers, quotes, control characters."""
    stream = streaming(plugin, TYPES)
    with stream.app() as conn:  # type: ignore[attr-defined]
        for statement in ROWS:
            conn.execute(statement)
        if plugin != "wal2json":
            conn.execute(
                "INSERT INTO kinds (id, n, np, f4, f8) VALUES (8, 'NaN', 'NaN', 'Infinity', '-Infinity'),"
                " (9, '-Infinity', NULL, 'NaN', 'NaN')"
            )
    same(stream)
    with stream.app() as conn:  # type: ignore[attr-defined]  # the same by sets
        conn.execute(
            "INSERT INTO kinds SELECT (jsonb_populate_record(k, jsonb_build_object('id', g * 1000 + k.id))).*"
            " FROM kinds k, generate_series(1, 9) g"
        )
        conn.execute("UPDATE kinds SET i2 = 1")
    same(stream)
