# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The canonical form of a value: one SQL expression per column type whose result is equal exactly when the values are identical.

Identical is stricter than PostgreSQL's ``=``: numeric 1.0 and 1.00, -0 and 0, ``'a'`` and ``'A'`` of citext, one month and thirty days are
different. And it is the same on every server version: floats go through their binary send functions (their text changed with 12),
money does not depend on ``lc_monetary`` (the sessions of :mod:`.sides` pin it), NULL differs from the empty string because the expressions
stay apart in a ``ROW``.

Two ways of hashing a row, chosen once for a pair of servers by :func:`choose_method` and proven by running :data:`PROBE` on both:

* ``record`` (both from 14 on): ``hash_record_extended(ROW(...))``, no text is made of numbers and times. That function adds its columns
  linearly, so its result is hashed once more; otherwise swapping a column's values between two rows would leave the sum unchanged.
* ``text`` (both from 11 on): ``hashtextextended(ROW(...)::text)``; ``md5`` for anything older or of another byte order.

All give a signed 64-bit number per row. A changed row goes unseen with a probability of 2^-64.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_ident

NATIVE = frozenset({"bool", "int2", "int4", "oid", "date", "uuid", "bytea", "char"})
"""Types whose own hash function takes all of their bits, and whose text is the same everywhere."""

SEND = {
    "int8": "int8send",  # hashint8 folds to 32 bits, and times are hashed as int8
    "timestamp": "timestamp_send",
    "timestamptz": "timestamptz_send",
    "time": "time_send",
    "timetz": "timetz_send",
    "interval": "interval_send",
    "numeric": "numeric_send",
    "money": "cash_send",
    "bpchar": "bpcharsend",  # a cast to text would strip blanks
    "json": "json_send",
    "jsonb": "jsonb_send",
    "bit": "bit_send",
    "varbit": "varbit_send",
    "inet": "inet_send",
    "cidr": "cidr_send",
    "macaddr": "macaddr_send",
    "pg_lsn": "pg_lsn_send",
    "point": "point_send",
    "lseg": "lseg_send",
    "path": "path_send",
    "box": "box_send",
    "polygon": "poly_send",
    "line": "line_send",
    "circle": "circle_send",
    "enum": "enum_send",
}
"""Types taken by what their binary send function gives: shorter than text, exact, the same on all versions."""

TEXTS = frozenset({"text", "varchar"})
FLOATS = {"float4": "float4send", "float8": "float8send"}
GEOMETRIC = frozenset({"point", "lseg", "path", "box", "polygon", "line", "circle"})
SHORTEST_FLOATS = 120000
"""From this version on the text of a float is the shortest that is exact."""

PROBE = (
    "ROW(7, 'probe'::text COLLATE \"C\", NULL::int4, '\\x00ff'::bytea, 'f47ac10b-58cc-4372-a567-0e02b2c3d479'::uuid, true,"
    " '2026-01-02'::date)"
)


@dataclasses.dataclass(frozen=True)
class Type:
    """A type as far as its canonical form needs it. ``kind`` is ``pg_type.typtype``; ``element`` the OID of an array's element,
    ``base`` of a domain's base type, ``fields`` the names and type OIDs of a composite, ``subtype`` that of a range."""

    oid: int
    name: str
    kind: str
    system: bool
    element: int
    base: int
    subtype: int
    fields: tuple[tuple[str, int], ...]


Types = t.Mapping[int, Type]


def read_types(conn: psycopg.Connection[t.Any]) -> dict[int, Type]:
    """All types of this database by OID, in one query."""
    rows = conn.execute("""
        SELECT t.oid, t.typname::text, t.typtype::text, t.typnamespace = 'pg_catalog'::regnamespace,
               CASE WHEN t.typlen = -1 AND t.typelem <> 0 AND t.typcategory = 'A' THEN t.typelem ELSE 0 END, t.typbasetype,
               coalesce(r.rngsubtype, 0), f.names, f.types
          FROM pg_type t LEFT JOIN pg_range r ON r.rngtypid = t.oid
          LEFT JOIN LATERAL (
               SELECT array_agg(a.attname::text ORDER BY a.attnum) AS names, array_agg(a.atttypid ORDER BY a.attnum) AS types
                 FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
                WHERE t.typtype = 'c' AND t.typrelid = a.attrelid AND a.attnum > 0 AND NOT a.attisdropped
                  AND c.relnamespace <> 'pg_catalog'::regnamespace) f ON true""")
    return {r[0]: Type(r[0], r[1], r[2], r[3], r[4], r[5], r[6], tuple(zip(r[7] or (), r[8] or (), strict=True))) for r in rows}


@dataclasses.dataclass(frozen=True)
class Method:
    """How rows are hashed: ``hashing`` is ``record``, ``text`` or ``md5``; ``exact_text`` says that both servers write floats as the
    shortest exact text; ``same_encoding`` that texts have the same bytes on both servers."""

    hashing: str
    exact_text: bool
    same_encoding: bool

    def column(self, sql: str, oid: int, types: Types) -> str:
        """The canonical form of ``sql``, an expression of the type ``oid``."""
        kind = types.get(oid)
        if kind is None:
            return self._text(sql)
        if kind.kind == "d":
            base = types.get(kind.base)
            return self.column(f"{sql}::{_builtin(base)}" if base is not None and base.system else sql, kind.base, types)
        if kind.kind == "e":
            return f"enum_send({sql})"
        if kind.system and kind.name in FLOATS:
            return f"{FLOATS[kind.name]}(CASE WHEN {sql} = 'NaN'::{kind.name} THEN 'NaN'::{kind.name} ELSE {sql} END)"
        if kind.system and kind.name in TEXTS:
            return self._text(sql, cast=kind.name != "text")
        if kind.system and kind.name in NATIVE:
            return sql
        if kind.system and kind.name in SEND:
            return f"{SEND[kind.name]}({sql})"
        if not self.exact_text and has_float(oid, types):
            return self._without_float_text(sql, kind, types)
        return self._text(sql)

    def _text(self, sql: str, *, cast: bool = True) -> str:
        text = f"{sql}::text" if cast else sql
        return f'{text} COLLATE "C"' if self.same_encoding else f"textsend({text})"

    def _without_float_text(self, sql: str, kind: Type, types: Types) -> str:
        """``sql`` of a type that holds floats somewhere inside, taken apart down to them."""
        if kind.element:
            inner = self.column("u.v", kind.element, types)
            return (
                f"(CASE WHEN {sql} IS NOT NULL THEN coalesce(array_dims({sql}), '{{}}') || ':' || coalesce((SELECT string_agg(coalesce("
                f"quote_literal(({inner})::text), 'N'), ',' ORDER BY u.n)"
                f" FROM (SELECT unnest({sql}) AS v, generate_series(1, cardinality({sql})) AS n) u), '') END)"
            )
        if kind.fields:
            parts = ", ".join(self.column(f"({sql}).{quote_ident(name)}", oid, types) for name, oid in kind.fields)
            return f"(CASE WHEN {sql}::text IS NOT NULL THEN ROW({parts})::text END)"
        if kind.subtype:
            low, high = (self.column(f"{end}({sql})", kind.subtype, types) for end in ("lower", "upper"))
            return (
                f"(CASE WHEN {sql} IS NOT NULL THEN ROW(isempty({sql}), lower_inc({sql}), upper_inc({sql}), lower_inf({sql}),"
                f" upper_inf({sql}), {low}, {high})::text END)"
            )
        return self._text(sql)

    def row_hash(self, expressions: t.Sequence[str]) -> str:
        """SQL of the signed 64-bit hash of a row of canonical ``expressions``; never NULL."""
        row = f"ROW({', '.join(expressions)})"
        if self.hashing == "record":
            return f'hashtextextended(hash_record_extended({row}, 0)::text COLLATE "C", 0)'
        if self.hashing == "text":
            return f'hashtextextended({row}::text COLLATE "C", 0)'
        return f"('x' || substr(md5({row}::text), 1, 16))::bit(64)::bigint"


def has_float(oid: int, types: Types, seen: frozenset[int] = frozenset()) -> bool:
    """Does a value of the type ``oid`` hold a float anywhere whose text depends on the version?"""
    kind = types.get(oid)
    if kind is None or oid in seen:
        return False
    if kind.system and (kind.name in FLOATS or kind.name in GEOMETRIC):
        return True
    inner = [kind.element, kind.base, kind.subtype, *(field for dummy, field in kind.fields)]
    return any(has_float(o, types, seen | {oid}) for o in inner if o)


def _builtin(kind: Type) -> str:
    """``kind`` of ``pg_catalog`` as a cast's target; ``char`` is a keyword, the type needs its quotes."""
    return f"pg_catalog.{quote_ident(kind.name)}"


def choose_method(source: psycopg.Connection[t.Any], target: psycopg.Connection[t.Any]) -> Method:
    """The fastest way of hashing that gives the same on both servers, proven by hashing the same row on both."""
    oldest = min(source.info.server_version, target.info.server_version)
    encoding = "SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()"
    same = _one(source, encoding) == _one(target, encoding)
    for hashing, since in (("record", 140000), ("text", 110000)):
        method = Method(hashing, oldest >= SHORTEST_FLOATS, same)
        if oldest < since:
            continue
        probe = f"SELECT hash_record_extended({PROBE}, 0)" if hashing == "record" else f"SELECT {method.row_hash([PROBE + '::text'])}"
        if _one(source, probe) == _one(target, probe):
            return method
    return Method("md5", oldest >= SHORTEST_FLOATS, same)


def _one(conn: psycopg.Connection[t.Any], query: str) -> t.Any:
    row = conn.execute(query).fetchone()
    return row[0] if row else None
