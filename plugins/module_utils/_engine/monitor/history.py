# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Samples of a migration over its whole run, in bounded space: what the curves of the page are drawn from.

When there are more than :data:`MOST` samples, neighbours are merged and the period between two samples doubles, so that a run of minutes
and one of weeks both have some hundreds. Peaks of latency and retained WAL survive the merging.
"""

from __future__ import annotations

import dataclasses
import typing as t
from pathlib import Path

from ..migration.paths import read_json, write_json

MOST = 600
"""Samples that are kept."""

PERIOD = 2.0
"""Seconds between two samples at the beginning."""


COPY_KEYS = ("copied", "bytes_total", "bytes_done", "rows_done", "chunks_total", "chunks_done", "indexes_total", "indexes_done",
             "tables_queued", "tables_loading", "tables_complete", "tables_errored",
             "large_objects_total", "large_objects_done", "large_object_bytes")  # fmt: skip
"""Figures of a base copy, which a service that starts again after it does not hear any more."""


@dataclasses.dataclass
class Sample:
    """One look, all databases together. ``moment`` seconds since the epoch; ``moved`` bytes of COPY and ``applied`` changes since the
    service began; ``latency`` (seconds) and ``retained`` (bytes of WAL) of the worst database, None where not known."""

    moment: float
    substate: str
    moved: int
    applied: int
    latency: float | None
    retained: int | None

    def merged(self, later: Sample) -> Sample:
        """Both as one: counters of the later, peaks of both."""
        return dataclasses.replace(later, latency=_peak(self.latency, later.latency), retained=_peak(self.retained, later.retained))


def look(status: t.Mapping[str, t.Any], moment: float) -> Sample:
    """The sample that a status dict gives."""
    databases = list((status.get("progress") or {}).values())
    streams = [figures for figures in databases if figures.get("phase") == "streaming"]
    latencies = [figures.get("latency_seconds") for figures in streams]
    retained = [int(figures["retained_wal_bytes"]) for figures in databases if figures.get("retained_wal_bytes") is not None]
    known = [float(value) for value in latencies if value is not None]
    return Sample(
        moment=round(moment, 1),
        substate=str(status.get("substate") or ""),
        moved=sum(int(figures.get("bytes_moved") or 0) for figures in databases),
        applied=sum(int(figures.get("applied") or 0) for figures in databases),
        latency=max(known) if known and len(known) == len(latencies) else None,
        retained=max(retained) if retained else None,
    )


class History:
    """The samples of one migration, kept in the file ``path``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.period = PERIOD
        self.samples: list[Sample] = []
        self.copies: dict[str, dict[str, t.Any]] = {}
        self._read()

    def _read(self) -> None:
        data = read_json(self._path)
        if data:
            self.period = float(data["period"])
            self.samples = [Sample(*row) for row in data["samples"]]
            self.copies = data["copies"]

    def keep_copies(self, status: t.Mapping[str, t.Any]) -> None:
        """Remember the figures of each database's base copy, or give them back to a status that has none."""
        for database, figures in (status.get("progress") or {}).items():
            if "bytes_total" in figures:
                self.copies[database] = {key: figures[key] for key in COPY_KEYS if key in figures}
            elif database in self.copies:
                figures.update(self.copies[database])

    def add(self, sample: Sample) -> bool:
        """Keep ``sample`` unless the last is younger than the period; was it kept? A new substate is kept in any case."""
        last = self.samples[-1] if self.samples else None
        if last and sample.substate == last.substate and sample.moment - last.moment < self.period:
            return False
        self.samples.append(sample)
        if len(self.samples) > MOST:
            self._thin()
        return True

    def _thin(self) -> None:
        """Merge neighbours of one substate, two by two; where hardly any are, the older half goes."""
        thinned: list[Sample] = []
        left = list(reversed(self.samples))
        while left:
            sample = left.pop()
            if left and left[-1].substate == sample.substate:
                sample = sample.merged(left.pop())
            thinned.append(sample)
        self.period *= 2
        self.samples = thinned if len(thinned) <= MOST * 3 // 4 else thinned[-MOST // 2 :]

    def to_list(self) -> list[dict[str, t.Any]]:
        """The samples as plain data."""
        return [dataclasses.asdict(sample) for sample in self.samples]

    def save(self) -> None:
        """Write the file."""
        rows = [list(dataclasses.astuple(sample)) for sample in self.samples]
        write_json(self._path, {"period": self.period, "samples": rows, "copies": self.copies}, durable=False)


def _peak(one: t.Any, other: t.Any) -> t.Any:
    known = [value for value in (one, other) if value is not None]
    return max(known) if known else None
