# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What is known of a migration, for whoever asks: its record, the live figures of its service, and where its way back stands."""

from __future__ import annotations

import typing as t
from pathlib import Path

from ..migration.back import back_key
from ..migration.catalogue import MARKS, Catalogue, now
from ..migration.clock import mark, span
from ..migration.paths import MigrationPaths, read_json
from ..migration.states import ACTIVE, State
from ..monitor.text import seconds_of, set_text, way_back_text
from ..spec import Endpoint
from . import launcher
from .sets import FACT
from .status import aged, summarize


class Overview:
    """Puts statuses together; reads only.

    :param home: folder of all state.
    :param supervisor: who runs the services, as the status says it.
    """

    def __init__(self, home: Path, catalogue: Catalogue, supervisor: str) -> None:
        self._home, self._catalogue, self._supervisor = home, catalogue, supervisor

    def of(self, record: dict[str, t.Any]) -> dict[str, t.Any]:
        """All that is known of the migration of ``record``."""
        paths = MigrationPaths(self._home, record["key"])
        live = read_json(paths.status) or {}
        spec, facts = record["spec"], record["facts"]
        pid = launcher.running_pid(paths)
        status = {
            "key": record["key"],
            "name": record["name"],
            "state": record["state"],
            "substate": record["substate"],
            "mode": spec["mode"],
            "option": spec["option"],
            "source": spec["source"],
            "target": spec["target"],
            "databases": spec["databases"],
            "set": facts.get(FACT),
            "way_back": self._way_back(record),
            "created": record["created"],
            "started": record["started"],
            "ended": record["ended"],
            "duration_seconds": _duration(record),
            "error": record["error"],
            "prerequisites": facts.get("prerequisites"),
            "validation": facts.get("validation"),
            "notes": facts.get("notes") or {},
            "progress": _progress(live, running=pid is not None),
            "plugin": live.get("plugin") or {},
            "cutover": facts.get("cutover"),
            "switched": facts.get("switched") or {},
            "cutover_phase": live.get("cutover_phase") if pid is not None else None,
            "verification": facts.get("verification"),
            "unproven": facts.get("unproven") or {},
            "verified": facts.get("verified"),
            "canceled": facts.get("canceled"),
            "globals": facts.get("globals"),
            "after": facts.get("after"),
            "monitor": spec.get("monitor"),
            "events": record["events"],
            "engine": live.get("engine"),
            "service": {"running": pid is not None, "pid": pid, "supervisor": self._supervisor},
            "files": {
                "log": str(paths.log),
                "report": str(paths.folder / "certificate.json"),
                "validation": str(paths.folder / "validation.html"),
                "page": str(paths.page),
            },
        }
        status["summary"] = "  ".join(part for part in (summarize(status), set_text(status), way_back_text(status)) if part)
        if State(record["state"]) in ACTIVE and pid is None:
            status["summary"] += f"  (the service does not run: play {'cutover' if spec.get('back_of') else 'migrate'} again)"
        return status

    def _way_back(self, record: t.Mapping[str, t.Any]) -> dict[str, t.Any] | None:
        """Where the way back of a migration that was cut over stands; None where it has none."""
        spec = record["spec"]
        if spec.get("rollback") != "prepared" or not (record["facts"].get("cutover") or {}).get("released_at"):
            return None
        key = back_key(record["name"], Endpoint.at(spec["source"]["host"], spec["source"]["port"]))
        back = self._catalogue.get(key)
        if back is None:
            return {"migration": key, "state": "prepared", "latency_seconds": None, "running": False}
        running = launcher.running_pid(MigrationPaths(self._home, key)) is not None
        figures = _progress(read_json(MigrationPaths(self._home, key).status) or {}, running=running)
        known = [one.get("latency_seconds") for one in figures.values()]
        latency = max(known) if known and None not in known else None
        return {"migration": back["name"], "state": back["state"], "latency_seconds": latency, "running": running}


def _progress(live: t.Mapping[str, t.Any], *, running: bool) -> dict[str, t.Any]:
    """The figures of each database as they are now: those that a dead service left have grown old (R91)."""
    known = live.get("progress") or {}
    if running or not live.get("written"):
        return known
    seconds = span(live.get("mark"), mark(), _between_stamps(live["written"], now()))
    return {database: aged(figures, seconds) for database, figures in known.items()}


def _between_stamps(begin: str, end: str) -> float:
    return float(seconds_of(end) or 0) - float(seconds_of(begin) or 0)


def _duration(record: dict[str, t.Any]) -> float:
    """Seconds from start to end, or to now while it is active (R87)."""
    marks = record["facts"].get(MARKS) or {}
    end = marks.get("ended") if record["ended"] else mark()
    return round(span(marks.get("began"), end, _between_stamps(record["started"], record["ended"] or now())), 1)
