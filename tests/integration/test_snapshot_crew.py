# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Relays in processes of their own: the same rows, errors, restraint and end as relays in the worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import CopyError
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.target import prepare_target
from copylab import Held, assert_equal, chunked, copy, fill, ledger, rows
from waits import until

HOST = "import sys; sys.path.insert(0, sys.argv[1]); from ansible_collections.pgops.migration.plugins.module_utils._engine.cli import main"


def command(name: str) -> tuple[str, ...]:
    """The argv of a process of relays out of the checkout; ``name`` to find it by."""
    root = next(entry for entry in sys.path if entry.endswith("link"))
    return (sys.executable, "-c", f"{HOST}; main(sys.argv[2:])", root, "relay", "--home", "/", "--migration", name)


def running(name: str) -> list[int]:
    """Process ids of those with ``name``."""
    found = subprocess.run(["pgrep", "-f", f"relay --home / --migration {name}"], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def test_two_processes(source: lab.Server, target: lab.Server, source_database, spec_factory, members, tmp_path: Path, owner) -> None:
    """The copy is the same, both have worked, and nothing of them is left."""
    fill(source, source_database, owner)
    spec = chunked(spec_factory, source_database, "crew", jobs=4, processes=2)
    prepare_target(spec, source_database)
    seen: set[int] = set()
    reports: list[dict[str, t.Any]] = []

    def report(figures: dict[str, t.Any]) -> None:
        reports.append(figures)
        seen.update(running(source_database))

    result = copy(spec, source_database, tmp_path, Held(source, source_database), report=report, relay_command=command(source_database))
    assert_equal(source, target, source_database)
    assert any(figures.get("relay_processes") == 2 for figures in reports) and not running(source_database)
    moved = max(figures.get("bytes_moved", 0) for figures in reports)
    assert moved == sum(table["bytes"] for table in result["tables"]) > 3_000_000


def test_a_killed_process_costs_its_units_alone(
    source: lab.Server, target: lab.Server, source_database, spec_factory, members, tmp_path: Path, owner
) -> None:
    """Its sessions are rolled back, another one is started, and the copy goes on."""
    fill(source, source_database, owner)
    spec = chunked(spec_factory, source_database, "crewkill", jobs=2, processes=2)
    prepare_target(spec, source_database)
    killed: list[int] = []

    def kill(figures: dict[str, t.Any]) -> None:
        if not killed and figures.get("rows_done"):
            killed.extend(running(source_database)[:1])
            os.kill(killed[0], signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.progress.INTERVAL", 0)
        result = copy(spec, source_database, tmp_path, Held(source, source_database), report=kill, relay_command=command(source_database))
    assert killed and not result["stopped"]
    assert_equal(source, target, source_database)
    assert not running(source_database)


def test_errors_and_renewals_come_through(
    source: lab.Server, target: lab.Server, source_database, spec_factory, members, tmp_path: Path, owner
) -> None:
    """A table that was emptied since the snapshot gets another one, and what a server refuses is told as by relays in the worker."""
    fill(source, source_database, owner)
    spec = chunked(spec_factory, source_database, "crewerr", jobs=2, processes=2)
    prepare_target(spec, source_database)
    made: list[Held] = []

    def renew() -> Held:
        made.append(Held(source, source_database))
        return made[-1]

    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute("ALTER TABLE bigger ENABLE ROW LEVEL SECURITY; ALTER TABLE bigger FORCE ROW LEVEL SECURITY")
    with pytest.raises(CopyError, match="bigger") as caught:
        copy(spec, source_database, tmp_path, Held(source, source_database), renew=renew, relay_command=command(source_database))
    assert (caught.value.code, caught.value.sqlstate) == ("PGM3011", "42501") and not running(source_database)
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute("ALTER TABLE bigger NO FORCE ROW LEVEL SECURITY; ALTER TABLE bigger DISABLE ROW LEVEL SECURITY")
    held = Held(source, source_database)
    source.execute("TRUNCATE small; INSERT INTO small VALUES (2)", source_database)
    copy(spec, source_database, tmp_path, held, renew=renew, relay_command=command(source_database))
    assert len(made) == 1 and ledger(target, source_database)['"public"."small"'] == {made[0].consistent_point}
    assert rows(source, source_database) == {k: v for k, v in rows(target, source_database).items() if "pgm_migration" not in k}


def test_restraint_and_stop(source: lab.Server, source_database, spec_factory, members, tmp_path: Path, owner) -> None:
    """The worker's pressure reaches them, and when it is told to stop they are gone."""
    fill(source, source_database, owner)
    spec = chunked(spec_factory, source_database, "crewstop", jobs=2, processes=2)
    prepare_target(spec, source_database)
    stop = threading.Event()
    figures: dict[str, t.Any] = {}
    result: list[dict[str, t.Any]] = []
    options: dict[str, t.Any] = {"report": figures.update, "pressure": lambda: 1.0, "relay_command": command(source_database)}

    def work() -> None:
        result.append(copy(spec, source_database, tmp_path, Held(source, source_database), stop, **options))

    thread = threading.Thread(target=work)
    thread.start()
    until(lambda: len(running(source_database)) == 2, "two processes")
    time.sleep(1.5)  # nothing happens in it
    assert int(figures.get("bytes_moved", 0)) <= 2 * 8 * (256 << 10) and not result, "no row may move but what was under way"
    stop.set()
    thread.join(60)
    assert result and result[0]["stopped"] and not running(source_database)
