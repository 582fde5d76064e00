# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What ``scripts/test`` makes of tests that failed beside others: only a second run alone takes a failure back, and only its own."""

from __future__ import annotations

import importlib.util
import xml.etree.ElementTree as ET
from pathlib import Path

PLACE = Path(__file__).resolve().parents[2] / "scripts" / "lib" / "again.py"
SPEC = importlib.util.spec_from_file_location("again", PLACE)
assert SPEC and SPEC.loader
again = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(again)


def write(path: Path, cases: dict[str, str]) -> str:
    """A file as pytest writes it: the name of each test, and ``failure``, ``error`` or nothing."""
    suite = ET.Element("testsuite", tests=str(len(cases)))
    for kind in ("failure", "error"):
        suite.set(f"{kind}s", str(list(cases.values()).count(kind)))
    for name, outcome in cases.items():
        case = ET.SubElement(suite, "testcase", classname="tests.integration.test_x", name=name)
        if outcome:
            ET.SubElement(case, outcome)
    root = ET.Element("testsuites")
    root.append(suite)
    ET.ElementTree(root).write(path)
    return str(path)


def test_only_what_passed_alone_is_no_failure(tmp_path: Path) -> None:
    """One passes the second time, one fails both times, one was not tried again."""
    first = write(tmp_path / "first.xml", {"a[1]": "failure", "b": "failure", "c": "error", "d": ""})
    assert again.failed(first) == [f"tests/integration/test_x.py::{name}" for name in ("a[1]", "b", "c")]
    second = write(tmp_path / "second.xml", {"a[1]": "", "b": "failure"})
    assert again.settle(first, second) == ["tests/integration/test_x.py::a[1]"]
    assert again.failed(first) == ["tests/integration/test_x.py::b", "tests/integration/test_x.py::c"]
    (suite,) = ET.parse(first).getroot().iter("testsuite")
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "1", "1")


def test_many_failures_are_not_the_machines(tmp_path: Path, monkeypatch, capsys) -> None:
    """More than a handful are not tried again."""
    for count, listed in ((again.MOST, again.MOST), (again.MOST + 1, 0)):
        first = write(tmp_path / "first.xml", {f"t{n}": "failure" for n in range(count)})
        monkeypatch.setattr("sys.argv", ["again.py", "list", first])
        assert again.main() == 0 and len(capsys.readouterr().out.splitlines()) == listed
