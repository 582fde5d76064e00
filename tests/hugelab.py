# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""One huge transaction, and the memory that the processes of a migration have had: for the test of B13 and for ``scripts/bench``."""

from __future__ import annotations

import contextlib
import typing as t
from pathlib import Path

import servers as lab

LIMIT = 300_000_000
"""Bytes resident that no process of a migration may exceed."""

ROLES = {"serve": "service", "receive": "receiver", "work": "worker"}
"""Roles of the engine's processes, and what they are called."""

SCHEMA = "CREATE TABLE big (id bigint PRIMARY KEY, n int NOT NULL, word text NOT NULL); CREATE TABLE last (id int PRIMARY KEY)"
ARRIVED = "SELECT EXISTS (SELECT FROM last)"
"""Is the transaction there?"""


def huge(source: lab.Server, database: str, changes: int) -> None:
    """One transaction in :data:`SCHEMA`: six tenths are inserts, three tenths updates, one tenth deletes."""
    rows = changes * 6 // 10
    with source.connect(database) as conn, conn.transaction():
        conn.execute("INSERT INTO big SELECT i, 0, md5(i::text) FROM generate_series(1, %s) i", [rows])
        conn.execute("UPDATE big SET n = n + 1, word = md5(word) WHERE id <= %s", [rows // 2])
        conn.execute("DELETE FROM big WHERE id > %s", [rows - rows // 6])
        conn.execute("INSERT INTO last VALUES (1)")


def digest(server: lab.Server, database: str, table: str) -> tuple[t.Any, ...]:
    """Number and content of the rows of ``table``."""
    return server.execute(f"SELECT count(*), sum(hashtextextended(x::text, 0)::numeric) FROM {table} AS x", database)[0]


def peaks(home: Path, key: str) -> dict[str, int]:
    """The most bytes that each process of the migration ``key`` on the runtime host ``home`` has had in memory (VmHWM of proc(5)), by what
    the process is."""
    found: dict[str, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            words = (folder / "cmdline").read_bytes().decode().split("\0")
            if key in words and str(home) in words and words[2] in ROLES:
                kilobytes = next(line.split()[1] for line in (folder / "status").read_text().splitlines() if line.startswith("VmHWM"))
                found[ROLES[words[2]]] = max(found.get(ROLES[words[2]], 0), int(kilobytes) * 1024)
    return found
