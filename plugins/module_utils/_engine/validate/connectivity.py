# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""First of all: can this host reach both servers, and if not, what exactly is in the way (R6, R25, R26, R57 to R60)?"""

from __future__ import annotations

import time
import typing as t

from ..errors import ConnectionFailed
from .context import Context, one
from .registry import PLAYBOOK, Issue, check, fail, ok, warn

AZURE_CODES = {"dns": "603000", "tcp": "603000", "tls": "603001", "authentication": "603100", "hba": "603100"}
WORDS = {
    "dns": "its name cannot be resolved",
    "tcp": "no TCP connection",
    "tls": "no TLS as sslmode wants it",
    "hba": "refused by pg_hba.conf",
    "authentication": "user or password refused",
    "database": "the maintenance database does not exist",
    "too_many": "no free connection",
    "starting": "it is starting or stopping",
    "other": "refused",
}
REMEDY = "by reason: DNS, firewall and port, sslmode and certificate, pg_hba.conf, user and password, database name"


@check("PGM2001", "connectivity source", azure="603000 603001 603100", side="source", needs=(), remedy=REMEDY, order=-10)
def source_connectivity(ctx: Context) -> t.Iterator[Issue]:
    """The source answers the migration user; DNS, TCP, TLS, pg_hba, authentication and database are told apart."""
    yield _connect(ctx, "source")


@check("PGM2002", "connectivity target", azure="603000 603001 603100", side="target", needs=(), remedy=REMEDY, order=-9)
def target_connectivity(ctx: Context) -> t.Iterator[Issue]:
    """The target answers its administrator; the same reasons are told apart."""
    yield _connect(ctx, "target")


def _connect(ctx: Context, side: str) -> Issue:
    endpoint = ctx.endpoint(side)
    begun = time.monotonic()
    try:
        conn = ctx.session(side)
    except ConnectionFailed as exc:
        seconds = time.monotonic() - begun
        reason = str(exc.details.get("reason", "other"))
        data = {"reason": reason, "seconds": round(seconds, 3), "sqlstate": exc.sqlstate}
        text = f"{reason}: {WORDS.get(reason, reason)} after {seconds:.2f} s. {exc.message}"
        return fail(text, exc.hint, object=endpoint.label(), azure_code=AZURE_CODES.get(reason, "603000"), data=data)
    seconds = time.monotonic() - begun
    seen = one(conn, "SELECT pg_catalog.host(pg_catalog.inet_client_addr())") or "local socket"
    secure = conn.pgconn.ssl_in_use
    data = {
        "reason": "",
        "seconds": round(seconds, 3),
        "client_addr": seen,
        "tls": secure,
        "version": conn.info.parameter_status("server_version"),
        "version_num": conn.info.server_version,
        "user": conn.info.user,
    }
    tls = "TLS" if secure else "no TLS"
    return ok(f"{seconds:.2f} s, PostgreSQL {data['version']}, {tls}, this host seen as {seen}", data=data, object=endpoint.label())


@check(
    "PGM2003",
    "different servers",
    who=PLAYBOOK,
    side="target",
    needs=("source", "target"),
    remedy="give the target's own address",
    order=-8,
)
def different_servers(ctx: Context) -> t.Iterator[Issue]:
    """Source and target are two servers: not one reached under two names."""
    pair = [ctx.session(side) for side in ("source", "target")]
    facts = []
    for conn in pair:
        query = "SELECT pg_postmaster_start_time()::text, inet_server_port()"
        facts.append((*conn.execute(query).fetchall()[0], *_system(conn)))
    if facts[0] == facts[1]:
        yield fail("source and target are the same server under two names", "Correct pg_migration.target.host and port.")
    elif facts[0][2:] == facts[1][2:] and facts[0][2:]:
        yield warn("source and target have the same system identifier: one is a physical copy of the other")
    else:
        yield ok()


def _system(conn: t.Any) -> tuple[t.Any, ...]:
    """The system identifier, where the server tells it (9.6 and later, and only with the right)."""
    if conn.info.server_version < 90600:
        return ()
    if not one(conn, "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')"):
        return ()
    return (one(conn, "SELECT system_identifier FROM pg_control_system()"),)
