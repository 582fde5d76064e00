# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The guides of the documentation site: one for each type of source, with what the engine's own profiles say, and a quick start that is the
README's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.profiles import profile_for
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import SOURCE_TYPES, MigrationSpec

REPO = Path(__file__).resolve().parents[2]
PAGES = REPO / "docs" / "docsite" / "rst"
SOURCES = (PAGES / "sources.rst").read_text(encoding="utf-8")


def guide_of(kind: str) -> str:
    """The page to which the list of sources leads for a type."""
    found = re.search(rf"\* - ``{kind}``\n +- :ref:`[^<]+<ansible_collections\.pgops\.migration\.docsite\.(\w+)>`", SOURCES)
    assert found, kind
    return (PAGES / f"{found[1]}.rst").read_text(encoding="utf-8")


def test_the_list_has_every_type_and_no_other() -> None:
    assert re.findall(r"\* - ``(\w+)``", SOURCES) and set(re.findall(r"\* - ``(\w+)``", SOURCES)) == set(SOURCE_TYPES)


@pytest.mark.parametrize("kind", SOURCE_TYPES)
def test_a_guide_says_what_the_profile_says(kind: str) -> None:
    """The type's name, its parameter and value, the right to stream, the commands for parameters and restart, and the roles left out."""
    profile, text = profile_for(kind), guide_of(kind)
    assert f"``{kind}``" in text or f"``type: {kind}``" in text
    wanted = [name for name, dummy in profile.cdc_parameters]
    if profile.managed:
        wanted += [profile.parameter_command.partition(" GROUP")[0].partition(" INSTANCE")[0], profile.restart_command, profile.admin_role]
        wanted += [database for database in profile.provider_databases if not database.startswith("alloydb")][:1]
    if profile.replication_role:
        wanted.append(profile.grant_replication("migrator"))
    elif kind not in ("azure_vm", "aws_ec2", "gcp_compute"):  # these lead to the page of a server of one's own
        wanted.append("REPLICATION PASSWORD")
    assert [word for word in wanted if word not in text] == []


@pytest.mark.parametrize("kind", SOURCE_TYPES)
def test_a_type_has_an_example(kind: str) -> None:
    """An inventory that describes a migration from it, and in the group of sources just where there is a host that can be edited."""
    inventory = yaml.safe_load((REPO / "examples" / "inventory" / f"{kind}.yml").read_text(encoding="utf-8"))["all"]
    spec = MigrationSpec.from_dict(inventory["vars"]["pg_migration"])
    assert spec.source.type == kind and f"/{kind}.yml>`__" in SOURCES
    assert ("pg_migration_source" in inventory.get("children", {})) == (not profile_for(kind).managed and kind != "other")


def blocks(text: str) -> list[str]:
    """Blocks that are indented as code below an item of a list, each as its lines; neighbours are one."""
    return re.findall(r"^       (.*)$", text, re.MULTILINE)


def test_the_quick_start_is_the_readme_s() -> None:
    """Every line of code of the page is in the README, in the same order: whoever follows either does the same."""
    readme = blocks((REPO / "README.md").read_text(encoding="utf-8").partition("\n## Use it\n")[2].partition("\n## ")[0])
    page = blocks((PAGES / "quick_start.rst").read_text(encoding="utf-8"))
    assert len(page) > 30
    assert [line for line in readme if line != "ansible-galaxy collection build"] == page


def test_every_page_is_in_the_list() -> None:
    """extra-docs.yml has each page once."""
    sections = yaml.safe_load((REPO / "docs" / "docsite" / "extra-docs.yml").read_text(encoding="utf-8"))["sections"]
    listed = [name for section in sections for name in section["toctree"]]
    assert sorted(listed) == sorted(path.stem for path in PAGES.glob("*.rst"))


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.rst")), ids=lambda page: page.stem)
def test_links_and_playbooks_exist(page: Path) -> None:
    """Links into the repository lead to files, references to pages, and playbooks are the collection's."""
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"/blob/main/([^>#]+)", text):
        assert (REPO / link).exists(), link
    for name in re.findall(r"docsite\.(\w+)[>`]", text):
        assert (PAGES / f"{name}.rst").exists(), name
    for name in re.findall(r"ansible-playbook pgops\.migration\.([a-z_]+)", text):
        assert (REPO / "playbooks" / f"{name}.yml").exists(), name
