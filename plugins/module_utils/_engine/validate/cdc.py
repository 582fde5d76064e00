# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Checks of the source as a server of changes: parameters, slots, senders, plugin, and what would keep a slot from being made."""

from __future__ import annotations

import typing as t

from ..errors import MigrationError
from ..postgres.identifiers import object_name, quote_ident, quote_literal
from ..source.settings import LEVELS, Setting, Usage, read_settings, read_usage, wanted_senders, wanted_slots
from .context import Context, one
from .registry import OWNER, PLAYBOOK, SERVER, SUPERUSER, Issue, check, fail, names, ok, warn

LONG_SECONDS = 60.0
"""A transaction on the source that is older than this delays the making of the slot."""
OLD_TRANSACTIONS = 1_500_000_000
"""Age of a database's oldest transaction id past which a long snapshot or slot is a danger: PostgreSQL stops at 2^31 (manual 25.1.5)."""
SHORT_TIMEOUT = 30_000.0
"""A wal_sender_timeout (ms) below this ends the stream at the first pause."""


def _usage(ctx: Context) -> Usage:
    ours = [object_name(ctx.spec.key, name) for name in ctx.databases]
    return ctx.once("usage", make=lambda: read_usage(ctx.session("source"), ours))


def _cdc(ctx: Context) -> dict[str, Setting]:
    return ctx.once("cdc", make=lambda: read_settings(ctx.session("source")))


def _number(ctx: Context, name: str) -> int:
    return int(_cdc(ctx)[name].value)


def how_to_set(ctx: Context, name: str, value: str, restart: bool) -> str:
    """The command that sets a parameter of the source, with what follows."""
    profile = ctx.profile("source")
    provider = dict(profile.cdc_parameters)
    if name == "wal_level":
        name, value = next(iter(provider.items()))
    after = f" Then restart: {profile.restart_command}." if restart else " Then SELECT pg_reload_conf(); no restart."
    if profile.managed:
        return f"As {profile.who}: {profile.set_parameter(name, value)}.{after}"
    play = "As" if ctx.spec.back_of else "Playbook pgops.migration.prepare_source, or as"
    return f"{play} {profile.who}: {profile.set_parameter(name, value)};{after}"


@check(
    "PGM2101",
    "wal_level",
    who=SERVER,
    restart=True,
    azure="603107",
    online=True,
    remedy="wal_level = logical (provider: its own parameter); restart",
)
def wal_level(ctx: Context) -> t.Iterator[Issue]:
    """``wal_level`` is ``logical`` (R16)."""
    found = _cdc(ctx)["wal_level"]
    if LEVELS.get(found.value, 0) < LEVELS["logical"]:
        written = found.pending_restart and (found.file_value or "logical") == "logical"
        text = f"wal_level is {found.value}; changes can only be read with logical"
        profile = ctx.profile("source")
        if written:
            yield fail(
                f"{text}. The file says so already: only the restart is missing",
                f"Restart the {ctx.called('source')}: {profile.restart_command}.",
            )
        else:
            yield fail(text, how_to_set(ctx, "wal_level", "logical", True))
    else:
        yield ok(found.value)


@check(
    "PGM2102",
    "replication slots",
    who=SERVER,
    restart=True,
    azure="603105",
    online=True,
    remedy="drop stale slots, or raise max_replication_slots; restart",
)
def replication_slots(ctx: Context) -> t.Iterator[Issue]:
    """One replication slot is free for each database; slots that nobody reads are named (R17, B1)."""
    limit, usage, databases = _number(ctx, "max_replication_slots"), _usage(ctx), max(1, len(ctx.databases))
    wanted = wanted_slots(limit, usage.slots, databases)
    stale = f" Nobody reads {names(usage.stale)}." if usage.stale else ""
    text = f"max_replication_slots = {limit}, {usage.slots} in use by others, {databases} needed.{stale}"
    data = {"limit": limit, "used": usage.slots, "needed": databases, "stale": list(usage.stale)}
    if limit < wanted:
        drop = f"If nobody needs it: SELECT pg_drop_replication_slot({quote_literal(usage.stale[0])}); or " if usage.stale else ""
        yield fail(text, drop + how_to_set(ctx, "max_replication_slots", str(wanted), True), object=",".join(usage.stale), data=data)
    elif usage.stale:
        yield warn(
            f"{text} Stale slots keep WAL until the disk is full",
            f"If nobody needs it: SELECT pg_drop_replication_slot({quote_literal(usage.stale[0])});",
            object=",".join(usage.stale),
            data=data,
            who=SUPERUSER,
            restart=False,
        )
    else:
        yield ok(text.rstrip("."), data=data)


@check("PGM2103", "wal senders", who=SERVER, restart=True, azure="603106", online=True, remedy="raise max_wal_senders; restart")
def wal_senders(ctx: Context) -> t.Iterator[Issue]:
    """``max_wal_senders`` is at least the slots needed plus the senders in use (R19)."""
    limit, usage, databases = _number(ctx, "max_wal_senders"), _usage(ctx), max(1, len(ctx.databases))
    least = max(2, databases + usage.senders)
    slots = wanted_slots(_number(ctx, "max_replication_slots"), usage.slots, databases)
    wanted = wanted_senders(limit, slots, usage.senders)
    text = f"max_wal_senders = {limit}, {usage.senders} in use, {databases} needed"
    if limit < least:
        yield fail(text, how_to_set(ctx, "max_wal_senders", str(wanted), True))
    elif limit < _number(ctx, "max_replication_slots"):
        yield warn(
            f"{text}; fewer than max_replication_slots ({_number(ctx, 'max_replication_slots')}), so slots may stay without a sender",
            how_to_set(ctx, "max_wal_senders", str(wanted), True),
        )
    else:
        yield ok(text)


@check("PGM2104", "wal_sender_timeout", who=SERVER, online=True, worst="Warning", remedy="wal_sender_timeout = 0 or 60s; reload")
def wal_sender_timeout(ctx: Context) -> t.Iterator[Issue]:
    """``wal_sender_timeout`` leaves the receiver time for a pause; 0 switches it off and is right as well (R20)."""
    found = _cdc(ctx)["wal_sender_timeout"]
    milliseconds = float(found.value)
    if 0 < milliseconds < SHORT_TIMEOUT:
        yield warn(
            f"wal_sender_timeout is {milliseconds / 1000:g} s: a short pause ends the stream (it starts again by itself)",
            how_to_set(ctx, "wal_sender_timeout", "60s", False),
        )
    else:
        yield ok("off" if milliseconds == 0 else f"{milliseconds / 1000:g} s")


@check("PGM2105", "replication right", azure="603104", online=True, remedy="ALTER ROLE ... REPLICATION (RDS: GRANT rds_replication)")
def replication_right(ctx: Context) -> t.Iterator[Issue]:
    """The migration user may open a replication connection."""
    conn, profile = ctx.session("source"), ctx.profile("source")
    if one(conn, "SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user"):
        yield ok()
        return
    group = profile.replication_role
    if group and one(conn, "SELECT pg_has_role(oid, 'USAGE') FROM pg_roles WHERE rolname = %s", [group]):
        yield ok(f"through {group}")
        return
    user = quote_ident(conn.info.user)
    yield fail(
        f"the role {conn.info.user} lacks REPLICATION on the {ctx.called('source')}",
        f"As {profile.who if profile.managed else 'a superuser'}: {profile.grant_replication(user)}; no restart.",
        object=conn.info.user,
    )


@check(
    "PGM2106",
    "output plugin",
    who=SERVER,
    scope="database",
    online=True,
    remedy="install the plugin, or changes.plugin: pgoutput",
    order=-3,
)
def output_plugin(ctx: Context) -> t.Iterator[Issue]:
    """An output plugin works, proven by a temporary slot that is gone afterwards (R14)."""
    if LEVELS.get(_cdc(ctx)["wal_level"].value, 0) < LEVELS["logical"]:
        yield warn("cannot be proven before wal_level is logical", "Repair PGM2101 first.")
        return
    if one(ctx.session("source"), "SELECT pg_catalog.pg_is_in_recovery()"):
        return
    slot = object_name(ctx.spec.key, ctx.database)
    found = one(ctx.session("source"), "SELECT plugin::text FROM pg_replication_slots WHERE slot_name = %s", [slot])
    if found:
        yield ok(f"{found}: the slot {slot} of this migration exists", object=found, data={"plugin": found})
        return
    choice = ctx.plugin()
    if isinstance(choice, MigrationError):
        yield fail(choice.message, choice.hint, object=ctx.spec.changes.plugin)
        return
    yield ok(f"{choice.plugin}: {choice.reason}", object=choice.plugin, data={"plugin": choice.plugin, "options": choice.options})


@check(
    "PGM2107",
    "output_plugin_libraries",
    online=True,
    remedy="ALTER ROLE ... SET output_plugin_libraries = pgoutput, test_decoding, wal2json (an unquoted list)",
)
def output_plugin_libraries(ctx: Context) -> t.Iterator[Issue]:
    """Where the server has the parameter ``output_plugin_libraries`` (minors of August 2026 on), it allows the plugin that is wanted."""
    value = ctx.custom("source", "output_plugin_libraries")
    if value is None:
        yield ok("this server has no such parameter; after its next minor update it may, and then wal2json has to be allowed")
        return
    allowed = [word.strip(' "') for word in value.split(",")]
    wanted = ctx.spec.changes.plugin
    user = ctx.session("source").info.user
    needed = "wal2json" if wanted == "auto" else wanted
    full = ", ".join(dict.fromkeys([*(a for a in allowed if a and "," not in a), needed]))
    fix = f"As a superuser: ALTER ROLE {quote_ident(user)} SET output_plugin_libraries = {full}; (an unquoted list) no restart."
    if wanted != "auto" and wanted not in allowed:
        yield fail(f"output_plugin_libraries is {value}: {wanted} is refused", fix, object=user)
    elif wanted == "auto" and "wal2json" not in allowed:
        yield warn(f"output_plugin_libraries is {value}: wal2json is refused, so pgoutput will be used", fix, object=user)
    else:
        yield ok(value)


@check("PGM2108", "read-only source", azure="603112", remedy="default_transaction_read_only = off; reload", scope="database")
def read_only(ctx: Context) -> t.Iterator[Issue]:
    """``default_transaction_read_only`` is off: the source is in use, and not the remains of somebody's cutover."""
    found = ctx.settings("source").get("default_transaction_read_only")
    if found and found.value == "on":
        database = quote_ident(ctx.database)
        yield fail(
            "default_transaction_read_only is on for the migration user's sessions",
            f"Where it was set: ALTER SYSTEM / ALTER DATABASE {database} / ALTER ROLE ... RESET default_transaction_read_only;"
            " by a superuser or the database's owner; no restart.",
            object=ctx.database,
        )
    else:
        yield ok("off")


@check("PGM2109", "source is primary", who=PLAYBOOK, remedy="migrate from the primary")
def is_primary(ctx: Context) -> t.Iterator[Issue]:
    """The source is a primary server: a standby cannot be fenced, nor be published from."""
    if one(ctx.session("source"), "SELECT pg_catalog.pg_is_in_recovery()"):
        side = ctx.called("source")
        yield fail(f"the {side} is in recovery: it is a standby", f"Give the address of its primary in pg_migration.{side}.host.")
    else:
        yield ok()


@check(
    "PGM2110", "WAL kept for slots", who=SERVER, online=True, worst="Warning", remedy="max_slot_wal_keep_size = -1, or large enough; reload"
)
def slot_wal_keep(ctx: Context) -> t.Iterator[Issue]:
    """No limit invalidates our slot while the data is copied (``max_slot_wal_keep_size``, ``idle_replication_slot_timeout``)."""
    settings = ctx.settings("source")
    keep, idle = settings.get("max_slot_wal_keep_size"), settings.get("idle_replication_slot_timeout")
    found = False
    if keep and keep.value != "-1":
        found = True
        yield warn(
            f"max_slot_wal_keep_size is {keep.value} {keep.unit}: a slot that falls further behind is lost, and the copy begins again",
            how_to_set(ctx, "max_slot_wal_keep_size", "-1", False),
        )
    if idle and idle.value not in ("0", ""):
        found = True
        yield warn(
            f"idle_replication_slot_timeout is {idle.value} {idle.unit}: a slot without receiver is lost after that",
            how_to_set(ctx, "idle_replication_slot_timeout", "0", False),
        )
    if not found:
        yield ok("unlimited")


@check("PGM2111", "prepared transactions", remedy="COMMIT PREPARED or ROLLBACK PREPARED")
def prepared_transactions(ctx: Context) -> t.Iterator[Issue]:
    """No prepared transaction is open: the making of a slot waits for it, and it survives every fence (B5)."""
    query = "SELECT gid, database::text, owner::text, extract(epoch FROM now() - prepared)::float8 FROM pg_prepared_xacts ORDER BY prepared"
    rows = ctx.session("source").execute(query).fetchall()
    if not rows:
        yield ok("none")
        return
    listed = names(f"{gid} in {database} by {owner} for {seconds:.0f} s" for gid, database, owner, seconds in rows)
    gid, database, owner, dummy = rows[0]
    text = f"{len(rows)} prepared transaction(s): {listed}"
    fix = f"As {owner} in database {database}: COMMIT PREPARED {quote_literal(gid)}; or ROLLBACK PREPARED {quote_literal(gid)};"
    if ctx.spec.online:
        yield fail(f"{text}; the slot cannot be made before they end", fix, object=gid)
    else:
        yield warn(text, fix, object=gid)


@check("PGM2112", "long transactions", online=True, worst="Warning", remedy="wait, or pg_terminate_backend(pid)")
def long_transactions(ctx: Context) -> t.Iterator[Issue]:
    """No transaction has been open for long: the making of a slot waits for all that run (B5)."""
    rows = (
        ctx.session("source")
        .execute(
            "SELECT pid, coalesce(usename::text, '?'), coalesce(datname::text, '?'), extract(epoch FROM now() - xact_start)::float8"
            " FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND xact_start < now() - %s * interval '1 second'"
            " AND coalesce(query, '') NOT LIKE 'autovacuum:%%' ORDER BY xact_start",
            [LONG_SECONDS],
        )
        .fetchall()
    )
    if not rows:
        yield ok(f"none over {LONG_SECONDS:g} s")
        return
    listed = names(f"pid {pid} of {user} in {database} for {seconds:.0f} s" for pid, user, database, seconds in rows)
    yield warn(
        f"{len(rows)} open transaction(s): {listed}; the slot cannot be made before they end",
        f"Wait, or as its user or a member of pg_signal_backend: SELECT pg_terminate_backend({rows[0][0]});",
        object=str(rows[0][0]),
    )


@check(
    "PGM2115",
    "TRUNCATE in the stream",
    who=PLAYBOOK,
    online=True,
    worst="Warning",
    remedy="no TRUNCATE, VACUUM FULL or CLUSTER until the cutover",
)
def truncate_is_streamed(ctx: Context) -> t.Iterator[Issue]:
    """The source tells of TRUNCATE; before version 11 logical decoding does not."""
    version = ctx.session("source").info.server_version
    if version < 110000:
        text = f"PostgreSQL {version // 10000} does not stream TRUNCATE. A table that gets a new file while changes are streamed is DDL"
        fix = "Avoid TRUNCATE, VACUUM FULL and CLUSTER until the cutover (application and DBA), or migrate offline."
        yield warn(f"{text}: changes.on_ddl ({ctx.spec.changes.on_ddl}) says what happens then.", fix)
    else:
        yield ok("TRUNCATE is streamed.")


@check(
    "PGM2114",
    "failover slot",
    who=PLAYBOOK,
    online=True,
    worst="Warning",
    remedy="changes.failover_slot: false, or a source of version 17 or later",
)
def failover_slot(ctx: Context) -> t.Iterator[Issue]:
    """Where a slot is wanted that the source's standbys keep, the source can make one (17 and later)."""
    if not ctx.spec.changes.failover_slot:
        yield ok("not wanted")
    elif ctx.version("source") < 170000:
        yield warn(
            "failover slots came with PostgreSQL 17: after a failover of the source the migration begins again",
            "Set changes.failover_slot to false; keep the source from failing over during the migration.",
        )
    else:
        yield ok("the standbys need sync_replication_slots = on, and the primary synchronized_standby_slots")


@check("PGM2113", "age of transaction ids", who=OWNER, worst="Warning", remedy="VACUUM FREEZE before the migration")
def transaction_age(ctx: Context) -> t.Iterator[Issue]:
    """No database is near the wraparound of transaction ids: a long copy and its slot keep VACUUM from freezing."""
    query = "SELECT datname::text, pg_catalog.age(datfrozenxid) FROM pg_database WHERE datname = ANY(%s) ORDER BY 2 DESC"
    rows = ctx.session("source").execute(query, [ctx.databases]).fetchall()
    old = [row for row in rows if row[1] > OLD_TRANSACTIONS]
    if old:
        yield warn(
            f"oldest transaction ids: {names(f'{database} {age}' for database, age in old)} of 2147483647 possible",
            f"As the owner or a superuser, before the migration, in {old[0][0]}: VACUUM (FREEZE); no restart.",
            object=old[0][0],
        )
    else:
        yield ok(f"at most {rows[0][1]}" if rows else "")
