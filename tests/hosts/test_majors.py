# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""To a newer major, by SSH: a source without wal2json and without ``pg_read_all_data``, a target whose ``pg_dump`` is not the suite's."""

from __future__ import annotations

import os
import typing as t

import pytest
from byssh import content, play, traces
from lab import rooms
from lab.able import Unable
from lab.databases import psql
from lab.place import Place


@pytest.fixture(params=[(13, 17)], ids=lambda pair: f"{pair[0]}-{pair[1]}")
def lab(request: pytest.FixtureRequest) -> t.Iterator[Place]:
    """A lab with servers of these majors, or the test is skipped with the reason."""
    rooms.sweep()
    name = f"majors-{os.getpid()}"
    try:
        yield rooms.up(name, majors=request.param)
    except Unable as error:
        pytest.skip(f"no lab here: {error}")
    rooms.down(name)


def test_migration_by_ssh(lab: Place) -> None:
    """From bare hosts to the cutover, with writes in between; both have the same rows, and nothing is left on the source."""
    for playbook in ("prepare_source", "validate", "migrate"):
        said = play(lab, f"ansible-playbook pgops.migration.{playbook} -i inventory").text
    assert "WaitingForCutoverTrigger" in said
    psql(lab, "source", "INSERT INTO public.purchase (customer, amount) SELECT 1 + i % 500, i FROM generate_series(1, 1000) i", "shop")
    psql(lab, "source", "UPDATE public.customer SET name = upper(name) WHERE id % 7 = 0", "shop")
    play(lab, "ansible-playbook pgops.migration.cutover -i inventory")
    assert content(lab, "source") == content(lab, "target") and traces(lab) == []
    versions = [int(psql(lab, host, "SHOW server_version_num")) // 10000 for host in ("source", "target")]
    assert versions == [lab.source, lab.target]
