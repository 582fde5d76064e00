# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Verification while changes are streamed: a row changed by hand is found with key and both values, load makes no false alarm."""

from __future__ import annotations

import json
import typing as t

import pytest
import servers as lab
import workload as writers
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.paths import MigrationPaths
from ansible_collections.pgops.migration.plugins.module_utils._engine.monitor.screen import detail_lines
from ansible_collections.pgops.migration.plugins.module_utils._engine.service.proof import FILE, verify_all
from pair import make_target


@pytest.fixture(scope="module")
def target() -> t.Iterator[lab.Server]:
    """A target of this module's own."""
    server = make_target()
    yield server
    server.drop()


def test_found_under_load(host, source, owner, target, source_database, spec_factory, tmp_path) -> None:
    """Several rounds under writers of every kind find nothing; then each kind of damage is found, and nothing else."""
    dsn_file = tmp_path / "dsn"
    writers.point_at(dsn_file, source.dsn(source_database, owner.name, owner.password))
    workload = writers.Workload(dsn_file, 4, folder=tmp_path / "notes", rate=20)
    workload.prepare()
    with source.connect(source_database, user=owner.name, password=owner.password) as conn:
        conn.execute("CREATE TABLE public.part (a int, b text, big text, PRIMARY KEY (a, b))")
        conn.execute("INSERT INTO public.part SELECT i, 'x' || i, repeat('y', 300) FROM generate_series(1, 500) i")
        conn.execute("CREATE TABLE public.lone (v numeric)")
        conn.execute("ALTER TABLE public.lone REPLICA IDENTITY FULL")
        conn.execute("INSERT INTO public.lone SELECT i % 7 FROM generate_series(1, 300) i")
    spec = spec_factory("live", [source_database], changes={"plugin": "pgoutput"})
    paths = MigrationPaths(host.home, spec.key)
    with workload:
        host.manager.start(spec)
        host.until_waiting(spec.key)
        for dummy in range(3):
            found = verify_all(paths, spec, streaming=True)
            told = found["databases"][source_database]["tables"]
            assert found["equal"] and found["complete"], json.dumps([x for x in told if not x["equal"]])[:3000]
        host.manager.remember_verified(spec.key, found)
        status = host.manager.status(spec.key)
        assert any(f"as of LSN {found['lsn'][source_database]}, 0:00:" in line for line in detail_lines(status)), detail_lines(status)
        assert found["lsn"][source_database] and json.loads((paths.folder / FILE).read_text())["rows"] == found["rows"]
        with target.connect(source_database) as conn:
            conn.execute("UPDATE public.part SET big = 'changed by hand' WHERE a = 7")
            conn.execute("DELETE FROM public.part WHERE a = 8")
            conn.execute("INSERT INTO public.part VALUES (9999, 'extra', NULL)")
            conn.execute("UPDATE public.lone SET v = 1.0 WHERE ctid = (SELECT min(ctid) FROM public.lone WHERE v = 1)")
        found = verify_all(paths, spec, streaming=True)
    tables = {table["label"]: table for table in found["databases"][source_database]["tables"]}
    assert not found["equal"]
    assert {label for label, table in tables.items() if table["compared"] and not table["equal"]} == {"public.part", "public.lone"}
    by_kind = {difference["kind"]: difference for difference in tables["public.part"]["differences"]}
    assert set(by_kind) == {"different", "missing", "extra"}
    assert by_kind["different"]["key"] == {"a": "7", "b": "x7"}
    assert by_kind["different"]["target"] == {"big": "changed by hand"} and by_kind["different"]["source"]["big"].startswith("yyy")
    assert by_kind["missing"]["key"]["a"] == "8" and by_kind["extra"]["key"] == {"a": "9999", "b": "extra"}
    lone = tables["public.lone"]["differences"]
    assert {(d["kind"], (d["source"] or d["target"])["v"]) for d in lone} == {("missing", "1"), ("extra", "1.0")}
