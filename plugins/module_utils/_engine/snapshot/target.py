# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The database on the target: created like the source's, or recognised as our own."""

from __future__ import annotations

import dataclasses
import typing as t

from ..errors import Conflict, CopyError
from ..migration.ledger import Ledger
from ..postgres.drivers import psycopg
from ..postgres.identifiers import object_name, quote_ident, quote_literal
from ..postgres.session import connect, server_errors
from ..spec import MigrationSpec

PRE_DATA = "pre-data"
"""Ledger step: all that the schema has before the data is on the target."""


@dataclasses.dataclass(frozen=True)
class DatabaseFacts:
    """How a database was created. ``provider`` is ``pg_database.datlocprovider`` (``c i b``), ``locale`` the ICU or built-in one."""

    encoding: str
    collate: str
    ctype: str
    provider: str
    locale: str
    rules: str
    owner: str
    tablespace: str = "pg_default"


def read_facts(conn: psycopg.Connection[t.Any], database: str) -> DatabaseFacts | None:
    """The facts of ``database``; None where it does not exist."""
    version = conn.info.server_version
    provider = "datlocprovider::text" if version >= 150000 else "'c'"
    locale = "datlocale" if version >= 170000 else "daticulocale" if version >= 150000 else "NULL"
    rules = "daticurules" if version >= 160000 else "NULL"
    row = conn.execute(
        f"SELECT pg_encoding_to_char(encoding)::text, datcollate::text, datctype::text, {provider}, coalesce({locale}, ''),"
        f" coalesce({rules}, ''), pg_get_userbyid(datdba)::text, (SELECT spcname::text FROM pg_tablespace t WHERE t.oid = dattablespace)"
        " FROM pg_database WHERE datname = %s",
        [database],
    ).fetchone()
    return DatabaseFacts(*row) if row else None


def create_statement(name: str, facts: DatabaseFacts, target_version: int, tablespace: str = "") -> str:
    """CREATE DATABASE for a server of ``target_version`` with all that ``facts`` say, in the target's ``tablespace``."""
    words = [
        f"CREATE DATABASE {quote_ident(name)} TEMPLATE template0 ENCODING {quote_literal(facts.encoding)}",
        f"LC_COLLATE {quote_literal(facts.collate)} LC_CTYPE {quote_literal(facts.ctype)}",
    ]
    if target_version >= 150000 and facts.provider == "i":
        words.append(f"LOCALE_PROVIDER icu ICU_LOCALE {quote_literal(facts.locale)}")
        if facts.rules and target_version >= 160000:
            words.append(f"ICU_RULES {quote_literal(facts.rules)}")
    elif target_version >= 170000 and facts.provider == "b":
        words.append(f"LOCALE_PROVIDER builtin BUILTIN_LOCALE {quote_literal(facts.locale)}")
    elif target_version >= 150000:
        words.append("LOCALE_PROVIDER libc")
    if tablespace:
        words.append(f"TABLESPACE {quote_ident(tablespace)}")
    return " ".join(words)


def prepare_target(spec: MigrationSpec, database: str, *, overwrite: bool = False) -> None:
    """Create ``database`` on the target like the source's, or accept the one that this migration made.

    It is made under another name, gets its ledger, and only then its own name: a database of this name without our ledger is never ours.
    One whose schema was not finished is made anew.

    :param overwrite: drop one that is not ours (R108), unless somebody is connected to it.
    :raises Conflict: PGM3001 if it exists and is not ours.
    :raises CopyError: if it cannot be created like the source's.
    """
    with (
        connect(spec.source, database, purpose="prepare") as source,
        server_errors("read the database", spec.source, database, kind=CopyError),
    ):
        facts = read_facts(source, database)
    if facts is None:
        raise CopyError(f"The database {database} is not on {spec.source.label()}.", server=spec.source.label())
    with connect(spec.target, purpose="prepare") as conn:
        there = read_facts(conn, database)
        if there and overwrite and _owner(spec, database) != spec.key:
            _drop_unused(conn, spec, database)
            there = None
        if there and not own_database(spec, database):
            _drop(conn, spec, database)
            there = None
        if there is None:
            _create(conn, spec, database, facts)
        _give_to_owner(conn, spec, database, facts.owner)


def own_database(spec: MigrationSpec, database: str) -> bool:
    """Is the existing database ours, and its schema done?

    :raises Conflict: if it is not ours.
    """
    with connect(spec.target, database, purpose="prepare") as conn, server_errors("read the ledger", spec.target, database, kind=CopyError):
        if (key := key_of_ledger(conn)) == spec.key:
            return Ledger(conn).step_done(PRE_DATA)
    made = f"it belongs to the migration {key}" if key else "it was not made by this migration"
    raise Conflict(
        f"The database {database} exists already on {spec.target.label()}, and {made}.",
        code="PGM3001",
        hint="Drop or rename it on the target, say copy.overwrite: true to have it dropped, or migrate to another server; nothing in it was"
        " touched.",
        server=spec.target.label(),
        details={"azure_code": "603101", "database": database},
    )


def _owner(spec: MigrationSpec, database: str) -> str | None:
    """Key of the migration that made the existing database; None if none did."""
    with connect(spec.target, database, purpose="prepare") as conn, server_errors("read the ledger", spec.target, database, kind=CopyError):
        return key_of_ledger(conn)


def key_of_ledger(conn: psycopg.Connection[t.Any]) -> str | None:
    """The migration that the database of ``conn`` belongs to; None where it belongs to none."""
    try:
        return Ledger(conn).owner()
    except psycopg.errors.InsufficientPrivilege:  # somebody else's ledger
        return "another user"


def _drop_unused(conn: psycopg.Connection[t.Any], spec: MigrationSpec, database: str) -> None:
    hint = "Somebody may still use it: see pg_stat_activity on the target. Only its owner can drop it."
    with server_errors(f"drop the database {database}, as copy.overwrite says", spec.target, kind=CopyError, hint=hint):
        conn.execute(f"DROP DATABASE IF EXISTS {quote_ident(database)}")


def _drop(conn: psycopg.Connection[t.Any], spec: MigrationSpec, database: str) -> None:
    if spec.back_of:
        raise Conflict(f"The database {database} on {spec.target.label()} was not made by a migration; a way back never drops it.")
    force = " WITH (FORCE)" if conn.info.server_version >= 130000 else ""
    with server_errors(f"drop the unfinished database {database}", spec.target, kind=CopyError):
        conn.execute(f"DROP DATABASE IF EXISTS {quote_ident(database)}{force}")


def _create(conn: psycopg.Connection[t.Any], spec: MigrationSpec, database: str, facts: DatabaseFacts) -> None:
    interim = object_name(spec.key, database)
    where = spec.globals.tablespaces.get(facts.tablespace, "")
    _drop(conn, spec, interim)
    hint = "The target needs the source's locale and encoding; its administrator needs CREATEDB."
    with server_errors(f"create the database {database}", spec.target, kind=CopyError, code="PGM3005", hint=hint):
        try:
            conn.execute(create_statement(interim, facts, conn.info.server_version, where))
        except (psycopg.errors.WrongObjectType, psycopg.errors.InvalidParameterValue):
            other = {"UTF-8": "utf8", "utf8": "UTF-8"}
            swap = next(((a, b) for a, b in other.items() if a in facts.collate), None)
            if swap is None:
                raise
            spelled = dataclasses.replace(facts, collate=facts.collate.replace(*swap), ctype=facts.ctype.replace(*swap))
            conn.execute(create_statement(interim, spelled, conn.info.server_version, where))
    with connect(spec.target, interim, purpose="prepare") as fresh:
        Ledger(fresh).create(spec.key)
    with server_errors(f"name the database {database}", spec.target, kind=CopyError):
        conn.execute(f"ALTER DATABASE {quote_ident(interim)} RENAME TO {quote_ident(database)}")


def _give_to_owner(conn: psycopg.Connection[t.Any], spec: MigrationSpec, database: str, owner: str) -> None:
    """Make ``owner`` its owner where the role exists and our administrator may; otherwise it stays with the administrator."""
    mode = "SET" if conn.info.server_version >= 160000 else "MEMBER"
    row = conn.execute(
        "SELECT pg_get_userbyid(d.datdba) = r.rolname, pg_has_role(current_user, r.oid, %s) AND pg_has_role(current_user, r.oid, 'USAGE')"
        " FROM pg_roles r, pg_database d WHERE r.rolname = %s AND d.datname = %s",
        [mode, owner, database],
    ).fetchone()
    if row and not row[0] and row[1]:
        with server_errors(f"give the database {database} to {owner}", spec.target, kind=CopyError):
            conn.execute(f"ALTER DATABASE {quote_ident(database)} OWNER TO {quote_ident(owner)}")
