# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Roles, memberships and settings from a full source to a target reached as an ordinary role with CREATEROLE and CREATEDB."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import secrets
import stat
import subprocess
import typing as t
from pathlib import Path

import psycopg
import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import SpecificationError
from ansible_collections.pgops.migration.plugins.module_utils._engine.globals.dump import (
    is_written,
    render_globals,
    write_globals,
)
from ansible_collections.pgops.migration.plugins.module_utils._engine.globals.marker import MARKER
from ansible_collections.pgops.migration.plugins.module_utils._engine.globals.plan import (
    apply_globals,
    plan_database,
    plan_globals,
    revoke_admin_memberships,
)
from ansible_collections.pgops.migration.plugins.module_utils._engine.globals.state import read_state
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import SOURCE_TYPES, Endpoint
from pair import PASSWORDS, make_source, make_target
from tasks import as_checked, run_module

CANARY = f"canary{secrets.token_hex(8)}"
HOSTILE = ['quo"ted', "Grün Äß", "with space", "semi;colon", "per%cent", "back\\slash", "apo'strophe", "UPPER", "select", "日本", "x" * 63]


def build(source: t.Any) -> None:
    """About sixty roles with everything that roles can have."""

    def q(name: str) -> str:
        return '"' + name.replace('"', '""') + '"'

    with source.connect() as conn:
        run = conn.execute
        for number in range(33):
            login = "LOGIN" if number % 2 else "NOLOGIN"
            run(f"CREATE ROLE team_{number} WITH {login} PASSWORD '{CANARY}{number}' CONNECTION LIMIT {number}")
        for name in HOSTILE:
            run(f"CREATE ROLE {q(name)} LOGIN NOINHERIT CREATEDB PASSWORD '{CANARY}'")
        for number in range(5):
            run(f"CREATE ROLE boss_{number} SUPERUSER LOGIN PASSWORD '{CANARY}'")
        run("SET password_encryption = 'md5'")
        run(f"CREATE ROLE old_md5 LOGIN PASSWORD '{CANARY}'")
        run("RESET password_encryption")
        run("CREATE ROLE repl REPLICATION LOGIN; CREATE ROLE seer BYPASSRLS NOLOGIN; CREATE ROLE maker CREATEROLE CREATEDB")
        run("CREATE ROLE until1 LOGIN VALID UNTIL '2031-02-03 04:05:06+00'; CREATE ROLE until2 LOGIN VALID UNTIL 'infinity'")
        run("CREATE ROLE azure_pg_admin; CREATE ROLE azuresu SUPERUSER; CREATE ROLE nopassword LOGIN; CREATE ROLE unlucky")
        run('GRANT team_0 TO team_1; GRANT team_1 TO team_2 WITH ADMIN OPTION; GRANT team_2 TO team_3; GRANT team_3 TO "Grün Äß"')
        run("GRANT boss_0 TO team_4; GRANT team_5 TO boss_1; GRANT pg_monitor TO team_6; GRANT azure_pg_admin TO team_7")
        run("COMMENT ON ROLE team_0 IS 'multi\nline ''quoted'' \\ comment'; COMMENT ON ROLE \"quo\"\"ted\" IS 'ü'")
        run("""ALTER ROLE team_0 SET search_path TO "$user", public, "We""ird, schema", 'a b'""")
        run("ALTER ROLE team_0 SET work_mem TO '12MB'; ALTER ROLE team_0 SET statement_timeout TO '0'")
        run("ALTER ROLE team_1 SET application_name TO 'it''s \\ a \"name\", really'; ALTER ROLE team_1 SET DateStyle TO 'SQL, DMY'")
        run("ALTER ROLE team_1 SET role TO 'team_0'; ALTER ROLE team_1 SET temp_tablespaces TO ''")
        run("ALTER ROLE team_2 SET log_statement TO 'all'; ALTER ROLE team_2 SET app.tenant TO 'x'")
        run("ALTER ROLE team_2 SET plpgsql.check_asserts TO off")
        run("ALTER ROLE team_2 SET session_replication_role TO 'replica'; ALTER ROLE boss_0 SET work_mem TO '1MB'")
        run("ALTER ROLE ALL SET lock_timeout TO '1h'")
        run('CREATE DATABASE "Shop Ü" OWNER team_0')
        run('ALTER ROLE team_3 IN DATABASE "Shop Ü" SET search_path TO shop, public')
        run('ALTER DATABASE "Shop Ü" SET timezone TO \'Europe/Berlin\'; ALTER DATABASE "Shop Ü" SET default_transaction_read_only TO on')
        run('COMMENT ON DATABASE "Shop Ü" IS \'the shop\'; REVOKE ALL ON DATABASE "Shop Ü" FROM PUBLIC')
        run('GRANT CONNECT ON DATABASE "Shop Ü" TO team_5 WITH GRANT OPTION; GRANT CREATE ON DATABASE "Shop Ü" TO "quo""ted"')
        run("CREATE ROLE settled LOGIN CONNECTION LIMIT 7; GRANT settled TO team_13")
        if source.major >= 14:
            run("GRANT pg_read_all_data TO team_6")
        if source.major >= 16:
            run("GRANT team_11 TO team_12 WITH INHERIT FALSE, SET TRUE; GRANT team_13 TO team_12 WITH INHERIT TRUE, SET FALSE")
            run("GRANT team_14 TO team_12 WITH ADMIN TRUE, INHERIT FALSE, SET FALSE")
        if source.major >= 15:
            run("GRANT SET ON PARAMETER log_min_duration_statement TO team_8")


def pairs() -> list[tuple[Path, Path]]:
    """Which installations meet: every source from 13 on with every target that is not older, and the newest with the usual one, whose
    grants cannot say all that the newest's can."""
    known = lab.installations()
    if not known:
        return []
    usual = next(major for major, folder in known.items() if folder == lab.bindirs()[0])
    meetings = [(old, new) for old in known for new in known if 13 <= old <= new and new >= usual]
    return [(known[old], known[new]) for old, new in dict.fromkeys([*meetings, (max(known), usual)])]


def shown(pair: tuple[Path, Path]) -> str:
    """``13-15`` for a test's name."""
    majors = {folder: str(major) for major, folder in lab.installations().items()}
    return "-".join(majors[folder] for folder in pair)


@pytest.fixture(scope="module", params=pairs(), ids=shown)
def ends(request: pytest.FixtureRequest) -> t.Iterator[tuple[t.Any, t.Any, Endpoint, Endpoint]]:
    """Two servers of our own: roles belong to a whole server."""
    source, target = make_source("globals-source", bindir=request.param[0]), make_target("globals-target", bindir=request.param[1])
    build(source)
    source_end = Endpoint("source", "azure_single_server", source.host, source.superuser, source.port, source.superuser_password)
    target_end = Endpoint("target", "azure_flexible", target.host, "admin", target.port, PASSWORDS[target.port])
    target.execute("CREATE ROLE unlucky SUPERUSER")
    target.execute("CREATE ROLE settled")
    yield source, target, source_end, target_end
    source.drop()
    target.drop()


def test_all_comes_over_without_a_refusal_and_a_second_plan_is_empty(ends: tuple[t.Any, t.Any, Endpoint, Endpoint]) -> None:
    source, target, source_end, target_end = ends
    plan = plan_globals(source_end, target_end)
    assert CANARY not in repr(plan) + "".join(plan.statements) and "SCRAM-SHA-256" not in repr(plan) + "".join(plan.statements)
    count, logged = len(plan.skipped), target.log.stat().st_size
    done = apply_globals(plan)
    refused = [line for line in target.log.read_bytes()[logged:].decode().splitlines() if " ERROR: " in line]
    assert refused == [], "nothing that needs a superuser is ever sent"
    assert len(done) == len(plan.actions) > 100
    assert plan.skipped[count:] == [], "statements were refused"
    again = plan_globals(source_end, target_end)
    assert again.statements == []
    assert again.before == again.after
    with source.connect() as left, target.connect() as right:
        wanted, present = read_state(left), read_state(right)
    for name in plan.migrated:
        if name == "settled" and target.major >= 16:
            continue
        ours, theirs = wanted.roles[name], present.roles[name]
        same = {f.name for f in dataclasses.fields(ours)} - {"oid", "replication", "bypassrls"}
        assert {k: getattr(ours, k) for k in same} == {k: getattr(theirs, k) for k in same}
    migrated = set(plan.migrated) - ({"settled"} if target.major >= 16 else set())
    expected = {
        (m.role, m.member, m.admin)
        for m in wanted.memberships.values()
        if m.member in migrated and (m.role in migrated or m.role.startswith("pg_") and target.major < 16)
    }
    found = {(m.role, m.member, m.admin) for m in present.memberships.values() if m.member in migrated}
    assert found == expected
    if target.major >= 16:
        for key, ours in wanted.memberships.items():
            if ours.member in migrated and ours.role in migrated:
                inherit = wanted.roles[ours.member].inherit if ours.inherit is None else ours.inherit
                theirs = present.memberships[key]
                assert (theirs.inherit, theirs.set) == (inherit, ours.set is not False), key
        given = {grant.grantors for grant in present.grants if grant.member in migrated and grant.role in migrated}
        assert given == {("admin",)}, "whom the grants come from on the target: nobody else may give them there"
    for key in [("team_0", ""), ("team_1", "")]:
        assert present.settings[key] == wanted.settings[key]
    assert present.settings["team_2", ""] == {"plpgsql.check_asserts": "off"} | (
        {"session_replication_role": "replica"} if target.major >= 15 else {}
    )


def test_what_stays_behind_is_said(ends: tuple[t.Any, t.Any, Endpoint, Endpoint]) -> None:
    source, target, source_end, target_end = ends
    texts = [str(s) for s in plan_globals(source_end, target_end).skipped]
    for expected in (
        "role boss_0: is a superuser",
        "role azure_pg_admin: belongs to the provider",
        "role unlucky: is a superuser on the target",
        "attribute REPLICATION of repl:",
        "attribute BYPASSRLS of seer:",
        "membership team_4 in boss_0: the role is not migrated",
        "setting log_statement of team_2: the target lets only a superuser",
        "setting app.tenant of team_2: the target does not know",
        "setting ALTER ROLE ALL:",
    ):
        assert any(text.startswith(expected) for text in texts), (expected, texts)
    assert not any("team_0:" in text for text in texts)
    if target.major >= 16:  # made by someone else: no ADMIN OPTION on it
        assert any(text.startswith("role settled: differs on the target") for text in texts)
        assert any(text.startswith("membership team_13 in settled: the role cannot be granted") for text in texts)
        assert any(text.startswith("membership team_6 in pg_monitor:") for text in texts)
    elif source.major >= 16:
        assert any(text.startswith("option SET of team_12 in team_13: before version 16") for text in texts)


def test_the_login_can_own_and_act_as_every_role_and_gives_it_back(ends: tuple[t.Any, t.Any, Endpoint, Endpoint]) -> None:
    source, target, source_end, target_end = ends
    apply_globals(plan_globals(source_end, target_end))
    with target.connect(user="admin", password=PASSWORDS[target.port]) as conn:
        conn.execute('CREATE TABLE IF NOT EXISTS pg_temp.x(a int); SET ROLE "Grün Äß"; RESET ROLE; SET ROLE team_0; RESET ROLE')
        conn.execute("CREATE DATABASE owned")
        conn.execute("ALTER DATABASE owned OWNER TO team_0")
        conn.execute("DROP DATABASE owned")
    statements = revoke_admin_memberships(target_end)
    assert f'DROP ROLE "{MARKER}"' in statements and len(statements) > 40
    assert revoke_admin_memberships(target_end) == []
    with target.connect() as conn:
        state = read_state(conn)
        assert [m for m in state.memberships.values() if m.member == "admin" and m.set is not False] == []
    plan = plan_globals(source_end, target_end)
    apply_globals(plan)
    assert plan_globals(source_end, target_end).statements == []


def test_a_changed_attribute_is_brought_over(ends: tuple[t.Any, t.Any, Endpoint, Endpoint]) -> None:
    source, target, source_end, target_end = ends
    apply_globals(plan_globals(source_end, target_end))
    source.execute("ALTER ROLE team_9 NOLOGIN CREATEDB CONNECTION LIMIT 3 VALID UNTIL '2040-01-01 00:00:00+00'")
    source.execute("ALTER ROLE team_10 LOGIN PASSWORD 'another one'")
    source.execute("ALTER ROLE team_0 SET work_mem TO '13MB'")
    source.execute("GRANT team_1 TO team_2")
    source.execute("REVOKE ADMIN OPTION FOR team_1 FROM team_2")
    plan = plan_globals(source_end, target_end)
    assert {a.name for a in plan.actions} == {"team_9", "team_10", "work_mem of team_0", "team_2 in team_1", MARKER}
    assert "********" in next(a.statement for a in plan.actions if a.name == "team_10")
    apply_globals(plan)
    assert plan_globals(source_end, target_end).statements == []
    with psycopg.connect(target.dsn(user="team_10", password="another one")) as conn:
        assert conn.execute("SELECT current_user").fetchone() == ("team_10",)


def test_what_belongs_to_a_database(ends: tuple[t.Any, t.Any, Endpoint, Endpoint]) -> None:
    source, target, source_end, target_end = ends
    apply_globals(plan_globals(source_end, target_end))
    with target.connect(user="admin", password=PASSWORDS[target.port]) as conn:
        conn.execute('CREATE DATABASE "Shop Ü"')
        conn.execute('ALTER DATABASE "Shop Ü" OWNER TO team_0')
    plan = plan_database(source_end, target_end, "Shop Ü", fresh=True)
    apply_globals(plan)
    assert plan.skipped == []
    assert plan_database(source_end, target_end, "Shop Ü", fresh=True).statements == []
    assert plan_globals(source_end, target_end).statements == []
    with target.connect() as conn:
        settings = read_state(conn).settings
        assert settings["", "Shop Ü"] == {"TimeZone": "Europe/Berlin"}
        assert settings["team_3", "Shop Ü"] == {"search_path": "shop, public"}
        row = conn.execute(
            "SELECT shobj_description(oid, 'pg_database'), datacl::text FROM pg_database WHERE datname = 'Shop Ü'"
        ).fetchone()
        assert row is not None and row[0] == "the shop" and "team_5=c*/" in row[1] and "{=" not in row[1]


def test_without_pg_authid_the_roles_that_need_a_password_are_named(ends: tuple[t.Any, t.Any, Endpoint, Endpoint]) -> None:
    source, target, source_end, target_end = ends
    source.create_role("plain", "plain")  # migrator has pg_read_all_data, which reads pg_authid as well
    migrator = dataclasses.replace(source_end, user="plain", password="plain")
    source.execute("CREATE ROLE newcomer LOGIN PASSWORD 'x'")
    plan = plan_globals(migrator, target_end, exclude=["plain"])
    assert any(str(s).startswith("password newcomer:") for s in plan.skipped)
    assert [a.name for a in plan.actions] == ["newcomer", "newcomer", MARKER]
    given = plan_globals(migrator, target_end, exclude=["plain"], passwords={"newcomer": CANARY})
    assert CANARY not in repr(given) and not any("newcomer" in str(s) for s in given.skipped)
    assert all(CANARY not in action.sql for action in given.actions)
    apply_globals(given)
    psycopg.connect(target.dsn(user="newcomer", password=CANARY)).close()
    assert plan_globals(migrator, target_end, exclude=["plain"], passwords={"newcomer": CANARY}).statements == []
    target.execute("DROP OWNED BY newcomer; DROP ROLE newcomer")
    source.execute("DROP ROLE newcomer, plain")


def test_every_type_of_source(ends: tuple[t.Any, t.Any, Endpoint, Endpoint]) -> None:
    """R33: roles, rights and ownerships come from every type of source, not from one service alone."""
    source, target, source_end, target_end = ends
    source.execute("CREATE ROLE everywhere LOGIN; GRANT team_0 TO everywhere")
    for kind in SOURCE_TYPES:
        plan = plan_globals(dataclasses.replace(source_end, type=kind), target_end)
        assert {("role", "everywhere"), ("membership", "everywhere in team_0")} <= {(a.kind, a.name) for a in plan.actions}, kind
    source.execute("DROP ROLE everywhere")


def test_verifiers_stay_behind_where_asked(ends: tuple[t.Any, t.Any, Endpoint, Endpoint]) -> None:
    """``verifiers=False``: nothing of a password is read; every login that is made anew is named."""
    source, target, source_end, target_end = ends
    apply_globals(plan_globals(source_end, target_end))
    source.execute("CREATE ROLE fresh LOGIN PASSWORD 'x'; CREATE ROLE group_only")
    plan = plan_globals(source_end, target_end, verifiers=False)
    assert [str(s) for s in plan.skipped if s.kind == "password"] == [
        "password fresh: its verifier is not carried over; set its password on the target"
    ]
    assert not any("PASSWORD" in action.sql for action in plan.actions)
    source.execute("DROP ROLE fresh, group_only")


def test_the_migration_s_own_login_comes_only_where_it_owns(ends: tuple[t.Any, t.Any, Endpoint, Endpoint]) -> None:
    """It was made for the migration, so it stays behind; but as owner of an object it is needed."""
    source, target, source_end, target_end = ends
    source.create_role("lonely", "lonely")
    lonely = dataclasses.replace(source_end, user="lonely", password="lonely")
    plan = plan_globals(lonely, target_end)
    assert any(str(s) == "role lonely: is the migration's own login on the source and owns nothing" for s in plan.skipped)
    assert not any(action.name == "lonely" for action in plan.actions)
    source.execute("CREATE TABLE hers (i int); ALTER TABLE hers OWNER TO lonely")
    assert any(action.kind == "role" and action.name == "lonely" for action in plan_globals(lonely, target_end).actions)
    source.execute("DROP TABLE hers; DROP ROLE lonely")


def test_check_mode_tells_what_the_module_then_does(ends: tuple[t.Any, t.Any, Endpoint, Endpoint], tmp_path: Path) -> None:
    """R37, R38: ``--check --diff`` shows each statement and does nothing; the run does just these; then nothing is left; no secret."""
    source, target, source_end, target_end = ends
    source.execute(f"CREATE ROLE checked LOGIN PASSWORD '{CANARY}' VALID UNTIL '2041-01-01'; GRANT team_0 TO checked")
    options = {
        "source": {**source_end.public(), "password": source_end.password},
        "target": {**target_end.public(), "password": target_end.password},
        "file": str(tmp_path / "globals.sql"),
    }
    for side in ("source", "target"):
        del options[side]["side"]
    with source.connect() as left, target.connect() as right:
        before = (read_state(left), read_state(right))
        foretold = run_module("pg_migrate_globals", check=True, **options).fine()
        assert (read_state(left), read_state(right)) == before and not (tmp_path / "globals.sql").exists()
    shown = foretold.result["diff"]["after"]["statements"]
    assert any(statement.startswith('CREATE ROLE "checked" WITH LOGIN') and "********" in statement for statement in shown)
    assert any(statement.startswith('GRANT "team_0" TO "checked"') for statement in shown)
    done = as_checked("pg_migrate_globals", **options)
    assert done.result["diff"] == foretold.result["diff"] and done.result["actions"] == foretold.result["actions"]
    assert CANARY not in done.text + foretold.text and "SCRAM-SHA-256" not in done.text + foretold.text
    assert stat.S_IMODE((tmp_path / "globals.sql").stat().st_mode) == 0o600
    psycopg.connect(target.dsn(user="checked", password=CANARY)).close()
    target.execute("REVOKE team_0 FROM checked; DROP ROLE checked")
    source.execute("DROP ROLE checked")


def test_demoted_superusers_come_as_ordinary_roles(ends: tuple[t.Any, t.Any, Endpoint, Endpoint]) -> None:
    source, target, source_end, target_end = ends
    plan = plan_globals(source_end, target_end, superuser_policy="demote", exclude=["boss_4"])
    apply_globals(plan)
    rows = target.execute("SELECT rolname, rolsuper FROM pg_roles WHERE rolname LIKE 'boss%' ORDER BY 1")
    assert rows == [(f"boss_{n}", False) for n in range(4)]
    assert plan_globals(source_end, target_end, superuser_policy="demote", exclude=["boss_4"]).statements == []
    with pytest.raises(SpecificationError):
        plan_globals(source_end, target_end, superuser_policy="keep")


def test_planning_changes_nothing(ends: tuple[t.Any, t.Any, Endpoint, Endpoint]) -> None:
    source, target, source_end, target_end = ends
    with source.connect() as left, target.connect() as right:
        before = (read_state(left), read_state(right))
        source.execute("CREATE ROLE planned")
        plan_globals(source_end, target_end)
        source.execute("DROP ROLE planned")
        assert (read_state(left), read_state(right)) == before


def test_the_file_is_what_pg_dumpall_writes(ends: tuple[t.Any, t.Any, Endpoint, Endpoint], tmp_path: Path) -> None:
    source, target, source_end, target_end = ends
    pg_dumpall, psql = lab.program("pg_dumpall", source.major), lab.program("psql")
    if pg_dumpall is None or psql is None:
        pytest.skip(f"no pg_dumpall of version {source.major} or later on this machine")
    ours, theirs = tmp_path / "ours.sql", tmp_path / "theirs.sql"
    assert not is_written(ours, text := render_globals(source_end))
    write_globals(ours, text)
    assert is_written(ours, render_globals(source_end)) and text.count(";\n") > 150
    assert stat.S_IMODE(ours.stat().st_mode) == 0o600
    dumped = subprocess.run([pg_dumpall, "--globals-only", "-d", source.dsn()], capture_output=True, text=True, check=True).stdout
    theirs.write_text(dumped, encoding="utf-8")
    restored = []
    for script in (ours, theirs):
        with contextlib.closing(Replay(source.bindir, psql)) as replay:
            restored.append(replay.run(script))
    assert restored[0].roles == restored[1].roles
    assert set(restored[0].grants) == set(restored[1].grants)
    assert restored[0].parameters == restored[1].parameters
    assert {k: v for k, v in restored[0].settings.items() if k[0] and not k[1]} == restored[1].settings
    assert "Europe/Berlin" in ours.read_text(encoding="utf-8") and "Europe/Berlin" not in dumped


class Replay:
    """An empty server to run a file of globals on."""

    def __init__(self, bindir: Path, psql: Path) -> None:
        self._psql = psql
        self._server = lab.start_server("replay", bindir=bindir)

    def run(self, script: Path) -> t.Any:
        """What the server has after ``script``, OIDs left out."""
        text = script.read_text(encoding="utf-8")
        text = re.sub(r'(?m)^(CREATE|ALTER) ROLE "?postgres"?( WITH .*)?;$', "", text)
        self._server.execute('CREATE DATABASE "Shop Ü"')
        psql = [self._psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", self._server.dsn()]
        done = subprocess.run(psql, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        with self._server.connect() as conn:
            state = read_state(conn)
        roles = {name: dataclasses.replace(role, oid=0) for name, role in state.roles.items() if role.oid != 10}
        return dataclasses.replace(state, roles=roles)

    def close(self) -> None:
        """Remove it."""
        self._server.drop()
