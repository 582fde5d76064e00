# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The playbooks as a user plays them: check mode first, then for real, then again; wrong input; cancel. The control node does the work."""

from __future__ import annotations

import json
import typing as t

import pytest
import servers as lab
import yaml
from footprint import difference
from footprint import footprint as whole_footprint
from host import end_services
from pair import PASSWORDS, describe, make_target
from plays import Playbooks
from rows import differences


@pytest.fixture(scope="module")
def target() -> t.Iterator[lab.Server]:
    """A target of this module's own: migrations leave roles and memberships on it."""
    server = make_target()
    yield server
    server.drop()


@pytest.fixture
def shop(source, owner, source_database) -> str:
    """A small database with the application's data."""
    with source.connect(source_database, user=owner.name, password=owner.password) as conn:
        conn.execute("CREATE TABLE public.item (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text)")
        conn.execute("INSERT INTO public.item (name) SELECT 'item ' || i FROM generate_series(1, 500) i")
    return source_database


@pytest.fixture
def plays(tmp_path, source, target, shop) -> t.Iterator[t.Callable[..., Playbooks]]:
    """``plays(name, **overrides)``: an inventory for a migration of ``shop``."""
    made: list[Playbooks] = []

    def make(name: str, **overrides: t.Any) -> Playbooks:
        made.append(Playbooks(tmp_path, describe(source, target, name, [shop], **overrides)))
        return made[-1]

    yield make
    for one in made:
        end_services(one.home)


def footprint(source: t.Any, target: t.Any) -> t.Any:
    """Everything a migration could leave: databases, roles and their rights, slots, publications' home, parameters."""
    queries = (
        "SELECT datname::text, datacl::text FROM pg_database ORDER BY 1",
        "SELECT rolname::text, rolconfig::text, rolsuper, rolreplication FROM pg_roles ORDER BY 1",
        "SELECT slot_name::text FROM pg_replication_slots ORDER BY 1",
        "SELECT name, setting FROM pg_settings WHERE source NOT IN ('client', 'session', 'override') ORDER BY 1",
        "SELECT roleid::regrole::text, member::regrole::text FROM pg_auth_members ORDER BY 1, 2",
    )
    found = []
    for server in (source, target):
        with server.connect() as conn:
            found.append([conn.execute(query).fetchall() for query in queries])
    return found


def test_check_then_real_then_again(plays, source, target, shop, tmp_path) -> None:
    """``--check --diff`` changes nothing and prints the plan; the real run ends equal; played again: ``changed=0``."""
    one = plays("shop-2026")
    source.execute("CREATE PUBLICATION theirs", shop)
    before = footprint(source, target)
    check = one.play("migrate", "--check", "--diff").fine()
    assert footprint(source, target) == before and "shop-2026" in check.text
    for detail in (f":{source.port}", f":{target.port}", shop, "on_premises", "self_managed", "online", "sslmode"):
        assert detail in check.text.partition("Summary")[2]
    held = one.play("migrate", "-e", "pg_migration_run_start=false").fine()
    assert footprint(source, target) == before and "Show the findings" in held.text
    assert "No migrations yet" in one.play("status").fine().text
    first = one.play("migrate").fine()
    assert first.changed > 0 and "WaitingForCutoverTrigger" in first.text
    second = one.play("migrate").fine()
    assert second.changed == 0
    for run in (first, second):
        assert f"{shop}: Publication theirs was left out" in run.text.partition("Show what the copy left out or adapted")[2]
    status = one.play("status").fine()
    for column in (
        "Name",
        "Status",
        "Migration mode",
        "Migration type",
        "Source server",
        "Source server type",
        "Databases",
        "Duration",
        "Start time",
    ):
        assert column in status.text
    assert status.changed == 0
    none = one.play("status", "-e", json.dumps({"pg_migration_run_states": ["Failed", "Cancelled"]})).fine()
    assert "No migration is Failed or Canceled." in none.text
    reports = {"html": "./shop.html", "prometheus": str(tmp_path / "shop.prometheus"), "json": str(tmp_path / "shop.json")}
    wanted = ["-e", json.dumps({"pg_migration_run_reports": reports})]
    assert one.play("status", "--check", *wanted).fine().changed == 1 and not (tmp_path / "shop.html").exists()
    one.play("status", *wanted).fine()
    assert "WaitingForCutoverTrigger" in (tmp_path / "shop.html").read_text(encoding="utf-8")
    dry = one.play("cutover", "--check").fine()
    assert "Succeeded" not in one.play("status").fine().text and dry.status == 0
    cut = one.play("cutover").fine()
    assert cut.changed > 0 and "Succeeded" in cut.text and "Writers were paused for" in cut.text
    with source.connect(shop) as left, target.connect(shop) as right:
        assert differences(left, right) == {}
    assert "high availability" in cut.text and f"/{shop}?sslmode" in cut.text
    assert "high availability" not in first.text + status.text + dry.text
    hook = tmp_path / "switch.yml"
    hook.write_text(
        yaml.safe_dump([{"ansible.builtin.debug": {"msg": "to {{ pg_migration_run_connections | to_json }}"}}]), encoding="utf-8"
    )
    again = one.play("cutover", "-e", f"pg_migration_run_after_cutover={hook}").fine()
    assert again.changed == 0 and f"dbname={shop}" in again.text
    assert one.play("migrate").fine().changed == 0
    assert one.play("status", *wanted).fine().changed == 1
    assert one.play("status", *wanted).fine().changed == 0
    kept = "".join((tmp_path / path).read_text(encoding="utf-8") for path in reports.values())
    for password in PASSWORDS.values():
        assert password not in first.text + cut.text + status.text + check.text + kept
    forget = ["-e", "pg_migration_run_forget=true"]
    assert one.play("cancel", "--check", *forget).fine().changed == 1
    assert one.play("cancel", *forget).fine().changed == 1
    assert one.play("cancel", *forget).fine().changed == 0
    assert "No migrations yet" in one.play("status").fine().text and not list((one.home / "migrations").iterdir())
    with target.connect(shop) as conn:
        assert conn.execute("SELECT count(*) FROM public.item").fetchone() == (500,)


def test_validate_touches_nothing(plays, source, target, shop) -> None:
    """R46: ``option: validate`` only looks, by the playbook validate and by migrate, and ends Succeeded; both sides' catalogs, settings,
    slots, roles and files are as they were."""
    one = plays("look", option="validate")
    before = whole_footprint(source, shop), whole_footprint(target)
    one.play("validate").fine()
    ended = one.play("migrate").fine()
    assert "Succeeded" in ended.text.partition("Say where it stands")[2]
    after = whole_footprint(source, shop), whole_footprint(target)
    assert [difference(was, now) for was, now in zip(before, after, strict=True)] == [{}, {}]
    assert one.play("migrate").fine().changed == 0


def test_cancel(plays, source, shop) -> None:
    """The playbook cancel ends it; played again it changes nothing; the source is clean (R107)."""
    one = plays("stopme")
    one.play("migrate").fine()
    assert one.play("cancel").fine().changed > 0
    assert one.play("cancel").fine().changed == 0
    with source.connect() as conn:
        assert conn.execute("SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'pgm%'").fetchone() == (0,)


def test_every_step_in_check_mode_and_again(plays, source, target, shop) -> None:
    """R115, R116: while it waits for its cutover no playbook changes either side in check mode; those that look change nothing at all, and
    what is repeated has nothing to do."""
    one = plays("steps")
    one.play("migrate").fine()
    before = whole_footprint(source, shop), whole_footprint(target, shop)
    for name in ("validate", "migrate", "status", "verify", "cutover", "cancel", "cleanup"):
        one.play(name, "--check", "--diff").fine()
        after = whole_footprint(source, shop), whole_footprint(target, shop)
        assert [difference(was, now) for was, now in zip(before, after, strict=True)] == [{}, {}], name
    for name in ("validate", "migrate", "verify", "status"):
        assert one.play(name).fine().changed == 0, name


def test_cleanup(plays, source, target, shop) -> None:
    """In check mode it lists what another run removes; then nothing is left, and a third run changes nothing (B20)."""
    one = plays("gone")
    one.play("migrate").fine()
    one.play("cancel").fine()
    check = one.play("cleanup", "--check").fine()
    assert "would be removed" in check.text and "ledger" in check.text and check.changed > 0
    done = one.play("cleanup", "-e", "pg_migration_run_drop_target=true").fine()
    assert done.changed > 0 and f"database {shop}" in done.text
    assert target.execute(f"SELECT FROM pg_database WHERE datname = '{shop}'") == []
    assert one.play("cleanup").fine().changed == 0


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"source": {"password": "wrong-canary"}}, ["28P01", "source", "migrator"]),
        ({"target": {"port": 1}}, ["target", "127.0.0.1:1"]),
        ({"databases": ["no_such_db"]}, ["no_such_db"]),
        ({"name": "shop_2026"}, ["shop_2026", "hyphen"]),
    ],
)
def test_wrong_input(overrides, expected, plays, source, target) -> None:
    """One clear error that names server and remedy, no traceback, no secret, nothing left behind."""
    name = overrides.pop("name", "wrong")
    one = plays(name, **overrides)
    before = footprint(source, target)
    run = one.play("migrate")
    assert run.status != 0 and "Traceback" not in run.text and "wrong-canary" not in run.text
    for word in expected:
        assert word in run.text, run.text[-3000:]
    assert "hint" in run.text
    assert footprint(source, target) == before
