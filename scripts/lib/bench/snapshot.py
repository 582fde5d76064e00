# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A whole clone of a database: by the project, by pg_dump and pg_restore, by pgcopydb; and rows alone against psql.

What is cloned: ``databases.py``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import typing as t
from pathlib import Path

import databases
import measure
import pair
import servers as lab

DATABASE = "shop"
COUNTS = """SELECT string_agg(format('%I.%I', schemaname, relname) || ' ' || (xpath('/row/c/text()', query_to_xml(
    format('SELECT count(*) AS c FROM %I.%I', schemaname, relname), false, true, '')))[1]::text, E'\\n' ORDER BY schemaname, relname)
    FROM pg_stat_user_tables WHERE schemaname !~ '^pgm_' AND relid NOT IN (SELECT partrelid FROM pg_partitioned_table)"""
INDEXES = "SELECT count(*) FROM pg_index WHERE indisvalid AND indrelid > 16384 AND indrelid::regclass::text !~ '^pgm_|^pg_toast'"


class Clone:
    """The source, the target, and how a clone is checked."""

    def __init__(self, case: str, source: lab.Server, target: lab.Server, folder: Path, scale: float) -> None:
        self.source, self.target, self.folder = source, target, folder
        self.passfile = measure.passfile(folder, source, target)
        self.log = folder / "snapshot.log"
        self.case = case
        self._gigabytes: float | None = None
        source.create_database(DATABASE, pair.OWNER)
        with source.connect(DATABASE, pair.OWNER, pair.PASSWORDS[source.port]) as conn:
            conn.execute(t.cast(t.Any, databases.script(case, scale)))
        source.execute("VACUUM ANALYZE", DATABASE)
        self.expected = self._shape(source)

    def _shape(self, server: lab.Server) -> tuple[t.Any, ...]:
        return (*server.execute(COUNTS, DATABASE), *server.execute(INDEXES, DATABASE))

    def fresh(self, *, create: bool) -> None:
        """No database on the target, or an empty one."""
        self.target.drop_database(DATABASE)
        if create:
            self.target.create_database(DATABASE, pair.OWNER, "TEMPLATE template0")
        self.target.execute("CHECKPOINT")
        self.source.execute("CHECKPOINT")

    @property
    def gigabytes(self) -> float:
        """Size of the one table's rows in text, as COPY sends them, in 10^9 bytes: the unit of a relay's CPU."""
        if self._gigabytes is None:
            row = self.source.execute('SELECT sum(length(r::text)) / 1e9 FROM (SELECT * FROM "row" LIMIT 20000) r', DATABASE)
            part = self.source.execute('SELECT count(*) / least(count(*), 20000.0) FROM "row"', DATABASE)
            self._gigabytes = float(row[0][0]) * float(part[0][0])
        return self._gigabytes

    def per_gb(self, cpu_seconds: float) -> dict[str, float]:
        """CPU seconds of a client for the one table: by its text, and by its size on disk, as tables are spoken of."""
        size = float(self.source.execute("SELECT pg_table_size('\"row\"') / 1e9", DATABASE)[0][0])
        return {
            "client_cpu_seconds": cpu_seconds,
            "client_cpu_per_gb": cpu_seconds / self.gigabytes,
            "client_cpu_per_table_gb": cpu_seconds / size,
        }

    def empty(self) -> None:
        """The one table on the target, without a row."""
        self.fresh(create=True)
        with self.target.connect(DATABASE, pair.OWNER, pair.PASSWORDS[self.target.port]) as conn:
            conn.execute(t.cast(t.Any, databases.script(self.case, 0)))
            conn.execute('TRUNCATE "row"; GRANT ALL ON "row" TO admin; ALTER TABLE "row" OWNER TO app')

    def check(self) -> None:
        """All rows and indexes must be there.

        :raises RuntimeError: otherwise.
        """
        found = self._shape(self.target)
        if found != self.expected:
            raise RuntimeError(f"the clone is not whole: {found} instead of {self.expected}")


def project(clone: Clone) -> dict[str, float]:
    """One clone by the project, whose user is no superuser."""
    clone.fresh(create=False)
    work = clone.folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    described = pair.describe(clone.source, clone.target, "bench", [DATABASE], mode="offline")
    clock = measure.Clock(clone.source, clone.target)
    process = measure.child("copy", clone.log, spec=described, database=DATABASE, folder=str(work))
    try:
        use = measure.reap(process)
    except RuntimeError as exc:
        raise RuntimeError(f"{exc}: {clone.log.read_text(errors='replace')[-1500:]}") from None
    clock.stop()
    sample = clock.sample(use)
    clone.check()
    return sample


def dump_restore(clone: Clone) -> dict[str, float]:
    """One clone by PostgreSQL's own tools, two jobs each."""
    clone.fresh(create=True)
    folder = clone.folder / "dump"
    shutil.rmtree(folder, ignore_errors=True)
    bindir = clone.target.bindir
    here, there = measure.address(clone.source, DATABASE), measure.address(clone.target, DATABASE)
    clock, use = measure.Clock(clone.source, clone.target), measure.Use()
    for words in (
        [bindir / "pg_dump", "-Fd", "-j2", "-Z0", "-f", folder, "-d", here],
        [bindir / "pg_restore", "-j2", "-d", there, folder],
        [bindir / "vacuumdb", "-Z", "-j2", "-q", "-d", there],
    ):
        use.add(measure.run(words, clone.log, clone.passfile))
    clock.stop()
    sample = clock.sample(use)
    clone.check()
    shutil.rmtree(folder)
    return sample


def pgcopydb(clone: Clone) -> dict[str, float]:
    """One clone by pgcopydb, two jobs each.

    :raises Skipped: where it is not installed or fails.
    """
    program = shutil.which("pgcopydb")
    if not program:
        raise measure.Skipped("not installed")
    clone.fresh(create=True)
    work = clone.folder / "pgcopydb"
    shutil.rmtree(work, ignore_errors=True)
    os.environ["PATH"] = f"{clone.target.bindir}:{os.environ['PATH']}"
    ends = ["--source", measure.address(clone.source, DATABASE), "--target", measure.address(clone.target, DATABASE)]
    clock = measure.Clock(clone.source, clone.target)
    try:
        use = measure.run([program, "clone", "--table-jobs", "2", "--index-jobs", "2", "--dir", work, *ends], clone.log, clone.passfile)
        clock.stop()
        sample = clock.sample(use)
        clone.check()
    except RuntimeError:
        said = clone.log.read_text(errors="replace")
        steps = re.findall(r"STEP \d+: .*", said)
        complaints = [*steps[-1:], *(line for line in said.splitlines() if re.search(r"\b(ERROR|FATAL)\b +\w", line))]
        version = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout.split("\n")[0]
        raise measure.Skipped(f"{version} fails here: {' | '.join(complaints[:4])}") from None
    return sample


def psql_pipe(clone: Clone) -> dict[str, float]:
    """The rows of the one table in text, by two psql and a pipe."""
    clone.empty()
    psql = clone.target.bindir / "psql"
    here, there = measure.address(clone.source, DATABASE), measure.address(clone.target, DATABASE)
    line = f"'{psql}' -X -q -d '{here}' -c 'COPY \"row\" TO STDOUT' | '{psql}' -X -q -d '{there}' -c 'COPY \"row\" FROM STDIN'"
    clock = measure.Clock(clone.source, clone.target)
    use = measure.run(["/bin/sh", "-c", line], clone.log, clone.passfile)
    clock.stop()
    clone.check()
    return {**clock.sample(use), **clone.per_gb(use.cpu_seconds)}


def relay(jobs: int, processes: int = 0) -> t.Callable[[Clone], dict[str, float]]:
    """The rows of the one table by ``jobs`` relays, in so many processes of their own; the time is from the plan of the copy to its last
    commit."""

    def run_(clone: Clone) -> dict[str, float]:
        clone.empty()
        described = pair.describe(
            clone.source, clone.target, "bench", [DATABASE], mode="offline", copy={"jobs": jobs, "processes": processes}
        )
        clock = measure.Clock(clone.source, clone.target)
        answer = clone.folder / "relay.json"
        process = measure.child("rows", clone.log, spec=described, database=DATABASE, folder=str(answer))
        use = measure.reap(process)
        clock.stop()
        clone.check()
        told = json.loads(answer.read_text())
        return {**clock.sample(use), "seconds": told["seconds"], **clone.per_gb(told["cpu_seconds"])}

    return run_


CLONERS: dict[str, t.Callable[[Clone], dict[str, float]]] = {
    "pg_dump+pg_restore": dump_restore,
    "pgcopydb": pgcopydb,
    "project": project,
}
COPIERS: dict[str, t.Callable[[Clone], dict[str, float]]] = {
    "psql | psql": psql_pipe,
    "project, 1 job": relay(1),
    "project": relay(2),
    "project, 2 processes": relay(2, 2),
}


def run(results: measure.Results, source: lab.Server, target: lab.Server, folder: Path, scale: float, runs: int, only: str = "") -> None:
    """All subjects in turn, ``runs`` times, for every case, or ``only`` one."""
    roles = (databases.DATA / "shop_roles.sql").read_text()
    target.create_role(pair.OWNER, pair.PASSWORDS[target.port])
    target.execute(f"GRANT {pair.OWNER} TO admin WITH ADMIN OPTION")
    for server in (source, target):
        server.execute(roles)
    for case in (*databases.WHOLE, *databases.ROWS):
        if only not in ("", case):
            continue
        clone = Clone(case, source, target, folder, scale)
        subjects = dict(COPIERS if case in databases.ROWS else CLONERS)
        for dummy in range(runs):
            for name in list(subjects):
                try:
                    results.add("snapshot", case, name, subjects[name](clone))
                except measure.Skipped as exc:
                    results.skip("snapshot", case, name, str(exc))
                    del subjects[name]
        source.drop_database(DATABASE)
        target.drop_database(DATABASE)
