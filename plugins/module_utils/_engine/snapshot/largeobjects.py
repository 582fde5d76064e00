# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Large objects with owner, grants and comment: copied in batches under the snapshot, and brought level at the cutover.

Logical decoding does not carry them (PostgreSQL manual 29.8), so the cutover compares both sides and repeats what differs.
"""

from __future__ import annotations

import threading
import typing as t

from ..postgres.catalog import PIECE, large_object_digest
from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_ident, quote_literal
from .tools import Stopped

BATCH = 100
"""Large objects in one target transaction: each is a lock, and the lock table is finite."""

_DIGEST = f"""
    SELECT m.oid::bigint, {large_object_digest("m.oid")} || md5(coalesce(obj_description(m.oid, 'pg_largeobject'), ''))
      FROM pg_largeobject_metadata m WHERE m.oid = ANY(%s::bigint[]::oid[])"""


def list_large_objects(conn: psycopg.Connection[t.Any]) -> list[int]:
    """OIDs of all large objects."""
    return [int(row[0]) for row in conn.execute("SELECT oid::bigint FROM pg_largeobject_metadata ORDER BY oid")]


def copy_large_objects(
    source: psycopg.Connection[t.Any], target: psycopg.Connection[t.Any], stop: threading.Event, oids: t.Sequence[int] | None = None
) -> int:
    """Bring the large objects ``oids`` (default: those that the target lacks) to the target.

    :param source: a session; in a transaction with the migration's snapshot where that is wanted.
    :return: how many were written.
    :raises Stopped: between two pieces, after the stop event was set.
    """
    if oids is None:
        there = set(list_large_objects(target))
        oids = [oid for oid in list_large_objects(source) if oid not in there]
    roles = {row[0] for row in target.execute("SELECT rolname::text FROM pg_roles WHERE pg_has_role(current_user, oid, 'MEMBER')")}
    known = {row[0] for row in target.execute("SELECT rolname::text FROM pg_roles")}
    for start in range(0, len(oids), BATCH):
        with target.transaction():
            for oid in oids[start : start + BATCH]:
                _content(source, target, oid, stop)
                _dress(source, target, oid, roles, known)
    return len(oids)


def _content(source: psycopg.Connection[t.Any], target: psycopg.Connection[t.Any], oid: int, stop: threading.Event) -> None:
    target.execute("SELECT lo_create(%s)", [oid])
    offset = 0
    while True:
        if stop.is_set():
            raise Stopped
        row = source.execute("SELECT lo_get(%s::bigint::oid, %s::bigint, %s::int)", [oid, offset, PIECE], binary=True).fetchone()
        piece = bytes(row[0]) if row else b""
        if piece:
            target.execute("SELECT lo_put(%s::bigint::oid, %s::bigint, %b)", [oid, offset, piece])
        offset += len(piece)
        if len(piece) < PIECE:
            return


def _dress(
    source: psycopg.Connection[t.Any], target: psycopg.Connection[t.Any], oid: int, roles: t.Collection[str], known: t.Collection[str]
) -> None:
    """Comment, grants and owner of one large object; the owner last, because then we may no longer be it."""
    row = source.execute(
        "SELECT pg_get_userbyid(lomowner)::text, obj_description(oid, 'pg_largeobject') FROM pg_largeobject_metadata WHERE oid = %s", [oid]
    ).fetchone()
    if row is None:
        return
    owner, comment = row
    statements = [f"COMMENT ON LARGE OBJECT {oid} IS {quote_literal(comment)}"] if comment is not None else []
    if owner in roles:
        statements.append(f"ALTER LARGE OBJECT {oid} OWNER TO {quote_ident(owner)}")
    grants = source.execute(
        "SELECT CASE a.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(a.grantee) END, a.privilege_type, a.is_grantable"
        " FROM pg_largeobject_metadata m, aclexplode(m.lomacl) a WHERE m.oid = %s AND a.grantee <> m.lomowner",
        [oid],
    )
    for grantee, privilege, grantable in grants:
        if not grantee or grantee in known:
            to = quote_ident(grantee) if grantee else "PUBLIC"
            statements.append(f"GRANT {privilege} ON LARGE OBJECT {oid} TO {to}{' WITH GRANT OPTION' if grantable else ''}")
    if statements:
        target.execute("; ".join(statements).encode())


def sync_differences(source: psycopg.Connection[t.Any], target: psycopg.Connection[t.Any]) -> int:
    """Make the target's large objects equal to the source's: missing and differing ones are written, surplus ones removed.

    Differing means another content or comment, compared by digests made on the servers; owners and grants come along with those written.

    :return: how many were written or removed.
    """
    here, there = set(list_large_objects(source)), set(list_large_objects(target))
    surplus = sorted(there - here)
    common = sorted(here & there)
    differing = []
    for start in range(0, len(common), BATCH):
        part = common[start : start + BATCH]
        mine, theirs = (dict(conn.execute(_DIGEST, [part]).fetchall()) for conn in (source, target))
        differing += [oid for oid in part if mine.get(oid) != theirs.get(oid)]
    for start in range(0, len(surplus + differing), BATCH):
        with target.transaction():
            for oid in (surplus + differing)[start : start + BATCH]:
                target.execute("SELECT lo_unlink(%s)", [oid])
    written = sorted(here - there) + differing
    copy_large_objects(source, target, threading.Event(), written)
    return len(written) + len(surplus)
