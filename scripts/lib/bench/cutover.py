# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The write pause of a cutover as the application feels it: a pool of 50 connections commits 2,000 times a second all the time, straight to
the source or through PgBouncer. Each run is a whole migration; no acknowledged commit may be missing on the target, and no commit may be at
the source alone."""

from __future__ import annotations

import subprocess
import sys
import time
import typing as t
from pathlib import Path

import host
import measure
import pair
import pooler as poolers
import psycopg
import servers as lab
import writers
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec

CONNECTIONS = 50
RATE = 2000.0
SCHEMA = """
CREATE SCHEMA load;
CREATE TABLE load.commits (connection int NOT NULL, number int NOT NULL, PRIMARY KEY (connection, number));
CREATE TABLE load.ballast (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, filler text);
INSERT INTO load.ballast (filler) SELECT repeat('x', 100) FROM generate_series(1, 20000);
"""


def run(results: measure.Results, source: lab.Server, target: lab.Server, folder: Path, scale: float, runs: int) -> None:
    """All runs of both ways; raises RuntimeError where a commit was lost or came too late."""
    for way in ("direct", "pgbouncer"):
        felt: list[float] = []
        for number in range(runs):
            place = folder / f"{way}-{number}"
            place.mkdir(mode=0o755)
            folder.chmod(0o755)
            try:
                sample, some = one_run(way, f"{way}{number}", source, target, place, RATE * scale)
            except measure.Skipped as exc:
                results.skip("cutover", way, "project", str(exc))
                break
            felt += some
            results.add("cutover", way, "project", sample)
        if felt:
            felt.sort()
            p50, p95 = felt[len(felt) // 2], felt[min(len(felt) - 1, int(len(felt) * 0.95))]
            sys.stdout.write(
                f"cutover/{way}: pause felt by {len(felt)} connections in {runs} cutovers: p50 {p50:.2f} s, p95 {p95:.2f} s,"
                f" longest {felt[-1]:.2f} s\n"
            )


def one_run(
    way: str, database: str, source: lab.Server, target: lab.Server, place: Path, rate: float
) -> tuple[dict[str, float], list[float]]:
    """A migration under load; its figures, and the pause that each connection felt."""
    source.create_database(database, pair.OWNER)
    password = pair.PASSWORDS[source.port]
    with source.connect(database, user=pair.OWNER, password=password) as conn:
        conn.execute(SCHEMA)
    dsn_file = place / "dsn"
    cutover: dict[str, t.Any]
    if way == "pgbouncer" and poolers.find() is None:
        raise measure.Skipped("pgbouncer is not installed")
    pooler = poolers.Pooler(place, database, source, target, CONNECTIONS) if way == "pgbouncer" else None
    if pooler:
        dsn_file.write_text(pooler.dsn())
        cutover = {"pgbouncer": [pooler.admin], "release": ["cp", str(pooler.there), str(pooler.places)]}
    else:
        dsn_file.write_text(f"postgresql://{pair.OWNER}:{password}@{source.host}:{source.port}/{database}")
        there = place / "there"
        there.write_text(f"postgresql://admin:{pair.PASSWORDS[target.port]}@{target.host}:{target.port}/{database}")
        cutover = {"release": ["cp", str(there), str(dsn_file)]}
    runtime = host.Host(place / "home")
    words = [sys.executable, str(Path(writers.__file__)), str(dsn_file), str(place / "notes"), str(CONNECTIONS), str(rate)]
    load = subprocess.Popen(words, stdin=subprocess.PIPE)
    try:
        spec = MigrationSpec.from_dict(pair.describe(source, target, f"bench-{database}", [database], option="migrate", cutover=cutover))
        runtime.manager.start(spec)
        runtime.until_waiting(spec.key)
        time.sleep(3)
        begin = time.monotonic()
        status = runtime.cut_over(spec.key)
        end = time.monotonic()
        time.sleep(1)
    finally:
        t.cast("t.IO[bytes]", load.stdin).close()
        load.wait(20)
        runtime.close()
        if pooler:
            pooler.close()
    notes = writers.read(place / "notes")
    account(notes, source, target, database)
    felt = writers.gaps(notes, begin, end)
    acknowledged = [moment for commits in notes.values() for dummy, moment in commits if begin - 3 < moment < begin]
    for server in (source, target):
        server.drop_database(database)
    figures = {"pause_seconds": float(status["cutover"]["pause_seconds"]), "felt_seconds": sorted(felt)[int(len(felt) * 0.95)]}
    return {**figures, "commit_rate": len(acknowledged) / 3, "lost": 0.0}, felt


def account(notes: t.Mapping[int, list[tuple[int, float]]], source: lab.Server, target: lab.Server, database: str) -> None:
    """Compare what was acknowledged with what is there.

    :raises RuntimeError: if an acknowledged commit is missing, or the source has one that the target has not.
    """
    present: list[set[tuple[int, int]]] = []
    for server in (source, target):
        with psycopg.connect(server.dsn(database)) as conn:
            present.append(set(conn.execute("SELECT connection, number FROM load.commits").fetchall()))
    lost = {(number, count) for number, commits in notes.items() for count, dummy in commits} - present[1]
    late = present[0] - present[1]
    if lost or late:
        raise RuntimeError(f"{len(lost)} acknowledged commits are missing on the target, {len(late)} are on the source alone")
