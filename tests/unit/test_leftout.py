# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The list of what a base copy leaves out is what the code does: nothing is left out that it does not name, no note is told elsewhere."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot import archive, leftout

REPO = Path(__file__).resolve().parents[2]
ENGINE = REPO / "plugins" / "module_utils" / "_engine"
CODE = "\n".join(path.read_text(encoding="utf-8") for path in ENGINE.rglob("*.py"))
NAMES = {name: value for name, value in vars(leftout).items() if isinstance(value, leftout.LeftOut)}


def test_the_page_is_up_to_date() -> None:
    module = importlib.util.spec_from_file_location("leftout_table", REPO / "scripts" / "lib" / "leftout_table.py")
    assert module and module.loader
    table = importlib.util.module_from_spec(module)
    module.loader.exec_module(table)
    assert (REPO / "docs" / "leftout.md").read_text(encoding="utf-8") == table.render(), "run scripts/make-docs"


@pytest.mark.parametrize("kind", archive._KINDS)
def test_every_kind_of_entry_that_is_left_out_is_on_the_list(kind: str) -> None:
    """And no other."""
    entry = archive.Entry("", 0, 0, kind, "shop thing app", False)
    kept = archive.wanted(entry, event_triggers=False)[0]
    assert kept != any(kind in one.kinds for one in leftout.EVERYTHING)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_note_is_told(name: str) -> None:
    """A line of the page that nothing in the code says would be a promise of nothing."""
    one = NAMES[name]
    assert one.what and one.why and one in leftout.EVERYTHING
    calls = re.findall(rf"leftout\.{name}\.say\(", CODE)
    assert bool(calls) == bool(one.note), calls


def test_nothing_is_told_that_is_not_on_the_list() -> None:
    """Texts of what is left out are nowhere but in the list."""
    for path in sorted((ENGINE / "snapshot").glob("*.py")):
        if path.name == "leftout.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                text = "".join(part.value for part in node.values if isinstance(part, ast.Constant) and isinstance(part.value, str))
                assert not re.search(r"left out|which cannot give", text, re.IGNORECASE), f"{path.name}: {text}"
