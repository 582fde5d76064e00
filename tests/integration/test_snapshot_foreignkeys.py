# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Foreign keys from and to partitioned tables: made by several sessions, the same as on the source, whatever was there before."""

from __future__ import annotations

import typing as t

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import CopyError
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot import foreignkeys
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.pool import TargetPool
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.target import prepare_target
from copylab import Held, assert_equal, copy

TABLES = """
    CREATE TABLE plain (id int PRIMARY KEY);
    CREATE TABLE other (id int PRIMARY KEY);
    CREATE TABLE parted (day int, id int, boss_day int, boss_id int, plain_id int CONSTRAINT to_plain REFERENCES plain ON DELETE CASCADE,
        other_id int REFERENCES other DEFERRABLE INITIALLY DEFERRED, PRIMARY KEY (day, id)) PARTITION BY RANGE (day);
    CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
    CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (20) PARTITION BY LIST (id);
    CREATE TABLE "parted ""2"" odd" PARTITION OF parted_2 FOR VALUES IN (1, 3, 5, 7, 9);
    CREATE TABLE parted_2_rest PARTITION OF parted_2 DEFAULT;
    CREATE TABLE shifted (other_id int, id int, plain_id int, dropped text, boss_id int, boss_day int, day int NOT NULL);
    ALTER TABLE shifted DROP COLUMN dropped; ALTER TABLE shifted ALTER id SET NOT NULL;
    ALTER TABLE parted ATTACH PARTITION shifted FOR VALUES FROM (20) TO (30);
    ALTER TABLE parted_1 ADD CONSTRAINT own_of_1 FOREIGN KEY (plain_id) REFERENCES other;
    CREATE TABLE points (day int, id int, FOREIGN KEY (day, id) REFERENCES parted);
    CREATE TABLE points_too (n int, day int, id int, CONSTRAINT far FOREIGN KEY (day, id) REFERENCES parted ON UPDATE CASCADE);
    CREATE TABLE lines (day int, id int, FOREIGN KEY (day, id) REFERENCES parted) PARTITION BY HASH (id);
    CREATE TABLE lines_0 PARTITION OF lines FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE lines_1 PARTITION OF lines FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    CREATE TABLE root (id int PRIMARY KEY) PARTITION BY HASH (id);
    CREATE TABLE root_0 PARTITION OF root FOR VALUES WITH (MODULUS 1, REMAINDER 0);
    CREATE TABLE leaf (id int REFERENCES root);
    ALTER TABLE parted ADD CONSTRAINT itself FOREIGN KEY (boss_day, boss_id) REFERENCES parted;
    COMMENT ON CONSTRAINT to_plain ON parted IS 'said';
    INSERT INTO plain SELECT generate_series(1, 50); INSERT INTO other SELECT generate_series(1, 50);
    INSERT INTO parted SELECT i % 30, i, i % 30, i, 1 + i % 50, 1 + i % 50 FROM generate_series(1, 300) i;
    INSERT INTO points SELECT day, id FROM parted; INSERT INTO points_too SELECT 1, day, id FROM parted;
    INSERT INTO lines SELECT day, id FROM parted; INSERT INTO root SELECT generate_series(1, 9);
    INSERT INTO leaf SELECT generate_series(1, 9)"""
"""Keys to an ordinary table from a tree of two levels with a partition whose columns stand otherwise, to a tree, from a tree to a tree, to
itself, and one of a single partition."""

SHAPE = """
    SELECT k.conrelid::regclass::text, k.confrelid::regclass::text, k.conname, k.convalidated, k.coninhcount, k.conislocal,
           p.conname, p.conrelid::regclass::text
      FROM pg_constraint k LEFT JOIN pg_constraint p ON p.oid = k.conparentid WHERE k.contype = 'f' ORDER BY 1, 2, 3, 7"""
TRIGGERS = "SELECT tgrelid::regclass::text, tgfoid::regproc::text, count(*) FROM pg_trigger WHERE tgisinternal GROUP BY 1, 2 ORDER BY 1, 2"


def same_keys(source: lab.Server, target: lab.Server, database: str) -> None:
    for query in (SHAPE, TRIGGERS):
        assert target.execute(query, database) == source.execute(query, database)


@pytest.mark.parametrize("broken", [False, True])
def test_keys_of_partitioned_tables(broken, source, target, source_database, spec_factory, members, tmp_path, owner) -> None:
    """Partitions are validated one by one, in sessions of their own; keys that are checked at once are added beside each other only where
    they share no table. ``broken``: the copy ends after each step in turn, and is taken up again."""
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute(t.cast(t.Any, TABLES))
    tool = lab.program("pg_dump", max(source.major, target.major))
    spec = spec_factory("parted-keys", [source_database], copy={"index_jobs": 3, "bindir": str(tool.parent) if tool else ""})
    prepare_target(spec, source_database)
    done: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        submit = TargetPool.submit

        def noted(self: t.Any, cost: float, doing: str, task: t.Any) -> None:
            if "foreign key" in doing:
                if broken and len(done) in (3, 9, 14):
                    done.append("")
                    raise CopyError("broken off")
                done.append(doing)
            submit(self, cost, doing, task)

        patch.setattr(TargetPool, "submit", noted)
        for dummy in range(3 if broken else 0):
            with pytest.raises(CopyError, match="broken off"):
                copy(spec, source_database, tmp_path, Held(source, source_database))
        copy(spec, source_database, tmp_path, Held(source, source_database))
    assert {f"validate the foreign keys of public.{name}" for name in ("parted_1", "parted_2_rest", "shifted")} <= set(done)
    same_keys(source, target, source_database)
    target.execute("DELETE FROM leaf", source_database)
    source.execute("DELETE FROM leaf", source_database)
    assert_equal(source, target, source_database)


def test_keys_that_share_no_table_go_together(source, source_database, owner) -> None:
    """Those to one tree one after the other, the one to another tree at once."""
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute(t.cast(t.Any, TABLES))
        keys = foreignkeys.read_foreign_keys(conn, 150000)
    rounds = foreignkeys.in_rounds([key for key in keys if key.locks])
    for some in rounds:
        assert sum(len(key.locks) for key in some) == len(frozenset().union(*(key.locks for key in some))), "two lock one table"
    assert [key.table for some in rounds for key in some].count("parted") == 3
    assert sum("leaf" in {key.table for key in some} and len(some) == 2 for some in rounds) == 1
