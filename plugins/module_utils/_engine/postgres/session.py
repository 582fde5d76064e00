# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Every session that we open on a server, and the settings that it runs with.

What decides the text of values (dates, intervals, floats, bytea, zone, search path) is pinned in :data:`PINNED` for all
sessions on both sides, so that nothing depends on how a role or a database is configured. Settings are made after connecting,
never in the DSN: poolers and managed servers refuse options there.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import typing as t
import urllib.parse

from ..errors import ConnectionFailed, MigrationError, PermissionMissing
from ..spec import Endpoint
from .drivers import asyncpg, psycopg, require
from .identifiers import APPLICATION, quote_literal

PINNED: dict[str, str] = {
    "client_encoding": "UTF8",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "xmloption": "content",
    "search_path": "pg_catalog",
    "row_security": "off",
    "statement_timeout": "0",
    "lock_timeout": "30s",
    "idle_in_transaction_session_timeout": "0",
    "default_transaction_read_only": "off",
    "standard_conforming_strings": "on",
}
SINCE: dict[str, int] = {"idle_in_transaction_session_timeout": 90600, "idle_session_timeout": 140000, "transaction_timeout": 170000}
NO_FILE = "/dev/null/none"
"""A password file that cannot exist, so that a driver does not look into the user's own: an endpoint without a password has none."""
KEEPALIVES: dict[str, t.Any] = {"keepalives": 1, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}


def settings(server_version: int) -> dict[str, str]:
    """The session settings for a server of ``server_version`` (``150020``)."""
    wanted = {**PINNED, "idle_session_timeout": "0", "transaction_timeout": "0"}
    return {k: v for k, v in wanted.items() if server_version >= SINCE.get(k, 0)}


def application_name(endpoint: Endpoint, purpose: str) -> str:
    """What ``pg_stat_activity`` calls a session of ours: ``pgops.migration KEY purpose``, at most 63 bytes."""
    return " ".join(part for part in (APPLICATION, endpoint.tag, purpose) if part)[:63]


def conninfo(endpoint: Endpoint, dbname: str = "", purpose: str = "") -> dict[str, t.Any]:
    """libpq's keywords for ``endpoint``, the password among them: to be handed to a driver, never to a command line.

    Passwords of the environment and of ``~/.pgpass`` are not taken: what a session can do, the tools and the bulk copy must do as well.
    """
    info: dict[str, t.Any] = {
        "host": endpoint.host,
        "port": endpoint.port,
        "user": endpoint.user,
        "dbname": dbname or endpoint.dbname,
        "sslmode": endpoint.sslmode,
        "connect_timeout": endpoint.connect_timeout,
        "application_name": application_name(endpoint, purpose),
        **KEEPALIVES,
    }
    info.update({"password": endpoint.password, "passfile": NO_FILE})
    info.update({k: getattr(endpoint, k) for k in ("sslrootcert", "sslcert", "sslkey") if getattr(endpoint, k)})
    return info


def connect(endpoint: Endpoint, dbname: str = "", *, purpose: str = "", autocommit: bool = True) -> psycopg.Connection[t.Any]:
    """A session with :data:`PINNED` settings; ``purpose`` is shown in ``pg_stat_activity.application_name``.

    :raises ConnectionFailed: with the reason told apart (R26).
    """
    require("psycopg")
    try:
        conn = psycopg.connect(**conninfo(endpoint, dbname, purpose), autocommit=True)
    except psycopg.Error as exc:
        raise connection_failure(endpoint, dbname, exc) from exc
    pairs = settings(conn.info.server_version).items()
    conn.execute("; ".join(f"SET {name} = {value if name in ('DateStyle',) else quote_literal(value)}" for name, value in pairs))
    conn.autocommit = autocommit
    return conn


async def connect_bulk(endpoint: Endpoint, dbname: str = "", *, purpose: str = "", replication: bool = False) -> asyncpg.Connection:
    """An asyncpg session for bulk COPY with the same settings as :func:`connect`; a walsender's with ``replication``.

    :raises ConnectionFailed: as :func:`connect`.
    """
    require("asyncpg")
    failures = (OSError, asyncio.TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)
    tls = {k: getattr(endpoint, k) for k in ("sslrootcert", "sslcert", "sslkey") if getattr(endpoint, k)}
    dsn = "postgresql://?" + urllib.parse.urlencode({"sslmode": endpoint.sslmode, **tls})
    try:
        conn = await asyncpg.connect(
            dsn,
            host=endpoint.host,
            port=endpoint.port,
            user=endpoint.user,
            password=endpoint.password,
            passfile=NO_FILE,
            database=dbname or endpoint.dbname,
            timeout=endpoint.connect_timeout,
            statement_cache_size=0,
            server_settings={
                "application_name": application_name(endpoint, purpose),
                **({"replication": "database"} if replication else {}),
            },
        )
    except failures as exc:
        raise connection_failure(endpoint, dbname, exc) from exc
    _keep_alive(conn._transport.get_extra_info("socket"))  # no public name; there is no other way to it
    version = conn.get_server_version()
    number = version.major * 10000 + (version.minor * 100 if version.major < 10 else version.minor)
    if number < 100000 and replication:
        return conn  # a walsender takes SQL from version 10 on
    wanted = settings(number)
    if replication:  # decoding writes values as this session is set
        wanted["lc_monetary"] = "C"
        if conn.get_settings().server_encoding == "SQL_ASCII":
            wanted["client_encoding"] = "SQL_ASCII"
    try:
        await conn.execute("; ".join(f"SET {k} = {v if k == 'DateStyle' else quote_literal(v)}" for k, v in wanted.items()))
    except failures as exc:
        conn.terminate()
        raise connection_failure(endpoint, dbname, exc) from exc
    return conn


def _keep_alive(sock: t.Any) -> None:
    """What :data:`KEEPALIVES` is to libpq, for a driver that knows no such options; a Unix socket needs none."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, KEEPALIVES["keepalives"])
    for name, option in (("idle", "TCP_KEEPIDLE"), ("interval", "TCP_KEEPINTVL"), ("count", "TCP_KEEPCNT")):
        if hasattr(socket, option):  # not every system has them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), KEEPALIVES[f"keepalives_{name}"])


BY_STATE = {"28P01": "authentication", "28000": "hba", "3D000": "database", "53300": "too_many", "57P03": "starting", "42501": "rights"}
REASONS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("authentication", ("password authentication failed", "no password supplied", "authentication failed"), "Correct user and password."),
    (
        "hba",
        ("no pg_hba.conf entry", "pg_hba.conf rejects"),
        "Allow this user, database and address in pg_hba.conf (or the provider's firewall).",
    ),
    ("rights", ("permission denied", "must be superuser or replication role"), "Grant the login the right that the server names."),
    ("database", ("does not exist",), "Correct the name of the database or role."),
    (
        "dns",
        ("could not translate host name", "name or service not known", "failed to resolve", "getaddrinfo", "temporary failure in name"),
        "Correct the host name, or the runtime host's DNS.",
    ),
    ("tls", ("ssl", "certificate"), "Check sslmode, sslrootcert and the host name in the server's certificate."),
    ("too_many", ("too many clients", "remaining connection slots", "too many connections"), "Raise max_connections, or lower copy.jobs."),
    (
        "starting",
        ("starting up", "shutting down", "in recovery mode", "not yet accepting"),
        "Wait until the server is ready and run the playbook again.",
    ),
    (
        "tcp",
        (
            "refused",
            "timeout",
            "timed out",
            "no route to host",
            "unreachable",
            "connection failed",
            "could not connect",
            "connect call failed",
            "server closed",
        ),
        "Check address, port, firewall and that the server listens there.",
    ),
)


def connection_failure(endpoint: Endpoint, dbname: str, exc: BaseException) -> ConnectionFailed:
    """What an attempt to connect ended in, told apart as R26 wants it."""
    text = " ".join(str(exc).split()) or type(exc).__name__
    sqlstate = getattr(exc, "sqlstate", None) or ""
    lowered = text.lower()
    reason = BY_STATE.get(sqlstate) or next((r for r, words, dummy in REASONS if any(w in lowered for w in words)), "other")
    # libpq keeps the SQLSTATE of a refused connection to itself
    sqlstate = sqlstate or next((state for state, meant in BY_STATE.items() if meant == reason), "")
    hint = next((h for r, dummy, h in REASONS if r == reason), "See the server's log.")
    label = endpoint.label(dbname)
    details = {"reason": reason, "side": endpoint.side}
    shown = f" (SQLSTATE {sqlstate})" if sqlstate else ""
    return ConnectionFailed(f"Could not connect to {label}: {text}{shown}", hint=hint, server=label, sqlstate=sqlstate, details=details)


def lost(exc: psycopg.Error) -> bool:
    """Did a session end, rather than a statement fail?"""
    state = exc.sqlstate or ""
    return isinstance(exc, psycopg.OperationalError) and (not state or state.startswith(("08", "57P")))


PASSING = ("08", "57P", "40", "55P03", "53300", "53400")
"""Start of SQLSTATEs that a later attempt may not meet again: connection, shutdown, serialization and deadlock, lock, too many."""


def passing(exc: BaseException) -> bool:
    """May what ended in ``exc``, of one driver or the other, succeed later?"""
    if isinstance(exc, ConnectionFailed):
        return exc.details.get("reason") in ("tcp", "starting", "too_many", "other")
    state = getattr(exc, "sqlstate", None)
    if state:
        return str(state).startswith(PASSING)
    broken = (psycopg.Error, OSError, asyncio.TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)
    return isinstance(exc, broken)


@contextlib.contextmanager
def server_errors(
    doing: str, endpoint: Endpoint, dbname: str = "", *, kind: type[MigrationError] = MigrationError, code: str = "", hint: str = ""
) -> t.Iterator[None]:
    """Turn what the server answers inside the block into ``kind``: "Could not ``doing`` on ``server``: answer (SQLSTATE)".

    A refused right (42501) becomes :class:`PermissionMissing`.
    """
    try:
        yield
    except psycopg.Error as exc:
        answer = (exc.diag.message_primary if exc.diag else None) or " ".join(str(exc).split()) or type(exc).__name__
        state = exc.sqlstate or ""
        label = endpoint.label(dbname)
        cls = PermissionMissing if state == "42501" and kind is MigrationError else kind
        shown = f" (SQLSTATE {state})" if state else ""
        raise cls(f"Could not {doing} on {label}: {answer}{shown}.", code=code, hint=hint, server=label, sqlstate=state) from exc
