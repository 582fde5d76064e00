# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What the planner, the vacuum and people find on the target when the base copy is over: statistics of every kind, frozen pages, whole
indexes; and the order in which it comes to that."""

from __future__ import annotations

import threading
import typing as t
from pathlib import Path

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.aftercare import look
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import CopyError
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot import indexes, indexwork, relay
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.indexes import session_setup
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.pool import TargetPool
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.target import prepare_target
from copylab import Held, assert_equal, chunked, copy, fill

CORRELATED = """
    CREATE FUNCTION half(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 / 2';
    CREATE TABLE small (id int PRIMARY KEY, a int, b int);
    CREATE TABLE large (id int PRIMARY KEY, a int, b int, filler text);
    CREATE TABLE parted (a int, b int) PARTITION BY RANGE (a);
    CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (50);
    CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (50) TO (100) PARTITION BY RANGE (b);
    CREATE TABLE parted_3 PARTITION OF parted_2 FOR VALUES FROM (0) TO (100);
    CREATE TABLE mother (a int);
    CREATE TABLE child () INHERITS (mother);
    INSERT INTO mother SELECT i % 7 FROM generate_series(1, 500) i;
    INSERT INTO child SELECT i % 7 FROM generate_series(1, 500) i;
    INSERT INTO small SELECT i, i % 100, i % 100 FROM generate_series(1, 1000) i;
    INSERT INTO large SELECT i, i % 100, i % 100, repeat('x', 200) FROM generate_series(1, 50000) i;
    INSERT INTO parted SELECT i % 100, i % 100 FROM generate_series(1, 5000) i;
    CREATE INDEX ON large (a);
    CREATE MATERIALIZED VIEW seen AS SELECT a, b, count(*) FROM small GROUP BY a, b;
    CREATE MATERIALIZED VIEW keyed AS SELECT s.id, s.a, s.b FROM small s GROUP BY s.id;
    CREATE STATISTICS of_small (dependencies, mcv) ON a, b FROM small;
    CREATE STATISTICS of_large (ndistinct) ON a, b FROM large;
    CREATE STATISTICS of_parted (dependencies) ON a, b FROM parted;
    CREATE STATISTICS of_leaf (dependencies) ON a, b FROM parted_1;
    CREATE STATISTICS of_seen (dependencies) ON a, b FROM seen;
    CREATE STATISTICS of_keyed (dependencies) ON a, b FROM keyed;
    COMMENT ON STATISTICS of_small IS 'they go together';
    ANALYZE"""
"""A table that is served in a group, one with tasks of its own, a partitioned one, materialized views, one of them with a GROUP BY
that rests on a primary key (pg_dump brings it after the indexes)."""


def test_statistics_of_every_kind_are_made(
    source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Any, members: None, tmp_path: Path, owner: t.Any
) -> None:
    """Extended ones too (CREATE STATISTICS comes before the ANALYZE of its table), and those of materialized views."""
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute(t.cast(t.Any, CORRELATED))
        if source.major >= 14:
            conn.execute("CREATE STATISTICS of_halves ON (half(a)), b FROM small; ANALYZE small")
    spec = chunked(spec_factory, source_database, "statistics")
    prepare_target(spec, source_database)
    copy(spec, source_database, tmp_path, Held(source, source_database))
    made = "SELECT s.stxname::text FROM pg_statistic_ext s JOIN pg_statistic_ext_data d ON d.stxoid = s.oid ORDER BY 1"
    assert target.execute(made, source_database) == source.execute(made, source_database)
    plain = "SELECT DISTINCT tablename::text, inherited FROM pg_stats WHERE schemaname = 'public' ORDER BY 1, 2"
    assert (
        set(target.execute(plain, source_database))
        >= set(source.execute(plain, source_database))
        >= {
            *(("seen", False), ("keyed", False), ("large", False)),
            *(("parted", True), ("parted_2", True), ("mother", False), ("mother", True)),
        }
    )
    leaves = "SELECT relname, analyze_count FROM pg_stat_user_tables WHERE relid IN (SELECT oid FROM pg_class WHERE relispartition)"
    assert target.execute(f"{leaves} AND relname <> 'parted_2' ORDER BY 1", source_database) == [("parted_1", 1), ("parted_3", 1)]
    never = "SELECT relname FROM pg_stat_user_tables WHERE last_analyze IS NULL AND schemaname = 'public'"
    assert target.execute(f"{never} AND relname NOT IN ('parted', 'parted_2')", source_database) == []
    assert_equal(source, target, source_database)


def test_builders_get_what_the_target_has(
    source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Any, members: None, tmp_path: Path, owner: t.Any
) -> None:
    """Seen in the sessions that build; without a word about the target's size its own default of workers stays."""
    told = "SELECT current_setting('maintenance_work_mem'), current_setting('max_parallel_maintenance_workers')"
    spec = spec_factory("resources", [source_database], target={"vcores": 8, "memory_gb": 6})
    plain = spec_factory("resources", [source_database])
    prepare_target(spec, source_database)
    with target.connect(source_database) as conn:
        for one, expected in ((spec, ("384MB", "3")), (plain, ("256MB", "2"))):
            seen: list[t.Any] = []
            pool = TargetPool(one.target, source_database, 1, "index", session_setup(conn, one.target, 2), threading.Event())
            pool.submit(1, "look", lambda builder, seen=seen: seen.extend(builder.execute(told).fetchall()))
            pool.drain()
            pool.close()
            assert seen == [expected]


def test_frozen_pages_and_the_hint_where_there_are_none(
    source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Any, members: None, tmp_path: Path, owner: t.Any
) -> None:
    """A table that is copied in one piece has nothing left for VACUUM to do; one in chunks is named until somebody vacuums it."""
    if target.major < 14:
        pytest.skip("COPY FREEZE writes no visibility map before 14")
    with source.connect(source_database, owner.name, owner.password) as conn:
        for name, count in (("whole", 4000), ("chunked", 16000)):
            conn.execute(f"CREATE TABLE {name} AS SELECT i, repeat('x', 200) AS filler FROM generate_series(1, {count}) i".encode())
    spec = chunked(spec_factory, source_database, "frozen", chunk_bytes=2 << 20)
    prepare_target(spec, source_database)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relay, "FREEZE_FROM", 64 << 10)
        patch.setattr(look, "LARGE_PAGES", 50)
        copy(spec, source_database, tmp_path, Held(source, source_database))
        pages = "SELECT relname::text, relallvisible::float8 / relpages FROM pg_class WHERE relname IN ('whole', 'chunked') ORDER BY 1"
        assert target.execute(pages, source_database) == [("chunked", 0.0), ("whole", 1.0)]
        target.execute("CREATE EXTENSION pg_visibility", source_database)
        frozen = "SELECT all_visible = all_frozen AND all_frozen > 0 FROM pg_visibility_map_summary('whole')"
        assert target.execute(frozen, source_database) == [(True,)]
        assert target.execute("SELECT count(*) FROM pg_check_frozen('whole')", source_database) == [(0,)]
        hint = next(item for item in look.look_after(spec)["to_do"] if item["topic"] == "visibility")
        assert "chunked" in hint["text"] and "whole" not in hint["text"]
        target.execute(hint["command"], source_database)
        assert "visibility" not in {item["topic"] for item in look.look_after(spec)["to_do"]}


def test_the_snapshot_goes_before_the_indexes_come(
    source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Any, members: None, tmp_path: Path, owner: t.Any
) -> None:
    """Vacuum on the source is held back for as long as rows are copied, not for the hours of the index builds: builders that stand still
    until the snapshot is given back see it given back."""
    fill(source, source_database, owner)
    spec = chunked(spec_factory, source_database, "release")
    prepare_target(spec, source_database)
    released = threading.Event()
    seen: list[bool] = []

    class Watched(Held):
        def close(self) -> None:
            super().close()
            released.set()

    build = indexwork.IndexWork.build

    def late(self: t.Any, *words: t.Any) -> None:
        seen.append(released.wait(30))
        build(self, *words)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(indexwork.IndexWork, "build", late)
        patch.setattr(indexes, "SMALL_TABLE", 1 << 20)
        copy(spec, source_database, tmp_path, Watched(source, source_database))
    assert len(seen) >= 3 and all(seen)
    assert_equal(source, target, source_database)


def test_a_half_made_index_is_built_anew(
    source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Any, members: None, tmp_path: Path, owner: t.Any
) -> None:
    """What a killed build has left (invalid, here even of another column) is dropped; of a key that is a constraint as well."""
    fill(source, source_database, owner)
    spec = chunked(spec_factory, source_database, "invalid")
    prepare_target(spec, source_database)
    stop = threading.Event()
    held = Held(source, source_database)
    first = copy(spec, source_database, tmp_path, held, stop, report=lambda figures: stop.set() if figures.get("step") == "copy" else None)
    assert first["stopped"]
    for kind, name, what in (
        ("", "big_k_idx", "big (filler)"),
        ("UNIQUE", "bigger_pkey", "bigger (id)"),
        ("UNIQUE", "small_pkey", "small (id)"),
    ):
        target.execute(f"CREATE {kind} INDEX {name} ON {what}", source_database)
        target.execute(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{name}'::regclass", source_database)
    copy(spec, source_database, tmp_path, held)
    assert_equal(source, target, source_database)


def test_extensions_are_looked_at_first(
    source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Any, members: None, tmp_path: Path, owner: t.Any
) -> None:
    """One that the target cannot have is refused by its name before anything is made; another version is told."""
    source.execute("CREATE EXTENSION pg_stat_statements VERSION '1.8'; CREATE EXTENSION lo", source_database)
    source.execute("UPDATE pg_extension SET extname = 'of another place' WHERE extname = 'lo'", source_database)
    spec = spec_factory("extensions", [source_database])
    prepare_target(spec, source_database)
    with pytest.raises(CopyError) as caught:
        copy(spec, source_database, tmp_path, Held(source, source_database))
    assert caught.value.code == "PGM3006" and caught.value.details["extensions"] == ["of another place"]
    assert target.execute("SELECT extname::text FROM pg_extension", source_database) == [("plpgsql",)]
    source.execute("UPDATE pg_extension SET extname = 'lo' WHERE extname = 'of another place'; DROP EXTENSION lo", source_database)
    newest = target.execute("SELECT default_version FROM pg_available_extensions WHERE name = 'pg_stat_statements'")[0][0]
    target.execute("ALTER ROLE admin SUPERUSER")
    try:
        notes = copy(spec, source_database, tmp_path, Held(source, source_database))["notes"]
    finally:
        target.execute("ALTER ROLE admin NOSUPERUSER")
    assert f"Extension pg_stat_statements: version 1.8 on the source, {newest} on the target." in notes
