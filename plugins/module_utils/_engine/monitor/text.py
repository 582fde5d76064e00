# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Text for people: the grid of migrations, the details of one, the story of a cutover. No figure is made here, only shown."""

from __future__ import annotations

import datetime
import typing as t

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


def stall_text(stall: t.Mapping[str, t.Any] | None) -> str:
    """A stall of a database's stream or copy (:mod:`..service.stall`) in words; empty for None."""
    return f"nothing has moved for {stall['seconds']:.0f} s: {stall['text']}" if stall else ""


def large_objects_text(figures: t.Mapping[str, t.Any]) -> str:
    """How far the copy of a database's large objects is; empty where there are none, or all are there."""
    total, done = int(figures.get("large_objects_total") or 0), int(figures.get("large_objects_done") or 0)
    return f"large objects {done:,} of {total:,}, {human_bytes(int(figures.get('large_object_bytes') or 0))}" if done < total else ""


def duration(seconds: float | None) -> str:
    """``4360`` as ``1:12:40``."""
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def human_bytes(count: float) -> str:
    """``count`` bytes for people: ``1.5 GB``."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.0f} B"


def human_seconds(seconds: float | None) -> str:
    """A span for people: ``0.31 s``, ``12.0 s``, ``2:05 min``, ``1:12:40``; empty for None."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"
    return duration(seconds)


def clock(stamp: str | None) -> str:
    """``2026-11-22T17:51:03.123Z`` as ``2026-11-22 17:51``; empty for None."""
    return (stamp or "")[:16].replace("T", " ")


def seconds_of(stamp: str | None) -> float | None:
    """A moment of the record (ISO 8601) in seconds since the epoch; None for None."""
    return datetime.datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp() if stamp else None


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


def cells(status: Status) -> list[str]:
    """The texts of :func:`row` in the order of :data:`COLUMNS`."""
    shown = row(status)
    texts = [", ".join(v) if isinstance(v := shown[key], list) else str(v or "") for key in _KEYS]
    return [*texts[:-1], clock(texts[-1])]


def grid(statuses: t.Sequence[Status], states: t.Sequence[str] = ()) -> list[str]:
    """The list of migrations as lines of text, its head first; ``states``: those that alone were asked for, empty for all."""
    if not statuses:
        return [f"No migration is {' or '.join(states)}." if states else "No migrations yet."]
    return columns([list(COLUMNS), *(cells(status) for status in statuses)])


def columns(table: t.Sequence[t.Sequence[str]]) -> list[str]:
    """Rows of texts as lines whose columns begin at the same place."""
    widths = [max(len(line[n]) for line in table) for n in range(len(table[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]


def details(status: Status) -> dict[str, t.Any]:
    """One migration in two parts that are complete on their own: validation and migration (R82)."""
    head = {k: status[k] for k in ("key", "name", "state", "substate", "mode", "option", "source", "target", "databases")}
    head.update({k: status.get(k) for k in ("set", "way_back", "verified", "prerequisites")})
    times = {k: status[k] for k in ("created", "started", "ended", "duration_seconds")}
    moved = ("notes", "progress", "plugin", "cutover", "switched", "verification", "unproven", "canceled", "after")
    migration = {**{k: status.get(k) for k in moved}, "state": status["state"], "substate": status["substate"], **times}
    rest = {k: status.get(k) for k in ("error", "events", "engine", "service", "files", "summary")}
    return {**head, **times, "validation": status.get("validation"), "migration": migration, **rest}


def set_text(status: Status) -> str:
    """Which set of databases this is, where there are more than one attempt takes; empty where it is the whole migration."""
    part = status.get("set")
    if not part:
        return ""
    following = "; play migrate for the next" if part["number"] < part["of"] and status["state"] == "Succeeded" else ""
    return f"set {part['number']} of {part['of']}, {len(part['databases'])} databases in all{following}"


WAY_BACK = {
    "prepared": "way back prepared: its stream starts when the migration has ended",
    "Succeeded": "rolled back: the source serves again",
    "Canceled": "way back given up",
    "Failed": "way back failed: it cannot be taken unless its error is mended, play finish to give it up",
}


def way_back_text(status: Status) -> str:
    """Whether there is a way back, and how near the source is; empty where none was prepared."""
    back = status.get("way_back")
    if not back:
        return ""
    if back["state"] in WAY_BACK:
        return WAY_BACK[back["state"]]
    latency = "not known" if back["latency_seconds"] is None else f"{back['latency_seconds']:.1f} s"
    stopped = "" if back.get("running", True) else "; its service does not run: play cutover again"
    return f"way back: pgops.migration.rollback (reverse stream {back['state']}, latency {latency}{stopped})"


def verified_text(status: Status, now: datetime.datetime | None = None) -> str:
    """What the last verification on demand found, and how old it is; empty where there was none."""
    verified = status.get("verified")
    if not verified:
        return ""
    age = (now or datetime.datetime.now(datetime.timezone.utc)) - datetime.datetime.fromisoformat(verified["time"].replace("Z", "+00:00"))
    point = f" as of LSN {', '.join(verified['lsn'].values())}" if verified["lsn"] else ""
    equal = "every row equal" if verified["complete"] else "all compared rows equal"
    found = equal if verified["equal"] else "DIFFERENT"
    return f"{found}{point}, {duration(max(0.0, age.total_seconds()))} ago ({verified['rows']:,} rows)"


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
    for database, reason in (status.get("unproven") or {}).items():
        lines.append(f"{'verify':<10} {'-':>8}     rows of {database} were not compared: {reason}")
    pause = cutover.get("pause_seconds")
    names = cutover.get("databases") or []
    only = f" {', '.join(names)} switched over." if status["state"] != "Succeeded" and len(names) < len(status["databases"]) else ""
    paused = f" Writers were paused for {pause:.2f} s." if pause is not None else ""
    if cutover.get("released_at"):
        lines.append(f"{status['state']}.{only}{paused} Certificate: {status['files']['report']}")
        lines += [text for text in (set_text(status), way_back_text(status)) if text]
    return lines


def finding_lines(report: t.Mapping[str, t.Any] | None) -> list[str]:
    """The table of a validation report, see :meth:`..validate.report.Report.table`; empty before there is one."""
    return list((report or {}).get("table") or [])
