# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Checks of what is in a database: what cannot be streamed, what is left behind, what the target cannot know."""

from __future__ import annotations

import typing as t

from ..errors import MigrationError
from ..postgres.catalog import USER_SCHEMAS
from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_ident, quote_qualified
from ..postgres.profiles import RESTRICTED_CATALOGS
from ..postgres.selection import KEPT_RELATION, KEPT_SCHEMA
from ..source.identity import tables_without_identity
from ..source.plugin import AS_STRING
from .context import Context, limited, one
from .registry import ADMINISTRATOR, OWNER, PLAYBOOK, SERVER, Issue, check, fail, names, ok, statements, warn

NEAR_END = 0.9
"""Share of a sequence's range past which it is reported."""
SCAN_TIMEOUT = "120s"
"""How long one table may be searched for NaN."""


@check(
    "PGM2301",
    "replica identity",
    who=OWNER,
    scope="database",
    online=True,
    remedy="ALTER TABLE ... REPLICA IDENTITY, or changes.replica_identity: set_full or exclude",
)
def replica_identity(ctx: Context) -> t.Iterator[Issue]:
    """Each logged table that is chosen has a replica identity, or updates and deletes in it cannot be streamed."""
    chosen = {table.label for table in ctx.tables()}
    gaps = [gap for gap in tables_without_identity(ctx.source) if gap.label in chosen]
    if not gaps:
        yield ok()
        return
    policy = ctx.spec.changes.replica_identity
    listed = names(f"{g.label} ({g.why})" for g in gaps)
    text = f"{len(gaps)} table(s) without replica identity: {listed}"
    fix = f"As their owner, in {ctx.database}: {statements(g.statement() for g in gaps)} no restart."
    data = [g.label for g in gaps]
    if policy == "fail":
        fix += f" Or set changes.replica_identity to exclude, or to set_full (done for you), which costs: {_cost_of_full(ctx, data)}."
        yield fail(f"{text}; updates and deletes in them cannot be streamed", fix, object=gaps[0].label, data=data)
    elif policy == "exclude":
        yield warn(f"{text}; they are left out of the stream, as asked: stop writing to them", fix, object=gaps[0].label, data=data)
    else:
        cost = _cost_of_full(ctx, data)
        yield warn(f"{text}; it will be set to FULL, and given back afterwards: {cost}", fix, object=gaps[0].label, data=data)


def _cost_of_full(ctx: Context, labels: t.Sequence[str]) -> str:
    """What REPLICA IDENTITY FULL costs, with the largest of the tables."""
    row = ctx.source.execute(
        "SELECT n.nspname || '.' || c.relname, pg_table_size(c.oid) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname || '.' || c.relname = ANY(%s) ORDER BY 2 DESC LIMIT 1",
        [list(labels)],
    ).fetchone()
    largest = f" (the largest: {row[0]}, {row[1] / 2**20:.1f} MB)" if row else ""
    return f"each UPDATE and DELETE writes the whole old row to the WAL, and is looked for on the target by all its columns{largest}"


def _relations(ctx: Context, condition: str) -> list[str]:
    """Labels of the chosen relations ``c`` that meet ``condition``."""
    rows = ctx.chosen_rows(
        "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        f" WHERE {condition} AND {KEPT_RELATION} ORDER BY 1"
    )
    return [row[0] for row in rows]


@check(
    "PGM2302",
    "unlogged tables",
    who=OWNER,
    scope="database",
    worst="Warning",
    remedy="none if they are small; else ALTER TABLE ... SET LOGGED",
)
def unlogged(ctx: Context) -> t.Iterator[Issue]:
    """Unlogged tables leave no trace in the WAL: their changes cannot be streamed (B15)."""
    found = _relations(ctx, f"c.relkind = 'r' AND c.relpersistence = 'u' AND {USER_SCHEMAS}")
    if found and ctx.spec.online:
        how = (
            "their rows are copied once more in the cutover's pause"
            if ctx.spec.copy.unlogged_tables == "copy"
            else "their rows stay behind, as asked (copy.unlogged_tables)"
        )
        logged = statements(f"ALTER TABLE {_quoted(label)} SET LOGGED" for label in found)
        yield warn(
            f"{len(found)} unlogged table(s): {names(found)}; changes of them are not streamed, {how}",
            f"As their owner, if that makes the pause too long: {logged} it rewrites the table.",
            object=found[0],
            data=found,
        )
    else:
        yield ok(f"{len(found)} unlogged" if found else "")


def _quoted(label: str) -> str:
    schema, dummy, name = label.partition(".")
    return quote_qualified(schema, name)


@check(
    "PGM2303",
    "foreign tables",
    who=ADMINISTRATOR,
    scope="database",
    worst="Warning",
    remedy="give the target access to the foreign servers",
)
def foreign_tables(ctx: Context) -> t.Iterator[Issue]:
    """Foreign tables move as definitions: the target must reach their servers, and passwords of user mappings may not be readable."""
    found = _relations(ctx, f"c.relkind = 'f' AND {USER_SCHEMAS}")
    servers = [row[0] for row in ctx.source.execute("SELECT srvname::text FROM pg_foreign_server ORDER BY 1").fetchall()]
    if found or servers:
        kept = ctx.spec.copy.foreign_tables == "keep"
        moves = "the definition moves, no data" if kept else "they are left out, as asked (copy.foreign_tables)"
        yield warn(
            f"{len(found)} foreign table(s) on server(s) {names(servers)}: {names(found)}; {moves}",
            "See that the target reaches these servers, and check the options of the user mappings there (ALTER USER MAPPING).",
            object=(found or servers)[0],
            data=found,
        )
    else:
        yield ok()


@check("PGM2304", "temporary tables", who=PLAYBOOK, scope="database", worst="Warning", remedy="none: they end with their sessions")
def temporary(ctx: Context) -> t.Iterator[Issue]:
    """Temporary tables belong to sessions: they do not move, and their sessions end at the cutover."""
    found = _relations(ctx, "c.relkind = 'r' AND c.relpersistence = 't'")
    if found:
        yield warn(
            f"{len(found)} temporary table(s): {names(found, 5)}; they are not migrated",
            "Nothing, if the application makes them anew.",
            object=found[0],
        )
    else:
        yield ok()


@check(
    "PGM2305", "large objects", who=OWNER, scope="database", worst="Warning", remedy="stop changing large objects, or move them into bytea"
)
def large_objects(ctx: Context) -> t.Iterator[Issue]:
    """Large objects are copied; their changes are not in the stream of any output plugin (B15)."""
    count = int(one(ctx.source, "SELECT count(*) FROM pg_largeobject_metadata"))
    if count and ctx.spec.online:
        yield warn(
            f"{count} large object(s): they are copied, and compared once more at the cutover; changes are not streamed",
            "Keep the application from changing large objects during the migration.",
            data={"count": count},
        )
    else:
        yield ok(f"{count}")


@check(
    "PGM2306",
    "tables WITH OIDS",
    who=OWNER,
    azure="603404",
    scope="database",
    needs=("source", "target"),
    remedy="ALTER TABLE ... SET WITHOUT OIDS",
)
def with_oids(ctx: Context) -> t.Iterator[Issue]:
    """No table was made WITH OIDS, where the target is 12 or later."""
    if ctx.version("source") >= 120000 or ctx.version("target") < 120000:
        yield ok()
        return
    found = _relations(ctx, f"c.relhasoids AND {USER_SCHEMAS}")
    if found:
        fix = statements(f"ALTER TABLE {_quoted(label)} SET WITHOUT OIDS" for label in found)
        yield fail(f"{len(found)} table(s) WITH OIDS: {names(found)}", f"As their owner: {fix} it rewrites the table.", object=found[0])
    else:
        yield ok()


def not_of_extension(catalog: str, alias: str) -> str:
    """SQL: the row of ``catalog`` called ``alias`` (not ``d``) was made by users and belongs to no extension."""
    return (
        f"{alias}.oid >= 16384 AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_catalog.{catalog}'::regclass"
        f" AND d.objid = {alias}.oid AND d.deptype = 'e')"
    )


@check(
    "PGM2307",
    "user-defined casts",
    who=ADMINISTRATOR,
    azure="603409",
    scope="database",
    worst="Warning",
    remedy="see that the target's user may create casts",
)
def casts(ctx: Context) -> t.Iterator[Issue]:
    """Casts need the ownership of a type: one between built-in types needs a superuser on the target."""
    rows = ctx.source.execute(
        "SELECT format_type(c.castsource, NULL) || ' AS ' || format_type(c.casttarget, NULL), c.castsource < 16384 AND c.casttarget < 16384"
        f" FROM pg_cast c WHERE {not_of_extension('pg_cast', 'c')} ORDER BY 1"
    ).fetchall()
    if rows:
        inner = [row[0] for row in rows if row[1]]
        text = f"{len(rows)} user-defined cast(s): {names(row[0] for row in rows)}"
        text += f"; between built-in types, so only a superuser can create them: {names(inner)}" if inner else ""
        yield warn(text, "If the target refuses them, as their owner on the source: " + f"DROP CAST ({rows[0][0]});", object=rows[0][0])
    else:
        yield ok()


@check(
    "PGM2308",
    "procedural languages",
    azure="603413",
    scope="database",
    needs=("source", "target"),
    remedy="install the language on the target",
)
def languages(ctx: Context) -> t.Iterator[Issue]:
    """The target knows every procedural language that has functions here."""
    rows = ctx.source.execute(
        "SELECT l.lanname::text, count(p.oid) FROM pg_language l LEFT JOIN pg_proc p ON p.prolang = l.oid"
        f" WHERE {not_of_extension('pg_language', 'l')} GROUP BY 1 ORDER BY 1"
    ).fetchall()
    query = "SELECT lanname::text FROM pg_language UNION SELECT name::text FROM pg_available_extensions"
    known = {row[0] for row in ctx.target.execute(query).fetchall()}
    missing = [row for row in rows if row[0] not in known]
    if missing:
        yield fail(
            "languages that the target lacks: " + names(f"{name} ({count} functions)" for name, count in missing),
            f"Install it on the target, or as its owner on the source: DROP LANGUAGE {quote_ident(missing[0][0])};",
            object=missing[0][0],
        )
    else:
        yield ok()


@check(
    "PGM2309", "C functions", who=OWNER, scope="database", needs=("source",), remedy="an extension that the target offers, or DROP FUNCTION"
)
def c_functions(ctx: Context) -> t.Iterator[Issue]:
    """No function in C or of the server's inside stands outside an extension: only a superuser can create such."""
    rows = ctx.chosen_rows(
        "SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang"
        " JOIN pg_namespace n ON n.oid = p.pronamespace"
        f" WHERE l.lanname IN ('c', 'internal') AND {not_of_extension('pg_proc', 'p')} AND {KEPT_SCHEMA} ORDER BY 1"
    )
    if not rows:
        yield ok()
        return
    text = f"{len(rows)} function(s) in C outside extensions: {names(row[0] for row in rows)}; only a superuser can create them"
    fix = f"If it is not needed, as its owner on the source: DROP FUNCTION {rows[0][0]};"
    issue = fail if ctx.profile("target").managed else warn
    yield issue(text, fix, object=rows[0][0])


@check("PGM2310", "grants on the system catalog", azure="603410", scope="database", remedy="REVOKE")
def catalog_grants(ctx: Context) -> t.Iterator[Issue]:
    """No role was granted rights on relations of ``pg_catalog`` that a managed target refuses to grant (B2)."""
    rows = ctx.source.execute(
        "SELECT c.relname::text, a.privilege_type, pg_get_userbyid(a.grantee)::text FROM pg_class c, aclexplode(c.relacl) a"
        " WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relname = ANY(%s) AND a.grantee <> 0 AND a.grantee <> c.relowner"
        " AND pg_get_userbyid(a.grantee) NOT LIKE 'pg\\_%%' ORDER BY 1, 2, 3",
        [list(RESTRICTED_CATALOGS)],
    ).fetchall()
    if not rows:
        yield ok()
        return
    text = f"{len(rows)} grant(s) on the system catalog: {names(f'{p} on {c} to {g}' for c, p, g in rows)}"
    revokes = statements(f"REVOKE {p} ON pg_catalog.{c} FROM {quote_ident(g)}" for c, p, g in rows)
    fix = f"As a superuser, in {ctx.database}: {revokes} no restart."
    issue = warn if ctx.profile("target").catalog_grants else fail
    yield issue(text, fix, object=rows[0][0])


@check("PGM2311", "event triggers", who=ADMINISTRATOR, scope="database", worst="Warning", remedy="create them on the target by hand")
def event_triggers(ctx: Context) -> t.Iterator[Issue]:
    """Event triggers need a superuser: they are not brought over."""
    rows = ctx.source.execute(
        f"SELECT e.evtname::text FROM pg_event_trigger e WHERE {not_of_extension('pg_event_trigger', 'e')} ORDER BY 1"
    ).fetchall()
    yield _dropped("event trigger", [row[0] for row in rows], "CREATE EVENT TRIGGER") if rows else ok()


@check(
    "PGM2312", "publications", who=ADMINISTRATOR, scope="database", worst="Warning", remedy="create them on the target after the cutover"
)
def publications(ctx: Context) -> t.Iterator[Issue]:
    """Publications of others are not brought over: their subscribers must be pointed to the target by hand."""
    if ctx.version("source") < 100000:
        yield ok()
        return
    rows = ctx.source.execute("SELECT pubname::text FROM pg_publication WHERE pubname NOT LIKE 'pgm\\_%' ORDER BY 1").fetchall()
    yield _dropped("publication", [row[0] for row in rows], "CREATE PUBLICATION") if rows else ok()


@check(
    "PGM2313", "subscriptions", who=ADMINISTRATOR, scope="database", worst="Warning", remedy="create them on the target after the cutover"
)
def subscriptions(ctx: Context) -> t.Iterator[Issue]:
    """Subscriptions are not brought over: two servers would read one slot."""
    if ctx.version("source") < 100000:
        yield ok()
        return
    rows = ctx.source.execute(
        "SELECT s.subname::text FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid"
        " WHERE d.datname = current_database() ORDER BY 1"
    ).fetchall()
    yield _dropped("subscription", [row[0] for row in rows], "CREATE SUBSCRIPTION") if rows else ok()


def _dropped(kind: str, found: list[str], statement: str) -> Issue:
    text = f"{len(found)} {kind}(s) that are not migrated: {names(found)}"
    return warn(text, f"After the cutover, on the target: {statement} ... where it is still needed.", object=found[0], data=found)


@check(
    "PGM2314",
    "triggers that fire always",
    who=OWNER,
    scope="database",
    online=True,
    worst="Warning",
    remedy="ALTER TABLE ... ENABLE TRIGGER",
)
def always_triggers(ctx: Context) -> t.Iterator[Issue]:
    """Triggers and rules set to ENABLE ALWAYS or REPLICA would fire while changes are applied: they rest on the target till the cutover."""
    rows = ctx.chosen_rows(
        "SELECT n.nspname, c.relname, x.tgname::text FROM pg_trigger x JOIN pg_class c ON c.oid = x.tgrelid"
        " JOIN pg_namespace n ON n.oid = c.relnamespace"
        f" WHERE NOT x.tgisinternal AND x.tgenabled IN ('A', 'R') AND {USER_SCHEMAS} AND {KEPT_RELATION} ORDER BY 1, 2, 3"
    )
    if rows:
        fixes = statements(f"ALTER TABLE {quote_qualified(s, n)} ENABLE TRIGGER {quote_ident(x)}" for s, n, x in rows)
        yield warn(
            f"{len(rows)} trigger(s) fire on replicated changes as well: {names(f'{x} on {s}.{n}' for s, n, x in rows)}; they are"
            " disabled on the target while changes are applied, and they come back at the cutover",
            f"As the table's owner, before the migration: {fixes} no restart.",
            object=f"{rows[0][0]}.{rows[0][1]}",
        )
    else:
        yield ok()


@check(
    "PGM2315",
    "sequences near their end",
    who=OWNER,
    scope="database",
    worst="Warning",
    remedy="ALTER SEQUENCE ... AS bigint, ALTER COLUMN ... TYPE bigint",
)
def sequences(ctx: Context) -> t.Iterator[Issue]:
    """No sequence has used nine tenths of its range, or of the range of the column that it fills."""
    if ctx.version("source") < 100000:
        yield ok("not read before version 10")
        return
    rows = ctx.chosen_rows(
        f"""SELECT s.schemaname, s.sequencename, s.last_value,
                  least(s.max_value, CASE a.atttypid WHEN 'int2'::regtype THEN 32767 WHEN 'int4'::regtype THEN 2147483647 END)
             FROM pg_sequences s JOIN pg_class c ON c.relname = s.sequencename
                  AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = s.schemaname)
             LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
             LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
            WHERE s.increment_by > 0 AND NOT s.cycle AND s.last_value IS NOT NULL AND {KEPT_RELATION} ORDER BY 1, 2"""
    )
    close = [(f"{schema}.{name}", last, end) for schema, name, last, end in rows if end > 0 and last > NEAR_END * end]
    if close:
        yield warn(
            f"{len(close)} sequence(s) near their end: {names(f'{label} at {last} of {end}' for label, last, end in close)}",
            "As its owner: ALTER SEQUENCE ... AS bigint; and ALTER TABLE ... ALTER COLUMN ... TYPE bigint (it rewrites the table).",
            object=close[0][0],
        )
    else:
        yield ok()


@check(
    "PGM2316", "NaN and Infinity", who=PLAYBOOK, scope="database", online=True, remedy="changes.plugin: auto or pgoutput, or wal2json 2.6"
)
def not_a_number(ctx: Context) -> t.Iterator[Issue]:
    """Where wal2json cannot write numbers as strings (before 2.6), no column holds NaN or Infinity, which it would turn into NULL."""
    choice = ctx.plugin()
    if isinstance(choice, MigrationError) or choice.plugin != "wal2json" or AS_STRING in choice.options:
        yield ok("no loss with this plugin" if not isinstance(choice, MigrationError) else "")
        return
    conn = ctx.source
    kinds = {700: "'NaN', 'Infinity', '-Infinity'", 701: "'NaN', 'Infinity', '-Infinity'"}
    kinds[1700] = kinds[701] if conn.info.server_version >= 140000 else "'NaN'"
    held, unread, columns = [], [], 0
    with limited(conn, SCAN_TIMEOUT):
        for table in (x for x in ctx.tables() if x.kind == "r"):
            risky = [c for c in table.stored_columns if c.type_oid in kinds]
            columns += len(risky)
            if not risky:
                continue
            tests = ", ".join(f"coalesce(bool_or({quote_ident(c.name)} IN ({kinds[c.type_oid]})), false)" for c in risky)
            try:
                row = conn.execute(f"SELECT {tests} FROM ONLY {table.qualified}").fetchone() or ()
                held += [f"{table.label}.{c.name}" for c, has in zip(risky, row, strict=True) if has]
            except (psycopg.errors.QueryCanceled, psycopg.errors.InsufficientPrivilege):
                unread.append(table.label)
    fix = "Set changes.plugin to auto or pgoutput, or install wal2json 2.6 on the source; no restart."
    if held:
        yield fail(f"NaN or Infinity in {names(held)}; this wal2json writes them as null", fix, object=held[0], data=held)
    elif unread:
        yield warn(f"could not be searched for NaN in time: {names(unread)}; this wal2json writes NaN as null", fix, object=unread[0])
    elif columns:
        yield warn(
            f"{columns} column(s) could receive NaN or Infinity during the migration; none does now; this wal2json writes them as null", fix
        )
    else:
        yield ok("no such column")


@check("PGM2317", "lock table", who=SERVER, restart=True, worst="Warning", remedy="max_locks_per_transaction; restart", order=10)
def lock_table(ctx: Context) -> t.Iterator[Issue]:
    """The source's lock table holds a dump: ``max_locks_per_transaction`` x connections is more than tables and indexes (B6)."""
    settings = ctx.settings("source")
    per, connections, prepared = (
        int(settings[n].value) for n in ("max_locks_per_transaction", "max_connections", "max_prepared_transactions")
    )
    capacity = per * (connections + prepared)
    objects = 0
    for name in ctx.databases:
        query = "SELECT count(*) FROM pg_class c WHERE c.relkind IN ('r', 'p', 'i', 'I', 'S', 'm', 'v') AND c.oid >= 16384"
        objects += int(ctx.chosen_rows(f"{query} AND {KEPT_RELATION}", name)[0][0])
    text = f"{objects} relations in the selected databases, room for {capacity} locks ({per} x ({connections} + {prepared}))"
    if objects >= capacity:
        wanted = objects // (connections + prepared) + 64
        profile = ctx.profile("source")
        fix = (
            f"As {profile.who}: {profile.set_parameter('max_locks_per_transaction', str(wanted))}; then restart: {profile.restart_command}."
        )
        yield warn(f"{text}: the dump may end with 'out of shared memory'", fix)
    else:
        yield ok(text)
