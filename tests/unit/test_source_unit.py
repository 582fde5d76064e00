# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Which systemd unit the role of the source takes for the server (R23), by where its configuration is; what it advises where a parameter is
set from elsewhere."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pytest
import yaml

ROLE = Path(__file__).resolve().parents[2] / "roles" / "pg_migration_source"
VARS = ROLE / "vars" / "main.yml"


@pytest.mark.parametrize(
    ("conf", "given", "unit"),
    [
        ("/etc/postgresql/15/main/postgresql.conf", "", "postgresql@15-main"),
        ("/etc/postgresql/9.6/shop/postgresql.conf", "", "postgresql@9.6-shop"),
        ("/var/lib/pgsql/16/data/postgresql.conf", "", "postgresql-16"),
        ("/var/lib/pgsql/9.6/data/postgresql.conf", "", "postgresql-9.6"),
        ("/var/lib/pgsql/data/postgresql.conf", "", "postgresql"),
        ("/var/lib/postgresql/data/postgresql.conf", "", "postgresql"),
        ("/srv/postgres/postgresql.conf", "", "postgresql"),
        ("/var/lib/pgsql/16/data/postgresql.conf", "patroni", "patroni"),
    ],
)
def test_the_unit_follows_from_the_packages(conf: str, given: str, unit: str) -> None:
    template = yaml.safe_load(VARS.read_text(encoding="utf-8"))["pg_migration_source_unit"]
    said = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True).from_string(template)
    assert said.render(pg_migration_source_conf=conf, pg_migration_source_service=given).strip() == unit


@pytest.mark.parametrize(
    ("overrides", "advice", "never"),
    [
        ("postgresql.auto.conf", "ALTER SYSTEM RESET wal_level", "patronictl"),
        ("command line", "patronictl edit-config", "ALTER SYSTEM RESET"),
        ("environment variable", "where the server is started from", "ALTER SYSTEM RESET"),
    ],
)
def test_the_advice_fits_what_hides_the_file(overrides: str, advice: str, never: str) -> None:
    tasks = yaml.safe_load((ROLE / "tasks" / "configure.yml").read_text(encoding="utf-8"))
    template = next(task for task in tasks if task["name"] == "Refuse what would be hidden")["ansible.builtin.assert"]["fail_msg"]
    started = yaml.safe_load(VARS.read_text(encoding="utf-8"))["pg_migration_source_started_with"]
    said = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True).from_string(template)
    text = said.render(item={"name": "wal_level", "overrides": overrides}, pg_migration_source_started_with=started)
    assert f"wal_level is set by {overrides}" in text and advice in text and never not in text
