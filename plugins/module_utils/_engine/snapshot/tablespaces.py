# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Tablespaces by mapping (``globals.tablespaces``): what lies in one of the source's lies in the target's that it is mapped to.

Tables are moved while they are empty, and indexes built in place (:mod:`.indexes`); what is mapped to nothing goes to the target's default
tablespace and is named (:func:`.schema.not_dumped`). Tablespaces themselves are never made: that takes a superuser and a folder.
"""

from __future__ import annotations

import typing as t

from ..errors import SpecificationError
from ..postgres.catalog import NOT_OF_EXTENSION, USER_SCHEMAS
from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_ident, quote_qualified
from ..spec import MigrationSpec

BATCH = 200
"""Relations in one message to the target."""

_RELATIONS = f"""
    SELECT n.nspname::text, c.relname::text, c.relkind::text, s.spcname::text
      FROM pg_class c JOIN pg_tablespace s ON s.oid = c.reltablespace JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind::text = ANY(%s) AND s.spcname = ANY(%s) AND {USER_SCHEMAS} AND {NOT_OF_EXTENSION} ORDER BY c.oid"""

TABLES = ("r", "p", "m")
INDEXES = ("i", "I")
_WORDS = {"r": "TABLE", "p": "TABLE", "m": "MATERIALIZED VIEW", "i": "INDEX", "I": "INDEX"}

_THERE = """
    SELECT n.nspname::text, c.relname::text, coalesce(s.spcname::text, '') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_tablespace s ON s.oid = c.reltablespace WHERE c.relkind::text = ANY(%s)"""


def unusable_tablespaces(conn: psycopg.Connection[t.Any], wanted: t.Iterable[str]) -> list[str]:
    """Those of ``wanted`` that are not on the server of ``conn``, or in which its user may create nothing; with the reason."""
    rows = conn.execute("SELECT spcname::text, has_tablespace_privilege(oid, 'CREATE') FROM pg_tablespace").fetchall()
    allowed = dict(rows)
    problems = []
    for name in sorted(set(wanted)):
        if name not in allowed:
            problems.append(f"{name} is not there")
        elif not allowed[name] and name != "pg_default":  # where it is the database's own, nobody needs a right
            problems.append(f"{conn.info.user} may create nothing in {name}")
    return problems


def require_tablespaces(conn: psycopg.Connection[t.Any], spec: MigrationSpec) -> None:
    """Can everything be put where ``globals.tablespaces`` says, on the target of ``conn``?

    :raises SpecificationError: PGM3019 naming the tablespaces that are missing, before anything is touched.
    """
    problems = unusable_tablespaces(conn, spec.globals.tablespaces.values())
    if problems:
        raise SpecificationError(
            f"globals.tablespaces names tablespaces that cannot be used on {spec.target.label()}: {'; '.join(problems)}.",
            code="PGM3019",
            hint="As a superuser of the target: CREATE TABLESPACE, and GRANT CREATE ON TABLESPACE to the migration's user.",
        )


def move_to_tablespaces(
    source: psycopg.Connection[t.Any], target: psycopg.Connection[t.Any], mapping: t.Mapping[str, str], kinds: t.Sequence[str]
) -> int:
    """Move relations of ``kinds`` that the target has to where ``mapping`` says, if they are not there; how many were moved.

    Meant for what holds no rows yet, or none at all, as partitioned tables and indexes: then it costs nothing.
    """
    if not mapping:
        return 0
    there = {(schema, name): space for schema, name, space in target.execute(_THERE, [list(kinds)])}
    statements = []
    for schema, name, kind, space in source.execute(_RELATIONS, [list(kinds), list(mapping)]).fetchall():
        if there.get((schema, name), mapping[space]) != mapping[space]:
            statements.append(f"ALTER {_WORDS[kind]} {quote_qualified(schema, name)} SET TABLESPACE {quote_ident(mapping[space])}")
    for start in range(0, len(statements), BATCH):
        target.execute("; ".join(statements[start : start + BATCH]).encode())
    return len(statements)
