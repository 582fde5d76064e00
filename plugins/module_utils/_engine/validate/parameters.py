# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Server parameters: what the source sets and the target has otherwise (R40, R41). Nothing is ever changed here."""

from __future__ import annotations

import dataclasses
import typing as t

from ..postgres.profiles import Profile
from ..source.settings import Setting, parse_quantity
from .context import Context
from .registry import SERVER, Issue, check, names, ok, warn

SIZE = frozenset(
    {
        "shared_buffers",
        "work_mem",
        "maintenance_work_mem",
        "autovacuum_work_mem",
        "logical_decoding_work_mem",
        "effective_cache_size",
        "temp_buffers",
        "wal_buffers",
        "max_wal_size",
        "min_wal_size",
        "max_connections",
        "max_worker_processes",
        "max_parallel_workers",
        "max_parallel_workers_per_gather",
        "max_parallel_maintenance_workers",
        "autovacuum_max_workers",
        "effective_io_concurrency",
        "maintenance_io_concurrency",
        "hash_mem_multiplier",
        "max_locks_per_transaction",
        "max_prepared_transactions",
        "max_files_per_process",
        "checkpoint_timeout",
        "io_workers",
        "io_method",
    }
)
"""Parameters that follow the size of a server: to be thought over, not copied."""

OWN = frozenset(
    {
        "listen_addresses",
        "port",
        "unix_socket_directories",
        "unix_socket_group",
        "unix_socket_permissions",
        "data_directory",
        "config_file",
        "hba_file",
        "ident_file",
        "external_pid_file",
        "cluster_name",
        "bonjour_name",
        "ssl",
        "ssl_ca_file",
        "ssl_cert_file",
        "ssl_key_file",
        "ssl_crl_file",
        "ssl_crl_dir",
        "ssl_dh_params_file",
        "archive_mode",
        "archive_command",
        "archive_library",
        "archive_timeout",
        "archive_cleanup_command",
        "restore_command",
        "recovery_end_command",
        "primary_conninfo",
        "primary_slot_name",
        "promote_trigger_file",
        "hot_standby",
        "hot_standby_feedback",
        "synchronous_standby_names",
        "synchronized_standby_slots",
        "recovery_target_timeline",
        "log_directory",
        "log_filename",
        "log_file_mode",
        "log_destination",
        "logging_collector",
        "log_line_prefix",
        "syslog_ident",
        "syslog_facility",
        "event_source",
        "wal_level",
        "max_replication_slots",
        "max_wal_senders",
        "wal_sender_timeout",
        "wal_keep_size",
        "max_slot_wal_keep_size",
        "output_plugin_libraries",
        "dynamic_shared_memory_type",
        "shared_memory_type",
        "huge_pages",
        "application_name",
        "client_encoding",
        "krb_server_keyfile",
        "transaction_isolation",
        "transaction_read_only",
        "transaction_deferrable",
        "in_hot_standby",
        "is_superuser",
        "session_authorization",
        "role",
        "shared_preload_libraries",
        "stats_temp_directory",
        "data_directory_mode",
        "server_encoding",
        "lc_collate",
        "lc_ctype",
        "fsync",
    }
)
"""Parameters that belong to one server, to its place, or to this migration."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """One parameter that the source sets and the target has otherwise. ``kind`` is ``copy``, ``size`` (think it over), ``read_only``
    (the provider's) or ``unknown`` (the target has no such); ``restart`` says what setting it needs there."""

    name: str
    source: str
    target: str
    unit: str
    kind: str
    restart: bool
    settable: bool
    command: str

    def to_dict(self) -> dict[str, t.Any]:
        """The difference as plain data."""
        return dataclasses.asdict(self)


def compare(source: t.Mapping[str, Setting], target: t.Mapping[str, Setting], profile: Profile) -> list[Difference]:
    """What the source has changed from PostgreSQL's default and the target does not have so.

    :param source: all of ``pg_settings`` there; ``Setting.source`` is ``default`` where nobody changed it.
    """
    found = []
    for name, mine in sorted(source.items()):
        if name in OWN or mine.context == "internal" or mine.source == "default" or mine.source_file == "" and "." in name:
            continue
        theirs = target.get(name)
        if theirs is not None and _equal(mine, theirs):
            continue
        kind = "copy"
        if theirs is None:
            kind = "unknown"
        elif theirs.context == "internal" or name in profile.read_only_parameters:
            kind = "read_only"
        elif name in SIZE:
            kind = "size"
        settable = kind in ("copy", "size")
        value = mine.value + (mine.unit if mine.unit in ("ms", "s", "min", "kB", "MB") and mine.value not in ("0", "-1") else "")
        found.append(
            Difference(
                name,
                mine.value,
                theirs.value if theirs else "",
                mine.unit,
                kind,
                bool(theirs and theirs.context == "postmaster"),
                settable,
                profile.set_parameter(name, value if not profile.managed else mine.value) if settable else "",
            )
        )
    return found


def _equal(one: Setting, other: Setting) -> bool:
    if one.value == other.value and one.unit == other.unit:
        return True
    try:
        return parse_quantity(one.value + one.unit.lstrip("0123456789"), other.unit) == parse_quantity(other.value, other.unit)
    except ValueError:
        return False


@check(
    "PGM2510",
    "server parameters",
    who=SERVER,
    side="target",
    needs=("source", "target"),
    worst="Warning",
    remedy="set them on the target where they are wanted",
)
def differences(ctx: Context) -> t.Iterator[Issue]:
    """Parameters that the source sets and the target has otherwise; as data for the provider's command line as well (R40, R41)."""
    found = compare(ctx.settings("source"), ctx.settings("target"), ctx.profile("target"))
    if not found:
        yield ok("no difference", data=[])
        return
    kinds = {
        "copy": "to copy",
        "size": "to fit to the target's size",
        "read_only": "kept by the provider",
        "unknown": "unknown to the target",
    }
    parts = []
    for kind, words in kinds.items():
        some = [d for d in found if d.kind == kind]
        if some:
            parts.append(f"{len(some)} {words}: {names(f'{d.name} = {d.source}{_unit(d)} (target {d.target})' for d in some)}")
    first = next((d for d in found if d.kind == "copy"), next((d for d in found if d.settable), None))
    restart = [d.name for d in found if d.restart and d.settable]
    fix = f"Where wanted, as {ctx.profile('target').who} of the target: {first.command}; ..." if first else ""
    fix += f" Restart needed for {names(restart)}." if restart else " No restart."
    yield warn("; ".join(parts), fix, object=found[0].name, data=[d.to_dict() for d in found], restart=bool(restart))


def _unit(difference: Difference) -> str:
    return f" {difference.unit}" if difference.unit else ""
