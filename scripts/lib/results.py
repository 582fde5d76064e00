# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What the last runs of ``scripts/test`` found, out of the files that pytest wrote."""

from __future__ import annotations

import typing as t
import xml.etree.ElementTree as ET
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
FILES = [REPO / ".work" / "test" / f"{stage}.xml" for stage in ("integration", "hosts")]


class Run(t.NamedTuple):
    """One run of a test: its function as ``FILE::NAME``, the id of its parameters (may be empty), and whether it passed."""

    test: str
    case: str
    passed: bool


def runs() -> list[Run]:
    """All of the stages that were run; tests that were skipped are left out."""
    return [run for path in FILES if path.exists() for run in _read(path)]


def _read(path: Path) -> t.Iterator[Run]:
    for case in ET.parse(path).getroot().iter("testcase"):
        if case.find("skipped") is None:
            name, dummy, parameters = case.get("name", "").partition("[")
            file = case.get("classname", "").replace(".", "/")
            passed = case.find("failure") is None and case.find("error") is None
            yield Run(f"{file}.py::{name}", parameters.removesuffix("]"), passed)
