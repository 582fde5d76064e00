# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The heartbeat: a logical message on the source at a steady pace, so that latency and lag mean something on an idle source too (R91, R92).

It also measures how far the clocks of source and runtime host are apart, and where the source's WAL stands. A source that cannot be
reached is no error here: latency then grows, as it must.
"""

from __future__ import annotations

import threading
import time
import typing as t

from ..errors import MigrationError
from ..postgres.drivers import psycopg
from ..postgres.lsn import parse_lsn
from ..postgres.session import connect
from ..spec import MigrationSpec
from .assemble import HEARTBEAT


class Heartbeat(threading.Thread):
    """Beats until ``stop``.

    ``clock_offset`` is the source's clock minus ours (seconds); ``source_lsn`` the end of its WAL, 0 if not known yet.
    """

    def __init__(self, spec: MigrationSpec, database: str, stop: threading.Event, *, messages: bool = True) -> None:
        super().__init__(name=f"heartbeat {database}", daemon=True)
        self._spec, self._database, self._stop_event, self._messages = spec, database, stop, messages
        self.clock_offset = 0.0
        self.source_lsn = 0
        self.beats = 0

    def run(self) -> None:
        """The thread."""
        pause = max(0.2, self._spec.changes.heartbeat)
        conn: psycopg.Connection[t.Any] | None = None
        while not self._stop_event.is_set():
            try:
                if conn is None or conn.closed:
                    conn = connect(self._spec.source, self._database, purpose="heartbeat")
                self._beat(conn)
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
            conn.execute("SELECT pg_logical_emit_message(true, %s, '')", [HEARTBEAT])
        before = time.time()
        row = conn.execute(f"SELECT extract(epoch FROM clock_timestamp())::float8, {current}()::text").fetchone()
        after = time.time()
        if row is not None:
            self.clock_offset = float(row[0]) - (before + after) / 2
            self.source_lsn = parse_lsn(row[1])
            self.beats += 1
