# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""An application's connection pool: N connections that commit at a steady rate, note every acknowledged commit, and connect again.

``writers.py DSN_FILE NOTES CONNECTIONS RATE`` runs until its standard input is closed. A line of the notes is ``connection number time``,
written when the commit was acknowledged; the time is that of the system's monotonic clock, which all processes share.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
import typing as t
from pathlib import Path

import asyncpg


async def write(number: int, dsn_file: Path, notes: list[tuple[int, int, float]], pause: float) -> None:
    """One connection of the pool, for ever."""
    count = 0
    while True:
        try:
            conn = await asyncpg.connect(dsn_file.read_text(), statement_cache_size=0, timeout=5)
        except (OSError, TimeoutError, asyncio.TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await asyncio.sleep(0.02)
            continue
        try:
            due = time.monotonic()
            while True:
                count += 1
                await conn.execute(f"INSERT INTO load.commits VALUES ({number}, {count})")
                notes.append((number, count, time.monotonic()))
                due = max(due + pause, time.monotonic() - pause)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
        except (OSError, TimeoutError, asyncio.TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            with contextlib.suppress(Exception):
                conn.terminate()


async def run(dsn_file: Path, path: Path, connections: int, rate: float) -> None:
    """The pool, until standard input ends."""
    notes: list[tuple[int, int, float]] = []
    # a server that ends a session in the middle of an answer leaves futures behind that nobody asks for
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    pool = [asyncio.create_task(write(number, dsn_file, notes, connections / rate)) for number in range(connections)]
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    for one in pool:
        one.cancel()
    await asyncio.gather(*pool, return_exceptions=True)
    path.write_text("".join(f"{number} {count} {moment:.6f}\n" for number, count, moment in notes))


def read(path: Path) -> dict[int, list[tuple[int, float]]]:
    """Connection to its acknowledged commits: number and time."""
    found: dict[int, list[tuple[int, float]]] = {}
    for line in path.read_text().splitlines():
        number, count, moment = line.split()
        found.setdefault(int(number), []).append((int(count), float(moment)))
    return found


def gaps(notes: t.Mapping[int, list[tuple[int, float]]], begin: float, end: float) -> list[float]:
    """For each connection the longest time between two acknowledged commits that overlaps ``begin`` to ``end``."""
    longest = []
    for commits in notes.values():
        times = [moment for dummy, moment in commits]
        found = [later - earlier for earlier, later in zip(times, times[1:], strict=False) if later > begin and earlier < end]
        if found:
            longest.append(max(found))
    return longest


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
