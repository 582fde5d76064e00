# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Which output plugin decodes the source's changes, and with which options.

``auto`` takes wal2json where it can be loaded and loses nothing, else pgoutput; test_decoding only where neither can be used: before 10,
or where the role may not publish the tables. wal2json up to 2.5 writes NaN and Infinity as ``null``: it is lossless only with its option
``numeric-data-types-as-string`` (2.6), or where no column is of a floating or numeric type. wal2json and test_decoding write in the
server's encoding, so the database must be in UTF-8.
"""

from __future__ import annotations

import dataclasses
import secrets
import typing as t

from ..errors import MigrationError, PermissionMissing
from ..postgres.catalog import read_tables
from ..postgres.drivers import psycopg
from ..postgres.identifiers import PREFIX
from ..postgres.selection import EVERYTHING, Selection
from ..postgres.session import connect
from ..spec import Endpoint
from .publication import ensure_publication, foreign_owners, may_create, streamed_tables
from .slot import plugin_hint, plugin_package

WAL2JSON_OPTIONS = {
    "format-version": "2",
    "include-xids": "0",
    "include-lsn": "1",
    "include-timestamp": "1",
    "include-types": "0",
    "include-transaction": "1",
}
TEST_DECODING_OPTIONS = {"include-xids": "0", "include-timestamp": "1"}
"""``skip-empty-xacts`` is left alone: with it a transaction of nothing but a message has neither BEGIN nor COMMIT (before 17)."""

AS_STRING = "numeric-data-types-as-string"
PROBE_TIMEOUT = "10s"
"""How long a probe's slot may wait for running transactions to end; the library has been loaded before that."""


class Streamed(t.NamedTuple):
    """A table that is streamed. ``whole``: its replica identity is the whole row. ``oids``: it is WITH OIDS (before 12)."""

    schema: str
    name: str
    whole: bool
    oids: bool = False

    @property
    def label(self) -> str:
        """``schema.table`` for people."""
        return f"{self.schema}.{self.name}"


@dataclasses.dataclass(frozen=True)
class PluginChoice:
    """The plugin, its options for START_REPLICATION, why it was taken, and whether logical messages come through it.

    ``tables`` is what test_decoding has in place of a publication, made by :func:`publish`: the fields of :class:`Streamed`.
    """

    plugin: str
    options: dict[str, str]
    reason: str
    messages: bool
    tables: t.Sequence[t.Sequence[t.Any]] = ()

    @property
    def streamed(self) -> list[Streamed]:
        """:attr:`tables` by name."""
        return [Streamed(*fields) for fields in self.tables]


def choose_plugin(endpoint: Endpoint, database: str, wanted: str = "auto") -> PluginChoice:
    """The plugin for ``database``.

    :param wanted: ``auto``, ``wal2json``, ``pgoutput`` or ``test_decoding``.
    :raises MigrationError: PGM1206 if the plugin that was asked for cannot be used, PGM1203 if it is refused to this role.
    """
    with connect(endpoint, database, purpose="plugin") as conn:
        if wanted == "auto":
            return _automatic(conn)
        if wanted == "test_decoding":
            return _test_decoding(conn, "asked for")
        if wanted == "pgoutput":
            if conn.info.server_version < 100000:
                raise MigrationError(
                    f"pgoutput needs PostgreSQL 10; {endpoint.label(database)} is older.",
                    code="PGM1206",
                    hint="Use wal2json or test_decoding.",
                )
            return _pgoutput(conn, "asked for")
        if wanted != "wal2json":
            raise MigrationError(
                f"The output plugin {wanted} cannot be read without loss.",
                code="PGM1206",
                hint="Use auto, wal2json, pgoutput or test_decoding.",
            )
        choice, lossy = _wal2json(conn)
        return dataclasses.replace(choice, reason=f"asked for; beware: {lossy}" if lossy else "asked for")


def _automatic(conn: psycopg.Connection[t.Any]) -> PluginChoice:
    """wal2json, else pgoutput, else test_decoding. Where none can be used, the first that only lacks a right or loses something: the
    validation says then what is missing."""
    found: PluginChoice | None = None
    refusal: MigrationError | None = None
    lossy = ""
    try:
        found, lossy = _wal2json(conn)
        why = f"wal2json would lose values: {lossy}"
        if not lossy:
            return dataclasses.replace(found, reason="loadable and lossless")
    except MigrationError as exc:
        refusal, why = exc, f"wal2json cannot be used: {exc.message}"
    modern = conn.info.server_version >= 100000
    obstacle = _no_publication(conn) if modern else "it came with PostgreSQL 10"
    if not obstacle:
        return _pgoutput(conn, why)
    try:
        return _test_decoding(conn, f"{why}; pgoutput cannot be used: {obstacle}")
    except MigrationError:
        if modern:
            return _pgoutput(conn, why)
        if found is None:
            raise refusal or MigrationError(why, code="PGM1206") from None
        return dataclasses.replace(found, reason=f"no other can be used; beware: {lossy}")


def publish(conn: psycopg.Connection[t.Any], choice: PluginChoice, name: str, selection: Selection = EVERYTHING) -> PluginChoice:
    """See to it that the slot ``name`` streams the chosen tables of the source, and no others, before it is made.

    pgoutput has a publication of the slot's name. test_decoding has no filter: its decoder keeps to the list in the choice that is
    returned. wal2json is told whenever reading begins.
    """
    if choice.plugin == "wal2json":
        return choice
    tables = streamed_tables(conn, selection)
    if choice.plugin == "pgoutput":
        ensure_publication(conn, name, tables)
        return choice
    rows = conn.execute("SELECT oid FROM pg_class WHERE relhasoids").fetchall() if conn.info.server_version < 120000 else []
    with_oids = {row[0] for row in rows}
    listed = [Streamed(table.schema, table.name, not table.key, table.oid in with_oids) for table in tables]
    return dataclasses.replace(choice, tables=[list(table) for table in listed])


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


def _wal2json(conn: psycopg.Connection[t.Any]) -> tuple[PluginChoice, str]:
    """wal2json, and what it would lose in this database; empty if nothing.

    :raises MigrationError: as :func:`_probe`.
    """
    as_string = _probe(conn, "wal2json", ["format-version", "2", AS_STRING, "1"])
    options = {**WAL2JSON_OPTIONS, **({AS_STRING: "1"} if as_string else {})}
    return PluginChoice("wal2json", options, "", conn.info.server_version >= 90600 and _may_emit(conn)), _lossy(conn, as_string)


def _test_decoding(conn: psycopg.Connection[t.Any], reason: str) -> PluginChoice:
    """:raises MigrationError: as :func:`_probe`; PGM1206 if the database is not in UTF-8."""
    encoding = _encoding(conn)
    if encoding != "UTF8":
        raise MigrationError(
            f"test_decoding cannot be used in {conn.info.dbname} on {conn.info.host}:{conn.info.port}: it writes in the database's encoding"
            f" {encoding}, and nothing in its messages tells that.",
            code="PGM1206",
            hint="Use pgoutput, which converts.",
        )
    _probe(conn, "test_decoding", [])
    return PluginChoice("test_decoding", dict(TEST_DECODING_OPTIONS), reason, conn.info.server_version >= 90600 and _may_emit(conn))


def _no_publication(conn: psycopg.Connection[t.Any]) -> str:
    """Why this role cannot publish the tables of this database; empty if it can."""
    row = conn.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
    if row and row[0]:
        return ""
    if not may_create(conn):
        return f"{conn.info.user} has no CREATE on the database"
    owners = foreign_owners(conn, read_tables(conn))
    return f"{conn.info.user} does not own the tables of {owners[0].owner}" if owners else ""


def _encoding(conn: psycopg.Connection[t.Any]) -> str:
    row = conn.execute("SELECT pg_catalog.pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()").fetchone()
    return str(row[0]) if row else ""


def _lossy(conn: psycopg.Connection[t.Any], as_string: bool) -> str:
    """What wal2json would lose in this database; empty if nothing."""
    encoding = _encoding(conn)
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


def _probe(conn: psycopg.Connection[t.Any], plugin: str, options: list[str]) -> bool:
    """Load ``plugin`` through a slot that is gone afterwards, also in failure (R14); True if it takes ``options``, names and values.

    :raises MigrationError: if it cannot be loaded.
    """
    name = f"{PREFIX}probe_{secrets.token_hex(6)}"
    temporary = conn.info.server_version >= 100000
    conn.execute(f"SET statement_timeout = '{PROBE_TIMEOUT}'")
    try:
        tail = ", true" if temporary else ""
        conn.execute(f"SELECT pg_create_logical_replication_slot(%s, %s{tail})", [name, plugin])
        try:
            conn.execute("SELECT pg_logical_slot_peek_changes(%s, NULL, 1, VARIADIC %s::text[])", [name, options]).fetchall()
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
            plugin_hint(conn.info.user, plugin, said)
            if exc.sqlstate == "42501"
            else f"Install {plugin_package(plugin)} on that server, or choose changes.plugin: pgoutput."
        )
        raise kind(
            f"{plugin} cannot be used on {conn.info.host}:{conn.info.port}: {said}", code=code, hint=hint, sqlstate=exc.sqlstate or ""
        ) from exc
    finally:
        conn.execute("SET statement_timeout = 0")
        conn.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", [name])
