# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Verification of two equal databases, against ``COPY ... TO`` of the same tables of both to /dev/null, by as many sessions at once.

The tables: ``databases.py``.
"""

from __future__ import annotations

import subprocess
import typing as t
from pathlib import Path

import databases
import measure
import pair
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from ansible_collections.pgops.migration.plugins.module_utils._engine.verify.compare import VerifyResult, verify_database

DATABASE = "shop"
JOBS = 2
"""Sessions on each side, as the project takes by default."""

CASES = ("narrow", "typed", "mixed", "one")
TABLES = """SELECT format('%I.%I', n.nspname, c.relname), pg_table_size(c.oid) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname = 'public' ORDER BY 2 DESC"""


def run(results: measure.Results, source: lab.Server, target: lab.Server, folder: Path, scale: float, runs: int, *, only: str = "") -> None:
    """Each case ``runs`` times.

    :raises RuntimeError: if the sides are not found equal.
    """
    for case in [only] if only else CASES:
        for server, owner in ((source, pair.OWNER), (target, "admin")):
            server.create_database(DATABASE, owner)
            with server.connect(DATABASE, owner, pair.PASSWORDS[server.port]) as conn:
                conn.execute(t.cast(t.Any, databases.script(case, scale)))
            server.execute("VACUUM ANALYZE", DATABASE)
            server.execute("CHECKPOINT")
        size = sum(int(row[1]) for row in source.execute(TABLES, DATABASE)) / 1e9
        spec = MigrationSpec.from_dict(pair.describe(source, target, "bench", [DATABASE]))
        for dummy in range(runs):
            results.add("verify", case, "COPY to /dev/null", _copies(source, target, folder))
            clock = measure.Clock(source, target)
            found: VerifyResult = verify_database(spec, DATABASE, jobs=JOBS)
            clock.stop()
            if not found.equal:
                raise RuntimeError(found.summary())
            speed = {"row_rate": found.rows / clock.seconds, "byte_rate": size / clock.seconds}
            results.add("verify", case, "project", {**clock.sample(), **speed})
        for server in (source, target):
            server.drop_database(DATABASE)


def _copies(source: lab.Server, target: lab.Server, folder: Path) -> dict[str, float]:
    """Both servers at once, :data:`JOBS` sessions each; a large single table is read by ranges of blocks, as verification does."""
    clock = measure.Clock(source, target)
    sessions = []
    for server in (source, target):
        shares: list[list[str]] = [[] for dummy in range(JOBS)]
        for number, (name, size) in enumerate(server.execute(TABLES, DATABASE)):
            if size > 512 << 20:
                half = int(server.execute(f"SELECT pg_relation_size('{name}') / 8192 / {JOBS}", DATABASE)[0][0])
                for share, words in enumerate(shares):
                    last = "" if share == JOBS - 1 else f" AND ctid < '({half * (share + 1)},0)'"
                    words.append(f"COPY (SELECT * FROM {name} WHERE ctid >= '({half * share},0)'{last}) TO STDOUT")
            else:
                shares[number % JOBS].append(f"COPY {name} TO STDOUT")
        for share in filter(None, shares):
            script = folder / f"copy-{server.port}-{len(sessions)}.sql"
            script.write_text(";\n".join(share) + ";\n")
            words = [str(server.bindir / "psql"), "-XqAt", "-d", measure.address(server, DATABASE), "-f", str(script)]
            environment = {"PGPASSFILE": str(measure.passfile(folder, source, target))}
            sessions.append(subprocess.Popen(words, stdout=subprocess.DEVNULL, env=environment))
    use = measure.Use()
    for session in sessions:
        use.add(measure.reap(session))
    clock.stop()
    return clock.sample(use)
