# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The demo: a shop moves while it is written to. ``scripts/demo --help`` says what is done."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests"))

import compare
import conftest  # noqa: F401  # makes the checkout importable  # pylint: disable=unused-import
import estate
import pair
import psycopg
import servers as lab
import workload


class Failed(Exception):
    """The demo did not come out as it must."""


class Gatekeeper(threading.Thread):
    """Stands at the target's door. When the cutover's release hook asks, it takes a snapshot of the target and only then lets
    the writers in: so the snapshot holds all that was migrated and nothing that was written later, and can be compared at leisure
    with the source, which stays fenced. It also holds the tables against TRUNCATE, of which PostgreSQL keeps no old version."""

    def __init__(self, target: lab.Server, dsn_file: Path, open_to: str) -> None:
        super().__init__(daemon=True)
        self.conn = psycopg.connect(target.dsn(estate.DATABASE), autocommit=True)
        self.tables = psycopg.sql.SQL(", ").join(psycopg.sql.Identifier(*table) for table in compare.tables(self.conn))
        self.dsn_file = dsn_file
        self.open_to = open_to
        self.snapshot = ""
        self.sequences: dict[str, int] = {}

    def run(self) -> None:
        """Wait for the hook, take the snapshot, open."""
        while not (estate.HOME / "ask").exists():
            time.sleep(0.002)
        self.conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        self.conn.execute(psycopg.sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(self.tables))
        row = self.conn.execute("SELECT pg_export_snapshot()").fetchone()
        self.snapshot = str(row[0]) if row else ""
        self.sequences = compare.sequences(self.conn)
        workload.point_at(self.dsn_file, self.open_to)
        (estate.HOME / "go").touch()


def play(playbook: str, inventory: Path, *, show: bool = True) -> str:
    """Play a playbook of the collection; its output is shown and returned.

    :raises Failed: if it fails.
    """
    words = ["ansible-playbook", f"pgops.migration.{playbook}", "-i", str(inventory)]
    if show:
        say(f"$ {' '.join(words)}")
    environment = {
        **os.environ,
        "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "false",
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml",
        "PYTHONUNBUFFERED": "1",
    }
    lines = []
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        for line in t.cast("t.IO[str]", process.stdout):
            if show:
                sys.stdout.write("    " + line)
                sys.stdout.flush()
            lines.append(line)
    if process.returncode:
        raise Failed(f"playbook {playbook} ended with {process.returncode}")
    return "".join(lines)


def say(text: str) -> None:
    """A line for the reader, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class Stopwatch:
    """Says how long each step took."""

    def __init__(self) -> None:
        self.began = self.last = time.monotonic()

    def __call__(self, text: str) -> None:
        now = time.monotonic()
        say(f"== {text} ({now - self.last:.1f} s)")
        self.last = now


def login_at(target: lab.Server, password: str) -> str:
    """The connection string of the application at the target; where its password could not move, its owner sets it there."""
    dsn = target.dsn(estate.DATABASE, pair.OWNER, password)
    try:
        psycopg.connect(dsn).close()
    except psycopg.OperationalError:
        with target.connect() as conn:
            conn.execute(
                psycopg.sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(psycopg.sql.Identifier(pair.OWNER), psycopg.sql.Literal(password))
            )
        say("   (the password of app was not brought over; set on the target by its administrator)")
    return dsn


def run(arguments: argparse.Namespace) -> int:
    """The whole demo; the number of things that were not as they must be."""
    watch = Stopwatch()
    source, target = estate.start_servers()
    plugin = estate.wal2json_version(source)
    decoding = f"wal2json {plugin}" if plugin else "no wal2json: pgoutput"
    say(f"source  PostgreSQL {version(source)} on port {source.port}, {decoding}, migration user migrator")
    say(f"target  PostgreSQL {version(target)} on port {target.port}, migration user admin (no superuser)")
    watch("two servers started")
    rows = estate.load_shop(source, arguments.scale)
    password = pair.PASSWORDS[source.port]
    dsn_file = estate.HOME / "writers.dsn"
    workload.point_at(dsn_file, source.dsn(estate.DATABASE, pair.OWNER, password))
    writers = workload.Workload(dsn_file, arguments.sessions, folder=estate.HOME / "writers", rate=arguments.rate)
    writers.prepare()
    watch(f"shop of {rows:,} rows loaded")
    inventory = estate.write_inventory(source, target, arguments.plugin or ("wal2json" if plugin else "pgoutput"))
    writers.start()
    try:
        watch(f"{arguments.sessions} sessions are writing")
        play("migrate", inventory)
        play("status", inventory)
        watch(f"migrated up to the cutover; writers committed {writers.acknowledged():,} transactions so far")
        gatekeeper = Gatekeeper(target, dsn_file, login_at(target, password))
        gatekeeper.start()
        play("cutover", inventory)
        watch("cutover")
        writers.wait_acknowledged(50, 30, port=target.port)
        time.sleep(1)
    finally:
        writers.stop()
    wrong = judge(source, target, writers, gatekeeper, watch) + again(inventory)
    say(f"{'FAILED' if wrong else 'Succeeded'} in {time.monotonic() - watch.began:.0f} s")
    return wrong


def again(inventory: Path) -> int:
    """Play both playbooks once more: nothing may change. The number of those that changed something."""
    said = {name: play(name, inventory, show=False) for name in ("migrate", "cutover")}
    changed = {name: sum(map(int, re.findall(r"changed=(\d+)", text))) for name, text in said.items()}
    say("again      " + ", ".join(f"{name}: changed={number}" for name, number in changed.items()))
    for text in said.values():
        for task in re.findall(r"TASK \[(.*?)\] \*+\n\s*changed:", text):
            say(f"           changed by: {task}")
    return sum(changed.values())


def judge(source: lab.Server, target: lab.Server, writers: workload.Workload, gatekeeper: Gatekeeper, watch: Stopwatch) -> int:
    """Compare, count, and say it; the number of things that were not as they must be."""
    account = workload.check(target.dsn(estate.DATABASE), writers.folder)
    pause = workload.pause(writers.folder, target.port)
    result = compare.compare(source.dsn(estate.DATABASE), target.dsn(estate.DATABASE), gatekeeper.snapshot, gatekeeper.sequences)
    gatekeeper.conn.close()
    watch("compared, independently of the product")
    status = estate.status()
    for difference in result.differences[:12]:
        say(f"   NOT EQUAL  {difference.what}\n      source  {difference.source[:300]}\n      target  {difference.target[:300]}")
    different, kept = len(result.differences), account.balance == workload.SUM
    chosen = status.get("plugin", {}).get(estate.DATABASE, {})
    here, there = writers.acknowledged(source.port), writers.acknowledged(target.port)
    versions = f"PostgreSQL {version(source)} -> {version(target)}"
    say(f"\nstate      {status.get('state')}, {versions}, plugin {chosen.get('plugin', '?')} ({chosen.get('reason', '')})")
    say(f"equal      {result.rows:,} rows in {result.tables} tables, {result.objects} definitions, {result.large_objects} large objects;")
    say(f"           {result.sequences} sequences at or past the source's. Compared: the source as the fence left it, with the")
    say("           target as it was when the first writer was let in (materialized views: their definitions)")
    if different:
        say(f"           {different} DIFFERENCES, see above")
    say(f"commits    {here:,} acknowledged by the source, {there:,} by the target; missing on the target: {len(account.missing)}")
    say(f"           from nowhere: {len(account.phantom)}; answer lost: {account.unknown}; sum of balances kept: {'yes' if kept else 'NO'}")
    if pause:
        say(f"pause      {pause.overall:.2f} s without an acknowledged commit; writers felt {pause.writers[0]:.2f} to {pause.worst:.2f} s")
    files = [str(f) for f in (status.get("files") or {}).values() if f]
    say(f"report     {'  '.join(files) or estate.RUNTIME}")
    return different + len(account.missing) + len(account.phantom) + (not kept) + (status.get("state") != "Succeeded")


def version(server: lab.Server) -> str:
    """As the server calls itself (``15.20``)."""
    return f"{server.version // 10000}.{server.version % 10000}"


def main() -> int:
    """Arguments, cleaning before and after."""
    parser = argparse.ArgumentParser(prog="scripts/demo")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--clean", action="store_true")
    parser.add_argument("--scale", default="1")
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--rate", type=float, default=20)
    parser.add_argument("--plugin", default="", choices=("auto", "wal2json", "pgoutput"))
    arguments = parser.parse_args()
    estate.clean()
    if arguments.clean:
        say("removed: servers, data and files of the demo")
        return 0
    estate.HOME.mkdir(parents=True)
    wrong = 1
    try:
        wrong = run(arguments)
    except (Failed, TimeoutError, KeyboardInterrupt) as exc:
        say(f"FAILED: {exc or 'interrupted'}")
        for log in sorted(estate.RUNTIME.glob("migrations/*/service.log")):
            say(f"-- the end of {log}\n" + "".join(log.read_text().splitlines(keepends=True)[-25:]))
    finally:
        finish(arguments.keep)
    return 1 if wrong else 0


def finish(keep: bool) -> None:
    """Leave the servers up, or stop and remove them; reports and logs stay either way."""
    folder = estate.HOME / "servers.json"
    if keep:
        place = folder.read_text() if folder.exists() else "-"
        say(f"left up: servers below {place}; inventory {estate.HOME / 'inventory.json'}; remove: scripts/demo --clean")
        return
    estate.end_services()
    estate.remove_servers()


if __name__ == "__main__":
    sys.exit(main())
