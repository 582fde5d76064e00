# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The live figures of a migration while it runs: what the children report, with rates, forecasts and the one line of progress."""

from __future__ import annotations

import collections
import time
import typing as t

from ..migration.catalogue import now

RATE_SECONDS = 20.0
"""Span over which rates are measured."""

KNOWN = {"tables_queued": 0, "tables_loading": 0, "tables_complete": 0, "tables_errored": 0, "inserts": 0, "updates": 0, "deletes": 0}
"""Counters that R86 wants from the beginning."""


class Progress:
    """Figures of one database."""

    def __init__(self) -> None:
        self.figures: dict[str, t.Any] = {
            **KNOWN,
            "incoming": 0,
            "applied": 0,
            "latency_seconds": None,
            "state": "InProgress",
            "phase": "queued",
            "started": None,
            "ended": None,
            "message": "",
        }
        self._samples: collections.deque[tuple[float, int]] = collections.deque()

    def merge(self, figures: t.Mapping[str, t.Any]) -> None:
        """Take newer figures over."""
        self.figures.update(figures)
        if "bytes_done" in figures:
            self._rate(int(figures["bytes_done"]))

    def phase(self, name: str) -> None:
        """The database has come to the phase ``name``."""
        self.figures["phase"] = name
        self.figures["started"] = self.figures["started"] or now()

    def _rate(self, done: int) -> None:
        moment = time.monotonic()
        self._samples.append((moment, done))
        while self._samples[0][0] < moment - RATE_SECONDS:
            self._samples.popleft()
        first = self._samples[0]
        if moment - first[0] >= 1:
            rate = (done - first[1]) / (moment - first[0])
            self.figures["rate_bytes_per_second"] = round(rate)
            left = int(self.figures.get("bytes_total", 0)) - done
            self.figures["eta_seconds"] = round(left / rate) if rate > 0 and left > 0 else (0 if left <= 0 else None)


def human_bytes(count: float) -> str:
    """``count`` bytes for people: ``1.5 GB``."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.0f} B"


def summarize(status: t.Mapping[str, t.Any]) -> str:
    """One line for the label of a loop: where it stands and how fast it goes."""
    if status.get("error"):
        return f"{status['state']}  {status['error']['message']}"
    parts = [status["substate"] if status["state"] in ("InProgress", "WaitingForUserAction") else status["state"]]
    progress: t.Mapping[str, t.Mapping[str, t.Any]] = status.get("progress") or {}
    if status["substate"] == "MigratingData":
        parts += [_copy_line(name, figures) for name, figures in progress.items() if figures.get("phase") != "streaming"][:3]
    if any(figures.get("phase") == "streaming" for figures in progress.values()):
        parts.append(_stream_line([figures for figures in progress.values() if figures.get("phase") == "streaming"]))
    return "  ".join(part for part in parts if part)


def _copy_line(name: str, figures: t.Mapping[str, t.Any]) -> str:
    if figures.get("phase") != "copying":
        return f"{name} {figures.get('phase')}"
    words = [name]
    if figures.get("chunks_total"):
        words.append(f"{figures.get('chunks_done', 0)} of {figures['chunks_total']} chunks")
        words.append(f"{human_bytes(figures.get('bytes_done', 0))} of {human_bytes(figures.get('bytes_total', 0))}")
    if figures.get("indexes_done"):
        words.append(f"indexes {figures['indexes_done']} of {figures.get('indexes_total', 0)}")
    if figures.get("rate_bytes_per_second"):
        words.append(f"{human_bytes(figures['rate_bytes_per_second'])}/s")
    if figures.get("eta_seconds"):
        words.append(f"ETA {figures['eta_seconds']} s")
    return "  ".join(words)


def _stream_line(databases: t.Sequence[t.Mapping[str, t.Any]]) -> str:
    known = [f["latency_seconds"] for f in databases if f.get("latency_seconds") is not None]
    latency = f"latency {max(known):.1f} s" if len(known) == len(databases) else "latency not known yet"
    applied = sum(int(f.get("applied") or 0) for f in databases)
    rate = sum(float(f.get("changes_per_second") or 0) for f in databases)
    return f"{latency}  {applied:,} changes applied  {rate:,.0f}/s"
