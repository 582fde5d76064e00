# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The command ``status`` on a terminal and without one, through the real manager and record."""

from __future__ import annotations

import io
import json
import threading
import time
import typing as t
from pathlib import Path

import monitor_samples as given
import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.cli import main
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.catalogue import Catalogue
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.states import State, Substate
from ansible_collections.pgops.migration.plugins.module_utils._engine.monitor.screen import detail_lines
from ansible_collections.pgops.migration.plugins.module_utils._engine.service import show
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec

BEGIN = Substate.PERFORMING_PREREQUISITE_STEPS
SPEC = MigrationSpec.from_dict(
    {"name": "shop-2026", "source": {"host": "a", "user": "u"}, "target": {"host": "b", "user": "v"}, "databases": ["shop"]}
)


@pytest.fixture
def record(tmp_path: Path) -> Catalogue:
    """A host with one active migration."""
    catalogue = Catalogue(tmp_path / "catalogue.db")
    catalogue.create(SPEC)
    return catalogue


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def test_details_have_every_part() -> None:
    """R82: validation and migration, and what comes after; no secret is in a status, so none is in the lines."""
    text = "\n".join(detail_lines(given.succeeded()))
    for words in ("Validation\n  Warning (2 of 7)", "Migration\n  database", "Cutover\n  fence", "Afterwards\n  warning", "Events\n"):
        assert words in text, text
    assert max(len(line) for line in detail_lines(given.following())) < 160


def test_list_and_one(record, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a name the list, with one the details, with a wrong one a status of its own."""
    assert main(["status", "--home", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("Name       Status")
    assert main(["status", "shop-2026", "--home", str(tmp_path)]) == 0
    assert "InProgress / PerformingPreRequisiteSteps" in capsys.readouterr().out
    assert main(["status", "nobody", "--home", str(tmp_path)]) == show.UNKNOWN
    assert main(["status", "nobody", "--watch", "--home", str(tmp_path)]) == show.UNKNOWN


def watched(out: t.TextIO, home: Path, change: t.Callable[[], None]) -> list[int]:
    """What ``status --watch`` gave in the end; ``change`` is made when it has shown the beginning."""
    ended: list[int] = []
    thread = threading.Thread(target=lambda: ended.append(show.main(["--home", str(home), "--watch", "--interval", "0.01"], out)))
    thread.start()
    limit = time.monotonic() + 20
    while "InProgress" not in t.cast(io.StringIO, out).getvalue() and time.monotonic() < limit:
        time.sleep(0.01)
    change()
    thread.join(timeout=20)
    return ended


def fail(record: Catalogue) -> None:
    """The migration ends."""
    record.move(SPEC.key, State.FAILED, BEGIN, {"message": "no space", "code": "PGM3001"})


def test_watch_on_a_terminal_is_redrawn_until_the_end(record, tmp_path: Path) -> None:
    """The screen is cleared and drawn anew, and the command ends when nothing is active any more."""
    out = Terminal()
    assert watched(out, tmp_path, lambda: fail(record)) == [0]
    screens = out.getvalue().split(show.CLEAR)[1:]
    assert len(screens) >= 2 and "InProgress" in screens[0] and "Failed" in screens[-1]


def test_watch_without_a_terminal_says_what_changes(record, tmp_path: Path) -> None:
    """A line a change, no control characters: fit for a log."""
    out = io.StringIO()
    assert watched(out, tmp_path, lambda: fail(record)) == [0]
    lines = out.getvalue().splitlines()
    assert "\x1b" not in out.getvalue() and len(lines) == 2
    assert "InProgress" in lines[0] and "no space" in lines[1]


def test_figures_are_those_of_the_service(record, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the service wrote last is what is shown."""
    folder = tmp_path / "migrations" / SPEC.key
    folder.mkdir(parents=True)
    (folder / "status.json").write_text(json.dumps({"progress": {"shop": given.progress()["shop"]}}), encoding="utf-8")
    main(["status", "shop-2026", "--home", str(tmp_path)])
    shown = capsys.readouterr().out
    assert "382.5 GB of 382.5 GB" in shown and "2,410,233" in shown and "0.80 s" in shown
