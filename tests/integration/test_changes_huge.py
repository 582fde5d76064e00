# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A transaction that is far larger than what a process may hold goes through the real service, receiver and worker."""

from __future__ import annotations

import pytest
from changelab import PLUGINS
from hugelab import ARRIVED, LIMIT, SCHEMA, digest, huge, peaks

CHANGES = 800_000
"""With batches without a limit the worker takes 0.34 GB (pgoutput) and 0.58 GB (wal2json) for them: measured, so that the test can fail."""


@pytest.mark.parametrize("plugin", PLUGINS)
def test_one_huge_transaction(host, source, target, owner, source_database, spec_factory, plugin: str) -> None:
    """B13: applied exactly, and neither service, receiver nor worker has ever had more than 300 MB in memory."""
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute(SCHEMA)
    spec = spec_factory(f"huge-{plugin.replace('_', '-')}", [source_database], option="migrate", changes={"plugin": plugin})
    host.manager.start(spec)
    host.until_waiting(spec.key)
    huge(source, source_database, CHANGES)
    with target.connect(source_database) as conn:
        host.until(spec.key, lambda status: conn.execute(ARRIVED).fetchone() == (True,), "the transaction", 240)
    found = peaks(host.home, spec.key)
    assert set(found) == {"service", "receiver", "worker"}
    assert {process: peak for process, peak in found.items() if peak > LIMIT} == {}
    assert digest(source, source_database, "big") == digest(target, source_database, "big")
