# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""For tests of the cutover: what a fence may change on a source, leading the writers on, and holding a cutover at one of its phases."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
import typing as t
from pathlib import Path

import psycopg
import servers as lab
import workload as writers
from host import Host
from pair import OWNER, PASSWORDS, Login

VIEW = "public.held_view"
TABLE = "public.held_table"


def state_of(source: lab.Server, database: str) -> t.Any:
    """What a fence may change on the source: rights, settings, locks of ours."""
    with source.connect() as conn:
        acl = conn.execute("SELECT datacl::text FROM pg_database WHERE datname = %s", [database]).fetchone()
        settings = conn.execute(
            "SELECT s.setconfig FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase WHERE d.datname = %s", [database]
        ).fetchall()
        locks = conn.execute(
            "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE mode = 'ExclusiveLock' AND locktype = 'relation'"
            " AND application_name LIKE 'pgops%'"
        ).fetchone()
    # the order of its parts means nothing, and GRANT writes the default out
    return frozenset(str(acl[0] or "{=Tc/app,app=CTc/app}").strip("{}").split(",")), settings, locks


def shop_writers(source: lab.Server, owner: Login, database: str, folder: Path, sessions: int, rate: float) -> writers.Workload:
    """Writers of every kind, not yet at work, who read where they are to connect to in ``folder/dsn``: the source, until :func:`lead`."""
    writers.point_at(folder / "dsn", source.dsn(database, owner.name, owner.password))
    workload = writers.Workload(folder / "dsn", sessions, folder=folder / "notes", rate=rate)
    workload.prepare()
    return workload


def lead(folder: Path, target: lab.Server, database: str) -> list[str]:
    """A release command that leads writers, who read their connection string in ``folder/dsn``, to the target."""
    there = folder / "there"
    writers.point_at(there, target.dsn(database))
    return ["cp", str(there), str(folder / "dsn")]


def prepare_hold(source: lab.Server, database: str) -> None:
    """A materialized view and a table, by which :func:`held` can stop a cutover."""
    source.execute(f"CREATE MATERIALIZED VIEW {VIEW} AS SELECT 1 AS one; ALTER MATERIALIZED VIEW {VIEW} OWNER TO app", database)
    source.execute(f"CREATE TABLE {TABLE} (id int PRIMARY KEY); ALTER TABLE {TABLE} OWNER TO app", database)


class Hook:
    """A release hook that stays at work until it is let go, and counts how often it was run; then it runs the command ``then``."""

    def __init__(self, folder: Path, then: t.Sequence[str] = ()) -> None:
        self.program, self._runs, self._free = folder / "hook", folder / "runs", folder / "free"
        wait = f"while [ ! -e {self._free} ]; do sleep 0.05; done"
        self.program.write_text(f"#!/bin/sh\necho run >> {self._runs}\n{wait}\n{shlex.join(then)}\n")
        self.program.chmod(0o700)

    @property
    def runs(self) -> int:
        """How often it was begun."""
        return len(self._runs.read_text().splitlines()) if self._runs.exists() else 0

    def until_at_work(self, host: Host, key: str) -> None:
        """Wait until it runs: the cutover is released."""
        limit = time.monotonic() + 60
        while not self.runs:
            assert time.monotonic() < limit, host.log(key)
            time.sleep(0.01)

    def let_go(self) -> None:
        """Let it end, now and in the future."""
        self._free.touch()


@contextlib.contextmanager
def stuck(source: lab.Server, database: str) -> t.Iterator[t.Callable[[], None]]:
    """A session in a transaction that has a table locked, and whose server process cannot be ended: no fence is proven while it is there.
    The value given frees it."""
    with contextlib.closing(source.connect(database, OWNER, PASSWORDS[source.port])) as conn:
        conn.execute(f"BEGIN; LOCK TABLE {TABLE} IN ROW EXCLUSIVE MODE")
        pid = conn.info.backend_pid
        os.kill(pid, signal.SIGSTOP)

        def free() -> None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            conn.close()

        try:
            yield free
        finally:
            free()


@contextlib.contextmanager
def held(
    host: Host, key: str, target: lab.Server, database: str, phase: str, request: t.Callable[[str], t.Any] | None = None
) -> t.Iterator[t.Callable[[], None]]:
    """Ask for a cutover, which will stay at ``phase``; inside the block it is there. The value given lets it go on."""
    receiver = _receiver(host, key, database)
    with contextlib.closing(target.connect(database)) as conn:
        if phase in ("complete", "confirm"):  # REFRESH waits for the view
            conn.execute("BEGIN")
            conn.execute(f"SELECT FROM {VIEW}")
        if phase == "drain":  # the marker does not come
            os.kill(receiver, signal.SIGSTOP)
        (request or host.manager.request_cutover)(key)
        try:
            _until(host, key, "complete" if phase == "confirm" else phase)
            if phase == "confirm":
                os.kill(receiver, signal.SIGSTOP)
                conn.execute("ROLLBACK")
                _until(host, key, "confirm")

            def go_on() -> None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(receiver, signal.SIGCONT)
                with contextlib.suppress(psycopg.Error):
                    conn.execute("ROLLBACK")

            yield go_on
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(receiver, signal.SIGCONT)


def _receiver(host: Host, key: str, database: str) -> int:
    found = subprocess.run(
        ["pgrep", "-f", f"{host.home}.*receive.*--migration {key} --database={database}$"], capture_output=True, text=True, check=True
    )
    return int(found.stdout.split()[0])


def _until(host: Host, key: str, phase: str, seconds: float = 60.0) -> None:
    """Look until the cutover is at ``phase``."""
    limit = time.monotonic() + seconds
    while (seen := host.manager.status(key) or {}).get("cutover_phase") != phase:
        if time.monotonic() > limit or seen["cutover"]:
            raise AssertionError(f"the cutover did not come to {phase}: {seen.get('cutover_phase')} {seen['cutover']}\n{host.log(key)}")
        time.sleep(0.02)
