# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The servers' sessions: who follows the target, whether ours may run as long as they need, and whether there are enough of them."""

from __future__ import annotations

import typing as t

from ..postgres.identifiers import APPLICATION, quote_ident
from ..postgres.session import SINCE
from ..snapshot.budget import jobs_that_fit, shortage
from .context import Context, one
from .registry import SERVER, Issue, check, fail, names, ok, warn

LIMITS = ("statement_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout", "transaction_timeout")
"""What ends a session or statement by the clock; each of our sessions sets them to 0."""


@check("PGM2023", "replicas of the target", who=SERVER, side="target", worst="Warning", remedy="high availability after the migration")
def replicas(ctx: Context) -> t.Iterator[Issue]:
    """Nobody follows the target yet: replicas and high availability come after the verification (R110)."""
    rows = ctx.target.execute(
        "SELECT coalesce(nullif(application_name, ''), usename::text, '?'), coalesce(sync_state, '') FROM pg_stat_replication"
        " WHERE coalesce(application_name, '') NOT LIKE %s ORDER BY 1",
        [f"{APPLICATION}%"],
    ).fetchall()
    if not rows:
        yield ok("none")
        return
    waited = [name for name, state in rows if state in ("sync", "quorum")]
    text = (
        f"{len(rows)} server(s) follow the target ({names(name for name, dummy in rows)}): what is copied is sent to each of them as well"
    )
    text += f", and every commit waits for {names(waited)}" if waited else ""
    profile = ctx.profile("target")
    again = f": {profile.ha_command}" if profile.ha_command else "."
    yield warn(
        f"{text}; a copy is faster without them, and a new replica then starts from all of the data",
        f"As {profile.who} of the target, take replicas and high availability off until the migration is verified, and then put them on"
        f" again{again}",
        object=rows[0][0],
        data=[{"name": name, "sync_state": state} for name, state in rows],
    )


@check(
    "PGM2024",
    "time limits of sessions",
    who=SERVER,
    side="target",
    needs=("source", "target"),
    remedy="a login and an address (no pooler) whose sessions may set their time limits to 0",
)
def time_limits(ctx: Context) -> t.Iterator[Issue]:
    """The logins' sessions may run for hours: ``statement_timeout`` and its like are 0 when they are asked back after having been set."""
    begun = []
    forced = False
    for side in ("source", "target"):
        conn = ctx.session(side)
        known = [name for name in LIMITS if conn.info.server_version >= SINCE.get(name, 0)]
        found = {name: str(one(conn, "SELECT pg_catalog.current_setting(%s)", [name])) for name in known}
        kept = {name: value for name, value in found.items() if value != "0"}
        if kept:
            forced = True
            user, first = quote_ident(ctx.user(side)), min(kept)
            yield fail(
                f"sessions on the {ctx.called(side)} keep {names(f'{n} = {v}' for n, v in kept.items())} though they were told 0:"
                " long copies and index builds are ended by the server",
                f"Connect to the server itself, not to a pooler in transaction mode; as {ctx.profile(side).who}:"
                f" ALTER ROLE {user} SET {first} = 0; no restart.",
                object=first,
                data={"side": side, **kept},
            )
        rows = conn.execute("SELECT name, reset_val FROM pg_settings WHERE name = ANY(%s) AND reset_val <> '0' ORDER BY 1", [known])
        begun += [f"{name} = {value} ms on the {ctx.called(side)}" for name, value in rows.fetchall()]
    if not forced:
        yield ok(f"set to 0 by our sessions, which begin with {names(begun)}" if begun else "none")


@check(
    "PGM2027",
    "free sessions",
    who=SERVER,
    side="target",
    needs=("source", "target"),
    remedy="raise max_connections or the role's CONNECTION LIMIT, end idle sessions, or fewer databases at once",
)
def free_sessions(ctx: Context) -> t.Iterator[Issue]:
    """Both servers have sessions left for all that the migration opens; with too few for `copy.jobs` the copy takes fewer relays."""
    missing = False
    for side in ("source", "target"):
        text = shortage(ctx.spec, ctx.endpoint(side), ctx.session(side))
        if text:
            missing = True
            user = quote_ident(ctx.user(side))
            fix = f"ALTER ROLE {user} CONNECTION LIMIT -1; or raise max_connections (restart), or end sessions that nobody needs"
            yield fail(text, fix if "copy.max_connections" not in text else "Raise copy.max_connections.", object=side)
    if missing:
        return
    copy = ctx.spec.copy
    jobs, builders = jobs_that_fit(ctx.spec, ctx.session("source"), ctx.session("target"), "")
    if (jobs, builders) != (copy.jobs, copy.index_jobs):
        text = f"there are sessions for {jobs} relays and {builders} index builders, not for {copy.jobs} and {copy.index_jobs}"
        yield warn(f"{text}: the copy takes longer", "Raise max_connections or the role's CONNECTION LIMIT, or copy.max_connections.")
    else:
        yield ok(f"enough for {jobs} relays and {builders} index builders")
