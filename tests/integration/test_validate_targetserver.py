# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The target as a server: replicas that follow it, and time limits that somebody forces on our sessions."""

from __future__ import annotations

import time
import typing as t

import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.runner import validate
from faults import look
from host import Host
from pair import PASSWORDS, make_standby, make_target
from pretender import Pretender

Factory = t.Callable[..., MigrationSpec]


def test_a_standby_of_the_target(source_database: str, spec_factory: Factory) -> None:
    """R110: high availability is off before the migration."""
    target = make_target()
    try:
        address = {"port": target.port, "password": PASSWORDS[target.port]}
        spec = spec_factory("shop-1", [source_database], target=address)
        assert look(spec, "PGM2023") == []
        standby = make_standby(target)
        limit = time.monotonic() + 30
        while not target.execute("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'"):
            assert time.monotonic() < limit
            time.sleep(0.05)
        found = look(spec, "PGM2023")
        assert [f.severity for f in found] == ["Warning"] and "walreceiver" in found[0].message and found[0].fix
        standby.drop()
        while target.execute("SELECT 1 FROM pg_stat_replication"):
            assert time.monotonic() < limit
            time.sleep(0.05)
        assert look(spec, "PGM2023") == []
    finally:
        target.drop()


def test_a_time_limit_that_is_forced(source: lab.Server, target: lab.Server, source_database: str, spec_factory: Factory) -> None:
    """What a role's sessions begin with is undone by ours and told; what cannot be undone is a failure."""
    for side, server, role in (("source", source, "migrator"), ("target", target, "admin")):
        server.execute(f"ALTER ROLE {role} SET statement_timeout = '7s'")
        try:
            report = validate(spec_factory("shop-1", [source_database]), only=["PGM2024"])
            found = next(f for f in report.findings if f.code == "PGM2024")
            assert found.severity == "Succeeded" and f"statement_timeout = 7000 ms on the {side}" in found.message
        finally:
            server.execute(f"ALTER ROLE {role} RESET statement_timeout")
        with Pretender(server, heard={b"SET statement_timeout = '0'": b"SET statement_timeout='90s'"}) as pooler:
            forced = look(spec_factory("shop-1", [source_database], **{side: {"port": pooler.port}}), "PGM2024")
        assert [f.severity for f in forced] == ["Failed"] and f"on the {side} keep statement_timeout = 90s" in forced[0].message
        assert f'ALTER ROLE "{role}" SET statement_timeout = 0' in forced[0].fix
    assert look(spec_factory("shop-1", [source_database]), "PGM2024") == []


def test_too_few_sessions(source: lab.Server, target: lab.Server, source_database: str, spec_factory: Factory, host: Host) -> None:
    """Refused before anything is touched, naming limit and need; with enough for less, it is said how many relays there will be."""
    spec = spec_factory("few-sessions", [source_database], copy={"jobs": 4, "index_jobs": 4}, option="migrate")
    for side, server, role, copies in (("source", source, "migrator", "3 relays and 4"), ("target", target, "admin", "2 relays and 2")):
        try:
            server.execute(f"ALTER ROLE {role} CONNECTION LIMIT 3")
            found = look(spec, "PGM2027")
            assert [(f.severity, f.object) for f in found] == [("Failed", side)] and "CONNECTION LIMIT of the role" in found[0].message
            host.manager.start(spec)
            failed = host.until_failed(spec.key, seconds=90)["error"]
            assert failed["code"] == "PGM1104" and failed["details"]["side"] == side and "at least" in failed["message"]
            assert not target.execute(f"SELECT FROM pg_database WHERE datname = '{source_database}'")
            assert not source.execute("SELECT FROM pg_replication_slots WHERE slot_name LIKE 'pgm%'")
            server.execute(f"ALTER ROLE {role} CONNECTION LIMIT 13")
            found = look(spec, "PGM2027")
            assert [f.severity for f in found] == ["Warning"] and copies in found[0].message
        finally:
            server.execute(f"ALTER ROLE {role} CONNECTION LIMIT -1")
    assert look(spec, "PGM2027") == []
    granted = spec_factory("few-granted", [source_database], copy={"max_connections": 4})
    assert ["copy.max_connections is 4" in f.message for f in look(granted, "PGM2027")] == [True, True]
