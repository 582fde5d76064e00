# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What checks look at: sessions of both sides, opened once and read-only, and facts that several checks need, read once."""

from __future__ import annotations

import contextlib
import dataclasses
import typing as t
from pathlib import Path

from ..errors import ConnectionFailed, MigrationError
from ..globals.parameters import read_parameters
from ..postgres.catalog import Table, read_tables
from ..postgres.drivers import psycopg
from ..postgres.profiles import Profile, profile_for
from ..postgres.selection import LeftOut, Selection, chosen_tables, read_left_out
from ..postgres.session import connect
from ..source.plugin import PluginChoice, choose_plugin
from ..source.settings import Setting
from ..spec import Endpoint, MigrationSpec

Row = tuple[t.Any, ...]
T = t.TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Extension:
    """One row of ``pg_extension``."""

    name: str
    version: str
    schema: str


class Context:
    """Everything a check may ask. ``database`` is empty for checks of the instance."""

    def __init__(self, spec: MigrationSpec, home: Path | None = None) -> None:
        self.spec = spec
        self.home = home or Path("/var/lib/pg_migration")
        self.database = ""
        self.databases: list[str] = []
        self._sessions: dict[tuple[str, str], psycopg.Connection[t.Any]] = {}
        self._facts: dict[tuple[t.Any, ...], t.Any] = {}

    # sessions

    def endpoint(self, side: str) -> Endpoint:
        """The endpoint of ``source`` or ``target``."""
        return self.spec.source if side == "source" else self.spec.target

    def session(self, side: str, database: str = "") -> psycopg.Connection[t.Any]:
        """A session in which no transaction can write, opened once for each database.

        :raises ConnectionFailed: as :func:`connect`.
        """
        key = (side, database)
        conn = self._sessions.get(key)
        if conn is None or conn.closed:
            conn = connect(self.endpoint(side), database, purpose="validate")
            conn.execute("SET default_transaction_read_only = on")
            self._sessions[key] = conn
        return conn

    def drop_session(self, side: str, database: str) -> None:
        """Close one session; a later check opens it anew."""
        conn = self._sessions.pop((side, database), None)
        if conn is not None:
            conn.close()

    def close(self) -> None:
        """Close every session."""
        for side, database in list(self._sessions):
            self.drop_session(side, database)

    @property
    def source(self) -> psycopg.Connection[t.Any]:
        """The source: the database being checked, the maintenance database in checks of the instance."""
        return self.session("source", self.database)

    @property
    def target(self) -> psycopg.Connection[t.Any]:
        """The target's maintenance database: the migrated one need not exist yet."""
        return self.session("target")

    # facts

    def once(self, *key: t.Any, make: t.Callable[[], T]) -> T:
        """``make()``, called the first time only for ``key`` and the present database."""
        full = (self.database, *key)
        if full not in self._facts:
            self._facts[full] = make()
        return t.cast(T, self._facts[full])

    def profile(self, side: str) -> Profile:
        """What that kind of server allows."""
        return profile_for(self.endpoint(side).type)

    def version(self, side: str) -> int:
        """``server_version_num`` (150020)."""
        return self.session(side).info.server_version

    def settings(self, side: str) -> dict[str, Setting]:
        """All of ``pg_settings`` as a new session of the migration user has them in the database being checked."""
        conn = self.source if side == "source" else self.target
        return self.once("settings", side, make=lambda: read_parameters(conn))

    def setting(self, side: str, name: str, default: str = "") -> str:
        """One value of :meth:`settings`."""
        found = self.settings(side).get(name)
        return found.value if found else default

    def custom(self, side: str, name: str) -> str | None:
        """The value of a parameter that only some servers have (``azure.extensions``), None where there is no such or it is hidden."""
        conn = self.session(side)
        try:
            row = conn.execute("SELECT pg_catalog.current_setting(%s, true)", [name]).fetchone()
        except psycopg.Error:
            return None
        return row[0] if row else None

    def called(self, side: str) -> str:
        """What people call that side: the source of a way back is the target to them."""
        return {"source": "target", "target": "source"}[side] if self.spec.back_of else side

    def user(self, side: str) -> str:
        """Name of the migration user on that side."""
        return self.endpoint(side).user

    def superuser(self, side: str) -> bool:
        """Is it a superuser there?"""
        return bool(one(self.session(side), "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"))

    # what is chosen (copy.schemas, copy.tables, copy.exclude)

    @property
    def selection(self) -> Selection:
        """What the specification chooses of each database."""
        return Selection.of(self.spec.copy)

    def tables(self, database: str = "") -> list[Table]:
        """The chosen tables of the source: of the database being checked, or of another one."""
        name = database or self.database
        conn = self.session("source", name)
        return self.once("tables", name, make=lambda: chosen_tables(conn, self.selection, read_tables(conn)))

    def left_out(self, database: str = "") -> LeftOut:
        """What is not chosen of the same database."""
        name = database or self.database
        return self.once("left out", name, make=lambda: read_left_out(self.session("source", name), self.selection, self.tables(name)))

    def chosen_rows(self, query: str, database: str = "", **values: t.Any) -> list[Row]:
        """Rows of a query on the same database that holds :data:`KEPT_SCHEMA` or :data:`KEPT_RELATION`, so that it sees no more than is
        chosen. ``%`` is written twice in it; ``values`` are its other parameters."""
        parameters = {**self.left_out(database).parameters(), **values}
        return self.session("source", database or self.database).execute(query.encode(), parameters).fetchall()

    def extensions(self) -> list[Extension]:
        """The extensions of the database being checked, on the source."""
        query = "SELECT e.extname, e.extversion, n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace ORDER BY 1"
        return self.once("extensions", make=lambda: [Extension(*row) for row in self.source.execute(query).fetchall()])

    def plugin(self) -> PluginChoice | MigrationError:
        """The output plugin, proven by a temporary slot in the database being checked; or why none can be used."""

        def choose() -> PluginChoice | MigrationError:
            try:
                return choose_plugin(self.spec.source, self.database or self.spec.source.dbname, self.spec.changes.plugin)
            except ConnectionFailed:
                raise
            except MigrationError as exc:
                return exc

        return self.once("plugin", make=choose)


@contextlib.contextmanager
def limited(conn: psycopg.Connection[t.Any], timeout: str) -> t.Iterator[None]:
    """Statements of this block are ended after ``timeout`` (``60s``)."""
    conn.execute(f"SET statement_timeout = '{timeout}'".encode())
    try:
        yield
    finally:
        conn.execute("SET statement_timeout = 0")


def one(conn: psycopg.Connection[t.Any], query: str, params: t.Sequence[t.Any] | None = None) -> t.Any:
    """The first column of the first row; None without a row."""
    row = conn.execute(query, params).fetchone()
    return row[0] if row else None
