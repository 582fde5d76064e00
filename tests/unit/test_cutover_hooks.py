# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What leads the writers, looked at before it is needed; no server is asked."""

from __future__ import annotations

import os
import stat
import typing as t
from pathlib import Path

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import SpecificationError
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import CutoverOptions, check_cutover
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate import hooks

NOBODY = 65534


def troubles(*, rollback: bool = False, **options: t.Any) -> list[str]:
    """What is wrong with ``options``."""
    looks = hooks.look_at(CutoverOptions(**options), ["shop"], rollback=rollback)
    assert all(look.hint for look in looks if look.trouble) and all(look.text or look.trouble for look in looks)
    return [f"{look.name}: {look.trouble}" for look in looks if look.trouble]


def script(path: Path, first: str, mode: int = 0o755) -> tuple[str, ...]:
    """A script that begins with the line ``first``."""
    path.write_text(first + "\n")
    path.chmod(mode)
    return (str(path), "word")


def test_programs(tmp_path: Path) -> None:
    """By path and by name; a file that is there and may not be run; the interpreter of a script, which the kernel says nothing of."""
    good = script(tmp_path / "good", "#!/bin/sh")
    assert troubles(release=good, fence_command=("true",), unfence_command=("env", "x")) == []
    assert troubles(release=("/nonexistent/x",)) == ["cutover.release: /nonexistent/x does not exist on the runtime host"]
    assert troubles(unfence_command=("nosuchprogram",)) == ["cutover.unfence_command: nosuchprogram does not exist on the runtime host"]
    assert "cannot be executed" in troubles(release=script(tmp_path / "plain", "#!/bin/sh", 0o644))[0]
    assert "a script for /bin/nosuchshell" in troubles(fence_command=script(tmp_path / "lost", "#! /bin/nosuchshell -e"))[0]
    assert "a script for python0" in troubles(release=script(tmp_path / "env", "#!/usr/bin/env python0"))[0]
    assert troubles(release=script(tmp_path / "split", "#!/usr/bin/env -S sh -e")) == []


def test_the_rollbacks_program_where_there_is_one() -> None:
    """Without a way back nobody runs it."""
    assert troubles(rollback_release=("/nonexistent/x",)) == []
    assert troubles(rollback_release=("/nonexistent/x",), rollback=True)[0].startswith("cutover.rollback_release: ")


def test_sudo_in_the_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that is root by its mode is not below NoNewPrivileges."""
    words = script(tmp_path / "sudo", "#!/bin/sh", 0o4755)
    monkeypatch.setattr(hooks, "_no_new_privileges", lambda: True)
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    assert "NoNewPrivileges" in troubles(release=words)[0]
    monkeypatch.setattr(hooks, "_no_new_privileges", lambda: False)
    assert troubles(release=words) == []


def test_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there, its folder may be written, and its readers can read the new one."""
    path = tmp_path / "places.ini"
    options = {"release_file": str(path), "release_template": "x"}
    assert "No such file" in troubles(**options)[0]
    path.touch(0o640)
    assert troubles(**options) == []
    assert "is no file" in troubles(release_file=str(tmp_path), release_template="x")[0]
    found = path.stat()
    monkeypatch.setattr(os, "geteuid", lambda: found.st_uid + 1)
    assert "shut out" in troubles(**options)[0]
    path.chmod(0o644)
    assert troubles(**options) == []
    monkeypatch.setattr(os, "access", lambda *dummy: False)
    assert "may not write to" in troubles(**options)[0]


GOOD = ["{dbname} = host={host} port={port}", 'server {{ "{host}" }}', "the same for all"]
WRONG = [
    ({"release_template": "{user}"}, r"unknown placeholder \{user\}"),
    ({"release_template": "{host!r}"}, r"unknown placeholder \{host!r\}"),
    ({"release_template": "{port:>9}"}, r"unknown placeholder \{port:>9\}"),
    ({"release_template": "{}"}, r"unknown placeholder \{\}"),
    ({"release_template": "{host.__class__}"}, "unknown placeholder"),
    ({"release_template": "upstream { server {host}"}, "cannot be read|unknown placeholder"),
    ({"release_template": ""}, "belong together"),
    ({"release_file": ""}, "belong together"),
    ({"release_file": "etc/places.ini"}, "no absolute path"),
    ({"release_template": "{dbname} = host={host} password=x"}, "holds a password"),
]


@pytest.mark.parametrize("template", GOOD)
def test_good_templates(template: str) -> None:
    """Known placeholders, braces of the text's own."""
    check_cutover(CutoverOptions(release_file="/etc/places.ini", release_template=template))


@pytest.mark.parametrize(("options", "words"), WRONG)
def test_wrong_templates(options: dict[str, str], words: str) -> None:
    """Refused with the inventory, not at the release."""
    with pytest.raises(SpecificationError, match=words):
        check_cutover(CutoverOptions(**{"release_file": "/etc/places.ini", "release_template": "{host}", **options}))


def test_mode_of_a_setuid_program_is_seen(tmp_path: Path) -> None:
    """The file system of this run keeps the bit, or the test above says nothing."""
    path = Path(script(tmp_path / "sudo", "#!/bin/sh", 0o4755)[0])
    assert path.stat().st_mode & stat.S_ISUID
