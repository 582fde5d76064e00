# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Whether the target can be what the source is: the server that changes are read from, for the way back."""

from __future__ import annotations

import dataclasses
import typing as t

from ..migration.back import back_spec
from .context import Context
from .registry import CHECKS, SUCCEEDED, Issue, check, ok

INSTANCE = ("PGM2101", "PGM2102", "PGM2103", "PGM2105", "PGM2109")
"""Checks of a source that the target must pass, too."""

DATABASE = ("PGM2106", "PGM2206")
"""And those of a database, once it is there."""


@check("PGM2216", "way back", side="target", online=True, remedy="prepare the target as a source is, or rollback: none", order=80)
def way_back(ctx: Context) -> t.Iterator[Issue]:
    """Where ``rollback: prepared`` is asked for, the target can be read as a source is: ``wal_level``, slots, senders, REPLICATION."""
    if ctx.spec.rollback != "prepared":
        yield ok("not asked for")
        return
    back = Context(back_spec(ctx.spec), ctx.home)
    back.databases = ctx.databases
    try:
        found = [issue for code in INSTANCE for issue in CHECKS[code].function(back) if issue.severity != SUCCEEDED]
    finally:
        back.close()
    for issue in found:
        yield dataclasses.replace(issue, message=f"for the way back, which reads from the target: {issue.message}")
    if not found:
        yield ok("the target can be read from")
