# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""tests/requirements.yml names, for each requirement, the tests that prove it, tests/reliability.yml those of each fault; this checks that
they exist."""

from __future__ import annotations

import ast
import typing as t
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).resolve().parents[2]
NUMBERS = [f"R{n}" for n in range(1, 120)] + [f"B{n}" for n in range(1, 21)]
MAPPING: dict[str, t.Any] = yaml.safe_load((REPO / "tests" / "requirements.yml").read_text(encoding="utf-8"))


def node_ids(value: t.Any) -> list[str]:
    """The test node ids that a value of the file names."""
    if value == "open":
        return []
    return [value] if isinstance(value, str) else list(value)


def test_every_number_is_there() -> None:
    """R1 to R119 and B1 to B20, each once, in order, and nothing else."""
    assert list(MAPPING) == NUMBERS


def missing(node_id: str) -> str:
    """What of a node id does not exist: the file has to define the function (in the class) that it names."""
    path, dummy, names = node_id.partition("::")
    if not names or not (REPO / path).is_file():
        return node_id
    found: t.Any = ast.parse((REPO / path).read_text(encoding="utf-8"))
    for name in names.split("[")[0].split("::"):
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        found = next((node for node in found.body if isinstance(node, kinds) and node.name == name), None)
        if found is None:
            return node_id
    return ""


@pytest.mark.parametrize("number", [number for number in NUMBERS if MAPPING.get(number, "open") != "open"])
def test_named_tests_exist(number: str) -> None:
    """Each node id of a requirement."""
    assert [node_id for node_id in node_ids(MAPPING[number]) if missing(node_id)] == []


def test_faults_have_tests_and_a_row() -> None:
    """Each fault names tests that exist, and the page has it with nothing but good ends."""
    page = (REPO / "docs" / "reliability.md").read_text(encoding="utf-8")
    for fault in yaml.safe_load((REPO / "tests" / "reliability.yml").read_text(encoding="utf-8")):
        assert fault["tests"] and [node_id for node_id in fault["tests"] if missing(node_id)] == []
        assert f"| {fault['fault']} | {fault['end']} | as expected (" in page, f"{fault['fault']}: run scripts/make-docs --reliability"
