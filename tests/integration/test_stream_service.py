# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The change stream as the service runs it, with two databases: an error of one is that one's alone, and whatever is killed or restarted,
both end equal."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import threading
import time
import typing as t

import psycopg
import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import CutoverAborted
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.lsn import parse_lsn
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from host import Host
from pair import OWNER, PASSWORDS, make_source, make_target
from rows import differences

KILLS = int(os.environ.get("PG_MIGRATION_KILLS", "8"))
"""Processes that are killed under load; ``PG_MIGRATION_KILLS=50`` for the whole."""

PLUGINS = ("wal2json", "pgoutput")
SCHEMA = """
CREATE TABLE item (id bigint PRIMARY KEY, n int NOT NULL, word text);
CREATE INDEX ON item (n);
CREATE TABLE log (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item bigint NOT NULL, at timestamptz DEFAULT clock_timestamp());
INSERT INTO item SELECT i, 0, 'item ' || i FROM generate_series(1, 1000) i;
"""


class Writers:
    """Sessions that insert, update, move and delete rows of ``database`` until told to stop, through restarts of the server."""

    def __init__(self, source: lab.Server, database: str, sessions: int = 2) -> None:
        self.source, self.database = source, database
        self.committed = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(sessions)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        dice = random.Random(number)
        while not self._stop.is_set():
            with contextlib.suppress(psycopg.Error), connect(self.source, self.database) as conn:
                while not self._stop.is_set():
                    self._transaction(conn, dice)
                    self.committed += 1
            self._stop.wait(0.1)

    @staticmethod
    def _transaction(conn: psycopg.Connection[t.Any], dice: random.Random) -> None:
        with conn.transaction():
            for dummy in range(dice.choice((1, 1, 2, 20))):
                key = dice.randint(1, 3000)
                done = conn.execute("UPDATE item SET n = n + 1, word = %s WHERE id = %s", [f"word {dice.random()}", key])
                if not done.rowcount:
                    conn.execute("INSERT INTO item VALUES (%s, 1, 'new') ON CONFLICT DO NOTHING", [key])
                elif dice.random() < 0.1:
                    conn.execute("DELETE FROM item WHERE id = %s", [key])
                conn.execute("INSERT INTO log (item) VALUES (%s)", [key])


def connect(server: lab.Server, database: str) -> psycopg.Connection[t.Any]:
    """A session of the application."""
    if server.major and "source" in server.name:
        return server.connect(database, OWNER, PASSWORDS[server.port])
    return server.connect(database)


@pytest.fixture(scope="module")
def source() -> t.Iterator[lab.Server]:
    """A source of this module's own: it is restarted."""
    server = make_source("source-service")
    yield server
    server.drop()


@pytest.fixture(scope="module")
def target() -> t.Iterator[lab.Server]:
    """A target of this module's own."""
    server = make_target("target-service")
    yield server
    server.drop()


class Pair:
    """Two databases that are streamed while both are written."""

    def __init__(self, host: Host, source: lab.Server, target: lab.Server, spec: MigrationSpec) -> None:
        self.host, self.source, self.target, self.spec = host, source, target, spec
        self.one, self.two = spec.databases
        self.writers = [Writers(source, database) for database in spec.databases]

    def start(self) -> None:
        self.host.manager.start(self.spec)
        self.host.until_waiting(self.spec.key)

    def status(self) -> dict[str, t.Any]:
        return t.cast("dict[str, t.Any]", self.host.manager.status(self.spec.key))

    def figures(self, database: str) -> dict[str, t.Any]:
        return t.cast("dict[str, t.Any]", self.status()["progress"][database])

    def until(self, reached: t.Callable[[dict[str, t.Any]], t.Any], what: str, seconds: float = 60.0) -> dict[str, t.Any]:
        return self.host.until(self.spec.key, reached, what, seconds)

    def end(self) -> None:
        """Stop the writers, cut over, compare."""
        for writers in self.writers:
            writers.stop()
        self.host.until_waiting(self.spec.key)
        self.host.cut_over(self.spec.key)
        for database in self.spec.databases:
            with self.source.connect(database) as left, self.target.connect(database) as right:
                assert differences(left, right) == {}

    def reaches(self, database: str, seconds: float = 30.0) -> None:
        """A row that is written now arrives on the target."""
        with connect(self.source, database) as conn:
            row = conn.execute("INSERT INTO log (item) VALUES (-1) RETURNING id").fetchone()
        limit = time.monotonic() + seconds
        with self.target.connect(database) as conn:
            while conn.execute("SELECT EXISTS (SELECT FROM log WHERE id = %s)", row).fetchone() != (True,):
                assert time.monotonic() < limit, (self.status(), self.host.log(self.spec.key))
                time.sleep(0.05)

    def role(self, role: str) -> list[int]:
        """Process ids of ``work`` or ``receive``."""
        pattern = f"current {role} --home {self.host.home} --migration {self.spec.key} "
        found = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=False)
        return [int(word) for word in found.stdout.split()]


@pytest.fixture
def pair(host, source, target, database_factory, spec_factory) -> t.Iterator[t.Callable[..., Pair]]:
    """``pair(name, **changes)``: two databases under load, streamed."""
    made: list[Pair] = []

    def make(name: str, **overrides: t.Any) -> Pair:
        names = [database_factory(), database_factory()]
        for database in names:
            with connect(source, database) as conn:
                conn.execute(SCHEMA)
        overrides["changes"] = {"heartbeat": 0.3, **overrides.get("changes", {})}
        made.append(Pair(host, source, target, spec_factory(name, names, **overrides)))
        return made[-1]

    yield make
    for one in made:
        for writers in one.writers:
            writers.stop()
        with contextlib.suppress(Exception):
            host.manager.cancel(one.spec.key, drop_target=True)


def forbid(pair: Pair) -> None:
    """A constraint on the target, made by hand, that the source's next change violates."""
    with pair.target.connect(pair.one) as conn:
        conn.execute("ALTER TABLE item ADD CONSTRAINT by_hand CHECK (n < 1000000)")
    with connect(pair.source, pair.one) as conn:
        conn.execute("INSERT INTO item VALUES (777777, 2000000, 'forbidden')")


def in_error(pair: Pair) -> dict[str, t.Any]:
    """The status as soon as the first database is in error."""
    return pair.until(lambda s: s["progress"][pair.one]["state"] == "Failed", "an error")


@pytest.mark.parametrize("plugin, acknowledge", [("wal2json", "spooled"), ("pgoutput", "applied")])
def test_an_apply_error_is_that_databases_alone(pair: t.Callable[..., Pair], plugin: str, acknowledge: str) -> None:
    """The database stops with table, key, LSN and statement in its error, and nothing past it is applied or acknowledged as applied; the
    other one streams on; no cutover meanwhile; when the cause is gone, a start goes on with that very change."""
    both = pair(f"alone-{acknowledge}", changes={"plugin": plugin, "acknowledge": acknowledge})
    both.start()
    forbid(both)
    status = in_error(both)
    error = status["progress"][both.one]["error"]
    assert error["code"] == "PGM4024"
    assert error["details"]["database"] == both.one
    assert (error["details"]["table"], error["details"]["key"], error["details"]["statement"]) == ("public.item", "id=777777", "INSERT")
    status = both.until(lambda s: s["error"], "the migration's state")
    assert (status["state"], status["substate"]) == ("WaitingForUserAction", "MigratingData")
    assert status["error"] == error and both.one in status["summary"] and "public.item" in status["summary"]
    assert status["progress"][both.two]["state"] == "InProgress"
    both.reaches(both.two)
    nothing_past(both, parse_lsn(error["details"]["lsn"]), acknowledge)
    with pytest.raises(CutoverAborted) as caught:
        both.host.manager.request_cutover(both.spec.key, {"force": True})
    assert caught.value.code == "PGM5006" and both.one in caught.value.message
    assert both.host.manager.plan(both.spec).action == "resume"
    with both.target.connect(both.one) as conn:
        conn.execute("ALTER TABLE item DROP CONSTRAINT by_hand")
    assert both.host.manager.start(both.spec)["error"] is None
    both.reaches(both.one)
    assert both.host.manager.plan(both.spec).action == "none"
    both.end()


def nothing_past(both: Pair, lsn: int, acknowledge: str) -> None:
    """Nothing of the transaction in error, nor of any after it, is on the target or acknowledged further than it may be."""
    received = both.figures(both.one)["received_lsn"]
    both.until(lambda s: s["progress"][both.one]["received_lsn"] > max(received, lsn), "the receiver to go on")
    latency = both.figures(both.one)["latency_seconds"]
    both.until(lambda s: s["progress"][both.one]["latency_seconds"] > latency + 1, "a growing latency")
    with both.target.connect(both.one) as conn:
        assert conn.execute("SELECT max(end_lsn) <= %s::text::pg_lsn FROM pgm_migration.progress", [_text(lsn)]).fetchone() == (True,)
        assert conn.execute("SELECT count(*) FROM item WHERE id = 777777").fetchone() == (0,)
    with both.source.connect(both.one) as conn:
        row = conn.execute("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE database = %s", [both.one]).fetchone()
    if acknowledge == "applied":
        assert parse_lsn(row[0]) <= lsn
    else:  # no further than what is spooled
        both.until(lambda s: s["progress"][both.one]["received_lsn"] >= parse_lsn(row[0]), "the receiver's word", 5)


def _text(lsn: int) -> str:
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_privilege_is_taken_away(pair: t.Callable[..., Pair], side: str) -> None:
    """REPLICATION on the source: it is tried again and again, and the summary says with which answer. The tables on the target: an error of
    that database. Nothing is lost, and it goes on when the privilege is there again."""
    both = pair(f"revoked-{side}", changes={"plugin": "pgoutput"})
    both.start()
    if side == "source":
        taken, given, server = "ALTER ROLE migrator NOREPLICATION", "ALTER ROLE migrator REPLICATION", both.source
        sessions = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active_pid IS NOT NULL"
    else:
        owned = both.target.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'item'", both.one)[0][0]
        taken, given, server = f"REVOKE {owned} FROM admin", f"GRANT {owned} TO admin", both.target
        sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'pgops%'"
    server.execute(taken)
    try:
        server.execute(sessions)
        if side == "source":
            status = both.until(lambda s: "42501" in s["summary"], "the refusal")
            assert f"source {server.host}:{server.port}" in status["summary"] and status["error"] is None
        else:
            status = both.until(lambda s: any(one["error"] for one in s["progress"].values()), "an error", 120)
            error = next(one["error"] for one in status["progress"].values() if one["error"])
            assert error["sqlstate"] == "42501" and "on the target" in error["hint"] and "permission denied" in error["message"]
    finally:
        server.execute(given)
    both.host.manager.start(both.spec)
    both.reaches(both.one)
    both.reaches(both.two)
    both.end()


def test_it_goes_on_by_itself(pair: t.Callable[..., Pair]) -> None:
    """Whoever removes the cause need not play anything: the next attempt is made after half a minute."""
    both = pair("itself", changes={"plugin": "pgoutput"})
    both.start()
    forbid(both)
    assert "next attempt" in in_error(both)["progress"][both.one]["message"]
    with both.target.connect(both.one) as conn:
        conn.execute("ALTER TABLE item DROP CONSTRAINT by_hand")

    def goes_on(status: dict[str, t.Any]) -> bool:
        waiting = not status["error"] and status["substate"] == "WaitingForCutoverTrigger"
        return waiting and status["progress"][both.one]["state"] == "InProgress"

    both.until(goes_on, "the next attempt", 60)
    both.end()


def test_held_over_a_killed_service(pair: t.Callable[..., Pair]) -> None:
    """The error outlives the service that found it: started again, it finds it again, and goes on when the cause is gone."""
    both = pair("heldkill", changes={"plugin": "pgoutput"})
    both.start()
    forbid(both)
    in_error(both)
    both.host.kill(both.spec.key)
    both.host.manager.start(both.spec)
    assert in_error(both)["progress"][both.one]["error"]["code"] == "PGM4024"
    with both.target.connect(both.one) as conn:
        conn.execute("ALTER TABLE item DROP CONSTRAINT by_hand")
    both.until(lambda s: s["error"], "the state")
    both.host.manager.start(both.spec)
    both.end()


def test_a_lost_slot_is_that_databases_alone(pair: t.Callable[..., Pair]) -> None:
    """A slot dropped by hand ends that database with what to do, never with a silent restart; the other streams on."""
    both = pair("lost", changes={"plugin": "pgoutput"})
    both.start()
    limit = time.monotonic() + 20
    gone = False
    while not gone:
        assert time.monotonic() < limit
        with both.source.connect() as conn, contextlib.suppress(psycopg.Error):
            conn.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = %s", [both.one])
            conn.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s", [both.one])
            gone = True
    status = both.until(lambda s: s["error"], "an error")
    assert status["error"]["code"] in ("PGM4001", "PGM4010") and status["error"]["hint"]
    both.reaches(both.two)
    both.host.manager.start(both.spec)
    assert both.until(lambda s: s["error"], "the error again")["error"]["details"]["database"] == both.one
    assert both.source.execute(f"SELECT count(*) FROM pg_replication_slots WHERE database = '{both.one}'") == [(0,)]
    both.reaches(both.two)


def warned(both: Pair) -> bool:
    """Was it said that the limit is near?"""
    return any("max_retained_wal_bytes" in event["text"] and event["level"] == "warning" for event in both.status()["events"])


def retained(conn: psycopg.Connection[t.Any], database: str) -> int:
    """Bytes of WAL that the slot of this database holds; the writers of the tests write some too."""
    said = conn.execute(
        "SELECT max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)) FROM pg_replication_slots WHERE database = %s", [database]
    )
    return int((said.fetchone() or [0])[0] or 0)


def test_the_guard_says_why_the_slot_is_gone(pair: t.Callable[..., Pair]) -> None:
    """A slot that held too much WAL is dropped; whatever the receiver meets first, the error is the guard's, and the other streams on."""
    both = pair("guard", changes={"plugin": "pgoutput", "max_retained_wal_bytes": 40_000_000})
    both.start()
    said = False
    with connect(both.source, both.one) as conn:
        conn.execute("BEGIN; INSERT INTO log (item) VALUES (-2)")  # nothing from here on can be let go of
        with connect(both.source, both.two) as other:
            limit = time.monotonic() + 90
            while both.figures(both.one)["state"] != "Failed":
                said = said or warned(both)
                if said or retained(other, both.one) < 36_000_000:  # near the limit, until that was said
                    other.execute("SELECT pg_logical_emit_message(false, 'filler', repeat('x', 500000))")
                assert time.monotonic() < limit, both.status()
        conn.execute("ROLLBACK")
    status = both.until(lambda s: s["error"], "the state")
    codes = {figures["error"]["code"] for figures in status["progress"].values() if figures["error"]}
    assert status["error"]["code"] == "PGM4006" and codes == {"PGM4006"}
    assert said
    assert both.source.execute(f"SELECT count(*) FROM pg_replication_slots WHERE database = '{both.one}'") == [(0,)]


def test_latency_grows_while_the_stream_is_dead(pair: t.Callable[..., Pair]) -> None:
    """R91: with a stopped receiver, a stopped worker and a source that is down the latency grows; then it falls."""
    both = pair("dead", changes={"plugin": "pgoutput"})
    both.start()

    def grows(what: str) -> None:
        before = both.figures(both.one)["latency_seconds"]
        both.until(lambda s: s["progress"][both.one]["latency_seconds"] > max(4.0, before), what, 30)

    for role in ("receive", "work"):
        stopped = both.role(role)
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        grows(role)
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        both.host.until_waiting(both.spec.key)
    both.source.stop()
    grows("the source")
    both.source.start()
    both.host.until_waiting(both.spec.key)
    both.host.kill(both.spec.key)
    grows("the service")
    both.host.manager.start(both.spec)
    both.host.until_waiting(both.spec.key)
    both.end()


def test_a_copy_error_is_that_databases_alone(pair: t.Callable[..., Pair]) -> None:
    """An index that cannot be built on the target: the other database is copied and streamed; a start goes on when the cause is gone."""
    both = pair("copyerror", changes={"plugin": "pgoutput"})
    body = "BEGIN IF current_setting('port') <> '{port}' THEN RAISE 'not here'; END IF; RETURN i; END"
    make = "CREATE OR REPLACE FUNCTION only_here(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$" + body + "$$"
    with connect(both.source, both.one) as conn:
        conn.execute(make.format(port=both.source.port))
        conn.execute("CREATE INDEX picky ON item (only_here(n))")
    both.host.manager.start(both.spec)
    status = both.until(lambda s: s["error"] and s["progress"][both.two]["phase"] == "streaming", "an error and the other one")
    assert status["progress"][both.one]["state"] == "Failed" and "not here" in status["error"]["message"]
    both.until(lambda s: s["state"] == "WaitingForUserAction", "the state")
    both.reaches(both.two)
    with both.target.connect(both.one) as conn:
        conn.execute(make.format(port=both.target.port))
    both.host.manager.start(both.spec)
    both.end()


@pytest.mark.parametrize("plugin", PLUGINS)
def test_killed_at_random(pair: t.Callable[..., Pair], plugin: str) -> None:
    """SIGKILL of receivers, workers and the service, again and again under load: exact."""
    both = pair(f"kills-{plugin}", changes={"plugin": plugin, "batch_rows": 300, "segment_bytes": 200_000})
    both.start()
    dice = random.Random(plugin)
    killed = {"receive": 0, "work": 0, "serve": 0}
    while sum(killed.values()) < KILLS:
        time.sleep(dice.uniform(0.3, 2.0))
        role = min(killed, key=lambda one: (killed[one] // 2, dice.random()))
        if role == "serve":
            os.kill(both.status()["service"]["pid"], signal.SIGKILL)
            limit = time.monotonic() + 20
            while both.status()["service"]["running"]:
                assert time.monotonic() < limit
                time.sleep(0.01)
            both.host.manager.start(both.spec)  # as systemd does
        else:
            found = both.role(role)
            if not found:  # it is being started again
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(dice.choice(found), signal.SIGKILL)
        killed[role] += 1
    written = [writers.committed for writers in both.writers]
    both.host.until_waiting(both.spec.key)
    both.end()
    print(f"killed {killed}; transactions {written}")
    assert min(written) > 10 * KILLS


@pytest.mark.parametrize("plugin", PLUGINS)
def test_servers_restart(pair: t.Callable[..., Pair], plugin: str) -> None:
    """Each server crashes and each restarts: the migration goes on by itself, its state stays, and no database is in error."""
    both = pair(f"servers-{plugin}", changes={"plugin": plugin})
    both.start()
    for crashed, restarted in ((both.target, both.source), (both.source, both.target)):
        crashed.crash()
        crashed.start()
        both.reaches(both.one, 60)
        restarted.restart()
        both.reaches(both.two, 60)
        assert both.status()["error"] is None
    both.end()
