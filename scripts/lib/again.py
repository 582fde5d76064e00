# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Tests that failed beside others are tried once more alone: the machine's two cores are shared by two workers, and a limit of time may be
what failed. A test that fails both times has failed; one that passes the second time is named.

    again.py list FIRST.xml             the ids of what failed, one a line; none if it is more than the machine can be blamed for
    again.py settle FIRST.xml SECOND.xml    what passed the second time is no failure in FIRST.xml any more
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET

MOST = 8
"""From more failures on it is not the machine."""

BAD = ("failure", "error")


def bad(case: ET.Element) -> list[ET.Element]:
    """What says that a test case has failed."""
    return [child for child in case if child.tag in BAD]


def node_id(case: ET.Element) -> str:
    """The test as pytest takes it on its command line."""
    return f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"


def failed(path: str) -> list[str]:
    """Ids of the tests that failed, each once."""
    return list(dict.fromkeys(node_id(case) for case in ET.parse(path).getroot().iter("testcase") if bad(case)))


def settle(first: str, second: str) -> list[str]:
    """Take the failures of ``first`` back that ``second`` has as passed; their ids."""
    passed = {node_id(case) for case in ET.parse(second).getroot().iter("testcase") if not bad(case)} - set(failed(second))
    tree = ET.parse(first)
    settled = []
    for suite in tree.getroot().iter("testsuite"):
        for case in suite.iter("testcase"):
            if node_id(case) in passed and bad(case):
                settled.append(node_id(case))
                for child in bad(case):
                    case.remove(child)
                    key = f"{child.tag}s"
                    suite.set(key, str(max(0, int(suite.get(key, 0)) - 1)))
    tree.write(first, encoding="utf-8", xml_declaration=True)
    return settled


def main() -> int:
    """One of the two."""
    if sys.argv[1] == "list":
        names = failed(sys.argv[2])
        sys.stdout.write("".join(f"{name}\n" for name in names if len(names) <= MOST))
    else:
        for name in settle(sys.argv[2], sys.argv[3]):
            sys.stdout.write(f"   passed when tried again alone: {name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
