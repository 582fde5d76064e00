# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What a failed task of the target's sessions is called: a duplicate in the source's rows, or in the target's own catalog."""

from __future__ import annotations

import threading
import time
import typing as t

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import CopyError
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.pool import TargetPool


def failure(spec: t.Any, database: str, statement: str, meanwhile: t.Callable[[], None]) -> CopyError:
    """What ``statement`` ends in, with ``meanwhile`` going on beside it."""
    pool = TargetPool(spec.target, database, 1, "index", "SET lock_timeout = 0", threading.Event())
    try:
        pool.submit(1.0, "build it", lambda conn: conn.execute(statement.encode()) and None)
        meanwhile()
        with pytest.raises(CopyError) as caught:
            pool.drain()
    finally:
        pool.close()
    return caught.value


def test_whose_duplicate_it_is(source: lab.Server, target: lab.Server, target_database: str, spec_factory: t.Any) -> None:
    spec = spec_factory("pool", [target_database])
    target.execute("CREATE TABLE t (i int); INSERT INTO t VALUES (1), (1); ALTER TABLE t OWNER TO admin", target_database)
    rows = failure(spec, target_database, "CREATE UNIQUE INDEX t_i ON public.t (i)", lambda: None)
    assert rows.sqlstate == "23505" and "The source holds duplicates" in rows.hint
    with target.connect(target_database) as other:
        other.autocommit = False
        other.execute("CREATE TYPE public.twice AS ENUM ()")

        def finish() -> None:
            limit = time.monotonic() + 30
            while not target.execute("SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"):
                assert time.monotonic() < limit
                time.sleep(0.02)
            other.commit()

        clash = failure(spec, target_database, "CREATE TYPE public.twice AS ENUM ()", finish)
    assert clash.sqlstate == "23505" and "duplicates" not in clash.hint and "by somebody else" in clash.hint
