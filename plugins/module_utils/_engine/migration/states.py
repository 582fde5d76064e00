# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""States and substates of a migration and the moves that are legal between them (R83 to R85)."""

from __future__ import annotations

import enum

from ..errors import IllegalTransition


class State(str, enum.Enum):
    """Where a migration stands, spelled as Azure's service spells it (R83)."""

    IN_PROGRESS = "InProgress"
    WAITING_FOR_USER_ACTION = "WaitingForUserAction"
    CANCELED = "Canceled"
    FAILED = "Failed"
    VALIDATION_FAILED = "ValidationFailed"
    SUCCEEDED = "Succeeded"
    CLEANING_UP = "CleaningUp"


ALIASES = {"Cancelled": State.CANCELED}
"""Spellings of a state that are taken besides its own: the tutorial of Azure's service writes both (R83)."""


def state_of(text: str) -> State:
    """The state that ``text`` spells, by its own name or one of :data:`ALIASES`.

    :raises ValueError: there is no such state.
    """
    return ALIASES.get(text) or State(text)


class Substate(str, enum.Enum):
    """What it does there (R84)."""

    PERFORMING_PREREQUISITE_STEPS = "PerformingPreRequisiteSteps"
    VALIDATION_IN_PROGRESS = "ValidationInProgress"
    MIGRATING_DATA = "MigratingData"
    WAITING_FOR_CUTOVER_TRIGGER = "WaitingForCutoverTrigger"
    COMPLETING_MIGRATION = "CompletingMigration"
    COMPLETED = "Completed"


S, B = State, Substate
TERMINAL = frozenset({S.CANCELED, S.SUCCEEDED})
"""States that nothing leaves (R85)."""

RESUMABLE = frozenset({S.FAILED, S.VALIDATION_FAILED})
"""States that a new run of the same specification leaves: what was broken off goes on (R115)."""

ACTIVE = frozenset({S.IN_PROGRESS, S.WAITING_FOR_USER_ACTION, S.CLEANING_UP})

_WORK = (
    (S.IN_PROGRESS, B.PERFORMING_PREREQUISITE_STEPS),
    (S.IN_PROGRESS, B.VALIDATION_IN_PROGRESS),
    (S.IN_PROGRESS, B.MIGRATING_DATA),
    (S.WAITING_FOR_USER_ACTION, B.WAITING_FOR_CUTOVER_TRIGGER),
    (S.IN_PROGRESS, B.COMPLETING_MIGRATION),
    (S.WAITING_FOR_USER_ACTION, B.MIGRATING_DATA),  # a database is held up by an error; the others go on
)
START = _WORK[0]


def _legal() -> frozenset[tuple[tuple[State, Substate], tuple[State, Substate]]]:
    prerequisites, validating, copying, waiting, completing, held = _WORK
    moves = {
        (prerequisites, validating),
        (prerequisites, copying),
        (validating, copying),
        (validating, (S.SUCCEEDED, B.COMPLETED)),
        (validating, (S.VALIDATION_FAILED, B.VALIDATION_IN_PROGRESS)),
        (copying, waiting),
        (copying, completing),
        (waiting, completing),
        (completing, waiting),  # a cutover that was given back, or of some databases
        (completing, copying),  # likewise, while others are not that far
        (held, completing),  # others are cut over meanwhile
        (copying, held),
        (waiting, held),
        (completing, held),
        (held, copying),
        (held, waiting),
        (completing, (S.SUCCEEDED, B.COMPLETED)),
        # a service that starts again finds out anew how far it is
        (validating, prerequisites),
        (copying, prerequisites),
        (waiting, prerequisites),
        (completing, prerequisites),
        (held, prerequisites),
    }
    for point in _WORK:
        moves.add((point, (S.FAILED, point[1])))
        moves.add(((S.FAILED, point[1]), prerequisites))
        moves.add((point, (S.CLEANING_UP, point[1])))
        moves.add(((S.FAILED, point[1]), (S.CLEANING_UP, point[1])))
        moves.add(((S.CLEANING_UP, point[1]), (S.CANCELED, point[1])))
    moves.add(((S.VALIDATION_FAILED, B.VALIDATION_IN_PROGRESS), prerequisites))
    return frozenset(moves)


LEGAL = _legal()


def check_move(old: tuple[State, Substate], new: tuple[State, Substate]) -> None:
    """Refuse a move that is not legal; staying where one is always is.

    :raises IllegalTransition: naming both points.
    """
    if old != new and (old, new) not in LEGAL:
        raise IllegalTransition(f"A migration cannot go from {old[0].value}/{old[1].value} to {new[0].value}/{new[1].value}.")


def cancel_hint(state: State) -> str:
    """What to do about a migration that has ended and cannot be canceled (R103)."""
    if state is State.FAILED:
        return "Play migrate to go on where it broke off, or cleanup to end it and to remove what it made."
    return "Nothing is left to cancel."
