# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The globals of a server as an SQL file: what ``pg_dumpall --globals-only`` writes, and the settings that it omits (R34, R39).

The file is for people and for a superuser on an empty server; a migration does not read it. It has no psql commands and no names in
comments, so that nothing in it can be taken for a command of a client.
"""

from __future__ import annotations

import os
import stat
import typing as t
from pathlib import Path

from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_ident, quote_literal
from ..postgres.session import connect, server_errors
from ..spec import Endpoint
from . import statements as sql
from .state import ATTRIBUTES, State, read_state

HEADER = (
    "SET default_transaction_read_only = off",
    "SET client_encoding = 'UTF8'",
    "SET standard_conforming_strings = on",
)


def render_globals(endpoint: Endpoint, *, passwords: bool = True) -> str:
    """The file's text for the server ``endpoint``; the same as long as its globals are.

    :param passwords: write verifiers where the login may read them.
    """
    with connect(endpoint, purpose="globals") as conn, server_errors("read roles and settings", endpoint, code="PGM7001"):
        state = read_state(conn)
        lines = [*HEADER, *_roles(state, passwords), *_settings(state, role_only=True), *_memberships(state), *_parameters(state)]
        lines += [*_tablespaces(conn), *_settings(state, role_only=False)]
    return "".join(line + ";\n" for line in lines)


def is_written(path: Path, text: str) -> bool:
    """Is ``text`` in the file already, readable by its owner alone?"""
    try:
        return path.read_text(encoding="utf-8") == text and stat.S_IMODE(path.stat().st_mode) == 0o600
    except FileNotFoundError:
        return False


def write_globals(path: Path, text: str) -> None:
    """Replace the file ``path`` by one of mode 0600 with ``text``; never a moment with other rights or half of it."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)


def _roles(state: State, passwords: bool) -> t.Iterator[str]:
    names = [name for name, dummy, dummy in ATTRIBUTES]
    for role in state.roles.values():
        if role.name.startswith("pg_"):
            continue
        yield f"CREATE ROLE {quote_ident(role.name)}"
        words = sql.attribute_words(role, names)
        if role.connection_limit != -1:
            words.append(f"CONNECTION LIMIT {role.connection_limit}")
        if role.password is not None and passwords:
            words.append(sql.password_clause(role.password, shown=False))
        if role.valid_until is not None:
            words.append(f"VALID UNTIL {quote_literal(role.valid_until)}")
        yield f"ALTER ROLE {quote_ident(role.name)} WITH {' '.join(words)}"
    for role in state.roles.values():
        if role.comment is not None and not role.name.startswith("pg_"):
            yield sql.comment_on("ROLE", role.name, role.comment)


def _settings(state: State, *, role_only: bool) -> t.Iterator[str]:
    for (role, database), values in state.settings.items():
        if (database == "") == role_only:
            for name, value in values.items():
                yield f"ALTER {sql.owner_of_setting(role, database)} {sql.set_clause(name, value)}"


def _memberships(state: State) -> t.Iterator[str]:
    for grant in state.ordered_grants():
        yield sql.grant_membership(grant, modern=state.version >= 160000, by=grant.grantors[0])


def _parameters(state: State) -> t.Iterator[str]:
    for (parameter, grantee), privileges in state.parameters.items():
        for privilege, grantable in privileges.items():
            whom = quote_ident(grantee) if grantee else "PUBLIC"
            yield f"GRANT {privilege} ON PARAMETER {sql.parameter(parameter)} TO {whom}{' WITH GRANT OPTION' if grantable else ''}"


def _tablespaces(conn: psycopg.Connection[t.Any]) -> t.Iterator[str]:
    rows = conn.execute("""
        SELECT oid, spcname::text, pg_get_userbyid(spcowner)::text, pg_tablespace_location(oid), array_to_string(spcoptions, ', '),
               shobj_description(oid, 'pg_tablespace') FROM pg_tablespace WHERE spcname !~ '^pg_' ORDER BY 2""").fetchall()
    for oid, name, owner, location, options, comment in rows:
        quoted = quote_ident(name)
        yield f"CREATE TABLESPACE {quoted} OWNER {quote_ident(owner)} LOCATION {quote_literal(location)}"
        if options:
            yield f"ALTER TABLESPACE {quoted} SET ({options})"
        if comment is not None:
            yield sql.comment_on("TABLESPACE", name, comment)
        for grantee, grantable in conn.execute(
            """SELECT CASE a.grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(a.grantee)::text END, a.is_grantable
                 FROM pg_tablespace t CROSS JOIN LATERAL aclexplode(t.spcacl) a WHERE t.oid = %s AND a.grantee <> t.spcowner""",
            [oid],
        ):
            whom = "PUBLIC" if grantee is None else quote_ident(grantee)
            yield f"GRANT CREATE ON TABLESPACE {quoted} TO {whom}{' WITH GRANT OPTION' if grantable else ''}"
