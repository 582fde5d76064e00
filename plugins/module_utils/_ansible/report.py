# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Text for people: the grid of migrations, the details of one, the story of a cutover. No figure is made here, only shown."""

from __future__ import annotations

import typing as t

from .._engine.errors import MigrationError

Status = t.Dict[str, t.Any]

SHOWN_STATE = {"ValidationFailed": "Validation Failed"}
"""A state that a list shows in other words than it is spelled (R80)."""

SHOWN_TYPE = {"validate": "validate", "migrate": "migrate", "validate_and_migrate": "validate and migrate"}
COLUMNS = (
    "Name",
    "Status",
    "Migration mode",
    "Migration type",
    "Source server",
    "Source server type",
    "Databases",
    "Duration",
    "Start time",
)
"""What the list shows, in this order (R73)."""

_KEYS = ("name", "status", "migration_mode", "migration_type", "source_server", "source_server_type", "databases", "duration", "start_time")


def duration(seconds: float | None) -> str:
    """``4360`` as ``1:12:40``."""
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def row(status: Status) -> dict[str, t.Any]:
    """One migration as the list shows it."""
    return {
        "name": status["name"],
        "status": SHOWN_STATE.get(status["state"], status["state"]),
        "substate": status["substate"],
        "migration_mode": status["mode"],
        "migration_type": SHOWN_TYPE.get(status["option"], status["option"]),
        "source_server": status["source"]["host"],
        "source_server_type": status["source"]["type"],
        "databases": list(status["databases"]),
        "duration": duration(status["duration_seconds"]),
        "start_time": status["started"],
    }


def grid(statuses: t.Sequence[Status]) -> list[str]:
    """The list of migrations as lines of text, its head first."""
    if not statuses:
        return ["No migrations yet."]
    table = [list(COLUMNS)]
    for status in statuses:
        shown = row(status)
        cells = [", ".join(v) if isinstance(v := shown[key], list) else str(v or "") for key in _KEYS]
        cells[-1] = cells[-1][:16].replace("T", " ")
        table.append(cells)
    widths = [max(len(line[n]) for line in table) for n in range(len(COLUMNS))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]


def details(status: Status) -> dict[str, t.Any]:
    """One migration in two parts that are complete on their own: validation and migration (R82)."""
    head = {k: status[k] for k in ("key", "name", "state", "substate", "mode", "option", "source", "target", "databases")}
    times = {k: status[k] for k in ("created", "started", "ended", "duration_seconds")}
    moved = ("progress", "plugin", "cutover", "verification", "canceled")
    migration = {**{k: status.get(k) for k in moved}, "state": status["state"], "substate": status["substate"], **times}
    rest = {k: status.get(k) for k in ("error", "events", "engine", "service", "files", "summary")}
    return {**head, **times, "validation": status.get("validation"), "migration": migration, **rest}


def cutover_lines(status: Status) -> list[str]:
    """What the cutover did, a line a phase, and how it ended."""
    cutover = status.get("cutover") or {}
    lines = [f"{phase['name']:<10} {phase['seconds']:>8.2f} s   {phase['text']}" for phase in cutover.get("phases") or []]
    verification = status.get("verification")
    if verification:
        tables = [table for result in verification["databases"].values() for table in result.get("tables", [])]
        equal = sum(1 for table in tables if table.get("equal"))
        seconds = sum(result.get("seconds") or 0 for result in verification["databases"].values())
        lines.append(f"{'verify':<10} {seconds:>8.2f} s   {equal} of {len(tables)} tables equal")
    pause = cutover.get("pause_seconds")
    paused = f" Writers were paused for {pause:.2f} s." if pause is not None else ""
    if cutover.get("released_at"):
        lines.append(f"{status['state']}.{paused} Certificate: {status['files']['report']}")
    return lines


def finding_lines(report: t.Mapping[str, t.Any] | None) -> list[str]:
    """The table of a validation report, see :meth:`..validate.report.Report.table`; empty before there is one."""
    return list((report or {}).get("table") or [])


def validation_error(report: t.Mapping[str, t.Any]) -> MigrationError:
    """The error that a failed validation is."""
    failed = [finding for finding in report.get("findings") or [] if finding.get("severity") == "Failed"]
    first = failed[0] if failed else {}
    return MigrationError(
        f"Validation failed: {len(failed)} finding(s); the first: {first.get('code', '')} {first.get('message', '')}".strip(),
        code=str(first.get("code") or "PGM2000"),
        hint=str(first.get("fix") or "Mend what the findings name, then run this again."),
    )
