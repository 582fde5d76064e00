# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""``--check --diff`` of every module foretells what the real run then does: a whole migration, module by module, on real servers.

``pg_configure_cdc`` and ``pg_migrate_globals``, which work on the servers alone, have this in their own tests.
"""

from __future__ import annotations

import json
import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest
import servers as lab
from host import end_services
from pair import describe, make_target
from tasks import Outcome, as_checked, changes_in, run_module

SOURCE = "SELECT slot_name FROM pg_replication_slots UNION ALL SELECT pubname FROM pg_publication"
TARGET = "SELECT datname FROM pg_database UNION ALL SELECT rolname FROM pg_roles ORDER BY 1"


@pytest.fixture
def target() -> Iterator[lab.Server]:
    """A target of this test's own: roles are counted on it."""
    server = make_target()
    yield server
    server.drop()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Where the runtime host keeps its things."""
    place = tmp_path / "home"
    (place / "engine").mkdir(parents=True)
    yield place
    end_services(place)


def test_a_whole_migration_module_by_module(source, target, owner, source_database, home, tmp_path) -> None:
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute("CREATE TABLE item (id int PRIMARY KEY, n int); INSERT INTO item SELECT i, i FROM generate_series(1, 500) i")
        conn.execute("CREATE PUBLICATION theirs")
    host = {"home": str(home), "supervisor": "process"}
    migration = describe(source, target, "foretold", [source_database], changes={"plugin": "pgoutput", "heartbeat": 0.3}, **host)
    ends = {side: migration[side] for side in ("source", "target")}

    def seen() -> tuple[t.Any, ...]:
        """What check mode must leave as it is on the servers."""
        return source.execute(SOURCE, source_database), target.execute(TARGET)

    def only_told(called: str, /, **arguments: t.Any) -> Outcome:
        before = seen()
        with changes_in(tmp_path) as changed:  # the service is at work in the same place
            told = run_module(called, check=True, **arguments).fine()
        assert (seen(), changed) == (before, []), called
        return told

    def foretold(called: str, /, **arguments: t.Any) -> Outcome:
        told = only_told(called, **arguments)
        done = run_module(called, **arguments).fine()
        assert (told.changed, told.result.get("diff")) == (done.changed, done.result.get("diff")), called
        return done

    assert as_checked("pg_migration_engine", home=str(home)).changed

    report = {"report_dir": str(tmp_path / "reports")}
    told = only_told("pg_migration_validate", **migration, **report, fail_on="never")
    done = run_module("pg_migration_validate", **migration, **report, fail_on="never").fine()
    picked = [[(f["code"], f["severity"], f["database"]) for f in one.result["report"]["findings"]] for one in (told, done)]
    assert picked[0] == picked[1] and len(picked[0]) > 50 and told.changed == done.changed
    assert not run_module("pg_migration_validate", **migration, fail_on="never").fine().changed

    first = foretold("pg_snapshot_copy", **migration, wait_timeout=120)
    assert first.changed
    account = first.result["copied"][source_database]
    (item,) = account["tables"]
    assert (item["table"], item["rows"], item["format"], item["chunks"]) == ("public.item", 500, "binary", 1)
    assert item["seconds"] > 0 and item["rate"] == pytest.approx(item["bytes"] / item["seconds"], rel=0.01)
    assert (account["count"], account["rows"], account["bytes"]) == (1, 500, item["bytes"])
    assert json.loads(Path(account["file"]).read_text(encoding="utf-8")) == [item]
    again = foretold("pg_snapshot_copy", **migration, wait_timeout=120)
    assert not again.changed and again.result["copied"] == first.result["copied"], "again"
    assert foretold("pg_cdc_stream", **migration, state="stopped", wait_timeout=60).changed
    assert foretold("pg_cdc_stream", **migration, state="started", wait_timeout=60).changed
    assert not foretold("pg_cdc_stream", **migration, wait_for={"latency_seconds": 5}, wait_timeout=60).changed
    assert not foretold("pg_migration_verify", **migration).changed
    assert not foretold("pg_migration_info", **host).changed
    shown = run_module("pg_migration_info", **host, name="foretold", output=["html"]).fine().result
    note = f"{source_database}: Publication theirs was left out: replication is set up anew on the target."
    assert shown["note_lines"] == [note], "also after the service was stopped and started"
    assert [event["text"] for event in shown["details"]["events"]].count(note) == 1
    assert f"  {note}" in shown["detail_lines"] and "Publication theirs was left out" in shown["rendered"]["html"]

    assert foretold("pg_cutover", **migration, wait_timeout=120).changed
    assert not foretold("pg_cutover", **migration, wait_timeout=120).changed, "again"
    assert run_module("pg_snapshot_copy", **migration).fine().result["copied"] == first.result["copied"], "when all is over, too"
    assert foretold("pg_migration_cleanup", **ends, **host).changed in (True, False)
    assert not foretold("pg_migration_cleanup", **ends, **host).changed, "again"
    assert target.execute("SELECT count(*) FROM item", source_database) == [(500,)]

    target.drop_database(source_database)
    migration["name"] = "given-up"
    assert run_module("pg_snapshot_copy", **migration, wait_timeout=120).fine().result["reached"]
    gone = foretold("pg_cdc_stream", **migration, state="absent", drop_target=True)
    assert gone.changed and gone.result["dropped"] == [source_database]
    assert not foretold("pg_cdc_stream", **migration, state="absent", drop_target=True).changed, "again"
