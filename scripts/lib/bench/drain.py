# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A backlog that waits in the source's slot, and its two drains: by the built-in subscription, and by the project.

The backlog is written once; each run reads it through a copy of the slot that was made before it, into a target as it was then.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
import typing as t
from pathlib import Path

import backlogs
import measure
import psycopg
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.ledger import Ledger
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.catalog import read_tables
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.identifiers import SCHEMA
from ansible_collections.pgops.migration.plugins.module_utils._engine.source.plugin import choose_plugin
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from pair import OWNER, describe

PUBLICATION = "bench_all"
RUN = "bench_run"
"""Slot of one run, and the publication that the project's pgoutput reads: both have the same name."""

TIMEOUT = 300.0
DIGEST = "SELECT count(*), sum(hashtextextended(x::text, 0)::numeric) FROM {} AS x"


class Backlog:
    """The source with the backlog of ``case``, and the template of the target."""

    def __init__(self, case: backlogs.Case, source: lab.Server, target: lab.Server, folder: Path, scale: float) -> None:
        self.case, self.source, self.target, self.folder, self.scale = case, source, target, folder, scale
        self.database = f"bench_{case.name}"
        self.tables = (*case.tables, "bench_last")
        self.passfile = measure.passfile(folder, source, target)
        self.log = folder / "stream.log"
        self.changes = 0
        self.start_lsn = ""

    def build(self, plugins: t.Sequence[str]) -> None:
        """Fill the source, copy it to the template, make the slots, write the backlog."""
        source = self.source
        source.create_database(self.database, OWNER)
        self.case.build(source, self.database, self.scale, self.log, self.passfile)
        self._template()
        for name in (PUBLICATION, RUN):  # before the backlog, because decoding looks into the catalog as it was then
            source.execute(f"CREATE PUBLICATION {name} FOR TABLE {', '.join(self.tables)}", self.database)
        for plugin in plugins:
            row = source.execute(f"SELECT lsn FROM pg_create_logical_replication_slot('{self.slot(plugin)}', '{plugin}')", self.database)
            self.start_lsn = row[0][0]
        self.changes = self.case.write(source, self.database, self.scale, self.log, self.passfile)
        source.execute("INSERT INTO bench_last VALUES (1)", self.database)
        source.execute("CHECKPOINT")

    def slot(self, plugin: str) -> str:
        """The slot before the backlog; its copies are used up."""
        return f"{self.database}_{plugin}"

    def copy_slot(self, plugin: str, name: str) -> None:
        """A slot ``name`` that starts where the backlog starts."""
        self.source.execute(f"SELECT pg_copy_logical_replication_slot('{self.slot(plugin)}', '{name}')", self.database)

    def drop_slot(self, name: str) -> None:
        """Drop a used slot, once its walsender has gone."""
        for dummy in range(100):
            try:
                self.source.execute(
                    f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{name}'", self.database
                )
                return
            except psycopg.errors.ObjectInUse:
                time.sleep(0.1)

    def drop(self, plugins: t.Sequence[str]) -> None:
        """Give the WAL and the room back."""
        for plugin in plugins:
            self.drop_slot(self.slot(plugin))
        for name in (self.database, f"{self.database}_template"):
            self.target.drop_database(name)
        self.source.drop_database(self.database)

    def _template(self) -> None:
        dump, template = self.folder / "bench.dump", f"{self.database}_template"
        dump_words = [self.source.bindir / "pg_dump", "-Fc", "-Z0", "--no-owner", "--no-publications", "-f", dump]
        measure.run([*dump_words, "-d", measure.address(self.source, self.database)], self.log, self.passfile)
        self.target.create_database(template, "admin")
        words = [self.target.bindir / "pg_restore", "--no-owner", "--role=admin", "-d", measure.address(self.target, template), dump]
        measure.run(words, self.log, self.passfile)
        self.target.execute("VACUUM ANALYZE", template)
        dump.unlink()

    def fresh_target(self) -> None:
        """The target as it was before the backlog, and warm: every table and index was read once."""
        self.target.drop_database(self.database)
        template = f"TEMPLATE {self.database}_template"
        self.target.create_database(self.database, "admin", f"{template} STRATEGY file_copy" if self.target.major >= 15 else template)
        self.target.execute(
            "CREATE EXTENSION pg_prewarm; SELECT pg_prewarm(oid::regclass) FROM pg_class"
            " WHERE relname ~ '^(pgbench|bench)' AND relkind IN ('r', 'i')",
            self.database,
        )
        self.target.execute("CHECKPOINT")

    def wait(self, conn: psycopg.Connection[t.Any], alive: t.Callable[[], None]) -> None:
        """Until the last change is visible.

        :raises RuntimeError: after :data:`TIMEOUT` seconds, or what ``alive`` raises.
        """
        deadline = time.monotonic() + TIMEOUT
        while conn.execute("SELECT EXISTS (SELECT FROM bench_last)").fetchone() != (True,):
            alive()
            if time.monotonic() > deadline:
                raise RuntimeError("the backlog was not drained")
            time.sleep(0.01)

    def check(self) -> None:
        """The target must have what the source has, row by row.

        :raises RuntimeError: otherwise.
        """
        for table in self.tables:
            here, there = (server.execute(DIGEST.format(table), self.database) for server in (self.source, self.target))
            if here != there:
                raise RuntimeError(f"{table} differs after the drain: {here} {there}")


class Cost:
    """CPU seconds for a million changes, of each process and of all."""

    def __init__(self, backlog: Backlog) -> None:
        self.backlog = backlog
        self.source, self.target = measure.server_cpu(backlog.source), measure.server_cpu(backlog.target)

    def sample(self, seconds: float, own: t.Mapping[str, float]) -> dict[str, float]:
        """The metrics of a drain of ``seconds``."""
        used = {
            "source": measure.server_cpu(self.backlog.source) - self.source,
            "target": measure.server_cpu(self.backlog.target) - self.target,
            **own,
        }
        millions = self.backlog.changes / 1e6
        costs = {f"cpu_{name}": spent / millions for name, spent in used.items()}
        return {"rate": self.backlog.changes / seconds, "seconds": seconds, **costs, "cpu_all": sum(costs.values())}


def subscription(backlog: Backlog) -> dict[str, float]:
    """One drain by PostgreSQL's own subscription, from its being enabled."""
    backlog.copy_slot("pgoutput", RUN)
    backlog.fresh_target()
    with backlog.target.connect(backlog.database) as conn:
        dsn = backlog.source.dsn(backlog.database).replace("'", "''")
        options = f"create_slot = false, slot_name = {RUN}, copy_data = false, enabled = false"
        conn.execute(t.cast(t.Any, f"CREATE SUBSCRIPTION bench_run CONNECTION '{dsn}' PUBLICATION {PUBLICATION} WITH ({options})"))
        cost, began = Cost(backlog), time.monotonic()
        conn.execute("ALTER SUBSCRIPTION bench_run ENABLE")
        backlog.wait(conn, lambda: None)
        sample = cost.sample(time.monotonic() - began, {})
        for step in ("DISABLE", "SET (slot_name = NONE)"):
            conn.execute(t.cast(t.Any, f"ALTER SUBSCRIPTION bench_run {step}"))
        conn.execute("DROP SUBSCRIPTION bench_run")
    backlog.check()
    backlog.drop_slot(RUN)
    return sample


def _ledger(backlog: Backlog, spec: MigrationSpec, conn: psycopg.Connection[t.Any]) -> None:
    """What a base copy would have left on the target."""
    Ledger(conn).create(spec.key)
    with backlog.source.connect(backlog.database) as here:
        for table in read_tables(here):
            row = [table.qualified, backlog.start_lsn]
            conn.execute(f"INSERT INTO {SCHEMA}.chunk (relation, chunk, chunks, start_lsn, rows, bytes) VALUES (%s, 0, 1, %s, 0, 0)", row)


def project(backlog: Backlog, plugin: str) -> dict[str, float]:
    """One drain by the project: receiver and change stream, each in its process. The interpreters are up before the clock runs, as the
    subscription's server is; connecting is inside of it, on both sides."""
    described = describe(backlog.source, backlog.target, "bench", [backlog.database], changes={"plugin": plugin})
    spec = MigrationSpec.from_dict(described)
    choice = choose_plugin(spec.source, backlog.database, plugin)
    backlog.copy_slot(plugin, RUN)
    backlog.fresh_target()
    spool = backlog.folder / "spool"
    shutil.rmtree(spool, ignore_errors=True)
    spool.mkdir()
    told = {"spec": described, "database": backlog.database, "folder": str(spool), "slot": RUN, "choice": dataclasses.asdict(choice)}
    login = backlog.target.dsn(backlog.database, spec.target.user, spec.target.password)
    uses: dict[str, measure.Use] = {}
    with psycopg.connect(login, autocommit=True) as conn:
        _ledger(backlog, spec, conn)
        starting = time.monotonic()
        children = {name: measure.child(role, backlog.log, **told) for name, role in (("receiver", "receive"), ("applier", "apply"))}
        before = {name: measure.ready(process) for name, process in children.items()}
        start_seconds = time.monotonic() - starting

        def alive() -> None:
            for process in children.values():
                if process.poll() is not None:
                    raise RuntimeError(f"the project ended: {backlog.log.read_text(errors='replace')[-1500:]}")

        cost, began = Cost(backlog), time.monotonic()
        try:
            for process in children.values():
                measure.go(process)
            backlog.wait(conn, alive)
            seconds = time.monotonic() - began
        finally:
            uses = {name: measure.close(process) for name, process in children.items() if process.poll() is None}
        sample = cost.sample(seconds, {name: use.cpu_seconds - before[name] for name, use in uses.items()})
    backlog.check()
    backlog.drop_slot(RUN)
    memory = max(use.rss_bytes for use in uses.values())
    return {**sample, "start_seconds": start_seconds, "rss_bytes": memory}
