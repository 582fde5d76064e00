# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A whole migration that waits for its cutover, run by the real service: what memory and latency are measured on."""

from __future__ import annotations

import contextlib
import typing as t
from pathlib import Path

import hugelab
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from host import Host
from pair import OWNER, describe


class Streaming:
    """``database`` with ``schema``, migrated up to WaitingForCutoverTrigger with ``plugin``; a context that cancels it at its end."""

    def __init__(self, source: lab.Server, target: lab.Server, folder: Path, plugin: str, database: str, schema: str) -> None:
        self.source, self.target, self.database = source, target, database
        source.create_database(database, OWNER)
        source.execute(schema, database)
        owned = source.execute(
            "SELECT string_agg(format('ALTER TABLE %I OWNER TO app', tablename), '; ') FROM pg_tables WHERE schemaname = 'public'", database
        )
        source.execute(owned[0][0], database)
        changes = {"plugin": plugin, "replica_identity": "fail"}
        self.spec = MigrationSpec.from_dict(describe(source, target, f"bench-{plugin}", [database], option="migrate", changes=changes))
        home = folder / plugin
        home.mkdir(parents=True)
        self.host = Host(home)

    def __enter__(self) -> Streaming:
        self.host.manager.start(self.spec)
        self.host.until_waiting(self.spec.key)
        return self

    def __exit__(self, *dummy: object) -> None:
        with contextlib.suppress(Exception):
            self.host.manager.cancel(self.spec.key, drop_target=True)
        self.host.close()
        self.source.drop_database(self.database)

    def refuse_errors(self) -> None:
        """:raises RuntimeError: if the migration is in error."""
        status = self.host.manager.status(self.spec.key) or {}
        if status.get("error") or not status["service"]["running"]:
            raise RuntimeError(f"{status['summary']} {self.host.log(self.spec.key)}")

    def peaks(self) -> dict[str, int]:
        """The most bytes that each of the migration's processes has had in memory, see :func:`hugelab.peaks`."""
        return hugelab.peaks(self.host.home, self.spec.key)

    def digest(self, table: str) -> t.Any:
        """Number and content of the rows of ``table`` on both sides.

        :raises RuntimeError: if they are not the same.
        """
        here, there = (hugelab.digest(server, self.database, table) for server in (self.source, self.target))
        if here != there:
            raise RuntimeError(f"{table} differs: {here} {there}")
        return here
