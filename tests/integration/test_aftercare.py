# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What is to be seen to after a migration: faults made on a real target are found, and what they are mended with mends them."""

from __future__ import annotations

import contextlib
import dataclasses
import typing as t

import psycopg
import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.aftercare.look import connection, look_after
from ansible_collections.pgops.migration.plugins.module_utils._engine.monitor.after import after_lines


def topics(after: dict[str, t.Any], level: str = "warning") -> dict[str, dict[str, t.Any]]:
    """What is to be done of a level, by topic."""
    return {item["topic"]: item for item in after["to_do"] if item["level"] == level}


def test_faults_are_found_and_their_commands_mend_them(source, target, target_database, spec_factory) -> None:
    """R113: statistics, invalid indexes, old extensions; warnings first; nothing is changed by looking."""
    spec = spec_factory("after", [target_database])
    assert topics(look_after(spec)) == {}
    with target.connect(target_database) as conn:
        conn.execute('CREATE TABLE "odd name" AS SELECT i % 3 AS i FROM generate_series(1, 100) i')
        with contextlib.suppress(psycopg.errors.UniqueViolation):
            conn.execute('CREATE UNIQUE INDEX CONCURRENTLY broken ON "odd name" (i)')
        conn.execute('ALTER TABLE "odd name" ADD CONSTRAINT positive CHECK (i >= 0) NOT VALID')
        conn.execute("CREATE EXTENSION pg_stat_statements VERSION '1.8'")
        after = look_after(spec)
        found = topics(after)
        assert set(found) == {"statistics", "indexes", "extensions"}
        assert '"odd name"' in found["statistics"]["text"] and "broken" in found["indexes"]["text"]
        assert "pg_stat_statements 1.8" in found["extensions"]["text"]
        assert topics(after, "hint")["constraints"]["database"] == target_database
        assert [item["level"] for item in after["to_do"]] == sorted((i["level"] for i in after["to_do"]), reverse=True)
        conn.execute('DELETE FROM "odd name"; INSERT INTO "odd name" VALUES (1)')
        for item in [*found.values(), topics(after, "hint")["constraints"]]:
            conn.execute(item["command"])
        again = look_after(spec)
        assert topics(again) == {} and "constraints" not in topics(again, "hint")
        for statement in topics(again, "hint")["warm-up"]["command"].split("; "):
            conn.execute(statement)


def test_parameters_of_the_source_that_the_target_lacks(source, target, target_database, spec_factory) -> None:
    """What somebody set on the source is named with the statement that sets it here."""
    source.execute("ALTER SYSTEM SET random_page_cost = '1.25'")
    source.execute("SELECT pg_reload_conf()")
    try:
        lines = after_lines({"after": look_after(spec_factory("after", [target_database]))})
    finally:
        source.execute("ALTER SYSTEM RESET random_page_cost")
        source.execute("SELECT pg_reload_conf()")
    assert any("random_page_cost is 4 here and was 1.25 on the source" in line for line in lines), lines
    assert any("ALTER SYSTEM SET \"random_page_cost\" TO '1.25'" in line for line in lines), lines


def test_a_source_that_is_gone_is_no_failure(target, target_database, spec_factory) -> None:
    """The migration has succeeded; what cannot be looked at is said."""
    spec = spec_factory("after", [target_database, "no_such"])
    spec = dataclasses.replace(spec, source=dataclasses.replace(spec.source, port=1))
    after = look_after(spec)
    told = {(item["topic"], item["database"]) for item in after["to_do"] if item["text"].startswith("not looked at")}
    assert told == {("parameters", ""), ("database", "no_such")}


@pytest.mark.parametrize(
    ("kind", "word"),
    [("azure_flexible", "ZoneRedundant"), ("aws_rds", "--multi-az"), ("aws_aurora", "create-db-instance"), ("gcp_cloudsql", "REGIONAL")],
)
def test_high_availability_and_size_by_provider(kind, word, target, target_database, spec_factory) -> None:
    """R110, R111: after the migration, with the provider's own command, and that a change of size restarts the server."""
    spec = spec_factory("after", [target_database], target={"type": kind})
    hints = topics(look_after(spec), "hint")
    assert word in hints["high availability"]["command"] and "restarts" in hints["server size"]["text"]


def test_connection_strings_reach_the_database_and_hold_no_secret(target, admin, database_factory, spec_factory) -> None:
    """R112: what is printed, with the application's own user and password added, connects."""
    name = database_factory("target", name="odd 'name\\ %?é")
    spec = spec_factory("after", [name])
    links = connection(spec.target, name)
    assert not any(admin.password in link or "admin" in link for link in links.values())
    for link in (links["uri"], links["dsn"]):
        with psycopg.connect(link, user=admin.name, password=admin.password) as conn:
            assert conn.execute("SELECT current_database()").fetchone() == (name,)
