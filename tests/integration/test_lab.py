# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The test servers themselves: rights, passwords, restart."""

from __future__ import annotations

import subprocess
import typing as t

import psycopg
import pytest
import servers as lab


def test_roles_are_not_superusers(source: lab.Server, target: lab.Server, migrator: t.Any, admin: t.Any) -> None:
    for server, login in ((source, migrator), (target, admin)):
        with server.connect("postgres", login.name, login.password) as conn:
            assert conn.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() == (False,)


def test_wrong_password_is_refused(source: lab.Server) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        source.connect("postgres", "migrator", "wrong")


def test_fresh_databases(source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Any) -> None:
    assert source.execute("SELECT current_setting('wal_level')", source_database) == [("logical",)]
    assert target.execute(f"SELECT count(*) FROM pg_database WHERE datname = '{source_database}'") == [(0,)]
    spec = spec_factory("lab-test", [source_database])
    assert spec.online and spec.source.port == source.port


def test_database_with_a_slot_is_dropped(source: lab.Server, database_factory: t.Any) -> None:
    name = database_factory()
    source.execute("SELECT pg_create_logical_replication_slot('lab_slot', 'test_decoding')", name)
    source.drop_database(name)
    assert source.execute("SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'lab_slot'") == [(0,)]


def test_crash_and_start() -> None:
    server = lab.start_server("crash")
    server.execute("CREATE TABLE kept (id int)")
    server.crash()
    assert not server.running
    server.start()
    assert server.execute("SELECT count(*) FROM kept") == [(0,)]
    server.drop()
    assert not server.folder.exists()


def test_sweep_ends_no_process_of_others() -> None:
    """What a dead run has left goes; a process that has got the number of its server since is not ended."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    folder = lab.base_folder() / f"{lab.PREFIX}{gone.pid}-test"
    data = folder / "source" / "data"
    data.mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as other:
        (data / "postmaster.pid").write_text(f"{other.pid}\n")
        lab.sweep()
        assert other.poll() is None and not folder.exists()
        other.kill()
