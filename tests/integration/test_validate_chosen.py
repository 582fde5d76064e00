# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What is chosen of a database: patterns that cannot be followed, and tables that are copied as text."""

from __future__ import annotations

import typing as t

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.runner import validate
from faults import look

SCHEMA = """
CREATE SCHEMA sales; CREATE SCHEMA audit; CREATE SCHEMA kinds; CREATE TYPE kinds.colour AS ENUM ('red');
CREATE TABLE sales.customer (id int PRIMARY KEY, name text); CREATE TABLE audit.log (id int PRIMARY KEY);
CREATE VIEW sales.logged AS SELECT c.name FROM sales.customer c JOIN audit.log l ON l.id = c.id
"""


@pytest.fixture
def shop(source: lab.Server, source_database: str) -> str:
    """The database with :data:`SCHEMA`."""
    source.execute(SCHEMA, source_database)
    return source_database


def test_what_the_base_copy_would_refuse(source: lab.Server, shop: str, spec_factory: t.Any) -> None:
    """What the base copy would refuse is a finding, and what it leaves out besides is told."""
    source.execute("ALTER TABLE sales.customer ADD COLUMN colour kinds.colour", shop)
    found = look(spec_factory("needs", [shop], copy={"schemas": ["sales", "audit"]}), "PGM2319")
    assert [f.severity for f in found] == ["Failed"] and "PGM3015" in found[0].message and "sales.customer" in found[0].message
    found = look(spec_factory("nothing", [shop], copy={"schemas": ["salse"]}), "PGM2319")
    assert [f.severity for f in found] == ["Failed"] and "PGM3016" in found[0].message
    report = validate(spec_factory("some", [shop], copy={"exclude": ["audit"]}), only=["PGM2319"])
    said = next(f for f in report.findings if f.code == "PGM2319")
    assert said.severity == "Succeeded" and "view sales.logged" in said.message


def test_rights_on_what_no_pattern_chooses(source: lab.Server, shop: str, spec_factory: t.Any) -> None:
    """A schema of which no table is chosen need not be open; one whose sequence comes along must."""
    source.execute("REVOKE pg_read_all_data FROM migrator; GRANT USAGE ON SCHEMA sales TO migrator", shop)
    source.execute("GRANT SELECT ON sales.customer TO migrator", shop)
    try:
        assert look(spec_factory("all", [shop]), "PGM2203", "schemas without USAGE: audit")
        one = spec_factory("one", [shop], copy={"tables": ["sales.customer"]})
        assert look(one, "PGM2203") == []
        source.execute("CREATE SEQUENCE audit.numbers", shop)
        assert look(one, "PGM2203", "schemas without USAGE: audit; .*audit.numbers")
    finally:
        source.execute("GRANT pg_read_all_data TO migrator")


def test_tables_that_go_as_text_are_told(source: lab.Server, shop: str, spec_factory: t.Any) -> None:
    source.execute("CREATE EXTENSION citext; CREATE TABLE sales.odd (i int PRIMARY KEY, c citext, o regclass, t text)", shop)

    def said(**copy: t.Any) -> t.Any:
        report = validate(spec_factory("text", [shop], copy=copy), only=["PGM2320"])
        return next(f for f in report.findings if f.code == "PGM2320")

    assert said().severity == "Succeeded" and said().data == {"sales.odd": ["public.citext", "regclass"]}
    assert "sales.odd (public.citext, regclass)" in said().message and said(exclude=["sales.odd"]).data is None
    assert said(format="text").message.startswith("text for all tables")
