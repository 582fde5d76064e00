# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Schemas and histories of transactions that hypothesis makes up, streamed through each plugin: all rows are equal afterwards."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import typing as t
from pathlib import Path

import psycopg
import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from changelab import PLUGINS, StreamLab
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pair import Login

EXAMPLES = int(os.environ.get("PG_MIGRATION_EXAMPLES", "4"))
"""Histories for each plugin."""

KEYS = {
    "int": ("k int PRIMARY KEY", ""),
    "text": ("k text PRIMARY KEY", ""),
    "uuid": ("k uuid PRIMARY KEY", ""),
    "composite": ("k int, k2 text DEFAULT 'x', PRIMARY KEY (k2, k)", ""),
    "full": ("k int", "REPLICA IDENTITY FULL"),
    "full_key": ("k int PRIMARY KEY", "REPLICA IDENTITY FULL"),
    "using_index": ("k int NOT NULL", "REPLICA IDENTITY USING INDEX {}_k"),
}
"""Kind of key to the columns that make it and what is altered."""

WORDS = ("", "a", "NULL", "\\N", "tab\t\n\\", "\u00e9\U0001f600", "'\"{},")
names = itertools.count()


@dataclasses.dataclass(frozen=True)
class Action:
    """One statement: ``kind`` on table number ``table`` with key ``key``; ``other`` is a second key, ``word`` a text."""

    kind: str
    table: int
    key: int
    other: int
    word: str


kinds = ("insert", "insert", "insert", "many", "update", "update", "key", "toast", "untoasted", "delete", "truncate", "all")
actions = st.builds(Action, st.sampled_from(kinds), st.integers(0, 2), st.integers(0, 11), st.integers(0, 11), st.sampled_from(WORDS))
blocks = st.tuples(st.sampled_from(["plain", "savepoint", "rolled back"]), st.lists(actions, min_size=1, max_size=5))
transactions = st.tuples(st.lists(blocks, min_size=1, max_size=4), st.sampled_from(["COMMIT", "COMMIT", "COMMIT", "ROLLBACK"]))
histories = st.lists(st.tuples(st.integers(0, 2), transactions), min_size=4, max_size=25)
schemas = st.lists(st.sampled_from(sorted(KEYS)), min_size=1, max_size=3)


def ddl_of(schema: t.Sequence[str]) -> str:
    """The tables ``t0``, ``t1``...: a key, a number, a text that is stored out of line."""
    parts = []
    for number, kind in enumerate(schema):
        columns, altered = KEYS[kind]
        parts.append(f"CREATE TABLE t{number} (v int, big text, {columns}); ALTER TABLE t{number} ALTER big SET STORAGE EXTERNAL")
        if kind == "using_index":
            parts.append(f"CREATE UNIQUE INDEX t{number}_k ON t{number} (k)")
        if altered:
            parts.append(f"ALTER TABLE t{number} {altered.format(f't{number}')}")
    return ";\n".join(parts)


def value(kind: str, key: int) -> str:
    """Key ``key`` as a literal of the kind."""
    if kind == "uuid":
        return f"'00000000-0000-0000-0000-{key:012d}'"
    return f"'k\\{key}'" if kind == "text" else str(key)


def statement(schema: t.Sequence[str], action: Action) -> tuple[str, list[t.Any]]:
    """SQL and its parameters."""
    number = action.table % len(schema)
    kind, name = schema[number], f"t{number}"
    here, there = value(kind, action.key), value(kind, action.other)
    if action.kind == "insert":
        return f"INSERT INTO {name} (k, v, big) VALUES ({here}, 0, %s) ON CONFLICT DO NOTHING", [action.word]
    if action.kind == "many":
        rows = ", ".join(f"({value(kind, 100 + action.key * 40 + i)}, {i}, NULL)" for i in range(40))
        return f"INSERT INTO {name} (k, v, big) VALUES {rows} ON CONFLICT DO NOTHING", []
    if action.kind == "update":
        return f"UPDATE {name} SET v = v + 1, big = %s WHERE k = {here}", [action.word]
    if action.kind == "key":
        return f"UPDATE {name} SET k = {there}, v = v + 1 WHERE k = {here}", []
    if action.kind == "toast":
        return f"UPDATE {name} SET big = repeat(%s, 4000) WHERE k = {here}", [action.word or "z"]
    if action.kind == "untoasted":
        return f"UPDATE {name} SET v = v - 1 WHERE k = {here}", []
    if action.kind == "delete":
        return f"DELETE FROM {name} WHERE k = {here}", []
    if action.kind == "all":
        return f"UPDATE {name} SET v = v + 7", []
    return f"TRUNCATE {name}", []


def play(sessions: t.Sequence[psycopg.Connection[t.Any]], schema: t.Sequence[str], history: t.Any) -> None:
    """Run each session's transactions a block at a time in turn, so that they interleave; what waits for another session's lock or
    conflicts is undone alone."""
    queues = [[transaction for who, transaction in history if who == number] for number in range(len(sessions))]
    plans = [[step for found, end in queue for step in [("BEGIN", []), *found, (end, [])]] for queue in queues]
    for steps in itertools.zip_longest(*plans):
        for conn, step in zip(sessions, steps, strict=True):
            if step is not None:
                run_block(conn, schema, *step)


def run_block(conn: psycopg.Connection[t.Any], schema: t.Sequence[str], mode: str, found: t.Sequence[Action]) -> None:
    """BEGIN, COMMIT, ROLLBACK, or statements, each under a savepoint of its own where ``mode`` wants one."""
    if mode.isupper():
        conn.execute(mode)  # type: ignore[call-overload]
        return
    refused = contextlib.suppress(psycopg.errors.IntegrityError, psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)
    with refused, conn.transaction(force_rollback=mode == "rolled back"):
        for action in found:
            with conn.transaction() if mode == "savepoint" else contextlib.nullcontext():
                sql, parameters = statement(schema, action)
                conn.execute(sql, parameters or None)  # type: ignore[call-overload]


@pytest.mark.parametrize("plugin", PLUGINS)
def test_any_history_arrives(
    source: lab.Server,
    target: lab.Server,
    owner: Login,
    admin: Login,
    database_factory: t.Callable[..., str],
    spec_factory: t.Callable[..., MigrationSpec],
    tmp_path: Path,
    plugin: str,
) -> None:
    """Three sessions, keys of every kind, changed keys, TOAST, TRUNCATE, savepoints: sets and single rows end in the same rows."""

    @settings(max_examples=EXAMPLES, database=None, print_blob=True, suppress_health_check=list(HealthCheck))
    @given(schema=schemas, history=histories, batch_rows=st.sampled_from([3, 40, 50_000]))
    def check(schema: list[str], history: t.Any, batch_rows: int) -> None:
        database = database_factory()
        database_factory("target", database)
        for server, login in ((source, owner), (target, admin)):
            with server.connect(database, login.name, login.password) as conn:
                conn.execute(ddl_of(schema))
        spec = spec_factory("property", [database], changes={"batch_rows": batch_rows, "heartbeat": 0.3})
        stream = StreamLab(spec, tmp_path / f"spool{next(names)}", plugin)
        try:
            with contextlib.ExitStack() as stack:
                sessions = [stack.enter_context(source.connect(database, owner.name, owner.password)) for dummy in range(3)]
                for session in sessions:
                    session.execute("SET lock_timeout = '50ms'")
                stream.start()
                play(sessions, schema, history)
            stream.drain()
            assert stream.differences() == {}
            assert stream.errors == []
        finally:
            stream.close()

    check()
