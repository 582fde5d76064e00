# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Checks of extensions: does the target offer, allow and preload what the source uses (R28 to R31)?"""

from __future__ import annotations

import re
import typing as t

from ..postgres.identifiers import quote_ident
from ..postgres.profiles import PRELOADED, REFUSES_WITHOUT_PRELOAD
from ..postgres.selection import KEPT_RELATION, read_wrapper_extensions
from .context import Context, Extension
from .registry import ADMINISTRATOR, OWNER, PLAYBOOK, SERVER, Issue, check, fail, names, ok, warn

BUILT_IN = frozenset({"plpgsql"})
CANNOT_STREAM = frozenset({"timescaledb"})
ENDED = {
    "tsearch2": (100000, "full text search is built in since 8.3"),
    "chkpass": (110000, "use pgcrypto"),
    "timetravel": (120000, "use triggers of your own"),
    "adminpack": (170000, "only old versions of pgAdmin used it"),
    "old_snapshot": (170000, "the parameter old_snapshot_threshold is gone as well"),
}
"""Extensions that PostgreSQL itself no longer has: the first version without them (its release notes), and what to do instead."""
POSTGIS = frozenset({"postgis", "postgis_raster", "postgis_sfcgal", "postgis_topology", "postgis_tiger_geocoder"})
RASTER_SINCE = (3,)
"""From this version on PostGIS has its type raster in an extension of its own (release notes of 3.0)."""
NEEDS_HANDS = {
    "postgres_fdw": "passwords of its user mappings may not be readable; the target must reach the foreign servers",
    "dblink": "its connections leave from the target from now on",
    "pg_cron": "its jobs are rows of cron.job, which are not brought over (PGM2409); bring them after the cutover, not before",
    "pg_partman": "its maintenance must not run during the migration; rows of part_config are not brought over (PGM2409) and change in 5",
    "postgis_topology": "topology_id_seq is set by the extension itself",
    "timescaledb": "restore it between timescaledb_pre_restore() and timescaledb_post_restore()",
}


def _used(ctx: Context) -> list[Extension]:
    """The extensions that the target gets: those of foreign tables stay behind with them (``copy.foreign_tables``), and one whose schema
    is present has its own."""
    if ctx.spec.copy.present:
        return []
    left = set(BUILT_IN)
    if ctx.spec.copy.foreign_tables == "exclude":
        left.update(ctx.once("wrapper extensions", make=lambda: [one.name for one in read_wrapper_extensions(ctx.source)]))
    return [e for e in ctx.extensions() if e.name not in left]


def _versions(ctx: Context) -> dict[str, str]:
    """Name to default version of what the target could create."""

    def read() -> dict[str, str]:
        return dict(ctx.target.execute("SELECT name::text, coalesce(default_version, '') FROM pg_available_extensions").fetchall())

    return ctx.once("available", make=read)


def words(value: str) -> list[str]:
    """The names in a parameter such as ``azure.extensions`` or ``shared_preload_libraries``, in their order."""
    return [w.strip().strip('"') for w in value.split(",") if w.strip().strip('"')]


def ready_value(present: str, missing: t.Iterable[str]) -> str:
    """The value with ``missing`` added after what is there already, whatever its case (R31)."""
    kept = words(present)
    seen = {w.lower() for w in kept}
    return ",".join(kept + [m for m in dict.fromkeys(missing) if m.lower() not in seen])


@check(
    "PGM2401",
    "extensions available",
    who=OWNER,
    azure="603108",
    scope="database",
    side="target",
    needs=("source", "target"),
    remedy="install them on the target, or DROP EXTENSION on the source",
)
def available(ctx: Context) -> t.Iterator[Issue]:
    """The target offers every extension of the database (``pg_available_extensions``)."""
    used, known = _used(ctx), _versions(ctx)
    data = [{"name": e.name, "version": e.version, "schema": e.schema, "target": known.get(e.name)} for e in used]
    missing = [e.name for e in used if e.name not in known]
    if missing:
        managed = ctx.profile("target").managed
        where = (
            "The provider does not offer them: if not needed, on the source"
            if managed
            else "Install their packages on the target; or on the source"
        )
        yield fail(
            f"{len(missing)} extension(s) that the target does not offer: {names(missing)}",
            f"{where}: DROP EXTENSION {quote_ident(missing[0])}; as its owner, no restart.",
            object=",".join(missing),
            data=data,
        )
    else:
        yield ok(names(f"{e.name} {e.version}" for e in used) or "none", data=data)


@check(
    "PGM2402",
    "extensions allowed",
    who=SERVER,
    azure="603108",
    scope="database",
    side="target",
    needs=("source", "target"),
    remedy="azure.extensions = the ready value; no restart",
)
def allowed(ctx: Context) -> t.Iterator[Issue]:
    """The provider's list of allowed extensions (``azure.extensions``) holds them all; the ready value is given."""
    profile = ctx.profile("target")
    if not profile.extension_parameter:
        yield ok("this kind of server has no such list")
        return
    present = ctx.custom("target", profile.extension_parameter)
    used = [e.name for e in _used(ctx)]
    if present is None or (profile.extension_parameter != "azure.extensions" and present in ("", "*")):
        yield ok(f"{profile.extension_parameter} is not set on the target")
        return
    have = {w.lower() for w in words(present)}
    missing = [name for name in used if name.lower() not in have]
    value = ready_value(present, missing)
    if missing:
        command = profile.parameter_command.format(name=profile.extension_parameter, value=value)
        yield fail(
            f"not in {profile.extension_parameter}: {names(missing)}; ready value: {value}",
            f"As {profile.who}: {command}; no restart.",
            object=",".join(missing),
            data={"parameter": profile.extension_parameter, "value": value, "missing": missing},
        )
    else:
        yield ok(names(used) or "none needed", data={"parameter": profile.extension_parameter, "value": value, "missing": []})


@check(
    "PGM2403",
    "preloaded libraries",
    who=SERVER,
    restart=True,
    azure="603109",
    scope="database",
    side="target",
    needs=("source", "target"),
    remedy="shared_preload_libraries = the ready value; restart",
)
def preloaded(ctx: Context) -> t.Iterator[Issue]:
    """Libraries of the eight extensions that have to be preloaded are in the target's ``shared_preload_libraries`` (R30, R31)."""
    wanted = {PRELOADED[e.name.lower()]: e.name for e in _used(ctx) if e.name.lower() in PRELOADED}
    if not wanted:
        yield ok("none needed")
        return
    profile = ctx.profile("target")
    present = ctx.custom("target", "shared_preload_libraries")
    if present is None:
        yield warn(
            f"shared_preload_libraries of the target cannot be read; it must hold {names(wanted)}",
            f"As the server's administrator: GRANT pg_read_all_settings TO {quote_ident(ctx.user('target'))}; no restart.",
            object=",".join(wanted),
            who=ADMINISTRATOR,
            restart=False,
        )
        return
    have = {w.lower().rsplit("/", 1)[-1].removesuffix(".so") for w in words(present)}
    missing = [library for library in wanted if library not in have]
    value = ready_value(present, missing)
    data = {"parameter": "shared_preload_libraries", "value": value, "missing": missing}
    if not missing:
        yield ok(names(wanted), data=data)
        return
    strict = profile.preload_strict or any(wanted[library].lower() in REFUSES_WITHOUT_PRELOAD for library in missing)
    command = profile.parameter_command.format(name="shared_preload_libraries", value=value)
    issue = fail if strict else warn
    yield issue(
        f"not in shared_preload_libraries: {names(missing)}; ready value: {value} (restart needed)",
        f"As {profile.who}: {command}; then restart the target: {profile.restart_command}.",
        object=",".join(missing),
        data=data,
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version)[:3])


@check(
    "PGM2404",
    "extension versions",
    who=PLAYBOOK,
    scope="database",
    side="target",
    needs=("source", "target"),
    worst="Warning",
    remedy="test with the new version",
)
def versions(ctx: Context) -> t.Iterator[Issue]:
    """The versions that the target would create, against those of the source (R32)."""
    known = _versions(ctx)
    pairs = [(e.name, e.version, known[e.name]) for e in _used(ctx) if known.get(e.name)]
    older = [p for p in pairs if _numbers(p[2]) < _numbers(p[1])]
    jumps = [p for p in pairs if _numbers(p[2])[:1] > _numbers(p[1])[:1]]
    changed = names(f"{name} {old} to {new}" for name, old, new in pairs if old != new)
    if older:
        yield warn(
            "older on the target: " + names(f"{name} {old} to {new}" for name, old, new in older),
            "Install the source's version on the target, or test the application with the older one.",
            object=older[0][0],
        )
    if jumps:
        yield warn(
            "another major version on the target: " + names(f"{name} {old} to {new}" for name, old, new in jumps),
            "Read the extension's notes on upgrading; test before the cutover.",
            object=jumps[0][0],
        )
    if not older and not jumps:
        yield ok(changed or "equal")


@check(
    "PGM2407",
    "extensions that ended",
    who=OWNER,
    azure="603408",
    scope="database",
    side="target",
    needs=("source", "target"),
    remedy="DROP EXTENSION on the source, or a target of an older major version",
)
def ended(ctx: Context) -> t.Iterator[Issue]:
    """No extension is used that PostgreSQL has dropped up to the target's major version: a lower target would still have it."""
    found = [e.name for e in _used(ctx) if e.name in ENDED and ctx.version("target") >= ENDED[e.name][0]]
    for name in found:
        since, instead = ENDED[name]
        yield fail(
            f"{name} ended with PostgreSQL {since // 10000}: {instead}",
            f"As its owner on the source: DROP EXTENSION {quote_ident(name)}; no restart. Or a target of version {since // 10000 - 1}.",
            object=name,
        )
    if not found:
        yield ok("none")


@check(
    "PGM2408",
    "PostGIS versions",
    azure="603406",
    scope="database",
    side="target",
    needs=("source", "target"),
    remedy="a target with the source's PostGIS version or a later one; move raster columns first",
)
def postgis(ctx: Context) -> t.Iterator[Issue]:
    """PostGIS on the target is not older, and a jump from 2 to 3 does not leave raster columns without their extension."""
    known = _versions(ctx)
    mine = next((e for e in ctx.extensions() if e.name == "postgis"), None)
    if mine is None or not known.get("postgis"):
        yield ok("not used" if mine is None else "not offered by the target")
        return
    old, new = _numbers(mine.version), _numbers(known["postgis"])
    jump = f"postgis {mine.version} to {known['postgis']}"
    if new[:2] < old[:2]:
        yield fail(f"{jump}: functions and types of the source would be missing", "Choose a target with a later PostGIS.", object="postgis")
    elif old < RASTER_SINCE <= new and "postgis_raster" not in known and _raster_columns(ctx):
        listed = names(_raster_columns(ctx))
        yield fail(
            f"{jump}: raster columns need postgis_raster, which the target does not offer: {listed}",
            "Allow or install postgis_raster on the target, or move the columns to another type first.",
            object="postgis",
        )
    elif old < RASTER_SINCE <= new:
        yield warn(
            f"{jump}: functions that were deprecated are gone, so views and indexes on them fail",
            "In the source's database: SELECT postgis_extensions_upgrade(); to the last 2.5, and test the schema on the target.",
            object="postgis",
        )
    else:
        yield ok(jump)


def _raster_columns(ctx: Context) -> list[str]:
    query = f"""SELECT n.nspname || '.' || c.relname || '.' || a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
                 JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_type y ON y.oid = a.atttypid
                WHERE y.typname = 'raster' AND c.relkind IN ('r', 'p', 'm') AND NOT a.attisdropped AND {KEPT_RELATION}
                ORDER BY 1"""
    return ctx.once("raster", make=lambda: [row[0] for row in ctx.chosen_rows(query)])


@check(
    "PGM2405",
    "extensions in pg_catalog",
    who=OWNER,
    azure="603407",
    scope="database",
    worst="Warning",
    remedy="create them in another schema",
)
def in_system_schema(ctx: Context) -> t.Iterator[Issue]:
    """No extension stands in a system schema of the source, where the target's user may not create it."""
    found = [
        e.name
        for e in _used(ctx)
        if e.schema == "pg_catalog" and e.name not in ("pg_cron", "pglogical_origin", "adminpack", "plperl", "plpython3u")
    ]
    if found:
        yield warn(
            f"in pg_catalog: {names(found)}",
            f"As a superuser of the source: DROP EXTENSION {quote_ident(found[0])};"
            f" CREATE EXTENSION {quote_ident(found[0])} SCHEMA public; no restart.",
            object=found[0],
        )
    else:
        yield ok()


@check("PGM2406", "extensions that need care", who=PLAYBOOK, azure="603405", scope="database", remedy="offline mode, or hands")
def needs_care(ctx: Context) -> t.Iterator[Issue]:
    """Extensions that cannot be streamed, or that need hands after the move, are told."""
    found = [e.name for e in _used(ctx) if e.name in NEEDS_HANDS]
    blocked = [name for name in found if name in CANNOT_STREAM and ctx.spec.online]
    if blocked:
        yield fail(f"{names(blocked)} cannot be streamed", "Set mode to offline for this database.", object=blocked[0])
    hands = [name for name in found if name not in blocked]
    if hands:
        yield warn("; ".join(f"{name}: {NEEDS_HANDS[name]}" for name in hands), "See the message; after the cutover.", object=hands[0])
    if not found:
        yield ok()
