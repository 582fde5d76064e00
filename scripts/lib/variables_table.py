# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Writes ``docs/variables.md`` from the argument specifications of the roles."""

from __future__ import annotations

import re
import sys
import typing as t
from pathlib import Path

import yaml

REPO = Path(__file__).resolve().parents[2]
PAGE = REPO / "docs" / "variables.md"
ROLES = {
    "pg_migration_runtime": "The runtime host (playbook `provision_runtime`, and the beginning of every other one)",
    "pg_migration_source": "The source (playbook `prepare_source`)",
    "pg_migration_run": "The migration (all other playbooks)",
}
HEAD = """\
# Variables of the roles

What can be set beside [the migration itself](inventory.md): in the inventory, or with `-e`. All are optional. A default of *(computed)*
is made of other variables, see `roles/*/defaults/main.yml`. This page is written by `scripts/make-docs` from
`roles/*/meta/argument_specs.yml`.
"""
MARKS = (
    (r"C\((.*?)\)", r"`\1`"),
    (r"V\((.*?)\)", r"`\1`"),
    (r"O\((.*?)\)", r"`\1`"),
    (r"[MP]\((?:pgops\.migration\.)?(.*?)(?:#\w+)?\)", r"`\1`"),
)
"""Ansible's marks of text, and what Markdown has for them."""


def variables(role: str) -> dict[str, dict[str, t.Any]]:
    """Name to specification of all variables of a role, but the migration."""
    specs = yaml.safe_load((REPO / "roles" / role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]
    return {name: spec for entry in specs.values() for name, spec in entry["options"].items() if name != "pg_migration"}


def _text(spec: dict[str, t.Any]) -> str:
    said = spec["description"] if isinstance(spec["description"], str) else " ".join(spec["description"])
    for pattern, shown in MARKS:
        said = re.sub(pattern, shown, said)
    choices = f" One of {', '.join(f'`{choice}`' for choice in spec['choices'])}." if "choices" in spec else ""
    return (said + choices).replace("|", "\\|")


def _default(spec: dict[str, t.Any], value: t.Any) -> str:
    if "default" in spec:
        value = spec["default"]
    elif value is None or isinstance(value, str) and "{{" in value:
        return "*(computed)*"
    if value in ("", [], {}):
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def render() -> str:
    """The page as it should be."""
    lines = [HEAD]
    for role, title in ROLES.items():
        values = yaml.safe_load((REPO / "roles" / role / "defaults" / "main.yml").read_text(encoding="utf-8"))
        lines += [f"## {title}\n", "| variable | type | default | meaning |", "|---|---|---|---|"]
        for name, spec in sorted(variables(role).items()):
            lines.append(f"| `{name}` | {spec['type']} | {_default(spec, values.get(name))} | {_text(spec)} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """Write the page."""
    PAGE.write_text(render(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
