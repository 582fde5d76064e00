# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Snapshots of both sides at the moment of the cutover, so that every row can be compared after the writers were let in."""

from __future__ import annotations

import typing as t

from ..errors import CutoverAborted
from ..postgres.drivers import psycopg
from ..postgres.session import connect
from ..spec import Endpoint, MigrationSpec

LOST = "PGM5114"
"""The snapshots have ended before the comparison."""


class ProofSnapshots:
    """Two exported snapshots, taken inside the pause and held until :meth:`close`.

    :ivar source: snapshot identifier on the source.
    :ivar target: snapshot identifier on the target.
    """

    def __init__(self, spec: MigrationSpec, database: str) -> None:
        self._conns: list[psycopg.Connection[t.Any]] = []
        try:
            self.source = self._export(spec.source, database)
            self.target = self._export(spec.target, database)
        except BaseException:
            self.close()
            raise

    def _export(self, endpoint: Endpoint, database: str) -> str:
        conn = connect(endpoint, database, purpose="proof")
        self._conns.append(conn)
        conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        row = conn.execute("SELECT pg_export_snapshot()").fetchone()
        if row is None:
            raise CutoverAborted(f"{endpoint.label(database)} exported no snapshot.")
        return str(row[0])

    @property
    def alive(self) -> bool:
        """Are both still held?"""
        try:
            for conn in self._conns:
                conn.execute("SELECT 1")
        except psycopg.Error:
            return False
        return bool(self._conns)

    def close(self) -> None:
        """End both."""
        for conn in self._conns:
            conn.close()
        self._conns.clear()
