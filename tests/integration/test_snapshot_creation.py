# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Tables that several sessions make at once are those of the source, also where they need one another."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot import creation, schema
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.archive import Statement
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.target import prepare_target
from copylab import Held, assert_equal, chunked, copy


@pytest.mark.parametrize("worst", [False, True], ids=["as it is", "children first"])
def test_many_tables(source: lab.Server, target: lab.Server, source_database, spec_factory, members, tmp_path: Path, owner, worst) -> None:
    """Serial columns, comments, inheritance, row types of other tables, unlogged tables; with the shares in the worst order, too, where
    some are refused and made afterwards."""
    with source.connect(source_database, owner.name, owner.password) as conn:
        for number in range(60):
            conn.execute(t.cast(t.Any, f"CREATE TABLE t{number:02d} (id serial PRIMARY KEY, v int DEFAULT {number})"))
            conn.execute(t.cast(t.Any, f"COMMENT ON TABLE t{number:02d} IS 'no. {number}'"))
        conn.execute(
            "CREATE TABLE t98 (more int) INHERITS (t00); CREATE TABLE t99 (one t01, many t02[]); CREATE UNLOGGED TABLE t97 (id int)"
        )
        conn.execute("INSERT INTO t98 VALUES (1, 1, 2); INSERT INTO t99 VALUES ((1, 2), '{}')")
    spec = chunked(spec_factory, source_database, "creation")
    prepare_target(spec, source_database)
    refused: list[list[Statement]] = []

    def create(*arguments: t.Any) -> list[Statement]:
        refused.append(creation.create_side_by_side(*arguments))
        return refused[-1]

    def reversed_shares(statements: t.Sequence[Statement], jobs: int) -> list[list[Statement]]:
        return list(reversed(shares(statements, jobs)))

    shares = creation.shares
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "create_side_by_side", create)
        if worst:
            patch.setattr(creation, "shares", reversed_shares)
        copy(spec, source_database, tmp_path, Held(source, source_database))
    assert refused, "nothing was made side by side"
    assert bool(refused[0]) or not worst
    assert_equal(source, target, source_database)
