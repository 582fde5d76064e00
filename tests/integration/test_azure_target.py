# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A target that behaves like Azure's: nothing that needs a superuser is asked of it, from the validation to the cutover."""

from __future__ import annotations

import typing as t
from pathlib import Path

import psycopg
import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.runner import validate
from host import Host, run_whole
from pair import PASSWORDS, describe, make_azure_target
from rows import differences

SHOP = """
CREATE EXTENSION hstore; CREATE ROLE clerk_{n} LOGIN PASSWORD 'x'; CREATE ROLE boss_{n} SUPERUSER LOGIN PASSWORD 'x';
CREATE TABLE customer (id int PRIMARY KEY, name text, more hstore);
CREATE TABLE bill (id int PRIMARY KEY, customer int REFERENCES customer, at timestamptz DEFAULT now());
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.name = upper(NEW.name); RETURN NEW; END';
INSERT INTO customer SELECT i, 'name ' || i, 'a=>1' FROM generate_series(1, 300) i;
INSERT INTO bill (id, customer) SELECT i, i FROM generate_series(1, 300) i;
CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON customer FOR EACH ROW EXECUTE FUNCTION stamp();
ALTER TABLE customer OWNER TO app; ALTER TABLE bill OWNER TO app; GRANT SELECT ON bill TO clerk_{n};
"""


@pytest.fixture(scope="module", params=[True, False], ids=["replica role granted", "replica role refused"])
def azure(request: pytest.FixtureRequest) -> t.Iterator[lab.Server]:
    """Azure, with and without the right to set session_replication_role."""
    server = make_azure_target(replica_role=request.param)
    yield server
    server.drop()


def allow(server: lab.Server, extensions: str) -> None:
    """Set ``azure.extensions`` as the portal does."""
    server.configure({"azure.extensions": extensions})
    server.reload()


def test_superusers_are_refused(azure: lab.Server) -> None:
    """The stand-in refuses what Azure refuses, or the tests below would prove nothing."""
    with psycopg.connect(azure.dsn("postgres", "admin", PASSWORDS[azure.port]), autocommit=True) as conn:
        for statement in (
            "CREATE ROLE x SUPERUSER",
            "ALTER SYSTEM SET work_mem = '1MB'",
            "CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION f()",
            "CREATE TABLESPACE s LOCATION '/tmp'",
            "SELECT rolpassword FROM pg_authid",
        ):
            with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedFunction)):
                conn.execute(t.cast(t.Any, statement))


def test_from_the_validation_to_the_cutover(azure: lab.Server, source: lab.Server, source_database: str, tmp_path: Path) -> None:
    """R2: the finding gives the value for ``azure.extensions``; with it the whole migration works as the administrator, and is equal."""
    number = source_database[2:]
    source.execute(SHOP.format(n=number), source_database)
    query = "SELECT has_parameter_privilege('admin', 'session_replication_role', 'SET')"
    granted = azure.major >= 15 and azure.execute(query)[0][0]
    spec = MigrationSpec.from_dict(describe(source, azure, "to-azure", [source_database], target={"type": "azure_flexible"}))
    allow(azure, "citext")
    found = {f.code: f for f in validate(spec).problems()}
    assert found["PGM2402"].severity == "Failed" and found["PGM2402"].data["value"] == "citext,hstore"
    assert ("PGM2213" in found) == (not granted) and (granted or found["PGM2213"].severity == "Warning")
    allow(azure, found["PGM2402"].data["value"])
    report = validate(spec)
    assert report.passed, report.table()
    host = Host(tmp_path)
    try:
        definitions = run_whole(host, spec)["verification"]["databases"][source_database]["schema"]
        # foreign keys that had to go come back unchecked at the cutover, and are validated after the proof
        assert [one for one in definitions if "NOT VALID" not in (one["target"] or "")] == []
        with source.connect(source_database) as left, azure.connect(source_database) as right:
            assert differences(left, right) == {}
        rows = azure.execute(f"SELECT rolname, rolsuper FROM pg_roles WHERE rolname LIKE '%{number}' ORDER BY 1")
        assert rows == [(f"clerk_{number}", False)]
        grants = azure.execute("SELECT grantee FROM information_schema.role_table_grants WHERE table_name = 'bill'", source_database)
        assert (f"clerk_{number}",) in grants
    finally:
        host.close()
        source.execute(f"DROP OWNED BY clerk_{number}", source_database)
        source.execute(f"DROP ROLE clerk_{number}, boss_{number}")
