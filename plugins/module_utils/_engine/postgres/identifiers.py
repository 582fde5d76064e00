# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Quoting of SQL identifiers and literals, and the names of the objects that we make on servers.

Identifiers are always quoted, so that no word list can be wrong. Everything that we create is named ``pgm_...`` or lives in
the schema ``pg_migration``: clean-up finds it by name alone, also where our own state is lost (requirement B20).
"""

from __future__ import annotations

import hashlib
import re

PREFIX = "pgm_"
"""Start of the name of every slot, publication and temporary object that we make."""

SCHEMA = "pgm_migration"
"""The schema on the target that holds progress and ledger during a migration (PostgreSQL keeps names that begin with ``pg_`` to itself)."""

APPLICATION = "pgops.migration"
"""Start of ``application_name`` of each of our sessions."""


def quote_ident(name: str) -> str:
    """``name`` as a quoted identifier (PostgreSQL manual 4.1.1)."""
    if "\x00" in name:
        raise ValueError("an identifier cannot hold the character NUL")
    return '"' + name.replace('"', '""') + '"'


def quote_qualified(schema: str, name: str) -> str:
    """``schema.name``, both quoted."""
    return quote_ident(schema) + "." + quote_ident(name)


def quote_literal(value: str) -> str:
    """``value`` as a string constant that is right whatever ``standard_conforming_strings`` says (manual 4.1.2)."""
    if "\x00" in value:
        raise ValueError("a string constant cannot hold the character NUL")
    quoted = "'" + value.replace("'", "''") + "'"
    return "E" + quoted.replace("\\", "\\\\") if "\\" in value else quoted


def quote_conninfo(value: str) -> str:
    """``value`` as a value in a connection string (manual 34.1.1.1)."""
    if "\x00" in value:
        raise ValueError("a connection string cannot hold the character NUL")
    return value if re.fullmatch(r"[A-Za-z0-9_./:-]+", value) else "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def object_name(key: str, database: str) -> str:
    """Name of the slot and of the publication of ``database`` in the migration ``key``: at most 63 bytes of ``[a-z0-9_]``.

    Readable first, unique by a digest at the end (slot names allow nothing else: manual 27.2.6).
    """

    def slug(text: str, length: int) -> str:
        return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:length]

    digest = hashlib.sha256(f"{key}\x00{database}".encode()).hexdigest()[:8]
    return f"{PREFIX}{slug(key, 24)}_{slug(database, 20)}_{digest}"
