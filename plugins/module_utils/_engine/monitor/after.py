# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The part of page and text that says what to see to after a migration; the facts are collected by :mod:`..aftercare`."""

from __future__ import annotations

import typing as t

from .markup import Html, el
from .parts import Cell, folded, table
from .text import Status

SHOWN = 12
"""Things to do that are shown at once."""


def after_part(status: Status) -> Html | None:
    """What to see to, and where the databases are now."""
    after = status.get("after")
    if not after:
        return None
    to_do = after.get("to_do") or []
    card = el("h3", "Afterwards")
    todo = (
        folded("after", to_do, SHOWN, _to_do, "more things to see to")
        if to_do
        else el("p", "Statistics, indexes and extensions are as they should be.")
    )
    links = after.get("connections") or {}
    rows: list[list[Cell]] = [[name, el("code", link["uri"]), el("code", link["dsn"])] for name, link in links.items()]
    where = table(("Database", "URI (user and password stay your own)", "libpq"), rows, texts=(1, 2)) if rows else None
    return el("div", card, todo, el("div", where, style="margin-top:12px") if where else None, cls="card")


def _to_do(items: t.Sequence[t.Mapping[str, t.Any]]) -> Html:
    rows: list[list[Cell]] = []
    for item in items:
        command = el("code", str(item["command"]), cls="fix") if item.get("command") else None
        color = "amber" if item.get("level") == "warning" else "grey"
        rows.append(
            [
                str(item["topic"]),
                el("span", str(item.get("level") or ""), cls=f"word {color}"),
                str(item.get("database") or "server"),
                el("div", str(item["text"]), command),
            ]
        )
    return table(("Topic", "Level", "Scope", "What to do"), rows, texts=(3,))


def after_lines(status: Status) -> list[str]:
    """The same as lines of text; empty before the migration has succeeded."""
    after = status.get("after") or {}
    lines = []
    for item in after.get("to_do") or []:
        scope = f"{item['database']}: " if item.get("database") else ""
        lines.append(f"{item.get('level', 'hint'):<8} {item['topic']:<12} {scope}{item['text']}")
        if item.get("command"):
            lines.append(" " * 22 + item["command"])
    for database, link in (after.get("connections") or {}).items():
        lines.append(f"{'connect':<8} {database:<12} {link['uri']}")
    return lines
