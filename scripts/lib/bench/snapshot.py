# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A whole clone of a database: by the project, by pg_dump and pg_restore, by pgcopydb.

``plain``: four tables with a key and two indexes each. ``shop``: the demo's, with most of what PostgreSQL can hold.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import typing as t
from pathlib import Path

import measure
import pair
import servers as lab

DATABASE = "shop"
DATA = Path(__file__).resolve().parents[3] / "tests" / "data"
COUNTS = """SELECT string_agg(format('%I.%I', schemaname, relname) || ' ' || (xpath('/row/c/text()', query_to_xml(
    format('SELECT count(*) AS c FROM %I.%I', schemaname, relname), false, true, '')))[1]::text, E'\\n' ORDER BY schemaname, relname)
    FROM pg_stat_user_tables WHERE schemaname !~ '^pgm_' AND relid NOT IN (SELECT partrelid FROM pg_partitioned_table)"""
INDEXES = "SELECT count(*) FROM pg_index WHERE indisvalid AND indrelid > 16384 AND indrelid::regclass::text !~ '^pgm_|^pg_toast'"


PLAIN = """
CREATE TABLE plain_{n} (id bigint PRIMARY KEY, at timestamptz NOT NULL, reading float8, word text, key uuid, extra jsonb);
INSERT INTO plain_{n} SELECT i, '2024-01-01 UTC'::timestamptz + i * interval '1 second', sqrt(i), md5(i::text), md5(i::text)::uuid,
    CASE WHEN i % 4 = 0 THEN jsonb_build_object('i', i, 'w', md5(i::text)) END FROM generate_series(1, {rows}) i;
CREATE INDEX ON plain_{n} (at);
CREATE INDEX ON plain_{n} (word);
"""


class Clone:
    """The source, the target, and how a clone is checked."""

    def __init__(self, case: str, source: lab.Server, target: lab.Server, folder: Path, scale: float) -> None:
        self.source, self.target, self.folder = source, target, folder
        self.passfile = measure.passfile(folder, source, target)
        self.log = folder / "snapshot.log"
        source.create_database(DATABASE, pair.OWNER)
        with source.connect(DATABASE, pair.OWNER, pair.PASSWORDS[source.port]) as conn:
            conn.execute("SELECT set_config('shop.scale', %s, false)", [str(scale)])
            text = (DATA / "shop.sql").read_text()
            if case == "plain":
                text = "".join(PLAIN.format(n=n, rows=round(500_000 * scale / n)) for n in range(1, 5))
            conn.execute(t.cast(t.Any, text))
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


def run(results: measure.Results, source: lab.Server, target: lab.Server, folder: Path, scale: float, runs: int) -> None:
    """All subjects in turn, ``runs`` times, for both databases."""
    roles = (DATA / "shop_roles.sql").read_text()
    target.create_role(pair.OWNER, pair.PASSWORDS[target.port])
    target.execute(f"GRANT {pair.OWNER} TO admin WITH ADMIN OPTION")
    for server in (source, target):
        server.execute(roles)
    for case in ("plain", "shop"):
        clone = Clone(case, source, target, folder, scale)
        subjects: dict[str, t.Callable[[Clone], dict[str, float]]] = {
            "pg_dump+pg_restore": dump_restore,
            "pgcopydb": pgcopydb,
            "project": project,
        }
        for dummy in range(runs):
            for name in list(subjects):
                try:
                    results.add("snapshot", case, name, subjects[name](clone))
                except measure.Skipped as exc:
                    results.skip("snapshot", case, name, str(exc))
                    del subjects[name]
        source.drop_database(DATABASE)
        target.drop_database(DATABASE)
