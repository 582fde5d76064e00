# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The target fails over to its standby: the stream goes on there from what the standby has, or says why it cannot."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from changelab import StreamLab
from pair import OWNER, PASSWORDS, describe, make_standby, make_target
from proxies import Cutter
from waits import until

SETTINGS = {"wal_level": "replica", "max_wal_senders": "4", "hot_standby": "on"}
TABLE = "CREATE TABLE t (id serial PRIMARY KEY, v text)"


def caught_up(primary: lab.Server) -> bool:
    """Has the standby nearly all that the primary has written?"""
    lag = "SELECT bool_and(pg_current_wal_lsn() - replay_lsn < 100000) FROM pg_stat_replication"
    return primary.execute(lag)[0][0] is True


@pytest.mark.parametrize("behind", [False, True])
def test_target_fails_over(source: lab.Server, source_database: str, tmp_path: Path, behind: bool) -> None:
    """Also where the standby lacks the last commits of the primary: progress and rows went back together, and the spool has the rest."""
    primary = make_target(settings=SETTINGS)
    standby = make_standby(primary)
    proxy = Cutter(primary.host, primary.port, 1, 1 << 30, 1 << 31)
    primary.create_database(source_database, "admin")
    for server, login in ((source, OWNER), (primary, "admin")):
        with server.connect(source_database, login, PASSWORDS[server.port]) as conn:
            conn.execute(TABLE)
    spec = MigrationSpec.from_dict(describe(source, primary, "failover", [source_database], target={"port": proxy.port}))
    stream = StreamLab(spec, tmp_path / "spool", "pgoutput")
    over, writer = threading.Event(), source.connect(source_database, OWNER, PASSWORDS[source.port])

    def write() -> None:
        while not over.is_set():
            writer.execute("INSERT INTO t (v) SELECT repeat('x', 50) FROM generate_series(1, 20)")

    load = threading.Thread(target=write)
    try:
        stream.start()
        load.start()
        until(lambda: primary.execute("SELECT count(*) > 500 FROM t", source_database)[0][0])
        until(lambda: caught_up(primary))
        if behind:
            standby.stop()
            count = primary.execute("SELECT count(*) FROM t", source_database)[0][0]
            until(lambda: primary.execute(f"SELECT count(*) > {count + 500} FROM t", source_database)[0][0])
        primary.crash()
        if behind:
            standby.start()
        standby.execute("SELECT pg_promote()")
        proxy.address = (standby.host, standby.port)
        until(lambda: standby.execute("SELECT NOT pg_is_in_recovery()")[0][0])
        over.set()
        load.join()
        stream.drain(60)
        digest = "SELECT count(*), sum(hashtext(t::text)::bigint) FROM t"
        assert source.execute(digest, source_database) == standby.execute(digest, source_database)
        assert stream.errors == []
    finally:
        over.set()
        stream.close()
        writer.close()
        for server in (primary, standby):
            server.drop()
