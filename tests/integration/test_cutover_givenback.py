# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A cutover that was given back leaves both servers as they were: catalogs, rights, settings, what rests, sequences that are ahead."""

from __future__ import annotations

import os
import signal
import time
import typing as t

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.sequences import MARGIN
from cutoverlab import held, prepare_hold, state_of
from footprint import difference, footprint
from host import Host
from pair import make_source_of_both_ways, make_target_of_both_ways
from rows import sequences

FENCES = ("revoke_connect", "locks", "read_only", "external")
DDL = """
CREATE TABLE public.parent (id int PRIMARY KEY, word text);
CREATE TABLE public.child (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, parent int REFERENCES public.parent, copies int DEFAULT 0);
CREATE TABLE public.told (id int PRIMARY KEY);
CREATE UNLOGGED TABLE public.fleeting (id int PRIMARY KEY);
CREATE FUNCTION public.tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.told VALUES (NEW.id); RETURN NEW; END $$;
CREATE TRIGGER always AFTER INSERT ON public.child FOR EACH ROW EXECUTE FUNCTION public.tell();
ALTER TABLE public.child ENABLE ALWAYS TRIGGER always;
CREATE SEQUENCE public.ticket; SELECT nextval('public.ticket');
CREATE MATERIALIZED VIEW public.words AS SELECT count(*) AS words FROM public.parent;
INSERT INTO public.parent SELECT i, 'w' || i FROM generate_series(1, 50) i;
INSERT INTO public.child (parent) SELECT i FROM generate_series(1, 50) i;
INSERT INTO public.fleeting VALUES (1);
SELECT lo_from_bytea(4711, 'first');
"""
MORE = {
    "constraints": "SELECT conrelid::regclass::text, conname::text, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2",
    "firing": "SELECT tgrelid::regclass::text, tgname::text, tgenabled::text FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1, 2",
    "steps": "SELECT name FROM pgm_migration.step ORDER BY 1",
    "resting": "SELECT what, restore FROM pgm_migration.resting WHERE restore <> '{}' ORDER BY 1",
}
CHANGES = ("triggers", "classes")
"""Of the target: triggers and indexes of foreign keys that rest come back with other OIDs; views are refreshed."""


@pytest.fixture(scope="module")
def source() -> t.Iterator[lab.Server]:
    """A source that may also be a target."""
    server = make_source_of_both_ways()
    server.execute("ALTER ROLE migrator BYPASSRLS; CREATE ROLE boss; CREATE ROLE reader")
    yield server
    server.drop()


@pytest.fixture(scope="module")
def target() -> t.Iterator[lab.Server]:
    """A target that may also be a source, and that refuses replica role: foreign keys and all triggers rest."""
    server = make_target_of_both_ways()
    server.execute("REVOKE SET ON PARAMETER session_replication_role FROM admin")
    yield server
    server.drop()


@pytest.fixture
def database(source, owner, source_database) -> str:
    """One of everything that a cutover touches; rights and settings that a fence changes are set."""
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute(t.cast(t.Any, DDL))
        conn.execute(f"GRANT CONNECT ON DATABASE {source_database} TO reader; GRANT CONNECT ON DATABASE {source_database} TO boss")
        conn.execute(f"ALTER DATABASE {source_database} SET default_transaction_read_only = off")
    prepare_hold(source, source_database)
    return source_database


def whole(source: lab.Server, target: lab.Server, database: str) -> dict[str, t.Any]:
    """Both servers, without what a copy that goes on changes, and without what the comments of this file say."""
    found = {f"source: {name}": value for name, value in footprint(source, database).items()}
    there = footprint(target, database)
    found |= {f"target: {name}": value for name, value in there.items() if not name.startswith(CHANGES)}
    with target.connect(database) as conn:
        found |= {f"target: {name}": conn.execute(t.cast(t.Any, query)).fetchall() for name, query in MORE.items()}
    found["source: fence"] = state_of(source, database)
    found["source: databases"] = [(name, owner, sorted((acl or "").split(","))) for name, owner, acl, dummy in found["source: databases"]]
    return found


def steps_ahead(source: lab.Server, target: lab.Server, database: str) -> set[int]:
    """By how many steps the target's sequences are ahead of the source's; of the ledger's own nothing is said."""
    with source.connect(database) as here, target.connect(database) as there:
        values = {name: value for name, (value, dummy) in sequences(there).items()}
        return {values[name] - value for name, (value, dummy) in sequences(here).items()}


def draw(source: lab.Server, database: str) -> None:
    """The application goes on: a number is drawn, a row comes through the stream."""
    source.execute("SELECT nextval('public.ticket'); INSERT INTO public.child (parent) VALUES (1)", database)


def until(look: t.Callable[[], t.Any], wanted: t.Any) -> None:
    """Look until it is as wanted."""
    limit = time.monotonic() + 60
    while (found := look()) != wanted:
        assert time.monotonic() < limit, found
        time.sleep(0.1)


def begin(host: Host, spec: t.Any, source: lab.Server, target: lab.Server) -> dict[str, t.Any]:
    """Bring the migration to its cutover; what both servers are like then."""
    host.manager.start(spec)
    host.until_waiting(spec.key)
    database = spec.databases[0]
    assert steps_ahead(source, target, database) == {MARGIN}
    return whole(source, target, database)


def test_nothing_is_left(host: Host, source, target, database, spec_factory) -> None:
    """Under each fence, given back in the last phase before the release; then the cutover succeeds, with a way back."""
    nothing = ["true"]  # nobody writes
    options = {"max_latency": 60, "max_pause": 60, "verify_before_release": True, "fence_command": nothing, "unfence_command": nothing}
    spec = spec_factory("given-back", [database], cutover=options, rollback="prepared")
    before = begin(host, spec, source, target)
    target.execute("UPDATE public.parent SET word = 'by hand' WHERE id = 42", database)
    for fence in FENCES:
        draw(source, database)
        host.until_waiting(spec.key)
        status = host.try_cutover(spec.key, fence=fence)
        assert status["cutover"]["given_back"]["code"] == "PGM5113", status["cutover"]["given_back"]
        until(lambda: difference(before, whole(source, target, database)), {})  # foreign keys rest again when the stream goes on
        assert steps_ahead(source, target, database) == {MARGIN}, fence
    draw(source, database)
    until(lambda: target.execute("SELECT count(*) FROM public.child", database), [(55,)])  # the stream goes on
    assert target.execute("SELECT count(*) FROM public.told", database) == source.execute("SELECT count(*) FROM public.told", database)
    target.execute("UPDATE public.parent SET word = 'w42' WHERE id = 42", database)
    host.until_waiting(spec.key)
    assert host.cut_over(spec.key)["verification"]["equal"]
    assert steps_ahead(source, target, database) == {0}
    host.manager.end_way_back(spec)


@pytest.mark.parametrize("victim", ["service", "target"])
def test_nothing_is_left_by_a_killed_one(victim: str, host: Host, source, target, database, spec_factory) -> None:
    """The debt of a cutover that was killed is paid when the stream goes on: nothing is left, and the database may be dropped again."""
    spec = spec_factory("killed", [database], cutover={"max_latency": 60, "max_pause": 30, "fence": "locks"}, rollback="prepared")
    before = begin(host, spec, source, target)
    with held(host, spec.key, target, database, "confirm") as go_on:
        if victim == "service":
            os.kill(host.manager.status(spec.key)["service"]["pid"], signal.SIGKILL)
        else:
            target.crash()
            go_on()
    if victim == "service":
        host.gone(spec.key)
        host.manager.start(spec)
    else:
        host.until(spec.key, lambda status: (status["cutover"] or {}).get("given_back"), "given back")
        target.start()
    host.until_waiting(spec.key)
    draw(source, database)
    until(lambda: difference(before, whole(source, target, database)), {})
    assert min(steps_ahead(source, target, database)) >= MARGIN - 1  # a number was drawn since
    assert host.manager.cancel(spec.key, drop_target=True)["canceled"]["dropped"] == [database]
