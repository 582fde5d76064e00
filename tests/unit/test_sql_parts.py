# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""SQL is never built from values: what the engine puts into a statement is a constant, a number, or quoted by a helper that is named here.

Looked at is every f-string, sum and ``format`` that begins like a statement or is written where a session is given one. A name stands for
all that its function, or its module, sets it to; a parameter makes the same demand on the function's callers; a call is what the function
returns; rows of a query are quoted where the query quotes. What else comes from a server, a file or the inventory is not. The lists below
name helpers, fields and keys, never lines.
"""

from __future__ import annotations

import ast
import re
import typing as t
from pathlib import Path

import pytest
from sqlparts import Sources, called, inner

ENGINE = Path(__file__).resolve().parents[2] / "plugins" / "module_utils" / "_engine"

SINKS = {"execute", "executemany", "query", "stream", "copy", "fetch", "fetchrow", "fetchval", "copy_from_query"}
"""Methods of sessions that take SQL first."""

QUOTING = {
    "quote_ident", "quote_qualified", "quote_literal", "format_lsn", "_option", "column_list", "int", "len", "float", "round", "range",
    "hexdigest",
}  # fmt: skip
"""Their result is a quoted part, or a number, whatever they are given."""

PASSING = {
    "encode", "strip", "join", "format", "replace", "cast", "list", "tuple", "sorted", "set", "dict", "max", "min", "values", "keys",
    "items", "reversed", "enumerate", "zip", "get", "fromkeys", "lower", "upper", "str",
}  # fmt: skip
"""Their result is made of what they are given and of what they are called on."""

FIELDS = {
    "qualified", "only",  # a table's name, quoted, and the word before it
    "sql", "statement", "query", "restore", "condition",  # SQL, looked at where it is written
    "definition", "relation", "condef", "statistics",  # of an index or constraint, as PostgreSQL's own functions write them
    "key_hash", "row_hash", "canonical", "columns", "quoted",  # expressions of the comparison, looked at where they are written
    "which", "acl", "catalog", "letter", "owner",  # of a kind of object: constants
    "_staging",  # names of our temporary tables
    "operators",  # of a key's index, named in full by the server
    "type",  # a column's type, as format_type writes it
    "plugin",  # one of spec.PLUGINS
    "grants", "user",  # of the fence's journal: quoted when they were read
}  # fmt: skip

VERB = re.compile(
    r"\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|ALTER|CREATE|DROP|GRANT|REVOKE|SET|COPY|LOCK TABLE|COMMENT ON|TRUNCATE|DECLARE|WITH|BEGIN"
    r"|START_REPLICATION|CREATE_REPLICATION_SLOT) (?!of )\S"
)


def sources(folder: Path) -> Sources:
    """The files below ``folder`` under these rules."""
    return Sources(folder, quoting=QUOTING, passing=PASSING, fields=FIELDS, asking=SINKS)


def beginning(node: ast.AST) -> str:
    """What a text begins with."""
    if isinstance(node, ast.BinOp):
        return beginning(node.left)
    first = node.values[0] if isinstance(node, ast.JoinedStr) and node.values else node
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""


def statements(tree: ast.AST) -> t.Iterator[ast.expr]:
    """The texts to look at."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.JoinedStr, ast.BinOp)) and VERB.match(beginning(node)):
            yield node
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and called(node) in SINKS and node.args:
            given = inner(node.args[0])
            if not isinstance(given, (ast.Name, ast.Attribute)):  # what these stand for is looked at where it is written
                yield given


def findings(known: Sources) -> list[str]:
    """File, line, and the parts that nobody quoted."""
    found = []
    for path, tree in known.trees.items():
        for node in statements(tree):
            parts = known.unquoted(node)
            if parts:
                found.append(f"{path.name}:{node.lineno}: {ast.unparse(node)[:100]} has {sorted(parts)}")
    return found


def test_statements_are_made_of_quoted_parts() -> None:
    known = sources(ENGINE)
    assert sum(1 for tree in known.trees.values() for dummy in statements(tree)) > 400
    found = findings(known)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text, refused",
    [
        ('def f(conn, name):\n    conn.execute(f"DROP TABLE {name}")\n\nf(conn, row[0])', "row"),
        ('def f(conn, name):\n    conn.execute(f"DROP TABLE {quote_ident(name)}")\n\nf(conn, row[0])', ""),
        ('def f(conn, spec):\n    conn.execute("SET x = \'" + spec.value + "\'")', "spec.value"),
        ('def f(conn, spec):\n    text = f"SET x = {spec.value}"\n    conn.execute(text)', "spec.value"),
        ('def f(conn):\n    found = conn.execute("SELECT n FROM c").fetchone()\n    conn.execute(f"DROP TABLE {found[0]}")', "SELECT n"),
        ('def f(conn):\n    found = conn.execute("SELECT quote_ident(n) FROM c").fetchall()\n    conn.execute(f"DROP TABLE {found}")', ""),
        ('def f(conn, number: int):\n    conn.execute(f"SET x = {number}")', ""),
        ('def g(value):\n    return f"{value}"\n\ndef f(conn, spec):\n    conn.execute(f"SET x = {g(spec.value)}")', "spec.value"),
        ('def g(value):\n    return quote_literal(value)\n\ndef f(conn, spec):\n    conn.execute(f"SET x = {g(spec.x)}")', ""),
        ('def f(conn, spec):\n    all = []\n    all.append(spec.x)\n    conn.execute(f"SET x = {\', \'.join(all)}")', "spec.x"),
        ('def f(conn, spec):\n    conn.execute("SET x = {}".format(spec.value))', "spec.value"),
        ('def f(conn, spec):\n    conn.execute("SET x = %s" % spec.value)', "spec.value"),
    ],
)  # fmt: skip
def test_the_rule_finds_what_it_is_for(tmp_path: Path, text: str, refused: str) -> None:
    """By name, parameter, sum, ``format``, ``%``, list, result and row; and lets through what is quoted."""
    (tmp_path / "code.py").write_text(text, encoding="utf-8")
    found = findings(sources(tmp_path))
    assert (refused in "\n".join(found)) if refused else not found, found
    assert bool(found) == bool(refused)
