# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What must hold before a cutover, the forecast of its pause, and a forced cutover of a target that is behind (R94, R97, R98)."""

from __future__ import annotations

import contextlib
import threading
import time
import typing as t

import psycopg
import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import MigrationError
from pair import make_target
from rows import differences


@pytest.fixture(scope="module")
def target() -> t.Iterator[lab.Server]:
    """A target of this module's own."""
    server = make_target()
    yield server
    server.drop()


@pytest.fixture
def shop(source, owner, source_database) -> str:
    """A small database."""
    with source.connect(source_database, user=owner.name, password=owner.password) as conn:
        conn.execute("CREATE TABLE public.item (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz DEFAULT clock_timestamp())")
        conn.execute("INSERT INTO public.item (at) SELECT now() FROM generate_series(1, 1000)")
    return source_database


def test_forecast_and_refusals(host, source, owner, target, shop, spec_factory) -> None:
    """Each condition that fails refuses the cutover and names what to do; then nothing does, and the forecast is near what comes."""
    spec = spec_factory("look", [shop])
    host.manager.start(spec)
    host.until_waiting(spec.key)

    def refused(**options: t.Any) -> dict[str, t.Any]:
        with pytest.raises(MigrationError) as caught:
            host.manager.request_cutover(spec.key, options)
        assert host.manager.status(spec.key)["state"] == "WaitingForUserAction" and caught.value.hint
        assert host.manager.precheck(spec.key, options)["refused"]["code"] == caught.value.code
        return caught.value.to_dict()

    with contextlib.closing(source.connect(shop, user=owner.name, password=owner.password)) as conn:
        conn.execute("BEGIN")
        conn.execute("SELECT 1")
        time.sleep(0.3)
        assert refused(max_transaction_age=0.2)["code"] == "PGM5005"
        assert host.manager.precheck(spec.key, {"max_transaction_age": 60})["refused"] is None
    assert refused(max_pause=0.05)["code"] == "PGM5007"
    assert refused(max_latency=-1)["code"] == "PGM5002"
    source.execute(f"ALTER DATABASE {shop} OWNER TO postgres")
    error = refused()
    assert error["code"] == "PGM5005" and "owner" in error["message"]
    source.execute(f"ALTER DATABASE {shop} OWNER TO {owner.name}")
    with contextlib.closing(source.connect(shop, user=owner.name, password=owner.password)) as conn:
        conn.execute("BEGIN; INSERT INTO public.item (at) VALUES (now()); PREPARE TRANSACTION 'left over'")
        error = refused()
        assert error["code"] == "PGM5005" and "left over" in error["message"]
        conn.execute("ROLLBACK PREPARED 'left over'")
    for valid in (False, True):
        target.execute(f"UPDATE pg_index SET indisvalid = {valid} WHERE indexrelid = 'public.item_pkey'::regclass", shop)
        if not valid:
            error = refused()
            assert error["code"] == "PGM5005" and "item_pkey" in error["message"]
    target.execute("CREATE TABLE public.fresh AS SELECT 1 AS one", shop)
    (statistics,) = [check for check in host.manager.precheck(spec.key)["checks"] if check["name"] == "statistics"]
    assert statistics["severity"] == "Warning" and "ANALYZE" in statistics["hint"]
    target.execute("DROP TABLE public.fresh", shop)
    told = host.manager.precheck(spec.key)
    assert told["refused"] is None and 0 < told["forecast_seconds"] < 10
    assert {check["name"] for check in told["checks"]} >= {"transactions", "prepared transactions", "indexes", "statistics"}
    status = host.cut_over(spec.key)
    cutover = status["cutover"]
    assert cutover["forecast_seconds"] and cutover["phases"][0]["name"] == "pre-checks"
    assert [phase["name"] for phase in cutover["phases"]] == ["pre-checks", "fence", "drain", "complete", "confirm", "release"]
    with source.connect(shop) as left, target.connect(shop) as right:
        assert differences(left, right) == {}


def test_forced_with_a_backlog(host, source, owner, target, shop, spec_factory) -> None:
    """R97: the target is behind and the writers go on, nobody fences them: every commit up to the point is there, none after it."""
    spec = spec_factory("forced", [shop])
    host.manager.start(spec)
    host.until_waiting(spec.key)
    stop = threading.Event()
    commits: list[tuple[float, int]] = []

    def write() -> None:
        with source.connect(shop, user=owner.name, password=owner.password) as conn:
            while not stop.is_set():
                row = conn.execute("INSERT INTO public.item DEFAULT VALUES RETURNING id").fetchone()
                commits.append((time.time(), row[0]))
                time.sleep(0.002)

    thread = threading.Thread(target=write)
    with contextlib.closing(target.connect(shop)) as lock:
        lock.execute("BEGIN")
        lock.execute("LOCK TABLE public.item IN SHARE MODE")
        thread.start()
        host.until(spec.key, lambda s: (s["progress"][shop].get("latency_seconds") or 0) > 6, "a backlog")
        with pytest.raises(MigrationError) as caught:
            host.manager.request_cutover(spec.key, {"fence": "none"})
        assert caught.value.code == "PGM5002"
        host.manager.request_cutover(spec.key, {"fence": "none", "force": True})
        time.sleep(1)
        lock.execute("ROLLBACK")
    status = host.until(spec.key, lambda s: s["state"] == "Succeeded", "Succeeded")
    stop.set()
    thread.join()
    assert "changes committed since the marker" in str(status["cutover"]["phases"])
    with psycopg.connect(target.dsn(shop)) as conn:
        last = conn.execute("SELECT max(id) FROM public.item").fetchone()[0]
        assert conn.execute("SELECT count(*) FROM public.item").fetchone() == (last,)  # without a gap
    assert last < commits[-1][1]
    with source.connect(shop) as conn:
        point = status["cutover"]["time"][shop]
        before = conn.execute("SELECT count(*) FROM public.item WHERE at <= %s::timestamptz - interval '50 ms'", [point]).fetchone()[0]
    assert last >= before
