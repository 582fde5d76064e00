# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The schema: dumped once under the migration's snapshot, applied in two halves around the data."""

from __future__ import annotations

import threading
import typing as t
from pathlib import Path

from ..errors import CopyError
from ..migration.ledger import Ledger
from ..postgres.catalog import USER_SCHEMAS
from ..postgres.drivers import psycopg
from ..postgres.identifiers import SCHEMA
from ..postgres.session import PINNED
from ..spec import MigrationSpec
from . import leftout
from .archive import Archive, Entry, Statement, adapt, wanted
from .creation import create_side_by_side, split_off
from .progress import Progress
from .roles import RolePlan, lend_create, plan_roles, take_back_create
from .selected import Selected
from .tablespaces import TABLES, move_to_tablespaces
from .target import PRE_DATA
from .tools import Stopped, connection_string, find_tools, password_file, run_tool

BATCH = 200
"""Entries in one message to the target."""

SEGMENT = 1000
"""Entries in one transaction of the post-data: the lock table of a server is finite (``max_locks_per_transaction``)."""

PG_PROC = 1255
"""OID of the catalog itself, as an archive's table of contents has it."""

NAMED = 20
"""Relations that are named for each tablespace that is left out."""

HINTS = {
    "42501": "The target's administrator lacks a right: make it a member of the owner, or have a superuser create this object first.",
    "42704": "Create what is missing on the target (role, type or extension), then run the playbook again.",
    "0A000": "This kind of server does not support the object: drop it on the source, or migrate without it.",
    "42710": "The object exists on the target already.",
}


_ELSEWHERE = f"""
    SELECT s.spcname::text, n.nspname || '.' || c.relname
      FROM pg_class c JOIN pg_tablespace s ON s.oid = c.reltablespace JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_index i ON i.indexrelid = c.oid
     WHERE c.relkind IN ('r', 'p', 'm', 'i', 'I') AND {USER_SCHEMAS}
       AND (coalesce(i.indrelid, c.oid) = ANY(%s) OR c.relkind = 'm') ORDER BY 1, 2"""


_STATISTICS = """
    SELECT s.oid::bigint, ARRAY(SELECT d.refobjid::bigint FROM pg_depend d WHERE d.classid = 'pg_statistic_ext'::regclass
                                   AND d.objid = s.oid AND d.refclassid = 'pg_proc'::regclass)
      FROM pg_statistic_ext s JOIN pg_class c ON c.oid = s.stxrelid WHERE c.relkind IN ('r', 'p')"""


def statistics_of_tables(source: psycopg.Connection[t.Any]) -> dict[int, list[int]]:
    """OIDs of the extended statistics of ordinary and partitioned tables, with those of the functions in their expressions."""
    if source.info.server_version < 100000:
        return {}
    return dict(source.execute(_STATISTICS).fetchall())


def partitioned_indexes(source: psycopg.Connection[t.Any]) -> set[tuple[int, int]]:
    """Catalog and OID of the indexes of partitioned tables, and of the constraints that rest on them."""
    return set(
        source.execute(
            "SELECT 'pg_class'::regclass::bigint, oid::bigint FROM pg_class WHERE relkind = 'I' UNION ALL"
            " SELECT 'pg_constraint'::regclass::bigint, k.oid::bigint FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid"
            " WHERE k.contype IN ('p', 'u', 'x') AND c.relkind = 'p'"
        ).fetchall()
    )


def not_dumped(source: psycopg.Connection[t.Any], selected: Selected, tablespaces: t.Container[str] = ()) -> list[str]:
    """What we have pg_dump leave out of the archive altogether, for people: tablespaces (other than the mapped ``tablespaces``) and
    subscriptions, each by its name."""
    places: dict[str, list[str]] = {}
    for place, name in source.execute(_ELSEWHERE, [[table.oid for table in selected.tables]]):
        if place not in tablespaces:
            places.setdefault(place, []).append(name)
    notes = []
    for place, names in places.items():
        shown = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
        notes.append(leftout.TABLESPACE.say(name=place, relations=shown))
    if source.info.server_version >= 100000:
        query = (
            "SELECT subname::text FROM pg_subscription WHERE subdbid ="
            " (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 1"
        )
        notes += [leftout.SUBSCRIPTION.say(name=name) for (name,) in source.execute(query)]
    return notes


class SchemaCopy:
    """The schema of one database on its way to the target.

    :param source: a session on the source inside a transaction with the migration's snapshot.
    :param target: a session on the target database in autocommit.
    """

    def __init__(
        self,
        spec: MigrationSpec,
        database: str,
        workdir: Path,
        source: psycopg.Connection[t.Any],
        target: psycopg.Connection[t.Any],
        progress: Progress,
        stop: threading.Event,
        selected: Selected,
    ) -> None:
        self._spec = spec
        self._selected = selected
        self._database = database
        self._target = target
        self._progress = progress
        self._stop = stop
        self._ledger = Ledger(target)
        self._source = source
        major = max(source.info.server_version, target.info.server_version) // 10000
        self._tools = find_tools(spec.copy.bindir, major)
        self._archive = Archive(workdir / "schema.dump", self._tools, stop)
        self.roles: RolePlan = plan_roles(spec, source, target)
        self._statistics = statistics_of_tables(source)
        self._partitioned = partitioned_indexes(source)
        row = target.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
        self._superuser = bool(row and row[0])
        for note in (*self.roles.notes, *selected.notes(), *not_dumped(source, selected, spec.globals.tablespaces)):
            progress.note(note)

    def dump(self, snapshot: str) -> None:
        """Write the archive under ``snapshot``, unless it is there from an earlier attempt whose first half was applied."""
        path = self._archive.path
        if path.exists() and self._ledger.step_done(PRE_DATA):
            return
        path.unlink(missing_ok=True)
        fresh = path.with_suffix(".new")
        with password_file(self._spec.source, path.parent) as passfile:
            command = [
                self._tools.path("pg_dump"),
                "--format=custom",
                "--schema-only",
                "--no-tablespaces",
                "--no-subscriptions",
                f"--lock-wait-timeout={PINNED['lock_timeout']}",
                f"--snapshot={snapshot}",
                f"--exclude-schema={SCHEMA}",
                *self._selected.arguments,
                f"--file={fresh}",
                "--dbname=" + connection_string(self._spec.source, self._database, passfile),
            ]
            run_tool(command, "dump the schema", self._spec.source.label(self._database), self._stop)
        fresh.replace(path)

    def apply_pre_data(self) -> None:
        """Everything that tables need before their rows, and extended statistics of theirs; once."""
        self._check_extensions()
        if self._ledger.step_done(PRE_DATA):
            return
        everything = self._chosen()
        chosen = [e for e in everything if not e.post]
        self._session()
        containers = [e for e in chosen if e.kind in ("SCHEMA", "EXTENSION") or (e.kind == "ACL" and e.rest.startswith("- SCHEMA "))]
        self._run(containers)
        with self._target.transaction():
            lend_create(self._source, self._target, self.roles)
        self._run([e for e in chosen if e not in set(containers)])
        self._run(self._early(everything))
        move_to_tablespaces(self._source, self._target, self._spec.globals.tablespaces, TABLES)
        self._ledger.mark_step(PRE_DATA)

    def apply_post_data(self, built: t.Collection[tuple[int, int]], foreign_keys: t.Callable[[], None]) -> None:
        """What is left of the schema after the data; each segment once.

        :param built: catalog and OID (of the source) of what the caller makes itself: indexes, constraints.
        :param foreign_keys: makes the foreign keys, when the keys of partitioned tables are there, which come out of their partitions'
            indexes; before the rest: comments on them, row security and event triggers are among that.
        """
        everything = self._chosen(quiet=True)
        early = set(self._early(everything))
        chosen = [e for e in everything if e.post and (e.catalog, e.oid) not in built and e not in early]
        attached = [e for e in chosen if e.kind == "INDEX ATTACH" or (e.catalog, e.oid) in self._partitioned]
        self._session()
        self._in_segments("partitioned indexes", attached)
        foreign_keys()
        done = set(attached)
        self._in_segments("post-data", [e for e in chosen if e not in done])

    def _in_segments(self, name: str, entries: t.Sequence[Entry]) -> None:
        for number, start in enumerate(range(0, len(entries), SEGMENT)):
            step = f"{name} {number}"
            if not self._ledger.step_done(step):
                with self._target.transaction():
                    self._run(entries[start : start + SEGMENT])
                    self._ledger.mark_step(step)

    def _early(self, entries: t.Sequence[Entry]) -> list[Entry]:
        """The extended statistics that are made before the rows, so that each table's only ANALYZE fills them: not those of materialized
        views, nor those with a function that pg_dump itself brings after the data."""
        late = {entry.oid for entry in entries if entry.catalog == PG_PROC and entry.post}
        early = {oid for oid, functions in self._statistics.items() if not late.intersection(functions)}
        return [entry for entry in entries if entry.kind == "STATISTICS" and entry.oid in early]

    def take_back(self, source: psycopg.Connection[t.Any]) -> None:
        """Take back the rights that were lent for the time of the restore; ``source`` is any session on the source."""
        with self._target.transaction():
            take_back_create(source, self._target, self.roles)

    def _chosen(self, quiet: bool = False) -> list[Entry]:
        chosen = []
        contents = self._archive.contents()
        without = self._selected.names_dropped(contents)
        for entry in contents:
            yes, note = wanted(entry, event_triggers=self._superuser)
            if yes and not self._selected.keeps(entry, without):
                continue
            if yes:
                chosen.append(entry)
            elif note and not quiet:
                self._progress.note(note)
        return chosen

    def _session(self) -> None:
        self._target.execute("SET check_function_bodies = off; SET synchronous_commit = off; SET client_min_messages = warning")

    def _run(self, entries: t.Sequence[Entry]) -> None:
        roles = self.roles
        for together, run in split_off([adapt(s, unowned=roles.unowned, absent=roles.absent) for s in self._archive.sql(entries)]):
            jobs = self._spec.copy.index_jobs
            if together and jobs > 1 and self._target.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
                run = create_side_by_side(run, self._target, self._spec.target, self._database, jobs, self._stop)
            self._run_in_order(run)

    def _run_in_order(self, statements: t.Sequence[Statement]) -> None:
        for start in range(0, len(statements), BATCH):
            if self._stop.is_set():
                raise Stopped
            batch = statements[start : start + BATCH]
            try:
                with self._target.transaction():
                    self._target.execute(b"\n".join(s.sql for s in batch))
            except psycopg.Error:
                self._one_by_one(batch)

    def _one_by_one(self, batch: t.Sequence[Statement]) -> None:
        """Apply ``batch`` entry by entry, to name the one that fails."""
        with self._target.transaction():
            for statement in batch:
                try:
                    self._target.execute(statement.sql)
                except psycopg.Error as exc:
                    raise self._refused(statement, exc) from exc

    def _refused(self, statement: Statement, exc: psycopg.Error) -> CopyError:
        state = exc.sqlstate or ""
        words = exc.diag.message_primary or " ".join(str(exc).split())
        label = self._spec.target.label(self._database)
        return CopyError(
            f"Could not create {statement.title} on {label}: {words} (SQLSTATE {state or 'none'}).",
            code="PGM3007",
            hint=HINTS.get(state, ""),
            server=label,
            sqlstate=state,
            details={"object": statement.title},
        )

    def _check_extensions(self) -> None:
        """Refuse extensions that the target cannot have, and say where versions differ."""
        needed = dict(self._source.execute("SELECT extname::text, extversion FROM pg_extension WHERE extname <> 'plpgsql'").fetchall())
        for one in self._selected.wrappers:
            needed.pop(one.name, None)
        available = dict(self._target.execute("SELECT name::text, default_version FROM pg_available_extensions").fetchall())
        absent = sorted(set(needed) - set(available))
        if absent:
            raise CopyError(
                f"Extensions of the source are not available on {self._spec.target.label()}: {', '.join(absent)}.",
                code="PGM3006",
                hint="Install or allow them on the target, or drop them on the source.",
                server=self._spec.target.label(),
                details={"extensions": absent},
            )
        for name in sorted(needed):
            if needed[name] != available[name]:
                self._progress.note(leftout.EXTENSION_VERSION.say(name=name, here=needed[name], there=available[name]))
