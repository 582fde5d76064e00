# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Are the definitions of both sides the same? One set-based query per class of object, compared by kind and name.

Texts that PostgreSQL deparses as a whole (views, rules, policies' and triggers' conditions) are written differently by different major
versions; these have a kind of their own (:data:`DEPARSED`), which is compared between servers of the same major alone. Their other
properties are compared always, as is everything else.
"""

from __future__ import annotations

import dataclasses
import secrets
import typing as t

from ..postgres.drivers import psycopg
from .objects import object_queries
from .relations import relation_queries
from .rights import Rights, compare_rights, read_rights
from .scope import Scope

DEPARSED = frozenset({"view definition", "rule definition", "policy definition", "trigger definition", "function definition"})
"""Kinds compared between servers of the same major alone."""

WHERE_BOTH = frozenset({"publication", "user mapping options"})
"""Kinds compared only where both sides have the object: publications are left out of a migration, because replication is set up anew, and
options of a user mapping are not shown to everybody."""

RELATIONS = frozenset({"table", "view", "materialized view", "foreign table", "type"})
PARTS = frozenset({"column", "constraint", "trigger", "rule", "policy"})
"""Kinds that are not told of a relation which only one side has."""

SUPERUSERS = frozenset({"event trigger"})
"""Kinds that only a superuser can make: on another target they are compared only where both sides have the object."""


@dataclasses.dataclass(frozen=True)
class SchemaDifference:
    """One definition that is not the same; ``source`` or ``target`` is None where the object does not exist."""

    kind: str
    object: str
    source: str | None
    target: str | None

    def to_dict(self) -> dict[str, t.Any]:
        """Plain data."""
        return dataclasses.asdict(self)


class Definitions(t.NamedTuple):
    """What one server has: definitions by kind and name, rights, its major version, and whether we are a superuser there."""

    objects: dict[tuple[str, str], str]
    rights: Rights
    major: int
    superuser: bool


def compare_schemas(source: psycopg.Connection[t.Any], target: psycopg.Connection[t.Any]) -> list[SchemaDifference]:
    """The definitions that differ, by kind and name. The target's schema of our own is left out."""
    oldest, salt = min(source.info.server_version, target.info.server_version), secrets.token_hex(16)
    ours, theirs = (read_definitions(conn, Scope(conn.info.server_version, oldest, salt)) for conn in (source, target))
    return compare_definitions(ours, theirs)


def read_definitions(conn: psycopg.Connection[t.Any], scope: Scope) -> Definitions:
    """What the server of ``conn`` has, read for a comparison of ``scope``."""
    found: dict[tuple[str, str], str] = {}
    for query in [*relation_queries(scope), *object_queries(scope)]:
        for kind, name, definition in conn.execute(query):
            found[kind, name] = definition or ""
    row = conn.execute("SELECT current_setting('is_superuser') = 'on'").fetchone()
    return Definitions(found, read_rights(conn, scope), scope.version // 10000, bool(row and row[0]))


def compare_definitions(source: Definitions, target: Definitions) -> list[SchemaDifference]:
    """See :func:`compare_schemas`."""
    lone = tuple(f"{name}." for kind, name in source.objects.keys() ^ target.objects.keys() if kind in RELATIONS)
    where_both = WHERE_BOTH | (frozenset() if target.superuser else SUPERUSERS)
    found = []
    for kind, name in sorted(source.objects.keys() | target.objects.keys()):
        left, right = source.objects.get((kind, name)), target.objects.get((kind, name))
        if kind in DEPARSED and (source.major != target.major or left is None or right is None):
            continue  # that the object is missing is told by its own kind
        if (left is None or right is None) and kind in PARTS and name.startswith(lone):
            continue  # with its relation
        if left != right and not (kind in where_both and (left is None or right is None)):
            found.append(SchemaDifference(kind, name, left, right))
    return found + [SchemaDifference(*one) for one in compare_rights(source.rights, target.rights)]
