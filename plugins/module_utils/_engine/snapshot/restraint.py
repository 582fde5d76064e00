# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What holds the base copy back: the source's standbys, a probe query, and whoever else asks for it.

All relays of a copy, and its large objects, share one :class:`Restraint`. Pressure is a number from 0 (none) to 1 (stop); the greatest of
all counts. It is put into practice by :mod:`.pace`.
"""

from __future__ import annotations

import threading
import time
import typing as t

from ..errors import MigrationError
from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_ident
from ..postgres.session import connect
from ..spec import MigrationSpec

LOOK = 1.0
"""Seconds between two looks at standbys and probe."""

_STANDBYS = """
    SELECT coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), r.replay_lsn)), 0)::bigint FROM pg_stat_replication r
      LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid WHERE coalesce(s.slot_type, 'physical') = 'physical'
       AND r.state IN ('streaming', 'catchup')"""


def no_pressure() -> float:
    """Nobody asks for restraint."""
    return 0.0


def ramp(value: float, limit: float) -> float:
    """Pressure of ``value`` against ``limit``: none up to half of it, 1 from it on."""
    return min(1.0, max(0.0, (value - limit / 2) / (limit / 2))) if limit > 0 else 0.0


class Restraint:
    """See the module.

    :param pressure: the owner's own wish, from 0 to 1; it must answer at once, see :class:`.pace.Pace`.
    :param note: is told once where something that was asked for cannot be watched.
    """

    def __init__(self, spec: MigrationSpec, database: str, pressure: t.Callable[[], float], note: t.Callable[[str], None]) -> None:
        self._spec = spec
        self._database = database
        self._wish = pressure
        self._note = note
        self._watched = 0.0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Restraint:
        copy = self._spec.copy
        if copy.max_standby_lag or copy.probe_query:
            self._thread = threading.Thread(target=self._watch, name="restraint", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        if self._thread:
            self._thread.join(timeout=5)

    def pressure(self) -> float:
        """The greatest wish for restraint, from 0 to 1."""
        return min(1.0, max(self._wish(), self._watched))

    def _watch(self) -> None:
        """Look at the source as long as the copy goes on; a lost session is opened again."""
        while not self._over.is_set():
            try:
                with connect(self._spec.source, self._database, purpose="restraint") as conn:
                    self._see(conn)
                    while not self._over.is_set():
                        self._watched = max(self._standbys(conn), self._probe(conn))
                        self._over.wait(LOOK)
            except (MigrationError, psycopg.OperationalError):
                self._watched = 0.0
                self._over.wait(LOOK * 5)
            except psycopg.Error as exc:
                self._watched = 0.0
                self._note(f"The copy is not held back by standbys and probe: {' '.join(str(exc).split())}")
                return

    def _see(self, conn: psycopg.Connection[t.Any]) -> None:
        """Say so where the standbys are hidden from us: their columns are NULL then, and look like no lag at all."""
        if self._spec.copy.max_standby_lag:
            row = conn.execute("SELECT count(*) FROM pg_stat_replication WHERE state IS NULL").fetchone()
            if row and row[0]:
                user = quote_ident(self._spec.source.user)
                self._note(
                    f"The source does not show {row[0]} of its standbys: the copy is not held back by them. GRANT pg_monitor TO {user};"
                )

    def _standbys(self, conn: psycopg.Connection[t.Any]) -> float:
        limit = self._spec.copy.max_standby_lag
        if not limit or conn.info.server_version < 100000:
            return 0.0
        row = conn.execute(_STANDBYS).fetchone()
        return ramp(float(row[0]), limit) if row else 0.0

    def _probe(self, conn: psycopg.Connection[t.Any]) -> float:
        copy = self._spec.copy
        if not copy.probe_query:
            return 0.0
        began = time.monotonic()
        conn.execute(copy.probe_query.encode())
        return ramp((time.monotonic() - began) * 1000, copy.probe_limit)
