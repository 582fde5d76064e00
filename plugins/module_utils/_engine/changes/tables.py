# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The target's tables as the stream needs them, and how the rows of a :class:`.events.Shape` fit into them.

Columns are matched by name, so their order may differ. Generated columns are the *target's*: the source's values for them are dropped.
"""

from __future__ import annotations

import operator
import typing as t

from ..errors import StreamError
from ..postgres.catalog import Table, read_tables
from ..postgres.drivers import psycopg
from ..postgres.identifiers import SCHEMA, quote_ident, quote_qualified
from .events import Shape, Truncate
from .trees import Routes, Trees, read_trees

BYTEA = 17
INTEGERS = (20, 21, 23, 26)
MISSING = t.cast(bytes, type("Missing", (), {"__repr__": lambda self: "MISSING"})())
"""Stands for a column that a row does not have: its TOAST value was not changed."""

PLAIN_KEYS = (*INTEGERS, 25, 1043, 2950)
"""Types whose values are equal where their text is: integers, oid, text, varchar, uuid (under a deterministic collation)."""

Row = t.Tuple["bytes | None", ...]


class TargetTable:
    """One table of the target. ``key`` holds the columns that identify a row, empty where only the whole row does."""

    def __init__(
        self, table: Table, key: t.Sequence[str], operators: t.Mapping[str, str], start_lsn: int, *, deterministic: bool = True
    ) -> None:
        self.oid = table.oid
        self.schema, self.name, self.label = table.schema, table.name, table.label
        self.qualified = table.qualified
        self.only = "ONLY " if table.kind == "r" else ""
        self.partitioned = table.kind == "p"
        self.start_lsn = start_lsn
        stored = table.stored_columns
        self.columns = tuple(c.name for c in stored)
        self.index = {name: i for i, name in enumerate(self.columns)}
        self.generated = frozenset(c.name for c in table.columns if c.generated)
        self.bytea = frozenset(c.name for c in stored if c.type_oid == BYTEA)
        self.key = tuple(key)
        self.key_index = tuple(self.index[name] for name in key)
        self.operators = dict(operators)
        self.integer_key = len(key) == 1 and stored[self.key_index[0]].type_oid in INTEGERS
        self.divisible = (
            bool(key)
            and table.kind == "r"
            and not table.unique_indexes
            and deterministic
            and all(stored[i].type_oid in PLAIN_KEYS for i in self.key_index)
        )
        """May several sessions apply changes of different keys at once? Not where another index could make them clash."""
        always = [c.name for c in stored if c.identity == "a"]
        self.always = tuple(always)
        """GENERATED ALWAYS AS IDENTITY: an UPDATE may not set them, so rows are deleted and inserted where they are not the key."""
        self.rewrite = any(name not in key for name in always)
        self.counts = [0, 0, 0, 0]

    def column_list(self, names: t.Sequence[str] | None = None) -> str:
        """Columns, quoted."""
        return ", ".join(quote_ident(name) for name in (self.columns if names is None else names))

    def same_key(self, left: str = "t", right: str = "s") -> str:
        """The condition that two rows have the same key, by the operators of the key's index."""
        return " AND ".join(
            f"{left}.{quote_ident(name)} {self.operators.get(name, 'OPERATOR(pg_catalog.=)')} {right}.{quote_ident(name)}"
            for name in self.key
        )


class Binding:
    """How rows of one shape fit into their table.

    ``take(values)`` gives the present columns in the table's order; ``full`` says that these are all; ``key(values)`` gives the key as one
    value or a tuple, and is None where the shape does not hold the key.
    """

    __slots__ = (
        "table",
        "oid",
        "start_lsn",
        "full",
        "take",
        "names",
        "key",
        "bytea",
        "identity_columns",
        "direct",
        "key_at",
        "whole",
        "raw",
    )

    def __init__(self, table: TargetTable, shape: Shape, *, bare_bytea: bool, start_lsn: int | None = None) -> None:
        self.table = table
        self.oid = table.oid
        self.start_lsn = table.start_lsn if start_lsn is None else start_lsn
        unknown = [c for c in shape.columns if c not in table.index and c not in table.generated]
        if unknown:
            raise StreamError(
                f"The source's table {shape.label} has columns that the target's has not: {', '.join(unknown)}.",
                code="PGM4022",
                hint="Make the same change on the target's table; the stream then goes on where it stopped.",
                details={"table": shape.label, "columns": unknown},
            )
        where = {name: i for i, name in enumerate(shape.columns)}
        self.full = all(name in where for name in table.columns)
        self.names = tuple(name for name in table.columns if name in where)
        indexes = [where[name] for name in self.names]
        filled = shape.sparse and not table.key and not self.full
        """Is a row to be found by all its columns, of which the NULLs were not sent? (Where there is a key, that is enough.)"""
        if filled:
            present = [where.get(name, -1) for name in table.columns]
            self.names, self.full = table.columns, True
            self.take: t.Callable[[t.Sequence[t.Any]], Row] = lambda values: tuple([None if i < 0 else values[i] for i in present])
        elif indexes == list(range(len(shape.columns))):
            self.take = tuple
        elif len(indexes) == 1:
            only = indexes[0]
            self.take = lambda values: (values[only],)
        elif indexes:
            self.take = t.cast("t.Callable[[t.Sequence[t.Any]], Row]", operator.itemgetter(*indexes))
        else:
            self.take = lambda values: ()
        self.key: t.Callable[[t.Sequence[t.Any]], t.Any] | None = None
        self.key_at: tuple[int, ...] = ()
        """Where the key's columns are among those of the shape."""
        if table.key and all(name in where for name in table.key):
            self.key_at = tuple([where[name] for name in table.key])
            self.key = operator.itemgetter(*self.key_at)
        self.bytea = tuple(where[name] for name in table.bytea if name in where) if bare_bytea else ()
        if self.key is not None and self.bytea and table.bytea.intersection(table.key):
            plain = self.key
            self.key = lambda values: plain(self.with_bytea(values))
        self.identity_columns = tuple(name for name in shape.columns if name in table.index)
        self.direct = self.key is not None
        """Does :attr:`key` take its values from rows of this shape?"""
        self.whole = shape.columns == table.columns and not self.bytea
        """Are the values of a row of this shape those of the table, as they are and in its order?"""
        self.raw = self.direct and self.whole and not table.rewrite
        """And can it be taken in by its key alone?"""

    def with_bytea(self, values: t.Sequence[bytes | None]) -> list[bytes | None]:
        """``values`` with ``\\x`` before bare hex digits."""
        fixed = list(values)
        for index in self.bytea:
            value = fixed[index]
            if value is not None and not value.startswith(b"\\x"):
                fixed[index] = b"\\x" + value
        return fixed


class TargetTables:
    """All tables of the target's database by schema and name.

    :param start_lsns: qualified name of a table to the LSN from which the stream applies to it (law 8).
    :param streamed: labels of the tables that are streamed; changes of any other are left alone. None: there can be no other.
    :param source_trees: reads the partition trees of the source; called only if the stream names a partition, or a table that is missing.
    """

    def __init__(
        self,
        conn: psycopg.Connection[t.Any],
        start_lsns: t.Mapping[str, int],
        *,
        bare_bytea: bool,
        source_trees: t.Callable[[], Trees],
        streamed: t.Container[str] | None = None,
    ) -> None:
        self._streamed = streamed
        self._bare_bytea = bare_bytea
        self._starts = start_lsns
        self._routes = Routes(read_trees(conn), source_trees)
        primary = _primary_keys(conn)
        operators = _key_operators(conn)
        loose = _loose_indexes(conn)
        self._tables: dict[tuple[str, str], TargetTable] = {}
        for table in read_tables(conn):
            # a FULL row holds every column of its old version, so the primary key is enough to find it
            key = table.key or (primary.get(table.oid, ()) if table.identity == "f" else ())
            start = start_lsns.get(table.qualified, 0)
            self._tables[table.schema, table.name] = TargetTable(
                table, key, operators.get(table.oid, {}), start, deterministic=table.oid not in loose
            )
        self._ignored = _without_rows(conn)

    def get(self, schema: str, name: str) -> TargetTable | None:
        """The table that takes the rows of the source's table of this name: the one of the same name, or, where partitions differ, what
        :class:`.trees.Routes` says. None where its changes are rightly left alone: a materialized view, our own schema, a table of an
        extension, one that is not streamed.

        :raises StreamError: PGM4021 if the target has no such table.
        """
        if schema == SCHEMA or (schema, name) in self._ignored:
            return None
        if self._streamed is not None and f"{schema}.{name}" not in self._streamed:
            return None
        found = self._routes.route((schema, name), self._tables)
        table = None if found is None else self._tables[found]
        if table is None:
            raise StreamError(
                f"The source changed the table {schema}.{name}, which the target does not have.",
                code="PGM4021",
                hint=f"Make {quote_qualified(schema, name)} on the target as it is on the source, with its rows; or drop it on the source"
                " and start the migration again.",
                details={"table": f"{schema}.{name}"},
            )
        return table

    def bind(self, shape: Shape) -> Binding | None:
        """The binding of ``shape``, remembered in it; None where its changes are left alone.

        :raises StreamError: PGM4021, PGM4022.
        """
        table = self.get(shape.schema, shape.name)
        if table is None:
            return None
        start = self._start(shape.schema, shape.name, table)
        shape.binding = Binding(table, shape, bare_bytea=self._bare_bytea, start_lsn=start)
        return t.cast(Binding, shape.binding)

    def _start(self, schema: str, name: str, table: TargetTable) -> int:
        """The copy was of the source's tables: its LSN is that of the leaf where it has one."""
        return self._starts.get(quote_qualified(schema, name), table.start_lsn)

    def truncated(self, event: Truncate, commit_lsn: int) -> list[TargetTable]:
        """The tables to empty for a TRUNCATE of the transaction whose commit record starts at ``commit_lsn``.

        :raises StreamError: PGM4021; PGM4027 for a leaf whose rows are not a table of their own on the target.
        """
        emptied = set(event.relations)
        found: dict[int, TargetTable] = {}
        for schema, name in event.relations:
            table = self.get(schema, name)
            if table is None or commit_lsn < self._start(schema, name, table):
                continue
            into = (table.schema, table.name)
            if into != (schema, name) and not self._routes.whole(into, emptied):
                raise StreamError(
                    f"The source's partition {schema}.{name} was emptied (TRUNCATE). On the target its rows are among those of"
                    f" {table.label}, which is divided otherwise, so this cannot be repeated there.",
                    code="PGM4027",
                    hint=f"Divide {table.qualified} on the target as on the source; the stream then goes on with this TRUNCATE.",
                    details={"table": f"{schema}.{name}", "into": table.label},
                )
            found[table.oid] = table
        return list(found.values())

    def __iter__(self) -> t.Iterator[TargetTable]:
        return iter(self._tables.values())


def _primary_keys(conn: psycopg.Connection[t.Any]) -> dict[int, tuple[str, ...]]:
    rows = conn.execute("""
        SELECT c.conrelid, array_agg(a.attname::text ORDER BY k.position)
          FROM pg_constraint c CROSS JOIN LATERAL unnest(c.conkey) WITH ORDINALITY k(attnum, position)
          JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.attnum
         WHERE c.contype = 'p' GROUP BY c.conrelid""")
    return {oid: tuple(names) for oid, names in rows}


def _key_operators(conn: psycopg.Connection[t.Any]) -> dict[int, dict[str, str]]:
    """The equality of the index that holds the key, for each of its columns: the search path is pinned, so operators are named in full."""
    rows = conn.execute("""
        SELECT i.indrelid, a.attname::text, n.nspname::text, o.oprname::text
          FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indclass::oid[]) WITH ORDINALITY k(attnum, opclass, position)
          JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
          JOIN pg_opclass oc ON oc.oid = k.opclass JOIN pg_am am ON am.oid = oc.opcmethod AND am.amname = 'btree'
          JOIN pg_amop ao ON ao.amopfamily = oc.opcfamily AND ao.amoplefttype = oc.opcintype AND ao.amoprighttype = oc.opcintype
           AND ao.amopstrategy = 3
          JOIN pg_operator o ON o.oid = ao.amopopr JOIN pg_namespace n ON n.oid = o.oprnamespace
         WHERE i.indisprimary OR i.indisreplident ORDER BY i.indisreplident""")
    found: dict[int, dict[str, str]] = {}
    for oid, column, schema, name in rows:
        found.setdefault(oid, {})[column] = f"OPERATOR({quote_ident(schema)}.{name})"
    return found


def _loose_indexes(conn: psycopg.Connection[t.Any]) -> frozenset[int]:
    """Tables with a unique index under a nondeterministic collation (from 12 on): different texts may be one key there."""
    if conn.info.server_version < 120000:
        return frozenset()
    rows = conn.execute("""
        SELECT i.indrelid FROM pg_index i CROSS JOIN LATERAL unnest(i.indcollation::oid[]) k(collation_oid)
          JOIN pg_collation c ON c.oid = k.collation_oid WHERE i.indisunique AND NOT c.collisdeterministic""")
    return frozenset(row[0] for row in rows)


def _without_rows(conn: psycopg.Connection[t.Any]) -> frozenset[tuple[str, str]]:
    """Relations whose rows are not the stream's: materialized views, foreign tables, tables that belong to an extension."""
    rows = conn.execute("""
        SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('m', 'f', 'v') OR c.relkind IN ('r', 'p') AND EXISTS (
               SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')""")
    return frozenset((row[0], row[1]) for row in rows)
