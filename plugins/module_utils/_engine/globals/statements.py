# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The statements of globals, as text. Everything is quoted; what may be shown to people has ``'********'`` for a verifier."""

from __future__ import annotations

import typing as t

from ..postgres.identifiers import quote_ident, quote_literal
from .state import ATTRIBUTES, Membership, Role

HIDDEN_PASSWORD = "'********'"

QUOTED_LISTS = frozenset(
    {
        "local_preload_libraries",
        "output_plugin_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    }
)
"""Parameters whose stored value is a list of quoted names (GUC_LIST_QUOTE in PostgreSQL's sources; extensions cannot make such)."""


def split_list(value: str) -> list[str]:
    """The elements of a stored list such as ``"$user", public`` (as ``SplitGUCList`` of pg_dump reads it)."""
    items: list[str] = []
    position = 0
    while position < len(value):
        if value[position] in " ,\t\n":
            position += 1
            continue
        item = ""
        if value[position] == '"':
            position += 1
            while position < len(value):
                if value[position] == '"':
                    if value[position + 1 : position + 2] != '"':
                        position += 1
                        break
                    position += 1
                item += value[position]
                position += 1
        else:
            end = value.find(",", position)
            end = len(value) if end < 0 else end
            item = value[position:end].rstrip()
            position = end
        items.append(item)
    return items


def same_setting(name: str, left: str | None, right: str | None) -> bool:
    """Do two stored values of the parameter ``name`` mean the same?"""
    if left is not None and right is not None and name.lower() in QUOTED_LISTS:
        return split_list(left) == split_list(right)
    return left == right


def parameter(name: str) -> str:
    """The parameter ``name`` quoted part by part (``app.tenant`` is two names and a dot)."""
    return ".".join(quote_ident(part) for part in name.split("."))


def set_clause(name: str, value: str) -> str:
    """``SET name TO value`` for ALTER ROLE and ALTER DATABASE."""
    if name.lower() in QUOTED_LISTS:
        shown = ", ".join(quote_literal(item) for item in split_list(value)) or "''"
    else:
        shown = quote_literal(value)
    return f"SET {parameter(name)} TO {shown}"


def owner_of_setting(role: str, database: str) -> str:
    """``ROLE r``, ``ROLE r IN DATABASE d`` or ``DATABASE d``, for ALTER."""
    if not role:
        return f"DATABASE {quote_ident(database)}" if database else "ROLE ALL"
    return f"ROLE {quote_ident(role)}" + (f" IN DATABASE {quote_ident(database)}" if database else "")


def attribute_words(role: Role, names: t.Collection[str]) -> list[str]:
    """The attributes ``names`` of ``role`` as ALTER ROLE writes them."""
    return [word if getattr(role, name) else f"NO{word}" for name, word, dummy in ATTRIBUTES if name in names]


def password_clause(password: str | None, *, shown: bool) -> str:
    """``PASSWORD 'verifier'``, or with the verifier hidden."""
    if password is None:
        return "PASSWORD NULL"
    return f"PASSWORD {HIDDEN_PASSWORD if shown else quote_literal(password)}"


NOT_CARRIED = frozenset({"default_transaction_read_only"})
"""Settings of a database that a cutover's fence makes on the source; they must never reach the target."""


def grant_membership(wanted: Membership, *, modern: bool, by: str = "") -> str:
    """GRANT of a membership with its options; before 16 there is only ADMIN. ``by``: the grantor, where it is not the login."""
    grant = f"GRANT {quote_ident(wanted.role)} TO {quote_ident(wanted.member)}"
    granted_by = f" GRANTED BY {quote_ident(by)}" if by else ""
    if not modern:
        return grant + (" WITH ADMIN OPTION" if wanted.admin else "") + granted_by
    options = [("ADMIN", wanted.admin), ("INHERIT", wanted.inherit), ("SET", wanted.set)]
    words = ", ".join(f"{word} {'TRUE' if value else 'FALSE'}" for word, value in options if value is not None)
    return f"{grant} WITH {words}{granted_by}"


def comment_on(kind: str, name: str, comment: str | None) -> str:
    """``COMMENT ON kind name``; ``kind`` is ROLE or DATABASE."""
    return f"COMMENT ON {kind} {quote_ident(name)} IS {'NULL' if comment is None else quote_literal(comment)}"
