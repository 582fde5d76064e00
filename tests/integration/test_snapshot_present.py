# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Data alone, into a database whose schema is on the target already: exact, and all else in it as it was."""

from __future__ import annotations

import contextlib
import threading
import typing as t
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import Conflict
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.ledger import Ledger
from ansible_collections.pgops.migration.plugins.module_utils._engine.service.prepare import check_ground
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.present import accept_present
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.runner import validate
from ansible_collections.pgops.migration.plugins.module_utils._engine.verify.compare import verify_database
from copylab import Held, copy
from host import Host
from pair import OWNER, PASSWORDS, describe, make_azure_target

DATABASE = "given"

SCHEMA = """
CREATE SCHEMA shop;
CREATE TABLE shop.customer (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, boss bigint REFERENCES shop.customer,
    loud text GENERATED ALWAYS AS (upper(name)) STORED);
CREATE TABLE shop.item (id serial PRIMARY KEY, customer bigint NOT NULL REFERENCES shop.customer ON DELETE CASCADE, note text,
    touched int NOT NULL DEFAULT 0);
CREATE TABLE shop.log (at date, what text, PRIMARY KEY (at, what)) PARTITION BY RANGE (at);
CREATE TABLE shop.log_old PARTITION OF shop.log FOR VALUES FROM ('2020-01-01') TO ('2024-01-01');
CREATE TABLE shop.log_new PARTITION OF shop.log DEFAULT;
CREATE TABLE shop.mention (at date, what text, FOREIGN KEY (at, what) REFERENCES shop.log, PRIMARY KEY (what, at));
CREATE TABLE shop.audit (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item int);
CREATE FUNCTION shop.touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.touched := NEW.touched + 1; RETURN NEW; END $$;
CREATE FUNCTION shop.audit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN INSERT INTO shop.audit (item) VALUES (NEW.id); RETURN NULL; END $$;
CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON shop.item FOR EACH ROW EXECUTE FUNCTION shop.touch();
CREATE TRIGGER audit AFTER INSERT ON shop.item FOR EACH ROW EXECUTE FUNCTION shop.audit();
ALTER TABLE shop.item ENABLE ALWAYS TRIGGER touch;
"""

ROWS = """
INSERT INTO shop.customer (name, boss) SELECT repeat('x', 400) || i, nullif(i - 1, 0) FROM generate_series(1, 30000) i;
INSERT INTO shop.item (customer, note) SELECT i, 'n' || i FROM generate_series(1, 2000) i;
INSERT INTO shop.log SELECT DATE '2020-01-01' + i, 'w' FROM generate_series(1, 3000) i; INSERT INTO shop.mention SELECT * FROM shop.log;
"""

OWN = """
CREATE TABLE shop.own (i int); INSERT INTO shop.own VALUES (7); CREATE INDEX own_idea ON shop.item (note);
COMMENT ON CONSTRAINT item_customer_fkey ON shop.item IS 'stays';
"""
"""What the target has besides, and keeps."""

STATE = """
    SELECT 'trigger', tgname::text, tgenabled::text FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT 'constraint', conname, contype::text || convalidated || coalesce(obj_description(oid, 'pg_constraint'), '')
      FROM pg_constraint WHERE connamespace = 'shop'::regnamespace
    UNION ALL SELECT 'relation', relname, relkind::text FROM pg_class WHERE relnamespace = 'shop'::regnamespace
    UNION ALL SELECT 'schema', nspname, '' FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp'
    UNION ALL SELECT 'database', datname, pg_get_userbyid(datdba) || coalesce(datacl::text, '') FROM pg_database
    ORDER BY 1, 2, 3"""


class Given(t.NamedTuple):
    """Source and target, both with the schema, the source with rows."""

    source: lab.Server
    target: lab.Server

    def spec(self, name: str, **options: t.Any) -> MigrationSpec:
        """Of a migration into the schema that is present."""
        copy_ = {"target_schema": "present", **options.pop("copy", {})}
        described = describe(self.source, self.target, name, [DATABASE], option="migrate", globals={"enabled": False}, **options)
        return MigrationSpec.from_dict({**described, "copy": {**described.get("copy", {}), **copy_}})

    def state(self) -> list[tuple[t.Any, ...]]:
        """What must be as it was."""
        return self.target.execute(STATE, DATABASE)

    def reset(self) -> None:
        """Both sides as in the beginning."""
        for server in (self.source, self.target):
            server.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
            server.create_database(DATABASE, OWNER)
            with server.connect(DATABASE) as conn:
                conn.execute(f"SET ROLE {OWNER}")
                conn.execute(SCHEMA.encode())
                conn.execute(ROWS.encode() if server is self.source else OWN.encode())


@pytest.fixture(scope="module", params=[True, False], ids=["replica-role", "no-replica-role"])
def servers(request: pytest.FixtureRequest, source: lab.Server) -> Iterator[Given]:
    target = make_azure_target(replica_role=request.param)
    try:
        target.create_role(OWNER)
        target.execute(f"GRANT {OWNER} TO admin")
        yield Given(source, target)
    finally:
        target.drop()


@pytest.fixture
def given(servers: Given) -> Iterator[Given]:
    servers.reset()
    yield servers
    servers.source.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")


@contextlib.contextmanager
def writer(server: lab.Server) -> Iterator[list[int]]:
    """Somebody who works on the source until the block ends or the fence stops him; what was committed is counted."""
    stop, done = threading.Event(), [0]

    def work() -> None:
        with contextlib.suppress(psycopg.Error), server.connect(DATABASE, OWNER, PASSWORDS[server.port]) as conn:
            while not stop.is_set():
                i = done[0]
                conn.execute("INSERT INTO shop.customer (name) VALUES ('late')")
                conn.execute(f"INSERT INTO shop.item (customer, note) VALUES ({i % 1000 + 1001}, 'late')")
                conn.execute(f"UPDATE shop.item SET note = note || '.' WHERE id = {i % 2000 + 1}")
                conn.execute(
                    f"DELETE FROM shop.customer WHERE id = (SELECT max(id) FROM shop.customer WHERE name = 'late' AND {i} % 3 = 0)"
                )
                done[0] += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()


def test_online_under_a_writer_and_a_kill(given: Given, tmp_path: Path) -> None:
    """Every row is equal, and triggers, keys, indexes and the database itself are as they were, and work again."""
    before, host, spec = given.state(), Host(tmp_path), given.spec("alone")
    try:
        with writer(given.source) as done:
            host.manager.start(spec)
            host.until(spec.key, lambda status: status["progress"].get(DATABASE, {}).get("rows_done", 0) > 0, "rows")
            host.kill(spec.key)
            host.manager.start(spec)
            host.until_waiting(spec.key)
            status = host.cut_over(spec.key)
        assert done[0] > 0 and status["verification"]["equal"], status["verification"]
        assert given.state() == before
        assert given.target.execute("SELECT i FROM shop.own", DATABASE) == [(7,)]
        new = "INSERT INTO shop.item (customer) VALUES (1) RETURNING touched, (SELECT count(*) FROM shop.audit)"
        audited = given.source.execute("SELECT count(*) FROM shop.audit", DATABASE)[0][0]
        assert given.target.execute(new, DATABASE) == [(1, audited)]
        assert given.target.execute("SELECT count(*) FROM shop.audit", DATABASE) == [(audited + 1,)]
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            given.target.execute("INSERT INTO shop.item (customer) VALUES (-1)", DATABASE)
    finally:
        host.close()


def test_offline_and_again(given: Given, tmp_path: Path) -> None:
    """A copy that is broken off in the middle and one that finds rows of it there end alike."""
    before, spec = given.state(), given.spec("offline", mode="offline", copy={"chunk_bytes": 2 << 20})
    accept_present(spec, DATABASE)
    stop = threading.Event()

    def half(report: dict[str, t.Any]) -> None:
        if report.get("rows_done", 0) > 0:
            stop.set()

    held = Held(given.source, DATABASE)
    assert copy(spec, DATABASE, tmp_path, held, stop, report=half)["stopped"]
    accept_present(spec, DATABASE)
    copy(spec, DATABASE, tmp_path, Held(given.source, DATABASE))
    assert verify_database(spec, DATABASE).equal
    with given.target.connect(DATABASE) as conn:
        Ledger(conn).drop()
    assert given.state() == before


def test_cancel_leaves_the_database(given: Given, tmp_path: Path) -> None:
    """Even with drop_target: it was not made by us. Its triggers and keys are back, our ledger is gone, and it can be begun anew."""
    before, host, spec = given.state(), Host(tmp_path), given.spec("given-up")
    try:
        host.manager.start(spec)
        host.until_waiting(spec.key)
        status = host.manager.cancel(spec.key, drop_target=True)
        assert status["state"] == "Canceled" and status["canceled"]["dropped"] == [], status["canceled"]
        assert given.state() == before
        with pytest.raises(Conflict) as caught:
            accept_present(given.spec("next"), DATABASE)
        assert caught.value.code == "PGM3018" and "shop.customer" in caught.value.message
        again = given.spec("next", mode="offline", copy={"overwrite": True})
        host.manager.start(again)
        host.until(again.key, lambda status: status["state"] == "Succeeded", "the end")
        assert verify_database(again, DATABASE).equal and given.state() == before
    finally:
        host.close()


ONE_TARGET = pytest.mark.parametrize("servers", [True], indirect=True, ids=["replica-role"])


@ONE_TARGET
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("DROP TABLE shop.mention", "shop.mention is missing"),
        ("ALTER TABLE shop.item ALTER note TYPE varchar(10)", "note of shop.item is text on the source and character varying(10)"),
        ("ALTER TABLE shop.item DROP note", "column note of shop.item is missing"),
        ("ALTER TABLE shop.item ADD more int", "column more of shop.item is on the target alone"),
        ("DROP TABLE shop.log CASCADE; CREATE TABLE shop.log (at date, what text)", "shop.log is partitioned on the source and holds rows"),
        ("INSERT INTO shop.customer (name) VALUES ('there')", "shop.customer"),
        ("SELECT lo_create(0)", "1 large object"),
    ],
)
def test_what_cannot_take_the_rows_is_refused(given: Given, change: str, words: str) -> None:
    with given.target.connect(DATABASE) as conn:
        conn.execute(f"SET SESSION AUTHORIZATION {OWNER}; {change}".encode())
    before, spec = given.state(), given.spec("refused")
    assert [f.severity for f in validate(spec, only=["PGM2209"]).findings if words in f.message] == ["Failed"]
    with pytest.raises(Conflict) as caught:
        accept_present(spec, DATABASE)
    assert words in caught.value.message and given.state() == before


@ONE_TARGET
def test_a_database_that_is_not_there(given: Given) -> None:
    given.target.execute(f"DROP DATABASE {DATABASE}")
    with pytest.raises(Conflict) as caught:
        check_ground(given.spec("nowhere"))
    assert caught.value.code == "PGM3017" and "does not exist" in caught.value.message
