# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Data alone, into a database whose schema is on the target already (``copy.target_schema: present``).

The database is not ours: it is never dropped, nothing in it is created but our ledger, and only the chosen tables' rows, the values of
sequences and large objects are written. Tables are told by their names and must have the source's columns; indexes, constraints,
triggers and grants stay as they are, and rest while rows are written (:mod:`..changes.quiet`).
"""

from __future__ import annotations

import dataclasses
import typing as t

from ..changes.quiet import let_rest, replica_role, restore, validate_restored
from ..errors import Conflict, MigrationError
from ..migration.ledger import NOT_OURS, Ledger
from ..postgres.catalog import Table, read_tables
from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_literal
from ..postgres.selection import Selection, chosen_tables
from ..postgres.session import connect
from ..spec import MigrationSpec
from .largeobjects import count_large_objects
from .progress import Progress
from .target import key_of_ledger, read_facts

RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE")
"""What the target's user needs on each table: rows are written, changed by the stream, emptied before a repetition, and compared."""

SHOWN = 10
"""How many differences an error names before it counts the rest."""

BATCH = 500
"""Tables in one query."""


@dataclasses.dataclass(frozen=True)
class Look:
    """What stands against copying into the present schema: ``differences`` of tables, ``rights`` that are missing (as GRANT statements),
    and what is not empty, ``filled``: tables, ``large_objects``: how many."""

    differences: tuple[str, ...]
    rights: tuple[str, ...]
    filled: tuple[str, ...]
    large_objects: int


def look(source: psycopg.Connection[t.Any], target: psycopg.Connection[t.Any], selection: Selection) -> Look:
    """Compare the chosen tables of ``source`` with those of ``target``, which are only read."""
    wanted = chosen_tables(source, selection, read_tables(source))
    there = {table.qualified: table for table in read_tables(target)}
    differences = [text for table in wanted for text in _differences(table, there.get(table.qualified))]
    common = [table.qualified for table in wanted if table.qualified in there]
    rights = _missing_rights(target, common)
    rows = [table for table in wanted if table.kind == "r" and table.qualified in there and not any(table.qualified in r for r in rights)]
    filled = _filled(target, rows)
    return Look(tuple(differences), tuple(rights), tuple(filled), count_large_objects(target))


def _differences(table: Table, there: Table | None) -> t.Iterator[str]:
    """What of ``table`` the target's table cannot take, for people."""
    if there is None:
        yield f"{table.label} is missing"
        return
    if table.kind != there.kind:
        kinds = {"r": "holds rows itself", "p": "is partitioned"}
        yield f"{table.label} {kinds[table.kind]} on the source and {kinds[there.kind]} on the target"
    columns = {column.name: column for column in there.columns}
    for column in table.stored_columns:
        other = columns.get(column.name)
        if other is None:
            yield f"column {column.name} of {table.label} is missing"
        elif other.generated:
            yield f"column {column.name} of {table.label} is generated on the target"
        elif column.type != other.type:
            yield f"column {column.name} of {table.label} is {column.type} on the source and {other.type} on the target"
    for name in sorted(set(columns) - {column.name for column in table.columns}):
        yield f"column {name} of {table.label} is on the target alone"


def _missing_rights(target: psycopg.Connection[t.Any], names: t.Sequence[str]) -> list[str]:
    query = (
        "SELECT 'GRANT ' || string_agg(r, ', ') || ' ON ' || n || ' TO ' || quote_ident(current_user) FROM unnest(%s::text[]) n,"
        " unnest(%s::text[]) r WHERE NOT has_table_privilege(n, r) GROUP BY n ORDER BY n"
    )
    return [row[0] for row in target.execute(query, [list(names), list(RIGHTS)])]


def _filled(target: psycopg.Connection[t.Any], tables: t.Sequence[Table]) -> list[str]:
    """Labels of the tables that hold a row."""
    found: list[str] = []
    for start in range(0, len(tables), BATCH):
        part = tables[start : start + BATCH]
        query = " UNION ALL ".join(
            f"SELECT {quote_literal(table.label)} WHERE EXISTS (SELECT FROM ONLY {table.qualified})" for table in part
        )
        found += [row[0] for row in target.execute(query.encode())]
    return sorted(found)


def accept_present(spec: MigrationSpec, database: str) -> None:
    """Take the existing database for the target of this migration: look whether its tables can hold what comes, and give it a ledger.

    :raises Conflict: PGM3001 another migration is at work in it, PGM3017 it or a table is missing or differs, or a right is missing,
        PGM3018 tables or large objects are there already (tables: unless ``copy.overwrite`` says to empty them).
    """
    with connect(spec.target, purpose="prepare") as conn:
        require_present(conn, spec, database)
    with connect(spec.target, database, purpose="prepare") as target, connect(spec.source, database, purpose="prepare") as source:
        owner = key_of_ledger(target)
        if owner == spec.key:
            return
        if owner:
            raise _conflict(spec, database, "PGM3001", f"it belongs to the migration {owner}", "Wait for its end, or play cleanup.")
        found = look(source, target, Selection.of(spec.copy))
        _refuse(spec, database, found)
        Ledger(target).create(spec.key)
        Ledger(target).mark_step(NOT_OURS)


def require_present(conn: psycopg.Connection[t.Any], spec: MigrationSpec, database: str) -> None:
    """Is ``database`` on the target that ``conn`` leads to?

    :raises Conflict: PGM3017 if not.
    """
    if read_facts(conn, database) is None:
        raise _conflict(
            spec,
            database,
            "PGM3017",
            "it does not exist",
            "Create it with its schema, or say copy.target_schema: create to have both made.",
        )


def _refuse(spec: MigrationSpec, database: str, found: Look) -> None:
    if found.differences:
        hint = "Bring the target's schema to the source's, or leave these tables out (copy.exclude)."
        raise _conflict(spec, database, "PGM3017", shortened(found.differences), hint, differences=list(found.differences))
    if found.rights:
        raise _conflict(spec, database, "PGM3017", "rights are missing", f"On the target, as the tables' owner: {shortened(found.rights)}")
    if found.filled and not spec.copy.overwrite:
        text = f"{len(found.filled)} of its tables hold rows: {shortened(found.filled)}"
        hint = "Empty them, or say copy.overwrite: true to have them emptied; nothing was touched."
        raise _conflict(spec, database, "PGM3018", text, hint, tables=list(found.filled))
    if found.large_objects:
        hint = "Remove them (lo_unlink): at the end the target has the source's large objects and no others."
        raise _conflict(spec, database, "PGM3018", f"it holds {found.large_objects} large object(s)", hint)


def shortened(texts: t.Sequence[str]) -> str:
    """The first of ``texts``, and how many more there are."""
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return "; ".join(texts[:SHOWN]) + more


def _conflict(spec: MigrationSpec, database: str, code: str, why: str, hint: str, **details: t.Any) -> Conflict:
    return Conflict(
        f"The database {database} on {spec.target.label()} cannot take the rows, as copy.target_schema: present says: {why}.",
        code=code,
        hint=hint,
        server=spec.target.label(),
        details={"database": database, **details},
    )


def leave_present(spec: MigrationSpec, database: str) -> list[str]:
    """Put back what rested in the database, and take our ledger out of it, if it is this migration's and was present; the rows stay.

    :return: what could not be restored, for people.
    """
    try:
        with connect(spec.target, database, purpose="leave") as conn:
            ledger = Ledger(conn)
            if ledger.owner() != spec.key or not ledger.step_done(NOT_OURS):
                return []
            restore(conn)
            told = validate_restored(conn)
            ledger.drop()
            return told
    except (MigrationError, psycopg.Error) as exc:
        return [f"{database} on the target could not be left as it was: {exc}"]


class PresentSchema:
    """Stands in for :class:`.schema.SchemaCopy` where the schema is there: nothing is dumped or created."""

    def __init__(
        self, spec: MigrationSpec, database: str, target: psycopg.Connection[t.Any], progress: Progress, tables: t.Sequence[Table]
    ):
        self._spec, self._database, self._target, self._progress = spec, database, target, progress
        self._names = {table.qualified for table in tables}

    def dump(self, snapshot: str) -> None:
        """Nothing: the target's schema is used as it is under any snapshot."""

    def apply_pre_data(self) -> None:
        """Let rest what would fire while rows are written, or forbid it.

        :raises PermissionMissing: as :func:`..changes.quiet.let_rest`.
        """
        there = [table.oid for table in read_tables(self._target) if table.qualified in self._names]
        refused = replica_role(self._target)
        resting = let_rest(self._target, there, refused, self._spec.target.label(self._database))
        for what in resting:
            self._progress.note(f"Rests on the target until the migration's end: {what}.")

    def apply_post_data(self, built: t.Collection[tuple[int, int]], foreign_keys: t.Callable[[], None]) -> None:
        """Nothing: indexes and constraints were there before the rows."""

    def take_back(self, source: psycopg.Connection[t.Any]) -> None:
        """Offline: what rested works again. Online it rests on, until the cutover."""
        if self._spec.online:
            return
        restore(self._target)
        for refused in validate_restored(self._target):
            self._progress.note(refused)
