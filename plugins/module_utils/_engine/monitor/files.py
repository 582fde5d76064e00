# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Writing page and Prometheus file: replaced atomically, so that a reader sees the old or the new text, never half of one."""

from __future__ import annotations

import os
import time
import typing as t
from pathlib import Path

from ..migration.paths import MigrationPaths, own
from . import page, prometheus
from .history import History
from .text import Status

PRIVATE, PUBLIC = 0o600, 0o644
"""Modes of what lies in the migration's folder, and of what others are to read."""


def write_text(path: Path, text: str, mode: int = PRIVATE) -> bool:
    """Make ``text`` the content of ``path``; False if it is that already.

    :raises OSError: as the system does.
    """
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
    return True


def prometheus_file(folder: Path, key: str) -> Path:
    """The file of one migration in a folder of node_exporter's textfile collector."""
    return folder / f"pg_migration_{key}.prom"


def write(paths: MigrationPaths, status: Status, statuses: t.Sequence[Status], history: History, folder: Path | None) -> None:
    """Write the page into the migration's folder, and the Prometheus file into ``folder`` where one is given.

    :raises OSError: if a file cannot be written.
    """
    moment = time.time()
    history.keep_copies(status)
    write_text(paths.page, page.render(status, statuses, history.samples, moment))
    own(paths.page, paths.home)
    if folder:
        write_text(prometheus_file(folder, paths.key), prometheus.render(status, moment), PUBLIC)
