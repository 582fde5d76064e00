# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The receiver: one walsender's messages into the spool of one database, acknowledged when they are durable (law 4).

It knows of the messages only where a transaction begins and ends, and repeats pgoutput's descriptions of relations at the start of each
segment. What it confirms to the source is the *safe* position of :mod:`.spool`, after an fsync, and with ``acknowledge: applied`` never
more than what the target has. It comes back by itself after restarts and broken connections; only what waiting cannot cure ends it.
"""

from __future__ import annotations

import errno
import threading
import time
import typing as t
from pathlib import Path

from ..errors import ConnectionFailed, MigrationError, PermissionMissing, StreamError
from ..postgres.drivers import psycopg
from ..postgres.lsn import format_lsn, parse_lsn
from ..postgres.replication import Data, ReplicationConnection, ServerRefused
from ..postgres.session import connect
from ..source.plugin import PluginChoice
from ..source.publication import streamed_tables
from ..source.slot import plugin_hint
from ..spec import MigrationSpec
from . import spool as sp
from .wal2json import table_filter

BLOCK_BYTES = 256 << 10
SYNC_INTERVAL = 0.05
"""Seconds between fsyncs while messages keep coming; when nothing is readable it is done at once."""

KEEPALIVE_INTERVAL = 1.0
FEEDBACK_INTERVAL = 5.0
REPORT_INTERVAL = 0.5
TIDY_INTERVAL = 2.0
BACKOFF = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
BEGIN, COMMIT = 0x42, 0x43  # 'B', 'C' in both plugins
DESCRIPTIONS = (0x52, 0x59)  # 'R', 'Y': pgoutput's relations and types


class Receiver:
    """Receives the changes of one database.

    :param slot: name of the slot, which is also that of the publication.
    :param report: is called with keys of the contract: ``incoming received_lsn spool_bytes paused receiver``.
    """

    def __init__(
        self,
        spec: MigrationSpec,
        database: str,
        slot: str,
        choice: PluginChoice,
        spool: Path,
        report: t.Callable[[dict[str, t.Any]], None],
        stop: threading.Event,
    ) -> None:
        self._spec, self._database, self._slot, self._choice = spec, database, slot, choice
        self._folder, self._report, self._stop = spool, report, stop
        self._applied = 0
        self._is_pgoutput = choice.plugin == "pgoutput"
        self._kind_at = 0 if self._is_pgoutput else 11  # of {"action":"B"...
        self._known: dict[bytes, bytes] = {}
        self._described = False
        self._incoming = 0
        self._open = False
        self._next_report = 0.0
        self._next_feedback = 0.0
        self._next_keepalive = 0.0
        self._next_tidy = 0.0
        self._failures = 0
        self._label = spec.source.label(database)

    def set_applied(self, lsn: int) -> None:
        """What the target has for good: segments before it may go, and ``acknowledge: applied`` confirms it. Any thread may call."""
        self._applied = max(self._applied, lsn)

    def run(self) -> None:
        """Receive until ``stop``.

        :raises StreamError: PGM4001 the slot is gone, PGM4002 its WAL was removed, PGM4003 the plugin is refused, PGM4004 the spool does
        not join the slot.
        """
        self._spool: sp.SpoolWriter | None = None
        try:
            while not self._stop.is_set():
                try:
                    self._session()
                    return
                except (ServerRefused, ConnectionFailed, psycopg.OperationalError) as exc:
                    self._after_failure(exc)
        finally:
            if self._spool:
                self._spool.close()

    def _after_failure(self, exc: BaseException) -> None:
        """Wait for a while, or give up where waiting does not help."""
        if isinstance(exc, ServerRefused):
            refusal = self._fatal(exc)
            if refusal:
                raise refusal from exc
        elif isinstance(exc, ConnectionFailed) and exc.details.get("reason") in ("authentication", "database"):
            raise exc
        pause = BACKOFF[min(self._failures, len(BACKOFF) - 1)]
        self._failures += 1
        self._report({"receiver": "reconnecting", "message": f"Reading from {self._label} broke off: {exc}; trying again."})
        self._stop.wait(pause)

    def _fatal(self, exc: ServerRefused) -> MigrationError | None:
        """The error that ends the stream, or None if trying again may help."""
        said = f"Reading the replication slot {self._slot} on {self._label} failed: {exc.message}"
        said += f" (SQLSTATE {exc.sqlstate})." if exc.sqlstate else "."
        facts: dict[str, t.Any] = {"server": self._label, "sqlstate": exc.sqlstate}
        if exc.sqlstate == "42501":
            hint = plugin_hint(self._spec.source.user, self._choice.plugin, exc.message)
            return PermissionMissing(said, code="PGM4003", hint=hint, **facts)
        if exc.sqlstate == "42704" and "slot" in exc.message or "does not exist" in exc.message and "slot" in exc.message:
            return StreamError(said, code="PGM4001", hint="The slot was dropped: cancel the migration and start it again.", **facts)
        lost = ("can no longer get changes", "has already been removed", "invalidated", "exceeded the maximum reserved size")
        if any(words in exc.message for words in lost):
            hint = "The source removed WAL that the slot needs (max_slot_wal_keep_size): raise it, cancel the migration and start it again."
            return StreamError(said, code="PGM4002", hint=hint, **facts)
        if exc.sqlstate in ("22023", "42601", "42P01", "22P02"):
            return StreamError(said, code="PGM4005", hint="See the source's log; the output plugin refused its options.", **facts)
        return None

    def _session(self) -> None:
        """One connection, until ``stop`` or an error."""
        with connect(self._spec.source, self._database, purpose="receiver") as conn:
            row = conn.execute("SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s", [self._slot]).fetchone()
            if row is None:
                raise ServerRefused(f'replication slot "{self._slot}" does not exist', "42704")
            confirmed = parse_lsn(row[0]) if row[0] else 0
            options = dict(self._choice.options)
            if self._is_pgoutput:
                options["publication_names"] = '"' + self._slot.replace('"', '""') + '"'
            else:
                others = conn.execute(
                    "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                    " WHERE c.relkind IN ('r', 'm', 'p')"
                ).fetchall()
                streamed = [(table.schema, table.name) for table in streamed_tables(conn)]
                options.update(table_filter(streamed, list(others)))
        if self._spool is None:
            self._spool = sp.SpoolWriter(self._folder, self._spec.changes.segment_bytes, confirmed)
        if confirmed > self._spool.durable:
            raise StreamError(
                f"The slot {self._slot} on {self._label} begins at {format_lsn(confirmed)}, the spool in {self._folder} ends at"
                f" {format_lsn(self._spool.durable)}: changes between them are lost.",
                code="PGM4004",
                hint="The spool was lost: cancel the migration and start it again.",
            )
        connection = ReplicationConnection(self._spec.source, self._database, "receiver")
        try:
            self._spool.begin_segment()
            self._known.clear()
            self._described = False
            connection.start(self._slot, self._spool.durable, options)
            self._report({"receiver": "streaming", "message": ""})
            self._receive(connection, self._spool)
        finally:
            connection.close()

    def _receive(self, connection: ReplicationConnection, spool: sp.SpoolWriter) -> None:
        """Messages into blocks, blocks into the spool, until ``stop``."""
        read, kind_at = connection.read, sp.DATA_HEADER + self._kind_at
        parts: list[bytes] = []
        size = count = first = last = 0
        safe = spool.written_safe
        synced = time.monotonic()
        is_open = pressing = False  # pressing: the next commit ends its block, because the segment shall end there
        while not self._stop.is_set():
            message = read()
            if isinstance(message, Data):
                lsn, frame = message
                parts.append(frame)
                size += len(frame)
                count += 1
                first = first or lsn
                last = lsn or last
                kind = frame[kind_at]
                if kind == COMMIT:
                    safe, is_open = lsn, False
                elif kind == BEGIN:
                    is_open = True
                elif self._is_pgoutput and kind in DESCRIPTIONS:
                    self._known[frame[sp.DATA_HEADER : sp.DATA_HEADER + 5]] = frame
                if size < BLOCK_BYTES and (is_open or not pressing):
                    continue
            elif message is not None:
                if not is_open and message.wal_end > safe and (message.reply or time.monotonic() >= self._next_keepalive):
                    self._next_keepalive = time.monotonic() + KEEPALIVE_INTERVAL
                    safe = last = message.wal_end
                    first = first or safe
                    parts.append(message.frame)
                    count += 1
                if message.reply:
                    self._next_feedback = 0.0
                continue
            if count:
                self._incoming += count
                self._write(connection, spool, sp.encode_block(parts, count, first, last, safe, open_=is_open), safe)
                parts, size, count, first = [], 0, 0, 0
                self._failures = 0
            now = time.monotonic()
            if now >= self._next_tidy:
                self._next_tidy = now + TIDY_INTERVAL
                spool.remove_before(self._applied)
            if spool.dirty and (message is None or now - synced > SYNC_INTERVAL):
                spool.sync()
                synced = now
                self._feedback(connection, spool)
            pressing = spool.full or spool.size > self._spec.changes.spool_max_bytes
            if pressing and not is_open:
                self._make_room(connection, spool)
                pressing = False
            if message is None:
                self._idle(connection, spool, now)

    def _idle(self, connection: ReplicationConnection, spool: sp.SpoolWriter, now: float) -> None:
        """Nothing is readable: say where we are if it is time, wait for more."""
        ask = now >= self._next_keepalive
        if ask or now >= self._next_feedback:
            self._next_keepalive = now + KEEPALIVE_INTERVAL if ask else self._next_keepalive
            self._feedback(connection, spool, reply=ask)
        connection.wait(0.2)

    def _feedback(self, connection: ReplicationConnection, spool: sp.SpoolWriter, *, reply: bool = False) -> None:
        flushed = spool.durable
        if self._spec.changes.acknowledge == "applied":
            flushed = min(flushed, self._applied)
        connection.feedback(spool.written_safe, flushed, min(self._applied, flushed), reply=reply)
        self._next_feedback = time.monotonic() + FEEDBACK_INTERVAL
        self._tell(spool)

    def _tell(self, spool: sp.SpoolWriter, **more: t.Any) -> None:
        now = time.monotonic()
        if now >= self._next_report or more:
            self._next_report = now + REPORT_INTERVAL
            self._report({"incoming": self._incoming, "received_lsn": spool.durable, "spool_bytes": spool.size, **more})

    def _describe(self, spool: sp.SpoolWriter) -> None:
        """At the start of a segment: all descriptions that are known, so that reading can begin there.

        :raises OSError: if the disk is full.
        """
        spool.open_segment()
        if self._known:
            frames = list(self._known.values())
            safe = spool.written_safe
            spool.append(sp.encode_block(frames, len(frames), safe, safe, safe), safe)
        self._described = True

    def _make_room(self, connection: ReplicationConnection, spool: sp.SpoolWriter) -> None:
        """Begin a new segment; above ``spool_max_bytes`` read no more until the target has caught up, but keep the walsender alive.

        A single transaction may exceed the limit, because only whole ones can be removed.
        """
        limit = self._spec.changes.spool_max_bytes
        spool.begin_segment()
        self._described = False
        if spool.size <= limit:
            return
        self._patiently(connection, spool, lambda: self._describe(spool))
        while True:
            spool.remove_before(self._applied)
            if spool.size <= limit:
                break
            self._tell(spool, paused=f"the spool holds {spool.size} bytes; its limit is {limit}")
            if time.monotonic() >= self._next_feedback:
                self._feedback(connection, spool)
            if self._stop.wait(0.2):
                return
        self._tell(spool, paused="")

    def _write(self, connection: ReplicationConnection, spool: sp.SpoolWriter, block: bytes, safe: int) -> None:
        """Write ``block``, at the start of a segment after the descriptions."""
        if not self._described:
            self._patiently(connection, spool, lambda: self._describe(spool))
        self._patiently(connection, spool, lambda: spool.append(block, safe))

    def _patiently(self, connection: ReplicationConnection, spool: sp.SpoolWriter, write: t.Callable[[], None]) -> None:
        """Write; a full disk pauses the stream and is said, until there is room.

        :raises StreamError: PGM4012 if the disk fails otherwise.
        """
        paused = False
        while True:
            try:
                write()
                break
            except OSError as exc:
                if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
                    hint = "Check the runtime host's disk."
                    raise StreamError(f"The spool in {self._folder} cannot be written: {exc}", code="PGM4012", hint=hint) from exc
                paused = True
                self._tell(spool, paused=f"no room on the disk of {self._folder}")
                spool.remove_before(self._applied)
                self._feedback(connection, spool)
                if self._stop.wait(1.0):
                    raise ServerRefused("stopped while the disk was full") from exc
        if paused:
            self._tell(spool, paused="")
