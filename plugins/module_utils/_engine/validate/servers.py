# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Checks of versions, clocks, client tools and the size of the runtime host."""

from __future__ import annotations

import os
import shutil
import time
import typing as t
from pathlib import Path

from ..changes.room import source_room
from ..errors import ConnectionFailed, MigrationError
from ..snapshot.tools import find_tools
from .context import Context, one
from .registry import PLAYBOOK, SERVER, Issue, check, fail, ok, warn

OLDEST = 90500
SKEW_SECONDS = 5.0
COPY_RATE = 50 << 20
"""Bytes a second that a base copy is expected to make at the least, for estimates of its time."""
STORAGE_FACTOR = 1.25
MEMORY_AT_LEAST = 1 << 30
SPARE = 1 << 30
"""Bytes of disk that must be free on the runtime host whatever the estimate says."""
SAMPLE_SECONDS = 0.5
"""The WAL rate is measured from the beginning of the validation until it is asked for; this long at the least."""
SPOOL_SPACE = "PGM2015"


def version_name(number: int) -> str:
    """``150020`` as people write it: ``15.20``; ``90603`` as ``9.6.3``."""
    if number >= 100000:
        return f"{number // 10000}.{number % 10000}"
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def major(number: int) -> tuple[int, ...]:
    """What PostgreSQL calls the major version: ``(15,)``, ``(9, 6)``."""
    return (number // 10000,) if number >= 100000 else (number // 10000, number // 100 % 100)


def size(number: float) -> str:
    """A number of bytes for people."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(number) < 1024 or unit == "GB":
            return f"{number:.0f} {unit}" if unit in ("bytes", "kB") else f"{number:.1f} {unit}"
        number /= 1024
    return ""


@check("PGM2010", "source version", who=PLAYBOOK, azure="603400", side="source", remedy="dump and restore with another tool")
def source_version(ctx: Context) -> t.Iterator[Issue]:
    """The source runs PostgreSQL 9.5 or later (R12)."""
    found = ctx.version("source")
    if found < OLDEST:
        yield fail(f"the source runs PostgreSQL {version_name(found)}; at least 9.5 is needed", "Use pg_dump and pg_restore.")
    else:
        yield ok(version_name(found))


@check(
    "PGM2011",
    "target version",
    who=PLAYBOOK,
    side="target",
    needs=("source", "target"),
    remedy="create a target of the source's major version or later",
)
def target_version(ctx: Context) -> t.Iterator[Issue]:
    """The target's major version is not lower than the source's (R13)."""
    source, target = ctx.version("source"), ctx.version("target")
    if major(target) < major(source):
        yield fail(
            f"the target runs PostgreSQL {version_name(target)}, older than the source's {version_name(source)}: features would be lost",
            f"Create a target of PostgreSQL {version_name(source).partition('.')[0]} or later.",
        )
    else:
        yield ok(f"{version_name(source)} to {version_name(target)}")


@check("PGM2012", "client tools", side="runtime", needs=("source", "target"), remedy="playbook provision_runtime")
def client_tools(ctx: Context) -> t.Iterator[Issue]:
    """pg_dump, pg_restore and psql on this host are at least of both servers' major version (R8)."""
    newest = max(ctx.version("source"), ctx.version("target"))
    try:
        tools = find_tools(ctx.spec.copy.bindir, major(newest)[0])
    except MigrationError as exc:
        yield fail(exc.message, exc.hint, object=ctx.spec.copy.bindir)
        return
    source = version_name(ctx.version("source"))
    older = tools.version.partition(".")[0] == source.partition(".")[0] and _minor(tools.version) < _minor(source)
    if older:
        yield warn(
            f"pg_dump {tools.version} in {tools.bindir} is older than the source ({source}): it may write options that it does not know",
            "Update the client package on the runtime host (playbook pgops.migration.provision_runtime).",
            object=str(tools.bindir),
        )
    else:
        yield ok(f"{tools.version} in {tools.bindir}")


def _minor(version: str) -> int:
    """The last number of ``15.20``; 0 for betas and the like."""
    last = version.split(".")[-1]
    return int(last) if last.isdigit() else 0


@check("PGM2013", "clocks", side="runtime", needs=("source", "target"), worst="Warning", remedy="NTP on all hosts")
def clocks(ctx: Context) -> t.Iterator[Issue]:
    """The clocks of source, target and this host agree, or latency cannot be told."""
    skews = {}
    for side in ("source", "target"):
        before = time.time()
        theirs = float(one(ctx.session(side), "SELECT extract(epoch FROM pg_catalog.clock_timestamp())::float8"))
        skews[side] = theirs - (before + time.time()) / 2
    text = ", ".join(f"{side} {skew:+.1f} s against this host" for side, skew in skews.items())
    values = [0.0, *skews.values()]
    if max(values) - min(values) > SKEW_SECONDS:
        yield warn(
            f"clocks differ: {text}; the latency shown will be wrong by that", "Run chrony or another NTP client on all hosts.", data=skews
        )
    else:
        yield ok(text, data=skews)


@check("PGM2014", "runtime size", side="runtime", worst="Warning", remedy="a larger runtime host, or fewer copy.jobs")
def runtime_size(ctx: Context) -> t.Iterator[Issue]:
    """This host has a CPU for each relay and memory to work in (R7)."""
    cpus = os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    text = f"{cpus} CPUs, {size(memory)} of memory, {ctx.spec.copy.jobs} relays"
    if cpus < ctx.spec.copy.jobs:
        yield warn(f"{text}: more relays than CPUs", f"Set copy.jobs to {cpus}, or use a larger runtime host.")
    elif memory < MEMORY_AT_LEAST:
        yield warn(f"{text}: at least {size(MEMORY_AT_LEAST)} is advised", "Use a larger runtime host.")
    else:
        yield ok(text)


def existing(path: Path) -> Path:
    """``path`` or the nearest folder above it that exists."""
    return next((p for p in (path, *path.parents) if p.exists()), Path("/"))


def wal_position(ctx: Context) -> tuple[float, int]:
    """The time and the source's WAL position in bytes."""
    function = "pg_current_wal_insert_lsn" if ctx.version("source") >= 100000 else "pg_current_xlog_insert_location"
    diff = "pg_wal_lsn_diff" if ctx.version("source") >= 100000 else "pg_xlog_location_diff"
    return time.monotonic(), int(one(ctx.session("source"), f"SELECT pg_catalog.{diff}(pg_catalog.{function}(), '0/0')"))


def begin_wal_rate(ctx: Context) -> None:
    """Take the first of the two readings, as early as can be. A standby has no position of its own."""
    if not one(ctx.session("source"), "SELECT pg_catalog.pg_is_in_recovery()"):
        ctx.once("wal", make=lambda: wal_position(ctx))


def wal_rate(ctx: Context) -> tuple[float, float]:
    """Bytes of WAL a second, and over how many seconds they were measured: since the first time that somebody asked, the same for all
    who ask later."""

    def measure() -> tuple[float, float]:
        begun, first = ctx.once("wal", make=lambda: wal_position(ctx))
        time.sleep(max(0.0, SAMPLE_SECONDS - (time.monotonic() - begun)))
        now, last = wal_position(ctx)
        return (last - first) / max(now - begun, 0.001), now - begun

    return ctx.once("wal rate", make=measure)


def copy_seconds(ctx: Context) -> float:
    """How long the base copy is expected to take at the most; ten minutes where it is shorter."""
    return max(600.0, sum(sizes(ctx).values()) / COPY_RATE)


@check(
    SPOOL_SPACE,
    "spool space",
    side="runtime",
    needs=("source",),
    online=True,
    remedy="more disk under the home of the runtime host",
    order=90,
)
def spool_space(ctx: Context) -> t.Iterator[Issue]:
    """The runtime host's disk holds the changes that come while the data is copied: WAL rate times expected time (R9)."""
    if one(ctx.session("source"), "SELECT pg_catalog.pg_is_in_recovery()"):
        return
    rate, measured = wal_rate(ctx)
    seconds = copy_seconds(ctx)
    need = int(rate * seconds) + SPARE
    place = existing(ctx.home)
    free = shutil.disk_usage(place).free
    text = f"{size(free)} free at {place}; {size(rate)}/s of WAL (measured for {measured:.1f} s)"
    text += f" for an expected {seconds / 60:.0f} minutes needs {size(need)}"
    data = {"free_bytes": free, "needed_bytes": need, "wal_bytes_per_second": rate, "measured_seconds": measured, "copy_seconds": seconds}
    if free < SPARE:
        yield fail(text, f"Free or add disk space at {place} on the runtime host.", data=data)
    elif free < need:
        yield warn(text, f"Add disk space at {place} on the runtime host, or migrate at a quieter time.", data=data)
    else:
        yield ok(text, data=data)


@check(
    "PGM2022",
    "space for WAL on the source",
    who=SERVER,
    side="source",
    online=True,
    worst="Warning",
    remedy="more disk on the source, or max_slot_wal_keep_size",
    order=91,
)
def source_space(ctx: Context) -> t.Iterator[Issue]:
    """The source's disk holds the WAL that a slot keeps if nobody reads it for as long as the copy takes, where its room is known."""
    if one(ctx.session("source"), "SELECT pg_catalog.pg_is_in_recovery()"):
        return
    rate, measured = wal_rate(ctx)
    seconds = copy_seconds(ctx)
    need = int(rate * seconds)
    room, how = _room_on_source(ctx)
    text = f"{size(rate)}/s of WAL (measured for {measured:.1f} s) for an expected {seconds / 60:.0f} minutes is {size(need)}"
    data = {"free_bytes": room, "needed_bytes": need, "wal_bytes_per_second": rate, "measured_seconds": measured, "copy_seconds": seconds}
    if room is None:
        yield ok(f"{text}; the source's free space is not known (source.storage_gb)", data=data)
    elif room < need:
        yield warn(
            f"{text}, which the slot may keep; {size(room)} {how}: the source's disk could fill up while the stream stands still",
            f"Give the source {size(need - room)} more disk, migrate at a quieter time, or end the slot rather than the source: as"
            f" {ctx.profile('source').who}, max_slot_wal_keep_size below its free space. status and the metrics watch it.",
            data=data,
        )
    else:
        yield ok(f"{text}; {size(room)} {how}", data=data)


def _room_on_source(ctx: Context) -> tuple[int | None, str]:
    """Free bytes on the source's disk and how that is known: seen, where the source is this machine; else the size that the inventory says
    less the databases that can be measured."""
    seen = source_room(ctx.session("source"))
    if seen is not None:
        return seen, "are free on its disk"
    given = ctx.spec.source.storage_gb << 30
    if not given:
        return None, ""
    used = one(
        ctx.session("source"),
        "SELECT coalesce(sum(pg_catalog.pg_database_size(oid)), 0)::bigint FROM pg_database"
        " WHERE pg_catalog.has_database_privilege(oid, 'CONNECT')",
    )
    return max(0, given - int(used)), f"are left of the {ctx.spec.source.storage_gb} GB that source.storage_gb says"


def sizes(ctx: Context) -> dict[str, int]:
    """Bytes of each selected database on the source, where not all is chosen of the chosen tables; without those that cannot be read."""

    def read() -> dict[str, int]:
        query = "SELECT datname::text, pg_catalog.pg_database_size(oid) FROM pg_database WHERE datname = ANY(%s)"
        query += " AND pg_catalog.has_database_privilege(oid, 'CONNECT')"
        found = {row[0]: int(row[1]) for row in ctx.session("source").execute(query, [ctx.databases]).fetchall()}
        return found if ctx.selection.everything else {name: _chosen_size(ctx, name, whole) for name, whole in found.items()}

    return ctx.once("sizes", make=read)


def _chosen_size(ctx: Context, database: str, whole: int) -> int:
    """Bytes of the chosen tables with their indexes; ``whole`` where the database cannot be looked into."""
    try:
        tables = [table.oid for table in ctx.tables(database) if table.kind == "r"]
        query = "SELECT coalesce(sum(pg_catalog.pg_total_relation_size(oid)), 0)::bigint FROM unnest(%s::bigint[]) oid"
        return int(one(ctx.session("source", database), query, [tables]))
    except ConnectionFailed:
        return whole


@check("PGM2016", "target storage", who=SERVER, side="target", needs=("source", "target"), remedy="storage of 1.25 times the data")
def target_storage(ctx: Context) -> t.Iterator[Issue]:
    """The target has room for 1.25 times the data. Servers do not tell their disk: give target.storage_gb, or compare the figure."""
    total = sum(sizes(ctx).values())
    need, given = int(total * STORAGE_FACTOR), ctx.spec.target.storage_gb << 30
    data = {"databases": sizes(ctx), "needed_bytes": need, "storage_bytes": given}
    if not given:
        yield ok(f"{size(total)} of data: have {size(need)} free on the target", data=data)
        return
    used = int(
        one(
            ctx.target,
            "SELECT coalesce(sum(pg_catalog.pg_database_size(oid)), 0)::bigint FROM pg_database WHERE datallowconn"
            " AND pg_catalog.has_database_privilege(oid, 'CONNECT') AND NOT datname = ANY(%s)",
            [ctx.databases],
        )
    )
    text = f"{size(total)} of data needs {size(need)}; the target has {size(given)}, {size(used)} of it in use by other databases"
    if given - used < need:
        yield fail(text, f"Give the target at least {-(-(need + used) >> 30)} GB of storage (most providers: no restart).", data=data)
    else:
        yield ok(text, data=data)
