# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Faults: something wrong with a real server, made and repaired by statements, and what the validation says of it."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import typing as t

import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.registry import CHECKS, WHO, Finding
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.runner import validate

AZURE = {"target": {"type": "azure_flexible"}}
WAL2JSON = {"changes": {"plugin": "wal2json"}}
PGOUTPUT = {"changes": {"plugin": "pgoutput"}}


@dataclasses.dataclass(frozen=True)
class Fault:
    """Statements begin with where they run: ``d:`` the source's database, ``s:`` the source's postgres, ``t:`` the target's postgres.

    ``message`` must be found in the finding's message while the fault is there; ``undo`` cleans up what the repair leaves.
    """

    name: str
    code: str
    severity: str
    message: str
    make: tuple[str, ...]
    repair: tuple[str, ...]
    undo: tuple[str, ...] = ()
    spec: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    fix: str = ""
    restart: bool | None = None  # what the finding must say of it; None: not looked at
    needs: str = ""  # what a server may lack: icu, wal2json, output_plugin_libraries


def lacks(server: lab.Server, need: str) -> bool:
    """Is the server built without what a test needs?"""
    if need == "icu":
        return not server.execute("SELECT 1 FROM pg_collation WHERE collprovider = 'i' LIMIT 1")
    libraries = server.execute("SELECT 1 FROM pg_settings WHERE name = 'output_plugin_libraries'")
    return need == "output_plugin_libraries" and not libraries or need == "wal2json" and not (libraries and lab.has_wal2json(server.bindir))


TABLE = "d:CREATE TABLE item (id int PRIMARY KEY, note text)"
OWNED = (TABLE, "d:ALTER TABLE item OWNER TO app")
RELOAD = "s:SELECT pg_reload_conf()", "s:SELECT pg_sleep(0.2)"
HSTORE = "d:CREATE EXTENSION hstore"
RENAME = "d:UPDATE pg_extension SET extname = '{0}' WHERE extname = '{1}'"


def look(spec: MigrationSpec, code: str, message: str = "") -> list[Finding]:
    """The findings of one check that are not Succeeded."""
    found = validate(spec, only=[code]).findings
    assert any(f.code == code for f in found), f"{code} did not run: {[f.message for f in found if f.severity == 'Failed']}"
    return [f for f in found if f.code == code and f.severity != "Succeeded" and re.search(message, f.message)]


class Pair(t.NamedTuple):
    """Where the statements of faults run, and how a specification for these servers is made."""

    source: lab.Server
    target: lab.Server
    database: str
    spec_factory: t.Callable[..., MigrationSpec]

    def run(self, statements: t.Sequence[str]) -> None:
        """Run a list of statements of a :class:`Fault`."""
        for statement in statements:
            where, dummy, text = statement.partition(":")
            server = self.target if where == "t" else self.source
            server.execute(text.format(db=self.database), self.database if where == "d" else "postgres")

    def show(self, fault: Fault) -> None:
        """Make the fault, see its finding; repair it, see that the finding is gone."""
        overrides = dict(fault.spec)
        spec = self.spec_factory("shop-1", overrides.pop("databases", [self.database]), **overrides)
        try:
            self.run(fault.make)
            found = look(spec, fault.code, fault.message)
            assert [f.severity for f in found] == [fault.severity]
            assert fault.fix.format(db=self.database) in found[0].fix and found[0].fix
            assert found[0].who in WHO
            assert fault.restart in (None, found[0].restart)
            azure = CHECKS[fault.code].azure_code
            assert found[0].azure_code == (azure if " " not in azure else found[0].azure_code)
        except BaseException:
            with contextlib.suppress(Exception):
                self.run(fault.repair)
            with contextlib.suppress(Exception):
                self.run(fault.undo)
            raise
        self.run(fault.repair)
        try:
            assert look(spec, fault.code, fault.message) == []
        finally:
            self.run(fault.undo)
