# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Every protocol version of pgoutput that the source offers says the same, and what cannot be read exactly is refused by name."""

from __future__ import annotations

import dataclasses
import typing as t

import psycopg
import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.pgoutput import PgoutputDecoder
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import MigrationError
from ansible_collections.pgops.migration.plugins.module_utils._engine.source.plugin import AS_STRING, choose_plugin
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from pair import Login

DDL = """
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TABLE t (id int PRIMARY KEY, m mood, big text, n numeric);
ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
CREATE TABLE f (a text, b int[]);
ALTER TABLE f REPLICA IDENTITY FULL;
CREATE PUBLICATION p FOR TABLE t, f"""

HISTORY = r"""
INSERT INTO t VALUES (1, 'ok', repeat('x', 9000), 'NaN'), (2, NULL, E'a\tb\n\\', 1.50);
INSERT INTO f VALUES ('n', '{1,NULL}'), ('', NULL);
UPDATE t SET n = n + 1; UPDATE t SET id = 3 WHERE id = 1; UPDATE f SET a = 'u' WHERE a = 'n';
DELETE FROM t WHERE id = 2; DELETE FROM f WHERE a = '';
SELECT pg_replication_origin_create('elsewhere'); SELECT pg_replication_origin_session_setup('elsewhere');
INSERT INTO t VALUES (4, 'sad', '', 0); SELECT pg_replication_origin_session_reset();
TRUNCATE t, f RESTART IDENTITY"""


def versions(conn: psycopg.Connection[t.Any], slot: str) -> list[int]:
    """Those that the server takes: it is asked."""
    found = []
    for version in range(1, 9):
        try:
            conn.execute(
                "SELECT FROM pg_logical_slot_peek_binary_changes(%s, NULL, 1, 'proto_version', %s, 'publication_names', 'p')",
                [slot, str(version)],
            )
        except psycopg.Error:
            continue
        found.append(version)
    return found


def shown(event: t.Any) -> t.Any:
    """An event to compare, without the objects that belong to one decoder."""
    return tuple((part.label, part.columns) if hasattr(part, "columns") else part for part in event)


def test_all_versions_of_the_protocol_say_the_same(
    source: lab.Server, source_database: str, spec_factory: t.Callable[..., MigrationSpec]
) -> None:
    """Types, TOAST, changed keys, FULL, an origin, TRUNCATE: the choice takes the newest version that there is, and none differs."""
    with source.connect(source_database) as conn:
        conn.execute(DDL)
        slot = f"protocol_{source_database}"
        conn.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
        try:
            for statement in HISTORY.split(";"):
                conn.execute(statement)  # type: ignore[call-overload]
            offered = versions(conn, slot)
            told = []
            for version in offered:
                rows = conn.execute(
                    "SELECT lsn - '0/0'::pg_lsn, data FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL, 'proto_version', %s,"
                    " 'publication_names', 'p')",
                    [slot, str(version)],
                ).fetchall()
                decoder = PgoutputDecoder()
                events = [decoder.decode(int(lsn), bytes(data)) for lsn, data in rows]
                told.append([shown(event) for event in events if event is not None])
        finally:
            conn.execute("SELECT pg_drop_replication_slot(%s)", [slot])
            conn.execute("SELECT pg_replication_origin_drop('elsewhere')")
    assert len(told[0]) > 20
    assert all(other == told[0] for other in told)
    choice = choose_plugin(spec_factory("protocol", [source_database]).source, source_database, "pgoutput")
    assert int(choice.options["proto_version"]) == max(offered)
    assert "binary" not in choice.options and "streaming" not in choice.options


@pytest.mark.parametrize("plugin", ["decoderbufs", "no such plugin"])
def test_other_plugins_are_refused_by_name(
    source: lab.Server, source_database: str, spec_factory: t.Callable[..., MigrationSpec], plugin: str
) -> None:
    """What nobody here can read is not tried."""
    with pytest.raises(MigrationError) as caught:
        choose_plugin(spec_factory("refused", [source_database]).source, source_database, plugin)
    assert caught.value.code == "PGM1206"
    assert plugin in caught.value.message
    assert all(known in caught.value.hint for known in ("wal2json", "pgoutput", "test_decoding"))


@pytest.fixture
def reader(source: lab.Server) -> t.Iterator[Login]:
    """A login that may replicate and owns nothing."""
    login = Login("decoding_reader", "r1")
    source.execute(f"CREATE ROLE {login.name} LOGIN REPLICATION PASSWORD '{login.password}'")
    yield login
    source.execute(f"DROP ROLE {login.name}")


def test_auto_takes_test_decoding_last(
    source: lab.Server, source_database: str, owner: Login, reader: Login, spec_factory: t.Callable[..., MigrationSpec]
) -> None:
    """Only where wal2json would lose values and the tables may not be published; the reason says both. Named, it is there for everybody;
    in a database whose encoding nothing tells it is refused before anything is made."""
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute("CREATE TABLE amounts (id int PRIMARY KEY, amount numeric)")
    mine = spec_factory("auto", [source_database]).source
    theirs = dataclasses.replace(mine, user=reader.name, password=reader.password)
    lossless = choose_plugin(mine, source_database, "wal2json").options.get(AS_STRING)
    found = choose_plugin(theirs, source_database)
    assert found.plugin == ("wal2json" if lossless else "test_decoding")
    assert choose_plugin(mine, source_database).plugin == ("wal2json" if lossless else "pgoutput")
    if not lossless:
        assert "wal2json would lose values" in found.reason and "pgoutput cannot be used" in found.reason
    assert choose_plugin(theirs, source_database, "test_decoding").plugin == "test_decoding"
    source.execute("CREATE DATABASE decoding_latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    try:
        with pytest.raises(MigrationError) as caught:
            choose_plugin(mine, "decoding_latin", "test_decoding")
        assert caught.value.code == "PGM1206" and "LATIN1" in caught.value.message and "pgoutput" in caught.value.hint
    finally:
        source.drop_database("decoding_latin")
    assert source.execute("SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'pgm_probe%'")[0][0] == 0
