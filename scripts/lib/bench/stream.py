# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A backlog of TPC-B transactions, drained by the built-in subscription and by the project into the same warm target.

The backlog is written once; each run reads it through a copy of the slot that was made before it.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
import typing as t
from pathlib import Path

import measure
import pair
import psycopg
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.ledger import Ledger
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.catalog import read_tables
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.identifiers import SCHEMA
from ansible_collections.pgops.migration.plugins.module_utils._engine.source.plugin import PluginChoice, choose_plugin
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec

DATABASE = "bench"
PUBLICATION = "bench_all"
RUN = "bench_run"
"""Slot of one run, and the publication that the project's pgoutput reads: both have the same name."""

TABLES = ("pgbench_accounts", "pgbench_tellers", "pgbench_branches", "pgbench_history", "bench_last")
TIMEOUT = 180.0
SUM = "SELECT sum(abalance), (SELECT count(*) FROM pgbench_history), (SELECT sum(tbalance) FROM pgbench_tellers) FROM pgbench_accounts"


class Backlog:
    """The source with its backlog, and the template of the target."""

    def __init__(self, source: lab.Server, target: lab.Server, folder: Path, scale: float) -> None:
        self.source, self.target, self.folder = source, target, folder
        self.passfile = measure.passfile(folder, source, target)
        self.transactions = max(100, round(50_000 * scale))
        self.changes = self.transactions * 4
        self.log = folder / "stream.log"
        self.slots: dict[str, str] = {}
        self.start_lsn = ""

    def build(self, plugins: t.Sequence[str], clients: int = 4) -> None:
        """Fill the source, copy it to the template, make the slots, write the backlog."""
        source = self.source
        source.create_database(DATABASE, pair.OWNER)
        at = ["-h", source.host, "-p", str(source.port), "-U", source.superuser]
        measure.run([source.bindir / "pgbench", *at, "-i", "-q", "-s", "10", DATABASE], self.log, self.passfile)
        statements = "CREATE TABLE bench_last (id int PRIMARY KEY); ALTER TABLE pgbench_history REPLICA IDENTITY FULL"
        source.execute("; ".join([statements, *(f"ALTER TABLE {table} OWNER TO {pair.OWNER}" for table in TABLES)]), DATABASE)
        self._template()
        for name in (PUBLICATION, RUN):  # before the backlog, because decoding looks into the catalog as it was then
            source.execute(f"CREATE PUBLICATION {name} FOR TABLE {', '.join(TABLES)}", DATABASE)
        for plugin in plugins:
            row = source.execute(f"SELECT lsn FROM pg_create_logical_replication_slot('{self.slot(plugin)}', '{plugin}')", DATABASE)
            self.start_lsn = row[0][0]
        each = self.transactions // clients
        words = [source.bindir / "pgbench", *at, "-n", "-c", str(clients), "-j", "2", "-t", str(each), DATABASE]
        measure.run(words, self.log, self.passfile)
        self.changes = each * clients * 4
        source.execute("INSERT INTO bench_last VALUES (1)", DATABASE)
        source.execute("CHECKPOINT")

    def slot(self, plugin: str) -> str:
        """The slot before the backlog; its copies are used up."""
        return f"bench_{plugin}"

    def copy_slot(self, plugin: str, name: str) -> None:
        """A slot ``name`` that starts where the backlog starts."""
        self.source.execute(f"SELECT pg_copy_logical_replication_slot('{self.slot(plugin)}', '{name}')", DATABASE)

    def drop_slot(self, name: str) -> None:
        """Drop a used slot, once its walsender has gone."""
        for dummy in range(100):
            try:
                self.source.execute(
                    f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{name}'", DATABASE
                )
                return
            except psycopg.errors.ObjectInUse:
                time.sleep(0.1)

    def _template(self) -> None:
        dump = self.folder / "bench.dump"
        dump_words = [self.source.bindir / "pg_dump", "-Fc", "-Z0", "--no-owner", "--no-publications", "-f", dump]
        measure.run([*dump_words, "-d", measure.address(self.source, DATABASE)], self.log, self.passfile)
        self.target.create_database("bench_template", "admin")
        words = [
            self.target.bindir / "pg_restore",
            "--no-owner",
            "--role=admin",
            "-d",
            measure.address(self.target, "bench_template"),
            dump,
        ]
        measure.run(words, self.log, self.passfile)
        self.target.execute("VACUUM ANALYZE", "bench_template")
        dump.unlink()

    def fresh_target(self) -> None:
        """The target as it was before the backlog, and warm: every table and index was read once."""
        self.target.drop_database(DATABASE)
        self.target.create_database(
            DATABASE, "admin", "TEMPLATE bench_template STRATEGY file_copy" if self.target.major >= 15 else "TEMPLATE bench_template"
        )
        self.target.execute(
            "CREATE EXTENSION pg_prewarm;"
            " SELECT pg_prewarm(oid::regclass) FROM pg_class WHERE relname ~ '^pgbench' AND relkind IN ('r', 'i')",
            DATABASE,
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
        """The target must have what the source has.

        :raises RuntimeError: otherwise.
        """
        here, there = self.source.execute(SUM, DATABASE), self.target.execute(SUM, DATABASE)
        if here != there:
            raise RuntimeError(f"source and target differ after the drain: {here} {there}")


def subscription(backlog: Backlog) -> dict[str, float]:
    """One drain by PostgreSQL's own subscription."""
    backlog.copy_slot("pgoutput", RUN)
    backlog.fresh_target()
    with backlog.target.connect(DATABASE) as conn:
        dsn = backlog.source.dsn(DATABASE).replace("'", "''")
        options = "create_slot = false, slot_name = bench_run, copy_data = false, enabled = false"
        conn.execute(t.cast(t.Any, f"CREATE SUBSCRIPTION bench_run CONNECTION '{dsn}' PUBLICATION {PUBLICATION} WITH ({options})"))
        clock = measure.Clock(backlog.source, backlog.target)
        conn.execute("ALTER SUBSCRIPTION bench_run ENABLE")
        backlog.wait(conn, lambda: None)
        clock.stop()
        sample = clock.sample()
        for step in ("DISABLE", "SET (slot_name = NONE)"):
            conn.execute(t.cast(t.Any, f"ALTER SUBSCRIPTION bench_run {step}"))
        conn.execute("DROP SUBSCRIPTION bench_run")
    backlog.check()
    backlog.drop_slot(RUN)
    return {"rate": backlog.changes / clock.seconds, **sample}


def project(backlog: Backlog, plugin: str) -> dict[str, float]:
    """One drain by the project: receiver and change stream, each in its process."""
    described = pair.describe(backlog.source, backlog.target, "bench", [DATABASE], changes={"plugin": plugin})
    spec = MigrationSpec.from_dict(described)
    choice: PluginChoice = choose_plugin(spec.source, DATABASE, plugin)
    backlog.copy_slot(plugin, RUN)
    backlog.fresh_target()
    spool = backlog.folder / "spool"
    shutil.rmtree(spool, ignore_errors=True)
    spool.mkdir()
    with psycopg.connect(backlog.target.dsn(DATABASE, spec.target.user, spec.target.password), autocommit=True) as conn:
        Ledger(conn).create(spec.key)
        with backlog.source.connect(DATABASE) as here:
            for table in read_tables(here):
                row = [table.qualified, backlog.start_lsn]
                conn.execute(
                    f"INSERT INTO {SCHEMA}.chunk (relation, chunk, chunks, start_lsn, rows, bytes) VALUES (%s, 0, 1, %s, 0, 0)", row
                )
        told = {"spec": described, "database": DATABASE, "folder": str(spool), "slot": RUN, "choice": dataclasses.asdict(choice)}
        clock = measure.Clock(backlog.source, backlog.target)
        children = [measure.child(role, backlog.log, **told) for role in ("receive", "apply")]

        def alive() -> None:
            for process in children:
                if process.poll() is not None:
                    raise RuntimeError(f"the project ended: {backlog.log.read_text(errors='replace')[-1500:]}")

        try:
            backlog.wait(conn, alive)
            clock.stop()
        finally:
            use = measure.Use()
            for process in children:
                if process.poll() is None:
                    use.add(measure.close(process))
        sample = clock.sample(use)
    backlog.check()
    backlog.drop_slot(RUN)
    return {"rate": backlog.changes / clock.seconds, **sample}


def run(results: measure.Results, source: lab.Server, target: lab.Server, folder: Path, scale: float, runs: int) -> None:
    """All subjects in turn, ``runs`` times."""
    plugins = ["pgoutput"] + (["wal2json"] if lab.has_wal2json(source.bindir) else [])
    backlog = Backlog(source, target, folder, scale)
    backlog.build(plugins)
    if "wal2json" not in plugins:
        results.skip("stream", "tpcb-wal2json", "project", "the source has no wal2json")
    for dummy in range(runs):
        sample = subscription(backlog)
        for plugin in plugins:
            results.add("stream", f"tpcb-{plugin}", "subscription", sample)
            results.add("stream", f"tpcb-{plugin}", "project", project(backlog, plugin))
