# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The heartbeat: a logical message on the source at a steady pace, so that latency and lag mean something on an idle source too (R91, R92).
Where messages are refused or do not come through the stream, the source's WAL position at the beat does the same: a target that has
everything up to it is as young as the beat.

It also measures how far the clocks of source and runtime host are apart and where the source's WAL stands, and it guards: DDL on the
source (:mod:`.ddl`), and the WAL that our slot holds (law 9). A source that cannot be reached is no error here: latency then grows, as it
must.
"""

from __future__ import annotations

import collections
import contextlib
import threading
import time
import typing as t

from ..errors import MigrationError, StreamError
from ..postgres.drivers import psycopg
from ..postgres.identifiers import object_name
from ..postgres.lsn import parse_lsn
from ..postgres.session import connect
from ..source.slot import drop_slot
from ..spec import MigrationSpec
from .assemble import HEARTBEAT
from .ddl import Baseline, read_fingerprint, refusal, say, settled
from .room import source_room

DDL_SHARE = 20
"""Looking for DDL takes at most one part in so many of the time, however many tables there are."""

BEATS_KEPT = 3600
"""Beats that the target has not reached yet and that are remembered; of more the oldest go, and latency is then told too large."""

NEAR = 0.8
"""Share of a limit from which on is warned."""


def pressure(retained: int, safe: int | None, limit: int, room: int | None = None) -> float:
    """How near the WAL that a slot holds is to where it is given up, from 0 to 1: the nearest of our own ``limit`` (bytes, 0: none), the
    server's ``max_slot_wal_keep_size``, of which ``safe`` bytes are left (None: no such limit), and its disk, of which ``room`` bytes are
    (None: not known, see :mod:`.room`)."""
    shares = [retained / limit] if limit else []
    for left in (safe, room):
        if left is not None:
            shares.append(retained / (retained + max(0, left)) if retained or left > 0 else 1.0)
    return min(1.0, max(shares, default=0.0))


class Heartbeat(threading.Thread):
    """Beats until ``stop``.

    ``source_lsn`` is the end of the source's WAL, 0 if not known yet; ``error`` what ends the stream; ``paused`` why nothing is to be
    applied at present (``on_ddl: pause``), or empty; ``pressure`` see :func:`pressure`.

    :param report: is called with ``source_lsn retained_wal_bytes wal_status safe_wal_bytes source_room_bytes wal_pressure sender_waits
        warnings``.
    :param baseline: the fingerprint that DDL is found by; None: not looked for.
    """

    def __init__(
        self,
        spec: MigrationSpec,
        database: str,
        stop: threading.Event,
        *,
        messages: bool = True,
        report: t.Callable[[dict[str, t.Any]], None] | None = None,
        baseline: Baseline | None = None,
    ) -> None:
        super().__init__(name=f"heartbeat {database}", daemon=True)
        self._spec, self._database, self._stop_event, self._messages = spec, database, stop, messages
        self._report = report or (lambda figures: None)
        self._baseline = baseline
        self._slot = object_name(spec.key, database)
        self._label = spec.source.label(database)
        self._said: dict[str, str] = {}
        self._next_ddl = 0.0
        self._ahead: float | None = None  # the source's clock minus our monotonic one: a step of this host's clock is no latency
        self.source_lsn = 0
        self.beats = 0
        self.paused = ""
        self.error: MigrationError | None = None
        self.pressure = 0.0
        self._sent: collections.deque[tuple[int, float]] = collections.deque(maxlen=BEATS_KEPT)
        self._reached = 0.0

    def source_time(self) -> float:
        """What the source's clock shows now (seconds since 1970); before the first beat this host's."""
        return time.time() if self._ahead is None else time.monotonic() + self._ahead

    def reached(self, lsn: int) -> float:
        """The source's time (seconds since 1970) of the latest beat whose position is not after ``lsn``; 0 if there is none yet."""
        while self._sent and self._sent[0][0] <= lsn:
            self._reached = self._sent.popleft()[1]
        return self._reached

    def start(self) -> None:
        """Begin. With ``on_ddl: pause`` the first look for DDL is made before anything is applied: a pause outlives the process that
        found its reason."""
        if self._baseline is not None and self._spec.changes.on_ddl == "pause":
            with (
                contextlib.suppress(MigrationError, psycopg.Error),
                connect(self._spec.source, self._database, purpose="heartbeat") as conn,
            ):
                self._guard_ddl(conn)
        super().start()

    def run(self) -> None:
        """The thread."""
        pause = max(0.2, self._spec.changes.heartbeat)
        conn: psycopg.Connection[t.Any] | None = None
        while not self._stop_event.is_set() and self.error is None:
            try:
                if conn is None or conn.closed:
                    conn = connect(self._spec.source, self._database, purpose="heartbeat")
                self._beat(conn)
                self._guard_wal(conn)
                self._guard_ddl(conn)
            except StreamError as exc:
                self.error = exc
                break
            except (MigrationError, psycopg.Error):
                if conn is not None:
                    conn.close()
                conn = None
            self._stop_event.wait(pause)
        if conn is not None:
            conn.close()

    def _beat(self, conn: psycopg.Connection[t.Any]) -> None:
        version = conn.info.server_version
        current = "pg_current_wal_lsn" if version >= 100000 else "pg_current_xlog_location"
        if self._messages and version >= 90600:
            try:
                conn.execute("SELECT pg_logical_emit_message(true, %s, '')", [HEARTBEAT])
            except psycopg.errors.InsufficientPrivilege:  # revoked in the meantime; the guards must go on
                self._messages = False
        before = time.monotonic()
        row = conn.execute(f"SELECT extract(epoch FROM clock_timestamp())::float8, {current}()::text").fetchone()
        after = time.monotonic()
        if row is not None:
            self._ahead = float(row[0]) - (before + after) / 2
            self.source_lsn = parse_lsn(row[1])
            self._sent.append((self.source_lsn, float(row[0])))
            self.beats += 1

    def _warn(self, about: str, text: str) -> None:
        """Say ``text`` once; an empty one ends the matter."""
        if self._said.get(about, "") != text:
            self._said[about] = text
            if text:
                self._report({"warnings": [text]})

    # -- WAL that our slot holds

    def _guard_wal(self, conn: psycopg.Connection[t.Any]) -> None:
        """Report and judge what the slot holds.

        :raises StreamError: PGM4002 the source has given the slot up, PGM4006 it held more than ``max_retained_wal_bytes`` and was dropped.
        """
        version = conn.info.server_version
        health = "s.wal_status, s.safe_wal_size" if version >= 130000 else "NULL, NULL"
        waiting = "a.wait_event" if version >= 90600 else "NULL"
        row = conn.execute(
            f"SELECT s.restart_lsn::text, {health}, {waiting} FROM pg_replication_slots s"
            " LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid WHERE s.slot_name = %s",
            [self._slot],
        ).fetchone()
        if row is None:
            return  # the receiver says so
        status, safe = row[1], row[2]
        retained = max(0, self.source_lsn - parse_lsn(row[0])) if row[0] else 0
        room = source_room(conn)
        self.pressure = pressure(retained, safe, self._spec.changes.max_retained_wal_bytes, room)
        self._report(
            {
                "source_lsn": self.source_lsn,
                "retained_wal_bytes": retained,
                "wal_status": status,
                "safe_wal_bytes": safe,
                "source_room_bytes": room,
                "wal_pressure": round(self.pressure, 3),
                "sender_waits": row[3] in ("WalSenderWriteData", "ClientWrite"),
            }
        )
        if status == "lost":
            raise StreamError(
                f"{self._label} has removed WAL that the slot {self._slot} needs: changes are lost.",
                code="PGM4002",
                hint="Raise max_slot_wal_keep_size, run the playbook cleanup and start again.",
                server=self._label,
            )
        warning = f"The source is about to remove WAL that the slot {self._slot} needs (wal_status {status}, max_slot_wal_keep_size)."
        near_end = status == "unreserved" or safe is not None and safe < (1 - NEAR) * (safe + retained)
        self._warn("wal_status", warning if near_end else "")
        full = f"The disk of {self._label} has {room} bytes left, and the slot {self._slot} holds {retained} bytes of WAL on it."
        self._warn("room", full if room is not None and pressure(retained, None, 0, room) > NEAR else "")
        self._limit(conn, retained)

    def _limit(self, conn: psycopg.Connection[t.Any], retained: int) -> None:
        limit = self._spec.changes.max_retained_wal_bytes
        if not limit:
            return
        if retained > limit:
            drop_slot(conn, self._slot)
            raise StreamError(
                f"The slot {self._slot} held {retained} bytes of WAL on {self._label}, more than changes.max_retained_wal_bytes"
                f" ({limit}): it was dropped so that the source's disk does not fill.",
                code="PGM4006",
                hint="Find out why the stream lagged, raise the limit if the source has room, run the playbook cleanup and start again.",
                server=self._label,
                details={"retained_wal_bytes": retained, "limit": limit},
            )
        text = f"The slot {self._slot} holds more than {NEAR:.0%} of changes.max_retained_wal_bytes ({limit}); at the limit it is dropped."
        self._warn("retained", text if retained > NEAR * limit else "")

    # -- DDL

    def _guard_ddl(self, conn: psycopg.Connection[t.Any]) -> None:
        """Look for DDL and do what ``changes.on_ddl`` says.

        :raises StreamError: PGM4050 with ``fail``, naming the tables and what was done to them.
        """
        baseline, policy = self._baseline, self._spec.changes.on_ddl
        began = time.monotonic()
        if baseline is None or began < self._next_ddl:
            return
        baseline.take(conn)
        changes = baseline.changes(conn)
        self._next_ddl = time.monotonic() + DDL_SHARE * (time.monotonic() - began)
        text = f"DDL on {self._label}: {say(changes)}" if changes else ""
        if changes and policy == "fail":
            raise refusal(changes, self._label)
        self._warn("ddl", text)
        if policy != "pause":
            return
        if changes:
            self.paused = text
            with connect(self._spec.target, self._database, purpose="heartbeat") as target:
                if settled(changes, baseline.now, read_fingerprint(target)):
                    baseline.take(conn, again=True)
                    changes = []
        if not changes and self.paused:
            self.paused = ""
            self._report({"warnings": [f"The tables of {self._label} and of the target fit again; the stream goes on."]})
