# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Whether a table can be copied in COPY's binary format.

Binary is faster (no output and input functions), but it is only right where a value's bytes mean the same on both servers. They do
for the built-in types listed here. They do not where OIDs of this database are inside: reg* types, composites, and arrays of anything
that is not built in. Types of extensions promise nothing. Everything not known to be safe is copied as text.
"""

from __future__ import annotations

import typing as t

from ..errors import MigrationError
from ..postgres.catalog import Table, read_tables
from ..postgres.drivers import psycopg

PORTABLE = frozenset(
    [
        "bool",
        "bytea",
        "char",
        "name",
        "int8",
        "int2",
        "int4",
        "text",
        "oid",
        "tid",
        "xid",
        "cid",
        "json",
        "point",
        "lseg",
        "path",
        "box",
        "polygon",
        "line",
        "circle",
        "float4",
        "float8",
        "money",
        "macaddr",
        "macaddr8",
        "inet",
        "cidr",
        "bpchar",
        "varchar",
        "date",
        "time",
        "timestamp",
        "timestamptz",
        "interval",
        "timetz",
        "bit",
        "varbit",
        "numeric",
        "uuid",
        "pg_lsn",
        "tsvector",
        "tsquery",
        "jsonb",
        "txid_snapshot",
        "pg_snapshot",
        "xid8",
        "int4range",
        "numrange",
        "tsrange",
        "tstzrange",
        "daterange",
        "int8range",
        "int4multirange",
        "nummultirange",
        "tsmultirange",
        "tstzmultirange",
        "datemultirange",
        "int8multirange",
    ]
)
"""Names in ``pg_catalog`` of types whose send and receive functions agree between the supported versions and carry no OIDs."""

_TYPES = """
    SELECT t.oid, n.nspname = 'pg_catalog', t.typname::text, t.typtype::text, t.typbasetype, t.typelem,
           t.typelem <> 0 AND t.typlen = -1 AND e.typarray = t.oid
      FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_type e ON e.oid = t.typelem"""


class Types:
    """The types of one database."""

    def __init__(self, conn: psycopg.Connection[t.Any]) -> None:
        self._known = {row[0]: row[1:] for row in conn.execute(_TYPES)}

    def portable(self, oid: int, in_array: bool = False) -> bool:
        """Does the binary form of the type ``oid`` mean the same on every server?

        :param in_array: as the element of an array, whose binary form names the element's OID: built-in types only.
        """
        builtin, name, kind, base, element, is_array = self._known.get(oid, (False, "", "", 0, 0, False))
        if is_array:
            return not in_array and self.portable(element, in_array=True)
        if kind == "e":
            return not in_array
        if kind == "d":
            return not in_array and self.portable(base)
        return bool(builtin) and name in PORTABLE


def choose_format(wanted: str, source: Table, target: Table, types: Types, same_encoding: bool) -> str:
    """``binary`` or ``text`` for one table.

    :param wanted: ``copy.format`` of the specification; ``binary`` too is refused where it would be wrong.
    :param types: those of the source.
    :param same_encoding: do both sides convert text (neither is SQL_ASCII, or both are)?
    """
    if wanted == "text" or not same_encoding:
        return "text"
    there = {column.name: column.type for column in target.stored_columns}
    for column in source.stored_columns:
        if there.get(column.name) != column.type or not types.portable(column.type_oid):
            return "text"
    return "binary"


def choose_formats(
    wanted: str, source: psycopg.Connection[t.Any], target: psycopg.Connection[t.Any], tables: t.Sequence[Table]
) -> tuple[dict[str, str], str]:
    """The format of each table by its qualified name, and the client encoding of the relays.

    :param wanted: ``copy.format``.
    :raises MigrationError: PGM3013 a table is not on the target.
    """
    query = "SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()"
    ascii_ = [(conn.execute(query).fetchone() or ("",))[0] == "SQL_ASCII" for conn in (source, target)]
    types = Types(source)
    there = {table.qualified: table for table in read_tables(target)}
    formats = {}
    for table in tables:
        if table.kind == "r":
            other = there.get(table.qualified)
            if other is None:
                raise MigrationError(
                    f"The table {table.label} is not on the target.", code="PGM3013", hint="Do not change the schema during the migration."
                )
            formats[table.qualified] = choose_format(wanted, table, other, types, ascii_[0] == ascii_[1])
    return formats, "SQL_ASCII" if all(ascii_) else "UTF8"
