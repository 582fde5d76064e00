# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The module ``pg_cdc_stream`` as Ansible runs it: started, stopped and absent, each in check mode, for real, and again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import servers as lab
import yaml
from host import Host
from pair import describe, make_target

REPO = Path(__file__).resolve().parents[2]
STEPS: tuple[tuple[str, dict[str, t.Any], bool], ...] = (
    ("near", {"wait_for": {"latency_seconds": 5, "lag_bytes": 10_000_000, "lsn": "LSN"}}, False),
    ("stop?", {"state": "stopped"}, True),
    ("stop", {"state": "stopped"}, False),
    ("stop again", {"state": "stopped"}, False),
    ("start?", {"state": "started"}, True),
    ("start", {"state": "started", "wait_for": {"latency_seconds": 5}}, False),
    ("start again", {"state": "started"}, False),
    ("away?", {"state": "absent"}, True),
    ("away", {"state": "absent", "drop_target": True}, False),
    ("away again", {"state": "absent", "drop_target": True}, False),
)
"""Name, options, check mode."""


@pytest.fixture
def target() -> t.Iterator[lab.Server]:
    """A target of this test's own: a migration leaves roles on it."""
    server = make_target()
    yield server
    server.drop()


@pytest.fixture
def host(tmp_path: Path) -> t.Iterator[Host]:
    """A runtime host."""
    one = Host(tmp_path / "home")
    yield one
    one.close()


def play(folder: Path, host: Host, options: dict[str, t.Any], lsn: str) -> dict[str, dict[str, t.Any]]:
    """All :data:`STEPS` in one playbook; what the module said to each."""
    tasks: list[dict[str, t.Any]] = []
    for number, (name, more, check) in enumerate(STEPS):
        given = json.loads(json.dumps({**options, **more}).replace('"LSN"', json.dumps(lsn)))
        task = {"name": name, "pgops.migration.pg_cdc_stream": given, "register": f"step{number}", "check_mode": check, "diff": True}
        tasks.append(task)
    said = "{{ {" + ", ".join(f"'{name}': step{number}" for number, (name, dummy, dummy2) in enumerate(STEPS)) + "} | to_json }}"
    tasks.append({"name": "Tell", "ansible.builtin.copy": {"content": said, "dest": str(folder / "said.json"), "mode": "0600"}})
    book = folder / "play.yml"
    variables = {"ansible_python_interpreter": sys.executable, "ansible_connection": "local"}
    book.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "vars": variables, "tasks": tasks}]))
    command = [str(Path(sys.executable).with_name("ansible-playbook")), str(book), "-i", "localhost,"]
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(REPO / ".work" / "link"), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False, timeout=300)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:] + host.log(options["name"])
    assert options["source"]["password"] not in done.stdout
    return t.cast("dict[str, dict[str, t.Any]]", json.loads((folder / "said.json").read_text()))


def test_started_stopped_absent(host, source, target, owner, source_database, spec_factory, tmp_path) -> None:
    """Each state is reached once, and played again changes nothing; check mode tells the same and does nothing; counters by table."""
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute("CREATE TABLE item (id int PRIMARY KEY, n int); CREATE TABLE other (id int PRIMARY KEY)")
    options = describe(source, target, "module", [source_database], changes={"plugin": "pgoutput", "heartbeat": 0.3})
    spec = spec_factory("module", [source_database], changes={"plugin": "pgoutput", "heartbeat": 0.3})
    host.manager.start(spec)
    host.until_waiting(spec.key)
    with source.connect(source_database, owner.name, owner.password) as conn:
        conn.execute("INSERT INTO item SELECT i, 0 FROM generate_series(1, 10) i")
        conn.execute("UPDATE item SET n = 1 WHERE id <= 4")
        conn.execute("DELETE FROM item WHERE id = 10")
        conn.execute("TRUNCATE other")
        lsn = conn.execute("SELECT pg_current_wal_lsn()::text").fetchone()[0]
    said = play(tmp_path, host, {**options, "home": str(host.home), "supervisor": "process", "wait_timeout": 60}, lsn)
    changed = {name: result["changed"] for name, result in said.items()}
    assert changed == {name: name in ("stop?", "stop", "start?", "start", "away?", "away") for name, dummy, dummy2 in STEPS}
    near = said["near"]["databases"][source_database]
    assert said["near"]["reached"] and near["state"] == "InProgress" and near["error"] is None
    assert near["tables"]["public.item"] == {"inserts": 10, "updates": 4, "deletes": 1, "truncates": 0, "applied": 15, "errors": 0}
    assert near["tables"]["public.other"]["truncates"] == 1
    assert (near["inserts"], near["updates"], near["deletes"], near["applied"]) == (10, 4, 1, 16)
    assert near["tables_complete"] == 2 and near["incoming"] > 0 and near["started"] and near["lag_bytes"] is not None
    assert said["stop?"]["diff"] == {"before": {"service": "running"}, "after": {"service": "stopped"}}
    assert said["start?"]["diff"]["after"]["service"] == "running" and said["start"]["reached"]
    assert said["stop again"]["summary"].endswith("play migrate again)")
    assert any("slot" in text for text in said["away"]["removed"]) and said["away"]["dropped"] == [source_database]
    assert said["away again"]["state"] == "Canceled"
    with source.connect(source_database) as conn:
        assert conn.execute("SELECT count(*) FROM pg_publication").fetchone() == (0,)
        assert conn.execute("SELECT count(*) FROM pg_replication_slots WHERE database = current_database()").fetchone() == (0,)
    assert target.execute(f"SELECT count(*) FROM pg_database WHERE datname = '{source_database}'") == [(0,)]
