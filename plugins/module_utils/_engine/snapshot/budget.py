# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""How many sessions a migration opens on each side, and how many jobs fit into what a server has free: the one place that counts them.

Counted is what takes a place of ``max_connections``. A walsender does so before version 12 only; from then on ``max_wal_senders`` is a
budget of its own (release notes of PostgreSQL 12), which the validation looks after.
"""

from __future__ import annotations

import typing as t

from ..postgres.drivers import psycopg
from ..postgres.session import application_name
from ..spec import COPIES_AT_ONCE, Endpoint, MigrationSpec

SENDERS_APART = 120000
"""First version whose walsenders take no place of ``max_connections``."""

UNKNOWN = 1 << 16
"""Free sessions where the server does not tell (before 9.6)."""

LEAST_JOBS = {"source": 1, "target": 2}
"""One relay; on the target one index builder as well."""


class Free(t.NamedTuple):
    """So many ``sessions`` more would the server let us open; ``limit`` says what sets an end to it."""

    sessions: int
    limit: str


_FREE = """
    SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
           - coalesce(nullif(current_setting('reserved_connections', true), ''), '0')::int
           - (SELECT count(*) FROM pg_stat_activity WHERE {client}),
           (SELECT CASE WHEN rolconnlimit >= 0 THEN rolconnlimit - (SELECT count(*) FROM pg_stat_activity WHERE usename = current_user) END
              FROM pg_roles WHERE rolname = current_user),
           (SELECT CASE WHEN datconnlimit >= 0 THEN datconnlimit - (SELECT count(*) FROM pg_stat_activity WHERE datname = d.datname) END
              FROM pg_database d WHERE datname = current_database())"""

_LIMITS = ("max_connections", "the CONNECTION LIMIT of the role", "the CONNECTION LIMIT of the database")


def free_sessions(conn: psycopg.Connection[t.Any]) -> Free:
    """What the server of ``conn`` has left for this user in this database."""
    version = conn.info.server_version
    if version < 90600:
        return Free(UNKNOWN, _LIMITS[0])
    kinds = "('client backend')" if version >= SENDERS_APART else "('client backend', 'walsender')"
    client = f"backend_type IN {kinds}" if version >= 100000 else "true"
    row = conn.execute(_FREE.format(client=client).encode()).fetchone()
    known = [(int(left), limit) for left, limit in zip(row or (0, None, None), _LIMITS, strict=True) if left is not None]
    count, limit = min(known)
    return Free(max(0, count), limit)


def our_sessions(conn: psycopg.Connection[t.Any], endpoint: Endpoint, database: str = "") -> int:
    """How many sessions of this migration there are on the server of ``conn``, in ``database`` alone if it is given."""
    prefix = application_name(endpoint, "")
    row = conn.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE left(application_name, length(%s)) = %s AND (%s = '' OR datname = %s)",
        [prefix, prefix, database, database],
    ).fetchone()
    return int(row[0]) if row else 0


def besides_jobs(spec: MigrationSpec, side: str, version: int) -> dict[str, int]:
    """What a database that is being copied has open on ``side`` (a server of ``version``) besides relays and index builders."""
    both = {"the plan, the schema and the last steps": 1, "large objects": 1, "a look at what is waited for": 1}
    if side == "target":
        return both
    senders = version < SENDERS_APART
    return {
        **both,
        "standbys and probe": int(bool(spec.copy.max_standby_lag or spec.copy.probe_query)),
        "the guard of slot and tables": int(spec.online),
        "the snapshot": int(not spec.online or senders),
        "the receiver": int(spec.online and senders),
    }


def following(spec: MigrationSpec, side: str, version: int) -> int:
    """What a database whose rows are there has open on ``side`` until its cutover."""
    if not spec.online:
        return 0
    if side == "target":
        return spec.changes.lanes + 1
    return 2 + int(version < SENDERS_APART)


def least_of_copy(spec: MigrationSpec, side: str, version: int) -> int:
    """The fewest sessions that the copy of one database gets along with on ``side``."""
    return sum(besides_jobs(spec, side, version).values()) + LEAST_JOBS[side]


def least(spec: MigrationSpec, side: str, version: int) -> int:
    """The fewest sessions that the whole migration gets along with on ``side``."""
    databases = max(1, len(spec.databases))
    copies = 0 if spec.back_of else min(COPIES_AT_ONCE, databases)
    others = (databases - copies) * following(spec, side, version)
    return copies * least_of_copy(spec, side, version) + others + (1 if side == "target" else 0)  # the service's own


def shortage(spec: MigrationSpec, endpoint: Endpoint, conn: psycopg.Connection[t.Any]) -> str:
    """Why the server of ``conn`` has too few sessions for the migration, a sentence; empty if they suffice."""
    side, version = endpoint.side, conn.info.server_version
    granted, wanted = spec.copy.max_connections, least_of_copy(spec, side, version)
    if granted and granted < wanted:
        return f"copy.max_connections is {granted}, and the copy of a database needs {wanted} sessions on the {side}"
    free, wanted = free_sessions(conn), least(spec, side, version)
    ours = our_sessions(conn, endpoint)
    if free.sessions + ours < wanted:
        return f"{endpoint.label()} has {free.sessions + ours} sessions for the migration ({free.limit}), and {wanted} are needed at least"
    return ""


def granted(spec: MigrationSpec, endpoint: Endpoint, conn: psycopg.Connection[t.Any], database: str) -> int:
    """How many sessions the copy of ``database`` may have on the server of ``conn``, those that are open already included."""
    free, ours = free_sessions(conn).sessions, our_sessions(conn, endpoint, database)
    if spec.copy.max_connections:
        return min(spec.copy.max_connections, ours + free)
    return ours + free // 2


def jobs_that_fit(
    spec: MigrationSpec, source: psycopg.Connection[t.Any], target: psycopg.Connection[t.Any], database: str
) -> tuple[int, int]:
    """Relays and index builders for the copy of ``database``: as many as are asked for, or as both servers have sessions for."""
    left = []
    for endpoint, conn in ((spec.source, source), (spec.target, target)):
        besides = sum(besides_jobs(spec, endpoint.side, conn.info.server_version).values())
        left.append(granted(spec, endpoint, conn, database) - besides)
    return jobs_within(spec.copy.jobs, spec.copy.index_jobs, *left)


def jobs_within(jobs: int, index_jobs: int, source: int, target: int) -> tuple[int, int]:
    """Relays and index builders that fit into so many sessions on each side, at least one of each."""
    jobs = max(1, min(jobs, source))
    while jobs + index_jobs > target and (jobs > 1 or index_jobs > 1):
        if jobs >= index_jobs:
            jobs -= 1
        else:
            index_jobs -= 1
    return jobs, max(1, index_jobs)
