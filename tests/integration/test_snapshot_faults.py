# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What happens to a base copy on the target: duplicates, a full disk, lost sessions, a restart."""

from __future__ import annotations

import subprocess
import threading
import time
import typing as t
from pathlib import Path

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import ConnectionFailed, CopyError
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.ledger import Ledger
from ansible_collections.pgops.migration.plugins.module_utils._engine.service.children import PASSING
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot import basecopy
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.target import prepare_target
from copylab import Held, assert_equal, chunked, copy, fill, ledger, secrets
from proxies import Swallower

REPAIRS = {
    "small": "INSERT INTO small SELECT generate_series(1, 10)",
    "big": "INSERT INTO big SELECT i, i % 7, repeat('x', 200) FROM generate_series(1, 8000) i",
}
"""What brings back the rows of :func:`copylab.fill`: of a table that is copied whole, and of one in many chunks with its own indexes."""


@pytest.mark.parametrize("table", REPAIRS)
def test_index_on_duplicates_fails_clearly_and_resumes(
    table: str,
    source: lab.Server,
    target: lab.Server,
    source_database: str,
    spec_factory: t.Any,
    members: None,
    tmp_path: Path,
    owner: t.Any,
) -> None:
    """As after a change of collation: the target refuses what the source's index let in. No index is left half-made, no row is copied
    again."""
    fill(source, source_database, owner)
    spec = chunked(spec_factory, source_database, "duplicate")
    prepare_target(spec, source_database)
    held = Held(source, source_database)
    with pytest.MonkeyPatch.context() as patch:
        original = basecopy.SchemaCopy.apply_pre_data

        def doubled(self: t.Any) -> None:
            original(self)
            target.execute("CREATE FUNCTION twice() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.id := 1; RETURN NEW; END $$;"
                           " CREATE TRIGGER twice BEFORE INSERT ON big FOR EACH ROW EXECUTE FUNCTION twice();"
                           " ALTER TABLE big ENABLE ALWAYS TRIGGER twice".replace("big", table), source_database)  # fmt: skip

        patch.setattr(basecopy.SchemaCopy, "apply_pre_data", doubled)
        with pytest.raises(CopyError) as caught:
            copy(spec, source_database, tmp_path, held)
    assert caught.value.sqlstate == "23505" and f"public.{table}" in str(caught.value)
    broken = "SELECT count(*), (SELECT count(*) FROM pg_index WHERE indisprimary AND indrelid = %s) FROM pg_index WHERE NOT indisvalid"
    with target.connect(source_database) as conn:
        oid = conn.execute("SELECT to_regclass(%s)::oid", [table]).fetchone()
        assert conn.execute(t.cast(t.Any, broken), oid).fetchone() == (0, 0)
    target.execute(f"DROP FUNCTION twice CASCADE; DELETE FROM {table}; {REPAIRS[table]}", source_database)
    result = copy(spec, source_database, tmp_path, Held(source, source_database))
    assert table not in {done["table"].partition(".")[2] for done in result["tables"]}
    assert_equal(source, target, source_database)


BIG = """CREATE TABLE wide (id int PRIMARY KEY, filler text); ALTER TABLE wide ALTER COLUMN filler SET STORAGE EXTERNAL;
    INSERT INTO wide SELECT i, repeat(md5(i::text), 40) FROM generate_series(1, %s) i; CREATE INDEX ON wide (md5(filler))"""


@pytest.fixture
def full_disk(target: lab.Server, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Path]:
    """A file system of 24 MB with a tablespace that is the target's default."""
    folder = lab.run_folder() / "small-disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(folder)], capture_output=True, check=False).returncode:
        folder.rmdir()
        pytest.skip("a small file system cannot be mounted here")
    try:
        place = folder / "space"
        place.mkdir()
        lab.hand_over(place)
        target.execute(f"CREATE TABLESPACE small_disk LOCATION '{place}'")
        target.execute("GRANT CREATE ON TABLESPACE small_disk TO PUBLIC")
        target.execute("ALTER ROLE admin SET default_tablespace = small_disk")
        yield folder
    finally:
        target.execute("ALTER ROLE admin RESET default_tablespace")
        for (name,) in target.execute("SELECT datname FROM pg_database WHERE datname LIKE 'db%'"):
            target.drop_database(name)
        target.execute("DROP TABLESPACE IF EXISTS small_disk")
        subprocess.run(["umount", "-l", str(folder)], check=False)


def test_full_target_says_so_and_resumes(source, target, source_database, spec_factory, members, tmp_path, owner, full_disk) -> None:
    """PGM3010 with SQLSTATE 53100 and what to do; no row of a broken chunk is visible; after the disk has room the copy goes on."""
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute((BIG % 20000).encode())
    spec = chunked(spec_factory, source_database, "full")
    prepare_target(spec, source_database)
    held = Held(source, source_database)
    with pytest.raises(CopyError) as caught:
        copy(spec, source_database, tmp_path, held)
    assert caught.value.sqlstate == "53100" and "disk is full" in caught.value.hint, caught.value.to_dict()
    assert "wide" in str(caught.value) and held.closed == 0
    with target.connect(source_database) as conn:
        marked = sum(chunk.rows for chunk in Ledger(conn).chunks())
        assert conn.execute("SELECT count(*) FROM wide").fetchone() == (marked,), "rows without their mark are visible"
    assert 0 < marked < 20000
    subprocess.run(["mount", "-o", "remount,size=300m", str(full_disk)], check=True)
    result = copy(spec, source_database, tmp_path, held)
    assert sum(table["rows"] for table in result["tables"]) == 20000 - marked, "what was copied was copied again"
    assert_equal(source, target, source_database)


@pytest.mark.parametrize("how", ["sessions", "restart"])
def test_lost_target_in_the_copy(how, source, source_database, spec_factory, members, tmp_path, owner) -> None:
    """Sessions that end and a server that restarts are waited for; the end is equal."""
    from pair import PASSWORDS, make_target

    fill(source, source_database, owner)
    own = make_target()
    over = threading.Event()
    try:
        for role in ("app", "Sales Team", "reader"):
            own.create_role(role)
        own.execute('GRANT app, "Sales Team", reader TO admin')
        base = chunked(spec_factory, source_database, "lost-target")
        ends = secrets(base)
        ends["target"].update(port=own.port, password=PASSWORDS[own.port])
        spec = type(base).from_dict({**base.public(), **ends, "copy": {**base.public()["copy"], "throttle": 1 << 20}})
        prepare_target(spec, source_database)
        struck = threading.Event()

        def strike() -> None:
            if how == "restart":
                own.restart()
                over.wait()  # a server of these tests ends with the thread that started it
            else:
                own.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%relay%'")

        def watch(figures: dict[str, t.Any]) -> None:
            if figures.get("rows_done", 0) > 0 and not struck.is_set():
                struck.set()
                threading.Thread(target=strike, daemon=True).start()

        held = Held(source, source_database)
        first = held.consistent_point
        limit = time.monotonic() + 120
        while True:  # as the service does: the worker is started again and takes the snapshot up
            try:
                result = copy(spec, source_database, tmp_path, held, report=watch)
                break
            except ConnectionFailed as exc:
                assert how == "restart" and exc.details["reason"] in PASSING and time.monotonic() < limit
                if held.closed:  # all rows were there; what is left needs any snapshot
                    held = Held(source, source_database)
                time.sleep(0.5)
        assert struck.is_set() and not result["stopped"]
        assert {lsn for lsns in ledger(own, source_database).values() for lsn in lsns} == {first}
        assert_equal(source, own, source_database)
    finally:
        over.set()
        own.drop()


def test_commit_that_is_not_answered(source, target, source_database, spec_factory, members, tmp_path, owner) -> None:
    """The target has committed and the relay does not know: what is marked is done, in a table of many chunks as in a small one, and not
    copied again."""
    fill(source, source_database, owner)
    proxy = Swallower(target.host, target.port, "COMMIT", " relay")
    base = chunked(spec_factory, source_database, "unanswered", chunk_bytes=512 << 10)
    ends = secrets(base)
    ends["target"]["port"] = proxy.port
    spec = type(base).from_dict({**base.public(), **ends})
    prepare_target(spec, source_database)
    result = copy(spec, source_database, tmp_path, Held(source, source_database))
    chunks = {table["table"]: table["chunks"] for table in result["tables"]}
    assert chunks["public.big"] > 1 and chunks["public.small"] == 1
    assert proxy.swallowed >= sum(chunks.values()), "some were answered"
    assert {table["table"]: table["rows"] for table in result["tables"]} == {"public.big": 8000, "public.bigger": 8000, "public.small": 10}
    inserted = target.execute("SELECT sum(n_tup_ins) FROM pg_stat_user_tables WHERE schemaname = 'public'", source_database)
    assert inserted == [(16010,)], "what was there was copied again"
    assert_equal(source, target, source_database)
