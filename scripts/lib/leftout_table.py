# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Writes ``docs/leftout.md`` from the engine's own list and the profiles of servers."""

from __future__ import annotations

import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PAGE = REPO / "docs" / "leftout.md"

HEAD = """\
# What a base copy leaves out or adapts

Everything else of a database comes over as `pg_dump` has it. What was left out or adapted in a migration of yours is told by name, once:
among the events (`status`), in the section *Notes of the copy* of the report, and by `pg_migration_info` in `details.migration.notes`, a
list for each database. This page is written by `scripts/make-docs` from the code that does it.

| what | when | why | what is told |
|---|---|---|---|
"""

PROFILES_HEAD = """
## By kind of server

As a target: event triggers take a superuser, whom no provider gives. As a source: objects of the provider's own roles belong to the
target's login afterwards, and grants to these roles are left out.

| server | event triggers | tablespaces | extensions | roles of the provider |
|---|---|---|---|---|
"""

TAIL = """
With `copy.target_schema: present` the schema is the target's own, and nothing of this page but large objects and unlogged tables applies.

Roles, their settings and server parameters are not part of a base copy: see `globals` in [inventory.md](inventory.md), and the events of a
migration for what of them was left out.
"""


def render() -> str:
    """The page as it should be."""
    from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.profiles import PROFILES
    from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.leftout import EVERYTHING

    lines = []
    for one in EVERYTHING:
        told = one.note.replace("{", "*").replace("}", "*") or "nothing"
        lines.append(f"| {one.what} | {one.when or 'always'} | {one.why} | {told} |")
    servers = []
    for name, profile in sorted(PROFILES.items()):
        triggers = "left out" if profile.managed else "kept if the login is a superuser"
        spaces = "where `globals.tablespaces` maps them" if profile.tablespaces else "none: the default tablespace"
        allowed = f"those of `{profile.extension_parameter}`" if profile.extension_parameter else "those that are available"
        roles = ", ".join(f"`{role}`" for role in profile.provider_roles) or "none"
        servers.append(f"| `{name}` | {triggers} | {spaces} | {allowed} | {roles} |")
    return HEAD + "\n".join(lines) + "\n" + PROFILES_HEAD + "\n".join(servers) + "\n" + TAIL


def main() -> int:
    """Write the page."""
    sys.path.insert(0, str(REPO / "tests"))
    import conftest  # noqa: F401

    PAGE.write_text(render(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
