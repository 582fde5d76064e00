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
from .catalog import Table


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


def read_parents(conn: t.Any) -> dict[int, int]:
    """OID of each partition and inheritance child to that of its (first) parent."""
    return {int(child): int(parent) for child, parent in conn.execute("SELECT inhrelid, inhparent FROM pg_inherits ORDER BY inhseqno DESC")}


def chosen_tables(conn: t.Any, selection: Selection, tables: t.Sequence[Table]) -> list[Table]:
    """Those of ``tables``, read from ``conn``, that ``selection`` chooses."""
    return list(tables) if selection.everything else selection.chosen(tables, read_parents(conn))
