# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The ansible-core of this environment reads everything: the syntax of each playbook, the documentation of each module and role. The stage
``oldest`` of scripts/test asks the oldest one that ``meta/runtime.yml`` allows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
PLAYBOOKS = sorted(path.stem for path in (REPO / "playbooks").glob("*.yml"))
MODULES = sorted(path.stem for path in (REPO / "plugins" / "modules").glob("*.py"))
ROLES = sorted(path.name for path in (REPO / "roles").iterdir())


def ansible(program: str, *arguments: str) -> str:
    """What a program of this environment's ansible-core says, if it ends well and without a warning."""
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(REPO / ".work" / "link"), "ANSIBLE_LOCALHOST_WARNING": "0"}
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_playbooks_are_understood(playbook: str) -> None:
    """``ansible-playbook --syntax-check``, with roles and modules found by the name of the collection."""
    assert f"playbooks/{playbook}.yml" in ansible("ansible-playbook", "--syntax-check", "-i", "localhost,", f"pgops.migration.{playbook}")


@pytest.mark.parametrize(("kind", "names"), [("module", MODULES), ("role", ROLES)])
def test_documentation_is_read(kind: str, names: list[str]) -> None:
    """``ansible-doc`` of all: none is left out, each has a description of its options."""
    wanted = [f"pgops.migration.{name}" for name in names]
    found = json.loads(ansible("ansible-doc", "-t", kind, "--json", *wanted))
    assert sorted(found) == wanted
    for name, doc in found.items():
        entries = doc["entry_points"].values() if kind == "role" else [doc["doc"]]
        assert all(entry["short_description"] for entry in entries), name
