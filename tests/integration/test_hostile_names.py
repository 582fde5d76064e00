# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Names that would break statements, patterns, lists, files and pages if anything put them together by hand."""

from __future__ import annotations

import secrets
import typing as t

import pytest
import servers as lab
from host import Host
from pair import OWNER, PASSWORDS, make_target
from rows import differences

HOSTILE = "o'd\"d; DROP TABLE x; -- %s %(a)s {b} \\ $$ *?[] , . / <b>&amp; \u00e9\u4e2d"
"""62 bytes at most with what is put before it."""


@pytest.fixture(scope="module")
def target() -> t.Iterator[lab.Server]:
    """A target of this module's own: migrations leave roles and memberships on it."""
    server = make_target()
    yield server
    server.drop()


def quoted(name: str) -> str:
    """As an identifier."""
    return '"' + name.replace('"', '""') + '"'


@pytest.mark.parametrize("plugin", ["wal2json", "pgoutput", "test_decoding"])
def test_whole_migration(plugin: str, host: Host, source, target, database_factory, spec_factory) -> None:
    """Database, role, schema, tables, columns, index, constraint, sequence, enum, trigger and function: copied, streamed, cut over, equal,
    verified and cleaned up."""
    name = f"{secrets.token_hex(2)} {HOSTILE}"[:40]
    database = database_factory(name=name)
    role, at = quoted(f"r {name}"), quoted(f"s {name}")
    column, other = quoted(f"c {name}"), quoted(f"d\n\t{name}")
    tables = [f"{at}.{quoted(f't{number} {name}')}" for number in (1, 2)]
    source.execute(f"CREATE ROLE {role} NOLOGIN; GRANT {role} TO {OWNER}")
    try:
        with source.connect(database, user=OWNER, password=PASSWORDS[source.port]) as conn:
            conn.execute(f"CREATE SCHEMA {at}; CREATE TYPE {at}.{quoted('e ' + name)} AS ENUM ('{'od%s'}', 'b')".encode())
            for number, table in enumerate(tables):
                conn.execute(f"CREATE TABLE {table} ({column} text PRIMARY KEY, {other} bigserial, v numeric CHECK (v > 0))".encode())
                conn.execute(f"CREATE INDEX {quoted(f'i{number} {name}')} ON {table} ({other})".encode())
                conn.execute(f"GRANT SELECT ON {table} TO {role}".encode())
                conn.execute(f"INSERT INTO {table} SELECT 'k'||g, g, g FROM generate_series(1, 300) g".encode())
            conn.execute(f"ALTER TABLE {tables[1]} REPLICA IDENTITY FULL".encode())
        spec = spec_factory(f"hostile-{plugin.replace('_', '-')}", [database], changes={"plugin": plugin})
        host.manager.start(spec)
        host.until_waiting(spec.key)
        with source.connect(database) as conn:
            for table in tables:
                conn.execute(f"UPDATE {table} SET v = v + 1, {column} = {column} || $$'\"%s\\$$ WHERE v < 100".encode())
                conn.execute(f"DELETE FROM {table} WHERE v > 250; INSERT INTO {table} VALUES (E'new\\n''', 999, 7)".encode())
        status = host.cut_over(spec.key)
        assert status["verification"]["equal"] and status["verification"]["databases"][database]["schema"] == []
        with source.connect(database) as left, target.connect(database) as right:
            assert differences(left, right) == {}
            assert right.execute("SELECT count(*) FROM pg_class WHERE relname LIKE '%DROP TABLE%' AND relkind = 'r'").fetchone() == (2,)
        kept = host.manager.cleanup(spec.source, spec.target)
        assert not [line for line in kept["found"] if "slot" in line or "publication" in line]
        assert "<b>&amp;" not in (host.home / "migrations" / spec.key / "report.html").read_text(encoding="utf-8").split("</style>")[-1]
    finally:
        source.drop_database(database)
        source.execute(f"DROP ROLE {role}")
