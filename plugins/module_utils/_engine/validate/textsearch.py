# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The check of what full text search needs on the target."""

from __future__ import annotations

import typing as t

from ..postgres.identifiers import quote_ident
from ..postgres.selection import KEPT_SCHEMA
from .context import Context
from .objects import not_of_extension
from .registry import ADMINISTRATOR, Issue, check, fail, names, ok, warn


@check(
    "PGM2318",
    "text search",
    who=ADMINISTRATOR,
    scope="database",
    needs=("source", "target"),
    remedy="put the files on the target, or DROP TEXT SEARCH ...",
)
def text_search(ctx: Context) -> t.Iterator[Issue]:
    """Parsers and templates of text search need a superuser; dictionaries with files of their own need these on the target (B4)."""
    rows = ctx.chosen_rows(
        "SELECT 'PARSER', p.prsname::text FROM pg_ts_parser p JOIN pg_namespace n ON n.oid = p.prsnamespace"
        f" WHERE {not_of_extension('pg_ts_parser', 'p')} AND {KEPT_SCHEMA}"
        " UNION ALL SELECT 'TEMPLATE', p.tmplname::text FROM pg_ts_template p JOIN pg_namespace n ON n.oid = p.tmplnamespace"
        f" WHERE {not_of_extension('pg_ts_template', 'p')} AND {KEPT_SCHEMA} ORDER BY 1, 2"
    )
    if rows:
        issue = fail if ctx.profile("target").managed else warn
        listed = names(f"{kind.lower()} {name}" for kind, name in rows)
        fix = f"If it is not needed, as a superuser of the source: DROP TEXT SEARCH {rows[0][0]} {quote_ident(rows[0][1])}; no restart."
        yield issue(f"text search that only a superuser can create: {listed}", fix, object=rows[0][1])
    files = ctx.chosen_rows(
        "SELECT x.dictname::text, x.dictinitoption FROM pg_ts_dict x JOIN pg_namespace n ON n.oid = x.dictnamespace"
        " WHERE x.dictinitoption ~* '(dictfile|afffile|stopwords|synonyms)'"
        f" AND {not_of_extension('pg_ts_dict', 'x')} AND {KEPT_SCHEMA} ORDER BY 1"
    )
    if files:
        yield warn(
            f"{len(files)} dictionary(ies) of text search with files: {names(f'{name} ({options})' for name, options in files)}",
            "See that the target has these files in tsearch_data; a provider's server has PostgreSQL's own alone.",
            object=files[0][0],
        )
    if not rows and not files:
        yield ok()
