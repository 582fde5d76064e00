# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What a real migration lets its observers see: page and metrics while it runs and at its end, and nothing secret in them."""

from __future__ import annotations

import time
import typing as t
from pathlib import Path

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.monitor.history import History
from host import Host
from pair import PASSWORDS, make_target
from prometheus_client.parser import text_string_to_metric_families

REFRESH = 'http-equiv="refresh"'


@pytest.fixture(scope="module")
def target() -> t.Iterator[lab.Server]:
    """A target of this module's own: migrations leave roles and memberships on it."""
    server = make_target()
    yield server
    server.drop()


@pytest.fixture
def host(tmp_path: Path) -> t.Iterator[Host]:
    """A runtime host."""
    one = Host(tmp_path / "runtime")
    yield one
    one.close()


@pytest.fixture
def shop(source, owner, source_database) -> str:
    """A database with a table that must not be able to write into a page."""
    with source.connect(source_database, user=owner.name, password=owner.password) as conn:
        conn.execute('CREATE TABLE "<script>alert(1)</script>" (id int PRIMARY KEY, t text)')
        conn.execute("""INSERT INTO "<script>alert(1)</script>" SELECT i, repeat('x', 200) FROM generate_series(1, 3000) i""")
        conn.execute("CREATE TABLE plain (id int PRIMARY KEY)")
    return source_database


def await_text(path: Path, reached: t.Callable[[str], bool], seconds: float = 30.0) -> str:
    """The content of a file as soon as ``reached`` holds of it."""
    limit = time.monotonic() + seconds
    while True:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if reached(text):
            return text
        if time.monotonic() > limit:
            raise AssertionError(f"{path}: {text[-3000:]}")
        time.sleep(0.05)


def metric(text: str, name: str, **labels: str) -> float | None:
    """The value of the sample with at least these labels."""
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return float(sample.value)
    return None


def check_figures(figures: dict[str, t.Any]) -> None:
    """R86: everything that a database is to tell."""
    counters = {"tables_queued": 0, "tables_loading": 0, "tables_complete": 2, "tables_errored": 0}
    counters.update(inserts=100, updates=0, deletes=0)
    assert {key: figures[key] for key in counters} == counters
    assert figures["state"] == "Succeeded" and figures["incoming"] >= 100 <= figures["applied"]
    assert figures["latency_seconds"] is not None and figures["started"] < figures["ended"] and "message" in figures


def test_page_and_metrics_from_beginning_to_end(host, source, target, owner, shop, spec_factory, tmp_path) -> None:
    """The page reloads while the migration runs, and is the whole report afterwards; the metrics follow; the samples are kept."""
    folder = tmp_path / "collector"
    folder.mkdir()
    spec = spec_factory("watched", [shop], changes={"plugin": "pgoutput"}, monitor={"prometheus_dir": str(folder)})
    started = host.manager.start(spec)
    page, metrics = Path(started["files"]["page"]), folder / f"pg_migration_{spec.key}.prom"
    host.until_waiting(spec.key)
    with source.connect(shop, user=owner.name, password=owner.password) as conn:
        conn.execute("INSERT INTO plain SELECT generate_series(1, 100)")
    host.until(spec.key, lambda s: s["progress"][shop]["inserts"] == 100, "100 inserts")
    live = await_text(page, lambda text: "WaitingForCutoverTrigger" in text and "&lt;script&gt;alert(1)&lt;/script&gt;" in text)
    assert REFRESH in live and "<script>alert" not in live
    seen = await_text(metrics, lambda text: metric(text, "pg_migration_changes_applied_total", kind="insert") == 100)
    assert metric(seen, "pg_migration_state", state="WaitingForUserAction", migration="watched") == 1
    assert metric(seen, "pg_migration_copy_done_rows", database=shop) == 3000

    assert host.manager.status(spec.key)["after"] is None  # nothing is recommended before the proof
    status = host.cut_over(spec.key)
    final = await_text(page, lambda text: REFRESH not in text)
    for words in ("Succeeded", "Proof", "Cutover", "CONNECT revoked", "Write pause", "certificate.json", "3,100"):
        assert words in final, words
    over = await_text(metrics, lambda text: metric(text, "pg_migration_state", state="Succeeded") == 1)
    assert metric(over, "pg_migration_cutover_pause_seconds") == status["cutover"]["pause_seconds"]
    assert metric(over, "pg_migration_verified_equal", database=shop) == 1
    substates = {sample.substate for sample in History(page.with_name("history.json")).samples}
    assert {"WaitingForCutoverTrigger", "Completed"} <= substates
    check_figures(status["progress"][shop])
    assert status["after"]["connections"][shop]["uri"].endswith(f"/{shop}?sslmode=disable")
    for password in PASSWORDS.values():
        assert password not in live + final + over
    assert not [event for event in status["events"] if "page" in event["text"]]


def test_a_canceled_migration_has_its_last_page(host, shop, spec_factory) -> None:
    """The service is stopped by a cancel; who cancels writes the last page."""
    spec = spec_factory("stopped", [shop], changes={"plugin": "pgoutput"})
    host.manager.start(spec)
    host.until_waiting(spec.key)
    status = host.manager.cancel(spec.key)
    text = Path(status["files"]["page"]).read_text(encoding="utf-8")
    assert "Canceled" in text and REFRESH not in text


def test_a_folder_that_cannot_be_written_is_told_and_ends_nothing(host, shop, spec_factory, tmp_path) -> None:
    """The migration goes on, with one warning that names the trouble."""
    spec = spec_factory("unwatched", [shop], mode="offline", monitor={"prometheus_dir": str(tmp_path / "missing")})
    host.manager.start(spec)
    host.until(spec.key, lambda s: s["state"] == "Succeeded", "Succeeded")
    host.until(spec.key, lambda s: not s["service"]["running"], "the end of the service")
    status = host.manager.status(spec.key)
    warnings = [event["text"] for event in status["events"] if event["level"] == "warning" and "missing" in event["text"]]
    assert len(warnings) == 1 and Path(status["files"]["page"]).exists()


def test_forgetting_an_active_migration_cancels_it_first(host, source, target, shop, spec_factory, tmp_path) -> None:
    """R119, R107: nothing of ours is left on the source; record, folder with its secrets, and metrics are gone; the target is kept."""
    spec = spec_factory("unwanted", [shop], changes={"plugin": "pgoutput"}, monitor={"prometheus_dir": str(tmp_path)})
    folder = Path(host.manager.start(spec)["files"]["page"]).parent
    host.until_waiting(spec.key)
    assert (tmp_path / f"pg_migration_{spec.key}.prom").exists() and (folder / "secrets.json").exists()
    host.manager.forget(spec.key)
    assert host.manager.list() == [] and not folder.exists() and not list(tmp_path.glob("*.prom"))
    with source.connect() as conn:
        assert conn.execute("SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'pgm%'").fetchone() == (0,)
    with target.connect(shop) as conn:
        assert conn.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (2,)
