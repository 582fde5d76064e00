# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The counters of a change stream, by database and table (R86). No figure is made up: what is not known is none."""

from __future__ import annotations

import typing as t

from .._engine.postgres.lsn import format_lsn

Status = t.Dict[str, t.Any]
KINDS = ("inserts", "updates", "deletes", "truncates")
SHOWN = (
    "state",
    "phase",
    "tables_queued",
    "tables_loading",
    "tables_complete",
    "tables_errored",
    *KINDS,
    "incoming",
    "applied",
    "latency_seconds",
    "lag_bytes",
    "eta_catch_up_seconds",
    "verdict",
    "retained_wal_bytes",
    "wal_status",
    "applied_lsn",
    "received_lsn",
    "started",
    "ended",
    "message",
    "error",
)
"""What is told of each database."""


def by_database(status: Status) -> dict[str, dict[str, t.Any]]:
    """The figures of each database, with the counters of each of its tables."""
    told = {}
    for name, figures in status["progress"].items():
        facts = {key: figures.get(key) for key in SHOWN}
        for key in ("applied_lsn", "received_lsn"):
            facts[key] = format_lsn(facts[key]) if facts[key] else None
        facts["tables"] = _tables(figures)
        told[name] = facts
    return told


def _tables(figures: t.Mapping[str, t.Any]) -> dict[str, dict[str, int]]:
    error = (figures.get("error") or {}).get("details") or {}
    counted = dict(figures.get("tables") or {})
    if error.get("table"):
        counted.setdefault(error["table"], {})
    tables = {}
    for label, counts in sorted(counted.items()):
        numbers = {kind: int(counts.get(kind) or 0) for kind in KINDS}
        tables[label] = {**numbers, "applied": sum(numbers.values()), "errors": int(error.get("table") == label)}
    return tables


def applied_lsn(status: Status) -> int | None:
    """The position that the slowest database has come to; None as long as one is not known."""
    known = [figures.get("applied_lsn") for figures in status["progress"].values()]
    if not known or not all(known):
        return None
    return min(int(value) for value in known if value)
