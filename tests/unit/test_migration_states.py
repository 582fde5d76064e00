# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""States, specification and record: what is legal, and that nothing else happens."""

from __future__ import annotations

import dataclasses
import sqlite3

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import Conflict, IllegalTransition, SpecificationError
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.catalogue import Catalogue, point
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.states import (
    ACTIVE,
    LEGAL,
    START,
    TERMINAL,
    State,
    Substate,
    check_move,
    state_of,
)
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from hypothesis import given, settings
from hypothesis import strategies as st

POINTS = st.tuples(st.sampled_from(State), st.sampled_from(Substate))
BASE = {
    "name": "shop-2026",
    "source": {"host": "a", "user": "u", "password": "canary-password-1"},
    "target": {"host": "b", "user": "v", "password": "canary-password-2"},
    "databases": ["shop"],
}


def spec(**changes: object) -> MigrationSpec:
    return MigrationSpec.from_dict({**BASE, **changes})


def test_states_are_spelled_as_the_service_does() -> None:
    """R83: these and no others; the other spelling of one of them is taken, and no other case."""
    names = ["InProgress", "WaitingForUserAction", "Canceled", "Failed", "ValidationFailed", "Succeeded", "CleaningUp"]
    assert [state.value for state in State] == names
    assert [state_of(name).value for name in names] == names and state_of("Cancelled") is State.CANCELED
    for wrong in ("cancelled", "canceled", "CANCELED", "Validation Failed", ""):
        with pytest.raises(ValueError, match="not a valid State"):
            state_of(wrong)


@given(st.lists(POINTS, max_size=12))
@settings(max_examples=200)
def test_any_walk_stays_legal(tmp_path_factory: pytest.TempPathFactory, walk: list[tuple[State, Substate]]) -> None:
    """Whatever moves are asked for, the record only ever takes legal ones, ended ones are final (R84, R85), each change is one event."""
    catalogue = Catalogue(tmp_path_factory.mktemp("walk") / "c.db")
    one = spec()
    catalogue.create(one)
    here, moves = START, [point(*START)]
    for there in walk:
        try:
            catalogue.move(one.key, *there)
        except IllegalTransition:
            assert (here, there) not in LEGAL and here != there
        else:
            assert here == there or (here, there) in LEGAL
            assert here[0] not in TERMINAL or here == there
            if here != there:
                moves.append(point(*there))
            here = there
        record = catalogue.get(one.key)
        assert record is not None
        assert (State(record["state"]), Substate(record["substate"])) == here
        assert (record["ended"] is None) == (here[0] in ACTIVE)
        assert [event["text"] for event in record["events"]] == moves


def test_every_state_can_be_reached() -> None:
    reached, frontier = {START}, [START]
    while frontier:
        here = frontier.pop()
        for old, new in LEGAL:
            if old == here and new not in reached:
                reached.add(new)
                frontier.append(new)
    assert {state for state, dummy in reached} == set(State)
    assert {substate for dummy, substate in reached} == set(Substate)


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_terminal_states_are_final(state: State) -> None:
    for other in State:
        for substate in Substate:
            if other is not state:
                with pytest.raises(IllegalTransition):
                    check_move((state, Substate.COMPLETED), (other, substate))


@pytest.mark.parametrize("name", ["shop", "Shop-2026", "1", "a-b-c", "a" * 63])
def test_names_accepted(name: str) -> None:
    """R44."""
    assert spec(name=name).name == name


@pytest.mark.parametrize("name", ["", "-shop", "shop_2026", "shop.2026", "shop 2026", "größe", "shop\n", "a" * 64, None, 7])
def test_names_refused(name: object) -> None:
    """R44."""
    with pytest.raises(SpecificationError) as caught:
        spec(name=name)
    assert caught.value.code == "PGM1002"


def test_mode_is_offline_unless_said() -> None:
    """R50."""
    assert spec().mode == "offline"
    assert spec(mode="online").online


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "fast"},
        {"option": "go"},
        {"sorce": {}},
        {"source": {"host": "a", "user": "u", "type": "mainframe"}},
        {"copy": {"jobs": "many"}},
    ],
)
def test_bad_specifications_are_refused(wrong: dict[str, object]) -> None:
    """R1: an unknown source type, and every other bad value or unknown key."""
    with pytest.raises(SpecificationError):
        spec(**wrong)


def test_source_and_target_must_differ() -> None:
    with pytest.raises(SpecificationError):
        spec(target={"host": "A", "user": "v"})


def test_no_secret_leaves_the_specification() -> None:
    """R117: neither repr nor public form nor digest shows a password."""
    one = spec()
    for text in (repr(one), str(one.public()), str(one.identity())):
        assert "canary" not in text
    assert dataclasses.replace(one.source, password="other").label() == one.source.label()


def test_public_form_reads_back() -> None:
    one = spec(mode="online", copy={"jobs": "4"}, cutover={"release": ["/bin/true"], "max_pause": "7"})
    again = MigrationSpec.from_dict(one.public())
    assert again.digest() == one.digest() and again.copy.jobs == 4 and again.cutover.release == ("/bin/true",)


def test_a_name_is_unique_per_target(tmp_path: object) -> None:
    """R45, R68: the same name on another target is fine; a second active migration to one target is not."""
    catalogue = Catalogue(tmp_path / "c.db")  # type: ignore[operator]
    catalogue.create(spec())
    with pytest.raises(Conflict) as caught:
        catalogue.create(spec(name="other"))
    assert "shop-2026" in caught.value.message
    catalogue.create(spec(target={"host": "c", "user": "v"}))
    catalogue.move(spec().key, State.FAILED, Substate.PERFORMING_PREREQUISITE_STEPS)
    catalogue.create(spec(name="other"))
    with pytest.raises((Conflict, sqlite3.IntegrityError)):
        catalogue.create(spec())


def test_newest_first(tmp_path: object) -> None:
    """R74, with equal times too: then the later entry first."""
    catalogue = Catalogue(tmp_path / "c.db")  # type: ignore[operator]
    for number in range(3):
        catalogue.create(spec(name=f"m{number}", target={"host": f"t{number}", "user": "v"}))
    assert [record["name"] for record in catalogue.list()] == ["m2", "m1", "m0"]
