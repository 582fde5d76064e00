# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Rows in tables of extensions: counted as the extension marks them, told with a command that brings them, and it does.

No extension of PostgreSQL's own marks a table, so the mark that ``pg_extension_config_dump`` makes in an extension's script is made here.
"""

from __future__ import annotations

import os
import subprocess
import typing as t

import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from faults import look
from pair import PASSWORDS

Factory = t.Callable[..., MigrationSpec]

EXTENSION = """
CREATE EXTENSION hstore; CREATE SCHEMA cron; CREATE TABLE cron."job ü" (id int PRIMARY KEY, command text);
CREATE TABLE cron.plain (i int); CREATE TABLE cron.reference (srid int); CREATE SEQUENCE cron.jobid_seq;
INSERT INTO cron.reference SELECT generate_series(1, 100);
ALTER EXTENSION hstore ADD SCHEMA cron; ALTER EXTENSION hstore ADD TABLE cron."job ü"; ALTER EXTENSION hstore ADD TABLE cron.plain;
ALTER EXTENSION hstore ADD TABLE cron.reference; ALTER EXTENSION hstore ADD SEQUENCE cron.jobid_seq
"""
MARK = """
UPDATE pg_extension SET extcondition = ARRAY['', 'WHERE srid > 100', ''],
       extconfig = ARRAY['cron."job ü"', 'cron.reference', 'cron.jobid_seq']::regclass[]::oid[] WHERE extname = 'hstore'
"""


def test_rows_of_users_in_tables_of_extensions(
    source: lab.Server, target: lab.Server, source_database: str, target_database: str, spec_factory: Factory
) -> None:
    for server in (source, target):
        server.execute(EXTENSION, source_database)
        server.execute(MARK, source_database)
        server.execute("GRANT USAGE ON SCHEMA cron TO PUBLIC; GRANT ALL ON ALL TABLES IN SCHEMA cron TO PUBLIC", source_database)
        server.execute("GRANT ALL ON cron.jobid_seq TO PUBLIC", source_database)
    spec = spec_factory("shop-1", [source_database])
    assert look(spec, "PGM2409") == [], "rows of the extension itself count for nothing"
    source.execute(
        """INSERT INTO cron."job ü" VALUES (1, 'VACUUM'), (2, 'ANALYZE'); INSERT INTO cron.plain VALUES (1);
           INSERT INTO cron.reference VALUES (7000); SELECT nextval('cron.jobid_seq')""",
        source_database,
    )
    found = look(spec, "PGM2409")
    assert [f.severity for f in found] == ["Warning"] and found[0].data is not None
    assert {one["name"]: one["rows"] for one in found[0].data} == {"job ü": 2, "reference": 1, "jobid_seq": 1}
    assert "cron.job ü of hstore (2 row(s))" in found[0].message and "plain" not in found[0].message
    command = found[0].fix.partition("these tables: ")[2].replace("pg_dump", str(source.bindir / "pg_dump"), 1)
    left, dummy, right = command.partition("| psql")
    words = f"PGPASSWORD={PASSWORDS[source.port]} {left}| PGPASSWORD={PASSWORDS[target.port]} {source.bindir / 'psql'}{right}"
    subprocess.run(["bash", "-c", f"set -o pipefail; {words}"], check=True, capture_output=True, env={**os.environ, "PGSSLMODE": "disable"})
    assert target.execute('SELECT id, command FROM cron."job ü" ORDER BY 1', source_database) == [(1, "VACUUM"), (2, "ANALYZE")]
    assert target.execute("SELECT count(*), max(srid) FROM cron.reference", source_database) == [(101, 7000)]
    assert target.execute("SELECT is_called FROM cron.jobid_seq", source_database) == [(True,)]
    assert look(spec_factory("shop-1", [source_database], copy={"exclude": ["cron"]}), "PGM2409") == [], "left out as asked"


def test_a_table_that_cannot_be_counted(source: lab.Server, source_database: str, spec_factory: Factory) -> None:
    source.execute(EXTENSION, source_database)
    source.execute(MARK, source_database)
    source.execute("REVOKE pg_read_all_data FROM migrator")
    try:
        found = look(spec_factory("shop-1", [source_database]), "PGM2409", "could not be counted")
    finally:
        source.execute("GRANT pg_read_all_data TO migrator")
    assert [f.severity for f in found] == ["Warning"] and 'GRANT SELECT ON "cron"."job ü" TO "migrator"' in found[0].fix
