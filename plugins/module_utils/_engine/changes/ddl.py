# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""DDL on the source while changes are streamed: found by a fingerprint of the catalog, because logical decoding does not tell.

A table made after the start is in neither the publication nor the filter of wal2json: without this its rows would be lost in silence.
What is compared: the tables of users, their columns, types and replica identity, and the labels of enums. Before version 11, where TRUNCATE
is not decoded either (release notes of 11), each table's file as well. The server makes one digest of all of it; only when that differs is
the whole read.
"""

from __future__ import annotations

import dataclasses
import json
import typing as t
from pathlib import Path

from ..errors import StreamError
from ..migration.paths import read_json, write_json
from ..postgres.catalog import NOT_OF_EXTENSION, USER_SCHEMAS
from ..postgres.drivers import psycopg

FILE = "fingerprint.json"
"""Where a worker keeps the fingerprint, in its folder."""

EMPTYING = "TRUNCATE, which a source before PostgreSQL 11 does not stream, or VACUUM FULL or CLUSTER, which look alike from outside"

NAMED = 5
"""Changes that a message names."""


@dataclasses.dataclass(frozen=True)
class Relation:
    """A table or enum as fingerprinted: ``facts`` is its kind, persistence and identity, ``columns`` name and type of each column, or
    the labels of an enum; ``file`` the number of the table's file where it tells of TRUNCATE, else 0."""

    oid: int
    facts: str
    columns: tuple[str, ...]
    file: int = 0


Fingerprint = t.Dict[str, Relation]
"""``schema.name`` to what it is."""


@dataclasses.dataclass(frozen=True)
class Change:
    """What DDL did to one object; ``kind`` is ``created``, ``dropped``, ``altered`` or ``emptied``."""

    label: str
    kind: str
    text: str


def _query(version: int) -> str:
    generated = "nullif(a.attgenerated::text, '')" if version >= 120000 else "NULL"
    identity = "nullif(a.attidentity::text, '')" if version >= 100000 else "NULL"
    file = "c.relfilenode::bigint" if version < 110000 else "0::bigint"
    replica_index = "coalesce((SELECT i.indexrelid FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident LIMIT 1), 0)"
    primary = "(SELECT i.indkey::text FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)"
    return f"""
        SELECT c.oid::bigint AS oid, n.nspname::text || '.' || c.relname::text AS label,
               concat_ws(' ', CASE c.relkind WHEN 'p' THEN 'partitioned table' ELSE 'table' END, c.relpersistence,
                         'identity', c.relreplident, {replica_index}, 'key', {primary}) AS facts,
               ARRAY(SELECT concat_ws(' ', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), {generated}, {identity})
                       FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) AS columns,
               {file} AS file
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND {USER_SCHEMAS} AND {NOT_OF_EXTENSION}
        UNION ALL
        SELECT y.oid::bigint, n.nspname::text || '.' || y.typname::text, 'enum',
               ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = y.oid ORDER BY e.enumsortorder), 0
          FROM pg_type y JOIN pg_namespace n ON n.oid = y.typnamespace WHERE y.typtype = 'e' AND {USER_SCHEMAS}"""


def read_fingerprint(conn: psycopg.Connection[t.Any]) -> Fingerprint:
    """The fingerprint of the database of ``conn``."""
    rows = conn.execute(_query(conn.info.server_version)).fetchall()
    return {row[1]: Relation(int(row[0]), str(row[2]), tuple(row[3]), int(row[4])) for row in rows}


def read_digest(conn: psycopg.Connection[t.Any]) -> str:
    """A digest of the fingerprint, made by the server (an MD5, to notice change and for nothing else)."""
    line = "md5(concat_ws('|', f.oid, f.label, f.facts, f.columns::text, f.file))"
    row = conn.execute(f"SELECT md5(string_agg({line}, '' ORDER BY f.label, f.oid)) FROM ({_query(conn.info.server_version)}) f").fetchone()
    return str(row[0]) if row else ""


def compare(before: Fingerprint, after: Fingerprint) -> list[Change]:
    """What DDL did between the two, by label."""
    found = []
    for label in sorted(set(before) | set(after)):
        old, new = before.get(label), after.get(label)
        if old is None and new is not None:
            what = "type" if new.facts == "enum" else "table"
            found.append(Change(label, "created", f"{what} {label} was created; rows written to it are not streamed"))
        elif new is None and old is not None:
            found.append(Change(label, "dropped", f"{label} was dropped or renamed"))
        elif old is not None and new is not None and dataclasses.replace(old, file=new.file) == new:
            if old.file != new.file:
                found.append(Change(label, "emptied", f"{label} was emptied or rewritten ({EMPTYING})"))
        elif old is not None and new is not None:
            found.append(Change(label, "altered", f"{label} was altered: {_alteration(old, new)}"))
    return [change for change in found if change.kind != "created" or after[change.label].facts != "enum"]


def _alteration(old: Relation, new: Relation) -> str:
    words = []
    if old.oid != new.oid:
        words.append("dropped and created again")
    gone = [c for c in old.columns if c not in new.columns]
    come = [c for c in new.columns if c not in old.columns]
    words += [f"without {c}" for c in gone] + [f"with {c}" for c in come]
    if not gone and not come and old.columns != new.columns:
        words.append("another order")
    if old.facts != new.facts:
        words.append(f"{old.facts} became {new.facts}")
    return ", ".join(words)


def settled(changes: t.Iterable[Change], source: Fingerprint, target: Fingerprint) -> bool:
    """Has the target been given what DDL did to the source? Never so for a table that was created or
    emptied: that has not been streamed."""
    for change in changes:
        here, there = source.get(change.label), target.get(change.label)
        if change.kind in ("created", "emptied") or (here is None) != (there is None):
            return False
        if here is not None and there is not None and sorted(here.columns) != sorted(there.columns):
            return False
    return True


def say(changes: t.Sequence[Change]) -> str:
    """The changes in words."""
    more = f"; and {len(changes) - NAMED} more" if len(changes) > NAMED else ""
    return "; ".join(change.text for change in changes[:NAMED]) + more


def refusal(changes: t.Sequence[Change], server: str) -> StreamError:
    """The error that names them."""
    return StreamError(
        f"DDL on {server} while its changes are streamed: {say(changes)}.",
        code="PGM4050",
        hint="Run the playbook cleanup and start again, or undo the DDL and run the playbook migrate; see changes.on_ddl.",
        server=server,
        details={"tables": [{"table": c.label, "change": c.kind, "text": c.text} for c in changes]},
    )


class Baseline:
    """The fingerprint that the present is compared with, kept in the file ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._digest = ""
        self._changes: list[Change] = []
        self.now: Fingerprint = {}

    def take(self, conn: psycopg.Connection[t.Any], *, again: bool = False) -> None:
        """Remember the present of ``conn``; once, unless ``again``."""
        if again or not self.path.exists():
            found = read_fingerprint(conn)
            write_json(self.path, {label: [r.oid, r.facts, list(r.columns), r.file] for label, r in found.items()})
            self._digest = ""

    def read(self) -> Fingerprint:
        """What was remembered.

        :raises StreamError: if the file is no fingerprint.
        """
        try:
            kept = (read_json(self.path) or {}).items()
            return {label: Relation(int(oid), facts, tuple(cols), *map(int, file)) for label, (oid, facts, cols, *file) in kept}
        except (json.JSONDecodeError, TypeError, ValueError) as exc:
            raise StreamError(f"{self.path} cannot be read: {exc}", code="PGM4031", hint="Check the runtime host's disk.") from exc

    def changes(self, conn: psycopg.Connection[t.Any]) -> list[Change]:
        """What DDL has done since; one cheap query while nothing has changed since the last call."""
        digest = read_digest(conn)
        if digest != self._digest:
            self.now = read_fingerprint(conn)
            self._changes = compare(self.read(), self.now)
            self._digest = digest
        return self._changes
