# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Whether a schema that is on the target already can take the source's rows (``copy.target_schema: present``)."""

from __future__ import annotations

import typing as t

from ..errors import ConnectionFailed
from ..migration.ledger import Ledger
from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_ident
from ..snapshot.present import look
from .context import Context, one
from .registry import OWNER, Issue, check, fail, names, ok, statements, warn


@check(
    "PGM2209",
    "schema that is present",
    who=OWNER,
    scope="database",
    side="target",
    needs=("source", "target"),
    remedy="bring the target's tables to the source's, empty them, or copy.target_schema: create",
)
def present_schema(ctx: Context) -> t.Iterator[Issue]:
    """Where ``copy.target_schema`` is ``present``, the chosen tables are on the target, like the source's, empty, and may be written."""
    if not ctx.spec.copy.present:
        yield ok("not asked for")
        return
    try:
        target = ctx.session("target", ctx.database)
        if Ledger(target).owner() is not None:
            yield ok("a migration has begun there", object=ctx.database)
            return
        yield from _issues(ctx, target)
    except ConnectionFailed as exc:
        yield fail(f"{ctx.database} on the target cannot be looked into: {exc.message}", exc.hint, object=ctx.database)
    finally:
        ctx.drop_session("target", ctx.database)


def _issues(ctx: Context, target: psycopg.Connection[t.Any]) -> t.Iterator[Issue]:
    found = look(ctx.source, target, ctx.selection)
    where = f"in {ctx.database} on the target"
    if found.differences:
        fix = "As the owner, make them like the source's (pg_dump --schema-only shows them), or leave them out: copy.exclude."
        yield fail(f"{where}, {names(found.differences)}", fix, object=ctx.database, data=list(found.differences))
    grants = list(found.rights)
    if not one(target, "SELECT has_database_privilege(current_database(), 'CREATE')"):
        grants.append(f"GRANT CREATE ON DATABASE {quote_ident(ctx.database)} TO {quote_ident(target.info.user)}")
    if grants:
        yield fail(f"{where}, {len(grants)} right(s) are missing", f"As the owner: {statements(grants)} no restart.", object=ctx.database)
    if found.filled and ctx.spec.copy.overwrite:
        yield warn(f"{where}, tables that hold rows are emptied, as copy.overwrite says: {names(found.filled)}", object=ctx.database)
    elif found.filled:
        fix = "As the owner, if their rows are not needed: TRUNCATE; or set copy.overwrite to true."
        yield fail(f"{where}, tables hold rows: {names(found.filled)}", fix, object=ctx.database, data=list(found.filled))
    if found.large_objects:
        fix = "As their owner, if they are not needed: SELECT lo_unlink(oid) FROM pg_largeobject_metadata;"
        yield fail(
            f"{where}, there are {found.large_objects} large object(s); at the end there are the source's alone", fix, object=ctx.database
        )
    if not (found.differences or grants or found.filled or found.large_objects):
        yield ok("can take the rows", object=ctx.database)
