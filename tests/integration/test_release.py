# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The collection as it is released: built, installed where nothing else is, and a whole migration played from that alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import servers as lab
from host import end_services
from pair import describe, make_target
from plays import REPO, Playbooks
from rows import differences

WORK = {"meta", "playbooks", "plugins", "roles"}
PAPERS = {"CHANGELOG.md", "CHANGELOG.rst", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "COPYING", "LICENSES", "MAINTAINERS", "README.md",
          "SECURITY.md", "changelogs", "docs", "examples"}  # fmt: skip
LISTS = {"FILES.json", "MANIFEST.json"}
"""What ``ansible-galaxy`` adds."""


@pytest.fixture(scope="module")
def target() -> t.Iterator[lab.Server]:
    """A target of this module's own: migrations leave roles and memberships on it."""
    server = make_target()
    yield server
    server.drop()


def galaxy(folder: Path, *arguments: str) -> None:
    """``ansible-galaxy collection ...``, to end well."""
    command = [str(Path(sys.executable).with_name("ansible-galaxy")), "collection", *arguments]
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=REPO, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collections path that holds what was built of this checkout, and nothing else."""
    built, path = tmp_path_factory.mktemp("built"), tmp_path_factory.mktemp("collections")
    galaxy(path, "build", "--output-path", str(built))
    (archive,) = built.glob("pgops-migration-*.tar.gz")
    galaxy(path, "install", "--offline", "--collections-path", str(path), str(archive))
    return path


def test_what_is_in_it(installed: Path) -> None:
    """What runs, what is read, what Galaxy wants; no test, no script, no setting of a tool, no link that leads elsewhere."""
    collection = installed / "ansible_collections" / "pgops" / "migration"
    assert {path.name for path in collection.iterdir()} == WORK | PAPERS | LISTS
    assert [path for path in collection.rglob("*") if path.is_symlink() or path.suffix in (".pyc", ".orig", ".rej")] == []


def test_a_migration_from_the_artifact_alone(installed, source, target, owner, source_database, tmp_path) -> None:
    """Every step of the guide with nothing but what runs, from a folder elsewhere; what is played again changes nothing."""
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute("CREATE TABLE item (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text)")
        conn.execute("INSERT INTO item (name) SELECT 'item ' || i FROM generate_series(1, 500) i")
    alone = tmp_path / "collections"
    collection = Path("ansible_collections", "pgops", "migration")
    for name in WORK:
        shutil.copytree(installed / collection / name, alone / collection / name)
    one = Playbooks(tmp_path, describe(source, target, "released", [source_database]), alone)
    steps = ("provision_runtime", "validate", "migrate", "status", "cutover", "verify")
    try:
        said = {}
        for name in steps:
            if name == "verify":  # the cutover took back what the migration's user was lent; the hint of PGM6001 says what helps
                target.execute("GRANT pg_read_all_data TO admin")
            said[name] = one.play(name, "-v").fine()
        assert said["provision_runtime"].changed > 0 and "WaitingForCutoverTrigger" in said["migrate"].text
        assert "Succeeded" in said["cutover"].text and "equal" in said["verify"].text
        with source.connect(source_database) as left, target.connect(source_database) as right:
            assert differences(left, right) == {}
        # not those that only look: a validation would find that the target has the database by now
        again = {name: one.play(name, "-v").fine() for name in steps if name not in ("validate", "status")}
        assert said["validate"].changed == said["status"].changed == 0 and [name for name, run in again.items() if run.changed] == []
        assert one.play("cleanup").fine().changed > 0
        assert one.play("cleanup").fine().changed == 0
        assert source.execute("SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'pgm%'") == []
        for run in (*said.values(), *again.values()):
            assert str(REPO / "plugins") not in run.text and str(REPO / "roles") not in run.text
            assert str(REPO / ".work" / "link") not in run.text
    finally:
        end_services(one.home)
