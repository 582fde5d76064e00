# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""After rows, indexes and constraints: statistics, materialized views."""

from __future__ import annotations

import contextlib
import typing as t

from ..postgres.catalog import NOT_OF_EXTENSION, USER_SCHEMAS, Table
from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_qualified
from .indexes import analysis
from .pool import TargetPool

_MATVIEWS = f"""
    SELECT c.oid, n.nspname::text, c.relname::text, c.relispopulated FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'm' AND {USER_SCHEMAS} AND {NOT_OF_EXTENSION} ORDER BY c.oid"""

_USES = """
    SELECT DISTINCT r.ev_class, d.refobjid FROM pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
     WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class"""
"""Which relation's rule reads which other relation: the edges from views to what they show."""


def populated_matviews(conn: psycopg.Connection[t.Any]) -> list[str]:
    """Qualified names of the materialized views that hold data."""
    return [quote_qualified(schema, name) for dummy, schema, name, populated in conn.execute(_MATVIEWS).fetchall() if populated]


def in_dependency_order(nodes: t.Sequence[int], uses: t.Mapping[int, t.Collection[int]]) -> list[int]:
    """``nodes`` so that each comes after those that it reads, directly or through other relations."""
    ordered: list[int] = []
    seen: set[int] = set()
    wanted = set(nodes)
    for start in nodes:
        stack: list[tuple[int, bool]] = [(start, False)]
        while stack:
            node, expanded = stack.pop()
            if expanded:
                if node in wanted:
                    ordered.append(node)
            elif node not in seen:
                seen.add(node)
                stack.append((node, True))
                stack.extend((used, False) for used in sorted(uses.get(node, ())))
    return ordered


def refresh_matviews(conn: psycopg.Connection[t.Any], only: t.Collection[str] | None = None) -> int:
    """Refresh the materialized views of this database, each after those that it reads.

    :param only: qualified names; by default those that hold data already.
    :return: how many were refreshed.
    """
    views = {oid: (quote_qualified(schema, name), populated) for oid, schema, name, populated in conn.execute(_MATVIEWS).fetchall()}
    uses: dict[int, set[int]] = {}
    for view, used in conn.execute(_USES).fetchall():
        uses.setdefault(view, set()).add(used)
    count = 0
    for oid in in_dependency_order(list(views), uses):
        name, populated = views[oid]
        if populated if only is None else name in only:
            _refresh(conn, name)
            count += 1
    return count


def _refresh(conn: psycopg.Connection[t.Any], name: str) -> None:
    """REFRESH; a view whose functions rely on the database's search path gets that."""
    statement = f"REFRESH MATERIALIZED VIEW {name}".encode()
    try:
        conn.execute(statement)
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedFunction, psycopg.errors.UndefinedObject):
        conn.execute("RESET search_path")
        try:
            conn.execute(statement)
        finally:
            conn.execute("SET search_path = pg_catalog")


def read_parents(conn: psycopg.Connection[t.Any], tables: t.Sequence[Table]) -> list[Table]:
    """Those of ``tables`` for which the source has statistics over all that is below them: autovacuum does not make such."""
    known = {(row[0], row[1]) for row in conn.execute("SELECT DISTINCT schemaname::text, tablename::text FROM pg_stats WHERE inherited")}
    return [table for table in tables if (table.schema, table.name) in known]


def analyze_parents(control: psycopg.Connection[t.Any], pool: TargetPool, parents: t.Sequence[Table], tables: t.Sequence[Table]) -> None:
    """Statistics over all partitions or children of each of ``parents``; waits for the end.

    The partitions have their own by now, which ANALYZE of a partitioned table would make again, one after the other: version 18 can be
    told not to, and from 12 on those that somebody else has locked may be skipped, so ``control`` locks them (manual, ANALYZE).
    """
    names, version = [parent.qualified for parent in parents], control.info.server_version
    if version >= 180000:
        analyze(pool, names, "ANALYZE ONLY")
    elif version >= 120000:
        leaves = [table.qualified for table in tables if table.kind == "r" and table.is_partition]
        with _locked(control, leaves if any(parent.kind == "p" for parent in parents) else []):
            analyze(pool, names, "ANALYZE (SKIP_LOCKED)")
    else:
        analyze(pool, (parent.qualified for parent in parents if not parent.is_partition))


@contextlib.contextmanager
def _locked(control: psycopg.Connection[t.Any], names: t.Sequence[str]) -> t.Iterator[None]:
    """A lock on all of ``names`` that keeps only other ANALYZE, VACUUM and DDL away. Without it the work is more and the result the same,
    so where the server refuses (it has no room for so many, somebody else holds one) it is done without."""
    with control.transaction():
        if names:
            answers = psycopg.errors.OutOfMemory, psycopg.errors.LockNotAvailable, psycopg.errors.InsufficientPrivilege
            with contextlib.suppress(*answers), control.transaction():
                control.execute(f"LOCK TABLE ONLY {', ONLY '.join(names)} IN SHARE UPDATE EXCLUSIVE MODE".encode())
        yield


def analyze(pool: TargetPool, names: t.Iterable[str], command: str = "ANALYZE") -> None:
    """ANALYZE the relations ``names`` (qualified) with ``command``, each in a task of its own; waits for the end."""
    for name in names:
        pool.submit(1, f"analyze {name}", analysis(name, command))
    pool.drain()
