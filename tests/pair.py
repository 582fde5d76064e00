# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A source and a target with the roles of a migration, and the inventory's dict ``pg_migration`` for them.

The rights are those of real life: nobody who migrates is a superuser.

* source: ``app`` owns the databases, ``migrator`` (LOGIN REPLICATION) is a member of it, reads all data and may end sessions;
* target: ``admin`` (LOGIN CREATEDB CREATEROLE) and, from 15 on, the right to set ``session_replication_role``.
"""

from __future__ import annotations

import dataclasses
import secrets
import typing as t

import servers as lab

OWNER = "app"


@dataclasses.dataclass(frozen=True)
class Login:
    """A role and its password."""

    name: str
    password: str


def make_source(name: str = "source", **options: t.Any) -> lab.Server:
    """A server with logical decoding and the roles ``app`` and ``migrator``; see :func:`migrator_of` for the password."""
    settings = {**lab.LOGICAL, **(options.pop("settings", None) or {})}
    server = lab.start_server(name, settings=settings, **options)
    password = secrets.token_urlsafe(9)
    server.create_role(OWNER, password)
    server.create_role("migrator", password, "REPLICATION")
    granted = [OWNER, "pg_signal_backend", "pg_read_all_settings"] + (["pg_read_all_data"] if server.major >= 14 else [])
    server.execute(f"GRANT {', '.join(granted)} TO migrator")
    PASSWORDS[server.port] = password
    return server


def make_target(name: str = "target", **options: t.Any) -> lab.Server:
    """A plain server with the role ``admin``, which is no superuser."""
    server = lab.start_server(name, **options)
    password = secrets.token_urlsafe(9)
    server.create_role("admin", password, "CREATEDB CREATEROLE")
    if server.major >= 15:
        server.execute("GRANT SET ON PARAMETER session_replication_role TO admin")
    PASSWORDS[server.port] = password
    return server


def make_source_of_both_ways() -> lab.Server:
    """A source that may also be a target, for a way back leads to it."""
    server = make_source()
    server.execute("GRANT SET ON PARAMETER session_replication_role TO migrator")
    return server


def make_target_of_both_ways() -> lab.Server:
    """A target that may also be a source."""
    server = make_target(settings=lab.LOGICAL)
    server.execute("ALTER ROLE admin REPLICATION; GRANT pg_signal_backend TO admin")
    return server


def make_azure_target(name: str = "azure", *, replica_role: bool = True, extensions: str = "", **options: t.Any) -> lab.Server:
    """A target that behaves like Azure's flexible server: ``admin`` is no superuser and is in ``azure_pg_admin``, which reads settings and
    ends sessions; extensions have to be in ``azure.extensions``; ``replica_role``: may it set ``session_replication_role``?"""
    settings = {"azure.extensions": extensions, **(options.pop("settings", None) or {})}
    server = lab.start_server(name, settings=settings, **options)
    password = secrets.token_urlsafe(9)
    server.create_role("azure_pg_admin", "", "CREATEDB CREATEROLE")
    server.create_role("admin", password, "CREATEDB CREATEROLE")
    server.execute("GRANT pg_read_all_settings, pg_read_all_stats, pg_signal_backend TO azure_pg_admin; GRANT azure_pg_admin TO admin")
    if replica_role and server.major >= 15:
        server.execute("GRANT SET ON PARAMETER session_replication_role TO admin")
    PASSWORDS[server.port] = password
    return server


PASSWORDS: dict[int, str] = {}
"""Port of a server to the password of its migration role."""


def describe(origin: lab.Server, destination: lab.Server, name: str, databases: t.Sequence[str], /, **overrides: t.Any) -> dict[str, t.Any]:
    """The dict ``pg_migration`` of an inventory for these servers."""
    ends: dict[str, dict[str, t.Any]] = {
        "source": {"type": "on_premises", "user": "migrator", **_address(origin), **overrides.pop("source", {})},
        "target": {"type": "self_managed", "user": "admin", **_address(destination), **overrides.pop("target", {})},
    }
    defaults: dict[str, t.Any] = {"mode": "online", "copy": {"bindir": str(max(origin, destination, key=lambda s: s.major).bindir)}}
    return {"name": name, "databases": list(databases), **defaults, **ends, **overrides}


def _address(server: lab.Server) -> dict[str, t.Any]:
    return {"host": server.host, "port": server.port, "password": PASSWORDS[server.port], "sslmode": "disable"}


def make_standby(primary: lab.Server) -> lab.Server:
    """A hot standby that follows ``primary``."""
    place = lab.run_folder() / f"standby-{secrets.token_hex(3)}"
    place.mkdir()
    lab.hand_over(place)
    standby = lab.Server("standby", place, primary.bindir, dict(primary.settings), superuser_password=primary.superuser_password)
    primary.run("pg_basebackup", "-D", standby.data, "-R", "-c", "fast", "-d", primary.dsn())
    standby.start()
    return standby
