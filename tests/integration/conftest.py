# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Two servers for a whole test run, fresh databases on them and a runtime host for each test; the rights of their roles:
``tests/pair.py``."""

from __future__ import annotations

import contextlib
import secrets
import typing as t
from pathlib import Path

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from changelab import Start, StreamLab
from host import Host
from pair import OWNER, PASSWORDS, Login, describe, make_source, make_target


@pytest.fixture(scope="session")
def source() -> t.Iterator[lab.Server]:
    """The server that migrations start from."""
    server = make_source()
    yield server
    server.drop()


@pytest.fixture(scope="session")
def target() -> t.Iterator[lab.Server]:
    """The server that migrations go to."""
    server = make_target()
    yield server
    server.drop()


@pytest.fixture
def migrator(source: lab.Server) -> Login:
    """The migration role of the source."""
    return Login("migrator", PASSWORDS[source.port])


@pytest.fixture
def owner(source: lab.Server) -> Login:
    """The role that owns the databases of the source, as applications log in."""
    return Login(OWNER, PASSWORDS[source.port])


@pytest.fixture
def admin(target: lab.Server) -> Login:
    """The migration role of the target."""
    return Login("admin", PASSWORDS[target.port])


@pytest.fixture
def database_factory(source: lab.Server, target: lab.Server) -> t.Iterator[t.Callable[..., str]]:
    """Make a database with a fresh name: ``factory(side='source', name='', options='')``. All are dropped on both sides afterwards."""
    made: list[str] = []

    def make(side: str = "source", name: str = "", options: str = "") -> str:
        name = name or f"db{secrets.token_hex(4)}"
        made.append(name)
        if side == "source":
            source.create_database(name, OWNER, options)
        else:
            target.create_database(name, "admin", options)
        return name

    yield make
    for name in made:
        for server in (source, target):
            if server.running:
                server.drop_database(name)
    with contextlib.suppress(Exception):
        source.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active AND slot_name LIKE 'pgm%'")


@pytest.fixture
def source_database(database_factory: t.Callable[..., str]) -> str:
    """A fresh, empty database on the source, owned by ``app``; the same name is free on the target."""
    return database_factory()


@pytest.fixture
def target_database(source_database: str, database_factory: t.Callable[..., str]) -> str:
    """A fresh, empty database on the target, owned by ``admin``, with the same name as :func:`source_database`."""
    return database_factory("target", source_database)


@pytest.fixture
def spec_factory(source: lab.Server, target: lab.Server) -> t.Callable[..., MigrationSpec]:
    """``spec_factory(name, databases, **overrides)``: a specification for these servers. Overrides are the keys of the
    inventory's ``pg_migration``; ``source`` and ``target`` given as dicts are merged into the endpoints."""

    def make(name: str, databases: t.Sequence[str], **overrides: t.Any) -> MigrationSpec:
        return MigrationSpec.from_dict(describe(source, target, name, databases, **overrides))

    return make


@pytest.fixture
def host(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Host]:
    """A runtime host."""
    one = Host(tmp_path_factory.mktemp("runtime"))
    yield one
    one.close()


@pytest.fixture
def streaming(
    source: lab.Server,
    target: lab.Server,
    owner: Login,
    admin: Login,
    source_database: str,
    target_database: str,
    spec_factory: t.Callable[..., MigrationSpec],
    tmp_path: Path,
) -> t.Iterator[Start]:
    """``start(plugin, ddl, rows='', running=True, **changes)``: the same schema and rows on both sides, then a stream."""
    labs: list[StreamLab] = []

    def start(plugin: str, ddl: str, rows: str = "", *, running: bool = True, target_ddl: str = "", **changes: t.Any) -> StreamLab:
        for server, login, sql in ((source, owner, ddl), (target, admin, target_ddl or ddl)):
            with server.connect(source_database, login.name, login.password) as conn:
                conn.execute(sql)
                if rows:
                    conn.execute(rows)
        made = StreamLab(spec_factory("stream", [source_database], changes=changes), tmp_path / "spool", plugin)
        made.app = lambda: source.connect(source_database, owner.name, owner.password)  # type: ignore[attr-defined]
        made.there = lambda: target.connect(source_database, admin.name, admin.password)  # type: ignore[attr-defined]
        labs.append(made)
        if running:
            made.start()
        return made

    yield start
    for one in labs:
        one.close()


@pytest.fixture
def members(source: lab.Server, target: lab.Server) -> None:
    """The roles that the globals would have made: owners of whom the administrator is a member, and a grantee."""
    for server in (source, target):
        for role in ("app", "Sales Team", "reader"):
            if not server.execute(f"SELECT 1 FROM pg_roles WHERE rolname = '{role}'"):
                server.create_role(role)
    target.execute('GRANT app, "Sales Team", reader TO admin')
    source.execute('GRANT "Sales Team" TO migrator; GRANT "Sales Team" TO app')
