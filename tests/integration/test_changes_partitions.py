# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Partitions that differ between source and target: every row comes to the leaf that is right on the target."""

from __future__ import annotations

import time

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import StreamError
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.session import connect
from changelab import PLUGINS, Start, StreamLab

KEYED = "CREATE TABLE m (id int, day int, v text, PRIMARY KEY (day, id))"
KEYLESS = "CREATE TABLE m (id int, day int, v text)"
SOURCE = (
    " PARTITION BY RANGE (day); CREATE TABLE m_a PARTITION OF m FOR VALUES FROM (0) TO (10);"
    " CREATE TABLE m_b PARTITION OF m FOR VALUES FROM (10) TO (20); CREATE TABLE m_c PARTITION OF m FOR VALUES FROM (20) TO (30)"
)
TARGETS = {
    "same": SOURCE,
    "bounds": (
        " PARTITION BY RANGE (day); CREATE TABLE m_a PARTITION OF m FOR VALUES FROM (0) TO (5);"
        " CREATE TABLE m_b PARTITION OF m FOR VALUES FROM (5) TO (25); CREATE TABLE m_c PARTITION OF m FOR VALUES FROM (25) TO (30)"
    ),
    "missing": (
        " PARTITION BY RANGE (day); CREATE TABLE m_a PARTITION OF m FOR VALUES FROM (0) TO (10); CREATE TABLE m_rest PARTITION OF m DEFAULT"
    ),
    "hash": (
        " PARTITION BY HASH (id); CREATE TABLE m_a PARTITION OF m FOR VALUES WITH (MODULUS 2, REMAINDER 0);"
        " CREATE TABLE m_z PARTITION OF m FOR VALUES WITH (MODULUS 2, REMAINDER 1)"
    ),
    "plain": "",
}
FULL = "".join(f"; ALTER TABLE {name} REPLICA IDENTITY FULL" for name in ("m_a", "m_b", "m_c"))
ALL = "SELECT m::text FROM (SELECT id, day, v FROM public.m) m ORDER BY 1"


def equal(stream: StreamLab) -> int:
    """Drain; all rows of the whole table must be equal on both sides. How many there are."""
    stream.drain()
    with connect(stream.spec.source, stream.database) as a, connect(stream.spec.target, stream.database) as b:
        ours, theirs = a.execute(ALL).fetchall(), b.execute(ALL).fetchall()
    assert theirs == ours
    assert stream.errors == []
    return len(ours)


def schema(keyed: bool, division: str) -> str:
    """The table ``m``; without division it is plain. A hash key must be part of the primary key: it is."""
    return (KEYED if keyed else KEYLESS) + division


@pytest.mark.parametrize("plugin", PLUGINS)
@pytest.mark.parametrize("keyed", [True, False], ids=["key", "full"])
@pytest.mark.parametrize("there", TARGETS)
def test_divided_otherwise(streaming: Start, plugin: str, keyed: bool, there: str) -> None:
    """Inserts, updates, moves between leaves of either side and deletes, one by one and as sets."""
    division = SOURCE if keyed else SOURCE + FULL
    stream = streaming(plugin, schema(keyed, division), target_ddl=schema(keyed, TARGETS[there]))
    with stream.app() as conn:  # type: ignore[attr-defined]
        for count in (6, 120):  # row by row, and as sets
            conn.execute(f"INSERT INTO m SELECT g, g % 30, 'x' || g FROM generate_series(1, {count}) g")
            if not keyed:
                conn.execute("INSERT INTO m SELECT 1, day, 'twin' FROM generate_series(0, 29) day, generate_series(1, 2)")
            assert equal(stream) >= count
            conn.execute("UPDATE m SET v = v || '!' WHERE id % 2 = 0; UPDATE m SET v = NULL WHERE id = 3")
            conn.execute("UPDATE m SET day = (day + 4) % 30 WHERE id % 3 = 0")
            conn.execute("UPDATE m SET day = (day + 10) % 30, id = id + 1000 WHERE id % 5 = 0")
            conn.execute("DELETE FROM m WHERE id % 7 = 1")
            equal(stream)
            conn.execute("DELETE FROM m WHERE ctid = (SELECT min(ctid) FROM m) AND day < 10; UPDATE m SET day = 29 - day")
            assert equal(stream)
            conn.execute("TRUNCATE m")
            assert equal(stream) == 0


@pytest.mark.parametrize("plugin", PLUGINS)
def test_only_the_target_is_divided(streaming: Start, plugin: str) -> None:
    """The source's table is plain: its rows go through the root, an UPDATE moves them between leaves."""
    stream = streaming(plugin, schema(True, ""), target_ddl=schema(True, TARGETS["bounds"]))
    with stream.app() as conn:  # type: ignore[attr-defined]
        for count in (6, 60):
            conn.execute(f"INSERT INTO m SELECT g, g % 30, 'x' FROM generate_series(1, {count}) g; UPDATE m SET v = 'y'")
            conn.execute("UPDATE m SET day = (day + 7) % 30; DELETE FROM m WHERE id % 4 = 0")
            assert equal(stream)
            conn.execute("TRUNCATE m")
            assert equal(stream) == 0


@pytest.mark.parametrize("plugin", PLUGINS)
def test_truncate_of_a_leaf(streaming: Start, plugin: str) -> None:
    """It cannot be repeated where the leaf's rows are not a table of their own; nothing from it on is applied."""
    stream = streaming(plugin, schema(True, SOURCE), target_ddl=schema(True, TARGETS["bounds"]))
    with stream.app() as conn:  # type: ignore[attr-defined]
        conn.execute("INSERT INTO m SELECT g, g, 'x' FROM generate_series(0, 29) g")
        assert equal(stream) == 30
        conn.execute("TRUNCATE m_b")
    deadline = time.monotonic() + 30
    while not stream.errors and time.monotonic() < deadline:
        stream.stop.wait(0.05)
    error = stream.errors[0]
    assert isinstance(error, StreamError)
    assert error.code == "PGM4027" and error.details["table"] == "public.m_b"
    with stream.there() as conn:  # type: ignore[attr-defined]
        assert conn.execute("SELECT count(*) FROM m").fetchone() == (30,)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_truncate_of_an_equal_leaf(streaming: Start, plugin: str) -> None:
    """The leaf of the same name and bounds is emptied, and nothing else."""
    stream = streaming(plugin, schema(True, SOURCE))
    with stream.app() as conn:  # type: ignore[attr-defined]
        conn.execute("INSERT INTO m SELECT g, g, 'x' FROM generate_series(0, 29) g; TRUNCATE m_b")
        assert equal(stream) == 20
