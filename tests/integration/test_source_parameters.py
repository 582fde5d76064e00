# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Parameters and replica identities of a real source: changed, found unchanged by a second run, given back as they were."""

from __future__ import annotations

import dataclasses
import typing as t

import psycopg
import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import MigrationError
from ansible_collections.pgops.migration.plugins.module_utils._engine.source import identity
from ansible_collections.pgops.migration.plugins.module_utils._engine.source.identity import (
    change_identities,
    identity_plan,
    restore_identity,
    tables_without_identity,
)
from ansible_collections.pgops.migration.plugins.module_utils._engine.source.settings import (
    INCLUDE_FILE,
    SettingChange,
    apply_settings,
    include_text,
    overridden_by,
    plan_settings,
    read_settings,
    read_usage,
    restore_settings,
)
from pair import PASSWORDS, make_source


@pytest.fixture(scope="module")
def bare() -> t.Iterator[lab.Server]:
    """A source that nobody prepared."""
    server = make_source("bare", settings={"wal_level": "replica", "max_replication_slots": "1", "max_wal_senders": "1"})
    yield server
    server.drop()


def files(server: lab.Server) -> dict[str, str]:
    return {name: (server.data / name).read_text() for name in ("postgresql.conf", "postgresql.auto.conf")}


def test_present_and_absent_by_alter_system(bare: lab.Server) -> None:
    bare.execute("ALTER SYSTEM SET max_wal_senders = 1")
    before = files(bare)
    with bare.connect() as conn:
        plan = plan_settings(conn, 2, "0")
        assert [(c.name, c.desired, c.restart) for c in plan] == [
            ("wal_level", "logical", True),
            ("max_replication_slots", "2", True),
            ("max_wal_senders", "2", True),
            ("wal_sender_timeout", "0", False),
        ]
        done = apply_settings(conn, plan)
        assert done.restart_required == ("wal_level", "max_replication_slots", "max_wal_senders")
        assert done.reload_required == ("wal_sender_timeout",)
        assert done.restore == {"wal_level": None, "max_replication_slots": None, "max_wal_senders": "1", "wal_sender_timeout": None}
        conn.execute("SELECT pg_sleep(0.3)")
        waiting = plan_settings(conn, 2, "0")
        assert [c.name for c in waiting] == ["wal_level", "max_replication_slots", "max_wal_senders"] and all(c.written for c in waiting)
        again = apply_settings(conn, waiting)
        assert again.changed == () and again.restart_required == done.restart_required
    bare.restart()
    with bare.connect() as conn:
        assert plan_settings(conn, 2, "0") == []
        assert read_settings(conn)["max_wal_senders"].source_file.endswith("postgresql.auto.conf")
        assert restore_settings(conn, done.restore) == tuple(done.restore)
    assert files(bare) == before
    bare.execute("ALTER SYSTEM RESET ALL")
    bare.restart()


def test_include_file_in_use(bare: lab.Server) -> None:
    conf = bare.data / INCLUDE_FILE
    before = files(bare)
    with bare.connect() as conn:
        text = include_text(plan_settings(conn, 8, "5min"), read_settings(conn))
    conf.write_text(text)
    lab.hand_over(conf)
    with (bare.data / "postgresql.conf").open("a") as main:
        main.write(f"include_if_exists = '{INCLUDE_FILE}'\n")
    bare.restart()
    try:
        with bare.connect() as conn:
            now = read_settings(conn)
            assert plan_settings(conn, 8, "5min") == [] and include_text([], now) == text
            assert now["wal_level"].source_file.endswith("/" + INCLUDE_FILE) and overridden_by(now["wal_level"]) == ""
            conn.execute("ALTER SYSTEM SET wal_level = replica")
            conn.execute("SELECT pg_reload_conf()")
            conn.execute("SELECT pg_sleep(0.3)")
            now = read_settings(conn)
            assert now["wal_level"].pending_restart and now["wal_level"].file_value == "replica"
            conn.execute("ALTER SYSTEM RESET wal_level")
        with bare.connect("postgres", "migrator", PASSWORDS[bare.port]) as conn:
            assert read_settings(conn)["wal_level"].file_value is None
    finally:
        (bare.data / "postgresql.conf").write_text(before["postgresql.conf"])
        bare.restart()


def test_slots_and_senders_in_use_are_counted_but_ours_are_not(source: lab.Server, source_database: str) -> None:
    with source.connect(source_database) as conn:
        first = read_usage(conn)
        for name in ("app_old", "pgm_mine"):
            conn.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [name])
        now = read_usage(conn, ["pgm_mine"])
        assert now.slots == first.slots + 1 and "app_old" in now.stale and "pgm_mine" not in now.stale
        assert read_usage(conn).slots == first.slots + 1 and read_usage(conn).ours == first.ours + 1
        assert read_usage(conn, []).slots == read_usage(conn).slots + read_usage(conn).ours
        for name in ("app_old", "pgm_mine"):
            conn.execute("SELECT pg_drop_replication_slot(%s)", [name])


def test_a_refused_alter_system_says_what_to_do(bare: lab.Server) -> None:
    change = SettingChange("wal_sender_timeout", "60000", "0", "ms", "user", False, "", "as asked")
    with bare.connect("postgres", "migrator", PASSWORDS[bare.port]) as conn:
        with pytest.raises(MigrationError) as caught:
            apply_settings(conn, [change])
        assert caught.value.code == "PGM1211" and caught.value.sqlstate == "42501" and "prepare_source" in caught.value.hint
    with bare.connect() as conn:
        with pytest.raises(MigrationError, match="by_hand"):
            apply_settings(conn, [change], "by_hand")
        with pytest.raises(MigrationError, match="port"):
            restore_settings(conn, {"port": "1"})


TABLES = """
CREATE TABLE good (id int PRIMARY KEY);
CREATE TABLE log (at int);
CREATE TABLE indexed (id int NOT NULL UNIQUE, t text);
CREATE TABLE nullable (id int UNIQUE);
CREATE TABLE partial (id int NOT NULL); CREATE UNIQUE INDEX ON partial (id) WHERE id > 0;
CREATE TABLE late (id int PRIMARY KEY DEFERRABLE);
CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
CREATE TABLE whole (t text); ALTER TABLE whole REPLICA IDENTITY FULL;
CREATE TABLE named (id int NOT NULL); CREATE UNIQUE INDEX named_id ON named (id); ALTER TABLE named REPLICA IDENTITY USING INDEX named_id;
CREATE TABLE lost (id int NOT NULL); CREATE UNIQUE INDEX lost_id ON lost (id); ALTER TABLE lost REPLICA IDENTITY USING INDEX lost_id;
DROP INDEX lost_id;
CREATE UNLOGGED TABLE cache (i int);
CREATE TABLE parent (id int, r text) PARTITION BY LIST (r);
CREATE TABLE child PARTITION OF parent FOR VALUES IN ('a');
CREATE TABLE keyed (id int, r text, PRIMARY KEY (id, r)) PARTITION BY LIST (r);
CREATE TABLE keyed_a PARTITION OF keyed FOR VALUES IN ('a');
CREATE SCHEMA "Quoted ""One"" x"; CREATE TABLE "Quoted ""One"" x"."Table x" (i int);
"""


def settings_of(server: lab.Server, database: str) -> list[tuple[t.Any, ...]]:
    query = "SELECT oid::regclass::text, relreplident::text FROM pg_class WHERE relkind = 'r' AND oid >= 16384 ORDER BY 1"
    return server.execute(query, database)


def test_gaps_are_found_set_and_given_back(source: lab.Server, source_database: str) -> None:
    source.execute(TABLES, source_database)
    with source.connect(source_database) as conn:
        gaps = {g.label: g for g in tables_without_identity(conn)}
        assert set(gaps) == {
            'Quoted "One" x.Table x',
            "public.child",
            "public.indexed",
            "public.late",
            "public.log",
            "public.lost",
            "public.nothing",
            "public.nullable",
            "public.partial",
        }
        assert gaps["public.indexed"].index == "indexed_id_key" and gaps["public.nothing"].index == "nothing_pkey"
        assert not any(gaps[f"public.{n}"].index for n in ("log", "nullable", "partial", "late", "child"))
        assert "deferrable" in gaps["public.late"].why and "NOTHING" in gaps["public.nothing"].why
        before = settings_of(source, source_database)
        with pytest.raises(MigrationError) as caught:
            carry_out(conn, "fail")
        assert caught.value.code == "PGM2301" and len(caught.value.details["tables"]) == 9
        assert carry_out(conn, "exclude").excluded == tuple(gaps)
        assert settings_of(source, source_database) == before
        done = carry_out(conn, "set_full")
        assert len(done.changes) == 9 and tables_without_identity(conn) == [] and carry_out(conn, "set_full").changes == ()
        conn.execute("DROP TABLE nullable")
        assert len(restore_identity(conn, [c for c in done.changes if c.table != "public.lost"])) == 7
        conn.execute(next(c.restore for c in done.changes if c.table == "public.nothing"))
    kept = [row for row in before if row[0] not in ("nullable", "lost")]
    assert [row for row in settings_of(source, source_database) if row[0] != "lost"] == kept


def carry_out(conn: psycopg.Connection[t.Any], policy: str) -> identity.IdentityPlan:
    """Plan and change."""
    plan = identity_plan(conn, policy)
    change_identities(conn, plan.changes)
    return plan


def test_an_identity_never_waits_long_for_a_lock(source: lab.Server, source_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "LOCK_TIMEOUT", "100ms")
    monkeypatch.setattr(identity, "ATTEMPTS", 2)
    source.execute("CREATE TABLE busy (i int)", source_database)
    with source.connect(source_database) as holder, source.connect(source_database) as conn:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE busy IN ACCESS SHARE MODE")
        with pytest.raises(MigrationError) as caught:
            carry_out(conn, "set_full")
        assert caught.value.code == "PGM1212" and caught.value.sqlstate == "55P03"
        holder.execute("ROLLBACK")
        assert len(carry_out(conn, "set_full").changes) == 1


def test_changes_are_plain_data() -> None:
    change = SettingChange("wal_level", "replica", "logical", "", "postmaster", True, "", "why")
    assert change.to_dict() == dataclasses.asdict(change)
