# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Law 11: passwords of both endpoints, in every playbook at ``-vvv``: not in what is shown, in logs, in state, in any process's
arguments or environment, in unit files. The source's stands in a vault, the target's in a password file that a service names."""

from __future__ import annotations

import os
import re
import secrets
import stat
import subprocess
import sys
import threading
import typing as t
from pathlib import Path

import pytest
import servers as lab
import yaml
from pair import describe, make_target

REPO = Path(__file__).resolve().parents[2]
COURSE = ("prepare_source", "validate", "migrate", "status", "verify", "cancel", "cleanup", "again", "cutover")
"""Playbooks in their order; ``again`` is ``migrate`` under another name."""
KEPT = "secrets"
"""The one place: a file that the service's user alone can read, until the migration has ended."""


class Watch:
    """Looks at arguments and environments of all processes of this machine, as often as it can."""

    def __init__(self, canaries: t.Sequence[str]) -> None:
        self._canaries = [canary.encode() for canary in canaries]
        self.seen: set[str] = set()
        self.looks = 0
        self._stop = threading.Event()
        self._worker = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._worker.start()
        return self

    def __exit__(self, *dummy: t.Any) -> None:
        self._stop.set()
        self._worker.join()

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            self.looks += 1
            for folder in os.scandir("/proc"):
                if folder.name.isdigit():
                    self._look(Path(folder.path))

    def _look(self, folder: Path) -> None:
        for name in ("cmdline", "environ"):
            try:
                text = (folder / name).read_bytes()
            except OSError:
                continue
            if any(canary in text for canary in self._canaries):
                self.seen.add(f"{name}: {text[:200]!r}")


@pytest.fixture
def canaries(source: lab.Server) -> t.Iterator[tuple[lab.Server, str, str]]:
    """A target of its own, and passwords that stand nowhere else on this machine, with characters that programs like to quote."""
    target = make_target("canary")
    left, right = (f"canary-{side}-{secrets.token_hex(6)}'$ %" for side in ("source", "target"))
    for server, name, password in ((source, "canary_mover", left), (target, "canary_admin", right)):
        quoted = password.replace("'", "''")
        server.execute(f"SET log_statement = 'none'; CREATE ROLE {name} LOGIN PASSWORD '{quoted}'")
    source.execute("ALTER ROLE canary_mover REPLICATION; GRANT app, pg_signal_backend, pg_read_all_data TO canary_mover")
    target.execute("ALTER ROLE canary_admin CREATEDB CREATEROLE; GRANT SET ON PARAMETER session_replication_role TO canary_admin")
    yield target, left, right
    source.execute("DROP OWNED BY canary_mover")
    source.execute("DROP ROLE canary_mover")
    target.drop()


def vault(folder: Path, variables: dict[str, str]) -> Path:
    """Encrypt ``variables`` beside the inventory, as docs/inventory.md says; the file with the vault's password."""
    key, file = folder / "vault_password", folder / "group_vars" / "all" / "vault.yml"
    key.write_text(secrets.token_hex(12), encoding="utf-8")
    key.chmod(0o600)
    file.parent.mkdir(parents=True)
    file.write_text(yaml.safe_dump(variables), encoding="utf-8")
    program = str(Path(sys.executable).with_name("ansible-vault"))
    subprocess.run([program, "encrypt", "--vault-password-file", str(key), str(file)], check=True, capture_output=True)
    assert file.read_text(encoding="utf-8").startswith("$ANSIBLE_VAULT;")
    return key


def test_a_canary_is_found_nowhere(source: lab.Server, source_database: str, canaries: tuple[lab.Server, str, str], tmp_path: Path) -> None:
    target, left, right = canaries
    home = tmp_path / "home"
    source.execute("CREATE TABLE a (i int PRIMARY KEY); INSERT INTO a VALUES (1); ALTER TABLE a OWNER TO app", source_database)
    kept, services = tmp_path / "passwords", tmp_path / "services"
    kept.write_text(f"*:{target.port}:postgres:canary_admin:{right}\n", encoding="utf-8")
    kept.chmod(0o600)
    address = f"host={target.host}\nport={target.port}\nuser=canary_admin\nsslmode=disable\npassfile={kept}\n"
    services.write_text(f"[canary]\n{address}", encoding="utf-8")
    described = describe(
        source, target, "canary", [source_database], source={"user": "canary_mover", "password": "{{ vault_source_password }}"}
    )
    described["target"] = {"type": "self_managed", "service": "canary", "service_file": str(services)}
    variables = {
        "pg_migration": described,
        "pg_migration_home": str(home),
        "pg_migration_supervisor": "process",
        "pg_migration_python": sys.executable,
    }
    inventory = tmp_path / "inventory.yml"
    inventory.write_text(yaml.safe_dump({"all": {"vars": variables}}), encoding="utf-8")
    key = vault(tmp_path, {"vault_source_password": left})
    forms = [left, right, left.replace("'", "''"), right.replace("'", "''"), left[:20], right[:20]]
    log = tmp_path / "ansible.log"
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(REPO / ".work" / "link"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOG_PATH": str(log),
    }
    said = ""
    with Watch(forms) as watch:
        for playbook in COURSE:
            more = ["-e", "pg_migration_run_drop_target=true"] if playbook == "cleanup" else []
            if playbook == "again":
                variables["pg_migration"]["name"] = "canary-again"
                inventory.write_text(yaml.safe_dump({"all": {"vars": variables}}), encoding="utf-8")
                playbook = "migrate"
            command = [
                str(Path(sys.executable).with_name("ansible-playbook")),
                f"pgops.migration.{playbook}",
                "-i",
                str(inventory),
                "--vault-password-file",
                str(key),
                "-vvv",
                "--diff",
                *more,
            ]
            done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False, timeout=900)
            said += done.stdout + done.stderr
            assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
            if playbook == "migrate":
                held = [path for path in home.rglob("*") if path.is_file() and left.encode() in path.read_bytes()]
                assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 and KEPT in path.name for path in held), held
                state = [home / "catalogue.db", *(home / "migrations").rglob("*")]
                assert len(state) > 10 and [path for path in state if stat.S_IMODE(path.stat().st_mode) & 0o077] == []
    assert watch.looks > 50 and watch.seen == set()
    for form in forms:
        assert form not in said and form not in log.read_text(encoding="utf-8")
    units = [path for folder in ("/etc/systemd/system", "/run/systemd") for path in Path(folder).rglob("*pg-migration*") if path.is_file()]
    for path in [*home.rglob("*"), *units, source.log, target.log]:
        if path.is_file() and KEPT not in path.name:
            text = path.read_bytes()
            assert not any(form.encode() in text for form in forms), path
    assert not re.search(r"SCRAM-SHA-256\$\d", said)


def test_the_watch_would_see_it() -> None:
    """A canary in an argument is seen, or the test above would prove nothing."""
    with Watch(["canary-seen"]) as watch:
        subprocess.run([sys.executable, "-c", "import time; time.sleep(1)", "canary-seen"], check=True)
    assert any(text.startswith("cmdline") for text in watch.seen)
    with Watch(["canary-env"]) as watch:
        subprocess.run([sys.executable, "-c", "import time; time.sleep(1)"], env={"X": "canary-env"}, check=True)
    assert any(text.startswith("environ") for text in watch.seen)
