# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Tablespaces by mapping: everything lies where it should, what is not mapped is named, what cannot be followed is refused beforehand."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import SpecificationError
from ansible_collections.pgops.migration.plugins.module_utils._engine.globals.plan import plan_globals
from ansible_collections.pgops.migration.plugins.module_utils._engine.service.prepare import check_ground
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.target import prepare_target
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.runner import validate
from copylab import Held, assert_equal, copy

SCHEMA = """
CREATE TABLE here (id int PRIMARY KEY USING INDEX TABLESPACE fast, note text) TABLESPACE fast;
CREATE INDEX here_note ON here (note) TABLESPACE cold; CREATE INDEX plain ON here (id, note) WHERE id > 3;
CREATE TABLE spans (r int4range, EXCLUDE USING gist (r WITH &&) USING INDEX TABLESPACE fast);
CREATE TABLE parted (id int, day date, PRIMARY KEY (id, day) USING INDEX TABLESPACE fast) PARTITION BY RANGE (day) TABLESPACE fast;
CREATE TABLE parted_a PARTITION OF parted FOR VALUES FROM ('2020-01-01') TO ('2021-01-01') TABLESPACE cold;
CREATE TABLE parted_b PARTITION OF parted DEFAULT;
CREATE MATERIALIZED VIEW seen TABLESPACE fast AS SELECT id FROM here; CREATE UNIQUE INDEX seen_key ON seen (id) TABLESPACE fast;
CREATE TABLE elsewhere (i int) TABLESPACE archive;
INSERT INTO here SELECT i, 'n' || i FROM generate_series(1, 1000) i;
INSERT INTO spans SELECT int4range(i, i + 1) FROM generate_series(1, 50) i;
INSERT INTO parted SELECT i, DATE '2020-06-01' + i FROM generate_series(1, 500) i; REFRESH MATERIALIZED VIEW seen;
"""

PLACES = """
    SELECT c.relname::text, coalesce(s.spcname::text, '') FROM pg_class c LEFT JOIN pg_tablespace s ON s.oid = c.reltablespace
     WHERE c.relnamespace = 'public'::regnamespace ORDER BY 1"""

MAPPING = {"fast": "nvme", "cold": "disk", "whole": "whole_there"}


@pytest.fixture
def spaces(source: lab.Server, target: lab.Server, source_database: str) -> Iterator[None]:
    """Tablespaces of both servers; gone again when nothing lies in them."""
    places: list[Path] = []
    for server, names in ((source, ("fast", "cold", "archive", "whole")), (target, ("nvme", "disk", "whole_there"))):
        for name in names:
            place = server.folder / name
            place.mkdir()
            shutil.chown(place, "postgres", "postgres")
            server.execute(f"CREATE TABLESPACE {name} LOCATION '{place}'")
            server.execute(f"GRANT CREATE ON TABLESPACE {name} TO PUBLIC")
            places.append(place)
    yield
    for server in (source, target):
        server.execute(f"DROP DATABASE IF EXISTS {source_database} WITH (FORCE)")
        for (name,) in server.execute("SELECT spcname FROM pg_tablespace WHERE spcname !~ '^pg_'"):
            server.execute(f"DROP TABLESPACE {name}")
    for place in places:
        shutil.rmtree(place)


@pytest.mark.usefixtures("spaces")
def test_everything_lies_where_it_is_mapped_to(source, target, owner, source_database, spec_factory, members, tmp_path) -> None:
    source.execute(f"ALTER DATABASE {source_database} SET TABLESPACE whole")
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute(SCHEMA)
    spec = spec_factory("spaces", [source_database], globals={"tablespaces": MAPPING})
    prepare_target(spec, source_database)
    result = copy(spec, source_database, tmp_path, Held(source, source_database))
    ours, theirs = (dict(server.execute(PLACES, source_database)) for server in (source, target))
    assert theirs == {name: MAPPING.get(place, "") for name, place in ours.items()}
    assert set(theirs.values()) == {"nvme", "disk", ""}
    where = f"SELECT spcname FROM pg_database d JOIN pg_tablespace t ON t.oid = dattablespace WHERE datname = '{source_database}'"
    assert target.execute(where) == [("whole_there",)]
    assert [note for note in result["notes"] if "ablespace" in note] == [
        "Tablespace archive was left out: public.elsewhere are in the target's default tablespace."
    ]
    assert_equal(source, target, source_database)
    named = [s.name for s in plan_globals(spec.source, spec.target, tablespaces=MAPPING).skipped if s.kind == "tablespace"]
    assert named == ["archive"]


@pytest.mark.usefixtures("spaces")
def test_what_cannot_be_followed_is_refused_beforehand(source, target, source_database, spec_factory) -> None:
    target.execute("REVOKE CREATE ON TABLESPACE disk FROM PUBLIC")
    spec = spec_factory("spaces", [source_database], globals={"tablespaces": {**MAPPING, "archive": "nowhere"}})
    with pytest.raises(SpecificationError) as caught:
        check_ground(spec)
    assert caught.value.code == "PGM3019" and "admin may create nothing in disk; nowhere is not there" in caught.value.message
    found = [f for f in validate(spec, only=["PGM2021"]).findings if f.severity == "Failed"]
    assert "nowhere is not there" in found[0].message
    target.execute("GRANT CREATE ON TABLESPACE disk TO PUBLIC")
    fine = spec_factory("spaces", [source_database], globals={"tablespaces": MAPPING})
    check_ground(fine)
    assert not [f for f in validate(fine, only=["PGM2021"]).findings if f.severity == "Failed"]
