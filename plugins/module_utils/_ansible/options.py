# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The groups of options that the modules share. Each mirrors a part of :mod:`.._engine.spec`, whose defaults are the only ones."""

from __future__ import annotations

import typing as t

from .._engine.spec import (
    ACKNOWLEDGE,
    COMPRESSION,
    FENCES,
    FOREIGN_POLICIES,
    IDENTITY_POLICIES,
    MODES,
    ON_DDL,
    OPTIONS,
    PLUGINS,
    REGION_POLICIES,
    ROLLBACKS,
    SOURCE_TYPES,
    SSLMODES,
    SUPERUSER_POLICIES,
    TARGET_SCHEMAS,
    TARGET_TYPES,
    UNLOGGED_POLICIES,
    ChangeOptions,
    ChecksOptions,
    CopyOptions,
    CutoverOptions,
    Endpoint,
    GlobalsOptions,
    LimitsOptions,
)
from .argspec import ArgumentSpec

_WORDS = ("databases", "release", "fence_command", "unfence_command", "rollback_release", "pgbouncer", "pgbouncer_databases")
SUPERVISORS = ("auto", "systemd", "process")


def host_options() -> ArgumentSpec:
    """Where the migrations of this runtime host are kept and who runs their services."""
    return ArgumentSpec(
        {
            "home": {"type": "path", "default": "/var/lib/pg_migration"},
            "supervisor": {"type": "str", "choices": list(SUPERVISORS), "default": "auto"},
        }
    )


def endpoint_options(side: str, *, required: bool = True) -> ArgumentSpec:
    """One server and the login to it; ``side`` is ``source`` or ``target``, the suboptions are the same."""
    types = SOURCE_TYPES if side == "source" else TARGET_TYPES
    default_type = "on_premises" if side == "source" else "azure_flexible"
    suboptions = {
        "type": {"type": "str", "choices": list(types), "default": default_type},
        # no defaults where a service may say it, because what the task gives counts more than that
        "host": {"type": "str"},
        "port": {"type": "int"},
        "user": {"type": "str"},
        "password": {"type": "str", "no_log": True},
        "passfile": {"type": "path"},
        "service": {"type": "str"},
        "service_file": {"type": "path"},
        "dbname": {"type": "str"},
        "sslmode": {"type": "str", "choices": list(SSLMODES)},
        "sslrootcert": {"type": "path"},
        "sslcert": {"type": "path"},
        "sslkey": {"type": "path"},
        "connect_timeout": {"type": "int"},
        "storage_gb": {"type": "int", "default": Endpoint.storage_gb},
        "vcores": {"type": "int", "default": Endpoint.vcores},
        "memory_gb": {"type": "int", "default": Endpoint.memory_gb},
        "region": {"type": "str"},
        "subscription": {"type": "str"},
        "resource_group": {"type": "str"},
    }
    return ArgumentSpec({side: {"type": "dict", "required": required, "options": suboptions}})


def migration_options() -> ArgumentSpec:
    """A whole migration, as the inventory's ``pg_migration`` describes it."""
    head = ArgumentSpec(
        {
            "name": {"type": "str", "required": True},
            "option": {"type": "str", "choices": list(OPTIONS), "default": "validate_and_migrate"},
            "mode": {"type": "str", "choices": list(MODES), "default": "offline"},
            "rollback": {"type": "str", "choices": list(ROLLBACKS), "default": "none"},
            "databases": {"type": "list", "elements": "str", "required": True},
        }
    )
    return head.merge(endpoint_options("source")).merge(endpoint_options("target")).merge(section_options()).merge(host_options())


def section_options() -> ArgumentSpec:
    """How it is done: base copy, changes, cutover, globals, monitor, checks, limits."""
    return ArgumentSpec(
        {
            "copy": _section(
                jobs={"type": "int", "default": CopyOptions.jobs},
                processes={"type": "int", "default": CopyOptions.processes},
                index_jobs={"type": "int", "default": CopyOptions.index_jobs},
                chunk_bytes={"type": "int", "default": CopyOptions.chunk_bytes},
                format={"type": "str", "choices": ["auto", "binary", "text"], "default": CopyOptions.format},
                bindir={"type": "path"},
                schemas={"type": "list", "elements": "str", "default": []},
                tables={"type": "list", "elements": "str", "default": []},
                exclude={"type": "list", "elements": "str", "default": []},
                unlogged_tables={"type": "str", "choices": list(UNLOGGED_POLICIES), "default": CopyOptions.unlogged_tables},
                foreign_tables={"type": "str", "choices": list(FOREIGN_POLICIES), "default": CopyOptions.foreign_tables},
                target_schema={"type": "str", "choices": list(TARGET_SCHEMAS), "default": CopyOptions.target_schema},
                throttle={"type": "int", "default": CopyOptions.throttle},
                max_connections={"type": "int", "default": CopyOptions.max_connections},
                max_standby_lag={"type": "int", "default": CopyOptions.max_standby_lag},
                probe_query={"type": "str"},
                overwrite={"type": "bool", "default": CopyOptions.overwrite},
                probe_limit={"type": "int", "default": CopyOptions.probe_limit},
            ),
            "changes": _section(
                plugin={"type": "str", "choices": list(PLUGINS), "default": ChangeOptions.plugin},
                acknowledge={"type": "str", "choices": list(ACKNOWLEDGE), "default": ChangeOptions.acknowledge},
                replica_identity={"type": "str", "choices": list(IDENTITY_POLICIES), "default": ChangeOptions.replica_identity},
                spool_max_bytes={"type": "int", "default": ChangeOptions.spool_max_bytes},
                spool_compression={"type": "str", "choices": list(COMPRESSION), "default": ChangeOptions.spool_compression},
                segment_bytes={"type": "int", "default": ChangeOptions.segment_bytes},
                batch_rows={"type": "int", "default": ChangeOptions.batch_rows},
                batch_bytes={"type": "int", "default": ChangeOptions.batch_bytes},
                lanes={"type": "int", "default": ChangeOptions.lanes},
                heartbeat={"type": "float", "default": ChangeOptions.heartbeat},
                on_ddl={"type": "str", "choices": list(ON_DDL), "default": ChangeOptions.on_ddl},
                failover_slot={"type": "bool", "default": ChangeOptions.failover_slot},
                max_retained_wal_bytes={"type": "int", "default": ChangeOptions.max_retained_wal_bytes},
            ),
            "cutover": _section(
                max_latency={"type": "float", "default": CutoverOptions.max_latency},
                max_pause={"type": "float", "default": CutoverOptions.max_pause},
                max_transaction_age={"type": "float", "default": CutoverOptions.max_transaction_age},
                fence={"type": "str", "choices": list(FENCES), "default": CutoverOptions.fence},
                force={"type": "bool", "default": CutoverOptions.force},
                **{key: {"type": "list", "elements": "str", "default": []} for key in _WORDS},
                release_file={"type": "path"},
                release_template={"type": "str"},
                verify={"type": "bool", "default": CutoverOptions.verify},
                verify_before_release={"type": "bool", "default": CutoverOptions.verify_before_release},
            ),
            "globals": _section(
                enabled={"type": "bool", "default": GlobalsOptions.enabled},
                superuser_policy={"type": "str", "choices": list(SUPERUSER_POLICIES), "default": GlobalsOptions.superuser_policy},
                exclude={"type": "list", "elements": "str", "default": []},
                passwords={"type": "bool", "default": GlobalsOptions.passwords, "no_log": False},
                tablespaces={"type": "dict", "default": {}},
                apply_parameters={"type": "bool", "default": GlobalsOptions.apply_parameters},
            ),
            "monitor": _section(prometheus_dir={"type": "path"}),
            "checks": _section(
                runtime_warn={"type": "float", "default": ChecksOptions.runtime_warn},
                runtime_fail={"type": "float", "default": ChecksOptions.runtime_fail},
                region_policy={"type": "str", "choices": list(REGION_POLICIES), "default": ChecksOptions.region_policy},
            ),
            "limits": _section(
                max_prerequisites={"type": "float", "default": LimitsOptions.max_prerequisites},
                max_copy={"type": "float", "default": LimitsOptions.max_copy},
                max_wait={"type": "float", "default": LimitsOptions.max_wait},
            ),
        }
    )


def wait_options(seconds: int) -> ArgumentSpec:
    """How long one call watches."""
    return ArgumentSpec({"wait_timeout": {"type": "int", "default": seconds}})


def _section(**options: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    return {"type": "dict", "apply_defaults": True, "options": options}
