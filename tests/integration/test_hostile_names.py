# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Names that would break statements, patterns, lists, files and pages if anything put them together by hand: databases, roles, schemas,
types, tables, columns, indexes, constraints, sequences, functions, triggers and views, drawn by hypothesis."""

from __future__ import annotations

import contextlib
import itertools
import os
import typing as t

import psycopg
import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.catalog import is_selection
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.identifiers import quote_ident as q
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.identifiers import quote_literal
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from host import Host
from hostilenames import names, several
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from pair import OWNER, PASSWORDS, make_target
from rows import differences

EXAMPLES = int(os.environ.get("PG_MIGRATION_NAMES", "1"))
"""Migrations for each plugin."""

PARTS = (
    "database", "role", "schema", "type", "label", "table", "full", "key", "number", "value", "other", "index", "check", "sequence",
    "function", "trigger", "view", "text",
)  # fmt: skip
"""What gets a name; ``text`` is a value."""


@pytest.fixture(scope="module")
def target() -> t.Iterator[lab.Server]:
    """A target of this module's own: migrations leave roles and memberships on it."""
    server = make_target()
    yield server
    server.drop()


def run(conn: psycopg.Connection[t.Any], *statements: str) -> None:
    """Each as it stands: a percent sign is none of a parameter's."""
    for sql in statements:
        conn.execute(sql.encode())


def build(conn: psycopg.Connection[t.Any], by: dict[str, str]) -> list[str]:
    """The schema with its rows, as the owner; the names of its two tables. The second has no key, and an owner of its own."""
    at, role = q(by["schema"]), q(by["role"])
    first, second = f"{at}.{q(by['table'])}", f"{at}.{q(by['full'])}"
    key, number, value, other = (q(by[part]) for part in ("key", "number", "value", "other"))
    sequence, function = f"{at}.{q(by['sequence'])}", f"{at}.{q(by['function'])}"
    text = quote_literal(by["text"])
    run(
        conn,
        f"CREATE SCHEMA {at}; GRANT USAGE, CREATE ON SCHEMA {at} TO {role}; CREATE SEQUENCE {sequence}",
        f"CREATE TYPE {at}.{q(by['type'])} AS ENUM ({quote_literal(by['label'])}, 'b')",
        f"CREATE TABLE {first} ({key} text PRIMARY KEY, {number} bigint DEFAULT nextval({quote_literal(sequence)}), {value} numeric"
        f" CONSTRAINT {q(by['check'])} CHECK ({value} > 0), {other} {at}.{q(by['type'])} DEFAULT {quote_literal(by['label'])})",
        f"CREATE TABLE {second} (LIKE {first} INCLUDING DEFAULTS); ALTER TABLE {second} REPLICA IDENTITY FULL",
        f"CREATE INDEX {q(by['index'])} ON {first} ({number}, {value}) WHERE {key} <> {text}",
        f"CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        f"CREATE TRIGGER {q(by['trigger'])} BEFORE INSERT ON {first} FOR EACH ROW EXECUTE FUNCTION {function}()",
        f"CREATE VIEW {at}.{q(by['view'])} AS SELECT {key}, {other} AS {q(by['text'])} FROM {first}",
        f"COMMENT ON TABLE {first} IS {text}; GRANT SELECT ON {first} TO {role}",
        *(f"INSERT INTO {table} ({key}, {value}) SELECT {text} || g, g FROM generate_series(1, 300) g" for table in (first, second)),
        f"ALTER TABLE {second} OWNER TO {role}",
    )
    return [first, second]


def write(conn: psycopg.Connection[t.Any], tables: list[str], by: dict[str, str]) -> None:
    """Changes for the stream: rows, keys, rows without a key."""
    key, value, text = q(by["key"]), q(by["value"]), quote_literal(by["text"])
    for table in tables:
        run(
            conn,
            f"UPDATE {table} SET {value} = {value} + 1, {key} = {key} || {text} WHERE {value} < 100",
            f"DELETE FROM {table} WHERE {value} > 250",
            f"INSERT INTO {table} ({key}, {value}) VALUES (E'new\\n''' || {text}, 7)",
        )


@pytest.mark.parametrize("plugin", ["wal2json", "pgoutput", "test_decoding"])
def test_whole_migration(plugin: str, host: Host, source, target, database_factory, spec_factory) -> None:
    """Copied, streamed, cut over, equal, verified and cleaned up, whatever the names are."""
    numbers = itertools.count(1)

    @seed(plugin.encode()[0])
    @settings(max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(several(len(PARTS)).filter(lambda drawn: not is_selection(drawn[:1])))
    def check(drawn: list[str]) -> None:
        by = dict(zip(PARTS, drawn, strict=True))
        migrate(by, spec_factory(f"names-{plugin.replace('_', '-')}-{next(numbers)}", [by["database"]], changes={"plugin": plugin}))

    def migrate(by: dict[str, str], spec: MigrationSpec) -> None:
        database = database_factory(name=by["database"])
        run_on = source.connect
        with run_on() as conn:
            run(conn, f"CREATE ROLE {q(by['role'])} NOLOGIN; GRANT {q(by['role'])} TO {OWNER}, migrator")
        try:
            with run_on(database, user=OWNER, password=PASSWORDS[source.port]) as conn:
                tables = build(conn, by)
            host.manager.start(spec)
            host.until_waiting(spec.key)
            with run_on(database) as conn:
                write(conn, tables, by)
            status = host.cut_over(spec.key)
            assert status["verification"]["equal"] and status["verification"]["databases"][database]["schema"] == []
            with run_on(database) as left, target.connect(database) as right:
                assert differences(left, right) == {}
                for table in tables:
                    assert right.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() == (251,)
            kept = host.manager.cleanup(spec.source, spec.target)
            assert not [line for line in kept["found"] if "slot" in line or "publication" in line]
            page = (host.home / "migrations" / spec.key / "report.html").read_text(encoding="utf-8")
            assert "<b>&amp;" not in page.split("</style>")[-1]
        finally:
            for server in (source, target):
                server.drop_database(database)
                with server.connect() as conn, contextlib.suppress(psycopg.errors.UndefinedObject):
                    run(conn, f"DROP ROLE {q(by['role'])}")

    check()


@pytest.mark.parametrize("standard", ["on", "off"])
def test_a_server_reads_what_was_meant(source: lab.Server, standard: str) -> None:
    """Names and strings come back as they were given, whatever ``standard_conforming_strings`` says."""
    with source.connect() as conn:
        run(conn, f"SET standard_conforming_strings = {standard}; SET escape_string_warning = off; SET backslash_quote = on")

        @settings(max_examples=60 * EXAMPLES, deadline=None, database=None, derandomize=True)
        @given(names, st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=80))
        def check(name: str, text: str) -> None:
            cursor = conn.execute(f"SELECT {quote_literal(text)}::text AS {q(name)}".encode())
            assert cursor.fetchone() == (text,) and [column.name for column in cursor.description or ()] == [name]

        check()
