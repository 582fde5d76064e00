# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""HTML that is escaped by construction: text becomes markup only through :func:`el`, which escapes it."""

from __future__ import annotations

import html
import typing as t


class Html(str):
    """A piece of markup; any other string is text."""


Child = t.Union[str, None, t.Iterable[t.Union[str, None]]]


def el(tag: str, /, *children: Child, **attributes: str | bool | None) -> Html:
    """The element ``tag``. Children are markup if they are :class:`Html`, text otherwise; None is nothing, an iterable its items.

    Attributes: ``cls`` is ``class``, underscores become hyphens, None and False leave one out, True gives one without a value.
    """
    shown = []
    for key, value in attributes.items():
        label = "class" if key == "cls" else key.rstrip("_").replace("_", "-")
        if value is True:
            shown.append(f" {label}")
        elif value is not None and value is not False:
            shown.append(f' {label}="{html.escape(str(value), quote=True)}"')
    if tag in ("meta", "col", "line", "rect", "path"):
        return Html(f"<{tag}{''.join(shown)}{'>' if tag in ('meta', 'col') else '/>'}")
    return Html(f"<{tag}{''.join(shown)}>{join(children)}</{tag}>")


def svg(tag: str, /, *children: Child, **attributes: str | bool | None) -> Html:
    """An SVG element that may have children, such as ``rect`` with a ``title``."""
    made = el("g", *children, **attributes)
    return Html(f"<{tag}{made[2:-4]}</{tag}>")


def join(children: t.Iterable[Child]) -> Html:
    """All of ``children`` in a row."""
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, str):
            parts.append(child if isinstance(child, Html) else html.escape(child, quote=True))
        else:
            parts.append(join(child))
    return Html("".join(parts))
