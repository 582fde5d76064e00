# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Server parameters of the source on the target: compared always, set only where that is asked for and allowed."""

from __future__ import annotations

import typing as t
from collections.abc import Iterator

import pytest
import servers as lab
from pair import PASSWORDS, make_source, make_target
from tasks import Outcome, as_checked, run_module

SET = {
    "random_page_cost": "1.1", "statement_timeout": "5min", "autovacuum_naptime": "30s", "search_path": '"$user", "The Shop", public',
    "DateStyle": "German, DMY", "work_mem": "33MB", "max_locks_per_transaction": "100", "superuser_reserved_connections": "4",
    "app.tenant": "x y",
}  # fmt: skip

SHOWN = ("random_page_cost", "statement_timeout", "autovacuum_naptime", "search_path", "DateStyle", "work_mem")


@pytest.fixture(scope="module")
def ends() -> Iterator[tuple[lab.Server, lab.Server]]:
    source, target = make_source(settings=SET), make_target()
    source.execute("ALTER ROLE migrator SET geqo_threshold TO 7; ALTER DATABASE postgres SET enable_sort TO off")
    yield source, target
    source.drop()
    target.drop()


def arguments(source: lab.Server, target: lab.Server, target_options: dict[str, t.Any] | None = None, **more: t.Any) -> dict[str, t.Any]:
    """Options of the module, as a superuser of the target."""
    ends = {
        "source": {"host": source.host, "port": source.port, "user": "migrator", "password": PASSWORDS[source.port]},
        "target": {"host": target.host, "port": target.port, "user": target.superuser, "password": target.superuser_password},
    }
    ends["target"] = {"type": "self_managed", **ends["target"], **(target_options or {})}
    return {**ends, "exclude": ["app", "migrator"], **more}


def values(server: lab.Server) -> dict[str, str]:
    """What a new session has of the parameters that matter here."""
    names = ", ".join(f"'{name}'" for name in SHOWN)
    return dict(server.execute(f"SELECT name, reset_val FROM pg_settings WHERE name IN ({names})"))


def by_name(outcome: Outcome) -> dict[str, dict[str, t.Any]]:
    """The differences that the module returned."""
    return {one["name"]: one for one in outcome.result["parameters"]}


def test_they_are_set_only_where_asked(ends: tuple[lab.Server, lab.Server]) -> None:
    """R40: without the option nothing is copied; with it what a reload brings into force is, as ``--check --diff`` foretold, once."""
    source, target = ends
    before = values(target)
    found = by_name(run_module("pg_migrate_globals", **arguments(source, target)).fine())
    assert values(target) == before
    assert {found[name]["kind"] for name in ("random_page_cost", "search_path", "superuser_reserved_connections")} == {"copy"}
    assert found["work_mem"]["kind"] == found["max_locks_per_transaction"]["kind"] == "size"
    assert found["superuser_reserved_connections"]["restart"] and not found["random_page_cost"]["restart"]
    assert not {"geqo_threshold", "enable_sort"} & set(found), "a setting of our login is none of the server"
    done = as_checked("pg_migrate_globals", **arguments(source, target, apply_parameters=True))
    assert done.changed and done.result["diff"]["before"]["parameters"]["random_page_cost"] == "4"
    now = values(target)
    assert now == {**values(source), "work_mem": before["work_mem"]}
    assert any("superuser_reserved_connections" in text and "restart" in text for text in done.result["left_out"])
    target.execute("ALTER SYSTEM RESET ALL")
    target.execute("SELECT pg_reload_conf()")


@pytest.mark.parametrize(
    ("target_options", "words"),
    [({"type": "azure_flexible"}, "az postgres flexible-server parameter set"), ({"user": "admin"}, "admin may not set it")],
    ids=["provider", "no right"],
)
def test_where_we_may_not_the_command_is_named(ends: tuple[lab.Server, lab.Server], target_options: dict[str, str], words: str) -> None:
    source, target = ends
    before = values(target)
    options = {**target_options, "password": PASSWORDS[target.port]} if "user" in target_options else target_options
    said = run_module("pg_migrate_globals", **arguments(source, target, options, apply_parameters=True)).fine()
    assert any("random_page_cost" in text and words in text for text in said.result["left_out"]), said.result["left_out"]
    assert values(target) == before and not said.changed


def test_what_does_not_come_into_force_is_taken_back(ends: tuple[lab.Server, lab.Server]) -> None:
    source, target = ends
    target.execute("ALTER DATABASE postgres SET random_page_cost TO 3")
    try:
        said = run_module("pg_migrate_globals", **arguments(source, target, apply_parameters=True)).fine()
        assert any("random_page_cost" in text and "sets it otherwise" in text for text in said.result["left_out"])
        files = "SELECT count(*) FROM pg_file_settings WHERE sourcefile ~ 'auto.conf$' AND name = 'random_page_cost'"
        assert target.execute(files) == [(0,)]
        assert values(target)["statement_timeout"] == "300000"
    finally:
        target.execute("ALTER DATABASE postgres RESET ALL")
        target.execute("ALTER SYSTEM RESET ALL")
