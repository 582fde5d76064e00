# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Every code that the code can raise is explained once, and no page explains one that there is not."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
CODE = re.compile(r"PGM\d{4}")
VALIDATION, TROUBLE = REPO / "docs" / "validation.md", REPO / "docs" / "troubleshooting.md"


@functools.cache
def raised() -> frozenset[str]:
    """Each string of the plugins that is a code and nothing else."""
    return frozenset(
        node.value
        for path in (REPO / "plugins").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value)
    )


def explained(page: Path) -> list[str]:
    """The codes in the first column of a page's tables."""
    return [
        code for cell in re.findall(r"^\| (PGM[^|]*) \|", page.read_text(encoding="utf-8"), re.MULTILINE) for code in CODE.findall(cell)
    ]


def test_every_code_is_explained_once() -> None:
    """Those of the validation on its page, which is generated, all others on that for troubles; in order."""
    for page, belongs in ((VALIDATION, True), (TROUBLE, False)):
        codes = explained(page)
        assert codes == sorted(set(codes)), page.name
        assert set(codes) == {code for code in raised() if code.startswith("PGM2") == belongs}, page.name


def test_every_row_says_what_to_do() -> None:
    """Code, meaning and remedy."""
    for row in re.findall(r"^\| PGM.*$", TROUBLE.read_text(encoding="utf-8"), re.MULTILINE):
        assert [cell.strip() for cell in row.split(" | ")][2].strip(" |"), row


TEXTS = [
    path
    for folder, pattern in (("docs", "**/*.md"), ("docs", "**/*.rst"), ("plugins", "**/*.py"), ("roles", "**/*.yml"), (".", "*.md"))
    for path in sorted((REPO / folder).glob(pattern))
]


@pytest.mark.parametrize("page", [path for path in TEXTS if CODE.search(path.read_text(encoding="utf-8"))], ids=lambda path: path.name)
def test_no_text_names_a_code_that_there_is_not(page: Path) -> None:
    """Pages, docstrings, samples of results."""
    assert set(CODE.findall(page.read_text(encoding="utf-8"))) <= raised()
