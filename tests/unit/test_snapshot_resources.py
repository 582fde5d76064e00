# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What an index builder may take of the target: memory and parallel workers."""

from __future__ import annotations

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.indexes import builder_resources
from hypothesis import given
from hypothesis import strategies as st

MB, GB = 1 << 10, 1 << 20
"""In kB, as the server counts."""


def workers(jobs: int, vcores: int) -> int:
    return int(builder_resources(jobs, vcores, 0, 128 * MB, 64 * MB)["max_parallel_maintenance_workers"])


def memory(jobs: int, memory_gb: int, shared: int = 128 * MB, own: int = 64 * MB) -> int:
    return int(builder_resources(jobs, 0, memory_gb, shared, own)["maintenance_work_mem"].removesuffix("kB"))


@pytest.mark.parametrize(
    ("jobs", "vcores", "expected"),
    [(2, 1, 0), (2, 2, 0), (2, 4, 1), (2, 8, 3), (4, 64, 15), (1, 1, 0), (1, 2, 0), (1, 4, 2), (8, 4, 0), (0, 4, 2)],
)
def test_workers(jobs: int, vcores: int, expected: int) -> None:
    """The builder is one of its processes."""
    assert workers(jobs, vcores) == expected


def test_the_servers_default_stays_where_its_size_is_not_said() -> None:
    assert "max_parallel_maintenance_workers" not in builder_resources(2, 0, 0, 128 * MB, 64 * MB)


@given(st.integers(1, 32), st.integers(1, 256))
def test_never_more_processes_than_cpus(jobs: int, vcores: int) -> None:
    """Nor all of them for one builder."""
    processes = workers(jobs, vcores) + 1
    assert processes == 1 or (processes * jobs <= vcores and processes <= vcores - 1)


def test_memory() -> None:
    assert memory(2, 64) == 2 * GB, "the most that is of use"
    assert memory(4, 32) == 1 * GB
    assert memory(4, 4) == 128 * MB, "a small server that is known gets no more than its share"
    assert memory(4, 4, own=512 * MB) == 512 * MB, "never less than the server would give"
    assert memory(2, 0) == 256 * MB and memory(2, 0, shared=4 * GB) == 1 * GB, "guessed from shared_buffers"
