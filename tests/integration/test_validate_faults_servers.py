# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Versions, client tools, clocks, sizes: made, found, repaired, gone."""

from __future__ import annotations

import os
import threading
import time
import types
import typing as t

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate import servers
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.runner import validate
from faults import look
from pair import PASSWORDS
from pretender import Pretender


def test_runtime_host(
    source: lab.Server, source_database: str, spec_factory: t.Callable[..., MigrationSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = spec_factory("shop-1", [source_database], copy={"jobs": 1, "bindir": str(source.bindir)})
    assert look(good, "PGM2012") == [] and look(good, "PGM2014") == [] and look(good, "PGM2013") == [] and look(good, "PGM2015") == []
    assert look(spec_factory("shop-1", [source_database], copy={"bindir": "/nonexistent"}), "PGM2012", "/nonexistent")
    assert look(spec_factory("shop-1", [source_database], copy={"jobs": 9999}), "PGM2014", "more relays than CPUs")
    usage = types.SimpleNamespace(disk_usage=lambda dummy: types.SimpleNamespace(free=1 << 20))
    with monkeypatch.context() as patch:
        patch.setattr(servers, "shutil", usage)
        assert [f.severity for f in look(good, "PGM2015", "1.0 MB free")] == ["Failed"]
    with monkeypatch.context() as patch:
        patch.setattr(servers, "SKEW_SECONDS", -1.0)
        assert look(good, "PGM2013", "clocks differ")


def test_one_server_under_two_names(source: lab.Server, source_database: str, spec_factory: t.Callable[..., MigrationSpec]) -> None:
    same = {"host": "localhost", "port": source.port, "user": "migrator", "password": PASSWORDS[source.port]}

    spec = spec_factory("shop-1", [source_database], target=same)
    assert look(spec, "PGM2003", "same server")
    assert look(spec_factory("shop-1", [source_database]), "PGM2003") == []


def test_a_source_before_9_5(source: lab.Server, source_database: str, spec_factory: t.Callable[..., MigrationSpec]) -> None:
    """R12: what a server of 9.4 says at the login is enough to refuse it, with its version and the public code."""
    assert look(spec_factory("shop-1", [source_database]), "PGM2010") == []
    with Pretender(source, "9.4.26") as older:
        found = look(spec_factory("shop-1", [source_database], source={"port": older.port}), "PGM2010")
    assert (
        [(f.severity, f.azure_code) for f in found] == [("Failed", "603400")] and "PostgreSQL 9.4.26" in found[0].message and found[0].fix
    )
    with Pretender(source, "9.5.0") as older:
        assert look(spec_factory("shop-1", [source_database], source={"port": older.port}), "PGM2010") == []


def test_a_target_of_an_older_major(target: lab.Server, source_database: str, spec_factory: t.Callable[..., MigrationSpec]) -> None:
    """R13: a target whose login tells an older major version is refused; an older minor of the same is not."""
    for version, severities in (("9.6.24", ["Failed"]), (f"{target.major - 1}.99", ["Failed"]), (f"{target.major}.0", [])):
        with Pretender(target, version) as other:
            found = look(spec_factory("shop-1", [source_database], target={"port": other.port}), "PGM2011")
            assert [f.severity for f in found] == severities, version
    assert look(spec_factory("shop-1", [source_database]), "PGM2011") == []


def test_storage_of_the_target(source: lab.Server, source_database: str, spec_factory: t.Callable[..., MigrationSpec]) -> None:
    """Given the target's disk, it is compared with 1.25 times the data; a sparse file makes the data large."""
    source.execute("CREATE TABLE t (i int)", source_database)
    grown = source.data / source.execute("SELECT pg_relation_filepath('t')", source_database)[0][0]
    os.truncate(grown, 900 << 20)
    try:
        found = look(spec_factory("shop-1", [source_database], target={"storage_gb": 1}), "PGM2016")
        assert [f.severity for f in found] == ["Failed"] and "at least 2 GB" in found[0].fix and found[0].data["needed_bytes"] > 1125 << 20
        assert look(spec_factory("shop-1", [source_database], target={"storage_gb": 3}), "PGM2016") == []
    finally:
        os.truncate(grown, 0)
    assert look(spec_factory("shop-1", [source_database], target={"storage_gb": 1}), "PGM2016") == []


def test_storage_for_what_is_chosen(source: lab.Server, source_database: str, spec_factory: t.Callable[..., MigrationSpec]) -> None:
    """A large table that is left out needs no room."""
    source.execute("CREATE TABLE t (i int); CREATE TABLE kept (i int)", source_database)
    grown = source.data / source.execute("SELECT pg_relation_filepath('t')", source_database)[0][0]
    os.truncate(grown, 900 << 20)
    try:
        assert look(spec_factory("shop-1", [source_database], target={"storage_gb": 1}), "PGM2016")
        part = spec_factory("shop-1", [source_database], target={"storage_gb": 1}, copy={"exclude": ["public.t"]})
        assert look(part, "PGM2016") == []
    finally:
        os.truncate(grown, 0)


def test_client_tools_older_than_a_server(
    source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Callable[..., MigrationSpec]
) -> None:
    """R8: tools older than either server are refused; a runtime host of another version with newer tools is fine."""
    for side, server in (("source", source), ("target", target)):
        with Pretender(server, f"{server.major + 1}.1") as newer:
            spec = spec_factory("shop-1", [source_database], copy={"bindir": str(source.bindir)}, **{side: {"port": newer.port}})
            found = look(spec, "PGM2012")
            assert [f.severity for f in found] == ["Failed"] and str(server.major + 1) in found[0].message, side
    assert look(spec_factory("shop-1", [source_database], copy={"bindir": str(source.bindir)}), "PGM2012") == []


def test_the_wal_rate_is_that_of_the_whole_validation(
    source: lab.Server, source_database: str, spec_factory: t.Callable[..., MigrationSpec]
) -> None:
    """What is written while other checks run counts: the first reading is taken before them, and the seconds between are told."""
    written: list[str] = []

    def write(event: dict[str, t.Any]) -> None:
        if event["validation"]["code"] == "PGM2012":  # the first ones are over, the spool's is far away
            written.append(event["validation"]["code"])
            source.execute("CREATE TABLE burst AS SELECT repeat('x', 1000) FROM generate_series(1, 20000)", source_database)

    begun = time.monotonic()
    report = validate(spec_factory("shop-1", [source_database]), report=write)
    lasted = time.monotonic() - begun
    found = next(f for f in report.findings if f.code == "PGM2015")
    assert written == ["PGM2012"] and servers.SAMPLE_SECONDS < found.data["measured_seconds"] < lasted
    assert found.data["wal_bytes_per_second"] * found.data["measured_seconds"] > 20_000_000, found.data
    assert f"measured for {found.data['measured_seconds']:.1f} s" in found.message


def test_room_for_wal_on_the_source(
    source: lab.Server, source_database: str, spec_factory: t.Callable[..., MigrationSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The WAL that a slot would keep for the time of the copy, against the source's disk: seen, or said by the inventory."""
    monkeypatch.setattr(servers, "wal_rate", lambda dummy: (float(1 << 20), 2.0))  # 600 MB in ten minutes
    spec = spec_factory("shop-1", [source_database])
    assert look(spec, "PGM2022") == [], "this machine has more"
    monkeypatch.setattr(servers, "source_room", lambda dummy: 100 << 20)
    found = look(spec, "PGM2022")
    assert [f.severity for f in found] == ["Warning"] and "max_slot_wal_keep_size" in found[0].fix
    assert found[0].data["needed_bytes"] == 600 << 20 and "100.0 MB are free" in found[0].message
    monkeypatch.setattr(servers, "source_room", lambda dummy: None)
    assert look(spec, "PGM2022") == [], "not known"
    given = spec_factory("shop-1", [source_database], source={"storage_gb": 1})
    assert look(given, "PGM2022") == []
    monkeypatch.setattr(servers, "wal_rate", lambda dummy: (float(2 << 20), 2.0))
    found = look(given, "PGM2022")
    assert [f.severity for f in found] == ["Warning"] and "of the 1 GB that source.storage_gb says" in found[0].message


def test_wal_rate_decides_the_space_for_the_spool(
    source: lab.Server, owner: t.Any, source_database: str, spec_factory: t.Callable[..., MigrationSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    """R9: what is written while the rate is measured, for the time that the copy takes, is what the disk has to hold."""
    spec = spec_factory("shop-1", [source_database])
    free = servers.SPARE + (10 << 20)
    monkeypatch.setattr(servers, "shutil", types.SimpleNamespace(disk_usage=lambda dummy: types.SimpleNamespace(free=free)))
    assert not [f for f in look(spec, "PGM2015") if f.data["wal_bytes_per_second"] < 1000]
    stop = threading.Event()

    def write() -> None:
        with source.connect(source_database, owner.name, owner.password) as conn:
            conn.execute("CREATE TABLE noise (t text)")
            while not stop.is_set():
                conn.execute("INSERT INTO noise SELECT repeat('x', 1000) FROM generate_series(1, 100)")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        found = look(spec, "PGM2015")
    finally:
        stop.set()
        writer.join()
    assert [f.severity for f in found] == ["Warning"] and found[0].data["wal_bytes_per_second"] > 50_000
    expected = found[0].data["wal_bytes_per_second"] * found[0].data["copy_seconds"] + servers.SPARE
    assert abs(found[0].data["needed_bytes"] - expected) < 2 and found[0].data["copy_seconds"] >= 600
