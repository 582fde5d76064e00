# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""One migration as lines of text, for a terminal and for the playbook status."""

from __future__ import annotations

import typing as t

from .after import after_lines
from .notes import note_lines
from .text import (
    SHOWN_STATE,
    SHOWN_TYPE,
    Status,
    clock,
    columns,
    cutover_lines,
    duration,
    human_bytes,
    human_seconds,
    large_objects_text,
    set_text,
    stall_text,
    verified_text,
    way_back_text,
)

EVENTS = 5
"""Events that are shown, the newest."""


def detail_lines(status: Status) -> list[str]:
    """The details of one migration: where it stands, its databases, validation, cutover, what to see to, the last events."""
    kind = f"{SHOWN_TYPE.get(status['option'], status['option'])}, {status['mode']}"
    state = SHOWN_STATE.get(status["state"], status["state"])
    lines = [f"{status['name']}  {state} / {status['substate']}  {kind}  {duration(status['duration_seconds'])}"]
    lines += [f"  {text}" for text in (set_text(status), way_back_text(status), verified_text(status)) if text]
    for side in ("source", "target"):
        end = status[side]
        lines.append(f"  {side}  {end['type']:<16} {end['host']}:{end['port']} as {end['user']}, sslmode {end['sslmode']}")
    error = status.get("error")
    if error:
        lines += ["", f"{error.get('code', '')}  {error.get('message', '')}"]
        lines += [f"hint: {error['hint']}"] if error.get("hint") else []
    validation = status.get("validation")
    parts = [("Validation", [str(validation.get("summary") or validation["status"])] if validation else [])]
    parts += [
        ("Migration", _databases(status)),
        ("Notes of the copy", note_lines(status)),
        ("Cutover", cutover_lines(status)),
        ("Afterwards", after_lines(status)),
    ]
    events = (status.get("events") or [])[-EVENTS:]
    parts.append(("Events", [f"{clock(event['time'])}  {event['level']:<7}  {event['text']}" for event in events]))
    for title, shown in parts:
        lines += ["", title, *(f"  {line}" for line in shown)] if shown else []
    return lines


def _databases(status: Status) -> list[str]:
    progress: t.Mapping[str, t.Mapping[str, t.Any]] = status.get("progress") or {}
    if not progress:
        return []
    table = [["database", "phase", "copied", "tables", "indexes", "inserts", "updates", "deletes", "latency", "retained WAL"]]
    for name, figures in progress.items():
        total = int(figures.get("bytes_total") or 0)
        tables = sum(int(figures.get(f"tables_{state}") or 0) for state in ("queued", "loading", "complete", "errored"))
        table.append(
            [
                name,
                str(figures.get("phase") or ""),
                f"{human_bytes(int(figures.get('bytes_done') or 0))} of {human_bytes(total)}" if total else "",
                f"{figures.get('tables_complete') or 0} of {tables}",
                f"{figures.get('indexes_done') or 0} of {figures['indexes_total']}" if figures.get("indexes_total") else "",
                *(f"{int(figures.get(key) or 0):,}" for key in ("inserts", "updates", "deletes")),
                human_seconds(figures.get("latency_seconds")),
                "" if figures.get("retained_wal_bytes") is None else human_bytes(figures["retained_wal_bytes"]),
            ]
        )
    stalls = [f"{name}: {stall_text(figures['stalled'])}" for name, figures in progress.items() if figures.get("stalled")]
    large = [f"{name}: {text}" for name, figures in progress.items() if (text := large_objects_text(figures))]
    return [*columns(table), *large, *stalls]
