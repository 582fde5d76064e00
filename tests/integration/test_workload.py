# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The writers account for what was promised to them: they notice a lost commit, and they follow to another server."""

from __future__ import annotations

import time
import typing as t
from pathlib import Path

import servers as lab
import workload as writers


def test_writers_notice_loss_and_follow(
    source: lab.Server, source_database: str, database_factory: t.Any, owner: t.Any, tmp_path: Path
) -> None:
    dsn_file = tmp_path / "dsn"
    here = source.dsn(source_database, owner.name, owner.password)
    writers.point_at(dsn_file, here)
    workload = writers.Workload(dsn_file, 4, folder=tmp_path / "notes", rate=100)
    workload.prepare()
    with workload:
        workload.wait_acknowledged(200)
        source.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'shop writer%'")
        before = workload.acknowledged()
        workload.wait_acknowledged(before + 50)
        time.sleep(0.1)
    report = workload.report()
    assert report["kinds"]["transfer"] and report["refused"] >= 4
    assert set(report["errors"]) <= {"57P01", "OperationalError", "55P03", "40P01"}, report
    account = writers.check(here, workload.folder)
    assert account.good and account.acknowledged >= 250, account
    source.execute(
        "DELETE FROM workload.commits WHERE (writer, seq) IN (SELECT writer, max(seq) FROM workload.commits GROUP BY 1)", source_database
    )
    assert len(writers.check(here, workload.folder).missing) == 4
