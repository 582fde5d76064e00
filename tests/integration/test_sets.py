# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""More databases than one attempt takes: sets of eight, one after the other, killed on the way."""

from __future__ import annotations

import functools
import json
import os
import typing as t

import pytest
import servers as lab
from ansible.module_utils.testing import patch_module_args
from ansible_collections.pgops.migration.plugins.module_utils._ansible.module import MigrationModule
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import Conflict
from ansible_collections.pgops.migration.plugins.module_utils._engine.service import manager as manager_module
from ansible_collections.pgops.migration.plugins.module_utils._engine.service import sets as sets_module
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.databases import split_batches
from ansible_collections.pgops.migration.plugins.modules import pg_snapshot_copy
from host import Host
from pair import OWNER, describe

COUNT = 19
ROWS = 200


SIZE = int(os.environ.get("PG_MIGRATION_SET_SIZE", "2"))
"""Databases of a set online, each with two processes of its own; ``PG_MIGRATION_SET_SIZE=8`` for the real size."""


@pytest.fixture
def names(make_names: t.Callable[[int], list[str]]) -> list[str]:
    """19 databases."""
    return make_names(COUNT)


@pytest.fixture
def make_names(source: lab.Server, database_factory: t.Callable[..., str]) -> t.Callable[[int], list[str]]:
    """``make_names(count)``: databases that differ in their content."""
    return functools.partial(copies, source, database_factory)


def copies(source: lab.Server, database_factory: t.Callable[..., str], count: int) -> list[str]:
    """Of one template."""
    template = database_factory()
    with source.connect(template) as conn:
        conn.execute("CREATE TABLE public.item (id int PRIMARY KEY, home name)")
        conn.execute(f"INSERT INTO public.item SELECT i FROM generate_series(1, {ROWS}) i")
        conn.execute(f"ALTER TABLE public.item OWNER TO {OWNER}")
    made = [database_factory(options=f"TEMPLATE {template}") for dummy in range(count)]
    for name in made:
        source.execute("UPDATE public.item SET home = current_database()", name)
    return made


def content(server: lab.Server, database: str) -> t.Any:
    """How many rows, and of which database."""
    with server.connect(database) as conn:
        return conn.execute("SELECT count(*), min(home::text), max(home::text) FROM public.item").fetchone()


def kill_at_work(host: Host, key: str) -> None:
    """SIGKILL the service of ``key`` while its databases are being copied."""
    host.until(key, lambda status: any(figures.get("bytes_done") for figures in status["progress"].values()), "a copy at work")
    host.kill(key)
    assert host.manager.status(key)["state"] == "InProgress", "killed too late to prove anything"


def test_nineteen_databases_killed_twice(names, host: Host, source, target, spec_factory, monkeypatch, capsys) -> None:
    """R65, R66, R67: 8 + 8 + 3, in sequence; two kills lose nothing that is done; every database is migrated exactly once."""
    options = describe(source, target, "estate", names, mode="offline")

    def play(seconds: int) -> dict[str, t.Any]:
        """One call of ``pg_snapshot_copy``, as the role makes it again and again."""
        monkeypatch.setattr(MigrationModule, "manager", lambda self: host.manager)
        with patch_module_args({**options, "wait_timeout": seconds}), pytest.raises(SystemExit):
            pg_snapshot_copy.main()
        return dict(json.loads(capsys.readouterr().out))

    kills, seen, ended = {1, 2}, [], {}
    while not seen or not seen[-1]["reached"]:
        number = (len(seen) + 2) // 2
        seen.append(play(0 if number in kills else 100))
        assert "msg" not in seen[-1], seen[-1]
        if number in kills:
            kills.discard(number)
            kill_at_work(host, seen[-1]["key"])
            with pytest.raises(Conflict, match=f"estate-b{number}"):  # R68: no other one beside it
                host.manager.plan(spec_factory("other", names[:1], mode="offline"))
        for done in host.manager.list():
            if done["state"] == "Succeeded":  # a set that is done is not touched again
                assert ended.setdefault(done["name"], done["ended"]) == done["ended"]
    did = [(one["migration"], one["action"]) for one in seen]
    assert did == [
        *(("estate-b1", "create"), ("estate-b1", "resume"), ("estate-b2", "create"), ("estate-b2", "resume"), ("estate-b3", "create"))
    ]
    host.until(seen[-1]["key"], lambda status: status["state"] == "Succeeded", "the end of the last set")
    sets = list(reversed(host.manager.list()))
    assert [(one["name"], one["state"], len(one["databases"])) for one in sets] == [
        *(("estate-b1", "Succeeded", 8), ("estate-b2", "Succeeded", 8), ("estate-b3", "Succeeded", 3))
    ]
    assert [name for one in sets for name in one["databases"]] == names
    for earlier, later in zip(sets, sets[1:], strict=False):
        assert earlier["ended"] <= later["started"]
    for name in names:
        assert content(target, name) == content(source, name) == (ROWS, name, name)
    again = play(0)
    assert (again["changed"], again["migration"], again["reached"]) == (False, "estate-b3", True)
    with pytest.raises(Conflict):
        host.manager.plan(spec_factory("estate", names[:-1], mode="offline"))


def test_sets_online(make_names, host: Host, source, target, spec_factory, monkeypatch) -> None:
    """Online each set waits for its cutover before the next begins; killed in the copy of the first and in the stream of the second,
    every database is migrated exactly once, with what was written to it meanwhile."""
    monkeypatch.setattr(manager_module, "MAX_DATABASES", SIZE)
    monkeypatch.setattr(sets_module, "split_batches", functools.partial(split_batches, size=SIZE))
    names = make_names(SIZE + 1)
    spec = spec_factory("estate", names, cutover={"max_latency": 60, "max_pause": 60})
    manager, ended = host.manager, []
    for number, databases in ((1, names[:SIZE]), (2, names[SIZE:])):
        key = manager.start(spec)["key"]
        assert manager.status(key)["name"] == f"estate-b{number}" and manager.begun(spec).databases == tuple(databases)
        if number == 1:
            host.until(key, lambda status: any(one["phase"] != "queued" for one in status["progress"].values()), "a copy at work")
        else:
            host.until_waiting(key)
        host.kill(key)
        assert manager.start(spec)["key"] == key
        host.until_waiting(key)
        assert manager.plan(spec).action == "none", "the next set does not begin before the cutover of this one"
        for name in names:
            source.execute(f"INSERT INTO public.item VALUES ({ROWS + number}, '{name}')", name)
        assert host.cut_over(manager.begun(spec).key)["verification"]["equal"]
        ended.append(manager.status(key)["ended"])
    assert manager.plan(spec).action == "none" and manager.begun(spec).key == key
    sets = list(reversed(manager.list()))
    assert [(one["name"], one["databases"], one["ended"]) for one in sets] == [
        ("estate-b1", names[:SIZE], ended[0]),
        ("estate-b2", names[SIZE:], ended[1]),
    ]
    copied = [(ROWS + 1, name, name) for name in names[:SIZE]] + [(ROWS + 2, name, name) for name in names[SIZE:]]
    assert [content(target, name) for name in names] == copied
