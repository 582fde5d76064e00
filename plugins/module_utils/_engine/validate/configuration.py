# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Rows that users keep in tables of extensions (jobs of pg_cron, partition sets of pg_partman, reference systems of PostGIS).

Tables of an extension come from its script, so their rows are neither copied, streamed nor compared. An extension says which of them hold
data of users, and which rows those are, by ``pg_extension_config_dump`` (manual 38.17.3); pg_dump writes these, which nobody may miss in
silence.
"""

from __future__ import annotations

import shlex
import typing as t

from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_ident, quote_qualified
from ..postgres.selection import KEPT_RELATION
from .context import Context, limited, one
from .registry import ADMINISTRATOR, OWNER, Issue, check, names, ok, statements, warn

SCAN_TIMEOUT = "60s"
"""How long the rows of one table may be counted."""

_MARKED = f"""
    SELECT e.extname::text, n.nspname::text, c.relname::text, c.relkind::text, coalesce(e.extcondition[x.position], '')
      FROM pg_extension e CROSS JOIN LATERAL unnest(e.extconfig) WITH ORDINALITY x(id, position)
      JOIN pg_class c ON c.oid = x.id JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'S') AND {KEPT_RELATION} ORDER BY 1, 2, 3"""


@check(
    "PGM2409",
    "rows of extensions",
    who=ADMINISTRATOR,
    scope="database",
    worst="Warning",
    remedy="pg_dump --data-only --table=... | psql, after the cutover",
)
def configuration_rows(ctx: Context) -> t.Iterator[Issue]:
    """Rows that users put into an extension's configuration tables (``pg_extension.extconfig``) are not brought over: they are counted."""
    held, unread = [], []
    for extension, schema, name, kind, condition in ctx.chosen_rows(_MARKED):
        try:
            count = _count(ctx, quote_qualified(schema, name), kind, condition)
        except (psycopg.errors.QueryCanceled, psycopg.errors.InsufficientPrivilege):
            unread.append((schema, name))
            continue
        if count:
            what = "a sequence in use" if kind == "S" else f"{count} row(s)"
            held.append({"extension": extension, "schema": schema, "name": name, "rows": count, "what": what})
    if held:
        listed = names(f"{one['schema']}.{one['name']} of {one['extension']} ({one['what']})" for one in held)
        yield warn(
            f"{len(held)} table(s) of extensions with rows of users, which are neither brought over nor compared: {listed}",
            "After the cutover, on the runtime host, as users who may read and write these tables:"
            f" {command(ctx, [(one['schema'], one['name']) for one in held])}",
            object=f"{held[0]['schema']}.{held[0]['name']}",
            data=held,
        )
    if unread:
        user = quote_ident(ctx.user("source"))
        fixes = [f"GRANT USAGE ON SCHEMA {quote_ident(s)} TO {user}; GRANT SELECT ON {quote_qualified(s, n)} TO {user}" for s, n in unread]
        yield warn(
            f"tables of extensions whose rows could not be counted; they are not brought over: {names('.'.join(one) for one in unread)}",
            f"As their owner, in {ctx.database}: {statements(fixes)} no restart.",
            object=".".join(unread[0]),
            who=OWNER,
        )
    if not held and not unread:
        yield ok("none")


def _count(ctx: Context, qualified: str, kind: str, condition: str) -> int:
    """Rows that pg_dump would write; of a sequence whether it was used."""
    query = f"SELECT is_called::int FROM {qualified}" if kind == "S" else f"SELECT count(*) FROM {qualified} {condition}"
    with limited(ctx.source, SCAN_TIMEOUT):
        return int(one(ctx.source, query))


def command(ctx: Context, tables: t.Sequence[tuple[str, str]]) -> str:
    """What brings the rows of ``tables`` (schema and name) over by hand; the passwords come from where libpq looks for them."""
    source, target = (
        f"-h {shlex.quote(end.host)} -p {end.port} -U {shlex.quote(end.user)} -d {shlex.quote(ctx.database)}"
        for end in (ctx.spec.source, ctx.spec.target)
    )
    words = " ".join("--table=" + shlex.quote(quote_qualified(schema, name)) for schema, name in tables)
    return f"pg_dump {source} --data-only {words} | psql {target} -X -v ON_ERROR_STOP=1 --single-transaction"
