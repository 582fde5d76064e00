# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The four parameters of a source that change data capture needs: what they are, what they should be, how to set and restore them.

Sources of the rules: R16 to R21 and the PostgreSQL manual 19.6 ("Replication"). A value is never lowered. :func:`plan_cdc` is pure:
it takes what :func:`read_settings` and :func:`read_usage` saw and answers with the changes that are needed.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ..errors import MigrationError
from ..postgres.drivers import psycopg
from ..postgres.identifiers import APPLICATION, PREFIX, quote_ident, quote_literal
from ..postgres.profiles import Profile

NAMES = ("wal_level", "max_replication_slots", "max_wal_senders", "wal_sender_timeout")
INCLUDE_FILE = "pg_migration_cdc.conf"
"""Name of the file that the role includes at the end of postgresql.conf."""

LEVELS = {"minimal": 0, "archive": 1, "hot_standby": 1, "replica": 1, "logical": 2}
RESTART = frozenset({"wal_level", "max_replication_slots", "max_wal_senders"})

_TIME = {"us": 0.001, "ms": 1.0, "s": 1000.0, "min": 60_000.0, "h": 3_600_000.0, "d": 86_400_000.0}
_BYTES = {"B": 1.0, "kB": 1024.0, "MB": 1024.0**2, "GB": 1024.0**3, "TB": 1024.0**4}


@dataclasses.dataclass(frozen=True)
class Setting:
    """One row of ``pg_settings``. ``value`` is what a restart-free session sees; ``file_value`` what the last line of the files
    says, None where that cannot be read; ``source_file`` is empty where it is not shown (no ``pg_read_all_settings``) or not a file."""

    name: str
    value: str
    unit: str = ""
    context: str = ""
    source: str = "default"
    source_file: str = ""
    source_line: int = 0
    pending_restart: bool = False
    file_value: str | None = None


@dataclasses.dataclass(frozen=True)
class Usage:
    """What is taken on the source by others: ``slots`` in use, ``senders`` connected (physical standbys among them), the names of
    logical slots that nobody reads (``stale``); and how many slots are ours already (``ours``)."""

    slots: int = 0
    senders: int = 0
    stale: tuple[str, ...] = ()
    ours: int = 0


@dataclasses.dataclass(frozen=True)
class SettingChange:
    """One parameter that has to be changed. ``desired`` and ``current`` are in ``unit`` as ``pg_settings`` counts.

    ``written``: the files say so already, only the restart is missing. ``overrides``: what would hide a line in our include file
    (``postgresql.auto.conf`` or ``command line``), empty if nothing does.
    """

    name: str
    current: str
    desired: str
    unit: str
    context: str
    restart: bool
    source_file: str
    reason: str
    written: bool = False
    overrides: str = ""

    def to_dict(self) -> dict[str, t.Any]:
        """The change as plain data."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Applied:
    """What :func:`apply_settings` did. ``restore`` maps each name to its former value in postgresql.auto.conf, None where it had none."""

    changed: tuple[str, ...]
    restart_required: tuple[str, ...]
    reload_required: tuple[str, ...]
    restore: dict[str, str | None]


def parse_quantity(text: str, unit: str) -> float:
    """``text`` as postgresql.conf allows it (``60s``, ``1.5min``, ``64MB``, ``0``) counted in ``unit`` of ``pg_settings`` (``ms``, ``kB``,
    ``8kB``, ``''``); manual 19.1.1.

    :raises ValueError: where it is no such quantity.
    """
    match = re.fullmatch(r"\s*'?\s*(-?\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*'?\s*", text)
    base = re.fullmatch(r"(\d*)([A-Za-z]*)", unit)
    if not match or not base:
        raise ValueError(f"not a quantity: {text!r}")
    number, word = float(match.group(1)), match.group(2)
    if not word:
        return number
    table = next((table for table in (_TIME, _BYTES) if word in table and base.group(2) in table), None)
    if table is None:
        raise ValueError(f"{word!r} is no unit of a parameter counted in {unit or 'numbers'}")
    return number * table[word] / (table[base.group(2)] * int(base.group(1) or 1))


def wanted_slots(current: int, used: int, databases: int, margin: int = 0) -> int:
    """``max_replication_slots``: more than 1, and one free for each database (R17); never below ``current`` (R18)."""
    return max(2, used + databases + margin, current)


def wanted_senders(current: int, slots: int, in_use: int) -> int:
    """``max_wal_senders``: as many as slots plus those in use by others (R19); never below ``current``."""
    return max(2, slots + in_use, current)


def wanted_timeout(current: str, asked: str | None, unit: str = "ms") -> str:
    """``wal_sender_timeout`` in ``unit``: ``asked`` where that is longer than ``current`` (0 is for ever), else ``current`` (R20).

    :raises ValueError: where ``asked`` is no duration.
    """
    if asked is None:
        return current
    now, then = parse_quantity(current, unit), parse_quantity(asked, unit)
    if now == 0 or (then != 0 and then <= now):
        return current
    return str(round(then))


def plan_cdc(
    settings: t.Mapping[str, Setting], usage: Usage, databases: int, *, wal_sender_timeout: str | None = None, margin: int = 0
) -> list[SettingChange]:
    """The changes that ``databases`` databases streamed at once need; an empty list where all is well.

    :param wal_sender_timeout: the wish for it (``0``, ``5min``), None to leave it.
    :param margin: free slots to have beside.
    """
    changes = []

    def add(name: str, desired: str, reason: str) -> None:
        now = settings.get(name, Setting(name, ""))
        if now.value == desired:
            return
        written = now.pending_restart and _suffices(name, now.file_value, desired, now.unit)
        changes.append(
            SettingChange(
                name, now.value, desired, now.unit, now.context, name in RESTART, now.source_file, reason, written, overridden_by(now)
            )
        )

    def number(name: str) -> int:
        return int(settings[name].value) if name in settings else 0

    level = settings["wal_level"].value if "wal_level" in settings else ""
    if LEVELS.get(level, 0) < LEVELS["logical"]:
        add("wal_level", "logical", "logical decoding reads changes from the WAL")
    databases = max(databases, usage.ours)
    slots = wanted_slots(number("max_replication_slots"), usage.slots, databases, margin)
    beside = f" + {margin} spare" if margin else ""
    add("max_replication_slots", str(slots), f"{usage.slots} in use + {databases} for this migration{beside}, at least 2")
    senders = wanted_senders(number("max_wal_senders"), slots, usage.senders)
    add("max_wal_senders", str(senders), f"{slots} replication slots + {usage.senders} senders in use")
    timeout = settings.get("wal_sender_timeout", Setting("wal_sender_timeout", "60000", "ms"))
    desired = wanted_timeout(timeout.value, wal_sender_timeout, timeout.unit or "ms")
    add("wal_sender_timeout", desired, "as asked; a pause of the receiver must not end the stream")
    return changes


def plan_settings(
    conn: psycopg.Connection[t.Any],
    databases: int,
    wal_sender_timeout: str | None = None,
    margin: int = 0,
    *,
    ours: t.Collection[str] | None = None,
) -> list[SettingChange]:
    """:func:`plan_cdc` for the server of ``conn``. ``ours`` are the names of slots that this migration made already, None for every slot
    with our prefix: they are not counted as used, so that a run during the migration plans nothing."""
    return plan_cdc(read_settings(conn), read_usage(conn, ours), databases, wal_sender_timeout=wal_sender_timeout, margin=margin)


def overridden_by(setting: Setting) -> str:
    """What hides a line for ``setting`` in an included file: ``postgresql.auto.conf`` (ALTER SYSTEM), ``command line``, or nothing."""
    if setting.source_file.endswith("postgresql.auto.conf"):
        return "postgresql.auto.conf"
    return setting.source if setting.source in ("command line", "environment variable") else ""


def _suffices(name: str, value: str | None, desired: str, unit: str) -> bool:
    if value is None:
        return False
    if name == "wal_level":
        return LEVELS.get(value, 0) >= LEVELS[desired]
    try:
        return parse_quantity(value, unit) >= float(desired)
    except ValueError:
        return False


def read_settings(conn: psycopg.Connection[t.Any], names: t.Sequence[str] = NAMES) -> dict[str, Setting]:
    """``names`` as ``pg_settings`` shows them, with the value that the files hold where the user may read ``pg_file_settings``.

    ``reset_val`` is read, not ``setting``: what our own session set does not count.
    """
    rows = conn.execute(
        "SELECT name, coalesce(reset_val, ''), coalesce(unit, ''), context, source, coalesce(sourcefile, ''), coalesce(sourceline, 0),"
        " pending_restart FROM pg_settings WHERE name = ANY(%s)",
        [list(names)],
    ).fetchall()
    files = _file_values(conn, names)
    return {row[0]: dataclasses.replace(Setting(*row), file_value=files[row[0]][1] if row[0] in files else None) for row in rows}


def _file_values(conn: psycopg.Connection[t.Any], names: t.Sequence[str]) -> dict[str, tuple[str, str | None]]:
    """Name to (file, value) of the last line that sets it; empty where the files may not be read."""
    try:
        rows = conn.execute(
            "SELECT name, sourcefile, setting FROM pg_file_settings WHERE name = ANY(%s) ORDER BY seqno", [list(names)]
        ).fetchall()
    except psycopg.errors.InsufficientPrivilege:
        return {}
    return {row[0]: (row[1], row[2]) for row in rows}


def read_usage(conn: psycopg.Connection[t.Any], ours: t.Collection[str] | None = None) -> Usage:
    """Slots and senders that are taken by others than us, and slots that nobody reads.

    :param ours: names of our slots; None: each that begins with our prefix. Our sessions are known by their ``application_name``.
    """
    rows = conn.execute("SELECT slot_name::text, slot_type, active FROM pg_replication_slots ORDER BY 1").fetchall()
    others = [row for row in rows if (row[0] not in ours if ours is not None else not row[0].startswith(PREFIX))]
    senders = conn.execute(
        "SELECT count(*) FROM pg_stat_replication WHERE coalesce(application_name, '') NOT LIKE %s", [f"{APPLICATION}%"]
    ).fetchone()
    stale = tuple(name for name, kind, active in others if kind == "logical" and not active)
    return Usage(slots=len(others), senders=int(senders[0]) if senders else 0, stale=stale, ours=len(rows) - len(others))


def instructions(changes: t.Sequence[SettingChange], profile: Profile) -> list[dict[str, t.Any]]:
    """How the owner of a provider's server sets ``changes``: the provider's parameter for each, its value, command, and the restart."""
    said = []
    for change in changes:
        parameter, value = dict(enumerate(profile.cdc_parameters))[0] if change.name == "wal_level" else (change.name, change.desired)
        command = profile.set_parameter(parameter, value)
        said.append(
            {"parameter": parameter, "value": value, "command": command, "restart": profile.restart_command if change.restart else ""}
        )
    return said


def server_files(conn: psycopg.Connection[t.Any]) -> dict[str, str]:
    """``config_file`` and ``hba_file`` of the server; empty where the login may not see them."""
    rows = conn.execute("SELECT name, setting FROM pg_settings WHERE name IN ('config_file', 'hba_file')").fetchall()
    return {"config_file": "", "hba_file": "", **{row[0]: row[1] or "" for row in rows}}


def include_text(changes: t.Sequence[SettingChange], present: t.Mapping[str, Setting]) -> str:
    """Text of the include file: the changes, and what the file sets already (so that a second run writes the same text).

    Where the login may not see which file sets a value, each that some file sets counts as ours: written again it stays as it is.

    :param present: as :func:`read_settings` answers.
    """
    values = {
        s.name: s.file_value or s.value
        for s in present.values()
        if s.source_file.endswith("/" + INCLUDE_FILE) or (s.source == "configuration file" and not s.source_file)
    }
    values.update({c.name: c.desired for c in changes})
    if not values:
        return ""
    lines = ["# Written by pgops.migration for the time of a migration; remove this file and its include line to undo it."]
    lines += [f"{name} = '{_in_unit(values[name], present.get(name))}'" for name in NAMES if name in values]
    return "\n".join(lines) + "\n"


def _in_unit(value: str, setting: Setting | None) -> str:
    """A bare number with its unit, so that the file reads as people write it."""
    unit = setting.unit if setting else ""
    return f"{value}{unit}" if unit and value.isdigit() and value != "0" and unit in _TIME else value


def apply_settings(conn: psycopg.Connection[t.Any], changes: t.Sequence[SettingChange], method: str = "alter_system") -> Applied:
    """Write ``changes`` with ALTER SYSTEM and reload; a restart is never made here.

    :param conn: in autocommit mode, as a superuser (or with ALTER SYSTEM granted on the four parameters and ``pg_reload_conf``).
    :raises MigrationError: PGM1211 where the server refuses.
    """
    if method != "alter_system":
        raise MigrationError(f"Settings cannot be applied by {method!r}; allowed: alter_system.", code="PGM1211")
    todo = [c for c in changes if not c.written]
    before = _file_values(conn, [c.name for c in todo])
    restore = {c.name: before[c.name][1] if c.name in before and before[c.name][0].endswith("auto.conf") else None for c in todo}
    for change in todo:
        _alter_system(conn, f"SET {quote_ident(change.name)} = {quote_literal(change.desired)}")
    if todo:
        conn.execute("SELECT pg_catalog.pg_reload_conf()")
    return Applied(
        changed=tuple(c.name for c in todo),
        restart_required=tuple(c.name for c in changes if c.restart),
        reload_required=tuple(c.name for c in changes if not c.restart),
        restore=restore,
    )


def restore_settings(conn: psycopg.Connection[t.Any], restore: t.Mapping[str, str | None]) -> tuple[str, ...]:
    """Give postgresql.auto.conf its former values back (:attr:`Applied.restore`) and reload; answers with the names.

    :raises MigrationError: PGM1211 where the server refuses, or a name is none of the four.
    """
    for name, value in restore.items():
        if name not in NAMES:
            raise MigrationError(f"{name!r} is no parameter that was set for a migration.", code="PGM1211")
        _alter_system(conn, f"RESET {quote_ident(name)}" if value is None else f"SET {quote_ident(name)} = {quote_literal(value)}")
    if restore:
        conn.execute("SELECT pg_catalog.pg_reload_conf()")
    return tuple(restore)


def _alter_system(conn: psycopg.Connection[t.Any], what: str) -> None:
    try:
        conn.execute(f"ALTER SYSTEM {what}")
    except psycopg.Error as exc:
        state = exc.sqlstate or ""
        raise MigrationError(
            f"Could not run ALTER SYSTEM {what} on {conn.info.host}:{conn.info.port}: {exc.diag.message_primary} (SQLSTATE {state}).",
            code="PGM1211",
            sqlstate=state,
            hint="Run it as a superuser of the source, or let the role prepare_source write the include file.",
        ) from exc
