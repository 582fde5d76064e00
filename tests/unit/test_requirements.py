# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""tests/requirements.yml names, for each requirement, the tests that prove it; this checks that they exist."""

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


@pytest.mark.parametrize("number", [number for number in NUMBERS if MAPPING.get(number, "open") != "open"])
def test_named_tests_exist(number: str) -> None:
    """The file is there and defines the function (in the class) that the node id names."""
    for node_id in node_ids(MAPPING[number]):
        path, dummy, names = node_id.partition("::")
        assert names, f"{number}: {node_id} names no test"
        found: t.Any = ast.parse((REPO / path).read_text(encoding="utf-8"))
        for name in names.split("[")[0].split("::"):
            kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
            found = next((node for node in found.body if isinstance(node, kinds) and node.name == name), None)
            assert found is not None, f"{number}: there is no {node_id}"
