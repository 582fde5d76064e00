# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Chunks are a partition of the table, whatever its size and keys; small tables share a transaction."""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.catalog import Table
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot import plan
from hypothesis import given, settings
from hypothesis import strategies as st

INT = st.integers(min_value=-(2**63), max_value=2**63 - 1)


def table(name: str, size: int = 0, oid: int = 1) -> Table:
    return Table(oid, "s", name, "r", "p", "d", 0, 0.0, size, False, False, False, "o", (), (), 0)


def matches(condition: str, value: t.Any) -> bool:
    """Evaluate our own two shapes of a condition."""
    ends = re.findall(r"(>=|<) '(?:\()?(-?\d+)", condition)
    return all(value >= int(edge) if operator == ">=" else value < int(edge) for operator, edge in ends)


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.integers(1, 20), st.lists(st.integers(0, 2 * 10**6), max_size=10))
def test_block_ranges_are_a_partition(blocks: int, pieces: int, probes: list[int]) -> None:
    conditions = [plan.block_condition(low, high) for low, high in plan.cut(blocks, pieces)]
    edges = [e for low, high in plan.cut(blocks, pieces) for e in (low, high) if e is not None]
    for block in [*probes, 0, blocks, *edges, *(e - 1 for e in edges if e)]:
        assert sum(matches(c, block) for c in conditions) == 1


@settings(max_examples=50)
@given(st.integers(1, 10**6), st.integers(1, 500))
def test_block_ranges_are_even(blocks: int, pieces: int) -> None:
    sizes = [(high if high is not None else blocks) - (low or 0) for low, high in plan.cut(blocks, pieces)]
    assert sum(sizes) == blocks and max(sizes) - min(sizes) <= 1


@settings(max_examples=50)
@given(st.sets(INT, max_size=12), st.lists(INT, max_size=10))
def test_key_ranges_are_a_partition(bounds: set[int], probes: list[int]) -> None:
    ordered = [str(b) for b in sorted(bounds)]
    conditions = [plan.key_condition("k", "bigint", low, high) for low, high in plan.between(ordered)]
    for key in [*probes, -1, 0, *bounds, *(b - 1 for b in bounds)]:
        assert sum(matches(c, key) for c in conditions) == 1


def test_conditions_quote_what_they_hold() -> None:
    assert plan.key_condition('a"b', "text", "it's", None) == "\"a\"\"b\" >= 'it''s'::text"
    assert plan.block_condition(None, None) == ""


@settings(max_examples=50)
@given(st.integers(0, 1 << 45), st.integers(0, 1 << 45), st.integers(1, 1 << 34), st.integers(1, 16))
def test_chunks_are_no_larger_than_asked(size: int, others: int, chunk_bytes: int, jobs: int) -> None:
    pieces = plan.pieces_of(size, size + others, chunk_bytes, jobs)
    assert pieces >= 1 and size / pieces <= chunk_bytes
    if jobs == 1:
        assert pieces == max(1, -(-size // chunk_bytes))


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 200 << 20), st.integers(1, 3)), max_size=120))
def test_bundles_hold_every_part_once_and_chunks_stay_alone(sizes: list[tuple[int, int]]) -> None:
    parts = []
    for oid, (size, count) in enumerate(sizes):
        chunks = tuple(plan.Chunk(i, count, "", size) for i in range(count))
        parts += [(plan.PlannedTable(table(str(oid), oid=oid), 0, chunks), chunk) for chunk in chunks]
    units = plan.bundle(parts)
    seen = [(planned.table.oid, chunk.number) for unit in units for planned, chunk in unit.parts]
    assert sorted(seen) == sorted((planned.table.oid, chunk.number) for planned, chunk in parts)
    assert [u.bytes for u in units] == sorted((u.bytes for u in units), reverse=True)
    for unit in units:
        assert len(unit.parts) == 1 or (unit.bytes <= plan.BUNDLE_BYTES and len(unit.parts) <= plan.BUNDLE_TABLES)
        assert len(unit.parts) == 1 or all(chunk.count == 1 for dummy, chunk in unit.parts)


def test_a_stored_plan_is_valid_for_its_snapshot_alone(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    old = plan.PlannedTable(table("x"), 7, (plan.Chunk(0, 2, "a", 5), plan.Chunk(1, 2, "b", 5)))
    new = plan.PlannedTable(table("x"), 8, (plan.Chunk(0, 1, "", 12),))
    assert plan.remember(path, 100, [old]) == [old]
    assert plan.remember(path, 100, [new]) == [old]
    assert plan.remember(path, 200, [new]) == [new]
    path.write_text("{broken")
    assert plan.remember(path, 200, [new]) == [new]
