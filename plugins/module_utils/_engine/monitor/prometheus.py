# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The status of a migration in Prometheus' text format 0.0.4, for the textfile collector of node_exporter.

Names and units follow Prometheus' rules (https://prometheus.io/docs/practices/naming/): base units, ``_total`` on counters only. What is
not known is left out: no value is made up. The format has no timestamps, because the collector refuses them; when the file was written is
a metric of its own.
"""

from __future__ import annotations

import typing as t

from ..migration.states import State, Substate
from .text import seconds_of

PREFIX = "pg_migration_"
KINDS = {"inserts": "insert", "updates": "update", "deletes": "delete", "truncates": "truncate"}

_OF_DATABASE: tuple[tuple[str, str, str, str], ...] = (
    ("copy_size_bytes", "gauge", "bytes_total", "Bytes of the source's tables that the base copy has to bring over."),
    ("copy_done_bytes", "gauge", "bytes_done", "Bytes of the source's tables that the base copy has brought over."),
    ("copy_done_rows", "gauge", "rows_done", "Rows that the base copy has brought over."),
    ("copy_moved_bytes", "gauge", "bytes_moved", "Bytes of COPY that went through the runtime host since the service began."),
    ("copy_chunks", "gauge", "chunks_total", "Pieces that the base copy is cut into."),
    ("copy_done_chunks", "gauge", "chunks_done", "Pieces that the base copy has brought over."),
    ("copy_eta_seconds", "gauge", "eta_seconds", "Seconds until all rows are copied and the indexes built, at the present rate."),
    ("large_objects", "gauge", "large_objects_total", "Large objects that the base copy has to bring over."),
    ("large_objects_done", "gauge", "large_objects_done", "Large objects that the base copy has brought over."),
    ("large_objects_done_bytes", "gauge", "large_object_bytes", "Bytes of large objects brought over since the service began."),
    ("indexes", "gauge", "indexes_total", "Indexes to be built on the target."),
    ("indexes_done", "gauge", "indexes_done", "Indexes built on the target."),
    ("changes_received_total", "counter", "incoming", "Changes received from the source since the service began."),
    ("apply_fallbacks_total", "counter", "fallbacks", "Batches applied row by row since the service began."),
    ("latency_seconds", "gauge", "latency_seconds", "Age of the last source commit that the target has."),
    ("lag_bytes", "gauge", "lag_bytes", "Bytes of WAL between the source's end and what the target has."),
    ("retained_wal_bytes", "gauge", "retained_wal_bytes", "Bytes of WAL that the replication slot holds on the source."),
    ("slot_safe_wal_bytes", "gauge", "safe_wal_bytes", "Bytes of WAL that may still be written before the slot is lost."),
    ("source_room_bytes", "gauge", "source_room_bytes", "Free bytes on the disk of the source, where that can be known."),
    ("spool_bytes", "gauge", "spool_bytes", "Bytes of changes on the runtime host's disk."),
    ("catch_up_seconds", "gauge", "eta_catch_up_seconds", "Seconds until the target has caught up, at the present pace."),
)
"""Metric, type, key of the progress figures, help."""

Labels = t.Mapping[str, str]


class Exposition:
    """Collects samples by metric and writes each metric once, with its HELP and TYPE first."""

    def __init__(self, labels: Labels) -> None:
        self._labels = dict(labels)
        self._families: dict[str, tuple[str, str, list[str]]] = {}

    def add(self, name: str, kind: str, text: str, value: t.Any, /, **labels: str) -> None:
        """One sample; None as ``value`` adds nothing."""
        if value is None:
            return
        lines = self._families.setdefault(PREFIX + name, (kind, text, []))[2]
        pairs = ",".join(f'{label}="{_escape(content)}"' for label, content in {**self._labels, **labels}.items())
        lines.append(f"{PREFIX}{name}{{{pairs}}} {_number(value)}")

    def text(self) -> str:
        """All of it."""
        parts = []
        for name, (kind, text, lines) in self._families.items():
            parts += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *lines]
        return "\n".join(parts) + "\n"


def render(status: t.Mapping[str, t.Any], written: float) -> str:
    """The file for one migration.

    :param written: the present moment, seconds since the epoch.
    """
    target = status["target"]
    out = Exposition({"migration": status["name"], "target": f"{target['host']}:{target['port']}"})
    _head(out, status, written)
    for database, figures in (status.get("progress") or {}).items():
        _database(out, database, figures)
    _ends(out, status)
    return out.text()


def _head(out: Exposition, status: t.Mapping[str, t.Any], written: float) -> None:
    source = status["source"]
    out.add(
        "info", "gauge", "What the migration is; always 1.", 1,
        mode=status["mode"], type=status["option"], source=f"{source['host']}:{source['port']}", source_type=source["type"],
        target_type=status["target"]["type"], key=status["key"], engine=str(status.get("engine") or ""),
    )  # fmt: skip
    for state in State:
        out.add("state", "gauge", "1 for the state that the migration is in.", int(status["state"] == state.value), state=state.value)
    for sub in Substate:
        text = "1 for the substate that the migration is in."
        out.add("substate", "gauge", text, int(status["substate"] == sub.value), substate=sub.value)
    out.add("service_up", "gauge", "Whether the service of the migration runs.", int(bool((status.get("service") or {}).get("running"))))
    out.add("started_timestamp_seconds", "gauge", "When the migration began.", seconds_of(status["started"]))
    out.add("ended_timestamp_seconds", "gauge", "When the migration ended.", seconds_of(status["ended"]))
    out.add("duration_seconds", "gauge", "Seconds since the migration began, or until it ended.", status["duration_seconds"])
    out.add("written_timestamp_seconds", "gauge", "When this file was written.", round(written, 3))


def _database(out: Exposition, database: str, figures: t.Mapping[str, t.Any]) -> None:
    for state in ("queued", "loading", "complete", "errored"):
        out.add("tables", "gauge", "Tables by the state of their copy.", figures.get(f"tables_{state}"), database=database, state=state)
    for name, kind, key, text in _OF_DATABASE:
        out.add(name, kind, text, figures.get(key), database=database)
    stalled = (figures.get("stalled") or {}).get("seconds", 0.0)
    out.add(
        "stalled_seconds",
        "gauge",
        "Seconds for which nothing has moved though there is work; 0 while it moves.",
        stalled,
        database=database,
    )
    for key, change in KINDS.items():
        text = "Changes applied to the target since the service began."
        out.add("changes_applied_total", "counter", text, figures.get(key), database=database, kind=change)


def _ends(out: Exposition, status: t.Mapping[str, t.Any]) -> None:
    validation = status.get("validation") or {}
    if validation:
        severities = [finding.get("severity") for finding in validation.get("findings") or []]
        for severity in ("Succeeded", "Warning", "Failed"):
            text = "Findings of the validation by severity."
            out.add("validation_findings", "gauge", text, severities.count(severity), severity=severity)
    cutover = status.get("cutover") or {}
    out.add("cutover_pause_seconds", "gauge", "Seconds in which nobody could write.", cutover.get("pause_seconds"))
    for phase in cutover.get("phases") or []:
        out.add("cutover_phase_seconds", "gauge", "Seconds of each phase of the cutover.", phase["seconds"], phase=str(phase["name"]))
    for database, result in ((status.get("verification") or {}).get("databases") or {}).items():
        text = "Whether every row of the target equals the source's as of the cutover."
        out.add("verified_equal", "gauge", text, int(bool(result.get("equal"))), database=database)
        out.add("verified_rows", "gauge", "Rows compared after the cutover.", result.get("rows"), database=database)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: t.Any) -> str:
    return str(int(value)) if isinstance(value, (bool, int)) else repr(float(value))
