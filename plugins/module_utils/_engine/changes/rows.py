# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Changes one by one in source order: what cannot be a set, small sets, and any batch that failed as one (law 7)."""

from __future__ import annotations

import typing as t

from ..errors import StreamError
from ..postgres.drivers import psycopg
from ..postgres.lsn import format_lsn
from . import statements as sql
from .batch import TableSet
from .events import DELETE, INSERT, TRUNCATE, Change, Key, Truncate
from .partition import Placed
from .pipe import Mismatch, Pipe, RawText
from .tables import MISSING, Binding, TargetTable, TargetTables


class RowApplier:
    """Applies single changes through ``pipe``, inside the transaction that its caller has begun. Answers are read when the pipe is
    flushed."""

    def __init__(self, pipe: Pipe, tables: TargetTables) -> None:
        self._pipe = pipe
        self._tables = tables

    def _parameters(self, values: t.Iterable[bytes | None]) -> list[RawText | None]:
        return [None if v is None else RawText(v) for v in values]

    def _one(self, statement: str, values: t.Iterable[bytes | None], table: TargetTable, kind: str) -> None:
        self._pipe.send(statement, self._parameters(values), 1, lambda hit: Mismatch(table, kind, 1, hit))

    def small(self, content: TableSet) -> None:
        """A set of a few rows, without staging.

        :raises Mismatch: law 5.
        """
        table = content.table
        content.settle()
        for key in content.deleted:
            self._one(sql.delete_row(table, sql.by_key(table, 1)), _key_values(table, key), table, "DELETE")
        for rows in (content.updated, content.partial):
            for key, row in rows.items():
                names = [n for n, v in zip(table.columns, row, strict=True) if v is not MISSING and n not in table.key]
                self._update_by_key(table, names, [row[table.index[n]] for n in names], key)
        for row in [*content.inserted.values(), *content.plain]:
            self._one(sql.insert_row(table, table.columns), row, table, "INSERT")

    def _update_by_key(self, table: TargetTable, names: list[str], values: list[bytes | None], key: Key) -> None:
        if names:
            statement = sql.update_row(table, names, sql.by_key(table, len(names) + 1))
            self._one(statement, [*values, *_key_values(table, key)], table, "UPDATE")

    def change(self, change: Change) -> None:
        """One change as it came.

        :raises Mismatch: law 5.
        """
        binding = change.shape.binding or self._tables.bind(change.shape)
        if binding is None:
            return
        table: TargetTable = binding.table
        if change.op == INSERT:
            values = binding.take(binding.with_bytea(change.values))
            self._one(sql.insert_row(table, binding.names), values, table, "INSERT")
            return
        names: tuple[str, ...] = ()
        values = ()
        if change.op != DELETE:
            names, values = binding.names, binding.take(binding.with_bytea(change.values))
        where, parameters = self._where(change, table, len(names) + 1)
        if change.op == DELETE:
            self._one(sql.delete_row(table, where), parameters, table, "DELETE")
        elif not names:
            return
        elif set(names) & set(table.always):
            self._one(sql.replace_row(table, names, where), [*values, *parameters], table, "UPDATE")
        else:
            self._one(sql.update_row(table, names, where), [*values, *parameters], table, "UPDATE")

    def _where(self, change: Change, table: TargetTable, first: int) -> tuple[str, list[bytes | None]]:
        """What finds the old row: its key, or all that is known of it as text."""
        shape, values = change.old_shape or change.shape, change.old_values if change.old_shape else change.values
        binding = t.cast(Binding, shape.binding or self._tables.bind(shape))
        if table.key and binding.key is not None:
            return sql.by_key(table, first), _key_values(table, binding.key(values))
        if not binding.names:
            raise StreamError(
                f"A change of {table.label} does not say which row it changed.", code="PGM4023", hint="Give the table a replica identity."
            )
        row = binding.take(binding.with_bytea(values))
        where = sql.by_text(table, binding.names, [v is None for v in row], first)
        return where, [v for v in row if v is not None]

    def truncate(self, event: Truncate, commit_lsn: int) -> None:
        """One TRUNCATE."""
        tables = self._tables.truncated(event, commit_lsn)
        self._pipe.send(sql.truncate(tables, event.restart_identity))

    def in_order(self, events: t.Iterable[Placed]) -> None:
        """Changes in source order, and all answers.

        :raises StreamError: PGM4024 with table, key, LSN, kind of statement and SQLSTATE of the change that cannot be applied.
        """
        pipe = self._pipe
        try:
            for commit_lsn, event, told in events:
                pipe.cause = told
                if event.op == TRUNCATE:
                    self.truncate(t.cast(Truncate, event), commit_lsn)
                else:
                    self.change(t.cast(Change, event))
            pipe.flush()
        except Mismatch as exc:
            raise self.failure(pipe.failed, str(exc), "") from exc
        except psycopg.Error as exc:
            if transient(exc):
                raise
            raise self.failure(pipe.failed, *told_by(exc)) from exc
        finally:
            pipe.cause = None

    def failure(self, event: Change | Truncate, said: str, sqlstate: str) -> StreamError:
        """The error of a change that cannot be applied."""
        if isinstance(event, Truncate):
            label, key, kind = ", ".join(f"{s}.{n}" for s, n in event.relations), "", "TRUNCATE"
        else:
            kind = {"I": "INSERT", "U": "UPDATE", "D": "DELETE"}[event.op]
            label, key = event.shape.label, self._shown_key(event)
        shown = f" with key {key}" if key else ""
        return StreamError(
            f"The {kind} on {label}{shown} at {format_lsn(event.lsn)} cannot be applied: {said}"
            + (f" (SQLSTATE {sqlstate})." if sqlstate else "."),
            code="PGM4024",
            hint="Nothing from this transaction on was applied. Remove the cause on the target (a constraint, a row written there by"
            " others) and run the migration again: it goes on with this change.",
            sqlstate=sqlstate,
            details={"table": label, "key": key, "lsn": format_lsn(event.lsn), "statement": kind},
        )

    def _shown_key(self, change: Change) -> str:
        shape, values = change.old_shape or change.shape, change.old_values if change.old_shape else change.values
        binding = shape.binding
        pairs = dict(zip(shape.columns, values, strict=True))
        names = binding.table.key if binding is not None and binding.table.key else shape.columns
        shown = [f"{n}={_people(pairs[n])}" for n in names if n in pairs]
        return ", ".join(shown)[:500]


def told_by(exc: psycopg.Error) -> tuple[str, str]:
    """What the server said, and its SQLSTATE."""
    said = (exc.diag.message_primary or str(exc)) + (f" ({exc.diag.message_detail})" if exc.diag.message_detail else "")
    return said, exc.sqlstate or ""


def transient(exc: BaseException) -> bool:
    """Does ``exc`` say something of the connection or the server, not of the change: worth another attempt from the last position?"""
    state = getattr(exc, "sqlstate", None) or ""
    if not state:
        return isinstance(exc, (psycopg.OperationalError, psycopg.InterfaceError))
    return state[:2] in ("08", "40", "53", "57", "58") or state in ("55P03", "55006", "25006")


def _people(value: bytes | None) -> str:
    return "NULL" if value is None else value.decode("utf-8", "replace")


def _key_values(table: TargetTable, key: Key) -> list[bytes | None]:
    return [key] if len(table.key) == 1 else list(key)
