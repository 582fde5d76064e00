# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Many small databases over two runtime hosts that work at once, as docs/scaling.md has it."""

from __future__ import annotations

import os
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import servers as lab
from host import end_services
from pair import OWNER, describe, make_source, make_target
from plays import Playbooks

COUNT = int(os.environ.get("PG_MIGRATION_ESTATE", "24"))
"""How many databases; 200 are the proof."""

TABLES = 5
ROWS = 1000


@pytest.fixture
def estate() -> t.Iterator[tuple[lab.Server, lab.Server, list[str]]]:
    """Two servers, and the databases: copies of one template, each with rows of its own."""
    source, target = make_source(), make_target()
    source.create_database("template_shop", OWNER)
    with source.connect("template_shop") as conn:
        for number in range(TABLES):
            conn.execute(f"CREATE TABLE public.item{number} (id int PRIMARY KEY, home name, v text)")
            conn.execute(f"INSERT INTO public.item{number} SELECT i, '', md5(i::text) FROM generate_series(1, {ROWS}) i")
            conn.execute(f"CREATE INDEX ON public.item{number} (v); ALTER TABLE public.item{number} OWNER TO {OWNER}")
    names = [f"shop{number:03}" for number in range(COUNT)]
    for name in names:
        source.create_database(name, OWNER, "TEMPLATE template_shop")
        source.execute("UPDATE public.item0 SET home = current_database()", name)
    yield source, target, names
    source.drop()
    target.drop()


def content(server: lab.Server, database: str) -> list[tuple[t.Any, ...]]:
    """What the tables of a database hold."""
    parts = (f"SELECT md5(string_agg(i::text, ',' ORDER BY id)), count(*) FROM public.item{number} i" for number in range(TABLES))
    return server.execute(" UNION ALL ".join(parts), database)


def test_two_hosts_share_an_estate(estate: tuple[lab.Server, lab.Server, list[str]], tmp_path: Path) -> None:
    """Each host migrates its half, in sets of eight; together they bring every database exactly once."""
    source, target, names = estate
    halves = {"east": names[::2], "west": names[1::2]}
    for name in halves:
        (tmp_path / name).mkdir()
    hosts = [Playbooks(tmp_path / name, describe(source, target, name, half, mode="offline")) for name, half in halves.items()]
    began = time.monotonic()
    try:
        with ThreadPoolExecutor() as pool:
            for played in pool.map(lambda one: one.play("migrate", timeout=max(1800, 30 * COUNT)), hosts):
                played.fine()
    finally:
        for one in hosts:
            end_services(one.home)
    print(f"{COUNT} databases over two runtime hosts: {time.monotonic() - began:.0f} s")
    for name in names:
        assert content(target, name) == content(source, name)
