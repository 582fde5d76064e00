# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What makes a verification under load hard, besides tests/workload.py: hot rows, bursts, large transactions, TRUNCATE, and a table
without a key. ``storm.py DSN_FILE REPORT SCALE`` runs until its standard input is closed and writes its numbers of commits as JSON."""

from __future__ import annotations

import json
import random
import sys
import threading
import time
import typing as t
from pathlib import Path

import psycopg

BIG = 300_000
"""Rows of the table that large transactions write."""

KEPT = 1000
"""Its first rows, which nobody writes."""

LARGE = 60_000
"""Rows of a large transaction."""

BURST = 500
"""Commits of each of four sessions in a burst, one after the other without a pause."""

SCHEMA = f"""
CREATE TABLE big (id bigint PRIMARY KEY, n int NOT NULL, word text NOT NULL);
INSERT INTO big SELECT i, 0, md5(i::text) FROM generate_series(1, {BIG}) i;
CREATE TABLE hot (id int PRIMARY KEY, n bigint NOT NULL, at timestamptz NOT NULL);
INSERT INTO hot SELECT i, 0, now() FROM generate_series(1, 5) i;
CREATE TABLE emptied (id int PRIMARY KEY, word text);
CREATE TABLE lone (n int, word text);
ALTER TABLE lone REPLICA IDENTITY FULL;
INSERT INTO lone SELECT i, 'start' FROM generate_series(1, 500) i;
CREATE TABLE burst (session int, n bigint, at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (session, n));
"""
Connection = psycopg.Connection[t.Any]


def hot(conn: Connection, chance: random.Random, dummy: int) -> None:
    """One row of five, about a hundred times a second in all."""
    conn.execute("UPDATE hot SET n = n + 1, at = clock_timestamp() WHERE id = %s", [chance.randrange(1, 6)])


def burst(conn: Connection, dummy: random.Random, number: int) -> None:
    """As many commits as the server takes."""
    for n in range(BURST):
        conn.execute("INSERT INTO burst VALUES (%s, %s)", [number, n])
    conn.execute("DELETE FROM burst WHERE session = %s", [number])


def large(conn: Connection, chance: random.Random, dummy: int) -> None:
    """One transaction of many rows: updated, or removed and inserted again."""
    first = chance.randrange(KEPT + 1, BIG - LARGE)
    with conn.transaction():
        if chance.random() < 0.5:
            conn.execute("UPDATE big SET n = n + 1, word = md5(word) WHERE id BETWEEN %s AND %s", [first, first + LARGE])
        else:
            half = first + LARGE // 2
            conn.execute("DELETE FROM big WHERE id BETWEEN %s AND %s", [first, half])
            conn.execute("INSERT INTO big SELECT i, -1, md5(i::text) FROM generate_series(%s::int, %s::int) i", [first, half])


def truncate(conn: Connection, chance: random.Random, dummy: int) -> None:
    """Emptied and filled again."""
    with conn.transaction():
        conn.execute("TRUNCATE emptied")
        conn.execute("INSERT INTO emptied SELECT i, md5(i::text) FROM generate_series(1, %s) i", [chance.randrange(1, 3000)])


def lone(conn: Connection, chance: random.Random, dummy: int) -> None:
    """Rows of the table without a key; values go forth and back."""
    conn.execute("UPDATE lone SET word = CASE word WHEN 'start' THEN 'other' ELSE 'start' END WHERE n = %s", [chance.randrange(1, 501)])


KINDS: dict[str, tuple[t.Callable[[Connection, random.Random, int], None], float, int, int]] = {
    "hot": (hot, 0.01, 1, 1),
    "burst": (burst, 30.0, 4, BURST + 1),
    "large": (large, 15.0, 1, 1),
    "truncate": (truncate, 3.0, 1, 1),
    "lone": (lone, 0.05, 1, 1),
}
"""Kind to what it does, seconds between two, sessions, commits of one."""


def session(kind: str, number: int, dsn: str, scale: float, over: threading.Event, commits: dict[str, int]) -> None:
    """One session of ``kind`` until ``over``; what is refused (deadlocks with the verification's locks and the like) is tried again."""
    work, pause, dummy, counted = KINDS[kind]
    chance = random.Random(f"{kind} {number}")
    while not over.is_set():
        try:
            with psycopg.connect(dsn, autocommit=True) as conn:
                due = time.monotonic()
                while not over.is_set():
                    work(conn, chance, number)
                    commits[f"{kind} {number}"] += counted
                    due = max(due + pause / scale, time.monotonic())
                    over.wait(due - time.monotonic())
        except psycopg.Error as exc:
            sys.stderr.write(f"{kind}: {exc}\n")
            over.wait(0.5)


def main() -> None:
    """All sessions, until standard input ends."""
    dsn, over = Path(sys.argv[1]).read_text(), threading.Event()
    commits = {f"{kind} {number}": 0 for kind, (dummy, pause, sessions, one) in KINDS.items() for number in range(sessions)}
    threads = []
    for name in commits:
        kind, number = name.split()
        threads.append(threading.Thread(target=session, args=(kind, int(number), dsn, float(sys.argv[3]), over, commits), daemon=True))
    for thread in threads:
        thread.start()
    sys.stdin.buffer.read()
    over.set()
    for thread in threads:
        thread.join(60)
    Path(sys.argv[2]).write_text(json.dumps(commits))


if __name__ == "__main__":
    main()
