# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The SQL that applies changes, and the text of COPY. Parameters are ``$1``, ``$2``...; they are sent without a type, as text."""

from __future__ import annotations

import typing as t

from ..postgres.identifiers import quote_ident
from .tables import Row, TargetTable

COLUMN, ROW, NULL = b"\0t", b"\0r", b"\0n"
"""Marks in the data of a COPY that is being made: before each value, between rows, instead of a value. No value holds a NUL byte."""


def copy_of(marked: bytes) -> bytes:
    """Rows with marks as the data of a COPY in text format. What must be escaped is replaced in all rows at once.

    :param marked: at least one row; each begins with :data:`COLUMN`.
    """
    for plain, escaped in ((b"\\", b"\\\\"), (b"\n", b"\\n"), (b"\r", b"\\r"), (b"\t", b"\\t")):
        if plain in marked:
            marked = marked.replace(plain, escaped)
    lines = (marked[len(COLUMN) :] + ROW + COLUMN).replace(ROW + COLUMN, b"\n")
    return lines.replace(COLUMN, b"\t").replace(NULL, b"\\N")


def copy_text(rows: t.Sequence[Row]) -> bytes:
    """``rows`` (all of the same, positive length) as the data of a COPY in text format."""
    if not rows:
        return b""
    return copy_of(COLUMN + (ROW + COLUMN).join([COLUMN.join([NULL if v is None else v for v in row]) for row in rows]))


def copy_in(table: TargetTable) -> str:
    """Inserts by COPY; it takes given values for identity columns as they are."""
    return f"COPY {table.qualified} ({table.column_list()}) FROM STDIN"


def make_staging(table: TargetTable, staging: str, names: t.Sequence[str]) -> str:
    """A temporary table with the target's types for the columns ``names``, emptied at each commit."""
    return (
        f"CREATE TEMPORARY TABLE {staging} ON COMMIT DELETE ROWS AS SELECT {table.column_list(names)} FROM {table.qualified} WITH NO DATA"
    )


def copy_staging(table: TargetTable, staging: str, names: t.Sequence[str]) -> str:
    """Fills a staging table."""
    return f"COPY pg_temp.{staging} ({table.column_list(names)}) FROM STDIN"


def delete_staged(table: TargetTable, staging: str) -> str:
    """Deletes the rows whose keys are staged."""
    return f"DELETE FROM {table.only}{table.qualified} AS t USING pg_temp.{staging} AS s WHERE {table.same_key()}"


def update_staged(table: TargetTable, staging: str, names: t.Sequence[str]) -> str | None:
    """Updates the staged columns ``names`` but those of the key; None if nothing remains to be set."""
    assignments = ", ".join(f"{quote_ident(n)} = s.{quote_ident(n)}" for n in names if n not in table.key)
    if not assignments:
        return None
    return f"UPDATE {table.only}{table.qualified} AS t SET {assignments} FROM pg_temp.{staging} AS s WHERE {table.same_key()}"


def insert_row(table: TargetTable, names: t.Sequence[str]) -> str:
    """Inserts one row; parameters in the order of ``names``."""
    if not names:
        return f"INSERT INTO {table.qualified} DEFAULT VALUES"
    overriding = "OVERRIDING SYSTEM VALUE " if table.always else ""
    values = ", ".join(f"${i + 1}" for i in range(len(names)))
    return f"INSERT INTO {table.qualified} ({table.column_list(names)}) {overriding}VALUES ({values})"


def delete_row(table: TargetTable, where: str) -> str:
    """Deletes the row that ``where`` finds."""
    return f"DELETE FROM {table.only}{table.qualified} AS t WHERE {where}"


def update_row(table: TargetTable, names: t.Sequence[str], where: str) -> str:
    """Sets ``names`` to the first parameters in the row that ``where`` finds."""
    assignments = ", ".join(f"{quote_ident(name)} = ${i + 1}" for i, name in enumerate(names))
    return f"UPDATE {table.only}{table.qualified} AS t SET {assignments} WHERE {where}"


def replace_row(table: TargetTable, names: t.Sequence[str], where: str) -> str:
    """As :func:`update_row`, by DELETE and INSERT in one statement: for columns that no UPDATE may set."""
    given = {name: f"${i + 1}" for i, name in enumerate(names)}

    def source(name: str) -> str:
        old = f"d.{quote_ident(name)}"
        # the CASE gives the parameter the column's type, and nothing more
        return f"CASE WHEN true THEN {given[name]} ELSE {old} END" if name in given else old

    selected = ", ".join(source(name) for name in table.columns)
    return (
        f"WITH d AS (DELETE FROM {table.only}{table.qualified} AS t WHERE {where} RETURNING t.*)"
        f" INSERT INTO {table.qualified} ({table.column_list()}) OVERRIDING SYSTEM VALUE SELECT {selected} FROM d"
    )


def by_key(table: TargetTable, first: int) -> str:
    """The condition that finds a row by its key; parameters from number ``first`` on, in the key's order."""
    return " AND ".join(
        f"t.{quote_ident(name)} {table.operators.get(name, 'OPERATOR(pg_catalog.=)')} ${first + i}" for i, name in enumerate(table.key)
    )


def by_text(table: TargetTable, names: t.Sequence[str], nulls: t.Sequence[bool], first: int) -> str:
    """The condition that finds *one* row by the text of the columns ``names`` (law 5; equal is not identical, so no ``=`` of the types).

    ``concat`` writes a value by its type's output function, as the output plugins do.
    """
    conditions = []
    number = first
    for name, null in zip(names, nulls, strict=True):
        if null:
            conditions.append(f"x.{quote_ident(name)} IS NULL")
        else:
            conditions.append(
                f'x.{quote_ident(name)} IS NOT NULL AND pg_catalog.concat(x.{quote_ident(name)}) = (${number}::text) COLLATE "C"'
            )
            number += 1
    found = f"FROM {table.only}{table.qualified} AS x WHERE {' AND '.join(conditions) or 'true'} LIMIT 1"
    if table.partitioned:  # each leaf has a row at each ctid
        return f"(t.tableoid, t.ctid) = (SELECT x.tableoid, x.ctid {found})"
    return f"t.ctid = (SELECT x.ctid {found})"


def truncate(tables: t.Sequence[TargetTable], restart_identity: bool) -> str:
    """One TRUNCATE. CASCADE is not repeated: the source's message lists every table that it reached. A partitioned table without its
    partitions has no rows, so it goes without ONLY."""
    listed = ", ".join(f"{table.only}{table.qualified}" for table in tables)
    return f"TRUNCATE {listed}" + (" RESTART IDENTITY" if restart_identity else "")
