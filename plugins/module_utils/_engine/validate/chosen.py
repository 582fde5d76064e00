# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What ``copy.schemas``, ``copy.tables`` and ``copy.exclude`` choose, and in which format the chosen tables are copied."""

from __future__ import annotations

import typing as t

from ..errors import CopyError
from ..postgres.catalog import read_tables
from ..snapshot.formats import Types
from ..snapshot.selected import select
from .context import Context
from .registry import PLAYBOOK, Issue, check, fail, names, ok

SHOWN_TYPES = 3
"""Types that are named for each table."""


@check(
    "PGM2319",
    "chosen tables",
    who=PLAYBOOK,
    scope="database",
    remedy="choose what the chosen tables need too: copy.schemas, copy.tables, copy.exclude",
)
def selection(ctx: Context) -> t.Iterator[Issue]:
    """The patterns of ``copy`` choose something, and nothing that needs what they leave out; what goes with it is named."""
    if ctx.selection.everything:
        yield ok("everything")
        return
    try:
        selected = select(ctx.source, ctx.selection, read_tables(ctx.source))
    except CopyError as exc:
        yield fail(f"{exc.message} ({exc.code})", exc.hint, object=ctx.database, data=exc.details or None)
        return
    notes = selected.notes()
    yield ok(f"{len(selected.tables)} table(s). {' '.join(notes)}".strip(), data={"left_out": notes})


@check("PGM2320", "format of the copy", who=PLAYBOOK, scope="database", worst="Succeeded", remedy="none: text is slower and as exact")
def formats(ctx: Context) -> t.Iterator[Issue]:
    """Tables that are copied as text, with the types whose binary form does not mean the same on every server."""
    if ctx.spec.copy.format == "text":
        yield ok("text for all tables, as copy.format says")
        return
    types = Types(ctx.source)
    found: dict[str, list[str]] = {}
    for table in (table for table in ctx.tables() if table.kind == "r"):
        strange = list(dict.fromkeys(c.type for c in table.stored_columns if not types.portable(c.type_oid)))
        if strange:
            found[table.label] = strange
    if found:
        listed = names(f"{label} ({names(some, SHOWN_TYPES)})" for label, some in found.items())
        yield ok(f"{len(found)} table(s) are copied as text because of their types: {listed}", data=found)
    else:
        yield ok("binary, where the target's columns are the same")
