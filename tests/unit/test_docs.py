# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The pages lead a reader along the whole way, recommend what they should, and link to what exists."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).resolve().parents[2]
PAGES = sorted((REPO / "docs").glob("*.md")) + [REPO / "README.md"]
GUIDE = (REPO / "docs" / "guide.md").read_text(encoding="utf-8")
PATH = ("Prerequisites", "Configure", "Migrate", "Watching", "Cut over", "Afterwards", "Cancel")


def test_the_guide_is_the_users_path() -> None:
    """R3, R114: prerequisites, configure, migrate, monitor, cut over, afterwards use the target as the primary; cancel at any time."""
    titles = re.findall(r"^## (.+)$", GUIDE, re.MULTILINE)
    found = [next((n for n, title in enumerate(titles) if word.lower() in title.lower()), None) for word in PATH]
    assert None not in found, dict(zip(PATH, found, strict=True))
    assert found[:6] == sorted(n for n in found[:6] if n is not None)
    assert "use it as the primary" in GUIDE


def test_validation_is_recommended() -> None:
    """R49: in words, by default, and in every example."""
    assert "Recommended is `option: validate_and_migrate`" in GUIDE
    for path in (REPO / "examples" / "inventory").glob("*.yml"):
        described = yaml.safe_load(path.read_text(encoding="utf-8"))["all"]["vars"]["pg_migration"]
        assert described.get("option", "validate_and_migrate") == "validate_and_migrate", path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_playbooks_exist(page: Path) -> None:
    """What a page links to within the repository, and every playbook that it names."""
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)", text):
        local = link.partition("/blob/main/")[2] or link.partition("/tree/main/")[2]
        if local or "://" not in link:
            assert ((REPO if local else page.parent) / (local or link)).exists(), link
    modules = {path.stem for path in (REPO / "plugins" / "modules").glob("*.py")}
    for name in re.findall(r"pgops\.migration\.([a-z_]+)", text):
        assert name in modules or (REPO / "playbooks" / f"{name}.yml").exists() or (REPO / "roles" / name).exists(), name


def test_the_page_of_variables_is_up_to_date() -> None:
    """docs/variables.md has every variable that a role takes, as the role says it, and no other; each has a default or says it has none."""
    module = importlib.util.spec_from_file_location("variables_table", REPO / "scripts" / "lib" / "variables_table.py")
    assert module and module.loader
    table = importlib.util.module_from_spec(module)
    module.loader.exec_module(table)
    assert set(table.ROLES) == {path.name for path in (REPO / "roles").iterdir() if path.is_dir()}
    assert (REPO / "docs" / "variables.md").read_text(encoding="utf-8") == table.render(), "run scripts/make-docs"


def test_every_default_is_a_variable_that_is_documented() -> None:
    """What defaults/main.yml of a role sets is in its argument specification; what a role computes for itself is named otherwise."""
    for defaults in (REPO / "roles").glob("*/defaults/main.yml"):
        specs = yaml.safe_load((defaults.parents[1] / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]
        known = {name for entry in specs.values() for name in entry["options"]}
        assert set(yaml.safe_load(defaults.read_text(encoding="utf-8"))) - known <= {"pg_migration_runtime_system"}
