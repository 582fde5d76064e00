# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Writes ``docs/reliability.md`` from ``tests/reliability.yml`` and the results of the last runs of the tests."""

from __future__ import annotations

import sys
import typing as t

import yaml
from results import REPO, Run, runs

FAULTS = REPO / "tests" / "reliability.yml"
PAGE = REPO / "docs" / "reliability.md"
HEAD = """\
# What may go wrong, and how it ends

Each row is made to happen on real servers by the tests it names, under writers where that matters, and every row of both sides is
compared afterwards. *Observed* is what the last run of `scripts/test --only integration --only hosts` found. This page is written by
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


def render(found: list[Run]) -> str:
    """The page."""
    lines = []
    for fault in faults():
        passed = [run.passed for run in found if run.test in fault.tests]
        observed = "not run" if not passed else "as expected" if all(passed) else f"{passed.count(False)} of {len(passed)} FAILED"
        names = ", ".join(f"`{test.removeprefix('tests/').removeprefix('integration/')}`" for test in fault.tests)
        lines.append(f"| {fault.fault} | {fault.end} | {observed} ({len(passed)} runs) | {names} |")
    return HEAD + "\n".join(lines) + "\n"


def main() -> int:
    """Write the page."""
    PAGE.write_text(render(runs()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
