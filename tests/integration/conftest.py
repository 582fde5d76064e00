# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Two servers for a whole test run, and fresh databases on them for each test; the rights of their roles: ``tests/pair.py``."""

from __future__ import annotations

import contextlib
import secrets
import typing as t

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
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
