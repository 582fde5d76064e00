# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The data files for AWX name playbooks and variables that exist, a workflow that holds together, and an image that can be described to the
builder. No AWX is asked."""

from __future__ import annotations

import shutil
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).resolve().parents[2]


class Loader(yaml.SafeLoader):
    """Knows Ansible's mark for text that is no template."""


Loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))
AWX = REPO / "examples" / "awx"
OBJECTS: dict[str, t.Any] = yaml.load((AWX / "objects.yml").read_text(encoding="utf-8"), Loader=Loader)
TASKS: dict[str, dict[str, t.Any]] = {
    key: {**task[key], "no_log": task.get("no_log")}
    for task in yaml.safe_load((AWX / "awx.yml").read_text(encoding="utf-8"))[0]["tasks"]
    for key in task
    if key.startswith("awx.awx.")
}
"""Module to its arguments."""


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
    """Every node leads to later ones, every job to a template that is made, and nothing is cut over without an approval before it."""
    nodes = OBJECTS["awx_workflow"]["nodes"]
    order = [node["identifier"] for node in nodes]
    names = {one["name"] for one in OBJECTS["awx_job_templates"]}
    for place, node in enumerate(nodes):
        assert {*node.get("success", []), *node.get("failure", [])} <= {*order[place + 1 :]}
        assert (node.get("job_template") in names) != ("approval" in node)
    assert [(node["identifier"], "approval" in node) for node in nodes if "cutover" in node.get("success", [])] == [("approve", True)]


def test_passwords_are_secret() -> None:
    """Every field of the credential type is, and reaches the play as a variable alone."""
    kind = OBJECTS["awx_credential_type"]
    assert all(field["secret"] for field in kind["inputs"]["fields"]) and set(kind["injectors"]) == {"extra_vars"}


def test_every_job_has_its_credentials() -> None:
    """One instance of the credential type with all its fields, and one for SSH, are made before the job templates, which carry both: so
    does each job of the workflow, and what the inventory takes from the type is defined. No launch asks for anything but the surveys."""
    made = {one["type"]: one for one in OBJECTS["awx_credentials"]}
    kind = OBJECTS["awx_credential_type"]
    assert set(made) == {kind["name"], "Machine"}
    assert set(made[kind["name"]]["inputs"]) == {field["id"] for field in kind["inputs"]["fields"]} == set(kind["inputs"]["required"])
    assert set(made["Machine"]["inputs"]) >= {"username", "ssh_key_data"}
    assert all("lookup" in text for one in made.values() for key, text in one["inputs"].items() if "password" in key or "key" in key)
    order = list(TASKS)
    assert order.index("awx.awx.credential_type") < order.index("awx.awx.credential") < order.index("awx.awx.job_template")
    template = TASKS["awx.awx.job_template"]
    assert template["credentials"] == "{{ awx_credentials | map(attribute='name') }}" and TASKS["awx.awx.credential"]["no_log"] is True
    assert not [key for key in template if key.startswith("ask_")]


def test_the_project_plays_the_collection(tmp_path: Path) -> None:
    """Its one playbook leads to each of the collection's, which Ansible finds by the variable that the job template gives."""
    assert OBJECTS["awx_playbook"] in {path.name for path in (AWX / "project").iterdir()}
    assert TASKS["awx.awx.job_template"]["extra_vars"] == {"pg_migration_playbook": "{{ item.playbook }}"}
    words = [
        Path(sys.executable).with_name("ansible-playbook"),
        "--syntax-check",
        "-i",
        "localhost,",
        AWX / "project" / OBJECTS["awx_playbook"],
    ]
    for playbook, good in (("status", True), ("nonsense", False)):
        done = subprocess.run(
            [*words, "-e", f"pg_migration_playbook={playbook}"], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert (done.returncode == 0) == good, done.stderr


@pytest.mark.parametrize("playbook", ["migrate", "provision_runtime"])
def test_a_job_without_a_runtime_host_is_refused(playbook: str, tmp_path: Path) -> None:
    """Before anything is made: what it would be made in ends with the job."""
    (tmp_path / "inventory.yml").write_text("all: {}", encoding="utf-8")
    words = [Path(sys.executable).with_name("ansible-playbook"), "-i", "inventory.yml", f"pgops.migration.{playbook}"]
    more = ["-e", "awx_job_id=7", "-e", f"pg_migration_home={tmp_path}/home"]
    done = subprocess.run([*words, *more], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode != 0 and "names no runtime host" in done.stdout + done.stderr, done.stdout + done.stderr
    assert not (tmp_path / "home").exists()


def test_the_builder_takes_the_image(tmp_path: Path) -> None:
    """ansible-builder writes the folder out of which the image is built: the archive in it, installed by ansible-galaxy."""
    image = AWX / "execution-environment.yml"
    archive = yaml.safe_load(image.read_text(encoding="utf-8"))["additional_build_files"][0]["src"]
    shutil.copy(image, tmp_path)
    (tmp_path / archive).write_bytes(b"")
    words = [
        Path(sys.executable).with_name("ansible-builder"),
        "create",
        "-f",
        image.name,
        "-c",
        "context",
        "--output-filename",
        "Dockerfile",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "context" / "_build" / "collection" / archive).exists()
    steps = (tmp_path / "context" / "Dockerfile").read_text(encoding="utf-8")
    assert steps.index(f"COPY _build/collection/{archive} /build/") < steps.index("ansible-galaxy collection install")


def test_the_image_has_what_the_collection_needs() -> None:
    """A base image, ansible-core of the version that the collection needs, and the collection as it is built from this checkout."""
    image = yaml.safe_load((AWX / "execution-environment.yml").read_text(encoding="utf-8"))
    galaxy = yaml.safe_load((REPO / "galaxy.yml").read_text(encoding="utf-8"))
    name = f"{galaxy['namespace']}-{galaxy['name']}-{galaxy['version']}.tar.gz"
    assert image["version"] == 3 and image["images"]["base_image"]["name"].startswith("fedora:")
    # Fedora's images have none since 41, and the builder's first step calls it
    assert image["dependencies"]["python_interpreter"] == {"package_system": "python3", "python_path": "/usr/bin/python3"}
    assert image["dependencies"]["galaxy"]["collections"] == [{"name": f"/build/{name}", "type": "file"}]
    assert image["additional_build_files"] == [{"src": name, "dest": "collection"}]
    assert image["additional_build_steps"]["prepend_galaxy"] == [f"COPY _build/collection/{name} /build/"]
    needed = yaml.safe_load((REPO / "meta" / "runtime.yml").read_text(encoding="utf-8"))["requires_ansible"]
    assert image["dependencies"]["ansible_core"]["package_pip"] == "ansible-core" + needed.removesuffix(".0")
    wanted = yaml.safe_load((REPO / "meta" / "execution-environment.yml").read_text(encoding="utf-8"))["dependencies"]
    assert all((REPO / file).exists() for file in wanted.values())
    libraries = (REPO / wanted["python"]).read_text(encoding="utf-8").splitlines()
    role = yaml.safe_load((REPO / "roles" / "pg_migration_runtime" / "defaults" / "main.yml").read_text(encoding="utf-8"))
    assert [line for line in libraries if not line.startswith("#")] == role["pg_migration_runtime_libraries"]


def keys_of(value: t.Any) -> t.Iterator[tuple[str, t.Any]]:
    """All keys of nested data, with their values."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key), inner
            yield from keys_of(inner)
    elif isinstance(value, list):
        for one in value:
            yield from keys_of(one)


def test_nothing_can_ask() -> None:
    """No playbook or role has vars_prompt, or a pause that waits for a person: a job of AWX has nobody who could answer."""
    found = 0
    for path in [*(REPO / "playbooks").glob("*.yml"), *(REPO / "roles").glob("*/*/*.yml"), AWX / "project" / "play.yml"]:
        if path.parent.name == "meta":
            continue
        for key, value in keys_of(yaml.safe_load(path.read_text(encoding="utf-8"))):
            found += key == "name"
            assert key != "vars_prompt", path
            if key in ("pause", "ansible.builtin.pause"):
                assert isinstance(value, dict) and {"seconds", "minutes"} & set(value), path
    assert found > 50
