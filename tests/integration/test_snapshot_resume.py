# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A base copy that was broken off goes on, and ends with the same database."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import typing as t
from pathlib import Path

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import CopyError
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.target import prepare_target
from copylab import Held, assert_equal, chunked, copy, fill, ledger, secrets


def test_stop_in_the_copy_and_resume_under_a_new_snapshot(
    source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Any, members: None, tmp_path: Path, owner: t.Any
) -> None:
    fill(source, source_database, owner)
    spec = chunked(spec_factory, source_database, "resume")
    prepare_target(spec, source_database)
    stop = threading.Event()

    def stop_in_the_middle(figures: dict[str, t.Any]) -> None:
        if figures.get("rows_done", 0) > 0:
            stop.set()

    first = Held(source, source_database)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.progress.INTERVAL", 0)
        slow = chunked(spec_factory, source_database, "resume", throttle=500_000)  # several seconds, so that the stop comes in between
        result = copy(slow, source_database, tmp_path, first, stop, report=stop_in_the_middle)
    assert result["stopped"] and first.closed == 0, "the next run may take it up"
    first.close()
    half = ledger(target, source_database)
    assert half and len(half) < 3 or any(lsns for lsns in half.values())

    source.execute(
        "UPDATE big SET k = k + 1; DELETE FROM bigger WHERE id % 2 = 0; INSERT INTO bigger SELECT generate_series(10001, 10100), 1, 'new'",
        source_database,
    )
    prepare_target(spec, source_database)  # accepted: ours, schema done
    second = Held(source, source_database)
    result = copy(spec, source_database, tmp_path, second)
    assert not result["stopped"]
    after = ledger(target, source_database)
    assert all(len(lsns) == 1 for lsns in after.values()), "chunks of one table from two snapshots"
    assert second.consistent_point in after['"public"."bigger"'] | after['"public"."big"']
    third = copy(spec, source_database, tmp_path, Held(source, source_database))
    assert third["tables"] == [], "nothing was left to copy"
    finished = [name for name, lsns in after.items() if lsns == {second.consistent_point}]
    if len(finished) == 3:
        assert_equal(source, target, source_database)


KILLED = """
import json, sys, threading
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot import relay
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.basecopy import BaseCopy, CopyJob
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
told = json.load(sys.stdin)
job = CopyJob(MigrationSpec.from_dict(told["spec"]), told["database"], Path(told["workdir"]), told["snapshot"], told["lsn"])
BaseCopy(job, lambda figures: print(json.dumps(figures), flush=True), lambda: None, threading.Event()).run()
"""


@pytest.mark.parametrize("at", ["schema", "copy", "rows", "indexes", "constraints", "finish"])
def test_killed_and_run_again(
    at: str, source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Any, members: None, tmp_path: Path, owner: t.Any
) -> None:
    """SIGKILL at each step: the next run, under another snapshot, ends with the same database."""
    fill(source, source_database, owner)
    spec = chunked(spec_factory, source_database, "killed")
    prepare_target(spec, source_database)
    first = Held(source, source_database)
    public = {**spec.public(), **secrets(spec)}
    told = {
        "spec": public,
        "database": source_database,
        "workdir": str(tmp_path),
        "snapshot": first.snapshot,
        "lsn": first.consistent_point,
    }
    root = next(entry for entry in sys.path if entry.endswith("link"))
    with subprocess.Popen([sys.executable, "-c", KILLED, root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin and child.stdout
        child.stdin.write(json.dumps(told))
        child.stdin.close()
        for line in child.stdout:
            figures = json.loads(line)
            if figures.get("step") == at or (at == "rows" and figures.get("rows_done")):
                break
        child.kill()
    first.close()
    prepare_target(spec, source_database)
    copy(spec, source_database, tmp_path, Held(source, source_database))
    assert_equal(source, target, source_database)


def test_truncated_table_gets_another_snapshot(
    source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Any, members: None, tmp_path: Path, owner: t.Any
) -> None:
    fill(source, source_database, owner)
    spec = chunked(spec_factory, source_database, "renewed")
    prepare_target(spec, source_database)
    held = Held(source, source_database)
    source.execute("TRUNCATE small; INSERT INTO small VALUES (1)", source_database)
    made: list[Held] = []

    def renew() -> Held:
        made.append(Held(source, source_database))
        return made[-1]

    with pytest.raises(CopyError, match="emptied or rewritten") as caught:
        copy(spec, source_database, tmp_path, held)
    assert caught.value.code == "PGM3009" and "public.small" in str(caught.value)
    held = Held(source, source_database)
    source.execute("TRUNCATE small; INSERT INTO small VALUES (2)", source_database)
    result = copy(spec, source_database, tmp_path, held, renew=renew)
    assert len(made) == 1 and made[0].closed == 1 and held.closed == 1
    assert ledger(target, source_database)['"public"."small"'] == {made[0].consistent_point}
    assert any("small" in note for note in result["notes"])
    assert_equal(source, target, source_database)


def test_lost_snapshot(
    source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Any, tmp_path: Path, owner: t.Any, members: None
) -> None:
    fill(source, source_database, owner)
    spec = chunked(spec_factory, source_database, "lost")
    prepare_target(spec, source_database)
    held = Held(source, source_database)
    held.conn.close()
    with pytest.raises(CopyError) as caught:
        copy(spec, source_database, tmp_path, held)
    assert caught.value.code == "PGM3008"
    copy(spec, source_database, tmp_path, Held(source, source_database))
    assert_equal(source, target, source_database)
