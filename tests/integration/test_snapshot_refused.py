# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What a managed target refuses is left out of the copy, and told: each thing, once, by its name."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.target import prepare_target
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from copylab import Held, copy
from pair import describe, make_azure_target

REFUSED = """
CREATE EXTENSION hstore; COMMENT ON EXTENSION hstore IS 'ours';
CREATE TABLE bill (id int PRIMARY KEY, more hstore); INSERT INTO bill SELECT i, 'a=>1' FROM generate_series(1, 20) i;
CREATE TABLE "far away" (id int PRIMARY KEY) TABLESPACE {space}; INSERT INTO "far away" VALUES (1);
CREATE INDEX "far index" ON bill (more) TABLESPACE {space};
CREATE FUNCTION stop_it() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER "on ddl" ON ddl_command_end EXECUTE FUNCTION stop_it(); COMMENT ON EVENT TRIGGER "on ddl" IS 'goes too';
CREATE PUBLICATION feed FOR TABLE bill; COMMENT ON PUBLICATION feed IS 'goes too';
CREATE PUBLICATION "every one" FOR ALL TABLES;
CREATE SUBSCRIPTION other CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false, slot_name = NONE);
COMMENT ON SUBSCRIPTION other IS 'goes too';
ALTER TABLE bill OWNER TO app; ALTER TABLE "far away" OWNER TO app;
"""


@pytest.fixture
def azure() -> t.Iterator[lab.Server]:
    """A target whose administrator is no superuser."""
    server = make_azure_target(extensions="hstore")
    server.create_role("app")
    server.execute("GRANT app TO admin")
    yield server
    server.drop()


@pytest.fixture
def space(source: lab.Server) -> t.Iterator[str]:
    """A tablespace on the source."""
    place = lab.run_folder() / "other place"
    place.mkdir()
    lab.hand_over(place)
    source.execute(f"CREATE TABLESPACE other_place LOCATION '{place}'")
    yield "other_place"
    for (name,) in source.execute("SELECT datname FROM pg_database WHERE datname LIKE 'db%'"):
        source.drop_database(name)
    source.execute("DROP TABLESPACE other_place")


def test_what_a_managed_target_refuses_is_left_out_by_name(
    azure: lab.Server, source: lab.Server, source_database: str, space: str, tmp_path: Path
) -> None:
    for statement in REFUSED.format(space=space).split(";\n"):
        source.execute(statement, source_database)
    spec = MigrationSpec.from_dict(describe(source, azure, "refused", [source_database], target={"type": "azure_flexible"}))
    prepare_target(spec, source_database)
    notes = copy(spec, source_database, tmp_path, Held(source, source_database))["notes"]
    for name in (
        "comment on extension hstore",
        "Event trigger on ddl",
        "Publication feed",
        "Publication every one",
        "Subscription other",
        "Tablespace other_place",
    ):
        assert sum(name in note and "left out" in note for note in notes) == 1, (name, notes)
    moved = next(note for note in notes if "Tablespace" in note)
    assert "public.far away" in moved and "public.far index" in moved
    kept = 'SELECT count(*) FROM bill UNION ALL SELECT count(*) FROM "far away"'
    assert azure.execute(kept, source_database) == [(20,), (1,)]
    left = (
        "SELECT count(*) FROM pg_event_trigger UNION ALL SELECT count(*) FROM pg_publication UNION ALL"
        " SELECT count(*) FROM pg_class WHERE reltablespace <> 0 AND oid >= 16384"
    )
    assert azure.execute(left, source_database) == [(0,), (0,), (0,)]
