# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Seconds, CPU seconds and memory of a subject and of the servers; and the results as people and as programs read them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import servers as lab

UNITS = {
    "seconds": "s",
    "rate": "changes/s",
    "cpu_seconds": "s",
    "rss_bytes": "B",
    "pause_seconds": "s",
    "start_seconds": "s",
    **{f"cpu_{name}": "s/million changes" for name in ("source", "receiver", "applier", "target", "all")},
    **dict.fromkeys(("p50", "p95", "p99", "worst"), "s"),
    "commit_rate": "commits/s",
    "client_cpu_seconds": "s",
    "client_cpu_per_gb": "s/GB",
    "client_cpu_per_table_gb": "s/GB of the table",
    "felt_seconds": "s",
    "lost": "commits",
    "row_rate": "rows/s",
    "byte_rate": "GB/s",
    "link_share": "of the link",
    "verifications": "",
    "tables_compared": "tables",
    "tables_busy": "tables",
    "rows_compared": "rows",
    "false_alarms": "tables",
    "longest_seconds": "s",
}
TICK = os.sysconf("SC_CLK_TCK")


class Skipped(Exception):
    """A peer that cannot run here, and why."""


@dataclasses.dataclass
class Use:
    """What a process used: CPU seconds of it and its children, resident bytes at most."""

    cpu_seconds: float = 0.0
    rss_bytes: int = 0

    def add(self, other: Use) -> None:
        """Another process of the same subject."""
        self.cpu_seconds += other.cpu_seconds
        self.rss_bytes = max(self.rss_bytes, other.rss_bytes)


def reap(process: subprocess.Popen[t.Any]) -> Use:
    """Wait for the end of ``process``; what it used.

    :raises RuntimeError: if it failed.
    """
    dummy, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{process.args} ended with {process.returncode}")
    return Use(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def run(words: t.Sequence[str | Path], log: Path, passfile: Path | None = None) -> Use:
    """Run a program to its end; its output goes to ``log``, the passwords come from ``passfile``."""
    environment = {**os.environ, **({"PGPASSFILE": str(passfile)} if passfile else {})}
    with log.open("ab") as out:
        process = subprocess.Popen(
            list(map(str, words)),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=environment,
            start_new_session=True,  # pgcopydb ends its whole process group when it fails
        )
    try:
        return reap(process)
    except RuntimeError as exc:
        raise RuntimeError(f"{exc}: {log.read_text(errors='replace')[-1500:]}") from None


def child(role: str, log: Path, **instructions: t.Any) -> subprocess.Popen[bytes]:
    """A part of the project in a process of its own (``child.py``). A copy begins at once; receiver and applier wait for :func:`go` and end
    when their input is closed."""
    script = Path(__file__).with_name("child.py")
    with log.open("ab") as out:
        process = subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out)
    stdin = t.cast("t.IO[bytes]", process.stdin)
    stdin.write(json.dumps({"role": role, **instructions}).encode() + b"\n")
    stdin.flush()
    return process


def ready(process: subprocess.Popen[bytes]) -> float:
    """Wait until a :func:`child` has loaded all that it needs; the CPU seconds that it took to.

    :raises RuntimeError: if it ended instead.
    """
    line = t.cast("t.IO[bytes]", process.stdout).readline()
    if not line:
        raise RuntimeError(f"{process.args} did not start")
    return float(line)


def go(process: subprocess.Popen[bytes]) -> None:
    """Let a :func:`child` begin."""
    stdin = t.cast("t.IO[bytes]", process.stdin)
    stdin.write(b"go\n")
    stdin.flush()


def close(process: subprocess.Popen[bytes]) -> Use:
    """Let a :func:`child` end; what it used."""
    with contextlib.suppress(BrokenPipeError):
        t.cast("t.IO[bytes]", process.stdin).close()
    return reap(process)


def server_cpu(*servers: lab.Server) -> float:
    """CPU seconds of the servers so far: the postmasters, their living children, and those that have ended."""
    total = 0
    pids = {server.pid for server in servers}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            words = stat.read_text().rsplit(")", 1)[1].split()
            own = int(stat.parent.name) in pids
            if own or int(words[1]) in pids:
                total += sum(map(int, words[11:15] if own else words[11:13]))
    return total / TICK


def plugins(results: Results, suite: str, source: lab.Server, wanted: str) -> list[str]:
    """The plugins to measure: ``wanted``, or all that the source has."""
    if wanted:
        return [wanted]
    if lab.has_wal2json(source.bindir):
        return ["pgoutput", "wal2json"]
    results.skip(suite, "wal2json", "project", "the source has no wal2json")
    return ["pgoutput"]


class Clock:
    """Wall and server CPU seconds since it was made."""

    def __init__(self, *servers: lab.Server) -> None:
        self.servers = servers
        self.cpu = server_cpu(*servers)
        self.began = time.monotonic()
        self.seconds = 0.0

    def stop(self) -> None:
        """The subject is done."""
        self.seconds = time.monotonic() - self.began

    def sample(self, use: Use | None = None) -> dict[str, float]:
        """The metrics of this run; ``use``: of the subject's own processes."""
        use = use or Use()
        cpu = server_cpu(*self.servers) - self.cpu + use.cpu_seconds
        return {"seconds": self.seconds, "cpu_seconds": cpu, **({"rss_bytes": use.rss_bytes} if use.rss_bytes else {})}


class Results:
    """Samples by case, subject and metric."""

    def __init__(self) -> None:
        self.samples: dict[tuple[str, str, str], dict[str, list[float]]] = {}
        self.skipped: list[dict[str, str]] = []

    def add(self, suite: str, case: str, subject: str, sample: t.Mapping[str, float]) -> None:
        """One run of ``subject``."""
        for metric, value in sample.items():
            self.samples.setdefault((suite, case, subject), {}).setdefault(metric, []).append(value)
        shown = {m: f"{value / 1e6:,.0f} MB" if m == "rss_bytes" else f"{value:,.2f}" for m, value in sample.items()}
        said = "  ".join(f"{metric} {text}" for metric, text in shown.items())
        sys.stdout.write(f"{suite}/{case:16} {subject:24} {said}\n")
        sys.stdout.flush()

    def skip(self, suite: str, case: str, subject: str, reason: str) -> None:
        """``subject`` cannot run."""
        self.skipped.append({"suite": suite, "case": case, "subject": subject, "skipped": " ".join(reason.split())[:500]})
        sys.stdout.write(f"{suite}/{case:16} {subject:24} skipped: {self.skipped[-1]['skipped']}\n")

    def median(self, suite: str, case: str, subject: str, metric: str) -> float | None:
        """The median, or None without a sample."""
        values = self.samples.get((suite, case, subject), {}).get(metric)
        return statistics.median(values) if values else None

    def to_list(self) -> list[dict[str, t.Any]]:
        """As ``--json`` writes them."""
        rows: list[dict[str, t.Any]] = []
        for (suite, case, subject), metrics in self.samples.items():
            for metric, values in metrics.items():
                rounded = [round(v, 4) for v in values]
                head = {"suite": suite, "case": case, "subject": subject, "metric": metric, "unit": UNITS[metric]}
                rows.append({**head, "median": statistics.median(rounded), "samples": rounded})
        return rows + list(self.skipped)

    def compare(self) -> t.Iterator[str]:
        """Lines that set the project beside each peer."""
        for suite, case in dict.fromkeys((s, c) for s, c, dummy in self.samples):
            metric = "rate" if suite == "stream" else "seconds"
            mine = self.median(suite, case, "project", metric)
            for s, c, peer in self.samples:
                theirs = self.median(s, c, peer, metric)
                if (s, c) == (suite, case) and peer != "project" and mine and theirs:
                    what = f"{mine:,.0f} against {theirs:,.0f} changes/s" if metric == "rate" else f"{mine:.2f} against {theirs:.2f} s"
                    yield f"{suite}/{case}: project / {peer} = {mine / theirs:.2f} ({metric}: {what})"


def passfile(folder: Path, *servers: lab.Server) -> Path:
    """A password file for the superusers of ``servers``."""
    path = folder / "pgpass"
    path.touch(0o600)
    path.write_text("".join(f"{s.host}:{s.port}:*:{s.superuser}:{s.superuser_password}\n" for s in servers))
    return path


def address(server: lab.Server, dbname: str) -> str:
    """A connection string without the password, for command lines."""
    return f"host={server.host} port={server.port} user={server.superuser} dbname={dbname}"
