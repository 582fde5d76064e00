# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""How many processes the relays get, and what survives the way from one of them to the worker."""

from __future__ import annotations

import pickle

import asyncpg
import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import CopyError
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.crew import LARGE, processes_for
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.relay import SnapshotGone
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.relaylink import portable
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("wanted", "jobs", "size", "rate", "free", "count"),
    [
        (0, 8, LARGE, 0, 8, 7),
        (0, 4, LARGE, 0, 16, 4),
        (0, 2, LARGE, 0, 2, 0),  # this process does it itself
        (0, 8, LARGE - 1, 0, 8, 0),
        (3, 8, 1, 0, 2, 3),
        (3, 2, 1, 0, 2, 2),
        (1, 8, LARGE, 0, 8, 0),
        (3, 8, LARGE, 1_000_000, 8, 0),
    ],
)
def test_processes(wanted: int, jobs: int, size: int, rate: int, free: int, count: int) -> None:
    assert processes_for(wanted, jobs, size, rate, free) == count


@given(st.integers(0, 99), st.integers(1, 99), st.integers(0, 1 << 50), st.integers(0, 1 << 30), st.integers(1, 256))
def test_never_more_processes_than_relays(wanted: int, jobs: int, size: int, rate: int, free: int) -> None:
    assert processes_for(wanted, jobs, size, rate, free) <= jobs


class Odd(Exception):
    """One whose arguments do not make it again."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


def test_errors_survive_the_way() -> None:
    """What the worker judges an error by: its class, its words, SQLSTATE and table."""
    refused = asyncpg.PostgresError.new({"S": "ERROR", "C": "23505", "M": "duplicate key", "s": "shop", "t": "item", "D": "Key (id)=(1)"})
    arrived = pickle.loads(pickle.dumps(portable(refused)))
    assert isinstance(arrived, asyncpg.UniqueViolationError)
    assert (arrived.sqlstate, arrived.schema_name, arrived.table_name, arrived.detail) == ("23505", "shop", "item", "Key (id)=(1)")
    gone = pickle.loads(pickle.dumps(portable(SnapshotGone("it was emptied"))))
    assert gone.reason == "it was emptied"
    ours = pickle.loads(pickle.dumps(portable(CopyError("no", code="PGM3012", sqlstate="42501", hint="do", details={"a": 1}))))
    assert ours.to_dict() == CopyError("no", code="PGM3012", sqlstate="42501", hint="do", details={"a": 1}).to_dict()
    assert "Odd: ab" in str(portable(Odd("a", "b")))
