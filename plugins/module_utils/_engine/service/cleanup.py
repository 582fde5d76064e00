# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Everything that migrations ever made, on the source, the target and the runtime host: found, listed, removed (requirement B20).

Nothing of ours is needed to find it: slots, publications, sessions, the ledger's schema and the role that remembers globals are known by
their names. What belongs to a migration that this host knows as active stays; so does what somebody is using of a migration that this host
does not know, because another runtime host may be at work there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import typing as t
from pathlib import Path

from ..changes.quiet import restore, validate_restored
from ..cutover.watchdog import FenceJournal
from ..errors import ConnectionFailed, MigrationError
from ..globals.marker import MARKER
from ..globals.plan import revoke_admin_memberships
from ..migration.ledger import Ledger
from ..migration.paths import MigrationPaths
from ..migration.states import ACTIVE, State
from ..postgres.catalog import PROVIDER_DATABASES
from ..postgres.drivers import psycopg
from ..postgres.identifiers import object_name, quote_ident
from ..postgres.session import connect, server_errors
from ..source.cleanup import Leftover, find_ours, remove_ours
from ..spec import Endpoint
from .identities import changed_tables, give_back_identities
from .launcher import running_pid

WORKING = ("spool", "work", "secrets.json", "spec.json", "control.sock", "pid", "lock", "fence.lock", "status.json")
"""What of an ended migration's folder is of no use any more; its log, reports and record stay."""


@dataclasses.dataclass(frozen=True, order=True)
class Item:
    """One thing of ours. ``place`` is ``source``, ``target`` or ``runtime``; ``kind`` is ``slot``, ``publication``, ``session``, ``fence``,
    ``identity``, ``ledger``, ``role``, ``database`` or ``files``; ``key`` the migration that it belongs to, where that is known."""

    place: str
    kind: str
    name: str
    database: str = ""
    key: str = ""
    pid: int = 0

    def __str__(self) -> str:
        """For people: ``source: slot pgm_x in shop``."""
        where = f" in {self.database}" if self.database and self.database != self.name else ""
        return f"{self.place}: {self.kind} {self.name}{where}"


@dataclasses.dataclass(frozen=True)
class Findings:
    """``ours`` is to be removed; ``kept`` maps what stays to the reason."""

    ours: tuple[Item, ...]
    kept: dict[Item, str]


class Cleanup:
    """The leftovers of one pair of servers and of this runtime host.

    :param records: what this host knows, as the catalogue lists it.
    :param key: of one migration alone; None: of all.
    :param force: take away what is in use by a migration that this host does not know as well.
    :param databases: also drop the databases on the target that a migration made and did not finish.
    :param memory: also forget which memberships the target's login was lent, and take them back, where no other migration is there.
    """

    def __init__(
        self,
        home: Path,
        records: t.Sequence[t.Mapping[str, t.Any]],
        source: Endpoint,
        target: Endpoint,
        *,
        key: str | None = None,
        force: bool = False,
        databases: bool = False,
        memory: bool = True,
    ) -> None:
        self._home, self._records, self._source, self._target = home, records, source, target
        self._key, self._force, self._databases, self._memory = key, force, databases, memory
        self._active = [record for record in records if State(record["state"]) in ACTIVE]

    # -- finding

    def find(self) -> Findings:
        """All that is ours, in the order in which it is to be removed; reads only.

        :raises ConnectionFailed: if a server cannot be reached.
        """
        items = [*self._fences(), *self._identities(), *self._on_source(), *self._on_target(), *self._on_host()]
        kept: dict[Item, str] = {}
        in_use = {item.pid for item in items if item.kind == "slot" and item.pid}
        for item in items:
            reason = self._protected(item, in_use)
            if reason:
                kept[item] = reason
        return Findings(tuple(item for item in items if item not in kept), kept)

    def _protected(self, item: Item, in_use: set[int]) -> str:
        """Why ``item`` stays, or nothing."""
        for record in self._active:
            names = {object_name(record["key"], database) for database in record["spec"]["databases"]}
            if record["key"] == item.key or item.name in names or record["key"] in item.name.split():
                end = "play finish, or cancel it first" if record["spec"].get("back_of") else "cancel it first"
                return f"the migration {record['name']} is {record['state']}: {end}"
        if item.kind == "database" and not self._databases:
            return "a database stays unless drop_target asks for it, and is not known as ours afterwards"
        if item.kind == "role" and self._active:
            return "a migration is active"
        if self._force or self._key or item.place == "runtime":
            return ""
        if item.kind == "session" or item.pid in in_use and item.pid:
            known = any(record["key"] in item.name.split() for record in self._records)
            return "" if known else "in use, perhaps by another runtime host: name the migration, or force it"
        return ""

    def _fences(self) -> t.Iterator[Item]:
        for record in self._records:
            fenced = FenceJournal(MigrationPaths(self._home, record["key"]).fence).state() == "fenced"
            for place, endpoint in (("source", self._source), ("target", self._target)):  # a rollback fences the target
                here = self._key in (None, record["key"]) and _address(record["spec"]["source"]) == _address(endpoint.public())
                if here and fenced:
                    yield Item(place, "fence", record["name"], "", record["key"])

    def _identities(self) -> t.Iterator[Item]:
        for record in self._records:
            here = _address(record["spec"]["source"]) == _address(self._source.public())
            for database in record["spec"]["databases"] if here and self._key in (None, record["key"]) else ():
                for table in changed_tables(MigrationPaths(self._home, record["key"]).work(database)):
                    yield Item("source", "identity", table, database, record["key"])

    def _on_source(self) -> t.Iterator[Item]:
        for found in find_ours(self._source, key=self._key):
            yield Item("source", found.kind, found.name, found.database, "", found.pid)
        for name, owner, dummy in ledgers(self._source, self._key):
            yield Item("source", "ledger", owner, name, owner)

    def _on_target(self) -> t.Iterator[Item]:
        for found in find_ours(self._target, key=self._key):
            yield Item("target", found.kind, found.name, found.database, "", found.pid)
        others = False
        for name, owner, made in ledgers(self._target):
            if self._key not in (None, owner):
                others = True
                continue
            if made:
                yield Item("target", "database", name, name, owner)
            yield Item("target", "ledger", owner, name, owner)
        with connect(self._target, purpose="cleanup") as conn:
            remembered = conn.execute("SELECT FROM pg_roles WHERE rolname = %s", [MARKER]).fetchone() is not None
        if remembered and self._memory and not others:  # what was lent to others is not ours to take back
            yield Item("target", "role", MARKER)

    def _on_host(self) -> t.Iterator[Item]:
        known = {record["key"] for record in self._records}
        folder = self._home / "migrations"
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            key = path.name
            paths = MigrationPaths(self._home, key)
            if self._key in (None, key) and running_pid(paths) is None and (key not in known or _working(paths)):
                yield Item("runtime", "files", key, "", key)

    # -- removing

    def remove(self, findings: Findings) -> list[Item]:
        """Remove ``findings.ours``; what is gone.

        :raises MigrationError: PGM8010 naming what could not be removed; all the rest is removed before.
        """
        removed: list[Item] = []
        refused: list[str] = []
        for item in findings.ours:
            try:
                self._remove(item)
                removed.append(item)
            except (MigrationError, OSError) as exc:
                refused.append(f"{item}: {exc}")
        if refused:
            raise MigrationError(
                "Could not remove " + "; ".join(refused),
                code="PGM8010",
                hint="Run the clean-up as the user that made them, or as a superuser of the server.",
                details={"removed": [str(item) for item in removed]},
            )
        return removed

    def _remove(self, item: Item) -> None:
        endpoint = self._source if item.place == "source" else self._target
        if item.kind == "fence":
            FenceJournal(MigrationPaths(self._home, item.key).fence).lift(endpoint)
        elif item.kind == "identity":
            give_back_identities(self._source, self._target, item.database, MigrationPaths(self._home, item.key).work(item.database))
        elif item.kind in ("slot", "publication", "session"):
            remove_ours(endpoint, only=Leftover(item.kind, item.name, item.database, item.pid))
        elif item.kind == "database":
            with connect(self._target, purpose="cleanup") as conn, server_errors(f"drop the database {item.name}", self._target):
                ours = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND usename = current_user"
                conn.execute(ours, [item.name])
                conn.execute(f"DROP DATABASE IF EXISTS {quote_ident(item.name)}")
        elif item.kind == "ledger":
            with (
                contextlib.suppress(ConnectionFailed),  # it went with its database
                connect(endpoint, item.database, purpose="cleanup") as conn,
                server_errors("drop the ledger", endpoint, item.database),
            ):
                restore(conn)  # what rested on the target is remembered in the ledger
                validate_restored(conn)
                Ledger(conn).drop()
        elif item.kind == "role":
            revoke_admin_memberships(self._target, force=self._key is None)
        else:
            self._remove_files(item.key)

    def _remove_files(self, key: str) -> None:
        paths = MigrationPaths(self._home, key)
        if key not in {record["key"] for record in self._records}:
            shutil.rmtree(paths.folder)
            return
        for path in _working(paths):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def ledgers(endpoint: Endpoint, key: str | None = None) -> t.Iterator[tuple[str, str, bool]]:
    """Each database of a server with a ledger (of the migration ``key``): its name, the migration that it belongs to, and whether that may
    be dropped with it (:meth:`Ledger.droppable`).

    :raises ConnectionFailed: the server cannot be reached; a single database that refuses us is passed over.
    """
    with connect(endpoint, purpose="cleanup") as conn:
        query = "SELECT datname::text FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1"
        names = [row[0] for row in conn.execute(query) if row[0] not in PROVIDER_DATABASES]
    for name in names:
        with contextlib.suppress(ConnectionFailed), connect(endpoint, name, purpose="cleanup") as conn:
            owner = _owner(conn)
            if owner and key in (None, owner):
                yield name, owner, Ledger(conn).droppable()


def _owner(conn: psycopg.Connection[t.Any]) -> str | None:
    """Whose the ledger of this database is; None where there is none that we may read."""
    try:
        return Ledger(conn).owner()
    except psycopg.errors.InsufficientPrivilege:
        return None


def _working(paths: MigrationPaths) -> list[Path]:
    return [paths.folder / name for name in WORKING if (paths.folder / name).exists()]


def _address(endpoint: t.Mapping[str, t.Any]) -> tuple[str, int]:
    return str(endpoint["host"]).lower(), int(endpoint["port"])
