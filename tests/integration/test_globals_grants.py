# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What only an administrator with more rights can bring: grants on parameters, settings of all roles, the grantor of a membership; and
settings of databases, which the module brings by itself."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.globals.plan import apply_globals, plan_globals
from ansible_collections.pgops.migration.plugins.module_utils._engine.globals.state import read_state
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import Endpoint
from pair import PASSWORDS, make_source, make_target
from tasks import as_checked, run_module

BUILD = """
CREATE ROLE crew; CREATE ROLE lead; CREATE ROLE hand; CREATE ROLE mate; CREATE ROLE passer CREATEROLE;
GRANT crew TO lead WITH ADMIN OPTION;
GRANT SET ON PARAMETER log_min_duration_statement TO lead; GRANT SET ON PARAMETER log_statement TO lead WITH GRANT OPTION;
GRANT ALTER SYSTEM ON PARAMETER work_mem TO hand; ALTER ROLE ALL SET lock_timeout TO '1h'; ALTER ROLE ALL SET app.tenant TO 'all';
CREATE DATABASE shop_a; CREATE DATABASE shop_b; CREATE DATABASE other; ALTER DATABASE shop_a SET timezone TO 'Europe/Berlin';
ALTER DATABASE shop_a SET default_transaction_read_only TO on; ALTER DATABASE shop_b SET work_mem TO '9MB';
ALTER DATABASE other SET work_mem TO '8MB'; ALTER ROLE hand IN DATABASE shop_a SET work_mem TO '7MB';
ALTER ROLE hand IN DATABASE other SET work_mem TO '6MB'
"""

Ends = tuple[lab.Server, lab.Server, Endpoint, Endpoint]


def same_majors() -> list[t.Any]:
    """The oldest and the newest installation from 15 on: grants on parameters came with it."""
    known = {major: folder for major, folder in lab.installations().items() if major >= 15}
    return [pytest.param(known[major], id=str(major)) for major in sorted({min(known), max(known)})] if known else []


@pytest.fixture(params=same_majors())
def ends(request: pytest.FixtureRequest) -> t.Iterator[Ends]:
    """Both endpoints as superusers."""
    source, target = make_source("grants-source", bindir=request.param), make_target("grants-target", bindir=request.param)
    for statement in BUILD.split(";"):
        source.execute(statement)
    with source.connect() as conn:
        conn.execute("SET ROLE lead")
        conn.execute("GRANT crew TO hand")
        if source.major >= 16:
            conn.execute("RESET ROLE")
            conn.execute("GRANT crew TO mate WITH ADMIN TRUE GRANTED BY lead")
            conn.execute("GRANT crew TO hand WITH INHERIT FALSE GRANTED BY mate")
    addresses = [("source", "on_premises", source), ("target", "self_managed", target)]
    pair = [Endpoint(side, kind, x.host, x.superuser, x.port, x.superuser_password) for side, kind, x in addresses]
    yield source, target, pair[0], pair[1]
    source.drop()
    target.drop()


def test_a_superuser_of_the_target_brings_all_of_it(ends: Ends) -> None:
    source, target, source_end, target_end = ends
    target.create_database("shop_a")
    plan = plan_globals(source_end, target_end)
    count = len(plan.skipped)
    assert len(apply_globals(plan)) == len(plan.actions) and plan.skipped[count:] == []
    with source.connect() as left, target.connect() as right:
        wanted, present = read_state(left), read_state(right)
    assert present.parameters == {**wanted.parameters, ("session_replication_role", "admin"): {"SET": False}}
    assert present.settings["", ""] == wanted.settings["", ""] == {"lock_timeout": "1h", "app.tenant": "all"}
    ours = {grant for grant in wanted.grants if grant.role == "crew"}
    assert {grant for grant in present.grants if grant.role == "crew"} == ours and ("lead",) in {grant.grantors for grant in ours}
    assert len(ours) == (4 if source.major >= 16 else 2)
    assert plan_globals(source_end, target_end).statements == []
    assert not any(skipped.kind == "grantor" for skipped in plan.skipped)


def test_an_administrator_brings_what_it_may_grant(ends: Ends) -> None:
    """With grant options, which no superuser needs to use: they are sent as they are; the rest is named, and so is another grantor."""
    source, target, source_end, target_end = ends
    target.execute("GRANT SET ON PARAMETER log_min_duration_statement, log_statement TO admin WITH GRANT OPTION")
    admin = dataclasses.replace(target_end, user="admin", password=PASSWORDS[target.port])
    plan = plan_globals(source_end, admin)
    count = len(plan.skipped)
    apply_globals(plan)
    assert plan.skipped[count:] == []
    with target.connect() as conn:
        present = read_state(conn)
    assert present.parameters["log_min_duration_statement", "lead"] == {"SET": False}
    assert present.parameters["log_statement", "lead"] == {"SET": True}
    assert ("work_mem", "hand") not in present.parameters and present.settings.get(("", "")) is None
    texts = [str(skipped) for skipped in plan.skipped]
    assert "parameter ALTER SYSTEM on work_mem to hand: admin has no grant option on it; a superuser of the target has to grant it" in texts
    assert "setting ALTER ROLE ALL: only a superuser makes settings for all roles" in texts
    assert any(text.startswith("grantor lead: ") and "come from admin on the target" in text for text in texts), texts
    assert {grant.grantors for grant in present.grants if grant.role == "crew" and grant.member == "hand"} == {("admin",)}
    assert plan_globals(source_end, admin).statements == []


def options(*ends: Endpoint) -> dict[str, t.Any]:
    """Both endpoints as a module takes them."""
    given = {end.side: {**end.public(), "password": end.password} for end in ends}
    for end in given.values():
        del end["side"]
    return given


def test_the_module_brings_settings_of_databases(ends: Ends) -> None:
    """``databases``: names and patterns; only what is on the target already; never what a fence made on the source."""
    source, target, source_end, target_end = ends
    for name in ("shop_a", "other"):
        target.create_database(name, "admin")
    admin = dataclasses.replace(target_end, user="admin", password=PASSWORDS[target.port])
    servers = options(source_end, admin)
    first = run_module("pg_migrate_globals", check=True, **servers, databases=["shop_*"], exclude=["app", "migrator"]).fine()
    kinds = {one["name"] for one in first.result["actions"] if one["kind"] == "setting"}
    assert kinds == {"TimeZone of shop_a", "work_mem of hand in shop_a"}
    left_out = first.result["left_out"]
    assert "setting ALL in shop_b: the database is not on the target yet; its migration brings it" in left_out, left_out
    as_checked("pg_migrate_globals", **servers, databases=["shop_*"], exclude=["app", "migrator"])
    with target.connect() as conn:
        settings = read_state(conn).settings
    assert settings["", "shop_a"] == {"TimeZone": "Europe/Berlin"} and settings["hand", "shop_a"] == {"work_mem": "7MB"}
    assert ("", "other") not in settings and ("hand", "other") not in settings
    target.execute("ALTER DATABASE other OWNER TO postgres")
    said = run_module("pg_migrate_globals", **servers, databases=["all", "!shop_*"], exclude=["app", "migrator"]).fine()
    assert "setting ALL in other: admin does not own the database on the target" in said.result["left_out"]
    target.execute("ALTER DATABASE other OWNER TO admin")
    as_checked("pg_migrate_globals", **servers, exclude=["app", "migrator"])
    with target.connect() as conn:
        assert read_state(conn).settings["", "other"] == {"work_mem": "8MB"}
    with source.connect() as left, target.connect() as right:
        assert ("", "shop_a") in read_state(left).settings and "shop_b" not in read_state(right).databases


def test_the_module_knows_mapped_tablespaces(ends: Ends) -> None:
    source, target, source_end, target_end = ends
    for name in ("fast", "cold"):
        place = source.folder / name
        place.mkdir()
        lab.hand_over(place)
        source.execute(f"CREATE TABLESPACE {name} LOCATION '{place}'")
    said = run_module("pg_migrate_globals", check=True, **options(source_end, target_end), tablespaces={"fast": "nvme"}).fine()
    assert [text.partition(":")[0] for text in said.result["left_out"] if text.startswith("tablespace ")] == ["tablespace cold"]
