# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Commands of the streaming replication protocol (manual 55.4) over libpq: slots with exported snapshots, and SQL of a walsender.

psycopg's connections refuse them; its ``pq`` layer has all that is needed. The stream itself is read by :mod:`.walstream`.
"""

from __future__ import annotations

import select
import time
import typing as t

from ..spec import Endpoint
from .drivers import psycopg, require
from .identifiers import quote_ident, quote_literal
from .lsn import parse_lsn
from .session import connection_failure, conninfo, settings

PG_EPOCH = 946_684_800
"""Unix time of 2000-01-01, where PostgreSQL's clock begins (seconds)."""

LOOK = 1.0
"""Seconds without an answer after which whoever waits is told."""


class ServerRefused(Exception):
    """What the server answered on the replication connection. ``sqlstate`` is empty where the connection itself broke."""

    def __init__(self, message: str, sqlstate: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.sqlstate = sqlstate


class CreatedSlot(t.NamedTuple):
    """Answer to CREATE_REPLICATION_SLOT; ``snapshot`` is empty where none was exported."""

    name: str
    consistent_point: int
    snapshot: str
    plugin: str


class ReplicationConnection:
    """A connection with ``replication=database``.

    :raises ConnectionFailed: if it cannot be opened (the reasons of R26).
    """

    def __init__(self, endpoint: Endpoint, database: str, purpose: str) -> None:
        require("psycopg")
        info = conninfo(endpoint, database, purpose)
        info["replication"] = "database"
        self.endpoint = endpoint
        self.database = database
        self._pq = psycopg.pq.PGconn.connect_start(psycopg.conninfo.make_conninfo(**info).encode())
        failure = self._connect(endpoint.connect_timeout)
        if failure:
            self._pq.finish()
            raise connection_failure(endpoint, database, psycopg.OperationalError(failure))
        self.server_version = self._pq.server_version
        try:
            self._pin()
        except BaseException:
            self._pq.finish()
            raise

    def _connect(self, timeout: float) -> str:
        """Go through the login without holding the interpreter's lock as the blocking call would; what went wrong, or nothing."""
        deadline = time.monotonic() + timeout
        polling = psycopg.pq.PollingStatus
        status = int(polling.WRITING)
        while self._pq.status != psycopg.pq.ConnStatus.BAD and status in (polling.READING, polling.WRITING):
            handle = [self._pq.socket]
            reading = status == polling.READING
            ready = select.select(handle if reading else [], [] if reading else handle, [], max(0.0, deadline - time.monotonic()))
            if not any(ready):
                return "timeout expired"
            status = self._pq.connect_poll()
        return "" if status == polling.OK else self._text(self._pq.error_message) or "connection failed"

    @property
    def pid(self) -> int:
        """Process id of the server's end."""
        return int(self._pq.backend_pid)

    def _execute(self, sql: str, waiting: t.Callable[[], None] | None = None) -> t.Any:
        """Run ``sql`` and wait for its last result; other threads go on meanwhile.

        :param waiting: called once for each :data:`LOOK` seconds without an answer.
        :raises ServerRefused: if the connection breaks.
        """
        self._guarded(self._pq.send_query, sql.encode())
        result = None
        while True:
            while self._pq.is_busy():
                ready = select.select([self._pq.socket], [], [], LOOK if waiting else 60)
                if waiting and not any(ready):
                    waiting()
                    continue
                self._guarded(self._pq.consume_input)
            following = self._pq.get_result()
            if following is None:
                break
            result = following
        if result is None:
            raise ServerRefused("the server gave no answer")
        return result

    def _pin(self) -> None:
        """The settings that decide the text of values; a walsender takes SQL from version 10 on."""
        if self.server_version < 100000:
            return
        wanted = {**settings(self.server_version), "lc_monetary": "C"}
        if self.query("SHOW server_encoding")[0][0] == "SQL_ASCII":
            wanted["client_encoding"] = "SQL_ASCII"
        for name, value in wanted.items():
            self.query(f"SET {name} = {value if name == 'DateStyle' else quote_literal(value)}")

    def query(self, sql: str, waiting: t.Callable[[], None] | None = None) -> list[tuple[str | None, ...]]:
        """Rows of one command of the replication grammar, or of SQL, as text.

        :param waiting: called once for each :data:`LOOK` seconds without an answer; what it raises is raised.
        :raises ServerRefused: with the server's message and SQLSTATE.
        """
        result = self._execute(sql, waiting)
        status = result.status
        if status == psycopg.pq.ExecStatus.TUPLES_OK:
            return [tuple(self._cell(result, row, column) for column in range(result.nfields)) for row in range(result.ntuples)]
        if status == psycopg.pq.ExecStatus.COMMAND_OK:
            return []
        raise self._refused(result)

    def create_slot(
        self,
        name: str,
        plugin: str,
        *,
        temporary: bool = False,
        snapshot: bool = True,
        failover: bool = False,
        waiting: t.Callable[[], None] | None = None,
    ) -> CreatedSlot:
        """Make a logical slot; its snapshot is valid until the next command on this connection. ``failover`` counts from 17 on.

        :raises ServerRefused: as the server answers.
        """
        kind = "TEMPORARY " if temporary else ""
        if self.server_version >= 150000:
            more = ", FAILOVER true" if failover and self.server_version >= 170000 else ""
            tail = f"(SNAPSHOT '{'export' if snapshot else 'nothing'}'{more})"
        elif self.server_version >= 100000:
            tail = "EXPORT_SNAPSHOT" if snapshot else "NOEXPORT_SNAPSHOT"
        else:
            tail, kind = "", ""
        row = self.query(f"CREATE_REPLICATION_SLOT {quote_ident(name)} {kind}LOGICAL {quote_ident(plugin)} {tail}", waiting)[0]
        return CreatedSlot(str(row[0]), parse_lsn(str(row[1])), row[2] or "", str(row[3]))

    def alive(self, timeout: float) -> bool:
        """Sleep ``timeout`` seconds without a command, or less if the server ends the connection; is it still there?"""
        readable, dummy, dummy2 = select.select([self._pq.socket], [], [], timeout)
        if readable:
            try:
                self._pq.consume_input()
            except psycopg.Error:
                return False
        return bool(self._pq.status == psycopg.pq.ConnStatus.OK)

    def close(self) -> None:
        """End the connection; the server releases slot and snapshot."""
        self._pq.finish()

    def _guarded(self, call: t.Callable[..., t.Any], *args: t.Any) -> t.Any:
        try:
            return call(*args)
        except psycopg.Error as exc:
            raise ServerRefused(" ".join(str(exc).split())) from exc

    def _refused(self, result: t.Any) -> ServerRefused:
        field = psycopg.pq.DiagnosticField
        message = (
            self._text(result.error_field(field.MESSAGE_PRIMARY)) or self._text(result.error_message) or self._text(self._pq.error_message)
        )
        return ServerRefused(" ".join(message.split()) or "connection lost", self._text(result.error_field(field.SQLSTATE)))

    @staticmethod
    def _cell(result: t.Any, row: int, column: int) -> str | None:
        value = result.get_value(row, column)
        return None if value is None else bytes(value).decode("utf-8", "replace")

    @staticmethod
    def _text(raw: bytes | None) -> str:
        return (raw or b"").decode("utf-8", "replace").strip()
