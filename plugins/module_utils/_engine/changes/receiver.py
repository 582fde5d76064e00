# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The receiver: one walsender's messages into the spool of one database, acknowledged when they are durable (law 4).

One thread reads the network and answers the source, the other (:mod:`.spooler`) writes the disk. What is confirmed to the source is the
*safe* position of :mod:`.spool`, after an fsync, and with ``acknowledge: applied`` never more than what the target has. The receiver comes
back by itself after restarts and broken connections; only what waiting cannot cure ends it.
"""

from __future__ import annotations

import threading
import time
import typing as t
from pathlib import Path

from ..errors import ConnectionFailed, MigrationError, PermissionMissing, StreamError
from ..postgres.drivers import psycopg
from ..postgres.lsn import format_lsn, parse_lsn
from ..postgres.replication import ServerRefused
from ..postgres.selection import Selection
from ..postgres.session import connect
from ..postgres.walstream import WalStream
from ..source.plugin import PluginChoice
from ..source.publication import streamed_tables
from ..source.slot import plugin_hint
from ..spec import MigrationSpec
from .decoders import KIND_AT
from .intake import Chunk, Scanner
from .spooler import Spooler
from .wal2json import table_filter

BLOCK_BYTES = 256 << 10
BLOCK_INTERVAL = 0.01
"""Seconds between blocks while messages keep coming and a block is smaller than :data:`BLOCK_BYTES`; a lone one goes at once."""

GATHER = 0.02
"""Seconds between two looks at the socket: each look wakes us, and what comes while we look costs the server more."""

PORTION = 16 << 10
"""A read of fewer bytes than these had all that the server's kernel held."""

KEEPALIVE_INTERVAL = 1.0
FEEDBACK_INTERVAL = 5.0
REPORT_INTERVAL = 0.5
BACKOFF = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


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
        self._incoming = 0
        self._next_report = self._next_feedback = self._next_keepalive = self._next_advance = 0.0
        self._feedback_interval = FEEDBACK_INTERVAL
        self._failures = 0
        self._label = spec.source.label(database)
        self._stream: WalStream | None = None
        self._spooler: Spooler | None = None
        self._told = ("", "")

    def set_applied(self, lsn: int) -> None:
        """What the target has for good: segments before it may go, and ``acknowledge: applied`` confirms it. Any thread may call."""
        self._applied = max(self._applied, lsn)
        if self._spooler:
            self._spooler.set_applied(lsn)

    def run(self) -> None:
        """Receive until ``stop``.

        :raises StreamError: PGM4001 the slot is gone, PGM4002 its WAL was removed, PGM4003 the plugin is refused, PGM4004 the spool does
        not join the slot, PGM4005 the plugin refuses its options, PGM4012 the disk fails.
        """
        try:
            while not self._stop.is_set():
                try:
                    self._session()
                    return
                except (ServerRefused, ConnectionFailed, psycopg.OperationalError) as exc:
                    self._after_failure(exc)
        finally:
            if self._spooler:
                self._spooler.close()

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
            return StreamError(said, code="PGM4001", hint="The slot was dropped: run the playbook cleanup and start again.", **facts)
        lost = ("can no longer get changes", "has already been removed", "invalidated", "exceeded the maximum reserved size")
        if any(words in exc.message for words in lost):
            hint = (
                "The source removed WAL that the slot needs (max_slot_wal_keep_size): raise it, run the playbook cleanup and start again."
            )
            return StreamError(said, code="PGM4002", hint=hint, **facts)
        if exc.sqlstate in ("22023", "42601", "42P01", "22P02"):
            return StreamError(said, code="PGM4005", hint="See the source's log; the output plugin refused its options.", **facts)
        return None

    def _session(self) -> None:
        """One connection, until ``stop`` or an error."""
        confirmed, options = self._look()
        if self._spooler is None:
            self._spooler = Spooler(self._folder, self._spec.changes, confirmed, self._wake)
            self._spooler.set_applied(self._applied)
            self._spooler.start()
        spooler = self._spooler
        spooler.begin(self._stop)
        self._check(spooler)
        if confirmed > spooler.durable:
            raise StreamError(
                f"The slot {self._slot} on {self._label} begins at {format_lsn(confirmed)}, the spool in {self._folder} ends at"
                f" {format_lsn(spooler.durable)}: changes between them are lost.",
                code="PGM4004",
                hint="The spool was lost: run the playbook cleanup and start again.",
            )
        if self._stop.is_set():
            return
        self._stream = WalStream(self._spec.source, self._database)
        try:
            self._stream.start(self._slot, spooler.durable, options)
            self._report({"receiver": "streaming", "message": ""})
            self._receive(self._stream, spooler)
        finally:
            self._stream.close()
            self._stream = None

    def _look(self) -> tuple[int, dict[str, str]]:
        """The slot's confirmed position, and the plugin's options for what there is to stream.

        :raises ServerRefused: if there is no such slot.
        """
        with connect(self._spec.source, self._database, purpose="receiver") as conn:
            row = conn.execute(
                "SELECT confirmed_flush_lsn::text, (SELECT setting FROM pg_settings WHERE name = 'wal_sender_timeout')"
                " FROM pg_replication_slots WHERE slot_name = %s",
                [self._slot],
            ).fetchone()
            if row is None:
                raise ServerRefused(f'replication slot "{self._slot}" does not exist', "42704")
            confirmed = parse_lsn(row[0]) if row[0] else 0
            timeout = int(row[1] or 0) / 1000
            self._feedback_interval = min(FEEDBACK_INTERVAL, timeout / 4) if timeout > 0 else FEEDBACK_INTERVAL
            options = dict(self._choice.options)
            if self._choice.plugin == "pgoutput":
                options["publication_names"] = '"' + self._slot.replace('"', '""') + '"'
            elif self._choice.plugin == "wal2json":
                others = conn.execute(
                    "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                    " WHERE c.relkind IN ('r', 'm', 'p')"
                ).fetchall()
                streamed = [(table.schema, table.name) for table in streamed_tables(conn, Selection.of(self._spec.copy))]
                options.update(table_filter(streamed, list(others)))
        return confirmed, options

    def _wake(self) -> None:
        stream = self._stream
        if stream is not None:
            stream.wake()

    def _check(self, spooler: Spooler) -> None:
        """Has the writing thread ended?"""
        if spooler.error is not None:
            raise spooler.error

    def _receive(self, stream: WalStream, spooler: Spooler) -> None:
        """From the network to the writing thread, until ``stop``."""
        scanner = Scanner(KIND_AT[self._choice.plugin], describes=self._choice.plugin == "pgoutput")
        confirmed = spooler.durable
        handed = 0.0
        came = stream.filled
        while not self._stop.is_set():
            now = time.monotonic()
            if came and (stream.ended or stream.filled >= BLOCK_BYTES or spooler.idle and now - handed >= BLOCK_INTERVAL):
                chunk = scanner.scan(stream.buffer, stream.filled)
                stream.consume(len(chunk.body))
                self._hand_over(chunk, spooler, now)
                handed, came = now, stream.filled if chunk.foreign and stream.skip() else 0
            self._check(spooler)
            told = (spooler.paused, spooler.notice)
            if spooler.durable != confirmed or now >= self._next_feedback or now >= self._next_keepalive or told != self._told:
                confirmed = spooler.durable
                self._feedback(stream, spooler, now)
            if not spooler.wait_room(min(0.2, self._feedback_interval / 2)):
                continue
            taken = _take(stream, BLOCK_INTERVAL if came else 0.2)
            came += taken
            if taken and stream.filled < BLOCK_BYTES:
                time.sleep(GATHER)

    def _hand_over(self, chunk: Chunk, spooler: Spooler, now: float) -> None:
        """To the writing thread, unless it says nothing new."""
        if chunk.reply:
            self._next_feedback = 0.0
        if chunk.messages:
            self._incoming += chunk.messages
            self._failures = 0
        elif chunk.safe < spooler.written + (spooler.size > 0) or not chunk.reply and now < self._next_advance:
            return  # an empty spool takes what says no more than where it begins: the target has that
        self._next_advance = now + KEEPALIVE_INTERVAL / 2  # the answers to what we ask each interval count, a flood of others does not
        spooler.put(chunk)

    def _feedback(self, stream: WalStream, spooler: Spooler, now: float) -> None:
        """Say where we are; ask for the server's position now and then."""
        flushed = spooler.durable
        if self._spec.changes.acknowledge == "applied":
            flushed = min(flushed, self._applied)
        ask = now >= self._next_keepalive
        if ask:
            self._next_keepalive = now + KEEPALIVE_INTERVAL
        stream.feedback(spooler.written, flushed, min(self._applied, flushed), reply=ask)
        self._next_feedback = now + self._feedback_interval
        told = (spooler.paused, spooler.notice)
        if now >= self._next_report or told != self._told:
            self._next_report = now + REPORT_INTERVAL
            facts: dict[str, t.Any] = {"incoming": self._incoming, "received_lsn": spooler.durable, "spool_bytes": spooler.size}
            if told != self._told:
                facts.update({"paused": told[0], "message": told[1]})
                self._told = told
            self._report(facts)


def _take(stream: WalStream, timeout: float) -> int:
    """Wait for more, then take all that is there; how many bytes came."""
    before = seen = stream.filled
    if stream.receive(timeout):
        while stream.filled - seen >= PORTION and stream.filled < BLOCK_BYTES and not stream.ended:
            seen = stream.filled
            stream.receive(0)
    return stream.filled - before
