# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Which schemas and tables of a database are migrated: ``copy.schemas``, ``copy.tables`` and ``copy.exclude`` of the specification.

Patterns are those of the shell (``*``, ``?``, ``[abc]``), and case counts. One with a dot is compared with ``schema.table``, one without
with the schema. The base copy, the change stream and the verification ask the same :class:`Selection`.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import typing as t

from ..spec import CopyOptions
from .catalog import USER_SCHEMAS, Table, read_tables


@dataclasses.dataclass(frozen=True)
class Selection:
    """What is chosen; without a pattern everything is."""

    schemas: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    foreign: bool = True  # foreign tables, with their servers and user mappings, too

    @classmethod
    def of(cls, copy: CopyOptions) -> Selection:
        """The selection that ``copy`` describes."""
        return cls(copy.schemas, copy.tables, copy.exclude, copy.foreign_tables != "exclude")

    @property
    def everything(self) -> bool:
        """Is nothing left out?"""
        return self.foreign and not (self.schemas or self.tables or self.exclude)

    def schema(self, name: str) -> bool:
        """Is the schema migrated, if perhaps without some of its tables?"""
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in self.exclude if "." not in pattern):
            return False
        return not self.schemas or any(fnmatch.fnmatchcase(name, pattern) for pattern in self.schemas)

    def table(self, schema: str, name: str) -> bool:
        """Is the table ``name`` migrated, as far as its own name says?"""
        if not self.schema(schema):
            return False
        label = f"{schema}.{name}"
        if any(fnmatch.fnmatchcase(label, pattern) for pattern in self.exclude if "." in pattern):
            return False
        return not self.tables or any(fnmatch.fnmatchcase(label, pattern) for pattern in self.tables)

    def chosen(self, tables: t.Sequence[Table], parents: t.Mapping[int, int]) -> list[Table]:
        """Those of ``tables`` that are migrated. A partition comes with its parent unless it is excluded.

        :param parents: OID of a partition to that of its parent, see :func:`read_parents`.
        """
        if self.everything:
            return list(tables)
        known = {table.oid: table for table in tables}
        return [table for table in tables if self._with_parents(table, known, parents)]

    def _with_parents(self, table: Table, known: t.Mapping[int, Table], parents: t.Mapping[int, int]) -> bool:
        if not table.is_partition or not self.tables:
            return self.table(table.schema, table.name)
        if not dataclasses.replace(self, tables=()).table(table.schema, table.name):
            return False
        above = known.get(parents.get(table.oid, 0))
        return self.table(table.schema, table.name) or (above is not None and self._with_parents(above, known, parents))


EVERYTHING = Selection()
"""Without a pattern."""

_WRAPPERS = """
    WITH member AS (SELECT refobjid AS extension, classid, objid FROM pg_depend
                     WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e')
    SELECT e.oid::bigint, e.extname::text, w.fdwname::text
      FROM pg_extension e JOIN member m ON m.extension = e.oid AND m.classid = 'pg_foreign_data_wrapper'::regclass
      JOIN pg_foreign_data_wrapper w ON w.oid = m.objid
     WHERE w.fdwhandler <> 0
       AND NOT EXISTS (SELECT FROM member o WHERE o.extension = e.oid
                          AND o.classid NOT IN ('pg_foreign_data_wrapper'::regclass, 'pg_proc'::regclass))
       AND NOT EXISTS (SELECT FROM pg_depend r WHERE r.classid = 'pg_extension'::regclass
                          AND r.refclassid = 'pg_extension'::regclass AND r.refobjid = e.oid)
       AND NOT EXISTS (SELECT FROM member f JOIN pg_depend u ON u.refclassid = f.classid AND u.refobjid = f.objid
                        WHERE f.extension = e.oid AND f.classid = 'pg_proc'::regclass
                          AND u.classid <> 'pg_foreign_data_wrapper'::regclass)
     ORDER BY 2, 3"""


@dataclasses.dataclass(frozen=True)
class WrapperExtension:
    """An extension that is there for foreign tables alone, with its OID and one of its foreign data wrappers."""

    oid: int
    name: str
    wrapper: str


def read_wrapper_extensions(conn: t.Any) -> list[WrapperExtension]:
    """Extensions that nothing needs once the foreign tables are gone, such as ``postgres_fdw``; one row for each wrapper.

    An extension with types or tables of its own, without a handler (``dblink`` is used by its functions), or whose functions another
    object or extension needs, is none of them.
    """
    return [WrapperExtension(*row) for row in conn.execute(_WRAPPERS)]


def read_parents(conn: t.Any) -> dict[int, int]:
    """OID of each partition and inheritance child to that of its (first) parent."""
    return {int(child): int(parent) for child, parent in conn.execute("SELECT inhrelid, inhparent FROM pg_inherits ORDER BY inhseqno DESC")}


KEPT_SCHEMA = "n.nspname <> ALL(%(schemas)s)"
"""SQL with the parameters of :meth:`LeftOut.parameters`: the schema ``n`` is migrated."""

KEPT_RELATION = "c.oid NOT IN (SELECT unnest(%(relations)s::bigint[])::oid)"
"""SQL with the same parameters: the relation ``c`` (table, index, sequence, view...) is not among those that are left out by name."""

_RELATIONS = f"""
    WITH gone AS (SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE {USER_SCHEMAS} AND (n.nspname = ANY(%(schemas)s) OR c.oid = ANY(%(tables)s::bigint[])))
    SELECT oid::bigint FROM gone
     UNION SELECT i.indexrelid::bigint FROM pg_index i JOIN gone ON gone.oid = i.indrelid
     UNION SELECT s.oid::bigint FROM pg_class s JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.oid
             JOIN gone ON d.refclassid = 'pg_class'::regclass AND gone.oid = d.refobjid WHERE s.relkind = 'S' AND d.deptype = 'i'"""


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """What a selection leaves out of a database: ``schemas`` wholly, and ``tables`` (OID, schema, name; foreign ones too), of these schemas
    and others. ``relations`` are OIDs of both with their indexes, their identity columns' sequences, and all else in the schemas."""

    schemas: tuple[str, ...] = ()
    tables: tuple[tuple[int, str, str], ...] = ()
    relations: tuple[int, ...] = ()

    def parameters(self) -> dict[str, t.Any]:
        """What :data:`KEPT_SCHEMA` and :data:`KEPT_RELATION` need."""
        return {"schemas": list(self.schemas), "relations": list(self.relations)}


def read_left_out(conn: t.Any, selection: Selection, chosen: t.Sequence[Table] | None = None) -> LeftOut:
    """What ``selection`` leaves out of this database; nothing where everything is chosen.

    :param chosen: the tables that it chooses, where they are known already.
    """
    if selection.everything:
        return LeftOut()
    chosen = chosen_tables(conn, selection, read_tables(conn)) if chosen is None else chosen
    names = [row[0] for row in conn.execute(f"SELECT nspname::text FROM pg_namespace n WHERE {USER_SCHEMAS} ORDER BY 1")]
    schemas = tuple(name for name in names if not selection.schema(name))
    ours = {table.oid for table in chosen}
    rows = conn.execute(
        f"SELECT c.oid::bigint, n.nspname::text, c.relname::text, c.relkind::text FROM pg_class c"
        f" JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'f') AND {USER_SCHEMAS}"
    ).fetchall()
    tables = tuple(
        (int(oid), schema, name)
        for oid, schema, name, kind in rows
        if oid not in ours and not (selection.table(schema, name) and (kind != "f" or selection.foreign))
    )
    found = conn.execute(_RELATIONS, {"schemas": list(schemas), "tables": [oid for oid, dummy, dummy2 in tables]})
    return LeftOut(schemas, tables, tuple(int(row[0]) for row in found))


def chosen_tables(conn: t.Any, selection: Selection, tables: t.Sequence[Table]) -> list[Table]:
    """Those of ``tables``, read from ``conn``, that ``selection`` chooses."""
    return list(tables) if selection.everything else selection.chosen(tables, read_parents(conn))
