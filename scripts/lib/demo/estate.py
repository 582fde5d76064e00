# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What the demo stands on: two servers, the shop in one of them, the inventory; and how all of it is removed again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

import pair
import servers as lab

REPO = Path(__file__).resolve().parents[3]
HOME = REPO / ".work" / "demo"
RUNTIME = HOME / "pg_migration"
DATA = REPO / "tests" / "data"
DATABASE = "shop"
NAME = "shop-demo"


def servers_folder() -> Path:
    """A folder into which the servers' user may go: below the checkout, or in ``/var/tmp``."""
    if lab.reachable(HOME):
        folder = HOME / "servers"
        folder.mkdir(exist_ok=True)
    else:
        folder = Path(tempfile.mkdtemp(prefix="pg-migration-demo-", dir="/var/tmp"))
    lab.hand_over(folder)
    (HOME / "servers.json").write_text(json.dumps(str(folder)))
    return folder


def clean() -> None:
    """Stop and remove everything that a demo has left."""
    end_services()
    remove_servers()
    shutil.rmtree(HOME, ignore_errors=True)


def remove_servers() -> None:
    """Stop both servers and remove their data."""
    note = HOME / "servers.json"
    if note.exists():
        folder = Path(json.loads(note.read_text()))
        for state in folder.glob("*/server.json"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                lab.Server.attach(state.parent).drop()
        shutil.rmtree(folder, ignore_errors=True)
        note.unlink()


def end_services() -> None:
    """End the migration services that were started for the demo: what says so in its pid file and is still what it was."""
    for pidfile in RUNTIME.glob("migrations/*/pid"):
        with contextlib.suppress(OSError, ValueError):
            pid = int(pidfile.read_text().split()[0])
            if str(RUNTIME) in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(pid, signal.SIGTERM)
                for dummy in range(50):
                    if not Path(f"/proc/{pid}").exists():
                        break
                    time.sleep(0.1)


def start_servers() -> tuple[lab.Server, lab.Server]:
    """A source with logical decoding and a target whose migration user is no superuser."""
    folder = servers_folder()
    settings = {"shared_buffers": "256MB", "max_wal_size": "4GB"}
    source = pair.make_source(folder=folder / "source", outlive=True, settings=settings)
    target = pair.make_target(folder=folder / "target", outlive=True, settings=settings)
    source.execute("GRANT SELECT ON pg_authid TO migrator")  # so that passwords can move; in the database postgres only, which stays
    return source, target


def load_shop(source: lab.Server, scale: str) -> int:
    """Make the database, fill it; the number of rows."""
    source.execute((DATA / "shop_roles.sql").read_text())
    source.create_database(DATABASE, pair.OWNER)
    with source.connect(DATABASE, pair.OWNER, pair.PASSWORDS[source.port]) as conn:
        conn.execute("SELECT set_config('shop.scale', %s, false)", [scale])
        conn.execute(t.cast(t.Any, (DATA / "shop.sql").read_text()))
    rows = source.execute(
        "SELECT sum(reltuples)::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
        " WHERE relkind = 'r' AND reltuples > 0 AND nspname !~ '^pg_|^information_schema'",
        DATABASE,
    )
    return int(rows[0][0])


def wal2json_version(server: lab.Server) -> str:
    """The version of wal2json, as Debian's package has it; empty where there is none."""
    if not lab.has_wal2json(server.bindir):
        return ""
    words = ["dpkg-query", "-W", "-f", "${Version}", f"postgresql-{server.major}-wal2json"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "of unknown version"


def write_inventory(source: lab.Server, target: lab.Server, plugin: str) -> Path:
    """The inventory: one host (this one), one dict. It holds passwords, so only its owner may read it."""
    release = HOME / "release.sh"
    release.write_text(
        "# The cutover runs this when the target may be written: say so, and wait until the writers have been let in.\n"
        f"touch '{HOME}/ask'\n"
        "left=1000\n"
        f"while [ ! -e '{HOME}/go' ] && [ $left -gt 0 ]; do sleep 0.01; left=$((left - 1)); done\n"
        f"[ -e '{HOME}/go' ]\n"
    )
    described = pair.describe(
        source,
        target,
        NAME,
        [DATABASE],
        option="validate_and_migrate",
        mode="online",
        changes={"plugin": plugin},
        cutover={"release": ["/bin/sh", str(release)]},
    )
    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "pg_migration_home": str(RUNTIME),
        "pg_migration_supervisor": "process",
        "pg_migration_python": sys.executable,
        "pg_migration": described,
    }
    inventory = HOME / "inventory.json"
    inventory.touch(0o600)
    inventory.write_text(json.dumps({"all": {"hosts": {"localhost": variables}}}, indent=2))
    return inventory


def status() -> dict[str, t.Any]:
    """What the migration says of itself, as the module ``pg_migration_info`` reads it."""
    from ansible_collections.pgops.migration.plugins.module_utils._engine.service.manager import Manager

    return Manager(RUNTIME, supervisor="process").status(NAME) or {}
