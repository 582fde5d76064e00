# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A stream or a copy that stands still says why, in words and for machines, and asking does no harm."""

from __future__ import annotations

import contextlib
import os
import signal
import typing as t

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.monitor.screen import detail_lines
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.waits import Session, Waiting
from ansible_collections.pgops.migration.plugins.module_utils._engine.service.stall import cause_of, describe
from copylab import fill
from rows import differences


@pytest.fixture
def shop(source, owner, source_database) -> str:
    """Two tables of some megabytes."""
    fill(source, source_database, owner)
    return str(source_database)


def events(status: dict[str, t.Any], words: str) -> list[str]:
    return [event["text"] for event in status["events"] if words in event["text"]]


def stalled(database: str, cause: str) -> t.Callable[[dict[str, t.Any]], bool]:
    return lambda status: ((status["progress"].get(database) or {}).get("stalled") or {}).get("cause") == cause


@pytest.mark.parametrize("stranger", ["admin", "postgres"])
def test_a_lock_on_the_target(host, source, target, owner, admin, shop, spec_factory, stranger: str) -> None:
    """B18: somebody locks a table on the target: cause, his process id, his query, or that it is hidden, wherever the database is shown;
    one event for all of it, also over the lock timeout of ours; released, it is over and nothing is lost."""
    spec = spec_factory(f"lock-{stranger}", [shop], option="migrate")
    host.manager.start(spec)
    host.until_waiting(spec.key)
    login = (admin.name, admin.password) if stranger == "admin" else ("", "")
    with contextlib.ExitStack() as held:
        conn = held.enter_context(target.connect(shop, *login) if login[0] else target.connect(shop))
        held.enter_context(conn.transaction())
        conn.execute("SET application_name = 'report'")
        conn.execute("LOCK TABLE big IN ACCESS EXCLUSIVE MODE")
        with source.connect(shop, owner.name, owner.password) as app:
            app.execute("UPDATE big SET k = k + 1 WHERE id <= 100")
        status = host.until(spec.key, stalled(shop, "lock"), "the stall")
        told = status["progress"][shop]["stalled"]
        assert (told["side"], told["pid"]) == ("target", conn.info.backend_pid) and told["seconds"] >= 5
        assert f"pid {told['pid']}" in told["text"] and "'report'" in told["text"] and "applier" in told["text"]
        assert ("LOCK TABLE big" in told["text"]) == (stranger == "admin")
        assert ("hidden" in told["text"]) == (stranger != "admin")
        status = host.until(spec.key, lambda now: (now["progress"][shop]["stalled"] or {}).get("seconds", 0) > 33, "our lock timeout")
        assert status["progress"][shop]["stalled"]["cause"] == "lock"
        page = (host.home / "migrations" / spec.key / "report.html").read_text()
        for shown in (status["summary"], "\n".join(detail_lines(status)), page):
            assert f"pid {told['pid']}" in shown
        assert len(events(status, "nothing has moved")) == 1
    status = host.until(spec.key, lambda now: now["progress"][shop]["stalled"] is None, "its end")
    assert len(events(status, "nothing has moved")) == 1 and len(events(status, "it moves again")) == 1
    host.until_waiting(spec.key)
    host.cut_over(spec.key)
    with source.connect(shop) as here, target.connect(shop) as there:
        assert differences(here, there) == {}
        assert there.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '%% stall'").fetchone() == (0,)


def test_a_lock_on_the_source_while_rows_are_copied(host, source, target, owner, shop, spec_factory) -> None:
    """B18: a relay that waits for a lock names who holds it, on the source as on the target."""
    spec = spec_factory("lock-copy", [shop], option="migrate", copy={"jobs": 1, "chunk_bytes": 64 << 10, "throttle": 400_000})
    host.manager.start(spec)
    host.until(spec.key, lambda status: status["progress"].get(shop, {}).get("chunks_done"), "the first chunk")
    with source.connect(shop, owner.name, owner.password) as conn, conn.transaction():
        conn.execute("SET LOCAL lock_timeout = '60s'; LOCK TABLE big, bigger IN ACCESS EXCLUSIVE MODE")
        told = host.until(spec.key, stalled(shop, "lock"), "the stall")["progress"][shop]["stalled"]
        assert (told["side"], told["pid"]) == ("source", conn.info.backend_pid) and "relay" in told["text"]
    status = host.until_waiting(spec.key)
    assert status["progress"][shop]["stalled"] is None and events(status, "it moves again")
    host.cut_over(spec.key)
    with source.connect(shop) as here, target.connect(shop) as there:
        assert differences(here, there) == {}


def test_a_receiver_that_takes_nothing(host, source, target, owner, shop, spec_factory) -> None:
    """B18: the walsender is asked where nothing comes; gone with its cause, and nothing is lost."""
    spec = spec_factory("deaf", [shop], option="migrate")
    host.manager.start(spec)
    host.until_waiting(spec.key)
    (receiver,) = host.children(spec.key, "receive")
    os.kill(receiver, signal.SIGSTOP)
    try:
        with source.connect(shop, owner.name, owner.password) as app:
            app.execute("UPDATE big SET k = k + 1, filler = repeat('y', 500)")
        told = host.until(spec.key, stalled(shop, "client"), "the stall")["progress"][shop]["stalled"]
        (walsender,) = source.execute("SELECT active_pid FROM pg_replication_slots WHERE slot_name LIKE 'pgm%'")
        assert (told["side"], told["pid"]) == ("source", walsender[0]) and "receiver" in told["text"]
    finally:
        os.kill(receiver, signal.SIGCONT)
    host.until(spec.key, lambda now: now["progress"][shop]["stalled"] is None, "its end")
    host.until_waiting(spec.key)
    host.cut_over(spec.key)
    with source.connect(shop) as here, target.connect(shop) as there:
        assert differences(here, there) == {}


def test_nothing_stalls(host, source, target, owner, shop, spec_factory) -> None:
    """A stream at rest and under load is asked nothing: there is no session for it on either side, and no event."""
    spec = spec_factory("calm", [shop], option="migrate")
    host.manager.start(spec)
    host.until_waiting(spec.key)
    with source.connect(shop, owner.name, owner.password) as app, target.connect() as conn:
        for dummy in range(12):
            app.execute("UPDATE bigger SET k = k + 1")
            app.execute("SELECT pg_sleep(1)")
            for one in (conn, app):
                assert one.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '%% stall'").fetchone() == (0,)
    status = host.manager.status(spec.key)
    assert status["progress"][shop]["stalled"] is None and events(status, "nothing has moved") == []


def session(**changes: t.Any) -> Session:
    known = Session(7, "x", "me", "session", "active", "", "", "SELECT 1", 3.0, hidden=False)
    return known._replace(**changes)


VACUUM = {"process": "autovacuum worker", "pid": 9, "user": ""}


@pytest.mark.parametrize(
    ("ours", "blockers", "cause", "words"),
    [
        ({}, [], "working", "SELECT 1"),
        ({"event_type": "Client", "event": "ClientRead", "state": "idle in transaction"}, [], "client", "waits for us"),
        ({"event_type": "IO", "event": "DataFileRead"}, [], "io", "IO/DataFileRead"),
        ({"event_type": "LWLock", "event": "WALWrite"}, [], "io", "LWLock/WALWrite"),
        ({"event_type": "IPC", "event": "SyncRep"}, [], "standby", "synchronous_standby_names"),
        ({"event_type": "Lock", "event": "relation"}, [], "lock", "not known"),
        ({"event_type": "Lock"}, [{**VACUUM, "query": "autovacuum: VACUUM t"}], "lock", "autovacuum: VACUUM t"),
        ({"event_type": "Lock"}, [{**VACUUM, "hidden": True}], "lock", "an autovacuum worker, pid 9"),
        ({"event_type": "Lock"}, [{"process": "prepared transaction", "pid": 0}], "lock", "pg_prepared_xacts"),
        ({"event_type": "Lock"}, [{"pid": 9}, {"pid": 10}], "lock", "and 1 more"),
    ],
)  # fmt: skip
def test_causes(ours: dict[str, t.Any], blockers: list[dict[str, t.Any]], cause: str, words: str) -> None:
    """What a session waits for, in words."""
    waiting = Waiting(session(**ours), tuple(session(**one) for one in blockers))
    assert cause_of(waiting) == cause
    assert words in describe(cause, "target db", "target", waiting)["text"]
