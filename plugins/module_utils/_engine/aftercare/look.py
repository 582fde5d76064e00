# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What is to be seen to after a migration has succeeded (R110 to R113): a look at the target that changes nothing.

It comes after the point of no return, so nothing in it may fail the migration: what cannot be looked at is said to be unknown.
"""

from __future__ import annotations

import dataclasses
import functools
import typing as t
import urllib.parse

from ..errors import MigrationError
from ..globals.parameters import compare, read_parameters
from ..migration.catalogue import now
from ..postgres.catalog import NOT_OF_EXTENSION, USER_SCHEMAS
from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_conninfo, quote_ident, quote_literal, quote_qualified
from ..postgres.profiles import Profile, profile_for
from ..postgres.session import connect
from ..spec import Endpoint, MigrationSpec

WARNING, HINT = "warning", "hint"
NAMED = 5
"""Objects that are named in one line."""

PARAMETERS = 12
"""Parameters that are named one by one."""

LARGE_PAGES = 1000
"""Pages from which it is worth to vacuum a table before autovacuum does."""

TIMEOUT = "30s"
"""Longest that one question may take."""


@dataclasses.dataclass(frozen=True)
class ToDo:
    """One thing to see to. ``level`` is ``warning`` (something is not as it should be) or ``hint``; ``command`` what does it, as SQL in
    ``database`` or as the provider's command line where that is empty."""

    topic: str
    level: str
    text: str
    command: str = ""
    database: str = ""

    def to_dict(self) -> dict[str, str]:
        """Plain data."""
        return dataclasses.asdict(self)


def look_after(spec: MigrationSpec) -> dict[str, t.Any]:
    """Look at the target of a migration that has succeeded.

    :return: ``time``, ``to_do`` (:meth:`ToDo.to_dict`, warnings first), ``connections`` by database, as :func:`connection` gives them.
    """
    found: list[ToDo] = []
    for database in spec.databases:
        found += _guarded("database", database, functools.partial(_database, spec.target, database))
    found += _guarded("parameters", "", functools.partial(_parameters, spec))
    found += _server(profile_for(spec.target.type))
    return {
        "time": now(),
        "to_do": [item.to_dict() for item in sorted(found, key=lambda item: item.level != WARNING)],
        "connections": {database: connection(spec.target, database) for database in spec.databases},
    }


def connection(target: Endpoint, database: str) -> dict[str, str]:
    """How the application reaches ``database`` now: ``uri`` and ``dsn`` of libpq, ``jdbc``; user and password stay the application's own
    and are in none of them (R112)."""
    host = f"[{target.host}]" if ":" in target.host else target.host
    name, mode = urllib.parse.quote(database, safe=""), target.sslmode
    return {
        "uri": f"postgresql://{host}:{target.port}/{name}?sslmode={mode}",
        "dsn": f"host={quote_conninfo(target.host)} port={target.port} dbname={quote_conninfo(database)} sslmode={mode}",
        "jdbc": f"jdbc:postgresql://{host}:{target.port}/{name}?sslmode={mode}",
    }


def _guarded(what: str, database: str, look: t.Callable[[], list[ToDo]]) -> list[ToDo]:
    """What ``look`` finds, or that it could not look."""
    try:
        return look()
    except (MigrationError, psycopg.Error) as exc:
        return [ToDo(what, HINT, f"not looked at: {' '.join(str(exc).split())}", database=database)]


def _database(target: Endpoint, database: str) -> list[ToDo]:
    with connect(target, database, purpose="aftercare") as conn:
        conn.execute(f"SET statement_timeout = '{TIMEOUT}'".encode())
        looks = (_statistics, _visibility, _indexes, _constraints, _extensions, _warm_up)
        return [dataclasses.replace(item, database=database) for look in looks for item in look(conn)]


def _statistics(conn: psycopg.Connection[t.Any]) -> t.Iterator[ToDo]:
    """Tables with rows that were never analyzed: the planner guesses there."""
    rows = conn.execute(
        "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid"
        f" WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND {USER_SCHEMAS} AND {NOT_OF_EXTENSION}"
        " AND coalesce(s.last_analyze, s.last_autoanalyze) IS NULL AND pg_relation_size(c.oid) > 0 ORDER BY c.relpages DESC, 1, 2"
    ).fetchall()
    if rows:
        names = [quote_qualified(schema, name) for schema, name in rows]
        command = f"ANALYZE {', '.join(names)};" if len(names) <= NAMED else "ANALYZE;"
        yield ToDo("statistics", WARNING, f"{len(names)} table(s) without statistics: {_some(names)}", command)


def _visibility(conn: psycopg.Connection[t.Any]) -> t.Iterator[ToDo]:
    """Large tables that no VACUUM has seen: what is copied in several chunks has no visibility map, so index-only scans read the table."""
    rows = conn.execute(
        "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid"
        f" WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND {USER_SCHEMAS} AND {NOT_OF_EXTENSION} AND c.relpages >= %s"
        " AND c.relallvisible < c.relpages / 2 AND coalesce(s.last_vacuum, s.last_autovacuum) IS NULL ORDER BY c.relpages DESC, 1, 2",
        [LARGE_PAGES],
    ).fetchall()
    if rows:
        names = [quote_qualified(schema, name) for schema, name in rows]
        text = f"{len(names)} large table(s) that no VACUUM has seen, autovacuum comes by itself: {_some(names)}"
        yield ToDo("visibility", HINT, text, f"VACUUM {', '.join(names)};" if len(names) <= NAMED else "VACUUM;")


def _indexes(conn: psycopg.Connection[t.Any]) -> t.Iterator[ToDo]:
    rows = conn.execute(
        "SELECT n.nspname::text, c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        f" JOIN pg_namespace n ON n.oid = c.relnamespace WHERE NOT (i.indisvalid AND i.indisready) AND c.relkind = 'i' AND {USER_SCHEMAS}"
        " ORDER BY 1, 2"
    ).fetchall()
    verb = "REINDEX INDEX CONCURRENTLY" if conn.info.server_version >= 120000 else "REINDEX INDEX"
    for schema, name in rows:
        shown = quote_qualified(schema, name)
        yield ToDo("indexes", WARNING, f"the index {shown} is invalid: no query uses it", f"{verb} {shown};")


def _constraints(conn: psycopg.Connection[t.Any]) -> t.Iterator[ToDo]:
    """Constraints that hold for new rows only; they were so on the source as well."""
    rows = conn.execute(
        "SELECT n.nspname::text, c.relname::text, k.conname::text FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid"
        f" JOIN pg_namespace n ON n.oid = c.relnamespace WHERE NOT k.convalidated AND {USER_SCHEMAS} ORDER BY 1, 2, 3"
    ).fetchall()
    for schema, table, name in rows[:NAMED]:
        shown, constraint = quote_qualified(schema, table), quote_ident(name)
        command = f"ALTER TABLE {shown} VALIDATE CONSTRAINT {constraint};"
        yield ToDo("constraints", HINT, f"{constraint} of {shown} is not validated, as on the source", command)


def _extensions(conn: psycopg.Connection[t.Any]) -> t.Iterator[ToDo]:
    rows = conn.execute(
        "SELECT e.extname::text, e.extversion, a.default_version FROM pg_extension e JOIN pg_available_extensions a ON a.name = e.extname"
        " WHERE e.extversion <> a.default_version ORDER BY 1"
    ).fetchall()
    for name, version, newest in rows:
        command = f"ALTER EXTENSION {quote_ident(name)} UPDATE;"
        yield ToDo("extensions", WARNING, f"{name} {version}: the server offers {newest}", command)


def _warm_up(conn: psycopg.Connection[t.Any]) -> t.Iterator[ToDo]:
    """The largest tables can be read into the cache before the first rush, where pg_prewarm is there."""
    row = conn.execute(
        "SELECT n.nspname::text FROM pg_available_extensions a LEFT JOIN pg_extension e ON e.extname = a.name"
        " LEFT JOIN pg_namespace n ON n.oid = e.extnamespace WHERE a.name = 'pg_prewarm'"
    ).fetchone()
    tables = conn.execute(
        "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        f" WHERE c.relkind = 'r' AND {USER_SCHEMAS} AND {NOT_OF_EXTENSION} AND c.relpages > 0 ORDER BY c.relpages DESC LIMIT {NAMED}"
    ).fetchall()
    if row is None or not tables:
        return
    names = [quote_literal(quote_qualified(schema, name)) for schema, name in tables]
    schema = row[0]
    create = "" if schema else "CREATE EXTENSION pg_prewarm; "
    call = f"{quote_ident(schema)}.pg_prewarm" if schema else "pg_prewarm"
    command = f"{create}SELECT {call}(r) FROM unnest(ARRAY[{', '.join(names)}]::regclass[]) AS r;"
    yield ToDo("warm-up", HINT, "read the largest tables into the cache before the first rush", command)


def _parameters(spec: MigrationSpec) -> list[ToDo]:
    """Parameters that the source has changed and the target has otherwise (R113); what has to fit the server's size is not compared."""
    with connect(spec.source, purpose="aftercare") as source, connect(spec.target, purpose="aftercare") as target:
        differences = compare(read_parameters(source), read_parameters(target), profile_for(spec.target.type))
    wanted = [one for one in differences if one.kind == "copy"]
    items = []
    for one in wanted[:PARAMETERS]:
        restart = ", needs a restart" if one.restart else ""
        text = f"{one.name} is {one.target or 'empty'} here and was {one.source or 'empty'} on the source{restart}"
        items.append(ToDo("parameters", HINT, text, one.command))
    if len(wanted) > PARAMETERS:
        items.append(ToDo("parameters", HINT, f"{len(wanted) - PARAMETERS} more parameters differ; the validation's report names them all"))
    return items


def _server(profile: Profile) -> list[ToDo]:
    """What was left off for the migration, and what is easier now than later (R110, R111)."""
    replicas = "It was to be off during the migration; turn it on now that the copy is complete."
    size = "Change the server's size in a quiet hour: that restarts it."
    return [
        ToDo("high availability", HINT, replicas, profile.ha_command),
        ToDo("server size", HINT, size, profile.resize_command),
    ]


def _some(names: t.Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
