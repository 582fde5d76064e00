# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""How the tables of a schema are shared out among sessions."""

from __future__ import annotations

from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.archive import Statement
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.creation import ENOUGH, SHARE, shares, split_off
from hypothesis import given
from hypothesis import strategies as st

KINDS = ("TABLE", "SEQUENCE", "SEQUENCE OWNED BY", "COMMENT", "VIEW", "TABLE ATTACH")
STATEMENTS = st.lists(
    st.builds(
        lambda kind, setting: Statement(kind, kind, b"CREATE;\nSET default_table_access_method = columnar;\n" if setting else b"CREATE;\n"),
        st.sampled_from(KINDS),
        st.sampled_from([False] * 20 + [True]),
    ),
    max_size=400,
)


def tables(count: int) -> list[Statement]:
    return [Statement("TABLE", f"TABLE public.t{number}", b"CREATE TABLE;\n") for number in range(count)]


@given(STATEMENTS)
def test_runs_keep_order_and_settings(statements: list[Statement]) -> None:
    runs = split_off(statements)
    assert [one for dummy, run in runs for one in run] == statements
    for together, run in runs:
        if together:
            assert sum(one.kind == "TABLE" for one in run) >= ENOUGH
            assert not any(b"SET " in one.sql or one.kind in ("VIEW", "TABLE ATTACH") for one in run)


@given(STATEMENTS, st.integers(1, 8))
def test_shares_keep_order_and_what_belongs_to_a_table(statements: list[Statement], jobs: int) -> None:
    pieces = shares(statements, jobs)
    assert [one for piece in pieces for one in piece] == statements
    assert all(piece[0].kind == "TABLE" for piece in pieces[1:])


def test_shares_are_for_all_sessions() -> None:
    assert [len(piece) for piece in shares(tables(60), 2)] == [15] * 4
    assert max(len(piece) for piece in shares(tables(5000), 2)) == SHARE
