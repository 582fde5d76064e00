# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Which databases a migration takes, and in what sets (R64 to R66)."""

from __future__ import annotations

import typing as t

from ..errors import SpecificationError
from ..postgres.catalog import is_selection, list_databases, select
from ..postgres.drivers import psycopg
from ..spec import MAX_DATABASES, MigrationSpec


def resolve_databases(spec: MigrationSpec, conn: psycopg.Connection[t.Any], *, limit: int = MAX_DATABASES) -> list[str]:
    """The databases that ``spec`` names, in its order, once each; ``[all]`` is every database of users on the source, see :func:`select`.

    Names are not looked for on the source: the validation does that (603102).

    :param limit: how many one attempt may take; 0 for any number, when the caller splits them itself.
    :raises SpecificationError: PGM1003 where there is none, PGM1004 where there are more than ``limit`` (R65).
    """
    named = list(dict.fromkeys(spec.databases))
    names = select(named, list_databases(conn)) if is_selection(named) else named
    if not names:
        raise SpecificationError("There is no database to migrate.", code="PGM1003", hint="Name them in pg_migration.databases, or [all].")
    if limit and len(names) > limit:
        raise SpecificationError(
            f"{len(names)} databases are too many for one attempt: at most {limit}.",
            code="PGM1004",
            hint="The playbook migrate takes them in sets of eight by itself; or name fewer in pg_migration.databases.",
            details={"databases": names, "batches": split_batches(names, limit)},
        )
    return names


def split_batches(names: t.Sequence[str], size: int = MAX_DATABASES) -> list[list[str]]:
    """``names`` in sets of ``size``, in their order, each name once (R66): 19 names become 8, 8 and 3.

    :raises ValueError: for a size below 1.
    """
    if size < 1:
        raise ValueError(f"a set holds at least one database, not {size}")
    unique = list(dict.fromkeys(names))
    return [unique[start : start + size] for start in range(0, len(unique), size)]
