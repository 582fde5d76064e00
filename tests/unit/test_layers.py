# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The layout of docs/architecture.md holds: what may import what, and that the whole engine travels to the runtime host."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._ansible import zipapp

REPO = Path(__file__).resolve().parents[2]
ENGINE = REPO / "plugins" / "module_utils" / "_engine"
ROOMS = (
    "postgres",
    "migration",
    "monitor",
    "source",
    "verify",
    "changes",
    "snapshot",
    "globals",
    "validate",
    "aftercare",
    "cutover",
    "service",
)
"""From the bottom to the top; a room may import from rooms below it and from itself."""
BASE = ("errors", "spec")
FILES = sorted(ENGINE.rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(level, dotted name) of every import in a file, those inside functions and TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module:
                yield node.level, node.module
            else:
                yield from ((node.level, alias.name) for alias in node.names)


def room_of(path: Path) -> str:
    """Name of the room, or of the file where it lies in none."""
    relative = path.relative_to(ENGINE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def target_room(path: Path, level: int, name: str) -> str:
    """The room that a relative import of a file leads to."""
    depth = len(path.relative_to(ENGINE).parts) - level
    assert depth >= 0, f"{path} imports from above the engine"
    return name.split(".")[0] if depth == 0 else room_of(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ENGINE)))
def test_engine_knows_nothing_of_ansible(path: Path) -> None:
    """No file of the engine imports Ansible, or anything by an absolute name that is not Python's own or guarded in drivers.py."""
    for level, name in imports(path):
        if level == 0:
            top = name.split(".")[0]
            allowed = top in sys.stdlib_module_names or (path.name == "drivers.py" and top in ("psycopg", "asyncpg", "msgspec"))
            assert allowed, f"{path.relative_to(REPO)} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ENGINE)))
def test_imports_point_downwards(path: Path) -> None:
    """A room imports from rooms below it only."""
    room = room_of(path)
    if room in ("cli", "__init__"):
        return
    for level, name in imports(path):
        if level == 0:
            continue
        other = target_room(path, level, name)
        if room in BASE:
            assert other in BASE, f"{path.name} imports {other}"
        elif other not in BASE:
            assert ROOMS.index(other) <= ROOMS.index(room), f"{path.relative_to(ENGINE)} imports upwards: {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ENGINE)))
def test_engine_keeps_the_rules_of_module_utils(path: Path) -> None:
    """Packages are empty, nothing prints or exits: stdout belongs to the protocol between service and children."""
    text = path.read_text(encoding="utf-8")
    if path.name == "__init__.py":
        assert text == ""
    for node in ast.walk(ast.parse(text)):
        assert not isinstance(node, ast.Assert), f"{path.name}:{node.lineno} asserts"
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in ("print", "sys.exit", "exit", "eval", "exec"), f"{path.name}:{node.lineno} calls {name}"


def test_only_python_travels() -> None:
    """AnsiballZ takes Python files only; anything else would be missing on the runtime host."""
    others = [path for path in ENGINE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    assert others == []


def test_archive_is_reproducible_and_complete(tmp_path: Path) -> None:
    """The archive has every file of the engine, and the same bytes each time."""
    content = zipapp.build()
    assert content == zipapp.build()
    path = tmp_path / "engine.pyz"
    path.write_bytes(content)
    names = set(zipfile.ZipFile(path).namelist())
    assert names == {f"{zipapp.PACKAGE}/{file.relative_to(ENGINE)}" for file in FILES} | {"__main__.py"}
    done = subprocess.run([sys.executable, str(path), "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "serve" in done.stdout, done.stderr


def run_module(home: Path, *arguments: str) -> dict[str, object]:
    """The module pg_migration_engine as Ansible runs it: packed into its payload."""
    command = [
        str(Path(sys.executable).with_name("ansible")),
        "localhost",
        "-m",
        "pgops.migration.pg_migration_engine",
        "-a",
        f"home={home}",
    ]
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(REPO / ".work" / "link"), "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1"}
    environment.update(ANSIBLE_STDOUT_CALLBACK="ansible.builtin.minimal", ANSIBLE_NOCOLOR="1", ANSIBLE_LOCALHOST_WARNING="0")
    interpreter = ["-e", f"ansible_python_interpreter={sys.executable}"]
    done = subprocess.run([*command, *interpreter, *arguments], capture_output=True, text=True, check=False, env=environment)
    assert "=> {" in done.stdout, done.stdout + done.stderr
    result: dict[str, object] = json.loads(done.stdout[done.stdout.index("=> {") + 3 :].partition("\n}")[0] + "\n}")
    return result


def test_payload_reaches_every_file(tmp_path: Path) -> None:
    """What the module writes out of its payload is what the checkout has; a second run changes nothing, a check run neither."""
    check = run_module(tmp_path, "--check")
    assert check["changed"] is True and list(tmp_path.iterdir()) == []
    first = run_module(tmp_path)
    current = tmp_path / "engine" / "current"
    assert first["changed"] is True and current.read_bytes() == zipapp.build()
    assert run_module(tmp_path)["changed"] is False
