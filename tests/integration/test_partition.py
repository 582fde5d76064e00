# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A network that carries nothing for a while and says nothing of it, between the runtime host and both servers: in the base copy, in the
stream and in the cutover, in one migration."""

from __future__ import annotations

import os
import time
import typing as t

import pytest
import servers as lab
import workload as writers
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from cutoverlab import held, lead, prepare_hold, shop_writers, state_of
from host import Host
from pair import describe, make_target
from proxies import Silencer
from rows import differences
from waits import until

MAX_PAUSE = 4.0
SILENCE = 2.5


@pytest.fixture(scope="module")
def target() -> t.Iterator[lab.Server]:
    """A target of this module's own."""
    server = make_target()
    yield server
    server.drop()


@pytest.fixture
def lines(source: lab.Server, target: lab.Server) -> t.Iterator[tuple[Silencer, Silencer]]:
    """The lines to both servers."""
    both = Silencer(source.host, source.port), Silencer(target.host, target.port)
    yield both
    for one in both:
        one.socket.close()


@pytest.mark.skipif(
    not os.environ.get("PG_MIGRATION_PARTITION"), reason="PG_MIGRATION_PARTITION=1 asks for it; it needs a machine with time"
)
def test_silence(lines, host: Host, source, target, owner, source_database, tmp_path) -> None:
    """Copy and stream go on when it is over, and nothing was lost. A cutover that it meets is given back: the source is as it was as soon
    as the line is there again; the next one succeeds."""
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute("CREATE TABLE big AS SELECT g AS id, repeat('x', 200) AS text FROM generate_series(1, 40000) g")
        conn.execute("ALTER TABLE big ADD PRIMARY KEY (id)")
    application = shop_writers(source, owner, source_database, tmp_path, 2, 20)
    prepare_hold(source, source_database)
    before = state_of(source, source_database)
    ends = {side: {"port": line.port, "connect_timeout": 3} for side, line in zip(("source", "target"), lines, strict=True)}
    cutover = {"max_latency": 60, "max_pause": MAX_PAUSE, "release": lead(tmp_path, target, source_database)}
    told = describe(source, target, "silence", [source_database], cutover=cutover, copy={"throttle": 2 << 20}, **ends)
    told["copy"]["bindir"] = str(source.bindir)
    spec = MigrationSpec.from_dict(told)
    key = spec.key
    with application:
        host.manager.start(spec)

        def progress() -> dict[str, t.Any]:
            return (host.manager.status(key) or {})["progress"].get(source_database, {})

        until(lambda: progress().get("bytes_moved", 0) > 0, "the copy has begun", 90)
        with lines[0].silent(), lines[1].silent():
            time.sleep(SILENCE)
        host.until_waiting(key)

        with lines[0].silent(), lines[1].silent():
            written = application.acknowledged(source.port)
            application.wait_acknowledged(written + 20, 60, port=source.port)
            time.sleep(SILENCE)
        received = source.execute("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")[0][0]
        until(lambda: progress().get("received_lsn", 0) >= received, "the stream has caught up", 90)
        assert (host.manager.status(key) or {})["error"] is None

        def ask(of: str) -> None:
            host.manager.request_cutover(of, {"force": True})  # a slow machine's forecast may be longer than the pause

        with held(host, key, target, source_database, "fence", ask), lines[0].silent(), lines[1].silent():
            time.sleep(MAX_PAUSE + SILENCE)
        until(lambda: state_of(source, source_database) == before, "the source is as it was", 90)
        host.until(key, lambda status: status["cutover"], "what became of the cutover")
        status = host.until_waiting(key)
        assert status["cutover"]["given_back"]["code"].startswith("PGM5"), status["cutover"]
        written = application.acknowledged(source.port)
        application.wait_acknowledged(written + 10, 60, port=source.port)

        host.cut_over(key, max_pause=60, force=True)
        application.wait_acknowledged(10, 60, port=target.port)
    account = writers.check(target.dsn(source_database), application.folder)
    assert account.good, account
    with source.connect(source_database) as left, target.connect(source_database) as right:
        assert "public.big" not in differences(left, right)
