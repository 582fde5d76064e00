# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Which output plugin decodes the source's changes, and with which options.

``auto`` takes wal2json where it can be loaded and loses nothing, else pgoutput. wal2json up to 2.5 writes NaN and Infinity as ``null``: it
is lossless only with its option ``numeric-data-types-as-string`` (2.6), or where no column is of a floating or numeric type. wal2json
writes in the server's encoding, so the database must be in UTF-8. test_decoding is refused: its text cannot be read without guessing.
"""

from __future__ import annotations

import dataclasses
import secrets
import typing as t

from ..errors import MigrationError, PermissionMissing
from ..postgres.drivers import psycopg
from ..postgres.identifiers import PREFIX
from ..postgres.session import connect
from ..spec import Endpoint
from .publication import streamed_tables
from .slot import plugin_hint

WAL2JSON_OPTIONS = {
    "format-version": "2",
    "include-xids": "0",
    "include-lsn": "1",
    "include-timestamp": "1",
    "include-types": "0",
    "include-transaction": "1",
}
AS_STRING = "numeric-data-types-as-string"
PROBE_TIMEOUT = "10s"
"""How long a probe's slot may wait for running transactions to end; the library has been loaded before that."""


@dataclasses.dataclass(frozen=True)
class PluginChoice:
    """The plugin, its options for START_REPLICATION, why it was taken, and whether logical messages come through it."""

    plugin: str
    options: dict[str, str]
    reason: str
    messages: bool


def choose_plugin(endpoint: Endpoint, database: str, wanted: str = "auto") -> PluginChoice:
    """The plugin for ``database``.

    :param wanted: ``auto``, ``wal2json`` or ``pgoutput``.
    :raises MigrationError: PGM1206 if the plugin that was asked for cannot be used, PGM1203 if it is refused to this role.
    """
    with connect(endpoint, database, purpose="plugin") as conn:
        version = conn.info.server_version
        if wanted == "pgoutput":
            if version < 100000:
                raise MigrationError(
                    f"pgoutput needs PostgreSQL 10; {endpoint.label(database)} is older.", code="PGM1206", hint="Use wal2json."
                )
            return _pgoutput(conn, "asked for")
        if wanted not in ("auto", "wal2json"):
            raise MigrationError(
                f"The output plugin {wanted} cannot be read without loss.", code="PGM1206", hint="Use auto, wal2json or pgoutput."
            )
        try:
            as_string = _probe(conn)
        except MigrationError as exc:
            if wanted == "auto" and version >= 100000:
                return _pgoutput(conn, f"wal2json cannot be used: {exc.message}")
            raise
        lossy = _lossy(conn, as_string)
        if lossy and wanted == "auto" and version >= 100000:
            return _pgoutput(conn, f"wal2json would lose values: {lossy}")
        reason = f"asked for; beware: {lossy}" if lossy else ("asked for" if wanted == "wal2json" else "loadable and lossless")
        options = {**WAL2JSON_OPTIONS, **({AS_STRING: "1"} if as_string else {})}
        return PluginChoice("wal2json", options, reason, version >= 90600 and _may_emit(conn))


def _may_emit(conn: psycopg.Connection[t.Any]) -> bool:
    """May this login write logical messages? (The right can be revoked; the function came with 9.6 and has a fourth argument since 17.)"""
    row = conn.execute(
        "SELECT bool_or(has_function_privilege(oid, 'EXECUTE')) FROM pg_proc"
        " WHERE proname = 'pg_logical_emit_message' AND pronamespace = 'pg_catalog'::regnamespace AND proargtypes[2] = 'text'::regtype"
    ).fetchone()
    return bool(row and row[0])


def _pgoutput(conn: psycopg.Connection[t.Any], reason: str) -> PluginChoice:
    version = conn.info.server_version
    protocol = 1 if version < 140000 else 2 if version < 150000 else 3 if version < 160000 else 4
    options = {"proto_version": str(protocol)}
    if version >= 140000:
        options["messages"] = "true"
    return PluginChoice("pgoutput", options, reason, version >= 140000 and _may_emit(conn))


def _lossy(conn: psycopg.Connection[t.Any], as_string: bool) -> str:
    """What wal2json would lose in this database; empty if nothing."""
    row = conn.execute("SELECT pg_catalog.pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()").fetchone()
    encoding = row[0] if row else ""
    if encoding != "UTF8":
        return f"it writes in the database's encoding {encoding}, which JSON cannot hold"
    if as_string:
        return ""
    floating = conn.execute(
        "SELECT oid FROM pg_type WHERE typbasetype = ANY('{700,701,1700}'::oid[]) UNION SELECT unnest('{700,701,1700}'::oid[])"
    ).fetchall()
    oids = {row[0] for row in floating}
    for table in streamed_tables(conn):
        for column in table.stored_columns:
            if column.type_oid in oids:
                return f"this version writes NaN and Infinity as null, and {table.label}.{column.name} is {column.type}"
    return ""


def _probe(conn: psycopg.Connection[t.Any]) -> bool:
    """Load wal2json through a slot that is gone afterwards, also in failure (R14); True if it can write numbers as strings.

    :raises MigrationError: if it cannot be loaded.
    """
    name = f"{PREFIX}probe_{secrets.token_hex(6)}"
    temporary = conn.info.server_version >= 100000
    conn.execute(f"SET statement_timeout = '{PROBE_TIMEOUT}'")
    try:
        tail = ", true" if temporary else ""
        conn.execute(f"SELECT pg_create_logical_replication_slot(%s, 'wal2json'{tail})", [name])
        try:
            conn.execute("SELECT pg_logical_slot_peek_changes(%s, NULL, 1, 'format-version', '2', %s, '1')", [name, AS_STRING]).fetchall()
        except psycopg.Error:
            return False
        return True
    except psycopg.errors.QueryCanceled:
        return False
    except psycopg.Error as exc:
        said = (exc.diag.message_primary if exc.diag else None) or str(exc)
        kind = PermissionMissing if exc.sqlstate == "42501" else MigrationError
        code = "PGM1203" if exc.sqlstate == "42501" else "PGM1202" if exc.sqlstate == "53400" else "PGM1206"
        hint = (
            plugin_hint(conn.info.user, "wal2json", said)
            if exc.sqlstate == "42501"
            else "Install wal2json on the source, or choose plugin: pgoutput."
        )
        raise kind(f"wal2json cannot be used: {said}", code=code, hint=hint, sqlstate=exc.sqlstate or "") from exc
    finally:
        conn.execute("SET statement_timeout = 0")
        conn.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", [name])
