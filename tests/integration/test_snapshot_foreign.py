# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A large schema that nobody here has written: what PostgreSQL's own regression tests leave behind.

``PG_MIGRATION_REGRESS`` names a folder ``src/test/regress`` of PostgreSQL's sources (of the source server's major version); without it the
test is skipped. Run as superusers, because the tests make what only those may.
"""

from __future__ import annotations

import os
import re
import subprocess
import typing as t
from pathlib import Path

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.identifiers import SCHEMA
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.target import prepare_target
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from ansible_collections.pgops.migration.plugins.module_utils._engine.verify.compare import verify_database
from copylab import Held, copy
from pair import describe, make_source, make_target

REGRESS = os.environ.get("PG_MIGRATION_REGRESS", "")

DATABASE = "regression"
WITHOUT = ("--no-publications", "--no-subscriptions", "--no-tablespaces")
LEFT_OUT = ("tablespace",)
"""Tests that need folders of their own on the server."""


def load(server: lab.Server, database: str, folder: Path) -> int:
    """Run the tests one after the other, whatever they say (their C functions are not there); how many."""
    program = server.bindir / "psql"
    names = [n for n in re.findall(r"^test: (.*)$", (folder / "parallel_schedule").read_text(), re.M) for n in n.split()]
    environment = {
        **os.environ, "PG_ABS_SRCDIR": str(folder), "PG_LIBDIR": str(folder), "PG_DLSUFFIX": ".so", "PG_ABS_BUILDDIR": str(server.folder),
        "PGPASSWORD": server.superuser_password, "PGTZ": "PST8PDT", "PGDATESTYLE": "Postgres, MDY",
    }  # fmt: skip
    dsn = f"host={server.host} port={server.port} user={server.superuser} dbname={database}"
    for name in names:
        path = folder / "sql" / f"{name}.sql"
        if name not in LEFT_OUT and path.exists():
            with path.open("rb") as script:
                subprocess.run(
                    [program, "-X", "-q", "-d", dsn], stdin=script, capture_output=True, check=False, env=environment, cwd=folder
                )
    return len(names)


def dumped(server: lab.Server, database: str) -> list[str]:
    """What pg_dump says of the schema, without what differs from run to run, in an order of its own."""
    text = server.run("pg_dump", "-s", *WITHOUT, f"--exclude-schema={SCHEMA}", "-d", server.dsn(database)).stdout
    parts = re.split(r"\n--\n-- Name: ", re.sub(r"\\(un)?restrict \w+", "", text))
    return sorted(part.strip() for part in parts[1:])


def roles_of(source: lab.Server, target: lab.Server) -> None:
    """Give the target the source's roles, as the globals would."""
    known = {row[0] for row in target.execute("SELECT rolname FROM pg_roles")}
    for (role,) in source.execute("SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_'"):
        if role not in known:
            target.create_role(role)


@pytest.mark.skipif(not REGRESS, reason="PG_MIGRATION_REGRESS names no folder")
def test_the_database_of_the_regression_tests(tmp_path: Path) -> None:
    """Its rows are equal, and its schema is what pg_dump and psql make of it; what is left out is publications, by name. (Where a child of
    an inheritance tree has its columns in another order than its parent, pg_dump itself cannot keep it.)"""
    source, target = make_source(), make_target()
    try:
        source.create_database(DATABASE, source.superuser)
        load(source, DATABASE, Path(REGRESS))
        ends: dict[str, t.Any] = {
            side: {"user": server.superuser, "password": server.superuser_password}
            for side, server in (("source", source), ("target", target))
        }
        ends["mode"] = "offline"  # online, sequences are ahead until the cutover
        spec = MigrationSpec.from_dict(describe(source, target, "regress", [DATABASE], **ends))
        roles_of(source, target)
        prepare_target(spec, DATABASE)
        notes = copy(spec, DATABASE, tmp_path, Held(source, DATABASE))["notes"]
        assert notes and all(note.startswith("Publication ") for note in notes), notes
        verified = verify_database(spec, DATABASE, schema=False)
        assert verified.equal and len(verified.tables) > 500, verified.summary()
        target.create_database("reference", target.superuser)
        script = tmp_path / "schema.sql"
        script.write_text(source.run("pg_dump", "-s", *WITHOUT, "-d", source.dsn(DATABASE)).stdout, encoding="utf-8")
        with script.open("rb") as schema:
            words = [target.bindir / "psql", "-X", "-q", "-d", target.dsn("reference")]
            subprocess.run(words, stdin=schema, capture_output=True, check=True)
        ours, reference = dumped(target, DATABASE), dumped(target, "reference")
        assert len(ours) > 1500 and ours == reference
    finally:
        source.drop()
        target.drop()
