# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Server parameters: what the source sets and the target has otherwise (R40, R41). Nothing is ever changed here."""

from __future__ import annotations

import typing as t

from ..globals.parameters import ParameterDifference, compare
from .context import Context
from .registry import SERVER, Issue, check, names, ok, warn


@check(
    "PGM2510",
    "server parameters",
    who=SERVER,
    side="target",
    needs=("source", "target"),
    worst="Warning",
    remedy="set them on the target where they are wanted",
)
def differences(ctx: Context) -> t.Iterator[Issue]:
    """Parameters that the source sets and the target has otherwise; as data for the provider's command line as well (R40, R41)."""
    found = compare(ctx.settings("source"), ctx.settings("target"), ctx.profile("target"))
    if not found:
        yield ok("no difference", data=[])
        return
    kinds = {
        "copy": "to copy",
        "size": "to fit to the target's size",
        "read_only": "kept by the provider",
        "unknown": "unknown to the target",
    }
    parts = []
    for kind, words in kinds.items():
        some = [d for d in found if d.kind == kind]
        if some:
            parts.append(f"{len(some)} {words}: {names(f'{d.name} = {d.source}{_unit(d)} (target {d.target})' for d in some)}")
    first = next((d for d in found if d.kind == "copy"), next((d for d in found if d.settable), None))
    restart = [d.name for d in found if d.restart and d.settable]
    fix = f"Where wanted, as {ctx.profile('target').who} of the target: {first.command}; ..." if first else ""
    fix += f" Restart needed for {names(restart)}." if restart else " No restart."
    yield warn("; ".join(parts), fix, object=found[0].name, data=[d.to_dict() for d in found], restart=bool(restart))


def _unit(difference: ParameterDifference) -> str:
    return f" {difference.unit}" if difference.unit else ""
