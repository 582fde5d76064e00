# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The regression corpus: every way in which a stream was wrong, ours or another tool's, as a file of ``tests/corpus``.

A file says what went wrong, what there is *before* (on both sides), and a *history* that is streamed: each paragraph is a transaction. All
files share one stream, each with a schema of its own.
"""

from __future__ import annotations

import typing as t
from pathlib import Path

import psycopg
import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.source.plugin import AS_STRING
from changelab import PLUGINS, Start, same

CORPUS = sorted((Path(__file__).resolve().parents[1] / "corpus").glob("*.sql"))


class Case(t.NamedTuple):
    """A file's schema, what is there before, and its transactions; ``numbers``: it needs a plugin that writes NaN and Infinity."""

    schema: str
    numbers: bool
    before: str
    history: list[str]


def read(path: Path) -> Case:
    """The case in the file ``path``."""
    head, rest = path.read_text(encoding="utf-8").split("-- before\n")
    before, history = rest.split("-- history\n")
    return Case(
        f"corpus_{path.stem}", "Needs a plugin that writes them" in head, before, [part for part in history.split("\n\n") if part.strip()]
    )


def play(conn: psycopg.Connection[t.Any], case: Case) -> None:
    """The history of ``case``."""
    conn.execute(t.cast(t.Any, f"SET search_path = {case.schema}, public"))
    for transaction in case.history:
        with conn.transaction():
            conn.execute(t.cast(t.Any, transaction))


@pytest.mark.parametrize("plugin", PLUGINS)
def test_corpus(streaming: Start, plugin: str) -> None:
    """All of it is equal afterwards; the name of a table that is not says which file it is from."""
    cases = [read(path) for path in CORPUS]
    ddl = "".join(f"CREATE SCHEMA {case.schema}; SET search_path = {case.schema}, public; {case.before};" for case in cases)
    stream = streaming(plugin, ddl)
    with stream.app() as conn:  # type: ignore[attr-defined]
        for case in cases:
            if not case.numbers or plugin == "pgoutput" or AS_STRING in stream.choice.options:
                play(conn, case)
    same(stream)
