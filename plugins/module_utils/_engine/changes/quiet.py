# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What must rest on the target while rows are written, or it would do again what the source did, or hide rows from us.

Replica role (``session_replication_role``) lets ordinary triggers, rules and foreign keys rest in our sessions alone. What fires even so
(ENABLE ALWAYS, ENABLE REPLICA), what would fire where the server refuses that role, and FORCE ROW LEVEL SECURITY is taken back by the
tables' owner; how to restore it is written to the ledger in the same transaction and done at the cutover.
"""

from __future__ import annotations

import typing as t

from ..errors import PermissionMissing
from ..postgres.drivers import psycopg
from ..postgres.identifiers import SCHEMA, quote_ident, quote_literal, quote_qualified

_CREATE = f"""CREATE TABLE IF NOT EXISTS {SCHEMA}.resting (
    number int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text NOT NULL, restore text[] NOT NULL, validate text NOT NULL)"""

_STATES = {"O": "ENABLE", "A": "ENABLE ALWAYS", "R": "ENABLE REPLICA"}

_TRIGGERS = """
    SELECT n.nspname::text, c.relname::text, x.tgname::text, x.tgenabled::text
      FROM pg_trigger x JOIN pg_class c ON c.oid = x.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE x.tgrelid = ANY(%s) AND NOT x.tgisinternal AND x.tgenabled::text = ANY(%s) ORDER BY 1, 2, 3"""

_RULES = """
    SELECT n.nspname::text, c.relname::text, x.rulename::text, x.ev_enabled::text
      FROM pg_rewrite x JOIN pg_class c ON c.oid = x.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE x.ev_class = ANY(%s) AND x.ev_enabled::text = ANY(%s) ORDER BY 1, 2, 3"""

_FOREIGN_KEYS = """
    SELECT n.nspname::text, c.relname::text, k.conname::text, pg_get_constraintdef(k.oid), k.convalidated,
           c.relkind = 'r' AND (SELECT r.relkind FROM pg_class r WHERE r.oid = k.confrelid) = 'r',
           obj_description(k.oid, 'pg_constraint')
      FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE k.contype = 'f' AND (k.conrelid = ANY(%(oids)s) OR k.confrelid = ANY(%(oids)s)) AND {own} ORDER BY k.oid"""

_FORCED = """
    SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.oid = ANY(%s) AND c.relforcerowsecurity AND row_security_active(c.oid) ORDER BY 1, 2"""


class Rest(t.NamedTuple):
    """One thing: what it is, what lets it rest, what restores it, and what is done when there is time (empty: nothing)."""

    what: str
    quiet: str
    restore: list[str]
    validate: str


def replica_role(conn: psycopg.Connection[t.Any]) -> str:
    """Let triggers and foreign keys rest in this session; what the server said if it refuses that."""
    try:
        conn.execute("SET session_replication_role = replica")
    except psycopg.errors.InsufficientPrivilege as exc:
        return exc.diag.message_primary or str(exc)
    return ""


def let_rest(conn: psycopg.Connection[t.Any], oids: list[int], refused: str, label: str) -> list[str]:
    """Take back what would disturb us while we write to the tables ``oids``.

    :param refused: what :func:`replica_role` said.
    :return: what was taken back, for people.
    :raises PermissionMissing: PGM4030 or PGM4032 if we are not the owner of such a table, PGM4034 if row security applies even so.
    """
    found = _found(conn, oids, refused)
    if found:
        try:
            with conn.transaction():
                conn.execute(_CREATE)
                for rest in found:
                    conn.execute(rest.quiet.encode())
                    conn.execute(
                        f"INSERT INTO {SCHEMA}.resting (what, restore, validate) VALUES (%s, %s, %s)",
                        [rest.what, rest.restore, rest.validate],
                    )
        except psycopg.errors.InsufficientPrivilege as exc:
            names = "; ".join(rest.what for rest in found[:5])
            raise PermissionMissing(
                f"What would fire while rows are written to {label} cannot be disabled: {exc.diag.message_primary} ({names})."
                + (f" Replica role is refused, too: {refused}." if refused else ""),
                code="PGM4030" if refused else "PGM4032",
                hint="Make the migration's user a member of the tables' owner on the target, or GRANT SET ON PARAMETER"
                " session_replication_role to it (from PostgreSQL 15 on).",
                server=label,
                sqlstate="42501",
            ) from exc
    _check_rows_visible(conn, oids, label)
    return [rest.what for rest in found]


def _found(conn: psycopg.Connection[t.Any], oids: list[int], refused: str) -> list[Rest]:
    states = ["O", "A"] if refused else ["A", "R"]
    found = []
    for kind, query in (("TRIGGER", _TRIGGERS), ("RULE", _RULES)):
        for schema, table, name, state in conn.execute(query.encode(), [oids, states]).fetchall():
            relation = quote_qualified(schema, table)
            found.append(
                Rest(
                    f"{kind.lower()} {name} of {schema}.{table}",
                    f"ALTER TABLE {'ONLY ' if kind == 'TRIGGER' else ''}{relation} DISABLE {kind} {quote_ident(name)}",
                    [f"ALTER TABLE {'ONLY ' if kind == 'TRIGGER' else ''}{relation} {_STATES[state]} {kind} {quote_ident(name)}"],
                    "",
                )
            )
    for schema, table in conn.execute(_FORCED, [oids]).fetchall():
        alter = f"ALTER TABLE {quote_qualified(schema, table)}"
        found.append(
            Rest(
                f"forced row security of {schema}.{table}",
                f"{alter} NO FORCE ROW LEVEL SECURITY",
                [f"{alter} FORCE ROW LEVEL SECURITY"],
                "",
            )
        )
    return found + (_foreign_keys(conn, oids) if refused else [])


def _foreign_keys(conn: psycopg.Connection[t.Any], oids: list[int]) -> list[Rest]:
    """Their triggers are the system's, which no owner may disable: the keys go, and come back at the cutover without a check of the rows,
    which is made up for afterwards (keys of partitioned tables are checked at once)."""
    own = "k.conparentid = 0" if conn.info.server_version >= 110000 else "true"
    found = []
    for schema, table, name, definition, valid, ordinary, comment in conn.execute(_FOREIGN_KEYS.format(own=own).encode(), {"oids": oids}):
        alter, quoted = f"ALTER TABLE {quote_qualified(schema, table)}", quote_ident(name)
        unchecked = " NOT VALID" if ordinary and not definition.endswith((" NOT VALID", " NOT ENFORCED")) else ""
        restore = [f"{alter} ADD CONSTRAINT {quoted} {definition}{unchecked}"]
        if comment:
            restore.append(f"COMMENT ON CONSTRAINT {quoted} ON {quote_qualified(schema, table)} IS {quote_literal(comment)}")
        validate = f"{alter} VALIDATE CONSTRAINT {quoted}" if valid and unchecked else ""
        found.append(Rest(f"foreign key {name} of {schema}.{table}", f"{alter} DROP CONSTRAINT {quoted}", restore, validate))
    return found


def _check_rows_visible(conn: psycopg.Connection[t.Any], oids: list[int], label: str) -> None:
    rows = conn.execute(
        "SELECT c.oid::regclass::text FROM pg_class c WHERE c.oid = ANY(%s) AND c.relkind IN ('r', 'p') AND row_security_active(c.oid)"
        " ORDER BY 1 LIMIT 5",
        [oids],
    ).fetchall()
    if rows:
        raise PermissionMissing(
            f"Row security of {label} hides rows from us: {', '.join(row[0] for row in rows)}.",
            code="PGM4034",
            hint="Make the migration's user a member of the tables' owner, or ALTER ROLE ... BYPASSRLS.",
            server=label,
        )


def restore(conn: psycopg.Connection[t.Any]) -> int:
    """Put back all that :func:`let_rest` took, in one transaction; foreign keys are not checked yet. How many things it was."""
    if not _exists(conn):
        return 0
    with conn.transaction():
        rows = conn.execute(f"SELECT number, restore, validate FROM {SCHEMA}.resting WHERE restore <> '{{}}' ORDER BY number").fetchall()
        for number, statements, validate in rows:
            for statement in statements:
                conn.execute(statement.encode())
            if validate:
                conn.execute(f"UPDATE {SCHEMA}.resting SET restore = '{{}}' WHERE number = %s", [number])
            else:
                conn.execute(f"DELETE FROM {SCHEMA}.resting WHERE number = %s", [number])
    return len(rows)


def validate_restored(conn: psycopg.Connection[t.Any]) -> list[str]:
    """Check the rows under the foreign keys that :func:`restore` put back; readers and writers go on meanwhile.

    :return: what the server said of keys that do not hold; they stay NOT VALID.
    """
    if not _exists(conn):
        return []
    refused = []
    for what, statement in conn.execute(f"SELECT what, validate FROM {SCHEMA}.resting WHERE restore = '{{}}' ORDER BY number").fetchall():
        try:
            conn.execute(statement.encode())
        except psycopg.Error as exc:
            refused.append(f"The {what} stays NOT VALID on the target: {exc.diag.message_primary or exc}")
    return refused


def _exists(conn: psycopg.Connection[t.Any]) -> bool:
    row = conn.execute("SELECT pg_catalog.to_regclass(%s) IS NOT NULL", [f"{SCHEMA}.resting"]).fetchone()
    return bool(row and row[0])
