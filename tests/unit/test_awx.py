# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The data files for AWX name playbooks and variables that exist, and a workflow that holds together. No AWX is asked."""

from __future__ import annotations

import typing as t
from pathlib import Path

import yaml

REPO = Path(__file__).resolve().parents[2]


class Loader(yaml.SafeLoader):
    """Knows Ansible's mark for text that is no template."""


Loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))
OBJECTS: dict[str, t.Any] = yaml.load((REPO / "examples" / "awx" / "objects.yml").read_text(encoding="utf-8"), Loader=Loader)


def test_templates_play_what_there_is() -> None:
    """Each playbook of the collection has a template; surveys set variables that a role takes, and ask for no text that could be wrong."""
    templates = OBJECTS["awx_job_templates"]
    assert {one["playbook"] for one in templates} == {path.stem for path in (REPO / "playbooks").glob("*.yml")}
    known: set[str] = set()
    for specs in (REPO / "roles").glob("*/meta/argument_specs.yml"):
        for entry in yaml.safe_load(specs.read_text(encoding="utf-8"))["argument_specs"].values():
            known |= set(entry.get("options") or {})
    for question in (question for one in templates for question in one.get("survey", [])):
        assert question["variable"] in known and question["default"] in question["choices"]


def test_the_workflow_holds_together() -> None:
    """Every node leads to nodes that exist, every job to a template that is made, and nothing is cut over without an approval before it."""
    nodes = {node["identifier"]: node for node in OBJECTS["awx_workflow"]["nodes"]}
    names = {one["name"] for one in OBJECTS["awx_job_templates"]}
    for node in nodes.values():
        for following in (link["identifier"] for links in node.get("related", {}).values() for link in links):
            assert following in nodes
        job = node["unified_job_template"]
        assert job["type"] == "workflow_approval" or job["name"] in names
    leads = [
        name for name, node in nodes.items() for link in node.get("related", {}).get("success_nodes", []) if link["identifier"] == "cutover"
    ]
    assert leads == ["approve"]


def test_passwords_are_secret() -> None:
    """Every field of the credential type is, and reaches the play as a variable alone."""
    kind = OBJECTS["awx_credential_type"]
    assert all(field["secret"] for field in kind["inputs"]["fields"]) and set(kind["injectors"]) == {"extra_vars"}
