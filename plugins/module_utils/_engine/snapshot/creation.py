# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Many tables of the schema are made by several sessions at once: one backend's CPU is all that a CREATE TABLE waits for, and thousands of
them take longer than their rows.

pg_dump writes tables in an order in which each may need those before it (inheritance, a row type as a column's), and only the archive's
binary part says which do. So it is tried: a share that fails has changed nothing, and is made in the archive's order when the others are
there.
"""

from __future__ import annotations

import threading
import typing as t

from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_literal
from ..spec import Endpoint
from .archive import Statement
from .pool import TargetPool

ENOUGH = 50
"""Tables in a row from which on further sessions are worth opening."""

SHARE = 100
"""Entries in one transaction, if no more belong together: the lock table of a server is finite (``max_locks_per_transaction``)."""

WITH_TABLES = frozenset({"TABLE", "SEQUENCE", "SEQUENCE OWNED BY", "COMMENT"})
"""Kinds of entries that stand between tables and belong to the one before."""

INHERITED = ("default_table_access_method", "default_tablespace", "default_with_oids", "check_function_bodies", "xmloption")
"""Settings that pg_restore's script changes on its way, and that the further sessions take from the one that ran it so far."""


def split_off(statements: t.Sequence[Statement]) -> list[tuple[bool, list[Statement]]]:
    """``statements`` in runs, in their order; True for one whose tables may be made side by side.

    Such a run has no SET among its statements (for a table of another access method): it would hold for those that follow.
    """
    runs: list[tuple[bool, list[Statement]]] = []
    for statement in statements:
        together = statement.kind in WITH_TABLES and b"\nSET " not in statement.sql
        if runs and runs[-1][0] == together:
            runs[-1][1].append(statement)
        else:
            runs.append((together, [statement]))
    return [(together and sum(s.kind == "TABLE" for s in run) >= ENOUGH, run) for together, run in runs]


def shares(statements: t.Sequence[Statement], jobs: int) -> list[list[Statement]]:
    """``statements`` cut before tables into pieces for ``jobs`` sessions, at least two for each, so that none waits long for the last."""
    size = min(SHARE, -(-len(statements) // (2 * jobs)))
    pieces: list[list[Statement]] = [[]]
    for statement in statements:
        if len(pieces[-1]) >= size and statement.kind == "TABLE":
            pieces.append([])
        pieces[-1].append(statement)
    return pieces


def create_side_by_side(
    statements: t.Sequence[Statement], control: psycopg.Connection[t.Any], target: Endpoint, database: str, jobs: int, stop: threading.Event
) -> list[Statement]:
    """Have ``jobs`` sessions make the tables of ``statements``; what could not be made that way, in its order.

    :param control: the session that ran the script so far.
    :raises MigrationError: if no session can be opened.
    """
    pieces = shares(statements, jobs)
    refused: dict[int, list[Statement]] = {}
    pool = TargetPool(target, database, jobs, "base copy", _setup(control), stop)
    try:
        for number, piece in enumerate(pieces):
            pool.submit(-number, "create tables", _creating(number, piece, refused))
        pool.drain()
    finally:
        pool.close()
    return [statement for number in sorted(refused) for statement in refused[number]]


def _creating(number: int, piece: list[Statement], refused: dict[int, list[Statement]]) -> t.Callable[[psycopg.Connection[t.Any]], None]:
    """The task of one piece. Lost sessions are not judged here but left to the archive's order too: whether it was committed is not known,
    and what is there already is told by name."""

    def create(conn: psycopg.Connection[t.Any]) -> None:
        try:
            with conn.transaction():
                conn.execute(b"\n".join(statement.sql for statement in piece))
        except psycopg.Error:
            refused[number] = piece

    return create


def _setup(control: psycopg.Connection[t.Any]) -> str:
    rows = control.execute("SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [list(INHERITED)]).fetchall()
    pairs = [*rows, ("synchronous_commit", "off"), ("client_min_messages", "warning")]
    return "; ".join(f"SET {name} = {quote_literal(value)}" for name, value in pairs)
