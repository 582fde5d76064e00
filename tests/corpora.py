# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The regression corpus: every way in which a stream was wrong, ours or another tool's, as a file of ``tests/corpus``.

A file says what went wrong, what there is *before* (on both sides), and a *history* that is streamed: each paragraph is a transaction. All
files share one stream, each with a schema of its own.
"""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

import psycopg
from ansible_collections.pgops.migration.plugins.module_utils._engine.source.plugin import AS_STRING, PluginChoice

CORPUS = sorted((Path(__file__).resolve().parent / "corpus").glob("*.sql"))


class Case(t.NamedTuple):
    """A file's schema, what is there before, and its transactions; ``numbers``: it needs a plugin that writes NaN and Infinity;
    ``least``: the major version that it needs."""

    schema: str
    numbers: bool
    least: int
    before: str
    history: list[str]


def read(path: Path) -> Case:
    """The case in the file ``path``."""
    head, rest = path.read_text(encoding="utf-8").split("-- before\n")
    before, history = rest.split("-- history\n")
    least = re.search(r"From PostgreSQL (\d+) on", head)
    transactions = [part for part in history.split("\n\n") if part.strip()]
    return Case(f"corpus_{path.stem}", "Needs a plugin that writes them" in head, int(least[1]) if least else 0, before, transactions)


def corpus(major: int) -> list[Case]:
    """The cases that a source of this version knows."""
    return [case for case in map(read, CORPUS) if case.least <= major]


def ddl_of(cases: t.Sequence[Case]) -> str:
    """What is there before."""
    return "".join(f"CREATE SCHEMA {case.schema}; SET search_path = {case.schema}, public; {case.before};" for case in cases)


def play(conn: psycopg.Connection[t.Any], cases: t.Sequence[Case], choice: PluginChoice | None = None) -> None:
    """The histories of ``cases``, but of those that the plugin would lose numbers of."""
    for case in cases:
        if case.numbers and choice is not None and choice.plugin == "wal2json" and AS_STRING not in choice.options:
            continue
        conn.execute(t.cast(t.Any, f"SET search_path = {case.schema}, public"))
        for transaction in case.history:
            with conn.transaction():
                conn.execute(t.cast(t.Any, transaction))
