# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The validation as a whole: connections told apart, nothing changed, nothing secret, nothing raised."""

from __future__ import annotations

import json
import socket
import typing as t
from pathlib import Path

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.registry import CHECKS
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.runner import validate
from pair import PASSWORDS, Login

Factory = t.Callable[..., MigrationSpec]

STATE = """
SELECT 'slot', slot_name::text FROM pg_replication_slots UNION ALL SELECT 'role', rolname || rolsuper || rolreplication FROM pg_roles
UNION ALL SELECT 'database', datname || coalesce(datacl::text, '') FROM pg_database
UNION ALL SELECT 'setting', name || coalesce(reset_val, '') FROM pg_settings UNION ALL SELECT 'setconfig', s::text FROM pg_db_role_setting s
UNION ALL SELECT 'file', name || setting FROM pg_file_settings ORDER BY 1, 2"""
OBJECTS = """
SELECT 'class', oid::text || relname || coalesce(relacl::text, '') || relreplident::text FROM pg_class WHERE relkind <> 't'
UNION ALL SELECT 'schema', nspname || coalesce(nspacl::text, '') FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_t%'
UNION ALL SELECT 'publication', pubname FROM pg_publication UNION ALL SELECT 'proc', oid::text FROM pg_proc ORDER BY 1, 2"""


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_both_servers_stay_as_they_were(
    source: lab.Server, target: lab.Server, source_database: str, spec_factory: Factory, mode: str
) -> None:
    source.execute("CREATE TABLE a (id int PRIMARY KEY, t text); ALTER TABLE a OWNER TO app", source_database)
    before = [source.execute(STATE), target.execute(STATE), source.execute(OBJECTS, source_database)]
    report = validate(spec_factory("shop-1", [source_database], mode=mode))
    assert report.status in ("Succeeded", "Warning"), report.table()
    assert [source.execute(STATE), target.execute(STATE), source.execute(OBJECTS, source_database)] == before
    ran = {f.code for f in report.findings}
    expected = {c.code for c in CHECKS.values() if mode == "online" or not c.online}
    assert ran == expected
    leftovers = source.execute("SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'pgops%'")
    assert leftovers == []


def test_nothing_secret_is_reported(source: lab.Server, source_database: str, spec_factory: Factory, tmp_path: Path) -> None:
    report = validate(spec_factory("shop-1", [source_database]))
    text = json.dumps(report.to_dict(), default=str) + report.html() + "\n".join(report.table()) + repr(report.findings)
    assert PASSWORDS[source.port] not in text and '"password"' not in text


BAD = [
    ("dns", {"host": "nowhere.invalid"}, "603000"),
    ("tcp", {"port": 1}, "603000"),
    ("tls", {"sslmode": "require"}, "603001"),
    ("authentication", {"password": "wrong"}, "603100"),
    ("authentication", {"user": "nobody_at_all"}, "603100"),
    ("hba", {"user": "shut_out"}, "603100"),
    ("database", {"dbname": "no_such_database"}, "603000"),
]


@pytest.fixture
def shut_out(source: lab.Server, target: lab.Server) -> t.Iterator[None]:
    """A user that pg_hba.conf refuses on both servers."""
    saved = {}
    for server in (source, target):
        path = server.data / "pg_hba.conf"
        saved[path] = path.read_text()
        path.write_text("host all shut_out 127.0.0.1/32 reject\n" + saved[path])
        server.reload()
    yield
    for server in (source, target):
        path = server.data / "pg_hba.conf"
        path.write_text(saved[path])
        server.reload()


@pytest.mark.usefixtures("shut_out")
@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize(("reason", "override", "azure"), BAD, ids=str)
def test_what_is_in_the_way_is_told_apart(
    source_database: str, spec_factory: Factory, side: str, reason: str, override: dict[str, t.Any], azure: str
) -> None:
    code, other = ("PGM2001", "PGM2002") if side == "source" else ("PGM2002", "PGM2001")
    report = validate(spec_factory("shop-1", [source_database], **{side: override}))
    found = {f.code: f for f in report.findings}
    assert found[code].severity == "Failed" and found[code].data["reason"] == reason, found[code].message
    assert found[code].azure_code == azure and found[code].fix and " s. " in found[code].message
    assert found[other].severity == "Succeeded" and found[other].data["client_addr"] == "127.0.0.1" and found[other].data["seconds"] < 5
    left = [f for f in report.findings if f.code == "PGM2000"]
    assert len(left) == 1 and left[0].object == side and "left out" in left[0].message
    for f in report.findings:
        if f.code in CHECKS and f.code not in (code, other):
            assert side not in CHECKS[f.code].needs, f.code
    assert found[code].message.count("wrong") == 0 or override.get("password") != "wrong" or "wrong" not in found[code].message


def test_both_sides_down(spec_factory: Factory) -> None:
    report = validate(spec_factory("shop-1", ["a", "b"], source={"port": 1}, target={"port": 2}))
    assert report.status == "Failed"
    assert [f.code for f in report.findings if f.severity == "Failed"] == ["PGM2001", "PGM2002", "PGM2000", "PGM2000"]


def test_one_missing_database_does_not_hide_the_others(source_database: str, spec_factory: Factory) -> None:
    report = validate(spec_factory("shop-1", ["nobody_made", source_database]))
    missing = [f for f in report.findings if f.database == "nobody_made"]
    assert [f.code for f in missing if f.severity == "Failed"] == ["PGM2201", "PGM2000"]
    assert all(f.severity != "Failed" for f in report.findings if f.database == source_database)
    data = report.to_dict()
    assert [d["status"] for d in data["databases"]] == ["Failed", "Succeeded"] or data["databases"][0]["status"] == "Failed"


def test_too_many_databases_is_a_finding(spec_factory: Factory) -> None:
    report = validate(spec_factory("shop-1", [f"d{n}" for n in range(9)]))
    found = next(f for f in report.findings if f.code == "PGM2200")
    assert found.severity == "Failed" and [len(b) for b in found.data["batches"]] == [8, 1]


def test_all_databases(source: lab.Server, source_database: str, spec_factory: Factory) -> None:
    providers = ["azure_maintenance", "azure_sys", "rdsadmin", "cloudsqladmin"]
    source.execute("CREATE DATABASE stencil IS_TEMPLATE true")
    for name in providers:
        source.create_database(name)
    try:
        report = validate(spec_factory("shop-1", ["all"]), only=["PGM2201"])
    finally:
        source.execute("ALTER DATABASE stencil IS_TEMPLATE false")
        for name in [*providers, "stencil"]:
            source.drop_database(name)
    assert source_database in report.databases
    assert not {*providers, "stencil", "postgres", "template0", "template1"} & set(report.databases)


def test_databases_by_pattern(source: lab.Server, database_factory: t.Callable[..., str], spec_factory: Factory) -> None:
    """Patterns add, a ``!`` takes out, a name that is written out stays as it is even where it does not exist."""
    for name in ("pat_one", "pat_two", "pat_test", "pat*"):
        database_factory(name=name)
    for selection, expected in (
        (["pat_*"], ["pat_one", "pat_test", "pat_two"]),
        (["pat_*", "!*_test"], ["pat_one", "pat_two"]),
        (["pat_t??", "pat_one"], ["pat_two", "pat_one"]),
        (["pat*"], ["pat*"]),
        (["pat_*", "missing"], ["pat_one", "pat_test", "pat_two", "missing"]),
        (["pat_o*", "pat_one"], ["pat_one"]),
        (["!pat_*", "!db*"], ["pat*"]),
    ):
        report = validate(spec_factory("shop-1", selection), only=["PGM2201"])
        assert report.databases == expected, selection


def test_the_time_limit_of_the_test_connection(source_database: str, spec_factory: Factory) -> None:
    """R59: a server that never answers costs ``connect_timeout`` and no more, and the seconds are told."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        here = {"port": silent.getsockname()[1], "connect_timeout": 2}
        report = validate(spec_factory("shop-1", [source_database], target=here), only=["PGM2002"])
    found = next(f for f in report.findings if f.code == "PGM2002")
    assert found.severity == "Failed" and found.data["reason"] == "tcp" and 1.5 < found.data["seconds"] < 10, found


def test_progress_is_told_and_a_stop_is_heeded(source_database: str, spec_factory: Factory) -> None:
    seen: list[dict[str, t.Any]] = []
    report = validate(spec_factory("shop-1", [source_database]), report=seen.append, stop=lambda: len(seen) >= 5)
    assert report.canceled and not report.passed and 5 <= len(seen) < 10 and seen[0]["validation"]["code"] == "PGM2001"


def test_a_check_that_breaks_off_is_a_finding(
    source: lab.Server, source_database: str, spec_factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.context import Context
    from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.registry import Issue

    def broken(ctx: Context) -> t.Iterator[Issue]:
        ctx.source.execute("SELECT * FROM pg_no_such_thing")
        yield Issue("Succeeded", "")

    def writes(ctx: Context) -> t.Iterator[Issue]:
        ctx.session("source", source_database).execute("CREATE TABLE public.must_not_be (i int)")
        yield Issue("Succeeded", "")

    monkeypatch.setitem(CHECKS, "PGM2110", dataclasses.replace(CHECKS["PGM2110"], function=broken))
    monkeypatch.setitem(CHECKS, "PGM2112", dataclasses.replace(CHECKS["PGM2112"], function=writes))
    report = validate(spec_factory("shop-1", [source_database]))
    found = {f.code: f for f in report.findings}
    assert found["PGM2110"].severity == "Failed" and "42P01" in found["PGM2110"].message and "PGM2999" in found["PGM2110"].message
    assert found["PGM2112"].severity == "Failed" and "25006" in found["PGM2112"].message
    assert found["PGM2016"].severity == "Succeeded"


def test_an_owner_without_read_all_data_passes(source: lab.Server, migrator: Login, source_database: str, spec_factory: Factory) -> None:
    source.execute(
        "CREATE TABLE a (id int PRIMARY KEY); ALTER TABLE a OWNER TO app; REVOKE pg_read_all_data FROM migrator", source_database
    )
    try:
        report = validate(spec_factory("shop-1", [source_database]), only=["PGM2203"])
        assert report.status == "Succeeded", report.table()
    finally:
        source.execute(f"GRANT pg_read_all_data TO {migrator.name}")
