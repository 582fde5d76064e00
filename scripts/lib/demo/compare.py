# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Are two databases equal? Asked without a line of the product's own code, so that its certificate is not its own witness.

Rows: of every table the number, and the sums of two 60-bit halves of the MD5 of each row's text, on both sides. Objects:
every definition that PostgreSQL prints (columns, constraints, indexes, views, functions, triggers, policies, rights, comments).
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import typing as t

import psycopg
from psycopg import sql

Connection = psycopg.Connection[t.Any]
OURS = "n.nspname !~ '^pgm?_' AND n.nspname <> 'information_schema'"
"""Schemas to look at: not the system's, not the migration's own ledger on the target."""

SETTINGS = (
    "SET DateStyle = 'ISO, YMD'; SET IntervalStyle = postgres; SET TimeZone = 'UTC'; SET extra_float_digits = 3; SET bytea_output = hex;"
    " SET search_path = pg_catalog; SET lc_monetary = 'C'; SET row_security = off"
)

CLASS = "pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
OBJECTS = {
    "column": f"""SELECT format('%s.%I %s %s %s %s%s %s', c.oid::regclass, attname, format_type(atttypid, atttypmod), attnotnull,
        pg_get_expr(adbin, adrelid), attidentity, attgenerated, (SELECT collname FROM pg_collation WHERE oid = attcollation))
        FROM {CLASS} JOIN pg_attribute a ON c.oid = attrelid LEFT JOIN pg_attrdef d ON adrelid = attrelid AND adnum = attnum
        WHERE attnum > 0 AND NOT attisdropped AND relkind IN ('r', 'p', 'v', 'm', 'c') AND {OURS}""",
    "constraint": f"""SELECT format('%s %I %s', CASE WHEN conrelid > 0 THEN conrelid::regclass::text ELSE contypid::regtype::text END,
        conname, pg_get_constraintdef(c.oid)) FROM pg_constraint c JOIN pg_namespace n ON n.oid = connamespace WHERE {OURS}""",
    "index": f"SELECT pg_get_indexdef(indexrelid) FROM {CLASS} JOIN pg_index i ON c.oid = indexrelid WHERE {OURS} AND indisvalid",
    "view": f"SELECT format('%s %s %s', c.oid::regclass, relkind, pg_get_viewdef(c.oid))"
    f" FROM {CLASS} WHERE relkind IN ('v', 'm') AND {OURS}",
    "function": f"""SELECT CASE WHEN prokind = 'a' THEN p.oid::regprocedure::text ELSE pg_get_functiondef(p.oid) END FROM pg_proc p
        JOIN pg_namespace n ON n.oid = pronamespace WHERE {OURS}""",
    "trigger": f"""SELECT format('%s %s', pg_get_triggerdef(t.oid), tgenabled) FROM {CLASS} JOIN pg_trigger t ON c.oid = tgrelid
        WHERE NOT tgisinternal AND {OURS}""",
    "policy": f"""SELECT format('%s %I %s %s %s', polrelid::regclass, polname, polcmd, polroles::regrole[],
        pg_get_expr(polqual, polrelid)) FROM {CLASS} JOIN pg_policy ON c.oid = polrelid WHERE {OURS}""",
    "type": f"""SELECT format('%s %s %s', t.oid::regtype, typtype, (SELECT string_agg(enumlabel, ',' ORDER BY enumsortorder)
        FROM pg_enum WHERE enumtypid = t.oid)) FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace
        WHERE typtype IN ('e', 'd', 'r') AND {OURS}""",
    "owner and rights": f"""SELECT format('%s %s %s', c.oid::regclass, relowner::regrole,
        (SELECT string_agg(x::text, ',' ORDER BY x::text COLLATE "C") FROM unnest(relacl) x)) FROM {CLASS}
        WHERE relkind IN ('r', 'p', 'v', 'm', 'S') AND {OURS}""",
    "partition": f"""SELECT format('%s %s %s', c.oid::regclass, inhparent::regclass, pg_get_expr(c.relpartbound, c.oid))
        FROM {CLASS} JOIN pg_inherits i ON i.inhrelid = c.oid WHERE c.relkind IN ('r', 'p') AND {OURS}""",
    "comment": f"""SELECT format('%s %s %s', c.oid::regclass, objsubid, description) FROM {CLASS}
        JOIN pg_description d ON c.oid = objoid AND classoid = 'pg_class'::regclass WHERE {OURS}""",
}


@dataclasses.dataclass
class Difference:
    """One thing that is not the same: what, and how it is on both sides."""

    what: str
    source: str
    target: str


@dataclasses.dataclass
class Comparison:
    """What was compared, and what was not equal."""

    tables: int = 0
    rows: int = 0
    objects: int = 0
    large_objects: int = 0
    sequences: int = 0
    differences: list[Difference] = dataclasses.field(default_factory=list)


def session(dsn: str, snapshot: str = "") -> Connection:
    """A read-only session with settings that make texts comparable; ``snapshot``: what it sees."""
    conn = psycopg.connect(dsn, autocommit=True)
    conn.execute(SETTINGS)
    conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    if snapshot:
        conn.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot)))
    return conn


def tables(conn: Connection) -> list[tuple[str, str]]:
    """Schema and name of all tables that hold rows, largest first."""
    query = f"""SELECT nspname, relname FROM {CLASS}
        WHERE relkind = 'r' AND relpersistence <> 't' AND {OURS} ORDER BY relpages DESC, 1, 2"""
    return conn.execute(t.cast(t.Any, query)).fetchall()


def digest(conn: Connection, table: tuple[str, str]) -> tuple[t.Any, ...]:
    """Rows and the sums of their digests; the same for the same rows in any order."""
    query = """SELECT count(*), coalesce(sum(('x' || substr(h, 1, 15))::bit(60)::bigint), 0),
        coalesce(sum(('x' || substr(h, 17, 15))::bit(60)::bigint), 0) FROM (SELECT md5(x::text) AS h FROM {} x) y"""
    row = conn.execute(sql.SQL(query).format(sql.Identifier(*table))).fetchone()
    return t.cast("tuple[t.Any, ...]", row)


def objects(conn: Connection) -> set[tuple[str, str]]:
    """Kind and definition of everything that is not a row, what belongs to extensions among it."""
    found = set()
    for kind, query in OBJECTS.items():
        found.update((kind, text) for (text,) in conn.execute(t.cast(t.Any, query)).fetchall())
    return found


def large_objects(conn: Connection) -> list[tuple[t.Any, ...]]:
    """Number, digest and rights of each large object."""
    query = "SELECT oid, md5(lo_get(oid)), lomowner::regrole::text FROM pg_largeobject_metadata ORDER BY 1"
    return conn.execute(query).fetchall()


def sequences(conn: Connection) -> dict[str, int]:
    """The last value of each sequence that was used."""
    query = f"SELECT c.oid::regclass::text, pg_sequence_last_value(c.oid::regclass) FROM {CLASS} WHERE relkind = 'S' AND {OURS}"
    return {name: value for name, value in conn.execute(t.cast(t.Any, query)).fetchall() if value is not None}


def compare(source: str, target: str, snapshot: str, target_sequences: dict[str, int]) -> Comparison:
    """Compare the database ``source`` as it is now with ``target`` as ``snapshot`` sees it (both connection strings).

    ``target_sequences``: their values when the snapshot was taken; each must be at least the source's.
    """
    result = Comparison()
    with session(source) as here, session(target, snapshot) as there, concurrent.futures.ThreadPoolExecutor(2) as pool:
        mine = tables(here)
        others = set(tables(there))
        for table in mine:
            name = ".".join(table)
            if table not in others:
                result.differences.append(Difference(f"table {name}", "present", "missing"))
                continue
            one, other = pool.map(digest, (here, there), (table, table))
            result.tables += 1
            result.rows += one[0]
            if one != other:
                result.differences.append(Difference(f"rows of {name}", str(one), str(other)))
        result.differences += [Difference(f"table {'.'.join(table)}", "missing", "present") for table in sorted(others - set(mine))]
        ones, theirs = pool.map(objects, (here, there))
        result.objects = len(ones & theirs)
        result.differences += [Difference(kind, text, "missing") for kind, text in sorted(ones - theirs)]
        result.differences += [Difference(kind, "missing", text) for kind, text in sorted(theirs - ones)]
        blobs, other_blobs = pool.map(large_objects, (here, there))
        result.large_objects = len(blobs)
        if blobs != other_blobs:
            result.differences.append(Difference("large objects", f"{len(blobs)}", f"{len(other_blobs)}, or not the same"))
        for name, value in sequences(here).items():
            result.sequences += 1
            if target_sequences.get(name, -1) < value:
                result.differences.append(Difference(f"sequence {name}", str(value), str(target_sequences.get(name))))
        here.execute("ROLLBACK")
        there.execute("ROLLBACK")
    return result
