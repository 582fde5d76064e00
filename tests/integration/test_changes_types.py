# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Every type of ``pg_type`` that can be a column goes through the stream and comes out as it was, with each plugin."""

from __future__ import annotations

import typing as t
from pathlib import Path

import psycopg
import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from changelab import PLUGINS, StreamLab
from pair import Login
from psycopg import sql

NUMBERS = ("0", "1", "-1")
INTERVAL = ("1 year -2 mons +3 days -04:05:06.789", "178000000 years", "-178000000 years", "0", "24:00:00.000001")
STAMPS = ("infinity", "-infinity", "4713-01-01 00:00:00 BC", "294276-12-31 23:59:59.999999", "2000-02-29 12:00")
TEXTS = ("", " ", "NULL", r"\N", r"\.", "tab\there", "a\nb\r\nc", "\"q\" 'q' \\", "\U0001f600 \u00e9\u2028", "x" * 9000, "\x01\x7f", "{,}")
GEOMETRY = {
    "point": ("(1e300,-0)", "(0.1,1e-300)"),
    "line": ("{1,-1,0}", "{0,1,-3.5}"),
    "lseg": ("[(0,0),(1,-1e10)]",),
    "path": ("[(0,0),(1,1)]", "((0,0),(1,1),(2,0.1))"),
    "box": ("(1,1),(0,0)", "(1e10,0),(-1e10,-1)"),
    "polygon": ("((0,0),(1,1),(2,0))",),
    "circle": ("<(0,0),5>", "<(1.5,-2),0>"),
}
VALUES: dict[str, t.Sequence[str]] = {
    **GEOMETRY,
    "bool": ("true", "false"),
    "int2": (*NUMBERS, "32767", "-32768"),
    "int4": (*NUMBERS, "2147483647", "-2147483648"),
    "int8": (*NUMBERS, "9223372036854775807", "-9223372036854775808", "9007199254740993"),
    "float4": (*NUMBERS, "-0", "0.1", "3.4028235e38", "1e-45"),
    "float8": (*NUMBERS, "-0", "0.30000000000000004", "1.7976931348623157e308", "5e-324"),
    "numeric": (*NUMBERS, "1.00", "1e-40", "9" * 1000, "-0." + "1" * 1000, "12345678901234567890.0123456789"),
    "money": ("-92233720368547758.08", "92233720368547758.07", "0.01"),
    "oid": ("0", "4294967295"),
    "xid": ("0", "4294967295"),
    "cid": ("0", "4294967295"),
    "xid8": ("0", "18446744073709551615"),
    "tid": ("(0,1)", "(4294967295,65535)"),
    "text": TEXTS,
    "varchar": TEXTS,
    "bpchar": ("", "a", "a b", "\u00e9\t"),
    "name": ("", 'Na"me', "x" * 63, "tab\t"),
    "char": ("", "a", "\\", "'"),
    "bytea": (r"\x", r"\x00ff5c270a", r"\xdeadbeef" + "00" * 3000),
    "date": ("4713-01-01 BC", "5874897-12-31", "infinity", "-infinity", "2000-02-29"),
    "time": ("00:00", "24:00", "23:59:59.999999"),
    "timetz": ("24:00-15:59", "00:00+15:59", "12:34:56.789+05:30"),
    "timestamp": STAMPS,
    "timestamptz": STAMPS,
    "interval": INTERVAL,
    "uuid": ("00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
    "inet": ("1.2.3.4/24", "::1", "ffff::/16", "0.0.0.0/0"),
    "cidr": ("10.0.0.0/8", "::/0"),
    "macaddr": ("08:00:2b:01:02:03",),
    "macaddr8": ("08:00:2b:01:02:03:04:05",),
    "bit": ("0", "1"),
    "varbit": ("", "1", "01" * 300),
    "json": ('{"b":1,  "a":"\\u00e9\\\\"}', "null", "[1.50, 1e400]", '"\\ud83d\\ude00"'),
    "jsonb": ('{"b":[1,2.50,null],"a":"\\u00e9"}', "null", "1" + "0" * 300, '"\\""'),
    "jsonpath": ("$.a[*] ? (@ > 1)", 'strict $."x y"'),
    "xml": ('<a b="c">&lt;</a>', "<e/>", "plain \t text"),
    "tsvector": ("", "a:1 b:2A", "'it''s' 'x y':3"),
    "tsquery": ("", "a & b", "!'x y' | c:*"),
    "pg_lsn": ("0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"),
    "txid_snapshot": ("10:20:10,14,15",),
    "pg_snapshot": ("10:20:10,14,15",),
    "refcursor": ("", "cursor\t1"),
    "int2vector": ("1 2 3", ""),
    "oidvector": ("1 4294967295", ""),
    "aclitem": ("=r/postgres",),
    "regclass": ("pg_class", "-"),
    "regtype": ("integer", "text[]", "-"),
    "regproc": ("now", "-"),
    "regprocedure": ("now()", "abs(integer)"),
    "regoper": ("pg_catalog.||/", "0"),
    "regoperator": ("+(integer,integer)",),
    "regrole": ("postgres", "-"),
    "regnamespace": ("pg_catalog",),
    "regconfig": ("english",),
    "regdictionary": ("simple",),
    "regcollation": ('"C"',),
    "int4range": ("empty", "[1,5)", "(,)", "[-2147483648,2147483647)"),
    "int8range": ("empty", "[1,9223372036854775807)", "(,5)"),
    "numrange": ("empty", "[1.10,2.0]", "(,)"),
    "daterange": ("empty", "[2000-01-01,infinity)"),
    "tsrange": ("empty", '["2000-01-01 00:00:00","infinity")'),
    "tstzrange": ("empty", '["2000-01-01 00:00:00+00",)'),
    "int4multirange": ("{}", "{[1,3),[5,9)}"),
    "int8multirange": ("{}", "{(,0),[5,)}"),
    "nummultirange": ("{}", "{[1.5,2.0],(3,)}"),
    "datemultirange": ("{}", "{[2000-01-01,2000-02-01)}"),
    "tsmultirange": ("{}", '{["2000-01-01 00:00:00","2001-01-01 00:00:00")}'),
    "tstzmultirange": ("{}", '{["2000-01-01 00:00:00+00",)}'),
}
"""Representative values by the name of the type; without NaN and Infinity, which wal2json 2.5 is known to lose."""

SPECIAL = {"numeric": ("NaN", "Infinity", "-Infinity"), "float4": ("NaN", "Infinity", "-Infinity"), "float8": ("NaN", "Infinity")}
"""What wal2json 2.5 does not carry."""

REFUSED = (
    "gtsvector",
    "pg_node_tree",
    "pg_ndistinct",
    "pg_dependencies",
    "pg_mcv_list",
    "pg_brin_bloom_summary",
    "pg_brin_minmax_multi_summary",
)
"""No user can write a value of these: their input functions refuse every text. NULL is what a column of them can hold."""

CANDIDATES = """
SELECT t.typname::text, format('%I.%I', n.nspname, t.typname), coalesce(e.typname::text, '')
  FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_type e ON e.typarray = t.oid
 WHERE n.nspname = 'pg_catalog' AND t.typtype IN ('b', 'r', 'm') AND coalesce(e.typtype, 'b') IN ('b', 'r', 'm') ORDER BY 1"""


def possible(conn: psycopg.Connection[t.Any]) -> list[tuple[str, str, str]]:
    """Name, qualified name and element's name of every type that a column may have: the server is asked."""
    found = []
    for row in conn.execute(CANDIDATES).fetchall():
        try:
            with conn.transaction():
                conn.execute(f"CREATE TABLE probe (v {row[1]})")
                conn.execute("DROP TABLE probe")
        except psycopg.Error:
            continue
        found.append(row)
    return found


def values_of(name: str, element: str, plugin: str) -> t.Sequence[str | list[str | None]]:
    """The values to send: of an array, all of its element's in one, with a NULL between."""
    if not element:
        return [*VALUES.get(name, ()), *(SPECIAL.get(name, ()) if plugin != "wal2json" else ())]
    return [[], [None], [*VALUES.get(element, ()), None]]


@pytest.mark.parametrize("plugin", PLUGINS)
def test_every_type_of_the_catalog(
    source: lab.Server,
    target: lab.Server,
    owner: Login,
    admin: Login,
    source_database: str,
    target_database: str,
    spec_factory: t.Callable[..., MigrationSpec],
    tmp_path: Path,
    plugin: str,
) -> None:
    """Insert, update and delete rows with the values of every type, in a table of its own."""
    with source.connect(source_database, owner.name, owner.password) as conn:
        types = possible(conn)
        missing = [name for name, dummy, element in types if not element and name not in VALUES and name not in REFUSED]
        assert missing == [], "types without values"
        ddl = "; ".join(f'CREATE TABLE "t {name}" (id int PRIMARY KEY, v {kind}, n int)' for name, kind, dummy in types)
        conn.execute(ddl)
        with target.connect(source_database, admin.name, admin.password) as there:
            there.execute(ddl)
        stream = StreamLab(spec_factory("types", [source_database]), tmp_path / "spool", plugin)
        try:
            stream.start()
            for name, kind, element in types:
                table = sql.Identifier(f"t {name}")
                statement = sql.SQL("INSERT INTO {} VALUES (%s, {}, 0)")
                conn.execute(statement.format(table, sql.SQL("NULL")), [0])
                for number, value in enumerate(values_of(name, element, plugin), 1):
                    literal = _array(value, ";" if element == "box" else ",") if isinstance(value, list) else value
                    if isinstance(value, list) and not any(v is not None for v in value) and element in REFUSED:
                        continue
                    conn.execute(statement.format(table, sql.SQL("{}::{}").format(sql.Literal(literal), sql.SQL(kind))), [number])
                conn.execute(sql.SQL("UPDATE {} SET n = 1 WHERE id % 2 = 0; UPDATE {} SET id = id + 100 WHERE id = 1").format(table, table))
                conn.execute(sql.SQL("UPDATE {0} SET v = (SELECT v FROM {0} WHERE id = 101) WHERE id = 0").format(table))
                conn.execute(sql.SQL("DELETE FROM {} WHERE id = 3").format(table))
            stream.drain()
            assert stream.differences() == {}
            assert stream.errors == []
            assert stream.reports["fallbacks"] == 0
        finally:
            stream.close()


def _array(values: t.Sequence[str | None], delimiter: str) -> str:
    """The text of an array; boxes have a delimiter of their own."""
    quoted = ("NULL" if v is None else '"' + v.replace("\\", "\\\\").replace('"', '\\"') + '"' for v in values)
    return "{" + delimiter.join(quoted) + "}"
