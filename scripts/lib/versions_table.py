# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Writes ``docs/versions.md``: which pairs of major versions the last run of the integration tests has tried, and what it found."""

from __future__ import annotations

import sys

from results import REPO, Run, runs

PAGE = REPO / "docs" / "versions.md"
FILE = "tests/integration/test_versions.py"
MAJORS = range(10, 19)
SSH = "tests/hosts/test_majors.py"
KINDS = {f"{FILE}::test_stream": "stream", f"{FILE}::test_migration": "whole", f"{SSH}::test_migration_by_ssh": "by SSH"}
HEAD = f"""\
# Which versions were tried with which

A source may be PostgreSQL 10 to 18, a target any of at least the same major. Each pair below is two real servers of `{FILE}`,
which `scripts/test --full` runs with servers of every major (`scripts/majors`; those have no wal2json). This page is written by
`scripts/make-docs --versions` from the results of the last run.

* **stream**: the corpus of changes (`tests/corpus/`: every kind of key, type, transaction and name that was ever a trouble) is streamed by
  the plugin that the collection finds, drained to a marker, and every row of both sides is compared.
* **whole**: validated, schema and rows copied, the corpus streamed, cut over, every row compared.
* **by SSH**: the playbooks, from bare hosts with servers as Debian's tools make them to the cutover (`{SSH}`).

Each pair is streamed once; whole migrations, which take several times as long, go from each version to itself and to the newest. *not run*
is a pair that the last run left out; an empty place is a target older than its source, which is refused (PGM2011). What every other test
shows, it shows from 15 to 15.

From a source before 11, `TRUNCATE` is not in the stream and ends it (PGM4050): `test_what_a_source_before_11_does_not_stream`.

"""


def cell(source: int, target: int, found: list[Run]) -> str:
    """What is known of one pair."""
    if target < source:
        return ""
    here = [(kind, run.passed) for run in found for test, kind in KINDS.items() if (run.test, run.case) == (test, f"{source}-{target}")]
    return ", ".join(kind if passed else f"{kind} FAILED" for kind, passed in here) or "not run"


def render(found: list[Run]) -> str:
    """The page."""
    lines = ["| source \\ target | " + " | ".join(map(str, MAJORS)) + " |", "|---" * (len(MAJORS) + 1) + "|"]
    lines += [f"| **{source}** | " + " | ".join(cell(source, target, found) for target in MAJORS) + " |" for source in MAJORS]
    return HEAD + "\n".join(lines) + "\n"


def main() -> int:
    """Write the page."""
    PAGE.write_text(render(runs()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
