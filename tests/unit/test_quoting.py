# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Everything that puts a name into a statement, a connection string, a file's name or a label, with names that would break it."""

from __future__ import annotations

import re
import tempfile
import urllib.parse
from pathlib import Path

import psycopg.sql
from ansible_collections.pgops.migration.plugins.module_utils._engine.aftercare.look import connection
from ansible_collections.pgops.migration.plugins.module_utils._engine.globals.statements import (
    comment_on,
    owner_of_setting,
    parameter,
    set_clause,
    split_list,
)
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.paths import MigrationPaths
from ansible_collections.pgops.migration.plugins.module_utils._engine.monitor.prometheus import _escape
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.identifiers import (
    object_name,
    quote_ident,
    quote_literal,
    quote_qualified,
)
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.loginfiles import resolve
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.tools import connection_string, password_file
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import Endpoint
from hostilenames import names
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

TOKEN = re.compile(r"""\s+|"(?:[^"]|"")*"|E'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|[A-Za-z]+|\.""", re.DOTALL)
"""What PostgreSQL's scanner makes of our statements: a quoted identifier, a string, a word, a dot."""


def tokens(sql: str) -> list[str]:
    """Its tokens without blanks; fails where something is none."""
    found, position = [], 0
    while position < len(sql):
        match = TOKEN.match(sql, position)
        assert match, sql[position:]
        position = match.end()
        if match[0].strip():
            found.append(match[0])
    return found


@given(names)
def test_as_psycopg_quotes(name: str) -> None:
    """The same text as the driver's own quoting, and read back the name again."""
    assert quote_ident(name) == psycopg.sql.Identifier(name).as_string(None)
    assert quote_qualified(name, name) == psycopg.sql.Identifier(name, name).as_string(None)
    assert quote_literal(name) == psycopg.sql.Literal(name).as_string(None).strip()


@given(names, names, names)
def test_statements_keep_their_shape(one: str, two: str, three: str) -> None:
    """However hostile, a name is one token of the statement."""
    assert tokens(comment_on("ROLE", one, two)) == ["COMMENT", "ON", "ROLE", quote_ident(one), "IS", quote_literal(two)]
    assert tokens(owner_of_setting(one, two)) == ["ROLE", quote_ident(one), "IN", "DATABASE", quote_ident(two)]
    plain = parameter(one)
    assert tokens(plain)[::2] == [quote_ident(part) for part in one.split(".")]
    assert tokens(set_clause("app.x", three)) == ["SET", '"app"', ".", '"x"', "TO", quote_literal(three)]


@given(st.lists(names, min_size=1, max_size=4))
def test_lists_of_names_are_read_as_postgresql_writes_them(parts: list[str]) -> None:
    """A search path of quoted names."""
    assert split_list(", ".join(quote_ident(part) for part in parts)) == parts


@given(names, names)
@example("\u00e9a", "\u0e9a")
def test_names_of_files_and_slots(one: str, two: str) -> None:
    """A database's folder is its own, one step below ours, no longer than a file system allows; a slot has the letters that it may have."""
    paths = MigrationPaths(Path("/home-of-ours"), "shop-1a2b3c")
    folder = paths.spool(one)
    assert folder.parent == paths.folder / "spool" and folder.name not in (".", "..") and len(folder.name.encode()) <= 255
    assert (paths.spool(one) == paths.spool(two)) == (one == two)
    assert re.fullmatch(r"pgm_[a-z0-9_]{1,59}", object_name("shop-1a2b3c", one))
    assert (object_name("k", one) == object_name("k", two)) == (one == two)


@given(names, names)
@example("tab\tnew\nline", "\x0b")
def test_connection_strings(database: str, user: str) -> None:
    """libpq reads from ours what was meant, also from those that applications are told after the cutover."""
    end = Endpoint("target", "other", "db1", user, dbname="postgres")
    read = conninfo_to_dict(connection_string(end, database, Path("/a b/'c")))
    assert (read["dbname"], read["user"], read["passfile"]) == (database, user, "/a b/'c")
    told = connection(end, database)
    assert conninfo_to_dict(told["dsn"])["dbname"] == conninfo_to_dict(told["uri"])["dbname"] == database
    assert urllib.parse.unquote(told["jdbc"].split("/", 3)[3].split("?")[0]) == database


@given(names)
def test_password_files(password: str) -> None:
    """What we write for pg_dump is what we read ourselves in the user's own: the password, whatever is in it but the end of a line."""
    password = re.sub(r"[\r\n]", "", password) or "x"
    with (
        tempfile.TemporaryDirectory() as folder,
        password_file(Endpoint("source", "", "db1", "a", password=password), Path(folder)) as path,
    ):
        assert resolve("source", {"host": "db1", "user": "a", "passfile": str(path)})["password"] == password


@given(names)
def test_labels_of_prometheus(name: str) -> None:
    """The exposition format: a label is one line, and its quotes and backslashes are escaped."""
    written = _escape(name)
    assert "\n" not in written and re.fullmatch(r'(?:[^"\\\n]|\\["\\n])*', written)
    assert re.sub(r"\\(.)", lambda match: {"n": "\n"}.get(match[1], match[1]), written) == name
