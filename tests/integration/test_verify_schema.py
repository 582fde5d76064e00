# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The comparison of definitions: of everything that a schema can hold one is made on both sides, each is changed on one, and exactly that
is told; and what the base copy brings from an old major to the newest is equal."""

from __future__ import annotations

import contextlib
import secrets
import typing as t
from pathlib import Path

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.target import prepare_target
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from ansible_collections.pgops.migration.plugins.module_utils._engine.verify.schema import (
    Definitions,
    compare_definitions,
    compare_schemas,
    read_definitions,
)
from ansible_collections.pgops.migration.plugins.module_utils._engine.verify.scope import Scope
from copylab import Held, copy
from pair import describe, make_source, make_target
from schema_things import THINGS, script


class Both(t.NamedTuple):
    """The database on both servers and two roles that both have."""

    source: lab.Server
    target: lab.Server
    database: str
    role: str
    other: str

    def name(self, text: str) -> str:
        """``text`` with the roles' names."""
        return text.replace("{role}", self.role).replace("{other}", self.other)

    def read(self, server: lab.Server, change: t.Sequence[str] = ()) -> Definitions:
        """The definitions of one side; after ``change``, which is taken back."""
        scope = Scope(server.version, min(self.source.version, self.target.version), "salt")
        with server.connect(self.database) as conn:
            conn.execute("BEGIN; SET search_path = pg_catalog")
            for statements in change:
                conn.execute(t.cast(t.Any, self.name(statements)))
            found = read_definitions(conn, scope)
            conn.execute("ROLLBACK")
        return found


@pytest.fixture(scope="module")
def both(source: lab.Server, target: lab.Server) -> t.Iterator[Both]:
    token = secrets.token_hex(3)
    made = Both(source, target, f"things_{token}", f"role_{token}", f"other_{token}")
    for server in (source, target):
        server.execute(f"CREATE ROLE {made.role}; CREATE ROLE {made.other}")
        server.create_database(made.database, server.superuser)
        server.execute(script(server.major, made.role, made.other), made.database)
    yield made
    for server in (source, target):
        server.drop_database(made.database)
        server.execute(f"DROP ROLE {made.role}; DROP ROLE {made.other}")


def test_each_change_is_told(both: Both) -> None:
    """Everything is changed at once; each change is told by exactly its object, nothing else is, and no value that may be secret."""
    ours = both.read(both.source)
    assert compare_definitions(ours, both.read(both.target)) == []
    things = [thing for thing in THINGS if min(both.source.major, both.target.major) >= max(thing.since, thing.change_since)]
    found = compare_definitions(ours, both.read(both.target, [thing.change for thing in things]))
    told = {(kind, both.name(name)): thing.change for thing in things for kind, name in thing.told}
    named = {(one.kind, one.object): one for one in found}
    assert {key: change for key, change in told.items() if key not in named} == {}
    assert {key: one for key, one in named.items() if key not in told} == {}
    assert not any("secret" in (text or "") for one in found if one.kind != "security label" for text in (one.source, one.target))


def test_what_only_a_superuser_brings_is_not_missed(both: Both) -> None:
    """An administrator's target has no event triggers; publications are set up anew on every target."""
    ours = both.read(both.source)
    left = {key: text for key, text in ours.objects.items() if key[0] not in ("event trigger", "publication")}
    theirs = ours._replace(superuser=False, objects=left)
    assert compare_definitions(ours, theirs) == []
    assert {one.kind for one in compare_definitions(ours, theirs._replace(superuser=True))} == {"event trigger"}


def old_and_new() -> list[t.Any]:
    """The oldest installed version and a middle one, each to the newest."""
    known = list(lab.installations())
    return [pytest.param(major, known[-1], id=f"{major}-{known[-1]}") for major in sorted({known[0], known[len(known) // 2]})]


@pytest.mark.parametrize("old, new", old_and_new())
def test_the_base_copy_brings_everything(old: int, new: int, tmp_path: Path) -> None:
    """What the source's version knows of all that, copied to the newest, is equal there."""
    program = lab.program("pg_dump", new)
    if program is None:
        pytest.skip(f"no pg_dump of version {new}")
    with contextlib.ExitStack() as stack:
        source, target = make_source(bindir=lab.installations()[old]), make_target(bindir=lab.installations()[new])
        for server in (source, target):
            stack.callback(server.drop)
            server.execute("CREATE ROLE one; CREATE ROLE two")
        source.create_database("things", source.superuser)
        source.execute(script(source.major, "one", "two"), "things")
        ends = {
            side: {"user": server.superuser, "password": server.superuser_password}
            for side, server in (("source", source), ("target", target))
        }
        spec = MigrationSpec.from_dict(describe(source, target, "things", ["things"], copy={"bindir": str(program.parent)}, **ends))
        prepare_target(spec, "things")
        copy(spec, "things", tmp_path, Held(source, "things"))
        with source.connect("things") as ours, target.connect("things") as theirs:
            for conn in (ours, theirs):
                conn.execute("SET search_path = pg_catalog")
            assert compare_schemas(ours, theirs) == []
