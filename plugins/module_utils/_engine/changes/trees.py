# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Partition trees of both sides, and which table of the target takes the rows of a leaf of the source.

The stream names the leaf in which a row was. Where the target divides the table alike, the leaf of this name is the right one. Where
anything differs, no leaf is: all rows of the tree go through the target's root, whose server finds the leaf. This is decided for whole
trees, so that the changes of one row always go the same way and stay in order.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ..postgres.drivers import psycopg

Name = t.Tuple[str, str]
"""Schema and name."""


@dataclasses.dataclass(frozen=True)
class Member:
    """A partitioned table or a partition; ``parent`` is None for a root."""

    root: Name
    parent: Name | None
    kind: str
    bound: str | None
    divided_by: str | None


Trees = t.Mapping[Name, Member]
"""All partition trees of a database."""


def read_trees(conn: psycopg.Connection[t.Any]) -> dict[Name, Member]:
    """The partition trees of ``conn``'s database; servers before 10 have none."""
    if conn.info.server_version < 100000:
        return {}
    rows = conn.execute("""
        WITH RECURSIVE tree AS (
            SELECT c.oid, c.oid AS root, NULL::oid AS parent FROM pg_class c WHERE c.relkind = 'p' AND NOT c.relispartition
             UNION ALL SELECT i.inhrelid, tree.root, tree.oid FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid)
        SELECT n.nspname::text, c.relname::text, rn.nspname::text, r.relname::text, pn.nspname::text, p.relname::text,
               CASE c.relkind WHEN 'p' THEN 'p' ELSE 'r' END, pg_get_expr(c.relpartbound, c.oid),
               CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END
          FROM tree JOIN pg_class c ON c.oid = tree.oid JOIN pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_class r ON r.oid = tree.root JOIN pg_namespace rn ON rn.oid = r.relnamespace
          LEFT JOIN pg_class p ON p.oid = tree.parent LEFT JOIN pg_namespace pn ON pn.oid = p.relnamespace""")
    return {
        (schema, name): Member((root_schema, root), None if parent is None else (parent_schema, parent), *rest)
        for schema, name, root_schema, root, parent_schema, parent, *rest in rows
    }


class Routes:
    """Where rows go.

    :param target: the target's trees.
    :param source: gives the source's; it is asked once, when it is first needed.
    """

    def __init__(self, target: Trees, source: t.Callable[[], Trees]) -> None:
        self._target, self._ask = target, source
        self._source: Trees | None = None
        self._alike: dict[Name, bool] = {}

    @property
    def source(self) -> Trees:
        """The source's trees."""
        if self._source is None:
            self._source = self._ask()
        return self._source

    def route(self, name: Name, present: t.Container[Name]) -> Name | None:
        """The table of the target for the rows of the source's table ``name``; None if neither it nor an ancestor is ``present``."""
        found: Name | None = name
        while found is not None and found not in present:
            member = self.source.get(found)
            found = member.parent if member is not None else None
        if found is None:
            return None
        member = self._target.get(found)
        if member is None or member.parent is None and found == name or self._same(member.root):
            return found
        return member.root

    def _same(self, root: Name) -> bool:
        """Is the target's tree under ``root`` as the source's?"""
        if root not in self._alike:
            self._alike[root] = _tree(self._target, root) == _tree(self.source, root)
        return self._alike[root]

    def whole(self, into: Name, emptied: t.Container[Name]) -> bool:
        """Are all leaves of the source whose rows go through ``into``, an ancestor, among the ``emptied``?"""
        leaves = [name for name, member in self.source.items() if member.kind == "r" and self._under(name, into)]
        return into in emptied or bool(leaves) and all(name in emptied for name in leaves)

    def _under(self, name: Name, ancestor: Name) -> bool:
        found: Name | None = name
        while found is not None:
            if found == ancestor:
                return True
            member = self.source.get(found)
            found = member.parent if member is not None else None
        return False


def _tree(trees: Trees, root: Name) -> dict[Name, Member]:
    return {name: member for name, member in trees.items() if member.root == root}
