# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The live figures of a migration while it runs: what the children report, with rates, forecasts and the one line of progress."""

from __future__ import annotations

import collections
import time
import typing as t

from ..migration.catalogue import now
from ..monitor.text import human_bytes, large_objects_text, stall_text
from .copyforecast import CopyForecast

RATE_SECONDS = 20.0
"""Span over which rates are measured."""

FORECAST_SECONDS = 5.0
"""Span below which no forecast is made: batches come in steps."""

NEAR_SECONDS = 2.0
"""Latency at which the target has caught up."""

STALE_SECONDS = 2.0
"""Age from which on figures of a stream are not taken as they are: who makes them may be dead."""

FOLLOWING = ("streaming", "copied", "finished")
"""Phases of a database whose rows are on the target."""

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
            "stalled": None,
            "error": None,
        }
        self._told_at = time.monotonic()
        self._forecast = Forecast()
        self._copy = CopyForecast()

    def merge(self, figures: t.Mapping[str, t.Any]) -> None:
        """Take newer figures over; ``copied`` names only the tables that have changed."""
        copied = {**self.figures.get("copied", {}), **figures.get("copied", {})}
        self.figures.update(figures)
        if copied:
            self.figures["copied"] = copied
        if "latency_seconds" in figures:
            self._told_at = time.monotonic()
        if "bytes_done" in figures or "index_work_done" in figures:
            self._copy.add(time.monotonic(), self.figures)
            if self._copy.rate is not None:
                self.figures["rate_bytes_per_second"] = self._copy.rate
        if "applied_lsn" in figures and self.figures.get("source_lsn"):
            self._forecast.add(time.monotonic(), self.figures)
            eta, verdict = self._forecast.judge(self.figures)
            self.figures.update(eta_catch_up_seconds=eta, verdict=verdict)

    def phase(self, name: str) -> None:
        """The database has come to the phase ``name``."""
        self.figures["phase"] = name
        self.figures["started"] = self.figures["started"] or now()

    def present(self) -> dict[str, t.Any]:
        """The figures as they are now, whether or not anybody still reports them."""
        moment = time.monotonic()
        if self.figures["phase"] == "copying" and "bytes_total" in self.figures:
            self.figures["eta_seconds"] = self._copy.seconds(moment, self.figures)
        elif "eta_seconds" in self.figures:
            self.figures["eta_seconds"] = 0 if self.figures["phase"] in FOLLOWING else None
        return aged(self.figures, moment - self._told_at)


def aged(figures: t.Mapping[str, t.Any], seconds: float) -> dict[str, t.Any]:
    """``figures`` that were told ``seconds`` ago: while nobody tells newer ones, nothing is applied and the latency grows (R91)."""
    known = figures.get("latency_seconds")
    if seconds <= STALE_SECONDS or figures.get("phase") == "finished" or known is None:
        return dict(figures)
    return {**figures, "latency_seconds": round(float(known) + seconds, 3), "changes_per_second": 0.0}


class Sample(t.NamedTuple):
    """Where a stream stood at ``moment`` (seconds): WAL positions in bytes, and whether the walsender was waiting for its reader."""

    moment: float
    source: int
    received: int
    applied: int
    waits: bool


class Forecast:
    """When the target will have caught up, from the pace at which the source writes WAL and the target gets through it; both in bytes of
    WAL, so that they can be compared."""

    def __init__(self) -> None:
        self._samples: collections.deque[Sample] = collections.deque()

    def add(self, moment: float, figures: t.Mapping[str, t.Any]) -> None:
        """Take the present figures of a database."""
        source, received, applied = (int(figures.get(name) or 0) for name in ("source_lsn", "received_lsn", "applied_lsn"))
        self._samples.append(Sample(moment, source, received, applied, bool(figures.get("sender_waits"))))
        while self._samples[0].moment < moment - RATE_SECONDS:
            self._samples.popleft()

    def judge(self, figures: t.Mapping[str, t.Any]) -> tuple[float | None, str]:
        """Seconds until the target has caught up (None: not known, or never at this pace), and the verdict in words."""
        first, last = self._samples[0], self._samples[-1]
        latency = figures.get("latency_seconds")
        if latency is not None and latency <= NEAR_SECONDS:
            return 0.0, "caught up"
        span = last.moment - first.moment
        if span < FORECAST_SECONDS:
            return None, "not known yet"
        incoming, done = (last.source - first.source) / span, (last.applied - first.applied) / span
        left = max(0, last.source - last.applied)
        if done > incoming:
            return round(left / (done - incoming), 1), "catching up"
        return None, f"will not catch up: {self._limit(figures)} is the limit"

    def _limit(self, figures: t.Mapping[str, t.Any]) -> str:
        """The side that holds the stream up: the one before which the most has piled up."""
        last = self._samples[-1]
        if figures.get("receiver") == "reconnecting":
            return "the connection to the source"
        if figures.get("paused") or last.received - last.applied >= last.source - last.received:
            return "target apply"
        waiting = sum(sample.waits for sample in self._samples)
        return "network or receiver" if 2 * waiting > len(self._samples) else "source decoding"


def summarize(status: t.Mapping[str, t.Any]) -> str:
    """One line for the label of a loop: where it stands and how fast it goes."""
    if status.get("error"):
        database = (status["error"].get("details") or {}).get("database")
        return "  ".join([str(status["state"]), *([f"{database}:"] if database else []), status["error"]["message"]])
    if status["state"] not in ("InProgress", "WaitingForUserAction"):
        return str(status["state"])
    parts = [status["substate"]]
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
    if large := large_objects_text(figures):
        words.append(large)
    if figures.get("indexes_done"):
        words.append(f"indexes {figures['indexes_done']} of {figures.get('indexes_total', 0)}")
    if figures.get("rate_bytes_per_second"):
        words.append(f"{human_bytes(figures['rate_bytes_per_second'])}/s")
    if figures.get("eta_seconds"):
        words.append(f"ETA {figures['eta_seconds']} s")
    if figures.get("stalled"):
        words.append(stall_text(figures["stalled"]))
    return "  ".join(words)


def _stream_line(databases: t.Sequence[t.Mapping[str, t.Any]]) -> str:
    known = [f["latency_seconds"] for f in databases if f.get("latency_seconds") is not None]
    latency = f"latency {max(known):.1f} s" if len(known) == len(databases) else "latency not known yet"
    applied = sum(int(f.get("applied") or 0) for f in databases)
    rate = sum(float(f.get("changes_per_second") or 0) for f in databases)
    stalled = [stall_text(f["stalled"]) for f in databases if f.get("stalled")]
    broken = [str(f["message"]) for f in databases if f.get("receiver") == "reconnecting" and f.get("message")]
    return "  ".join([f"{latency}  {applied:,} changes applied  {rate:,.0f}/s", *(broken[:1] or stalled[:1] or _outlook(databases))])


def _outlook(databases: t.Sequence[t.Mapping[str, t.Any]]) -> list[str]:
    """The worst forecast of all databases, where there is something to say."""
    never = [str(f["verdict"]) for f in databases if str(f.get("verdict", "")).startswith("will not")]
    if never:
        return never[:1]
    waiting = [float(f["eta_catch_up_seconds"]) for f in databases if f.get("eta_catch_up_seconds")]
    return [f"caught up in {max(waiting):.0f} s"] if waiting else []
