# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Rows in motion, made to measure: the test itself is the application and the stream, and both act within the wait for the stream."""

from __future__ import annotations

import time
import typing as t

import psycopg
import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from ansible_collections.pgops.migration.plugins.module_utils._engine.verify import buckets, rowwise
from ansible_collections.pgops.migration.plugins.module_utils._engine.verify.compare import TableResult, verify_database
from ansible_collections.pgops.migration.plugins.module_utils._engine.verify.live import verify_live

TABLES = """
CREATE TABLE big (id int PRIMARY KEY, n int NOT NULL); INSERT INTO big SELECT i, 0 FROM generate_series(1, 20000) i;
CREATE TABLE hot (id int PRIMARY KEY, n int NOT NULL); INSERT INTO hot SELECT i, 0 FROM generate_series(1, 10) i;
CREATE TABLE lone (n int, word text); INSERT INTO lone SELECT i, 'x' FROM generate_series(1, 2000) i;
"""
Connection = psycopg.Connection[t.Any]


class Motion:
    """The same database on two servers, and what happens on them in each wait for the stream."""

    def __init__(self, spec: MigrationSpec, source: Connection, target: Connection) -> None:
        self.spec, self.source, self.target = spec, source, target
        self.steps: list[t.Callable[[], None]] = []
        self.waits = 0

    def settle(self) -> None:
        """A wait for the stream."""
        self.waits += 1
        for step in self.steps:
            step()

    def stream(self, table: str) -> None:
        """The target gets what the source has: rows that differ, and no others."""
        ours, theirs = (set(conn.execute(f"SELECT * FROM {table}").fetchall()) for conn in (self.source, self.target))
        key = self.source.execute(f"SELECT * FROM {table} LIMIT 0").description
        assert key
        with self.target.transaction(), self.target.cursor() as cursor:
            cursor.executemany(f"DELETE FROM {table} WHERE {key[0].name} = %s", [row[:1] for row in theirs - ours])
            cursor.executemany(f"INSERT INTO {table} VALUES (%s, %s)", sorted(ours - theirs))

    def verify(self) -> dict[str, TableResult]:
        """What the verification says, by table."""
        return {table.label: table for table in verify_live(self.spec, self.spec.databases[0], self.settle).tables}


@pytest.fixture
def motion(source, target, source_database, target_database, spec_factory, monkeypatch) -> t.Iterator[Motion]:
    for module in (rowwise, buckets):
        monkeypatch.setattr(module, "CONFIRM_SECONDS", 0.0)
    ends = {
        side: {"user": server.superuser, "password": server.superuser_password} for side, server in (("source", source), ("target", target))
    }
    with source.connect(source_database) as ours, target.connect(source_database) as theirs:
        for conn in (ours, theirs):
            conn.execute(TABLES)
        yield Motion(spec_factory("motion", [source_database], **ends), ours, theirs)


def test_a_table_of_which_every_row_moves_is_compared(motion: Motion, monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows change after each wait, in the table without a key too."""
    monkeypatch.setattr(buckets, "FETCH_ROWS", 5000)
    monkeypatch.setattr(rowwise, "AT_ONCE", 1000)

    def application() -> None:
        motion.stream("lone")
        motion.target.execute("UPDATE big SET n = %s", [motion.waits - 1])
        motion.source.execute("UPDATE big SET n = %s", [motion.waits])
        motion.source.execute("UPDATE lone SET word = CASE word WHEN 'x' THEN 'y' ELSE 'x' END WHERE n %% 100 = %s", [motion.waits])

    motion.steps = [application]
    found = motion.verify()
    assert all(table.equal for table in found.values()), found
    assert found["public.big"].rows_source == 20000


def test_a_row_that_everybody_writes_is_compared(motion: Motion) -> None:
    """The target has it as it was between the two reads on the source: nobody has read that value but the watch."""

    def application() -> None:
        motion.source.execute("UPDATE hot SET n = n + 1 WHERE id < 4")
        motion.stream("hot")
        time.sleep(0.3)
        motion.source.execute("UPDATE hot SET n = n + 1 WHERE id < 4")

    motion.steps = [application]
    assert motion.verify()["public.hot"].equal


def test_a_row_that_comes_and_goes_is_no_false_alarm(motion: Motion, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both reads on the source miss it and the target has it, every time."""
    monkeypatch.setattr(rowwise, "WATCHED", 0)

    def application() -> None:
        motion.source.execute("DELETE FROM hot WHERE id = 77")
        motion.stream("hot")
        motion.source.execute("INSERT INTO hot VALUES (77, 1)")
        motion.stream("hot")
        motion.source.execute("DELETE FROM hot WHERE id = 77")

    motion.steps = [application]
    found = motion.verify()["public.hot"]
    assert not found.compared and found.note == "in motion: 1 rows were written to in every round", found


def test_a_commit_that_the_target_shows_first_is_no_false_alarm(motion: Motion) -> None:
    """A commit that waits for a synchronous standby is in the WAL, and not to be seen on the source yet: here until the third look."""

    def application() -> None:
        if motion.waits == 2:
            motion.target.execute("UPDATE hot SET n = 5 WHERE id = 1; DELETE FROM hot WHERE id = 2")
        if motion.waits == 4:
            motion.source.execute("UPDATE hot SET n = 5 WHERE id = 1; DELETE FROM hot WHERE id = 2")

    motion.target.execute("UPDATE hot SET n = 1 WHERE id = 3")
    motion.steps = [application]
    found = motion.verify()["public.hot"]
    assert [(d["kind"], d["key"]["id"]) for d in found.differences] == [("different", "3")]


def test_what_is_wrong_is_found_though_all_is_in_motion(motion: Motion) -> None:
    """A row that the stream has lost sight of is found although the source's moves all the time."""
    motion.target.execute("UPDATE hot SET n = -1 WHERE id = 1; DELETE FROM hot WHERE id = 2; INSERT INTO hot VALUES (77, 7)")
    motion.target.execute("UPDATE lone SET word = 'wrong' WHERE n = 5; DELETE FROM lone WHERE n = 6")

    def application() -> None:
        motion.target.execute("UPDATE hot SET n = %s WHERE id = 3", [motion.waits])
        motion.source.execute("UPDATE hot SET n = %s WHERE id = 3", [motion.waits])
        motion.source.execute("UPDATE hot SET n = n + 1 WHERE id = 1")

    motion.steps = [application]
    found = motion.verify()
    named = {(d["kind"], d["key"]["id"]) for d in found["public.hot"].differences}
    assert named == {("different", "1"), ("missing", "2"), ("extra", "77")}
    lone = {(d["kind"], (d["source"] or d["target"])["n"], (d["source"] or d["target"])["word"]) for d in found["public.lone"].differences}
    assert lone == {("missing", "5", "x"), ("extra", "5", "wrong"), ("missing", "6", "x")}
    assert found["public.big"].equal


def test_a_truncated_table_is_compared_after_all(motion: Motion) -> None:
    """It is empty for the snapshots of the first comparison, and is looked at again like any other."""
    calls: list[dict[str, t.Any]] = []

    def truncate(figures: dict[str, t.Any]) -> None:
        calls.append(figures)
        if len(calls) == 1:  # the snapshots are taken, nothing is read yet
            for conn in (motion.source, motion.target):
                conn.execute("TRUNCATE hot; INSERT INTO hot VALUES (1, 1)")

    found = {table.label: table for table in verify_live(motion.spec, motion.spec.databases[0], motion.settle, report=truncate).tables}
    assert motion.waits > 1, "it was not looked at again"
    assert found["public.hot"].equal and found["public.hot"].compared
    assert (found["public.hot"].rows_source, found["public.hot"].rows_target) == (1, 1)


def test_nobody_waits_for_the_end_of_the_comparison(motion: Motion) -> None:
    """A table that has been read can be truncated while the comparison goes on."""

    def truncate(figures: dict[str, t.Any]) -> None:
        if figures["tables_done"] == figures["tables_total"]:
            for conn in (motion.source, motion.target):
                conn.execute("SET lock_timeout = '2s'; TRUNCATE big, hot, lone")

    result = verify_database(motion.spec, motion.spec.databases[0], report=truncate)
    assert result.equal and [table.rows_source for table in result.tables] == [20000, 10, 2000]
