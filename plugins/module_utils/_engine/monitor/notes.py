# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What the copy left out or adapted, as a part of the page and as lines of text."""

from __future__ import annotations

import typing as t

from .markup import Html, el
from .parts import folded, table
from .text import Status

SHOWN = 12
"""Notes that are shown at once."""


def _pairs(status: Status) -> list[tuple[str, str]]:
    return [(database, text) for database, texts in (status.get("notes") or {}).items() for text in texts]


def notes_part(status: Status) -> Html | None:
    """A row a note."""
    pairs = _pairs(status)
    if not pairs:
        return None

    def rows(some: t.Sequence[tuple[str, str]]) -> Html:
        return table(("Database", "What was left out or adapted"), some, texts=(1,))

    return el("div", el("h3", "Notes of the copy"), folded("notes", pairs, SHOWN, rows, "more notes"), cls="card")


def note_lines(status: Status) -> list[str]:
    """A line a note."""
    return [f"{database}: {text}" for database, text in _pairs(status)]
