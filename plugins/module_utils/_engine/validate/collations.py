# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Checks of encodings and collations on all levels: database, column, user-defined; and of their versions (B3)."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ..postgres.catalog import USER_SCHEMAS
from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_ident, quote_qualified
from ..postgres.selection import KEPT_RELATION, KEPT_SCHEMA
from .context import Context
from .registry import OWNER, PLAYBOOK, SERVER, SHOWN, Issue, check, fail, names, ok, statements, warn

ALWAYS = frozenset({"C", "POSIX"})
DEFAULT = 100
"""OID of the collation that stands for the database's own (``pg_collation.dat``)."""
PROVIDERS = {"c": "libc", "i": "icu", "b": "builtin", "d": "default"}


def locale_key(name: str) -> str:
    """A libc locale's name so that spellings of one are equal: ``en_US.UTF-8`` and ``en_US.utf8``."""
    base, dot, codeset = name.partition(".")
    return base + dot + re.sub(r"[^a-z0-9@]", "", codeset.lower())


def _database(ctx: Context) -> dict[str, str]:
    """Encoding, collate, ctype, provider and locale of the database on the source."""

    def read() -> dict[str, str]:
        version = ctx.version("source")
        provider = "datlocprovider::text" if version >= 150000 else "'c'"
        locale = "datlocale" if version >= 170000 else "daticulocale" if version >= 150000 else "NULL"
        row = ctx.source.execute(
            f"SELECT pg_encoding_to_char(encoding)::text, datcollate::text, datctype::text, {provider}, coalesce({locale}::text, '')"
            " FROM pg_database WHERE datname = current_database()"
        ).fetchall()[0]
        return dict(zip(("encoding", "collate", "ctype", "provider", "locale"), row, strict=True))

    return ctx.once("locale", make=read)


def _target_collations(ctx: Context) -> set[tuple[str, str, str]]:
    """(name, provider, libc locale) of what the target's ``pg_catalog`` has."""

    def read() -> set[tuple[str, str, str]]:
        provider = "collprovider::text" if ctx.version("target") >= 100000 else "'c'"
        query = f"SELECT collname::text, {provider}, coalesce(collcollate, '') FROM pg_collation"
        query += " WHERE collnamespace = 'pg_catalog'::regnamespace"
        return set(ctx.target.execute(query).fetchall())

    return ctx.once("collations", make=read)


@check(
    "PGM2411",
    "database collation",
    who=SERVER,
    azure="603401",
    scope="database",
    side="target",
    needs=("source", "target"),
    remedy="install the locale on the target",
)
def database_collation(ctx: Context) -> t.Iterator[Issue]:
    """The target can create the database with its collation, character type and locale provider."""
    mine = _database(ctx)
    target = ctx.version("target")
    least = {"i": 150000, "b": 170000}.get(mine["provider"], 0)
    shown = f"{PROVIDERS.get(mine['provider'], mine['provider'])} {mine['locale'] or mine['collate']}"
    if target < least:
        yield fail(
            f"locale provider {shown}: the target is older than {least // 10000}",
            f"Create a target of PostgreSQL {least // 10000} or later.",
        )
        return
    known = _target_collations(ctx)
    if mine["provider"] == "i" and not any(provider == "i" for dummy, provider, dummy2 in known):
        yield fail(
            f"the database uses {shown}, the target was built without ICU", "Use a target that was built with ICU.", object=mine["locale"]
        )
        return
    locales = {locale_key(collate) for dummy, provider, collate in known if provider == "c"} | ALWAYS
    missing = [n for n in dict.fromkeys((mine["collate"], mine["ctype"])) if locale_key(n) not in locales]
    if missing:
        fix = "On the target's host: install the locale (locale-gen), restart, then SELECT pg_import_system_collations('pg_catalog');"
        if ctx.profile("target").managed:
            fix = (
                "Make the database on the source anew with a locale that the target has (SELECT collname FROM pg_collation on the target)."
            )
        managed = ctx.profile("target").managed
        yield fail(
            f"locale(s) that the target lacks: {names(missing)}",
            fix,
            object=",".join(missing),
            data=mine,
            who=OWNER if managed else "",
            restart=not managed,
        )
    else:
        yield ok(shown, data=mine)


@check(
    "PGM2412",
    "column collations",
    who=SERVER,
    azure="603402",
    scope="database",
    side="target",
    needs=("source", "target"),
    remedy="install the locale on the target",
)
def column_collations(ctx: Context) -> t.Iterator[Issue]:
    """Collations of the system that columns, domains and indexes name exist on the target."""
    rows = ctx.chosen_rows(
        f"""SELECT co.collname::text, min(x.place), count(*) FROM pg_collation co JOIN (
                SELECT a.attcollation AS id, n.nspname || '.' || c.relname || '.' || a.attname AS place
                  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE a.attcollation <> 0 AND NOT a.attisdropped AND c.relkind IN ('r','p','i','I','m','v','f','c') AND {USER_SCHEMAS}
                       AND {KEPT_RELATION}
                UNION ALL
                SELECT y.typcollation, n.nspname || '.' || y.typname FROM pg_type y JOIN pg_namespace n ON n.oid = y.typnamespace
                 WHERE y.typtype = 'd' AND y.typcollation <> 0 AND {USER_SCHEMAS} AND {KEPT_SCHEMA}) x ON x.id = co.oid
            WHERE co.collnamespace = 'pg_catalog'::regnamespace GROUP BY 1 ORDER BY 1"""
    )
    known = {name for name, dummy, dummy2 in _target_collations(ctx)} | {"default"}
    keys = {locale_key(name) for name in known}
    missing = [row for row in rows if row[0] not in known and locale_key(row[0]) not in keys]
    differing = [row for row in rows if row[0] not in known and locale_key(row[0]) in keys]
    if missing:
        yield fail(
            "collations that the target lacks: " + names(f"{name} ({place}, {count} in all)" for name, place, count in missing),
            "On the target's host: install the locale or ICU, then as a superuser: SELECT pg_import_system_collations('pg_catalog');"
            f" or on the source: ALTER TABLE ... ALTER COLUMN ... TYPE text COLLATE another (missing: {quote_ident(missing[0][0])}).",
            object=missing[0][1],
            data=[row[0] for row in missing],
        )
    elif differing:
        yield warn(
            "collations that the target spells otherwise: " + names(row[0] for row in differing),
            f"As a superuser of the target: CREATE COLLATION pg_catalog.{quote_ident(differing[0][0])} FROM ...;",
            object=differing[0][1],
        )
    else:
        yield ok(names(row[0] for row in rows if row[0] != "default") or "only the database's")


@check(
    "PGM2413",
    "user-defined collations",
    who=OWNER,
    azure="603403",
    scope="database",
    needs=("source", "target"),
    remedy="DROP COLLATION, or a target that allows them",
)
def own_collations(ctx: Context) -> t.Iterator[Issue]:
    """Collations made by users move as definitions; some providers refuse them, and each needs its locale on the target."""
    if ctx.version("source") < 100000:
        provider = "'c'"
    else:
        provider = "co.collprovider::text"
    rows = ctx.chosen_rows(
        f"SELECT n.nspname, co.collname, {provider}, coalesce(co.collcollate, '') FROM pg_collation co"
        f" JOIN pg_namespace n ON n.oid = co.collnamespace WHERE {USER_SCHEMAS} AND {KEPT_SCHEMA} ORDER BY 1, 2"
    )
    if not rows:
        yield ok("none")
        return
    listed = names(f"{row[0]}.{row[1]} ({PROVIDERS.get(row[2], row[2])})" for row in rows)
    text = f"{len(rows)} user-defined collation(s): {listed}"
    if ctx.profile("target").user_collations:
        yield warn(text, "See that the target has their locales; compare the order of some values after the copy.", object=rows[0][1])
    else:
        fix = f"As its owner on the source, if it is not needed: DROP COLLATION {quote_qualified(rows[0][0], rows[0][1])}; no restart."
        yield fail(f"{text}; this kind of target refuses them", fix, object=rows[0][1])


@check(
    "PGM2414",
    "encoding",
    who=PLAYBOOK,
    scope="database",
    side="target",
    needs=("source", "target"),
    remedy="a target that knows the encoding; UTF8 is advised",
)
def encoding(ctx: Context) -> t.Iterator[Issue]:
    """The target knows the database's encoding; another one than UTF8 is told, because wal2json cannot be used with it."""
    name = _database(ctx)["encoding"]
    try:
        known = ctx.target.execute("SELECT pg_catalog.pg_char_to_encoding(%s)", [name]).fetchall()[0][0]
    except psycopg.Error:
        known = -1
    if known < 0:
        yield fail(
            f"the target does not know the encoding {name}", "Convert the database to UTF8 (dump with --encoding=UTF8).", object=name
        )
    elif name == "SQL_ASCII":
        yield warn(
            "the encoding is SQL_ASCII: bytes are not checked, and text of mixed encodings moves as it is or fails",
            "Convert the database to UTF8 before or after the migration.",
            object=name,
        )
    else:
        yield ok(name)


@check(
    "PGM2415",
    "collation versions",
    who=OWNER,
    scope="database",
    worst="Warning",
    remedy="REINDEX INDEX of those named, then REFRESH COLLATION VERSION",
)
def collation_versions(ctx: Context) -> t.Iterator[Issue]:
    """The libraries that sort text are still those with which the source's indexes were built."""
    if ctx.version("source") < 100000:
        yield ok("not recorded before version 10")
        return
    drifted = []
    if ctx.version("source") >= 150000:
        rows = ctx.source.execute(
            "SELECT datcollversion, pg_database_collation_actual_version(oid) FROM pg_database WHERE datname = current_database()"
        ).fetchall()
        refresh = f"ALTER DATABASE {quote_ident(ctx.database)} REFRESH COLLATION VERSION"
        drifted = [Drift(DEFAULT, f"database {ctx.database}", old, new, refresh) for old, new in rows if old is not None and old != new]
    rows = ctx.source.execute(
        "SELECT co.oid, n.nspname::text, co.collname::text, co.collversion, pg_collation_actual_version(co.oid) FROM pg_collation co"
        " JOIN pg_namespace n ON n.oid = co.collnamespace"
        " WHERE co.collversion IS NOT NULL AND EXISTS (SELECT FROM pg_attribute a WHERE a.attcollation = co.oid AND a.attrelid >= 16384)"
    ).fetchall()
    for oid, schema, name, old, new in rows:
        if old != new:
            drifted.append(Drift(oid, name, old, new, f"ALTER COLLATION {quote_qualified(schema, name)} REFRESH VERSION"))
    if not drifted:
        yield ok()
        return
    indexes = _sorted_by(ctx, [drift.collation for drift in drifted])
    fresh = "CONCURRENTLY " if ctx.version("source") >= 120000 else ""
    rebuilt = [f"REINDEX INDEX {fresh}{name}" for name in indexes]
    refreshed = [drift.refresh for drift in drifted]
    first = statements(rebuilt, SHOWN) + " " if rebuilt else ""
    yield warn(
        f"built with another version of the collation library: {names(f'{d.what} ({d.old}, now {d.new})' for d in drifted)};"
        f" {len(indexes)} index(es) of the source may be wrong and hide rows{': ' if indexes else ''}{names(indexes)}",
        f"As the owner, on the source: {first}{statements(refreshed, SHOWN)} No restart. The target's indexes are built anew anyway.",
        object=drifted[0].what,
        data={"indexes": indexes, "statements": [*rebuilt, *refreshed]},
    )


@dataclasses.dataclass(frozen=True)
class Drift:
    """A collation (by oid; 100 is the database's) whose version is not the one recorded, and the statement that records it anew."""

    collation: int
    what: str
    old: str
    new: str
    refresh: str


def _sorted_by(ctx: Context, collations: t.Sequence[int]) -> list[str]:
    """Quoted names of the users' indexes that sort by one of ``collations``, those of partitions one by one.

    The database's own collation stands for nothing that is sorted by bytes: ``C`` and ``POSIX`` have other oids.
    """
    rows = ctx.chosen_rows(
        f"""SELECT n.nspname::text, c.relname::text FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid
              JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind = 'i' AND c.relpersistence <> 't' AND {USER_SCHEMAS} AND x.indcollation::oid[] && %(collations)s::oid[]
               AND {KEPT_RELATION} ORDER BY 1, 2""",
        collations=list(collations),
    )
    return [quote_qualified(*row) for row in rows]
