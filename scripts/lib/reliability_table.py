# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Writes ``docs/reliability.md`` from ``tests/reliability.yml`` and the results of the last run of the integration tests."""

from __future__ import annotations

import sys
import typing as t
import xml.etree.ElementTree as ET
from pathlib import Path

import yaml

REPO = Path(__file__).resolve().parents[2]
FAULTS = REPO / "tests" / "reliability.yml"
RESULTS = REPO / ".work" / "test" / "integration.xml"
PAGE = REPO / "docs" / "reliability.md"
HEAD = """\
# What may go wrong, and how it ends

Each row is made to happen on real servers by the tests it names, under writers where that matters, and every row of both sides is
compared afterwards. *Observed* is what the last run of `scripts/test --only integration` found. This page is written by
`scripts/make-docs --reliability`.

| fault | end | observed | tests |
|---|---|---|---|
"""


class Fault(t.NamedTuple):
    """One row: what is done, how it is to end, and the node ids of its tests."""

    fault: str
    end: str
    tests: list[str]


def faults() -> list[Fault]:
    """All that are known."""
    return [Fault(**one) for one in yaml.safe_load(FAULTS.read_text(encoding="utf-8"))]


def outcomes(path: Path) -> dict[str, list[bool]]:
    """For each test function ``FILE::NAME`` whether each of its runs passed; skipped ones are left out."""
    found: dict[str, list[bool]] = {}
    for case in ET.parse(path).getroot().iter("testcase"):
        if case.find("skipped") is None:
            name = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name', '').partition('[')[0]}"
            found.setdefault(name, []).append(case.find("failure") is None and case.find("error") is None)
    return found


def render(results: dict[str, list[bool]]) -> str:
    """The page."""
    lines = []
    for fault in faults():
        runs = [passed for test in fault.tests for passed in results.get(test, [])]
        observed = "not run" if not runs else "as expected" if all(runs) else f"{runs.count(False)} of {len(runs)} FAILED"
        names = ", ".join(f"`{test.partition('integration/')[2]}`" for test in fault.tests)
        lines.append(f"| {fault.fault} | {fault.end} | {observed} ({len(runs)} runs) | {names} |")
    return HEAD + "\n".join(lines) + "\n"


def main() -> int:
    """Write the page."""
    PAGE.write_text(render(outcomes(RESULTS)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
