# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What modules, roles and inventory take: one description of a migration, the same everywhere, with the engine's defaults."""

from __future__ import annotations

import dataclasses
import importlib
import json
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.pgops.migration.plugins.doc_fragments import _endpoints
from ansible_collections.pgops.migration.plugins.module_utils._ansible import options
from ansible_collections.pgops.migration.plugins.module_utils._ansible.argspec import ArgumentSpec
from ansible_collections.pgops.migration.plugins.module_utils._engine import spec
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres import loginfiles

REPO = Path(__file__).resolve().parents[2]
MODULES = sorted(path.stem for path in (REPO / "plugins" / "modules").glob("*.py"))
SECTIONS = {
    "copy": spec.CopyOptions,
    "changes": spec.ChangeOptions,
    "cutover": spec.CutoverOptions,
    "globals": spec.GlobalsOptions,
    "monitor": spec.MonitorOptions,
    "checks": spec.ChecksOptions,
    "limits": spec.LimitsOptions,
}
ROLE = yaml.safe_load((REPO / "roles" / "pg_migration_run" / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]


def test_all_modules() -> None:
    """The modules that the documentation speaks of."""
    assert MODULES == [
        "pg_cdc_stream",
        "pg_configure_cdc",
        "pg_cutover",
        "pg_migrate_globals",
        "pg_migration_cleanup",
        "pg_migration_engine",
        "pg_migration_info",
        "pg_migration_validate",
        "pg_migration_verify",
        "pg_snapshot_copy",
    ]


@pytest.mark.parametrize("name", MODULES)
def test_module_is_documented(name: str) -> None:
    """Every module says what it does, with examples, results, and what it supports."""
    module = importlib.import_module(f"ansible_collections.pgops.migration.plugins.modules.{name}")
    documentation = yaml.safe_load(module.DOCUMENTATION)
    assert documentation["module"] == name and documentation["version_added"]
    assert "pgops.migration._attributes" in documentation["extends_documentation_fragment"]
    for example in yaml.safe_load(module.EXAMPLES):
        assert example["name"]
        used = [key for key in example if "." in key]
        assert used and all(key.startswith(("pgops.migration.", "ansible.builtin.")) for key in used)
    assert yaml.safe_load(module.RETURN)


def test_action_group_holds_every_module_that_takes_a_migration() -> None:
    """``module_defaults`` with the group must reach all of them, and no module that would refuse the options."""
    runtime = yaml.safe_load((REPO / "meta" / "runtime.yml").read_text(encoding="utf-8"))
    taking = [name for name in MODULES if "actiongroup" in (REPO / "plugins" / "modules" / f"{name}.py").read_text(encoding="utf-8")]
    assert sorted(runtime["action_groups"]["pg_migration"]) == taking


def field_names(kind: type) -> set[str]:
    """Names of the fields of a dataclass."""
    return {field.name for field in dataclasses.fields(kind)}


def test_options_mirror_the_specification() -> None:
    """What the engine understands is what the modules take, no more and no less."""
    taken = options.migration_options().options
    assert set(taken) - {"home", "supervisor"} == field_names(spec.MigrationSpec) - {"back_of"}
    for side in ("source", "target"):
        assert set(taken[side]["options"]) - set(loginfiles.NAMES) == field_names(spec.Endpoint) - {"side", "tag"}
        assert taken[side]["options"]["password"]["no_log"] is True
    for name, kind in SECTIONS.items():
        assert set(taken[name]["options"]) == field_names(kind)


@pytest.mark.parametrize("section", SECTIONS)
def test_defaults_are_the_engines(section: str) -> None:
    """A default is written down once."""
    defaults = SECTIONS[section]()
    for name, option in options.section_options().options[section]["options"].items():
        value = getattr(defaults, name)
        if value == "":
            assert "default" not in option
        else:
            assert option["default"] == (list(value) if isinstance(value, tuple) else value)


def plain(option: dict[str, t.Any]) -> dict[str, t.Any]:
    """An option without what only one of its two descriptions has."""
    kept = {key: value for key, value in option.items() if key in ("type", "choices", "default", "required", "elements", "no_log")}
    if "options" in option:
        kept["options"] = {name: plain(sub) for name, sub in option["options"].items()}
    return kept


@pytest.mark.parametrize("entry", sorted(ROLE))
def test_role_takes_what_the_modules_take(entry: str) -> None:
    """The inventory's dict is checked by the role as the modules will."""
    taken = options.migration_options().options
    described = ROLE[entry]["options"]["pg_migration"]["options"]
    assert set(described) == set(taken) - {"home", "supervisor"}
    for name, option in described.items():
        assert plain(option) == plain(taken[name]), name


@pytest.mark.parametrize("path", sorted((REPO / "examples" / "inventory").glob("*.yml")), ids=lambda path: path.stem)
def test_example_inventory_is_a_migration(path: Path) -> None:
    """Each example is accepted as it stands (its passwords are references)."""
    inventory = yaml.safe_load(path.read_text(encoding="utf-8"))
    migration = spec.MigrationSpec.from_dict(inventory["all"]["vars"]["pg_migration"])
    assert migration.source.password.startswith("{{ vault_") and migration.target.password.startswith("{{ vault_")


def test_every_kind_of_source_has_an_example() -> None:
    """R1: the four kinds of the tutorial."""
    kinds = set()
    for path in (REPO / "examples" / "inventory").glob("*.yml"):
        kinds.add(yaml.safe_load(path.read_text(encoding="utf-8"))["all"]["vars"]["pg_migration"]["source"]["type"])
    assert {"on_premises", "azure_vm", "aws_rds", "azure_single_server"} <= kinds


def test_inventory_keys_are_explained() -> None:
    """docs/inventory.md speaks of every key."""
    text = (REPO / "docs" / "inventory.md").read_text(encoding="utf-8")
    taken = options.migration_options().options
    for name in set(taken) - {"home", "supervisor"}:
        for key in [name, *taken[name].get("options", {})]:
            assert f"`{key}`" in text, key


def test_options_given_twice_are_refused() -> None:
    """A mistake in putting specifications together shows at once."""
    with pytest.raises(ValueError, match="name"):
        ArgumentSpec({"name": {}}).merge(ArgumentSpec({"name": {}}))


def test_both_servers_are_described_alike() -> None:
    """The two texts stand side by side because ansible-test reads fragments that are literal strings alone; they differ in what kind of
    server it is and in nothing else."""
    sides = {}
    for side in ("source", "target"):
        options = yaml.safe_load(getattr(_endpoints.ModuleDocFragment, side.upper()))["options"][side]["suboptions"]
        sides[side] = json.dumps({name: one for name, one in options.items() if name != "type"}).replace(f"O({side}.", "O(side.")
    assert sides["source"] == sides["target"]
