# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The only place that imports what is not in Python's standard library.

Modules of a collection must be importable where these are missing (``ansible-test sanity``), so the imports are guarded
once, here, and :func:`require` says what is missing and which role installs it.

* ``psycopg`` 3 for every session and for the replication protocol (its ``pq`` layer);
* ``asyncpg`` for bulk COPY alone (five times less CPU than any per-row interface; docs/architecture.md);
* ``msgspec`` for wal2json.
"""

from __future__ import annotations

import sys
import typing as t

from ..errors import ServiceError

__all__ = ["MISSING", "asyncpg", "msgspec", "psycopg", "require"]

MISSING: dict[str, str] = {}

try:
    import psycopg
    import psycopg.adapt
    import psycopg.conninfo
    import psycopg.errors
    import psycopg.pq
    import psycopg.rows
    import psycopg.sql
except ImportError as exc:
    psycopg = t.cast(t.Any, None)
    MISSING["psycopg"] = str(exc)

try:
    import asyncpg
except ImportError as exc:
    asyncpg = t.cast(t.Any, None)
    MISSING["asyncpg"] = str(exc)

try:
    import msgspec
except ImportError as exc:
    msgspec = t.cast(t.Any, None)
    MISSING["msgspec"] = str(exc)


def require(*names: str) -> None:
    """Refuse to go on where one of the libraries ``names`` (all of ours by default) is missing.

    :raises ServiceError: naming the library, the interpreter and the remedy.
    """
    for name in names or ("psycopg", "asyncpg", "msgspec"):
        if name in MISSING:
            raise ServiceError(
                f"The Python library {name} cannot be imported by {sys.executable}: {MISSING[name]}",
                code="PGM8002",
                hint="Run the playbook pgops.migration.provision_runtime: it makes a virtual environment with all that is needed.",
            )
