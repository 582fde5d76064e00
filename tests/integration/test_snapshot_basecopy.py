# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The base copy against real servers: a schema with one of everything, target administrator without superuser rights."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import Conflict, CopyError
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.ledger import Ledger
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.finish import refresh_matviews
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.largeobjects import sync_large_objects
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.target import prepare_target
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.tools import connection_string, environment, password_file
from copylab import Held, assert_equal, copy

RICH = (Path(__file__).parent / "snapshot_rich.sql").read_text(encoding="utf-8")


def test_rich_schema(
    source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Any, members: None, tmp_path: Path, owner: t.Any
) -> None:
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute(t.cast(t.Any, RICH))
    spec = spec_factory("rich", [source_database], mode="offline")  # online, sequences are ahead until the cutover
    held = Held(source, source_database)
    prepare_target(spec, source_database)
    source.execute("INSERT INTO shop.customer (name) VALUES ('after the snapshot')", source_database)
    result = copy(spec, source_database, tmp_path, held)
    assert held.closed == 1
    source.execute("DELETE FROM shop.customer WHERE name = 'after the snapshot'", source_database)
    assert_equal(source, target, source_database)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")], "password or script files are left"
    formats = {item["table"]: item["format"] for item in result["tables"]}
    assert formats["shop.customer"] == "binary" and formats["shop.odd"] == "text"
    notes = " ".join(result["notes"])
    assert "ublication" in notes
    last: dict[str, t.Any] = {}
    for report in result["reports"]:
        last.update(report)
    assert (
        last["step"] == "done"
        and last["tables_complete"] > 0
        and last["tables_queued"] == last["tables_loading"] == last["tables_errored"] == 0
    )
    assert (
        last["indexes_done"] == last["indexes_total"] > 0
        and last["bytes_done"] == last["bytes_total"]
        and last["chunks_done"] == last["chunks_total"]
    )
    assert target.execute("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()", source_database) == [
        ("app",)
    ]


def test_existing_database_is_not_touched(source: lab.Server, target: lab.Server, target_database: str, spec_factory: t.Any) -> None:
    target.execute("CREATE TABLE precious ()", target_database)
    with pytest.raises(Conflict) as caught:
        prepare_target(spec_factory("conflict", [target_database]), target_database)
    assert caught.value.code == "PGM3001" and caught.value.details["azure_code"] == "603101"
    with target.connect(target_database) as conn:
        Ledger(conn).create("somebody-else")
    with pytest.raises(Conflict, match="another user|somebody-else"):
        prepare_target(spec_factory("conflict", [target_database]), target_database)
    assert target.execute("SELECT to_regclass('public.precious')::text", target_database) == [("precious",)]


def test_half_made_database_is_made_anew(source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Any) -> None:
    spec = spec_factory("half", [source_database])
    prepare_target(spec, source_database)
    target.execute("CREATE TABLE left_over ()", source_database)
    prepare_target(spec, source_database)
    assert target.execute("SELECT to_regclass('public.left_over')::text", source_database) == [(None,)]
    with target.connect(source_database) as conn:
        assert Ledger(conn).owner() == spec.key


def test_row_security_that_hides_rows_is_refused(
    source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Any, members: None, tmp_path: Path, owner: t.Any
) -> None:
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute(
            "CREATE TABLE hidden (id int); INSERT INTO hidden VALUES (1); ALTER TABLE hidden ENABLE ROW LEVEL"
            " SECURITY, FORCE ROW LEVEL SECURITY"
        )
    spec = spec_factory("rls", [source_database])
    prepare_target(spec, source_database)
    with pytest.raises(CopyError) as caught:
        copy(spec, source_database, tmp_path, Held(source, source_database))
    assert caught.value.code == "PGM3011" and "hidden" in str(caught.value) and caught.value.sqlstate == "42501"


def test_missing_role_is_named_before_anything_is_made(
    source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Any, tmp_path: Path, members: None
) -> None:
    source.create_role("only_here")
    try:
        source.execute("CREATE TABLE given (id int); GRANT SELECT ON given TO only_here", source_database)
        spec = spec_factory("missing-role", [source_database])
        prepare_target(spec, source_database)
        with pytest.raises(CopyError, match="only_here") as caught:
            copy(spec, source_database, tmp_path, Held(source, source_database))
        assert caught.value.code == "PGM3005"
    finally:
        source.execute("DROP OWNED BY only_here", source_database)
        source.execute("DROP ROLE only_here")


def test_objects_of_the_superuser_go_to_the_administrator(
    source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Any, tmp_path: Path, members: None
) -> None:
    source.execute("CREATE TABLE given (id int PRIMARY KEY); INSERT INTO given VALUES (1); GRANT SELECT ON given TO app", source_database)
    spec = spec_factory("superuser", [source_database])
    prepare_target(spec, source_database)
    result = copy(spec, source_database, tmp_path, Held(source, source_database))
    assert target.execute(
        "SELECT relowner::regrole::text, has_table_privilege('app', oid, 'SELECT') FROM pg_class WHERE relname = 'given'", source_database
    ) == [("admin", True)]
    assert any("postgres" in note for note in result["notes"])


def test_large_objects_and_views_at_the_cutover(
    source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Any, members: None, tmp_path: Path, owner: t.Any
) -> None:
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute("SELECT lo_from_bytea(1001, 'same'), lo_from_bytea(1002, 'old'), lo_from_bytea(1003, 'goes')")
        conn.execute("CREATE TABLE numbers (n int PRIMARY KEY); CREATE MATERIALIZED VIEW total AS SELECT sum(n) FROM numbers")
    spec = spec_factory("objects", [source_database])
    prepare_target(spec, source_database)
    copy(spec, source_database, tmp_path, Held(source, source_database))
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute("SELECT lo_put(1002, 0, 'new and longer'), lo_unlink(1003), lo_from_bytea(1004, 'fresh')")
        conn.execute("COMMENT ON LARGE OBJECT 1001 IS 'said later'")
        conn.execute("INSERT INTO numbers VALUES (42); REFRESH MATERIALIZED VIEW total")
    target.execute("INSERT INTO numbers VALUES (42)", source_database)
    ends = (source, "migrator"), (target, "admin")
    passwords = {"migrator": spec.source.password, "admin": spec.target.password}
    here, there = (server.connect(source_database, user, passwords[user]) for server, user in ends)
    with here, there:
        assert sync_large_objects(here, there) == 4
        assert sync_large_objects(here, there) == 0
        assert refresh_matviews(there) == 1
    assert_equal(source, target, source_database)


def test_wrong_tools(
    source: lab.Server, target: lab.Server, source_database: str, spec_factory: t.Any, tmp_path: Path, members: None
) -> None:
    spec = spec_factory("tools", [source_database], copy={"bindir": str(tmp_path)})
    prepare_target(spec, source_database)
    with pytest.raises(CopyError) as caught:
        copy(spec, source_database, tmp_path, Held(source, source_database))
    assert caught.value.code == "PGM3002"


def test_password_is_in_no_command_line(spec_factory: t.Any, source_database: str, tmp_path: Path) -> None:
    spec = spec_factory("argv", [source_database])
    with password_file(spec.source, tmp_path) as passfile:
        assert passfile.stat().st_mode & 0o777 == 0o600
        assert spec.source.password in passfile.read_text()
        assert spec.source.password not in connection_string(spec.source, source_database, passfile)
    assert not passfile.exists()
    assert not [k for k in environment() if k.startswith("PG")]
