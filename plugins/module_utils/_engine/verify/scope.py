# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What the queries that read definitions have to know, and the conditions that they share.

Every query returns ``(kind, object, definition)``. Definitions are texts that are the same on every major version where the objects are.
"""

from __future__ import annotations

import typing as t

from ..postgres.identifiers import SCHEMA, quote_literal

FIRST_OID = 16384
"""Objects below it came with the server (manual 54.1, "System Catalogs")."""

NAME = "format('%I.%I', n.nspname, c.relname)"

USERS = f"coalesce(i.schema, i.name, '') !~ '^pg_' AND coalesce(i.schema, i.name, '') NOT IN ('information_schema', '{SCHEMA}')"
"""Of ``pg_identify_object``: not the system's, not ours."""


class Scope(t.NamedTuple):
    """``version`` of the server that is read, ``oldest`` of both (``server_version_num``): what the older one does not know is not
    compared. ``salt`` hides values that may be secret: the same on both sides, and nowhere else."""

    version: int
    oldest: int
    salt: str


def made_by_users(classid: str, oid: str, kinds: str = "'e', 'i'") -> str:
    """Condition: the object is no member of an extension (``e``), nor made along with another one (``i``), as the functions and casts of
    a range type are, which later versions have more of.

    :param classid: SQL for the OID of its catalog.
    """
    return f"NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = {classid} AND d.objid = {oid} AND d.deptype IN ({kinds}))"


def of_catalog(catalog: str, oid: str, kinds: str = "'e'") -> str:
    """:func:`made_by_users` of the objects of ``catalog``."""
    return made_by_users(f"'{catalog}'::regclass", oid, kinds)


def listed(options: str, leave_out: str = "") -> str:
    """SQL: the options ``options`` (an array ``name=value``) in the order of their names, empty for none; without those that begin with
    ``leave_out``."""
    which = f" WHERE u.option NOT LIKE '{leave_out}%'" if leave_out else ""
    return f"coalesce((SELECT ' (' || string_agg(u.option, ', ' ORDER BY u.option) || ')' FROM unnest({options}) AS u(option){which}), '')"


def hidden(options: str, salt: str) -> str:
    """As :func:`listed`, with salted digests instead of the values."""
    shown = f"split_part(u.option, '=', 1) || '=#' || left(md5({quote_literal(salt)} || u.option), 12)"
    return f"coalesce((SELECT ' (' || string_agg({shown}, ', ' ORDER BY u.option) || ')' FROM unnest({options}) AS u(option)), '')"


def flag(condition: str, text: str) -> str:
    """SQL: ``text`` where ``condition`` holds, else nothing."""
    return f"CASE WHEN {condition} THEN ' {text}' ELSE '' END"
