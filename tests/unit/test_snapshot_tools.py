# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Choice of pg_dump, its password file, its words in errors; reports; what is tried again."""

from __future__ import annotations

import threading
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import ConnectionFailed, CopyError
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres import session
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot import progress, target, tools
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import Endpoint


def program(folder: Path, name: str, version: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version} (Distribution)'\n")
    path.chmod(0o755)


def test_newest_tools_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("9.6.24", "16.3", "15.20"):
        for name in ("pg_dump", "pg_restore"):
            program(tmp_path / version.partition(".")[0] / "bin", name, version)
    monkeypatch.setattr(tools, "INSTALLED", tmp_path)
    found = tools.find_tools("", 15)
    assert found.major == 16 and found.version == "16.3" and found.path("pg_restore").endswith("16/bin/pg_restore")
    with pytest.raises(CopyError) as caught:
        tools.find_tools(str(tmp_path / "15" / "bin"), 16)
    assert caught.value.code == "PGM3003" and "15.20" in str(caught.value)


def test_password_file_escapes(tmp_path: Path) -> None:
    endpoint = Endpoint("source", "other", "h", "u:ser", 5433, password="a:b\\c")
    with tools.password_file(endpoint, tmp_path) as path:
        assert path.read_text() == "*:*:*:*:a\\:b\\\\c\n"
        assert path.stat().st_mode & 0o777 == 0o600
    assert "dbname='it\\'s'" in tools.connection_string(endpoint, "it's", Path("p"))


def test_a_tools_own_words_are_the_error() -> None:
    with pytest.raises(CopyError, match="no such thing") as caught:
        tools.run_tool(["/bin/sh", "-c", "echo no such thing >&2; exit 3"], "try", "nowhere", threading.Event())
    assert "status 3" in str(caught.value) and caught.value.code == "PGM3004"


def test_stop_ends_a_tool_within_a_second() -> None:
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    started = time.monotonic()
    with pytest.raises(tools.Stopped):
        tools.run_tool(["/bin/sleep", "30"], "sleep", "nowhere", stop)
    assert time.monotonic() - started < 1.5


def test_reports_are_merged_and_rare() -> None:
    seen: list[dict[str, t.Any]] = []
    figures = progress.Progress(seen.append)
    figures.set(step="copy")
    for dummy in range(100):
        figures.add(rows_done=1)
    figures.note("once")
    figures.note("once")
    assert len(seen) == 1
    figures.flush()
    assert seen[1:] == [{"rows_done": 100, "notes": ["once"]}]


class Answer(Exception):
    """An error of a server with an SQLSTATE."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate


@pytest.mark.parametrize("state", ["08006", "57P01", "57P03", "40P01", "53300", "55P03"])
def test_passing_states_are_tried_again(state: str) -> None:
    assert session.passing(Answer(state))


@pytest.mark.parametrize("state", ["42501", "23505", "22021", "53100", "XX000", "57014"])
def test_lasting_states_are_not(state: str) -> None:
    assert not session.passing(Answer(state))


def test_connections_are_tried_again_but_not_passwords() -> None:
    assert session.passing(ConnectionFailed("x", details={"reason": "starting"})) and session.passing(OSError())
    assert not session.passing(ConnectionFailed("x", details={"reason": "authentication"})) and not session.passing(ValueError())


def test_create_database_by_provider() -> None:
    libc = target.DatabaseFacts("UTF8", "de_DE.UTF-8", "C", "c", "", "", "app")
    assert target.create_statement("x", libc, 140000) == (
        "CREATE DATABASE \"x\" TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'de_DE.UTF-8' LC_CTYPE 'C'"
    )
    assert target.create_statement("x", libc, 150000).endswith("LOCALE_PROVIDER libc")
    icu = target.DatabaseFacts("UTF8", "C", "C", "i", "de-u-co-phonebk", "&a < b", "app")
    assert "LOCALE_PROVIDER icu ICU_LOCALE 'de-u-co-phonebk'" in target.create_statement("x", icu, 150000)
    assert target.create_statement("x", icu, 160000).endswith("ICU_RULES '&a < b'")
    assert "BUILTIN_LOCALE 'C.UTF-8'" in target.create_statement(
        "x", target.DatabaseFacts("UTF8", "C", "C", "b", "C.UTF-8", "", "app"), 170000
    )
