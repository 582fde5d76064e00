# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Password files and service files: what libpq makes of them is what we make of them, for every kind of connection."""

from __future__ import annotations

import asyncio
import os
import subprocess
import typing as t
from pathlib import Path

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import ConnectionFailed, SpecificationError
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.loginfiles import resolve
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.session import connect, connect_bulk
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import endpoint_from
from host import Host
from pair import OWNER, describe
from tasks import run_module

HARD = "p:a\\ss'w%rd "
"""A password with all that a password file has to escape, and a blank at its end."""


class Files:
    """A folder with a password file and a service file, and a role whose password is :data:`HARD`."""

    def __init__(self, folder: Path, server: lab.Server) -> None:
        self.folder, self.server = folder, server
        self.passfile, self.services = folder / "pass:words", folder / "services.conf"

    def passwords(self, *lines: str, mode: int = 0o600) -> None:
        """Write the password file; PORT and HARD stand for the server's port and the escaped password."""
        hard = HARD.replace("\\", "\\\\").replace(":", "\\:")
        text = "".join(line.replace("PORT", str(self.server.port)).replace("HARD", hard) + "\n" for line in lines)
        self.passfile.write_text(text, encoding="utf-8")
        self.passfile.chmod(mode)

    def service(self, *lines: str, mode: int = 0o644) -> None:
        """Write the service file; PASSFILE stands for the password file."""
        text = "".join(line.replace("PORT", str(self.server.port)).replace("PASSFILE", str(self.passfile)) + "\n" for line in lines)
        self.services.write_text(text, encoding="utf-8")
        self.services.chmod(mode)

    def by_libpq(self, **given: t.Any) -> str:
        """Who PostgreSQL's own psql is on the server, with the same files and options; empty where it cannot connect."""
        words = {**{key: value for key, value in given.items() if key != "service_file"}, "sslmode": "disable"}
        info = " ".join(f"{key}='{str(value)}'" for key, value in words.items())
        command = [str(self.server.bindir / "psql"), "-XqAtw", "-c", "SELECT current_user, current_database()", "-d", info]
        environment = {"PATH": os.environ["PATH"], "PGSERVICEFILE": str(self.services), "HOME": str(self.folder)}
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=60).stdout.strip()

    def by_us(self, **given: t.Any) -> str:
        """The same through an endpoint of the inventory, by psycopg and by asyncpg."""
        if "service" in given:
            given["service_file"] = str(self.services)
        try:
            end = endpoint_from("source", {"sslmode": "disable", **resolve("source", given)})
            with connect(end) as conn:
                found = conn.execute("SELECT current_user::text, current_database()::text").fetchone()
            assert tuple(asyncio.run(self._bulk(end))) == tuple(found or ())
        except (SpecificationError, ConnectionFailed):
            return ""
        return "|".join(found or ())

    @staticmethod
    async def _bulk(end: t.Any) -> t.Any:
        conn = await connect_bulk(end)
        try:
            return await conn.fetchrow("SELECT current_user::text, current_database()::text")
        finally:
            await conn.close()


@pytest.fixture
def files(tmp_path: Path, source: lab.Server) -> t.Iterator[Files]:
    quoted = HARD.replace("'", "''")
    source.execute(f"SET standard_conforming_strings = on; CREATE ROLE keeper LOGIN PASSWORD '{quoted}'")
    yield Files(tmp_path, source)
    source.execute("DROP ROLE keeper")


GOOD = "127.0.0.1:PORT:postgres:keeper:HARD"
BESIDE = {"host": "127.0.0.1", "user": "keeper"}


@pytest.mark.parametrize(
    "line, works",
    [
        ((GOOD,), True),
        (("# a note", "", "short:line", "*:*:*:*:HARD"), True),
        (("db1:*:*:*:wrong", "*:1:*:*:wrong", "*:*:shop:*:wrong", "*:*:*:app:wrong", "*:*:*:keeper:HARD"), True),
        (("*:*:*:*:wrong", GOOD), False),  # the first that fits counts
        (("127.0.0.1:PORT:template1:keeper:HARD",), False),
        (("127\\.0.0.1:PORT:po\\stgres:k\\eeper:HARD\r",), True),
        (("\\*:*:*:*:HARD",), False),
    ],
)
def test_password_file(files: Files, line: tuple[str, ...], works: bool) -> None:
    """Lines, wildcards, escapes and their order mean what they mean to libpq."""
    files.passwords(*line)
    given = {**BESIDE, "port": files.server.port, "dbname": "postgres", "passfile": files.passfile}
    assert files.by_us(**given) == files.by_libpq(**given) == ("keeper|postgres" if works else "")


ADDRESS = ("host=127.0.0.1", "port=PORT", "user=keeper")
FULL = (*ADDRESS, "dbname=postgres", "passfile=PASSFILE")
GIVEN = {"port": "PORT", "user": "keeper", "password": HARD}


@pytest.mark.parametrize(
    "lines, given, answer",
    [
        (("[one]", *ADDRESS, "dbname=postgres", "passfile=PASSFILE"), {}, "keeper|postgres"),
        (("[one]", *ADDRESS, "dbname=template1", "passfile=PASSFILE"), {}, "keeper|template1"),
        (("[other]", "user=nobody", "# note", "[one]", *FULL, "user=nobody", "[one]", "port=1"), {}, "keeper|postgres"),
        (("[one]", "  host=127.0.0.1", "port=1", "user=nobody", "password=wrong"), GIVEN, "keeper|postgres"),
        (("[one]", *ADDRESS, "password=wrong", "passfile=PASSFILE"), {}, ""),  # a password counts more than a password file
        (("[one]", *ADDRESS, "passfile=/nowhere"), {"passfile": "PASSFILE"}, "keeper|postgres"),
        (("[one ]", *ADDRESS, "passfile=PASSFILE"), {}, ""),
        (("[one]", *ADDRESS, "passfile = PASSFILE"), {}, ""),
    ],
)  # fmt: skip
def test_service(files: Files, lines: tuple[str, ...], given: dict[str, t.Any], answer: str) -> None:
    """Sections, repeated keywords, and what counts more: the inventory, then the service, then the password file."""
    files.passwords("*:*:*:keeper:HARD")
    files.service(*lines, mode=0o600)
    places = {"PORT": files.server.port, "PASSFILE": str(files.passfile)}
    options = {"service": "one", **{key: places.get(value, value) for key, value in given.items()}}
    quoted = {key: str(value).replace("\\", "\\\\").replace("'", "\\'") for key, value in options.items()}
    if "dbname" not in "".join(lines):  # libpq takes the user's name, we take postgres
        quoted["dbname"] = "postgres"
    assert files.by_us(**options) == files.by_libpq(**quoted) == answer


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_file_that_others_may_read_is_refused(files: Files, mode: int) -> None:
    """libpq ignores it and asks for a password; we say which file, its mode and what to do. A service with a password is alike."""
    files.passwords(GOOD, mode=mode)
    with pytest.raises(SpecificationError, match=f"pass:words of the source .* open to others .mode {mode:04o}") as caught:
        resolve("source", {**BESIDE, "port": files.server.port, "passfile": str(files.passfile)})
    assert caught.value.hint == f"chmod 0600 {files.passfile}"
    files.service("[one]", "password=canary-in-service", mode=mode)
    with pytest.raises(SpecificationError, match="open to others") as caught:
        resolve("target", {**BESIDE, "service": "one", "service_file": str(files.services)})
    assert "canary" not in str(caught.value.to_dict())


@pytest.mark.parametrize(
    "given, said",
    [
        ({"service": "none"}, "The service 'none' of the source is not in "),
        (
            {"service": "one", "service_file": "/nowhere/services"},
            "service file /nowhere/services of the source cannot be read: No such file",
        ),
        ({"service": "bad"}, "has options in line 4 of "),
        ({"service": "many"}, "names several servers: a,b"),
        ({"passfile": "/nowhere/passwords"}, "password file /nowhere/passwords of the source cannot be read: No such file"),
        ({"passfile": "/dev/null"}, "is no plain file"),
        ({"passfile": "PASSFILE", "user": "someone"}, "fits 127.0.0.1:5432:postgres:someone"),
        ({"service_file": "/x"}, "service_file is given without service"),
    ],
)
def test_what_cannot_be_used_is_named(files: Files, given: dict[str, t.Any], said: str) -> None:
    files.passwords("*:*:*:keeper:canary-in-file")
    files.service("[many]", "host=a,b", "[bad]", "options=-c x=canary")
    options = {**({} if "many" in given.values() else BESIDE), **given}
    options = {key: str(files.passfile) if value == "PASSFILE" else value for key, value in options.items()}
    if "service" in options:
        options.setdefault("service_file", str(files.services))
    with pytest.raises(SpecificationError, match="(?s)" + said) as caught:
        resolve("source", options)
    assert "canary" not in str(caught.value.to_dict())


def test_nothing_is_taken_that_is_not_named(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords of the environment and of ``~/.pgpass``: one driver would take them and pg_dump would not."""
    files.passwords("*:*:*:keeper:HARD")
    files.passfile.rename(files.folder / ".pgpass")
    monkeypatch.setenv("HOME", str(files.folder))
    monkeypatch.setenv("PGPASSFILE", str(files.folder / ".pgpass"))
    monkeypatch.setenv("PGPASSWORD", HARD)
    end = endpoint_from("source", {**BESIDE, "port": files.server.port, "sslmode": "disable"})
    with pytest.raises(ConnectionFailed):
        connect(end)
    with pytest.raises(ConnectionFailed):
        asyncio.run(connect_bulk(end))


def test_migration(files: Files, source: lab.Server, target: lab.Server, source_database: str, host: Host) -> None:
    """A whole one, as a task describes it: sessions, pg_dump, the bulk copy, the walsender and pg_restore log in with what the files say,
    and the files may go once the migration has begun."""
    source.execute(f"CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t OWNER TO {OWNER}; INSERT INTO t VALUES (1)", source_database)
    told = describe(source, target, "files", [source_database])
    password = told["source"].pop("password")
    files.passwords(f"127.0.0.1:PORT:postgres:migrator:{password}")
    told["source"]["passfile"] = str(files.passfile)
    there = told["target"]
    files.service("[there]", *(f"{key}={there[key]}" for key in ("host", "port", "user", "password", "sslmode")), mode=0o600)
    told["target"] = {"type": "self_managed", "service": "there", "service_file": str(files.services)}
    options = {**told, "home": str(host.home), "supervisor": "process", "wait_timeout": 120}
    first = run_module("pg_snapshot_copy", **options).fine()
    for secret in (password, there["password"]):
        assert secret not in first.text
    key = host.manager.list()[0]["key"]
    kept = (host.home / "migrations" / key / "spec.json").read_text(encoding="utf-8")
    assert str(target.port) in kept and password not in kept and there["password"] not in kept
    assert (host.home / "migrations" / key / "secrets.json").stat().st_mode & 0o777 == 0o600
    again = run_module("pg_snapshot_copy", **options).fine()
    assert not again.changed
    for path in (files.passfile, files.services):
        path.unlink()
    host.until_waiting(key)
    source.execute("INSERT INTO t VALUES (2)", source_database)
    host.cut_over(key)
    assert target.execute("SELECT id FROM t ORDER BY 1", source_database) == [(1,), (2,)]
