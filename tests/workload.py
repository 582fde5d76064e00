# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Writers that keep changing a database while it moves, and the account of what was promised to them.

Each writer is a session that runs transactions of every awkward kind (:data:`KINDS`). Every transaction leaves a row in
``workload.commits``; when the server has acknowledged the commit, the writer notes that in a local file. So after the
migration one can say exactly which acknowledged commits are missing on the target (there must be none), and which came from
nowhere. Where a commit's answer was lost the outcome is unknown, and either is right.

A writer that is refused reads its connection string again from a file and connects anew: a cutover's release hook writes
the target's there (:func:`point_at`), and writing goes on at the target. The time between a writer's last
acknowledged commit on the one server and its first on the other is the pause as an application feels it.

    workload = Workload(dsn_file, sessions=8, folder=tmp_path)
    workload.prepare()                # tables, once, on the source
    workload.start()
    ...
    report = workload.stop()
    account = check(target_dsn, tmp_path)
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

import psycopg

SCHEMA_SQL = Path(__file__).parent / "data" / "workload.sql"
SUM = 500 * 1000
"""What all balances add up to, always."""

Connection = psycopg.Connection[t.Any]


class Writer(threading.Thread):
    """One session. ``acknowledged`` maps a server's port to the number of commits that it confirmed."""

    def __init__(self, number: int, dsn_file: Path, folder: Path, rate: float, stop: threading.Event) -> None:
        super().__init__(name=f"writer-{number}", daemon=True)
        self.number = number
        self.dsn_file = dsn_file
        self.notes = folder / f"writer-{number}.log"
        self.think = 1 / rate
        self.stopping = stop
        self.random = random.Random(number)
        self.seq = 1 + max((n.seq for n in read_notes(self.notes)), default=0)
        self.acknowledged: collections.Counter[str] = collections.Counter()
        self.kinds: collections.Counter[str] = collections.Counter()
        self.errors: collections.Counter[str] = collections.Counter()
        self.refused = 0
        self.shop = False

    def run(self) -> None:
        """Until told to stop: connect, write until that fails, connect again."""
        with self.notes.open("a") as notes:
            while not self.stopping.is_set():
                try:
                    with psycopg.connect(self.dsn_file.read_text(), autocommit=True, application_name=f"shop writer {self.number}") as conn:
                        conn.execute("SET lock_timeout = '5s'")
                        self.shop = conn.execute("SELECT to_regclass('shop.order_item') IS NOT NULL").fetchone() == (True,)
                        self.write(conn, notes)
                except (psycopg.Error, OSError) as exc:
                    self.refused += 1
                    self.errors[getattr(exc, "sqlstate", None) or type(exc).__name__] += 1
                    self.stopping.wait(0.02 + 0.03 * self.random.random())

    def write(self, conn: Connection, notes: t.TextIO) -> None:
        """Transactions until the session breaks."""
        names, weights = list(KINDS), [weight for dummy, weight in KINDS.values()]
        while not self.stopping.is_set():
            kind = self.random.choices(names, weights)[0]
            self.seq += 1
            try:
                self.transaction(conn, kind, notes)
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected, psycopg.errors.QueryCanceled) as exc:
                self.errors[exc.sqlstate or "?"] += 1
            self.stopping.wait(self.think * self.random.expovariate(1))

    def transaction(self, conn: Connection, kind: str, notes: t.TextIO) -> None:
        """One transaction; noted as ``?`` before its COMMIT is sent, as ``+`` once it is acknowledged."""
        conn.execute("BEGIN")
        try:
            KINDS[kind][0](self, conn)
            if kind == "rollback":
                conn.execute("ROLLBACK")
                return
            conn.execute("INSERT INTO workload.commits (writer, seq, kind) VALUES (%s, %s, %s)", [self.number, self.seq, kind])
        except psycopg.Error:
            if not conn.closed:
                conn.execute("ROLLBACK")
            raise
        port = conn.info.port
        notes.write(f"? {self.seq} {port} {time.time():.6f}\n")
        notes.flush()
        conn.execute("COMMIT")
        notes.write(f"+ {self.seq} {port} {time.time():.6f}\n")
        notes.flush()
        self.acknowledged[str(port)] += 1
        self.kinds[kind] += 1

    # -- the kinds of transactions -----------------------------------------------------------------------------------

    def transfer(self, conn: Connection) -> None:
        """Money moves between two accounts."""
        amount = self.random.randrange(1, 50)
        first, second = sorted(self.random.sample(range(1, 501), 2))
        conn.execute("UPDATE workload.account SET balance = balance - %s WHERE id = %s", [amount, first])
        conn.execute("UPDATE workload.account SET balance = balance + %s WHERE id = %s", [amount, second])

    def long(self, conn: Connection) -> None:
        """A transaction that stays open while others commit."""
        self.transfer_own(conn)
        self.stopping.wait(self.random.uniform(0.1, 0.8))
        conn.execute("INSERT INTO workload.journal VALUES (%s, 'long', random(), localtimestamp)", [self.number])
        self.stopping.wait(self.random.uniform(0.1, 0.4))

    def transfer_own(self, conn: Connection) -> None:
        """Money moves between two accounts that only this writer holds for long."""
        first = 1 + (self.number * 7) % 249 * 2
        conn.execute("UPDATE workload.account SET balance = balance - 1 WHERE id = %s", [first])
        conn.execute("UPDATE workload.account SET balance = balance + 1 WHERE id = %s", [first + 1])

    def savepoint(self, conn: Connection) -> None:
        """Some of it is taken back."""
        conn.execute("INSERT INTO workload.journal VALUES (%s, 'kept', random(), localtimestamp)", [self.number])
        conn.execute("SAVEPOINT one")
        self.transfer_own(conn)
        conn.execute("DELETE FROM workload.item WHERE id / 1000000 = %s", [self.number])
        conn.execute("SAVEPOINT two")
        conn.execute("INSERT INTO workload.journal VALUES (%s, 'lost', random(), localtimestamp)", [self.number])
        conn.execute("ROLLBACK TO SAVEPOINT one")
        conn.execute("RELEASE SAVEPOINT one")
        self.transfer_own(conn)

    def rollback(self, conn: Connection) -> None:
        """All of it is taken back."""
        self.transfer_own(conn)
        conn.execute("DELETE FROM workload.item WHERE id / 1000000 = %s", [self.number])

    def move_key(self, conn: Connection) -> None:
        """The primary key itself changes, to a free one and back."""
        low, shift = self.number * 1000000, 1000
        conn.execute(
            "UPDATE workload.item SET id = CASE WHEN id < %s THEN id + %s ELSE id - %s END, version = version + 1"
            " WHERE id BETWEEN %s AND %s AND id %% 3 = %s",
            [low + shift, shift, shift, low, low + 2 * shift, self.random.randrange(3)],
        )

    def replace(self, conn: Connection) -> None:
        """A row is deleted and its key inserted again."""
        row = conn.execute(
            "DELETE FROM workload.item WHERE id = (SELECT min(id) FROM workload.item WHERE id / 1000000 = %s) RETURNING id, code",
            [self.number],
        ).fetchone()
        if row:
            conn.execute("INSERT INTO workload.item (id, code, version, stamped) VALUES (%s, %s, 7, now())", list(row))

    def swap(self, conn: Connection) -> None:
        """Two rows exchange a unique value."""
        rows = conn.execute(
            "SELECT id, code FROM workload.item WHERE id / 1000000 = %s ORDER BY random() LIMIT 2", [self.number]
        ).fetchall()
        if len(rows) == 2:
            (one, its), (other, others) = rows
            conn.execute("UPDATE workload.item SET code = %s WHERE id = %s", [others, one])
            conn.execute("UPDATE workload.item SET code = %s WHERE id = %s", [its, other])

    def truncate(self, conn: Connection) -> None:
        """Two tables are emptied together and filled again, unless somebody is reading them."""
        conn.execute("SET LOCAL lock_timeout = '0.3s'")
        conn.execute("TRUNCATE workload.scratch_a, workload.scratch_b CASCADE")
        conn.execute("INSERT INTO workload.scratch_a SELECT i, 'by ' || %s::int FROM generate_series(1, 30) i", [self.number])
        conn.execute("INSERT INTO workload.scratch_b SELECT i, i, 'by ' || %s::int FROM generate_series(1, 30) i", [self.number])

    def scratch(self, conn: Connection) -> None:
        """Rows of the two tables change and go."""
        conn.execute("UPDATE workload.scratch_b SET note = note || '.' WHERE id = %s", [self.random.randrange(1, 31)])
        conn.execute("DELETE FROM workload.scratch_b WHERE id = %s", [self.random.randrange(1, 51)])

    def copy(self, conn: Connection) -> None:
        """A thousand rows by COPY; older ones of this writer go."""
        with conn.cursor() as cursor:
            with cursor.copy("COPY workload.bulk FROM STDIN") as copy:
                for line in range(1000):
                    copy.write_row((self.number, self.seq, line, f"word\t{line}\\", f"{line}.{line:04d}0"))
            cursor.execute("DELETE FROM workload.bulk WHERE writer = %s AND seq < %s", [self.number, self.seq - 400])

    def document(self, conn: Connection) -> None:
        """A row with a large value changes elsewhere; now and then the value itself."""
        number = self.random.randrange(1, 101)
        conn.execute("UPDATE workload.document SET version = version + 1 WHERE id = %s", [number])
        if self.random.random() < 0.2:
            conn.execute("UPDATE workload.document SET body = reverse(body) || 'x', extra = NULL WHERE id = %s", [number])

    def journal(self, conn: Connection) -> None:
        """A table without a key."""
        conn.execute("INSERT INTO workload.journal VALUES (%s, 'entry', random() * 1e10, localtimestamp)", [self.number])
        conn.execute("INSERT INTO workload.queue (writer, payload) VALUES (%s, decode(md5(random()::text), 'hex'))", [self.number])
        conn.execute("DELETE FROM workload.queue WHERE writer = %s AND id < (SELECT max(id) - 500 FROM workload.queue)", [self.number])
        conn.execute(
            "UPDATE workload.journal SET number = -number WHERE ctid = (SELECT min(ctid) FROM workload.journal WHERE writer = %s)",
            [self.number],
        )

    def order(self, conn: Connection) -> None:
        """What a shop does all day (where there is one)."""
        if not self.shop:
            self.transfer(conn)
            return
        key = self.number * 1_000_000_000 + self.seq
        product = self.random.randrange(1, 100)
        conn.execute("INSERT INTO shop.orders VALUES (%s, '2025-06-01'::date + %s, 1, 'new', 10, NULL)", [key, self.seq % 300])
        conn.execute(
            "INSERT INTO shop.order_item (order_id, placed, line, product, quantity, price)"
            " SELECT %s, '2025-06-01'::date + %s, i, %s, i, 5.5 FROM generate_series(1, 3) i",
            [key, self.seq % 300, product],
        )
        conn.execute("UPDATE shop.stock SET quantity = quantity + 1 WHERE product = %s AND warehouse = 1", [product])
        conn.execute("INSERT INTO shop.orders VALUES (-%s, '2025-06-01', 1, 'new', 10, 'moves to another partition')", [key])
        conn.execute("UPDATE shop.orders SET status = 'paid', placed = placed + 365 WHERE id = -%s", [key])
        conn.execute("UPDATE shop.product SET price = price + 0.01 WHERE id = %s", [100 + self.number])
        conn.execute("SELECT nextval('shop.invoice_number')")


KINDS: dict[str, tuple[t.Callable[[Writer, Connection], None], float]] = {
    "transfer": (Writer.transfer, 8),
    "long": (Writer.long, 0.5),
    "savepoint": (Writer.savepoint, 2),
    "rollback": (Writer.rollback, 1),
    "move_key": (Writer.move_key, 2),
    "replace": (Writer.replace, 2),
    "swap": (Writer.swap, 2),
    "truncate": (Writer.truncate, 0.4),
    "scratch": (Writer.scratch, 1),
    "copy": (Writer.copy, 0.4),
    "document": (Writer.document, 2),
    "journal": (Writer.journal, 2),
    "order": (Writer.order, 4),
}
"""Kinds of transactions with their weights."""


@dataclasses.dataclass(frozen=True)
class Note:
    """A line of a writer's file: ``acknowledged`` or only sent, at the server with ``port``, at ``time`` (seconds since 1970)."""

    acknowledged: bool
    seq: int
    port: str
    time: float


def read_notes(path: Path) -> list[Note]:
    """All lines of a writer's file; a torn last line is left out."""
    if not path.exists():
        return []
    words = (line.split() for line in path.read_text().splitlines())
    return [Note(w[0] == "+", int(w[1]), w[2], float(w[3])) for w in words if len(w) == 4]


def all_notes(folder: Path) -> dict[int, list[Note]]:
    """Writer to its notes."""
    return {int(p.stem.removeprefix("writer-")): read_notes(p) for p in folder.glob("writer-*.log")}


@dataclasses.dataclass(frozen=True)
class Pause:
    """How long writing stood still, in seconds: for all (last acknowledgement there, first here) and as each writer felt it."""

    overall: float
    writers: tuple[float, ...]

    @property
    def worst(self) -> float:
        """What the unluckiest writer felt."""
        return max(self.writers, default=0.0)


def pause(folder: Path, target_port: int) -> Pause | None:
    """The write pause of the move to the server at ``target_port``; None while nobody has written there."""
    last, first, felt = 0.0, float("inf"), []
    for notes in all_notes(folder).values():
        confirmed = [n for n in notes if n.acknowledged]
        before = [n.time for n in confirmed if n.port != str(target_port)]
        after = [n.time for n in confirmed if n.port == str(target_port)]
        if before and after:
            felt.append(min(after) - max(before))
        last = max([last, *before])
        first = min([first, *after])
    return Pause(first - last, tuple(sorted(felt))) if felt else None


@dataclasses.dataclass(frozen=True)
class Account:
    """What became of the writers' commits. ``missing`` must be empty: acknowledged and not there. ``phantom`` must be empty:
    there and never sent. ``unknown``: sent, the answer was lost."""

    acknowledged: int
    present: int
    missing: list[tuple[int, int]]
    phantom: list[tuple[int, int]]
    unknown: int
    balance: int

    @property
    def good(self) -> bool:
        """Nothing missing, nothing from nowhere, the sum kept."""
        return not self.missing and not self.phantom and self.balance == SUM


def check(dsn: str, folder: Path) -> Account:
    """Compare the writers' notes in ``folder`` with the database at ``dsn``."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        present = set(conn.execute("SELECT writer, seq FROM workload.commits").fetchall())
        balance = conn.execute("SELECT sum(balance)::bigint FROM workload.account").fetchone()
    sent, acknowledged = set(), set()
    for writer, notes in all_notes(folder).items():
        sent.update((writer, n.seq) for n in notes)
        acknowledged.update((writer, n.seq) for n in notes if n.acknowledged)
    return Account(
        acknowledged=len(acknowledged),
        present=len(present),
        missing=sorted(acknowledged - present),
        phantom=sorted(present - sent),
        unknown=len(sent - acknowledged),
        balance=int(balance[0] or 0) if balance else 0,
    )


def point_at(dsn_file: Path, dsn: str) -> None:
    """Let the writers find ``dsn`` from now on; readable by the owner only, replaced as a whole."""
    fresh = dsn_file.with_name(dsn_file.name + ".new")
    fresh.touch(0o600)
    fresh.write_text(dsn)
    fresh.replace(dsn_file)


class Workload:
    """``sessions`` writers in a process of their own, at ``rate`` transactions a second each; notes go to ``folder``."""

    def __init__(self, dsn_file: Path, sessions: int = 8, *, folder: Path, rate: float = 25.0) -> None:
        self.dsn_file = dsn_file
        self.sessions = sessions
        self.folder = folder
        self.rate = rate
        self.process: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Make the writers' tables."""
        with psycopg.connect(self.dsn_file.read_text(), autocommit=True) as conn:
            conn.execute(t.cast(t.Any, SCHEMA_SQL.read_text()))

    def start(self, timeout: float = 20.0) -> None:
        """Start the writers and wait until one commit was acknowledged."""
        self.folder.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, __file__, str(self.dsn_file), str(self.folder), "--sessions", str(self.sessions), "--rate", str(self.rate)]
        with (self.folder / "writers.log").open("ab") as log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.wait_acknowledged(1, timeout)

    def acknowledged(self, port: int | None = None) -> int:
        """Commits acknowledged so far, in all or by the server at ``port``."""
        notes = (n for some in all_notes(self.folder).values() for n in some)
        return sum(1 for n in notes if n.acknowledged and (port is None or n.port == str(port)))

    def wait_acknowledged(self, number: int, timeout: float = 20.0, port: int | None = None) -> None:
        """Wait until ``number`` commits were acknowledged (by the server at ``port``).

        :raises TimeoutError: with what the writers said.
        """
        deadline = time.monotonic() + timeout
        while self.acknowledged(port) < number:
            if time.monotonic() > deadline or (self.process and self.process.poll() is not None):
                raise TimeoutError(f"writers did not get {number} commits through: {(self.folder / 'writers.log').read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> dict[str, t.Any]:
        """End the writers between two transactions; their report (counts by kind, by server and of errors)."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)
            self.process = None
        return self.report()

    def report(self) -> dict[str, t.Any]:
        """What the writers reported at their end."""
        path = self.folder / "report.json"
        return t.cast("dict[str, t.Any]", json.loads(path.read_text())) if path.exists() else {}

    def __enter__(self) -> Workload:
        self.start()
        return self

    def __exit__(self, *dummy: object) -> None:
        self.stop()


def main() -> int:
    """The writers' process: runs until SIGTERM (or until its parent is gone), then leaves ``report.json``."""
    parser = argparse.ArgumentParser(description="Keep writing to the database whose connection string is in DSN_FILE.")
    parser.add_argument("dsn_file", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--rate", type=float, default=25.0, help="transactions a second and session")
    arguments = parser.parse_args()
    stop, asked = threading.Event(), list[int]()
    for number in (signal.SIGTERM, signal.SIGINT):
        # not stop.set(): it waits for ever for a lock that the thread in which it was interrupted holds
        signal.signal(number, lambda number, dummy: asked.append(number))
    writers = [Writer(n, arguments.dsn_file, arguments.folder, arguments.rate, stop) for n in range(1, arguments.sessions + 1)]
    for writer in writers:
        writer.start()
    parent = os.getppid()
    while not asked and os.getppid() == parent:
        time.sleep(0.2)
    stop.set()
    for writer in writers:
        writer.join(20)
    totals: dict[str, collections.Counter[str]] = {name: collections.Counter() for name in ("acknowledged", "kinds", "errors")}
    for writer in writers:
        for name, counter in totals.items():
            counter.update(getattr(writer, name))
    report = {"writers": len(writers), "refused": sum(w.refused for w in writers), **totals}
    with contextlib.suppress(OSError):
        (arguments.folder / "report.json").write_text(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
