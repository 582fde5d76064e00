# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""``changes.replica_identity`` over a whole migration: each policy with tables that have no replica identity, and what is left of it."""

from __future__ import annotations

import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.identifiers import object_name
from host import Host, run_whole
from pair import make_target

TABLES = """
CREATE TABLE plain (id int, note text); INSERT INTO plain SELECT i, 'n' FROM generate_series(1, 50) i;
CREATE TABLE hinted (id int NOT NULL UNIQUE, note text); INSERT INTO hinted SELECT i, 'n' FROM generate_series(1, 50) i;
CREATE TABLE keyed (id int PRIMARY KEY, note text); INSERT INTO keyed SELECT i, 'n' FROM generate_series(1, 50) i;
"""

WRITES = """
UPDATE keyed SET note = 'u' WHERE id <= 10; DELETE FROM keyed WHERE id = 50; INSERT INTO keyed VALUES (60, 'i');
"""

WRITES_EVERYWHERE = WRITES + "".join(
    f"UPDATE {table} SET note = 'u' WHERE id <= 10; DELETE FROM {table} WHERE id = 50; INSERT INTO {table} VALUES (60, 'i');"
    for table in ("plain", "hinted")
)

IDENTITIES = "SELECT relname::text, relreplident::text FROM pg_class WHERE relname IN ('plain', 'hinted', 'keyed') ORDER BY 1"
AS_MADE = [("hinted", "d"), ("keyed", "d"), ("plain", "d")]


@pytest.fixture
def target() -> Iterator[lab.Server]:
    """A target of this test's own: a migration leaves roles on it."""
    server = make_target()
    yield server
    server.drop()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A runtime host."""
    one = Host(tmp_path / "home")
    yield one
    one.close()


@pytest.fixture
def made(source: lab.Server, owner: t.Any, source_database: str) -> t.Callable[[str], None]:
    """Runs SQL as the application; the tables are there."""

    def run(sql: str) -> None:
        with source.connect(source_database, owner.name, owner.password) as conn:
            conn.execute(sql.encode())

    run(TABLES)
    return run


@pytest.mark.parametrize("plugin", ["pgoutput", "wal2json"])
def test_set_full_and_given_back(plugin: str, made, host, source, target, source_database, spec_factory) -> None:
    """Every change of tables without a key arrives, and both sides end with the setting that the source had."""
    spec = spec_factory("full", [source_database], option="migrate", changes={"replica_identity": "set_full", "plugin": plugin})
    host.manager.start(spec)
    host.until_waiting(spec.key)
    assert source.execute(IDENTITIES, source_database) == [("hinted", "i"), ("keyed", "d"), ("plain", "f")]
    made(WRITES_EVERYWHERE)
    status = host.cut_over(spec.key)
    assert status["verification"]["equal"] and status["verification"]["complete"]
    for server in (source, target):
        assert server.execute(IDENTITIES, source_database) == AS_MADE
        assert server.execute("SELECT count(*) FROM plain WHERE note = 'u'", source_database) == [(10,)]


@pytest.mark.parametrize("how", ["cancel", "clean-up"])
def test_an_end_before_the_cutover_gives_it_back_too(how: str, made, host, source, target, source_database, spec_factory) -> None:
    spec = spec_factory("given-up", [source_database], option="migrate", changes={"replica_identity": "set_full"})
    host.manager.start(spec)
    host.until_waiting(spec.key)
    if how == "cancel":
        removed = host.manager.cancel(spec.key)["canceled"]["removed"]
        assert f"changed replica identity of public.plain in {source_database}" in removed
    else:
        host.kill(spec.key)
        source.execute(f"SELECT pg_drop_replication_slot('{object_name(spec.key, source_database)}')")
        host.manager.start(spec)
        host.until_failed(spec.key)
        removed = host.manager.cleanup(spec.source, spec.target, name=spec.name)["removed"]
        assert any("identity public.plain" in str(item) for item in removed), removed
    assert source.execute(IDENTITIES, source_database) == AS_MADE


def test_excluded_tables_are_copied_and_not_streamed(made, host, source, target, source_database, spec_factory) -> None:
    """Who asks for it stops writing to them; the others are exact."""
    spec = spec_factory("excluded", [source_database], option="migrate", changes={"replica_identity": "exclude"})
    host.manager.start(spec)
    host.until_waiting(spec.key)
    made(WRITES)
    assert host.cut_over(spec.key)["verification"]["equal"]
    assert source.execute(IDENTITIES, source_database) == AS_MADE


def test_fail_stops_before_anything_is_made(made, host, source, target, source_database, spec_factory) -> None:
    """Law 9: without a validation, too; nothing may be lost in silence."""
    spec = spec_factory("failing", [source_database], option="migrate")
    host.manager.start(spec)
    error = host.until_failed(spec.key)["error"]
    assert error["code"] == "PGM2301" and "public.plain" in error["message"] and "ALTER TABLE" in error["hint"]
    assert source.execute("SELECT count(*) FROM pg_replication_slots WHERE database = current_database()", source_database) == [(0,)]
    assert target.execute(f"SELECT count(*) FROM pg_database WHERE datname = '{source_database}'") == [(0,)]
    made("ALTER TABLE plain ADD PRIMARY KEY (id); ALTER TABLE hinted ADD PRIMARY KEY (id)")
    assert run_whole(host, spec)["verification"]["equal"]
