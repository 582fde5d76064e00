# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The process that holds a database's exported snapshot (``cli.py hold``), and a worker's ways to start it, find it again and end it.

A snapshot ends with the session that exported it. Held by a small process of its own session, it outlives a killed worker or service, and
the next worker goes on with the chunks that are left instead of copying tables again. One database has one holder at a time. It ends

* when it is told to (SIGTERM by :meth:`TakenSnapshot.close`): the last row is copied, or the snapshot is of no use any more;
* when its session ends: the source was restarted, or a cancel ended what is ours on the source, even one that lost our state;
* when no worker has used it for :data:`PATIENCE` seconds: a snapshot holds back VACUUM on the source (law 9).

The kernel drops file locks with the process that holds them, so a lock, not a process id, says who is there: ``holder.lock`` is held by
the holder, ``holder.use`` by the worker that copies.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import select
import signal
import subprocess  # nosec: our own engine
import sys
import time
import typing as t
from pathlib import Path

from ..errors import ConnectionFailed, MigrationError, ServiceError
from ..migration.paths import MigrationPaths, read_json, write_json
from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_literal
from ..postgres.lsn import format_lsn, parse_lsn
from ..postgres.session import connect
from ..source.slot import ExportedSlot, create_slot
from ..spec import MigrationSpec

PATIENCE = 900.0
"""Seconds for which a snapshot that nobody uses is kept for a service that was killed or stopped."""

LOOK = 1.0
"""Seconds between two looks whether a worker is there."""

END_SECONDS = 10.0
"""How long a holder may take to end before it is killed."""

USE_SECONDS = 60.0
"""How long a worker waits for the end of an older one of the same database."""


class HeldSnapshot:
    """A snapshot exported by an ordinary session, for an offline migration.

    ``consistent_point`` is the WAL position at that moment: only a number that tells one such snapshot from another.
    """

    def __init__(self, spec: MigrationSpec, database: str) -> None:
        self._conn = connect(spec.source, database, purpose="snapshot")
        self._conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        where = "pg_current_wal_lsn()" if self._conn.info.server_version >= 100000 else "pg_current_xlog_location()"
        replica = self._conn.execute("SELECT pg_is_in_recovery()").fetchone()
        if replica and replica[0]:
            where = where.replace("current_wal", "last_wal_replay").replace("current_xlog", "last_xlog_replay")
        row = self._conn.execute(f"SELECT pg_export_snapshot(), {where}::text").fetchone()
        if row is None:
            raise MigrationError(f"{spec.source.label(database)} exported no snapshot.")
        self.snapshot: str = row[0]
        self.consistent_point: int = parse_lsn(row[1])

    def alive(self, timeout: float) -> bool:
        """Sleep ``timeout`` seconds, or less if the session ends; is it still there?"""
        readable, dummy, dummy2 = select.select([self._conn.fileno()], [], [], timeout)
        if not readable:
            return True
        try:
            self._conn.pgconn.consume_input()
        except psycopg.Error:
            return False
        return self._conn.pgconn.status == psycopg.pq.ConnStatus.OK

    def close(self) -> None:
        """End the transaction that holds the snapshot."""
        self._conn.close()


@dataclasses.dataclass(frozen=True)
class Order:
    """What a holder is to export: ``slot`` makes the stream's slot, ``temporary`` one that goes with the holder, ``plain`` none."""

    kind: str
    name: str = ""
    plugin: str = ""


@dataclasses.dataclass(frozen=True)
class _Files:
    """The holder's files in the work folder of one database."""

    work: Path

    @property
    def facts(self) -> Path:
        """Process id, snapshot and start LSN; there for as long as the snapshot can be used."""
        return self.work / "holder.json"

    @property
    def lock(self) -> Path:
        return self.work / "holder.lock"

    @property
    def use(self) -> Path:
        return self.work / "holder.use"


class _FileLock:
    """An exclusive lock on ``path``; its text is the process id of whoever has it."""

    def __init__(self, path: Path) -> None:
        self._file: t.IO[str] = path.open("a+", encoding="utf-8")

    def take(self, seconds: float = 0.0) -> bool:
        """Take it within ``seconds``."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(0.02)
        self._file.seek(0)
        self._file.truncate()
        self._file.write(str(os.getpid()))
        self._file.flush()
        return True

    def taken(self) -> bool:
        """Does somebody else hold it?"""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._file, fcntl.LOCK_UN)
        return False

    def owner(self) -> int:
        """Process id that whoever holds the lock has written; 0 before that."""
        self._file.seek(0)
        text = self._file.read().strip()
        return int(text) if text.isdigit() else 0

    def close(self) -> None:
        """Let go."""
        self._file.close()


class TakenSnapshot:
    """A held snapshot in the hands of the worker that copies under it."""

    def __init__(self, desk: SnapshotDesk, snapshot: str, consistent_point: int) -> None:
        self._desk = desk
        self.snapshot = snapshot
        self.consistent_point = consistent_point

    def close(self) -> None:
        """End the snapshot; nothing happens if it has ended."""
        self._desk.end(self.snapshot)


class SnapshotDesk:
    """A worker's dealings with the holder of its database. There is one desk a worker; it keeps the holder from losing patience.

    :raises ServiceError: PGM8010 if another worker of this database does not end.
    """

    def __init__(self, paths: MigrationPaths, spec: MigrationSpec, database: str) -> None:
        self._paths = paths
        self._spec = spec
        self._database = database
        work = paths.work(database)
        work.mkdir(parents=True, exist_ok=True)
        self._files = _Files(work)
        self._use = _FileLock(self._files.use)
        if not self._use.take(USE_SECONDS):
            raise ServiceError(f"Another worker of {database} does not end.", code="PGM8010", hint=f"See {paths.log}.")

    def close(self) -> None:
        """The worker is done; a snapshot that it did not end is kept for the next one."""
        self._use.close()

    def export(self, order: Order, waiting: t.Callable[[str], None] | None = None) -> TakenSnapshot:
        """Start a holder and answer with its snapshot; one that is there is ended first.

        :param waiting: told once a second whom the source waits for before it makes the slot; what it raises is raised.
        :raises MigrationError: what the holder met; it is gone then.
        """
        self.end()
        command = self._paths.command("hold", self._database)
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, cwd="/", text=True)
        try:
            answer = _talk(process, order, waiting or _unheard)
        except BaseException:
            process.kill()
            process.wait()
            raise
        if "error" in answer:
            process.wait()
            raise MigrationError.from_dict(answer["error"])
        return TakenSnapshot(self, answer["snapshot"], parse_lsn(answer["consistent_point"]))

    def take_up(self) -> TakenSnapshot | None:
        """The snapshot that an earlier worker left, if it can still be used."""
        facts = read_json(self._files.facts)
        if not facts or not self._held():
            return None
        try:
            with connect(self._spec.source, self._database, purpose="snapshot") as conn:
                conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                conn.execute(f"SET TRANSACTION SNAPSHOT {quote_literal(facts['snapshot'])}".encode())
                conn.execute("ROLLBACK")
        except psycopg.Error:
            return None
        return TakenSnapshot(self, facts["snapshot"], parse_lsn(facts["consistent_point"]))

    def end(self, snapshot: str = "") -> None:
        """End the holder (of ``snapshot``, or whatever it holds) and wait until it is gone."""
        facts = read_json(self._files.facts)
        if snapshot and (not facts or facts["snapshot"] != snapshot):
            return
        deadline = time.monotonic() + END_SECONDS
        number = signal.SIGTERM
        lock = _FileLock(self._files.lock)
        while lock.taken():
            if pid := lock.owner():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            if time.monotonic() > deadline:
                number = signal.SIGKILL
            time.sleep(0.02)
        lock.close()
        self._files.facts.unlink(missing_ok=True)

    def _held(self) -> bool:
        lock = _FileLock(self._files.lock)
        try:
            return lock.taken()
        finally:
            lock.close()


def hold(paths: MigrationPaths, spec: MigrationSpec, database: str, patience: float = PATIENCE) -> int:
    """The holder's whole life; the exit status. The order comes as a line on standard input, facts or error go to standard output."""
    files = _Files(paths.work(database))
    lock = _FileLock(files.lock)
    stopped = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    if not lock.take(END_SECONDS):
        _say(error=ServiceError(f"A snapshot of {database} is held already.", code="PGM8010").to_dict())
        return 3
    line = sys.stdin.readline()
    if not line:  # the worker was killed before it could say what it wants
        return 1
    try:
        order = Order(**json.loads(line))
        held = _make(spec, database, order, lambda text: _wait_on(text, stopped))
    except MigrationError as exc:
        _say(error=exc.to_dict())
        return 1
    facts = {"pid": os.getpid(), "kind": order.kind, "snapshot": held.snapshot, "consistent_point": format_lsn(held.consistent_point)}
    write_json(files.facts, facts)
    _say(**facts)
    _let_go_of_the_worker()
    try:
        _wait(held, files, stopped, patience)
    finally:
        files.facts.unlink(missing_ok=True)
        held.close()
        lock.close()
    return 0


def _wait_on(text: str, stopped: t.Sequence[int]) -> None:
    """Tell the worker whom the source waits for; with nobody there to hear it, or told to end, there is no use in waiting."""
    if not _say(waiting=text) or stopped:
        raise ServiceError("The holder of the snapshot was told to end.")


def _make(spec: MigrationSpec, database: str, order: Order, waiting: t.Callable[[str], None]) -> HeldSnapshot | ExportedSlot:
    if order.kind == "plain":
        return HeldSnapshot(spec, database)
    failover = order.kind == "slot" and spec.changes.failover_slot
    temporary = order.kind == "temporary"
    return create_slot(spec.source, database, order.name, order.plugin, temporary=temporary, failover=failover, waiting=waiting)


def _wait(held: HeldSnapshot | ExportedSlot, files: _Files, stopped: t.Sequence[int], patience: float) -> None:
    """Return when the snapshot has ended or is not needed."""
    use = _FileLock(files.use)
    used = time.monotonic()
    while not stopped and _alive(held):
        if use.taken():
            used = time.monotonic()
        if time.monotonic() - used > patience:
            sys.stderr.write(f"holder: nobody has used the snapshot {held.snapshot} for {patience:.0f} s; it ends\n")
            return


def _alive(held: HeldSnapshot | ExportedSlot) -> bool:
    return held.alive(LOOK) if isinstance(held, HeldSnapshot) else held.connection.alive(LOOK)


def _unheard(dummy: str) -> None:
    """Nobody wants to know whom the source waits for."""


def _talk(process: subprocess.Popen[str], order: Order, waiting: t.Callable[[str], None]) -> dict[str, t.Any]:
    """Give the order, hear the answer, and before it whom the source waits for."""
    if process.stdin is None or process.stdout is None:
        raise ServiceError("The holder of the snapshot has no pipe.")
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(dataclasses.asdict(order)) + "\n")
        process.stdin.close()
    with process.stdout as lines:
        while line := lines.readline():
            answer = dict(json.loads(line))
            if "waiting" not in answer:
                return answer
            waiting(answer["waiting"])
    status = process.wait()
    raise ConnectionFailed(f"The holder of the snapshot ended with status {status}.", details={"reason": "lost"})


def _say(**words: t.Any) -> bool:
    """A line to the worker; was it there?"""
    try:
        sys.stdout.write(json.dumps(words) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        return False
    return True


def _let_go_of_the_worker() -> None:
    """Standard input and output were the worker's; whoever waits for their end must not wait for us."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
