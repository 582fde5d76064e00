# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What must hold before a cutover is begun, and how long the writers would be paused, measured and not guessed.

Nothing is changed on either side: a marker like that of the cutover is written to the source's WAL, as each heartbeat does it, and
the time until the target has it is what a drain would take now.
"""

from __future__ import annotations

import dataclasses
import time
import typing as t

from ..errors import CutoverAborted
from ..postgres.catalog import NOT_OF_EXTENSION, USER_SCHEMAS
from ..postgres.drivers import psycopg
from ..postgres.selection import Selection
from ..postgres.session import connect, server_errors
from ..snapshot.sequences import read_sequences
from ..spec import CutoverOptions, MigrationSpec
from ..validate.hooks import look_at
from .machine import RELY_ON_SILENCE
from .sessions import LOOK_SECONDS, QUIET_LOOKS, strangers
from .unlogged import BYTES_PER_SECOND, unlogged_tables

PROBE_SECONDS = 3.0
"""How long is waited for the marker; beyond it the latency is the forecast."""

SESSION_SECONDS = 0.002
"""What it takes to end one session."""

DIGEST_BYTES_PER_SECOND = 100e6
"""A cautious pace at which a server makes digests of large objects."""

REFRESH_BYTES_PER_SECOND = 50e6
"""A cautious pace of REFRESH MATERIALIZED VIEW."""

VERIFY_BYTES_PER_SECOND = 50e6
"""A cautious pace of the comparison of all rows (docs/performance.md)."""

HOLDS, WARNS, FAILS = "Succeeded", "Warning", "Failed"


@dataclasses.dataclass(frozen=True)
class Check:
    """One condition of a cutover: ``severity`` is ``Succeeded``, ``Warning`` or ``Failed``; ``hint`` what to do about it."""

    name: str
    severity: str
    text: str
    hint: str = ""

    def to_dict(self) -> dict[str, t.Any]:
        """Plain data."""
        return dataclasses.asdict(self)


def precheck_hooks(options: CutoverOptions, *, rollback: bool) -> list[dict[str, t.Any]]:
    """The conditions outside of both servers: what leads the writers is there. To be asked by who will run it."""
    looks = look_at(options, options.databases, rollback=rollback)
    return [Check(look.name, FAILS if look.trouble else HOLDS, look.trouble or look.text, look.hint).to_dict() for look in looks]


def precheck_database(
    spec: MigrationSpec, database: str, options: CutoverOptions, *, messages: bool, probe: t.Callable[[float], float | None]
) -> dict[str, t.Any]:
    """The conditions of one database, and the forecast in seconds by phase.

    :param messages: does the stream carry messages of ours?
    :param probe: ``probe(timeout)`` has a marker make its way and tells the seconds, or None if it did not come.
    :return: ``{"checks": [...], "forecast": {phase: seconds or None}}``.
    """
    checks: list[Check] = []
    with (
        connect(spec.source, database, purpose="precheck") as source,
        connect(spec.target, database, purpose="precheck") as target,
        server_errors("check what a cutover needs", spec.source, database),
    ):
        checks += [_transactions(source, database, options), _prepared(source, database, options), _rights(source, database, options)]
        checks += [_indexes(target, database), _statistics(target, database), _proof(database, options, messages)]
        sessions = len(strangers(source))
        began = time.monotonic()
        read_sequences(source, Selection.of(spec.copy))
        level = 2 * (time.monotonic() - began) + _refresh_seconds(target)
        verify = _size(target) / VERIFY_BYTES_PER_SECOND if options.verify_before_release else 0.0
        level += _large_object_seconds(source) + sum(table.bytes for table in unlogged_tables(spec, source)) / BYTES_PER_SECOND
    drain = probe(PROBE_SECONDS)
    fence = QUIET_LOOKS * LOOK_SECONDS + 0.1 + SESSION_SECONDS * sessions if options.proven else 0.0
    forecast = {"fence": fence, "drain": drain, "complete": level + 0.05, "confirm": drain, "verify": verify}
    return {"checks": [check.to_dict() for check in checks], "forecast": forecast}


def _rows(conn: psycopg.Connection[t.Any], query: str, values: t.Sequence[t.Any] = ()) -> list[tuple[t.Any, ...]]:
    return list(conn.execute(query, values or None))


def _transactions(source: psycopg.Connection[t.Any], database: str, options: CutoverOptions) -> Check:
    limit = options.max_transaction_age
    if not limit:
        return Check("transactions", HOLDS, f"{database}: no limit for their age")
    found = _rows(
        source,
        "SELECT pid, usename::text, extract(epoch FROM clock_timestamp() - xact_start)::float8 FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name NOT LIKE 'pgops.migration%%'"
        " AND xact_start < clock_timestamp() - make_interval(secs => %s) ORDER BY xact_start",
        [limit],
    )
    if not found:
        return Check("transactions", HOLDS, f"{database}: none is older than {limit:g} s")
    pid, user, age = found[0]
    text = f"{database}: the transaction of session {pid} ({user}) is {age:.0f} s old, allowed are {limit:g} s"
    return Check("transactions", FAILS, text, "Let it end, or raise cutover.max_transaction_age: the fence would have to end it.")


def _prepared(source: psycopg.Connection[t.Any], database: str, options: CutoverOptions) -> Check:
    gids = [row[0] for row in _rows(source, "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()")]
    if not gids:
        return Check("prepared transactions", HOLDS, f"{database}: none")
    text = f"{database}: {', '.join(gids[:5])}"
    hint = "COMMIT PREPARED or ROLLBACK PREPARED them first: they survive every fence."
    return Check("prepared transactions", FAILS if options.proven else WARNS, text, hint)


def _rights(source: psycopg.Connection[t.Any], database: str, options: CutoverOptions) -> Check:
    if options.fence not in ("revoke_connect", "locks", "read_only"):
        return Check("rights of the fence", HOLDS, f"{database}: none needed")
    query = "SELECT pg_has_role(datdba, 'USAGE'), pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()"
    may, owner = _rows(source, query)[0]
    if may:
        return Check("rights of the fence", HOLDS, f"{database}: member of the owner {owner}")
    hint = f'As a superuser of the source: GRANT "{owner}" TO the migration user; or choose cutover.fence external.'
    return Check("rights of the fence", FAILS, f"{database}: no member of its owner {owner}", hint)


def _indexes(target: psycopg.Connection[t.Any], database: str) -> Check:
    names = _rows(
        target,
        "SELECT n.nspname || '.' || c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        f" JOIN pg_namespace n ON n.oid = c.relnamespace WHERE NOT (i.indisvalid AND i.indisready) AND c.relkind = 'i' AND {USER_SCHEMAS}",
    )
    if not names:
        return Check("indexes", HOLDS, f"{database}: all valid on the target")
    return Check("indexes", FAILS, f"{database}: invalid on the target: {', '.join(row[0] for row in names[:5])}", "REINDEX them.")


def _statistics(target: psycopg.Connection[t.Any], database: str) -> Check:
    """From 14 on a table that was never analyzed says so; one that was truncated since says the same, so this is no more than a warning."""
    if target.info.server_version < 140000:
        return Check("statistics", HOLDS, f"{database}: not told by this version")
    row = _rows(
        target,
        "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND c.reltuples = -1"
        f" AND pg_relation_size(c.oid) > 0 AND {USER_SCHEMAS} AND {NOT_OF_EXTENSION}",
    )
    if not row[0][0]:
        return Check("statistics", HOLDS, f"{database}: present")
    return Check("statistics", WARNS, f"{database}: {row[0][0]} tables of the target have none", "ANALYZE them before the cutover.")


def _proof(database: str, options: CutoverOptions, messages: bool) -> Check:
    if messages or options.fence not in RELY_ON_SILENCE:
        return Check("proof of the fence", HOLDS, f"{database}: possible")
    text = f"{database}: the stream carries no messages of ours, so {options.fence} cannot be proven"
    return Check("proof of the fence", FAILS, text, "Choose cutover.fence revoke_connect or locks.")


def _refresh_seconds(target: psycopg.Connection[t.Any]) -> float:
    row = _rows(
        target,
        "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::float8, count(*) FROM pg_class c"
        f" JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'm' AND c.relispopulated AND {USER_SCHEMAS}",
    )[0]
    return float(row[0]) / REFRESH_BYTES_PER_SECOND + 0.01 * int(row[1])


def _large_object_seconds(source: psycopg.Connection[t.Any]) -> float:
    """Both sides make digests of all of them, at the same time."""
    query = "SELECT CASE WHEN EXISTS (SELECT FROM pg_largeobject_metadata) THEN pg_table_size('pg_largeobject') ELSE 0 END::float8"
    return float(_rows(source, query)[0][0]) / DIGEST_BYTES_PER_SECOND


def _size(target: psycopg.Connection[t.Any]) -> float:
    """Bytes of all tables."""
    query = (
        "SELECT coalesce(sum(pg_table_size(c.oid)), 0)::float8 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        f" WHERE c.relkind = 'r' AND {USER_SCHEMAS}"
    )
    return float(_rows(target, query)[0][0])


def total(forecasts: t.Sequence[t.Mapping[str, float | None]], latency: float | None) -> float | None:
    """The predicted pause: databases go through each phase together, so the slowest counts. A drain that was not measured takes as long as
    the target is behind; None if that is not known either."""
    seconds = 0.0
    for phase in ("fence", "drain", "complete", "confirm", "verify"):
        known = [forecast.get(phase, 0.0) for forecast in forecasts]
        if any(value is None for value in known):
            if phase == "drain" and latency is None:
                return None
            seconds += latency or 0.0 if phase == "drain" else 0.1
        else:
            seconds += max((value for value in known if value is not None), default=0.0)
    return round(seconds, 2)


def judge(
    options: CutoverOptions, checks: t.Sequence[t.Mapping[str, t.Any]], latencies: t.Mapping[str, float | None], forecast: float | None
) -> CutoverAborted | None:
    """The error that a cutover would be refused with now, None if it may begin. ``force`` passes over latency and forecast (R97)."""
    for database, latency in latencies.items():
        if not options.force and (latency is None or latency > options.max_latency):
            shown = "not known" if latency is None else f"{latency:.1f} s"
            return CutoverAborted(
                f"Cutover refused: the latency of {database} is {shown}, allowed are {options.max_latency:.1f} s.",
                code="PGM5002",
                hint="Stop or slow the writers until it has fallen, or set cutover.force.",
            )
    failed = [check for check in checks if check["severity"] == FAILS]
    if failed:
        first = failed[0]
        more = f" ({len(failed) - 1} more)" if len(failed) > 1 else ""
        return CutoverAborted(f"Cutover refused: {first['name']}, {first['text']}{more}.", code="PGM5005", hint=first["hint"])
    if options.proven and not options.force and forecast is not None and forecast > options.max_pause:
        return CutoverAborted(
            f"Cutover refused: the pause would be {forecast:.1f} s, allowed are {options.max_pause:g} s (max_pause).",
            code="PGM5007",
            hint="Cut over in a quieter hour, or raise cutover.max_pause.",
        )
    return None
