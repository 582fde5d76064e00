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
Each finding that is not *Succeeded* carries a fix: a statement or command (`fix`), who may run it (`who`),
and whether the server must be restarted for it (`restart`).

`who` is one of: *superuser on the source*, *server administrator (provider console)*, *owner of the object*, *administrator of the
target*, *operator of the runtime host*, *author of the playbook*. The columns give what holds for most findings of a check; a finding may
say otherwise. A source of a provider has no superuser for its customer: there it is the provider's console; on a server of one's own the
console is the superuser's (source) or the administrator's (target).

The column *Azure* gives the public code of the Azure migration service where it has one for the same matter. *Worst* is the worst
that a check can yield. Checks marked *online* are left out in offline mode. This page is written by `scripts/make-docs`.

| code | Azure | check | looks at | worst | fix | who | restart |
|---|---|---|---|---|---|---|---|
"""


def _cell(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


def render() -> str:
    """The page as it should be."""
    from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.registry import CHECKS
    from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.runner import OUTSIDE_REGISTRY

    rows = [
        (code, "", name, worst, remedy, purpose, "", who, False) for code, (name, worst, remedy, who, purpose) in OUTSIDE_REGISTRY.items()
    ]
    for c in CHECKS.values():
        where = f"{c.scope}, {c.side}" + (", online" if c.online else "")
        rows.append((c.code, c.azure_code, c.name, c.worst, c.remedy, c.purpose, where, c.who, c.restart))
    lines = []
    for code, azure, name, worst, remedy, purpose, where, who, restart in sorted(rows):
        about = _cell(purpose) + (f" *({where})*" if where else "")
        lines.append(f"| {code} | {azure} | {_cell(name)} | {about} | {worst} | {_cell(remedy)} | {who} | {'yes' if restart else 'no'} |")
    return HEAD + "\n".join(lines) + "\n"


def main() -> int:
    """Write the page."""
    sys.path.insert(0, str(REPO / "tests"))
    import conftest  # noqa: F401

    PAGE.write_text(render(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
