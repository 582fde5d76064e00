# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Tables whose updates and deletes cannot be streamed, because nothing in the WAL would name the row (law 9).

A table has a replica identity when its setting is FULL, an index named for it is valid, or the default setting finds a primary key that
is valid and not deferrable (PostgreSQL manual, ALTER TABLE ... REPLICA IDENTITY, and ``RelationGetIndexList`` for the deferrable case).
"""

from __future__ import annotations

import dataclasses
import time
import typing as t

from ..errors import MigrationError
from ..postgres.catalog import NOT_OF_EXTENSION, USER_SCHEMAS, read_tables
from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_ident, quote_qualified
from ..postgres.selection import EVERYTHING, Selection, chosen_tables

LOCK_TIMEOUT = "2s"
ATTEMPTS = 10


@dataclasses.dataclass(frozen=True)
class IdentityGap:
    """A logged table without replica identity. ``setting`` is ``d n f i``; ``index`` names a unique index that could serve."""

    schema: str
    name: str
    setting: str
    setting_index: str  # the index that the setting names, where the setting is 'i'
    index: str
    why: str

    @property
    def label(self) -> str:
        """``schema.name`` for people."""
        return f"{self.schema}.{self.name}"

    @property
    def qualified(self) -> str:
        """``"schema"."name"``."""
        return quote_qualified(self.schema, self.name)

    def statement(self) -> str:
        """The ALTER TABLE that closes the gap: by the unique index where there is one, by the whole row otherwise."""
        how = f"USING INDEX {quote_ident(self.index)}" if self.index else "FULL"
        return f"ALTER TABLE {self.qualified} REPLICA IDENTITY {how}"

    def restore(self) -> str:
        """The ALTER TABLE that gives the former setting back."""
        using = f"USING INDEX {quote_ident(self.setting_index)}" if self.setting_index else "DEFAULT"
        how = {"d": "DEFAULT", "n": "NOTHING", "f": "FULL", "i": using}[self.setting]
        return f"ALTER TABLE {self.qualified} REPLICA IDENTITY {how}"


@dataclasses.dataclass(frozen=True)
class IdentityChange:
    """One setting that was changed, with the statement that gives the old one back."""

    table: str
    statement: str
    restore: str


@dataclasses.dataclass(frozen=True)
class IdentityPlan:
    """What a policy makes of the gaps: ``changes`` to make, labels of tables to leave out of the stream (``excluded``), and the
    tables that stop the migration (``refused``)."""

    changes: tuple[IdentityChange, ...] = ()
    excluded: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


def tables_without_identity(conn: psycopg.Connection[t.Any]) -> list[IdentityGap]:
    """The gaps in this database. Only tables that are logged and hold rows of their own count: parents of partitions do not."""
    immediate = "i.indisvalid AND i.indimmediate AND i.indpred IS NULL"
    query = f"""
        SELECT n.nspname, c.relname, c.relreplident::text,
               coalesce((SELECT x.relname FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
                          WHERE i.indrelid = c.oid AND i.indisreplident), ''),
               coalesce((SELECT min(x.relname::text) FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
                          WHERE i.indrelid = c.oid AND i.indisunique AND {immediate} AND i.indexprs IS NULL
                            AND NOT EXISTS (SELECT FROM pg_attribute a
                                             WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey::int2[]) AND NOT a.attnotnull)), ''),
               CASE c.relreplident WHEN 'n' THEN 'its replica identity is NOTHING'
                    WHEN 'i' THEN 'the index of its replica identity is missing or invalid'
                    ELSE CASE WHEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
                              THEN 'its primary key is deferrable or invalid' ELSE 'it has no primary key' END END
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND {USER_SCHEMAS} AND {NOT_OF_EXTENSION}
           AND c.relreplident <> 'f'
           AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND {immediate}
                            AND (c.relreplident = 'd' AND i.indisprimary OR c.relreplident = 'i' AND i.indisreplident))
         ORDER BY 1, 2"""
    return [IdentityGap(*row) for row in conn.execute(query).fetchall()]


def plan_identity(gaps: t.Sequence[IdentityGap], policy: str) -> IdentityPlan:
    """What ``policy`` (``fail``, ``set_full``, ``exclude``) makes of ``gaps``.

    :raises ValueError: for another policy.
    """
    if policy == "fail":
        return IdentityPlan(refused=tuple(g.label for g in gaps))
    if policy == "exclude":
        return IdentityPlan(excluded=tuple(g.label for g in gaps))
    if policy == "set_full":
        return IdentityPlan(changes=tuple(IdentityChange(g.label, g.statement(), g.restore()) for g in gaps))
    raise ValueError(f"no policy for tables without replica identity: {policy!r}")


def identity_plan(conn: psycopg.Connection[t.Any], policy: str, selection: Selection = EVERYTHING) -> IdentityPlan:
    """What ``policy`` makes of the chosen tables of this database; nothing is changed.

    :raises MigrationError: PGM2301 under the policy ``fail`` where there is a gap.
    """
    chosen = {table.label for table in chosen_tables(conn, selection, read_tables(conn))}
    gaps = [gap for gap in tables_without_identity(conn) if gap.label in chosen]
    plan = plan_identity(gaps, policy)
    if plan.refused:
        raise MigrationError(
            f"{len(plan.refused)} table(s) in {conn.info.dbname} have no replica identity: {', '.join(plan.refused[:20])}."
            " Updates and deletes in them cannot be streamed.",
            code="PGM2301",
            hint=f"{gaps[0].statement()}; ...or set changes.replica_identity to set_full or exclude.",
            details={"tables": list(plan.refused)},
        )
    return plan


def change_identities(conn: psycopg.Connection[t.Any], changes: t.Iterable[IdentityChange]) -> None:
    """Make ``changes``.

    Each ALTER TABLE takes a short exclusive lock, so it is tried with a lock timeout of two seconds, ten times at most: the
    application's queries never queue behind ours for longer.

    :raises MigrationError: PGM1212 where a table cannot be altered.
    """
    for change in changes:
        _alter(conn, change.table, change.statement)


def restore_identity(conn: psycopg.Connection[t.Any], changes: t.Iterable[IdentityChange]) -> list[str]:
    """Give the former settings back; a table that is gone meanwhile is passed over. Answers with the labels restored.

    :raises MigrationError: PGM1212 where a table cannot be altered.
    """
    done = []
    for change in changes:
        if _alter(conn, change.table, change.restore, missing_ok=True):
            done.append(change.table)
    return done


def _alter(conn: psycopg.Connection[t.Any], table: str, statement: str, *, missing_ok: bool = False) -> bool:
    """Run one ALTER TABLE on a connection in autocommit mode, with a short lock timeout, again while the lock is held by others."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with conn.transaction():
                conn.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
                conn.execute(statement)
            return True
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            if missing_ok:
                return False
            raise
        except psycopg.errors.LockNotAvailable as exc:
            if attempt == ATTEMPTS:
                raise _refusal(conn, table, statement, exc, "End the transaction that holds the table, then run again.") from exc
            time.sleep(min(0.2 * attempt, 1.0))
        except psycopg.Error as exc:
            raise _refusal(conn, table, statement, exc, f"As the owner of {table}: {statement};") from exc
    return False


def _refusal(conn: psycopg.Connection[t.Any], table: str, statement: str, exc: psycopg.Error, hint: str) -> MigrationError:
    state = exc.sqlstate or ""
    return MigrationError(
        f"Could not set the replica identity of {table} in {conn.info.dbname}: {exc.diag.message_primary} (SQLSTATE {state}).",
        code="PGM1212",
        sqlstate=state,
        hint=hint,
        details={"statement": statement},
    )
