# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The file that leads the writers: each database where it is by now, written without a gap, with the permissions that it had."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.cutover.watchdog import FenceJournal
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import CutoverAborted
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.back import back_spec
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.catalogue import Catalogue
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.paths import MigrationPaths
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.states import State, Substate
from ansible_collections.pgops.migration.plugins.module_utils._engine.service.lead import replace, whereabouts, write_release
from ansible_collections.pgops.migration.plugins.module_utils._engine.service.sets import FACT
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import CutoverOptions, MigrationSpec

OLD, NEW = ("old", 5432), ("new", 6432)


def spec(name: str = "shop", databases: t.Sequence[str] = ("a", "b"), **more: t.Any) -> MigrationSpec:
    """From the server ``old`` to the server ``new``."""
    ends = {"source": {"host": "old", "user": "u"}, "target": {"host": "new", "port": 6432, "user": "v"}}
    return MigrationSpec.from_dict({"name": name, "databases": list(databases), "mode": "online", **ends, **more})


@pytest.fixture
def record(tmp_path: Path) -> Catalogue:
    """What the service writes to."""
    return Catalogue(tmp_path / "catalogue.db")


def places(home: Path, one: MigrationSpec, *now: str) -> dict[str, tuple[str, int]]:
    """See :func:`whereabouts`."""
    return whereabouts(MigrationPaths(home, one.key), one, now)


def test_one_after_the_other(tmp_path: Path, record: Catalogue) -> None:
    """What is not switched over stays at the source; what was, by the record or the fence's journal alone, stays at the target."""
    one = spec(databases=("a", "b", "c"))
    record.create(one)
    assert places(tmp_path, one, "b") == {"a": OLD, "b": NEW, "c": OLD}
    record.remember(one.key, switched={"b": {}})
    assert places(tmp_path, one, "a") == {"a": NEW, "b": NEW, "c": OLD}
    paths = MigrationPaths(tmp_path, one.key)
    paths.make()
    journal = FenceJournal(paths.fence)
    journal.open([{"kind": "external", "database": "c"}], 1e12)
    assert places(tmp_path, one, "a")["c"] == OLD
    journal.release()
    assert places(tmp_path, one, "a")["c"] == NEW


def test_sets_of_databases(tmp_path: Path, record: Catalogue) -> None:
    """One file for all sets: those that are over, the one at work, those to come; a rollback leads its own set back alone."""
    fact = {"name": "shop", "of": 3, "databases": ["a", "b", "c"]}
    sets = [spec(f"shop-b{number}", [name], rollback="prepared") for number, name in enumerate("abc", 1)]
    for number, one in enumerate(sets[:2], 1):
        record.create(one, {FACT: {**fact, "number": number}})
        if number == 1:
            for state, substate in (
                (State.IN_PROGRESS, Substate.MIGRATING_DATA),
                (State.IN_PROGRESS, Substate.COMPLETING_MIGRATION),
                (State.SUCCEEDED, Substate.COMPLETED),
            ):
                record.move(one.key, state, substate)
    record.remember(sets[0].key, switched={"a": {}})
    assert places(tmp_path, sets[1], "b") == {"a": NEW, "b": NEW, "c": OLD}
    record.remember(sets[1].key, switched={"b": {}})
    back = back_spec(sets[0])
    assert places(tmp_path, back, "a") == {"a": OLD, "b": NEW, "c": OLD}
    record.create(back)
    record.remember(back.key, switched={"a": {}})
    assert places(tmp_path, back_spec(sets[1]), "b") == {"a": OLD, "b": OLD, "c": OLD}


def test_written_as_the_template_says(tmp_path: Path, record: Catalogue) -> None:
    """A part for each database, again and again the same; mode and a link that leads to it stay."""
    path, link = tmp_path / "places.ini", tmp_path / "link.ini"
    path.write_text("before\n")
    path.chmod(0o664)
    link.symlink_to(path)
    options = CutoverOptions(databases=("b",), release_file=str(link), release_template="{dbname} = host={host} port={port} {{}}")
    one = spec()
    record.create(one)
    for dummy in range(2):
        assert write_release(MigrationPaths(tmp_path, one.key), one, options) == f"{link} written"
        assert path.read_text() == "a = host=old port=5432 {}\nb = host=new port=6432 {}\n"
    assert link.is_symlink() and path.stat().st_mode & 0o7777 == 0o664
    assert sorted(entry.name for entry in tmp_path.glob("*.ini*")) == ["link.ini", "places.ini"]


def test_what_cannot_be_written_is_told_and_left(tmp_path: Path, record: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the addresses that somebody has to write there by hand; no half of a file stays."""
    one, path = spec(), tmp_path / "places.ini"
    record.create(one)
    options = CutoverOptions(databases=("a", "b"), release_file=str(path), release_template="{host}")
    with pytest.raises(CutoverAborted, match="No such file") as caught:
        write_release(MigrationPaths(tmp_path, one.key), one, options)
    assert caught.value.code == "PGM5119" and "a at new:6432" in (caught.value.hint or "")
    path.write_text("before")

    def full(*dummy: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CutoverAborted, match="No space left"):
        write_release(MigrationPaths(tmp_path, one.key), one, options)
    assert path.read_text() == "before" and [*tmp_path.glob(".places*")] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owner_and_group_stay(tmp_path: Path) -> None:
    """Who reads it today reads it tomorrow."""
    path = tmp_path / "places.ini"
    path.write_text("before")
    os.chown(path, 65534, 65533)
    replace(path, "after")
    assert (path.read_text(), path.stat().st_uid, path.stat().st_gid) == ("after", 65534, 65533)
