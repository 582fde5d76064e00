# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The SQL of the canonical forms and the comparison of row hashes, without a server."""

from __future__ import annotations

from collections import Counter

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.verify import differences
from ansible_collections.pgops.migration.plugins.module_utils._engine.verify.canonical import Method, Type, has_float

TYPES = {
    1: Type(1, "float8", "b", True, 0, 0, 0, ()),
    2: Type(2, "_float8", "b", True, 1, 0, 0, ()),
    3: Type(3, "pair", "c", False, 0, 0, 0, (("a", 1), ("b", 5))),
    4: Type(4, "positive", "d", False, 0, 1, 0, ()),
    5: Type(5, "text", "b", True, 0, 0, 0, ()),
    6: Type(6, "floatrange", "r", False, 0, 0, 1, ()),
    7: Type(7, "mood", "e", False, 0, 0, 0, ()),
    8: Type(8, "int4", "b", True, 0, 0, 0, ()),
    9: Type(9, "loop", "c", False, 0, 0, 0, (("self", 9),)),
}


def test_floats_are_found_wherever_they_hide() -> None:
    assert [oid for oid in TYPES if has_float(oid, TYPES)] == [1, 2, 3, 4, 6]


def test_text_of_floats_is_only_used_where_both_servers_write_it_exactly() -> None:
    exact, old = Method("text", True, True), Method("text", False, True)
    assert exact.column("x", 2, TYPES) == 'x::text COLLATE "C"'
    for oid in (2, 3, 6):
        assert "float8send" in old.column("x", oid, TYPES)
    assert "float8send" in exact.column("x", 1, TYPES) and "float8send" in exact.column("x", 4, TYPES)


def test_enums_by_label_and_texts_by_encoding() -> None:
    assert Method("record", True, True).column("x", 7, TYPES) == "enum_send(x)"
    assert Method("record", True, True).column("x", 5, TYPES) == 'x COLLATE "C"'
    assert Method("record", True, False).column("x", 5, TYPES) == "textsend(x)"
    assert Method("record", True, True).column("x", 8, TYPES) == "x"
    assert Method("record", True, True).column("x", 424242, TYPES) == 'x::text COLLATE "C"'


@pytest.mark.parametrize(
    ("source", "target", "kinds"),
    [
        ({1: [5]}, {1: [5]}, []),
        ({1: [5]}, {1: [6]}, [("different", 1)]),
        ({1: [5]}, {}, [("missing", 1)]),
        ({}, {1: [5, 5]}, [("extra", 2)]),
        ({1: [5]}, {1: [5, 6]}, [("extra", 1)]),
        ({1: [5, 5]}, {1: [5, 7]}, [("missing", 1), ("extra", 1)]),
    ],
)
def test_kinds_of_differences(source: dict[int, list[int]], target: dict[int, list[int]], kinds: list[tuple[str, int]]) -> None:
    sides = [{key: Counter(rows) for key, rows in side.items()} for side in (source, target)]
    assert [(d.kind, d.copies) for d in differences._compare(sides[0], sides[1], keyed=True)] == kinds


def test_without_a_key_nothing_is_different_only_missing_or_extra() -> None:
    found = differences._compare({1: Counter({1: 1})}, {2: Counter({2: 1})}, keyed=False)
    assert [d.kind for d in found] == ["missing", "extra"]


def test_long_values_are_clipped_around_their_first_difference() -> None:
    left, right = differences.clip_pair("a" * 1000 + "b", "a" * 1000 + "c")
    assert left is not None and right is not None and left != right and len(left) < 300
    assert differences._clip("x" * 500) == "x" * 200 + "... (500 characters)"
    assert differences._clip(None) is None
