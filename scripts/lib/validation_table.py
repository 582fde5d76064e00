# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Writes ``docs/validation.md`` from the registry of checks."""

from __future__ import annotations

import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PAGE = REPO / "docs" / "validation.md"

HEAD = """\
# What is validated

`pg_migration_validate` (playbook `pgops.migration.validate`, and the first step of `option: validate_and_migrate`) looks at both servers
through the runtime host and writes to neither. A finding is *Succeeded*, *Warning* or *Failed*; a migration starts when none has failed.
Each finding that is not *Succeeded* carries a fix: a statement or command, who may run it, and whether a restart follows.

The column *Azure* gives the public code of the Azure migration service where it has one for the same matter. *Worst* is the worst
that a check can yield. Checks marked *online* are left out in offline mode. This page is written by `scripts/make-docs`.

| code | Azure | check | looks at | worst | fix |
|---|---|---|---|---|---|
"""


def _cell(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


def render() -> str:
    """The page as it should be."""
    from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.registry import CHECKS
    from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.runner import OUTSIDE_REGISTRY

    rows = [(code, "", name, worst, remedy, purpose, "") for code, (name, worst, remedy, purpose) in OUTSIDE_REGISTRY.items()]
    for c in CHECKS.values():
        where = f"{c.scope}, {c.side}" + (", online" if c.online else "")
        rows.append((c.code, c.azure_code, c.name, c.worst, c.remedy, c.purpose, where))
    lines = []
    for code, azure, name, worst, remedy, purpose, where in sorted(rows):
        about = _cell(purpose) + (f" *({where})*" if where else "")
        lines.append(f"| {code} | {azure} | {_cell(name)} | {about} | {worst} | {_cell(remedy)} |")
    return HEAD + "\n".join(lines) + "\n"


def main() -> int:
    """Write the page."""
    sys.path.insert(0, str(REPO / "tests"))
    import conftest  # noqa: F401

    PAGE.write_text(render(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
