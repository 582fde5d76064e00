# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The fence: nobody gets through, nobody is left, and it lifts itself when its cutover cannot (law 10)."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

import psycopg
import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.cutover.fence import lift_fence, make_fence, plan_fence
from ansible_collections.pgops.migration.plugins.module_utils._engine.cutover.watchdog import FenceJournal
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import CutoverAborted
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.paths import MigrationPaths

LINK = Path(__file__).resolve().parents[2] / ".work" / "link"
WATCHDOG = (
    "import sys; from pathlib import Path;"
    "from ansible_collections.pgops.migration.plugins.module_utils._engine.cli import main;"
    "sys.exit(main(['watchdog', '--home', sys.argv[1], '--migration', sys.argv[2], '--attempt', sys.argv[3]]))"
)


def can_connect(login: t.Any, server: t.Any, database: str) -> bool:
    try:
        server.connect(database, user=login.name, password=login.password).close()
    except psycopg.OperationalError:
        return False
    return True


def privileges(server: t.Any, database: str) -> str:
    query = (
        "SELECT coalesce(string_agg(x, ' ' ORDER BY x), '')"
        " FROM (SELECT (a).grantee::regrole || ':' || (a).privilege_type || (a).is_grantable AS x"
        " FROM (SELECT aclexplode(coalesce(datacl, acldefault('d', datdba))) a FROM pg_database WHERE datname = %s) s) u"
    )
    with server.connect() as conn:
        return str(conn.execute(query, [database]).fetchone()[0])


def test_writers_are_gone_and_come_back(source, owner, source_database, spec_factory) -> None:
    """Sessions are ended, new ones refused, and afterwards every right is as it was."""
    spec = spec_factory("fence", [source_database])
    before = privileges(source, source_database)
    writer = source.connect(source_database, user=owner.name, password=owner.password)
    change = plan_fence(spec.source, source_database)
    fence = make_fence(spec.source, change)
    fence.raise_(time.monotonic() + 10)
    try:
        assert fence.ended >= 1
        with pytest.raises(psycopg.OperationalError):
            writer.execute("SELECT 1")
        assert not can_connect(owner, source, source_database)
    finally:
        lift_fence(spec.source, change)
    assert can_connect(owner, source, source_database)
    assert privileges(source, source_database) == before


def test_nobody_slips_through(source, owner, source_database, spec_factory) -> None:
    """Writers that reconnect as fast as they can never commit after the fence is proven."""
    spec = spec_factory("fence", [source_database])
    with source.connect(source_database) as conn:
        conn.execute(f"CREATE TABLE public.w (at timestamptz); ALTER TABLE public.w OWNER TO {owner.name}")
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            try:
                with source.connect(source_database, user=owner.name, password=owner.password) as conn:
                    for _number in range(50):
                        conn.execute("INSERT INTO public.w VALUES (clock_timestamp())")
            except psycopg.Error:
                continue

    threads = [threading.Thread(target=write) for _number in range(4)]
    for thread in threads:
        thread.start()
    try:
        change = plan_fence(spec.source, source_database)
        make_fence(spec.source, change).raise_(time.monotonic() + 20)
        with source.connect(source_database) as conn:
            first = conn.execute("SELECT count(*) FROM public.w").fetchone()
            conn.execute("SELECT pg_sleep(0.3)")
            assert conn.execute("SELECT count(*) FROM public.w").fetchone() == first
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        lift_fence(spec.source, change)


def test_a_prepared_transaction_stops_the_fence(source, source_database, spec_factory) -> None:
    spec = spec_factory("fence", [source_database])
    with source.connect(source_database) as conn:
        if conn.execute("SHOW max_prepared_transactions").fetchone()[0] == "0":
            pytest.skip("this server allows no prepared transactions")
        conn.execute("CREATE TABLE public.p (i int)")
        conn.execute("BEGIN; INSERT INTO public.p VALUES (1); PREPARE TRANSACTION 'left behind'")
        try:
            with pytest.raises(CutoverAborted, match="left behind"):
                make_fence(spec.source, plan_fence(spec.source, source_database)).raise_(time.monotonic() + 5)
        finally:
            conn.execute("ROLLBACK PREPARED 'left behind'")


@pytest.mark.parametrize("cause", ["crash", "deadline"])
def test_the_watchdog_opens_the_source(cause, tmp_path: Path, source, owner, source_database, spec_factory) -> None:
    """The cutover's process dies, or hangs past its deadline: the source is writable again without anybody's help."""
    spec = spec_factory("fence", [source_database])
    paths = MigrationPaths(tmp_path, spec.key)
    paths.make()
    paths.write_spec(spec)
    journal = FenceJournal(paths.fence)
    change = plan_fence(spec.source, source_database)
    attempt = journal.open([change], time.monotonic() + (60 if cause == "crash" else 2))
    watchdog = subprocess.Popen(
        [sys.executable, "-c", WATCHDOG, str(tmp_path), spec.key, attempt],
        stdin=subprocess.PIPE,
        env={"PYTHONPATH": str(LINK)},
    )
    make_fence(spec.source, change).raise_(time.monotonic() + 10)
    assert not can_connect(owner, source, source_database)
    if cause == "crash":
        assert watchdog.stdin
        watchdog.stdin.close()
    assert watchdog.wait(timeout=30) == 0
    assert journal.state() == "lifted"
    assert can_connect(owner, source, source_database)
    with pytest.raises(CutoverAborted):
        journal.release()


def test_a_late_watchdog_leaves_the_next_fence_alone(tmp_path: Path, source, owner, source_database, spec_factory) -> None:
    """The watchdog of an attempt that was given back is still about when the next one fences: it must not open that."""
    spec = spec_factory("fence", [source_database])
    journal = FenceJournal(tmp_path / "fence.json")
    change = plan_fence(spec.source, source_database)
    first = journal.open([change], time.monotonic() + 60)
    journal.lift(spec.source)
    journal.open([change], time.monotonic() + 60)
    make_fence(spec.source, change).raise_(time.monotonic() + 10)
    try:
        assert journal.lift(spec.source, attempt=first) and journal.state() == "fenced"
        assert journal.deadline(first) is None and not can_connect(owner, source, source_database)
    finally:
        lift_fence(spec.source, change)


def test_released_stays_closed(tmp_path: Path, source, owner, source_database, spec_factory) -> None:
    """After the release the source must not be opened by anyone: the target is the server now."""
    spec = spec_factory("fence", [source_database])
    journal = FenceJournal(tmp_path / "fence.json")
    change = plan_fence(spec.source, source_database)
    journal.open([change], time.monotonic() + 60)
    make_fence(spec.source, change).raise_(time.monotonic() + 10)
    try:
        journal.release()
        assert journal.lift(spec.source) is False
        assert not can_connect(owner, source, source_database)
    finally:
        lift_fence(spec.source, change)
