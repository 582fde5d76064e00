# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A partition of the network: every frame between the runtime host and both servers is lost for a while, and nobody is told."""

from __future__ import annotations

import threading
import time
import typing as t

import pytest
import servers as lab
import workload as writers
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres import walstream
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.replication import ServerRefused
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from cutoverlab import held, lead, prepare_hold, shop_writers, state_of
from host import Host
from pair import describe, make_target
from rows import differences
from slowlink import POSSIBLE, SlowLink
from waits import until

MAX_PAUSE = 4.0
SILENCE = 2.5
RATE, DELAY = 400e6, 0.0005

pytestmark = pytest.mark.skipif(not POSSIBLE, reason="a link in user space needs root and TAP devices")


@pytest.fixture(scope="module")
def target() -> t.Iterator[lab.Server]:
    """A target of this module's own."""
    server = make_target()
    yield server
    server.drop()


@pytest.fixture
def link() -> t.Iterator[SlowLink]:
    """The line between the runtime host, which is in its namespace, and the servers."""
    with SlowLink(RATE, DELAY) as one:
        yield one


def ends_of(link: SlowLink, *servers: lab.Server) -> dict[str, dict[str, t.Any]]:
    """Source and target as the namespace reaches them."""
    return {
        side: {"host": link.near, "port": link.lead(server.host, server.port), "connect_timeout": 3}
        for side, server in zip(("source", "target"), servers, strict=True)
    }


def test_a_silent_walsender_is_given_up(link: SlowLink, source, target, source_database, monkeypatch) -> None:
    """Though what was sent to it is still on its way, which keepalives wait for."""
    monkeypatch.setattr(walstream, "PATIENCE_MS", 1500)
    slot = "pgm_silent"
    source.execute(f"SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding')", source_database)
    spec = MigrationSpec.from_dict(describe(source, target, "silent", [source_database], **ends_of(link, source, target)))
    ended: list[str] = []
    streams, silent = threading.Event(), threading.Event()

    def stream() -> None:
        link.enter()
        one = walstream.WalStream(spec.source, source_database)
        one.start(slot, 0, {})
        streams.set()
        silent.wait(60)
        try:
            while True:
                one.feedback(0, 0, 0)
                one.receive(0.2)
                one.consume(one.filled)
        except ServerRefused as exc:
            ended.append(exc.message)
        finally:
            one.close()

    thread = threading.Thread(target=stream, daemon=True)
    thread.start()
    assert streams.wait(60)
    with link.silent():
        silent.set()
        thread.join(30)
        assert ended, "the stream still waits"
    assert "timed out" in ended[0].lower()
    until(lambda: source.execute(f"SELECT pg_drop_replication_slot('{slot}') FROM pg_replication_slots WHERE NOT active"), "a free slot")


def test_a_migration_is_cut_off(link: SlowLink, host: Host, source, target, owner, source_database, tmp_path) -> None:
    """Copy and stream go on when it is over, and nothing was lost. A cutover that it meets is given back: the source is as it was as soon
    as the line is there again; the next one succeeds."""
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute("CREATE TABLE big AS SELECT g AS id, repeat('x', 200) AS text FROM generate_series(1, 40000) g")
        conn.execute("ALTER TABLE big ADD PRIMARY KEY (id)")
    application = shop_writers(source, owner, source_database, tmp_path, 2, 20)
    prepare_hold(source, source_database)
    before = state_of(source, source_database)
    cutover = {"max_latency": 60, "max_pause": MAX_PAUSE, "release": lead(tmp_path, target, source_database)}
    copy = {"throttle": 2 << 20, "bindir": str(source.bindir)}
    told = describe(source, target, "cut-off", [source_database], cutover=cutover, copy=copy, **ends_of(link, source, target))
    key = MigrationSpec.from_dict(told).key
    with application:
        link.start(host.home, told)

        def progress() -> dict[str, t.Any]:
            return (host.manager.status(key) or {})["progress"].get(source_database, {})

        until(lambda: progress().get("bytes_moved", 0) > 0, "the copy has begun", 90)
        with link.silent():
            time.sleep(SILENCE)
        host.until_waiting(key)

        with link.silent():
            written = application.acknowledged(source.port)
            application.wait_acknowledged(written + 20, 60, port=source.port)
            time.sleep(SILENCE)
        received = source.execute("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")[0][0]
        until(lambda: progress().get("received_lsn", 0) >= received, "the stream has caught up", 90)
        assert (host.manager.status(key) or {})["error"] is None

        def ask(of: str) -> None:
            host.manager.request_cutover(of, {"force": True})  # a slow machine's forecast may be longer than the pause

        with held(host, key, target, source_database, "drain", ask) as go_on, link.silent():
            go_on()
            time.sleep(MAX_PAUSE + SILENCE)
        until(lambda: state_of(source, source_database) == before, "the source is as it was", 90)
        host.until(key, lambda status: status["cutover"], "what became of the cutover")
        status = host.until_waiting(key)
        assert status["cutover"]["given_back"]["code"]  # which one: whoever noticed it first
        written = application.acknowledged(source.port)
        application.wait_acknowledged(written + 10, 60, port=source.port)

        host.cut_over(key, max_pause=60, force=True)
        application.wait_acknowledged(10, 60, port=target.port)
    account = writers.check(target.dsn(source_database), application.folder)
    assert account.good, account
    with source.connect(source_database) as left, target.connect(source_database) as right:
        assert "public.big" not in differences(left, right)
