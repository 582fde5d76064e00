# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The systemd unit of the migration services: systemd understands it, and it is as little exposed as the documentation says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import jinja2
import pytest

REPO = Path(__file__).resolve().parents[2]
TEMPLATE = REPO / "roles" / "pg_migration_runtime" / "templates" / "pg-migration@.service.j2"
PROGRAM = shutil.which("systemd-analyze")


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit as the role writes it."""
    template = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False).from_string(TEMPLATE.read_text(encoding="utf-8"))
    values = {
        "user": "pg_migration",
        "home": "/var/lib/pg_migration",
        "interpreter": sys.executable,
        "prometheus_dir": "/var/lib/metrics",
        "writable_paths": ["/etc/pgbouncer"],
    }
    path = tmp_path / "pg-migration@.service"
    named = {f"pg_migration_runtime_{name}": value for name, value in values.items()}
    path.write_text(template.render(ansible_managed="Ansible", **named), encoding="utf-8")
    return path


def exposure(unit: Path) -> float:
    """What ``systemd-analyze security`` makes of ``unit``, from 0 (safe) to 10."""
    command = [str(PROGRAM), "security", "--offline=true", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "offline" in done.stderr:
        pytest.skip(f"this systemd judges no files (before 250): {done.stderr.strip()}")
    found = re.search(r"Overall exposure level for .*: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    return float(found[1])


@pytest.mark.skipif(PROGRAM is None, reason="needs systemd-analyze")
def test_exposure_is_as_documented(unit: Path) -> None:
    """The figure of docs/security.md holds; a unit without one of its walls is seen to be worse."""
    said = re.search(r"exposure of ([0-9.]+)", (REPO / "docs" / "security.md").read_text(encoding="utf-8"))
    assert said and exposure(unit) <= float(said[1])
    unit.write_text(unit.read_text(encoding="utf-8").replace("CapabilityBoundingSet=\n", ""), encoding="utf-8")
    assert exposure(unit) > float(said[1])


@pytest.mark.skipif(PROGRAM is None, reason="needs systemd-analyze")
def test_systemd_understands_it(unit: Path) -> None:
    """No word of it is unknown to systemd."""
    done = subprocess.run([str(PROGRAM), "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if unit.name in line]) == (0, [])


def test_its_files_are_its_own(unit: Path) -> None:
    """No file of a service can be read by others, whatever it forgets; it writes at home, where its figures go, and where it may."""
    lines = unit.read_text(encoding="utf-8").splitlines()
    assert not any("password" in line.lower() or line.startswith("Environment") for line in lines)  # R117
    assert {"UMask=0077", "ProtectSystem=strict", "NoNewPrivileges=true", "User=pg_migration"} <= set(lines)
    written = [line for line in lines if line.startswith("ReadWritePaths=")]
    assert written == ["ReadWritePaths=/var/lib/pg_migration", "ReadWritePaths=-/var/lib/metrics", 'ReadWritePaths="-/etc/pgbouncer"']
