# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Hundreds of objects of every kind that pg_dump knows and an owner may create: the target's ``pg_dump -s`` says what the source's says.

pg_dump is the judge here, not a query of ours: what neither the copy nor the verification thinks of would be seen all the same.
"""

from __future__ import annotations

import os
import re
import subprocess
import typing as t
from pathlib import Path

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.ledger import Ledger
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.target import prepare_target
from copylab import Held, copy

SCHEMAS = 5
KINDS = (Path(__file__).parent / "snapshot_kinds.sql").read_text(encoding="utf-8")
"""One schema; ``{n}`` is its number."""


def dumped(server: lab.Server, database: str, bindir: Path) -> dict[str, int]:
    """The statements of ``pg_dump -s``, how often each is there: their order follows OIDs where names do not decide."""
    env = {**os.environ, "PGPASSWORD": server.superuser_password}
    command = [str(bindir / "pg_dump"), "-s", "-h", server.host, "-p", str(server.port), "-U", server.superuser, database]
    text = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout
    found: dict[str, int] = {}
    for entry in re.split(r"\n--\n-- (?=Name: )", text)[1:]:
        entry = re.sub(r"^--.*$|^\\.*$|^SET .*$", "", entry, flags=re.MULTILINE).strip()
        found[entry] = found.get(entry, 0) + 1
    return found


def test_pg_dump_sees_no_difference(
    source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Any, members: None, tmp_path: Path, owner: t.Any
) -> None:
    if source.major < 14 or source.execute("SELECT count(*) FROM pg_collation WHERE collprovider = 'i'") == [(0,)]:
        pytest.skip("needs PostgreSQL 14 with ICU")
    with source.connect(source_database, owner.name, owner.password) as conn:
        for number in range(SCHEMAS):
            conn.execute(t.cast(t.Any, KINDS.replace("{n}", str(number))))
    spec = spec_factory("kinds", [source_database])
    prepare_target(spec, source_database)
    copy(spec, source_database, tmp_path, Held(source, source_database))
    with target.connect(source_database) as conn:
        Ledger(conn).drop()
    here, there = (dumped(server, source_database, target.bindir) for server in (source, target))
    assert len(here) > 100 * SCHEMAS, "not much of a schema"
    assert {entry for entry in here if there.get(entry) != here[entry]} == set()
    assert {entry for entry in there if here.get(entry) != there[entry]} == set()
