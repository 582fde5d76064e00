# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The way back: the source follows the target after the cutover, and can serve again without a loss."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

import psycopg
import pytest
import servers as lab
from ansible.module_utils.testing import patch_module_args
from ansible_collections.pgops.migration.plugins.module_utils._ansible.module import MigrationModule
from ansible_collections.pgops.migration.plugins.module_utils._engine.cutover.watchdog import FenceJournal
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import (
    IllegalTransition,
    MigrationError,
    SpecificationError,
)
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.paths import (
    MigrationPaths,
    read_json,
    write_json,
)
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.runner import validate
from ansible_collections.pgops.migration.plugins.modules import pg_cutover
from cutoverlab import held, prepare_hold
from host import Host, end_services, run_whole
from pair import OWNER, Login, describe, make_source_of_both_ways, make_target_of_both_ways
from plays import Playbooks

DDL = """
CREATE TABLE public.account (id int PRIMARY KEY, amount bigint NOT NULL);
CREATE TABLE public.entry (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account int REFERENCES public.account, by text, note text);
INSERT INTO public.account SELECT g, 1000 FROM generate_series(1, 100) g;
CREATE SEQUENCE public.ticket;
CREATE MATERIALIZED VIEW public.total AS SELECT sum(amount) AS amount FROM public.account;
"""


@pytest.fixture(scope="module")
def source() -> t.Iterator[lab.Server]:
    """A source that may also be a target."""
    server = make_source_of_both_ways()
    yield server
    server.drop()


@pytest.fixture(scope="module")
def target() -> t.Iterator[lab.Server]:
    """A target that may also be a source, with the application's login."""
    server = make_target_of_both_ways()
    yield server
    server.drop()


@pytest.fixture
def shop(source: lab.Server, owner: Login, source_database: str) -> str:
    """A small database."""
    with source.connect(source_database, user=owner.name, password=owner.password) as conn:
        conn.execute(DDL)
    return source_database


TASK = """
import json, sys
from pathlib import Path
from ansible.module_utils.testing import patch_module_args
from ansible_collections.pgops.migration.plugins.module_utils._ansible.module import MigrationModule
from ansible_collections.pgops.migration.plugins.module_utils._engine.service.manager import Manager
from ansible_collections.pgops.migration.plugins.modules import pg_cutover
MigrationModule.manager = lambda self: Manager(Path(sys.argv[1]), supervisor="process", python=sys.executable)
with patch_module_args(json.load(sys.stdin)):
    pg_cutover.main()
"""


class Writers:
    """Sessions of the application: they write to the server that a file names, and remember what was acknowledged. ``hooks`` are the
    options of a cutover that lead them on."""

    def __init__(self, folder: Path, source: lab.Server, target: lab.Server, database: str, password: str, sessions: int = 4) -> None:
        self._servers, self._database, self._password = {str(one.port): one for one in (source, target)}, database, password
        self._led = folder / "led"
        for name, server in (("led", source), ("source", source), ("target", target)):
            (folder / name).write_text(str(server.port), encoding="utf-8")
        commands = {"release": folder / "target", "rollback_release": folder / "source"}
        self.hooks = {option: ["cp", str(path), str(self._led)] for option, path in commands.items()}
        self._stop = threading.Event()
        self.acknowledged: dict[int, list[int]] = {source.port: [], target.port: []}
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(sessions)]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def until(self, server: lab.Server, more: int) -> None:
        """Wait for ``more`` further commits on ``server``."""
        wanted, limit = len(self.acknowledged[server.port]) + more, time.monotonic() + 60
        while len(self.acknowledged[server.port]) < wanted:
            assert time.monotonic() < limit, self.acknowledged
            time.sleep(0.02)

    def _run(self, number: int) -> None:
        while not self._stop.is_set():
            server = self._servers.get(self._led.read_text(encoding="utf-8"))
            try:
                if server:
                    with psycopg.connect(server.dsn(self._database, OWNER, self._password), autocommit=True) as conn:
                        self._write(conn, server.port, number)
            except psycopg.Error:
                time.sleep(0.02)

    def _write(self, conn: psycopg.Connection[t.Any], port: int, number: int) -> None:
        while not self._stop.is_set():
            with conn.transaction():
                here, there = 1 + number * 7 % 100, 1 + (number * 11 + len(self.acknowledged[port])) % 100
                conn.execute("UPDATE public.account SET amount = amount - 1 WHERE id = %s", [here])
                conn.execute("UPDATE public.account SET amount = amount + 1 WHERE id = %s", [there])
                conn.execute("SELECT nextval('public.ticket')")
                row = conn.execute("INSERT INTO public.entry (account, by) VALUES (%s, %s) RETURNING id", [there, str(port)]).fetchone()
            self.acknowledged[port].append(row[0])
            time.sleep(0.005)


def ours(server: lab.Server, database: str) -> list[t.Any]:
    """What of ours is on ``server``."""
    with server.connect(database) as conn:
        return [
            *conn.execute("SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'pgm%'").fetchall(),
            *conn.execute("SELECT pubname FROM pg_publication").fetchall(),
            *conn.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'pgm%'").fetchall(),
            *conn.execute("SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'pgops%'").fetchall(),
        ]


def switched(host: Host, spec: MigrationSpec) -> MigrationSpec:
    """Cut ``spec`` over; the way back, which the source follows by."""
    run_whole(host, spec)
    back = host.manager.way_back(spec)
    host.until_waiting(back.key)
    return back


@pytest.mark.parametrize("plugin", ["wal2json", "pgoutput", "test_decoding"])
def test_back_under_load(plugin: str, host: Host, source, target, owner: Login, shop: str, spec_factory, tmp_path) -> None:
    """Writers go to the target at the cutover and back to the source at the rollback; no commit is lost in either direction, the pause is
    told, and nothing of ours is left; both may be asked for again."""
    writers = Writers(tmp_path, source, target, shop, owner.password)
    spec = spec_factory("back", [shop], rollback="prepared", changes={"plugin": plugin}, cutover=writers.hooks)
    with writers:
        host.manager.start(spec)
        host.until_waiting(spec.key)
        writers.until(source, 50)
        status = host.cut_over(spec.key)
        assert "1 ways back" in str(status["cutover"]["phases"])
        assert status["way_back"]["running"] and "way back" in status["summary"]
        writers.until(target, 50)
        assert not host.manager.start_way_back(spec)
        back = host.manager.way_back(spec)
        assert host.until_waiting(back.key)["plugin"][shop]["plugin"] == plugin
        told = host.manager.status(spec.key)["way_back"]
        assert told["state"] == "WaitingForUserAction" and told["latency_seconds"] < 5
        with pytest.raises(IllegalTransition, match="way back"):
            host.manager.forget(spec.key)
        writers.until(target, 200)
        rolled = host.cut_over(back.key)
        assert 0 < rolled["cutover"]["pause_seconds"] < 30 and rolled["verification"]["equal"]
        writers.until(source, 50)
    assert "rolled back" in host.manager.status(spec.key)["summary"]
    with target.connect(shop) as conn:  # what was written after the rollback is on the source alone
        last = conn.execute("SELECT max(id) FROM public.entry").fetchone()[0]
    with source.connect(shop) as conn:
        there = {row[0] for row in conn.execute("SELECT id FROM public.entry")}
        assert set(writers.acknowledged[target.port]) <= there and set(writers.acknowledged[source.port]) <= there
        assert conn.execute("SELECT sum(amount) FROM public.account").fetchone() == (100_000,)
        assert max(writers.acknowledged[target.port]) <= last < conn.execute("SELECT nextval('public.entry_id_seq')").fetchone()[0]
    assert ours(source, shop) == [] and ours(target, shop) == []
    assert not host.manager.start_way_back(spec)
    with pytest.raises(psycopg.OperationalError, match="CONNECT|permission"):
        target.connect(shop, owner.name, owner.password)


def test_killed_on_the_way(host: Host, source, target, owner: Login, shop: str, spec_factory, tmp_path) -> None:
    """SIGKILL of the service while the source follows and in the middle of the rollback: the target can be written again, and another
    rollback ends well."""
    writers = Writers(tmp_path, source, target, shop, owner.password)
    prepare_hold(source, shop)
    cutover = {"max_pause": 15, **writers.hooks}
    spec = spec_factory("killed", [shop], rollback="prepared", changes={"plugin": "pgoutput"}, cutover=cutover)
    with writers:
        host.manager.start(spec)
        host.until_waiting(spec.key)
        writers.until(source, 20)
        host.cut_over(spec.key)
        back = host.manager.way_back(spec)
        host.until_waiting(back.key)
        host.kill(back.key)
        writers.until(target, 20)
        assert host.manager.start_way_back(spec)
        host.until_waiting(back.key)
        with held(host, back.key, source, shop, "complete") as go_on:
            os.kill(host.manager.status(back.key)["service"]["pid"], signal.SIGKILL)
            go_on()
            host.gone(back.key)
        writers.until(target, 20)  # its watchdog has opened the target
        assert host.manager.start_way_back(spec)
        host.until_waiting(back.key)
        host.cut_over(back.key)
        writers.until(source, 20)
    with source.connect(shop) as conn:
        there = {row[0] for row in conn.execute("SELECT id FROM public.entry")}
        assert all(set(acknowledged) <= there for acknowledged in writers.acknowledged.values())


def test_host_restarted_in_the_rollback(host: Host, source, target, owner: Login, shop: str, spec_factory, tmp_path) -> None:
    """Service and watchdog are gone with their host: the unit of the migration, which is over, becomes the service of its way back and
    opens the target, whatever the journal says of the deadline; another rollback ends well."""
    writers = Writers(tmp_path, source, target, shop, owner.password)
    prepare_hold(source, shop)
    spec = spec_factory("reboot", [shop], rollback="prepared", changes={"plugin": "pgoutput"}, cutover=writers.hooks)
    with writers:
        host.manager.start(spec)
        host.until_waiting(spec.key)
        host.cut_over(spec.key)
        back = host.manager.way_back(spec)
        host.until_waiting(back.key)
        paths = MigrationPaths(host.home, back.key)
        with held(host, back.key, source, shop, "complete"):
            for pid in (*host.watchdogs(back.key), host.manager.status(back.key)["service"]["pid"]):
                os.kill(pid, signal.SIGKILL)
        host.gone(back.key)
        assert FenceJournal(paths.fence).state() == "fenced"
        write_json(paths.fence, {**read_json(paths.fence), "deadline": time.monotonic() + 1e6})
        unit = subprocess.Popen([sys.executable, str(paths.engine), "serve", "--home", str(host.home), "--migration", spec.key])
        try:
            writers.until(target, 20)
            host.until_waiting(back.key)
            host.cut_over(back.key)
            writers.until(source, 20)
        finally:
            unit.terminate()
            unit.wait(60)
    with source.connect(shop) as conn:
        there = {row[0] for row in conn.execute("SELECT id FROM public.entry")}
        assert all(set(acknowledged) <= there for acknowledged in writers.acknowledged.values())


def test_nobody_has_to_ask_for_it(host: Host, source, target, shop: str, spec_factory) -> None:
    """The task that asked for the cutover is killed right after the release: without any further play the source follows the target. A
    service that was killed and is started again by whoever watches over it goes on with the way back."""
    spec = spec_factory("alone", [shop], rollback="prepared", changes={"plugin": "pgoutput"})
    given = {**describe(source, target, "alone", [shop], rollback="prepared", changes={"plugin": "pgoutput"}), "state": "switched"}
    host.manager.start(spec)
    host.until_waiting(spec.key)
    journal = FenceJournal(MigrationPaths(host.home, spec.key).fence)
    task = subprocess.Popen(
        [sys.executable, "-c", TASK, str(host.home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    try:
        task.stdin.write(json.dumps(given).encode())
        task.stdin.close()
        limit = time.monotonic() + 90
        while journal.state() != "released":
            assert time.monotonic() < limit and task.poll() is None, host.log(spec.key)
            time.sleep(0.005)
    finally:
        task.kill()
        task.wait()
    back = host.manager.way_back(spec)

    def follows(number: int) -> None:
        limit = time.monotonic() + 90
        with target.connect(shop) as conn:
            conn.execute("INSERT INTO public.account VALUES (%s, 1)", [number])
        with source.connect(shop) as conn:
            while conn.execute("SELECT FROM public.account WHERE id = %s", [number]).fetchone() is None:
                assert time.monotonic() < limit, host.log(back.key)
                time.sleep(0.05)

    follows(1001)
    assert host.manager.status(spec.key)["state"] == "Succeeded" and not host.manager.status(spec.key)["service"]["running"]
    before = host.manager.status(spec.key)["progress"]
    host.kill(back.key)
    assert "play cutover again" in host.manager.status(spec.key)["summary"]
    engine = str(MigrationPaths(host.home, spec.key).engine)
    subprocess.Popen([sys.executable, engine, "serve", "--home", str(host.home), "--migration", spec.key], start_new_session=True)
    follows(1002)
    assert host.manager.status(spec.key)["progress"] == before and host.manager.status(back.key)["service"]["running"]
    host.manager.end_way_back(spec)
    assert ours(source, shop) == [] and ours(target, shop) == []


def test_finish(host: Host, source, target, owner: Login, shop: str, spec_factory, monkeypatch, capsys) -> None:
    """Given up: nothing of ours is left on either server, the source stays closed and keeps its database, a rollback is refused."""
    options = {"rollback": "prepared", "changes": {"plugin": "pgoutput"}}
    spec = spec_factory("finish", [shop], **options)
    switched(host, spec)
    assert ours(source, shop) and ours(target, shop)
    monkeypatch.setattr(MigrationModule, "manager", lambda self: host.manager)

    def module(state: str, **more: t.Any) -> dict[str, t.Any]:
        given = {**describe(source, target, "finish", [shop], **options), "state": state, **more}
        with patch_module_args(given), pytest.raises(SystemExit):
            pg_cutover.main()
        return dict(json.loads(capsys.readouterr().out))

    assert module("finished", _ansible_check_mode=True)["changed"] and ours(target, shop)
    done = module("finished")
    assert done["changed"] and any("slot" in line for line in done["removed"])
    assert ours(source, shop) == [] and ours(target, shop) == []
    assert not module("finished")["changed"] and not module("switched")["changed"]
    assert module("rolled_back")["error_code"] == "PGM5202"
    assert host.manager.end_way_back(spec) == {"removed": [], "notes": []}
    assert host.manager.status(spec.key)["way_back"]["state"] == "Canceled" and not host.manager.start_way_back(spec)
    with source.connect(shop) as conn:
        assert conn.execute("SELECT count(*) FROM public.account").fetchone() == (100,)
    with pytest.raises(psycopg.OperationalError):
        source.connect(shop, owner.name, owner.password)
    host.manager.forget(spec.key)


def test_playbooks(tmp_path, source, target, shop: str) -> None:
    """cutover, rollback and finish as a user plays them; in check mode nothing changes, played again neither."""
    one = Playbooks(tmp_path, describe(source, target, "plays", [shop], rollback="prepared", changes={"plugin": "pgoutput"}))
    try:
        one.play("migrate").fine()
        cut = one.play("cutover").fine()
        assert cut.changed > 0 and "way back" in cut.text
        assert one.play("cutover").fine().changed == 0
        one.play("rollback", "--check").fine()
        assert "rolled back" not in one.play("status", "-e", "pg_migration_run_slices=1").fine().text
        done = one.play("rollback").fine()
        assert done.changed > 0 and "Writers were paused for" in done.text
        assert one.play("rollback").fine().changed == 0 and one.play("finish").fine().changed == 0
        assert "rolled back" in one.play("cutover").fine().text
    finally:
        end_services(one.home)
    assert ours(source, shop) == [] and ours(target, shop) == []


def test_cleanup_and_drop_never_touch_the_source(host: Host, source, target, shop: str, spec_factory) -> None:
    """Whatever is asked for, the database that a way back leads to is not ours to drop."""
    spec = spec_factory("spare", [shop], rollback="prepared", changes={"plugin": "pgoutput"})
    back = switched(host, spec)
    kept = host.manager.cleanup(back.source, back.target, drop_target=True)["kept"]
    assert any("cancel it first" in line for line in kept)
    assert host.manager.cancel(back.key, drop_target=True)["canceled"]["dropped"] == []
    host.manager.cleanup(back.source, back.target, drop_target=True, force=True)
    with source.connect(shop) as conn:
        assert conn.execute("SELECT count(*) FROM public.account").fetchone() == (100,)


def test_what_it_needs(host: Host, source, target, shop: str, spec_factory) -> None:
    """Offline, without a fence: refused at once. A target without the rights: refused by the pre-checks, before anything is fenced; given,
    the same cutover goes on. One that was asked for without it has no way back."""
    for wrong in ({"mode": "offline"}, {"cutover": {"fence": "none"}}):
        with pytest.raises(SpecificationError, match="rollback"):
            spec_factory("wrong", [shop], rollback="prepared", **wrong)
    spec = spec_factory("needs", [shop], rollback="prepared", changes={"plugin": "pgoutput"})
    host.manager.start(spec)
    host.until_waiting(spec.key)
    with pytest.raises(MigrationError, match="rollback"):
        host.manager.request_cutover(spec.key, {"fence": "none"})
    target.execute("ALTER ROLE admin NOREPLICATION")
    with pytest.raises(MigrationError, match="way back") as caught:
        host.manager.request_cutover(spec.key, {})
    assert "REPLICATION" in caught.value.hint
    target.execute("REVOKE pg_signal_backend FROM admin")
    failed = [one for one in validate(spec, only=["PGM2216"]).findings if one.severity == "Failed"]
    assert {one.code for one in failed} == {"PGM2216"} and all("on the target" in one.message for one in failed) and len(failed) == 2
    with pytest.raises(MigrationError, match="on the target"):
        host.manager.request_cutover(spec.key, {})
    target.execute("ALTER ROLE admin REPLICATION; GRANT pg_signal_backend TO admin")
    assert validate(spec, only=["PGM2216"]).passed
    host.cut_over(spec.key)
    assert host.manager.end_way_back(spec)["removed"] and not host.manager.start_way_back(spec)


def test_given_back_takes_it_back(host: Host, source, target, owner: Login, shop: str, spec_factory) -> None:
    """A cutover that fails after the way back was made leaves neither slot nor ledger of it; the next one makes them anew."""
    spec = spec_factory("again", [shop], rollback="prepared", changes={"plugin": "pgoutput"}, cutover={"max_pause": 4})
    host.manager.start(spec)
    host.until_waiting(spec.key)
    with target.connect("postgres") as conn:
        conn.execute("BEGIN")
        conn.execute("SELECT pg_current_xact_id()")  # a slot on the target waits for it
        status = host.try_cutover(spec.key)
    assert status["state"] == "WaitingForUserAction" and status["cutover"]["given_back"]["code"] in ("PGM5201", "PGM5106")
    with source.connect(shop, owner.name, owner.password) as conn:
        assert conn.execute("SELECT to_regnamespace('pgm_migration')").fetchone() == (None,)
    assert target.execute("SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'pgm%'") == [(0,)]
    host.until_waiting(spec.key)
    host.cut_over(spec.key)
    host.until_waiting(host.manager.way_back(spec).key)
    host.manager.end_way_back(spec)
