# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The module ``pg_configure_cdc`` and the role of the source on real servers: prepared once, found so ten times, given back as it was."""

from __future__ import annotations

import getpass
import os
import stat
import subprocess
import sys
import threading
import typing as t
from pathlib import Path

import psycopg
import pytest
import servers as lab
import yaml
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.runner import validate
from footprint import difference, footprint
from pair import make_source
from tasks import as_checked, run_module

REPO = Path(__file__).resolve().parents[2]
CANARY = "canary-login-4711"
FEW = {"wal_level": "replica", "max_replication_slots": "1", "max_wal_senders": "1"}


def majors() -> list[int]:
    """Before 14 there is no pg_read_all_data, from 16 on memberships have options: one of each, where they are on this machine."""
    known = lab.installations()
    usual = next((major for major, folder in known.items() if folder == lab.bindirs()[0]), 0)
    return sorted({usual, *[m for m in known if m < 14][-1:], *[m for m in known if m >= 16][-1:]})


@pytest.fixture(scope="module", params=majors())
def bare(request: pytest.FixtureRequest) -> t.Iterator[lab.Server]:
    """A source that nobody prepared, with a database ``shop`` of the application."""
    server = make_source("unprepared", settings=FEW, bindir=lab.installations()[request.param])
    server.create_database("shop", "app")
    server.execute("CREATE SCHEMA goods; CREATE TABLE goods.item (id int PRIMARY KEY); ALTER TABLE goods.item OWNER TO app", "shop")
    server.execute("CREATE PUBLICATION theirs FOR TABLE goods.item; CREATE TABLE plain (i int)", "shop")
    yield server
    server.drop()


def superuser(server: lab.Server) -> dict[str, t.Any]:
    """The option ``source`` for the administrator."""
    return {"host": server.host, "port": server.port, "user": server.superuser, "password": server.superuser_password, "sslmode": "disable"}


def test_present_ten_times_then_absent(bare: lab.Server, tmp_path: Path) -> None:
    """One change in ten runs; check mode tells the same; absent gives everything back, and nothing the second time."""
    options = {
        "source": superuser(bare),
        "database_count": 2,
        "wal_sender_timeout": "5min",
        "login": {"user": "mover", "password": CANARY},
        "databases": ["shop"],
        "home": str(tmp_path),
    }
    before = footprint(bare, "shop")
    foretold = run_module("pg_configure_cdc", check=True, **options).fine()
    assert difference(before, footprint(bare, "shop")) == {} and not list(tmp_path.iterdir())
    runs = []
    for number in range(10):
        runs.append(run_module("pg_configure_cdc", **options).fine())
        if number == 0:
            bare.restart()
    assert [run.changed for run in runs] == [True] + [False] * 9
    assert foretold.result["diff"] == runs[0].result["diff"] and foretold.result["statements"] == runs[0].result["statements"]
    assert runs[0].result["reload_required"] and not runs[9].result["reload_required"]
    assert runs[0].result["restart_required"] and not runs[9].result["restart_required"]
    said = "".join(run.text for run in [foretold, *runs])
    kept = "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    assert CANARY not in said + kept and "SCRAM-SHA-256" not in said + kept
    rows = bare.execute("SELECT rolsuper, rolcreaterole, rolcreatedb, rolbypassrls, rolreplication FROM pg_roles WHERE rolname = 'mover'")
    assert rows == [(False, False, False, False, True)]
    absent = {**options, "state": "absent"}
    foretold = run_module("pg_configure_cdc", check=True, **absent).fine()
    assert bare.execute("SELECT count(*) FROM pg_roles WHERE rolname = 'mover'") == [(1,)]
    gone = run_module("pg_configure_cdc", **absent).fine()
    assert (foretold.changed, foretold.result["diff"]) == (gone.changed, gone.result["diff"])
    assert gone.changed and not run_module("pg_configure_cdc", **absent).fine().changed
    bare.restart()
    assert difference(before, footprint(bare, "shop")) == {}


def test_the_login_has_enough_rights_and_no_more(bare: lab.Server, target: lab.Server, tmp_path: Path) -> None:
    """With it alone the validation finds no missing right on the source; every single right of it is needed or the check fails."""
    options = {"source": superuser(bare), "method": "report", "databases": ["shop"], "home": str(tmp_path)}
    login = {"user": "mover", "password": CANARY}
    bare.execute("ALTER TABLE plain OWNER TO app", "shop")
    before = footprint(bare, "shop")
    as_checked("pg_configure_cdc", **options, login=login)
    here = {"type": "on_premises", "host": bare.host, "port": bare.port, "user": "mover", "password": CANARY, "sslmode": "disable"}
    there = {"type": "self_managed", "host": target.host, "port": target.port, "user": target.superuser}
    spec = MigrationSpec.from_dict(
        {
            "name": "rights",
            "mode": "online",
            "databases": ["shop"],
            "changes": {"plugin": "pgoutput"},
            "source": here,
            "target": {**there, "password": target.superuser_password, "sslmode": "disable"},
        }
    )
    found = validate(spec, only=["PGM2105", "PGM2201", "PGM2203", "PGM2205", "PGM2206", "PGM2207"]).failures()
    assert found == [], found
    with psycopg.connect(bare.dsn("shop", "mover", CANARY)) as conn:
        assert conn.execute("SELECT count(*) FROM goods.item").fetchone() == (0,)
    for statement in ("CREATE ROLE x", "CREATE DATABASE x", "ALTER SYSTEM SET work_mem = '1MB'", "COPY (SELECT 1) TO PROGRAM 'true'"):
        with (
            psycopg.connect(bare.dsn("shop", "mover", CANARY), autocommit=True) as conn,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            conn.execute(statement)
    run_module("pg_configure_cdc", **options, login=login, state="absent").fine()
    assert difference(before, footprint(bare, "shop")) == {}


def test_an_existing_login_keeps_what_it_had(bare: lab.Server, tmp_path: Path) -> None:
    """A login that is there gets what it lacks; absent takes only that away again, and never its password."""
    bare.create_role("veteran", "own password", "NOREPLICATION CONNECTION LIMIT 9")
    bare.execute("GRANT pg_signal_backend TO veteran")
    before = footprint(bare, "shop")
    options = {"source": superuser(bare), "method": "report", "databases": ["shop"], "home": str(tmp_path)}
    login = {"user": "veteran", "password": CANARY}
    done = as_checked("pg_configure_cdc", **options, login=login).result["statements"]
    assert not any("CREATE ROLE" in text or "pg_signal_backend" in text or "PASSWORD" in text for text in done)
    psycopg.connect(bare.dsn(user="veteran", password="own password")).close()
    run_module("pg_configure_cdc", **options, login=login, state="absent").fine()
    assert difference(before, footprint(bare, "shop")) == {}
    bare.execute("DROP ROLE veteran")


def test_what_a_provider_has_to_set_is_told(bare: lab.Server, tmp_path: Path) -> None:
    """R24: its own parameter, its command and the restart, for each provider; nothing is changed."""
    before = footprint(bare)
    for kind, parameter, word in (
        ("aws_rds", "rds.logical_replication", "aws rds modify-db-parameter-group"),
        ("aws_aurora", "rds.logical_replication", "modify-db-cluster-parameter-group"),
        ("gcp_cloudsql", "cloudsql.logical_decoding", "gcloud sql instances patch"),
        ("gcp_alloydb", "alloydb.logical_decoding", "gcloud alloydb"),
        ("azure_single_server", "azure.replication_support", "az postgres server configuration set"),
        ("azure_flexible", "wal_level", "az postgres flexible-server parameter set"),
    ):
        said = run_module("pg_configure_cdc", source={**superuser(bare), "type": kind}, method="report", home=str(tmp_path)).fine()
        first = said.result["instructions"][0]
        assert first["parameter"] == parameter and word in first["command"] and first["restart"], kind
        assert {i["parameter"] for i in said.result["instructions"][1:]} == {"max_replication_slots", "max_wal_senders"}
        assert not said.changed
    assert difference(before, footprint(bare)) == {}


class Source:
    """The role on a server of this machine: no systemd here, so it reloads and restarts by commands."""

    def __init__(self, folder: Path, server: lab.Server) -> None:
        self.folder, self.server = folder, server
        self._asked = folder / "restart.asked"
        reload_script, restart = folder / "reload", folder / "restart"
        reload_script.write_text(f"#!/bin/sh\nkill -HUP $(head -1 {server.data}/postmaster.pid)\n")
        restart.write_text(f"#!/bin/sh\ntouch {self._asked}\nwhile [ -e {self._asked} ]; do sleep 0.1; done\n")
        for script in (reload_script, restart):
            script.chmod(0o755)
        self._stop = threading.Event()
        self._worker = threading.Thread(target=self._restart_when_asked, daemon=True)
        self._worker.start()
        self.restarts = 0

    def _restart_when_asked(self) -> None:
        while not self._stop.wait(0.05):
            if self._asked.exists():
                self.restarts += 1
                self.server.restart()
                self._asked.unlink()

    def close(self) -> None:
        """No more restarts."""
        self._stop.set()
        self._worker.join()

    def play(self, *arguments: str, **variables: t.Any) -> tuple[int, str]:
        """The role: how many tasks changed something (-1: it failed), and the text."""
        migration = {
            "name": "prepare",
            "mode": "online",
            "databases": ["shop"],
            "source": {**superuser(self.server), "user": "mover", "password": CANARY, "type": "on_premises"},
            "target": {"host": "db.invalid", "user": "admin", "password": CANARY},
        }
        admin = {"user": self.server.superuser, "password": self.server.superuser_password}
        inventory = {
            "all": {
                "vars": {
                    "pg_migration": migration,
                    "pg_migration_home": str(self.folder / "home"),
                    "pg_migration_supervisor": "process",
                    "pg_migration_python": sys.executable,
                    "pg_migration_source_admin": admin,
                    "pg_migration_source_runtime_addresses": ["127.0.0.7/32"],
                    "pg_migration_source_config_file": str(self.server.data / "postgresql.conf"),
                    "pg_migration_source_owner": lab.server_user() or getpass.getuser(),
                    "pg_migration_source_reload_command": [str(self.folder / "reload")],
                    "pg_migration_source_restart_command": [str(self.folder / "restart")],
                    "pg_migration_source_become": False,
                    **variables,
                },
                "children": {
                    "pg_migration_source": {"hosts": {"db1": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}}}
                },
            }
        }
        path = self.folder / "inventory.yml"
        path.write_text(yaml.safe_dump(inventory), encoding="utf-8")
        playbook = self.folder / "prepare.yml"  # as prepare_source, without provisioning this host
        play = {"name": "Prepare", "hosts": "pg_migration_source", "gather_facts": False, "roles": ["pgops.migration.pg_migration_source"]}
        playbook.write_text(yaml.safe_dump([play]), encoding="utf-8")
        environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(REPO / ".work" / "link"), "ANSIBLE_NOCOLOR": "1"}
        command = [str(Path(sys.executable).with_name("ansible-playbook")), str(playbook), "-i", str(path), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=self.folder, check=False, timeout=600)
        recap = [line for line in done.stdout.partition("PLAY RECAP")[2].splitlines() if line.startswith("db1")]
        changed = int(recap[0].split("changed=")[1].split()[0]) if recap else 0
        return (-1 if done.returncode else changed), done.stdout + done.stderr


@pytest.fixture
def role(tmp_path: Path) -> t.Iterator[Source]:
    """The role and a server of its own."""
    server = make_source("role", settings=FEW)
    server.create_database("shop", "app")
    server.execute("CREATE TABLE item (id int PRIMARY KEY); ALTER TABLE item OWNER TO app; CREATE PUBLICATION theirs", "shop")
    prepared = Source(tmp_path, server)
    yield prepared
    prepared.close()
    server.drop()


def test_the_role_prepares_and_gives_back(role: Source) -> None:
    """Check mode touches nothing; without leave nothing restarts; with it the source is as it must be; played again nothing changes;
    absent gives back parameters, files, login and entries."""
    server = role.server
    before = footprint(server, "shop")
    changed, text = role.play("--check", "--diff")
    assert changed >= 0, text[-4000:]
    assert difference(before, footprint(server, "shop")) == {}
    assert 'host all "mover" 127.0.0.7/32' in text and "GRANT" in text
    changed, text = role.play()
    assert changed == -1 and "wal_level" in text and "pg_migration_source_allow_restart" in text and role.restarts == 0
    changed, text = role.play("--diff", pg_migration_source_allow_restart=True)
    assert changed > 0 and role.restarts == 1, text[-4000:]
    assert server.execute("SHOW wal_level") == [("logical",)] and server.execute("SHOW max_replication_slots") == [("2",)]
    entries = server.execute("SELECT database, user_name, address FROM pg_hba_file_rules WHERE user_name = '{mover}'")
    assert entries == [(["all"], ["mover"], "127.0.0.7"), (["replication"], ["mover"], "127.0.0.7")]
    shown = server.execute("SELECT sourcefile FROM pg_settings WHERE name = 'wal_level'")[0][0]
    assert shown.endswith("pg_migration_cdc.conf") and stat.S_IMODE(Path(shown).stat().st_mode) == 0o644
    changed, again = role.play(pg_migration_source_allow_restart=True)
    assert (changed, role.restarts) == (0, 1), again[-4000:]
    backups = [path.name for path in server.data.iterdir() if path.name.startswith(("postgresql.conf.", "pg_hba.conf."))]
    assert len(backups) == 2
    changed, text = role.play(pg_migration_source_state="absent", pg_migration_source_allow_restart=True)
    assert changed > 0 and role.restarts == 2, text[-4000:]
    assert difference(before, footprint(server, "shop")) == {}
    changed, again = role.play(pg_migration_source_state="absent", pg_migration_source_allow_restart=True)
    assert (changed, role.restarts) == (0, 2), again[-4000:]
    assert CANARY not in text + again


def test_what_hides_the_file_is_refused(role: Source) -> None:
    """R22: ALTER SYSTEM has the last word over any file, so the role says which parameter to reset instead of writing in vain."""
    role.server.execute("ALTER SYSTEM SET max_wal_senders = 1")
    role.server.restart()
    changed, text = role.play(pg_migration_source_allow_restart=True)
    assert changed == -1 and "ALTER SYSTEM RESET max_wal_senders" in text and role.restarts == 0
    assert not (role.server.data / "pg_migration_cdc.conf").exists()


def test_a_managed_source_is_waited_for(role: Source) -> None:
    """R24: the role tells the provider's commands, fails until they were carried out, and waits for them where asked to."""
    server = role.server
    server.create_role("mover", CANARY, "REPLICATION")
    managed = {"pg_migration_source_managed": True, "pg_migration_source_admin": {}}
    changed, text = role.play(**managed)
    assert changed == -1 and "Insist on it" in text and "wal_level = 'logical'" in text
    changed, text = role.play("--check", **managed)
    assert changed == 0, text[-3000:]

    played: list[tuple[int, str]] = []
    waiting = threading.Thread(target=lambda: played.append(role.play(**managed, pg_migration_source_wait_seconds=60)))
    waiting.start()
    waiting.join(8.0)  # it has looked at least once
    for name, value in {"wal_level": "logical", "max_replication_slots": 2, "max_wal_senders": 2}.items():
        server.execute(f"ALTER SYSTEM SET {name} = {value}")
    server.restart()  # in this thread: a server of the tests ends with the thread that started it
    waiting.join()
    changed, text = played[0]
    assert changed == 0, text[-3000:]
