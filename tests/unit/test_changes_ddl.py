# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What two fingerprints of a catalog say of the DDL between them."""

from __future__ import annotations

import dataclasses

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.ddl import Change, Relation, compare, settled

BEFORE = Relation(1, "table p identity d", ("id integer", "v text"), 100)
ALTERED = {
    "emptied": dataclasses.replace(BEFORE, file=101),
    "altered": dataclasses.replace(BEFORE, file=101, columns=("id integer",)),
}


@pytest.mark.parametrize("kind", ALTERED)
def test_a_new_file_alone_is_an_emptied_table(kind: str) -> None:
    found = compare({"public.t": BEFORE}, {"public.t": ALTERED[kind]})
    assert [(change.label, change.kind) for change in found] == [("public.t", kind)]
    assert ("TRUNCATE" in found[0].text) == (kind == "emptied")


def test_created_dropped_and_unchanged() -> None:
    found = compare({"a": BEFORE, "b": BEFORE}, {"b": BEFORE, "c": BEFORE})
    assert [(change.label, change.kind) for change in found] == [("a", "dropped"), ("c", "created")]


@pytest.mark.parametrize("kind, expected", [("altered", True), ("dropped", True), ("emptied", False), ("created", False)])
def test_what_the_target_can_be_given(kind: str, expected: bool) -> None:
    """Rows that were not streamed are never made good by DDL on the target."""
    here = {} if kind == "dropped" else {"t": BEFORE}
    assert settled([Change("t", kind, "")], here, here) is expected
