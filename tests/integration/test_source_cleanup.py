# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What migrations left on a source is found by name alone and removed; nothing else is touched."""

from __future__ import annotations

import time
import typing as t

import psycopg
import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import MigrationError
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.identifiers import object_name
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.session import connect
from ansible_collections.pgops.migration.plugins.module_utils._engine.source.cleanup import find_ours, remove_ours
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec

Factory = t.Callable[..., MigrationSpec]


def inventory(server: lab.Server, *databases: str) -> tuple[set[str], set[str]]:
    slots = {row[0] for row in server.execute("SELECT slot_name FROM pg_replication_slots")}
    publications = {f"{db}.{row[0]}" for db in databases for row in server.execute("SELECT pubname FROM pg_publication", db)}
    return slots, publications


@pytest.fixture
def two(database_factory: t.Callable[..., str]) -> tuple[str, str]:
    return database_factory(), database_factory()


def furnish(spec: MigrationSpec, *databases: str) -> None:
    """Slot and publication of ``spec`` in each database, made by the migration user itself."""
    for database in databases:
        name = object_name(spec.key, database)
        with connect(spec.source, database) as conn:
            conn.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [name])
            conn.execute(f"CREATE PUBLICATION {name}")


def test_all_that_is_ours_and_nothing_else(source: lab.Server, two: tuple[str, str], spec_factory: Factory) -> None:
    spec = spec_factory("shop-1", list(two))
    furnish(spec, *two)
    for database in two:
        source.execute("CREATE PUBLICATION pgmine; CREATE PUBLICATION theirs", database)
    source.execute("SELECT pg_create_logical_replication_slot('pgmx', 'pgoutput')", two[0])
    theirs = source.connect(two[0])
    theirs.execute("SET application_name = 'pgops.migrations of others'")
    worker = connect(spec.source, two[1], purpose="worker")
    try:
        found = find_ours(spec.source)
        kinds = sorted((f.kind, f.database) for f in found)
        assert kinds == sorted([("session", two[1])] + [(kind, d) for kind in ("slot", "publication") for d in two])
        assert set(remove_ours(spec.source)) == set(found)
        assert inventory(source, *two) == ({"pgmx"}, {f"{d}.{p}" for d in two for p in ("pgmine", "theirs")})
        theirs.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError):
            worker.execute("SELECT 1")
        assert remove_ours(spec.source) == [] and find_ours(spec.source) == []
    finally:
        theirs.close()
        source.execute("SELECT pg_drop_replication_slot('pgmx')")


def test_a_key_spares_other_migrations(source: lab.Server, two: tuple[str, str], spec_factory: Factory) -> None:
    mine, other = spec_factory("shop-1", list(two)), spec_factory("shop-2", list(two))
    furnish(mine, *two)
    furnish(other, *two)
    with connect(other.source, two[0], purpose="worker") as theirs, connect(mine.source, two[0], purpose=f"worker {mine.key}") as ours:
        removed = remove_ours(mine.source, mine.key)
        assert sorted(r.kind for r in removed) == ["publication", "publication", "session", "slot", "slot"]
        theirs.execute("SELECT 1")
        assert ours.info.status is not None
    names = {object_name(other.key, d) for d in two}
    slots, publications = inventory(source, *two)
    assert names <= slots and publications == {f"{d}.{object_name(other.key, d)}" for d in two}
    remove_ours(other.source, other.key, database=two[0])
    assert inventory(source, *two)[1] == {f"{two[1]}.{object_name(other.key, two[1])}"}
    remove_ours(other.source)


def test_a_slot_in_use_is_taken_from_its_reader(source: lab.Server, source_database: str, spec_factory: Factory) -> None:
    spec = spec_factory("shop-1", [source_database])
    furnish(spec, source_database)
    name = object_name(spec.key, source_database)
    info = source.dsn(source_database) + " replication=database application_name=pg_recvlogical"
    reader = psycopg.pq.PGconn.connect(info.encode())
    try:
        reader.send_query(f"START_REPLICATION SLOT {name} LOGICAL 0/0 (proto_version '1', publication_names '{name}')".encode())
        deadline = time.monotonic() + 10
        while (
            not source.execute(f"SELECT 1 FROM pg_replication_slots WHERE slot_name = '{name}' AND active") and time.monotonic() < deadline
        ):
            time.sleep(0.05)
        slot = next(f for f in find_ours(spec.source, key=spec.key) if f.kind == "slot")
        assert slot.pid
        with pytest.raises(MigrationError) as caught:
            remove_ours(spec.source, spec.key, seconds=1)
        assert caught.value.code == "PGM1213" and caught.value.details["left"][0]["name"] == name
        assert inventory(source, source_database)[1] == set()
    finally:
        reader.finish()
    removed = remove_ours(spec.source, spec.key)
    assert [r.kind for r in removed] == ["slot"] and inventory(source, source_database)[0] == set()


def test_what_cannot_be_removed_is_named(source: lab.Server, source_database: str, spec_factory: Factory) -> None:
    spec = spec_factory("shop-1", [source_database])
    name = object_name(spec.key, source_database)
    source.execute(f"CREATE PUBLICATION {name}", source_database)
    furnish_slot = "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')"
    with connect(spec.source, source_database) as conn:
        conn.execute(furnish_slot, [name])
    with pytest.raises(MigrationError) as caught:
        remove_ours(spec.source)
    assert caught.value.code == "PGM1213" and "publication" in caught.value.message and "42501" in caught.value.message
    assert [i["kind"] for i in caught.value.details["removed"]] == ["slot"]
    source.execute(f"ALTER PUBLICATION {name} OWNER TO app", source_database)
    assert [r.kind for r in remove_ours(spec.source)] == ["publication"]
