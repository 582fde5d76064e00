# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""PostgreSQL on source and target: a cluster as Debian makes it, the users that docs/guide.md asks for, and an application's data."""

from __future__ import annotations

from pathlib import Path

from lab.keys import ssh
from lab.place import Place

SETTINGS = {"listen_addresses": "*", "fsync": "off", "max_connections": "60", "password_encryption": "scram-sha-256"}
"""All else is as Debian has it; ``wal_level`` above all, which prepare_source has to raise. No machine loses its power here."""

SOURCE = """
CREATE ROLE app_owner LOGIN PASSWORD :'app';
CREATE ROLE migrator LOGIN REPLICATION PASSWORD :'migrator';
GRANT app_owner, pg_signal_backend TO migrator;
SELECT 'GRANT pg_read_all_data TO migrator' FROM pg_roles WHERE rolname = 'pg_read_all_data' \\gexec
SELECT 'ALTER ROLE migrator SET output_plugin_libraries = pgoutput, test_decoding, wal2json'
    FROM pg_settings WHERE name = 'output_plugin_libraries' \\gexec
"""
"""docs/guide.md, Prerequisites; what the server does not know, it does not get."""

TARGET = """
CREATE ROLE admin LOGIN CREATEDB CREATEROLE PASSWORD :'admin';
SELECT 'GRANT SET ON PARAMETER session_replication_role TO admin' WHERE current_setting('server_version_num')::int >= 150000 \\gexec
"""


def make(place: Place, host: str) -> None:
    """A running cluster ``main`` of the host's major with its users and, on the source, data

    Nothing where the mark of an earlier run is there.
    """
    if ssh(place, host, "test -e /var/lib/postgresql/lab-made", check=False).returncode == 0:
        return
    ssh(place, host, "\n".join(cluster_commands(place, host)))
    text = Path(__file__).with_name("shop.sql").read_text() if host == "source" else ""
    psql(place, host, (SOURCE if host == "source" else TARGET) + text)
    ssh(place, host, "sudo touch /var/lib/postgresql/lab-made")


def cluster_commands(place: Place, host: str) -> list[str]:
    """The shell's commands that make and start the cluster. The target lets the net in; the source is opened by prepare_source."""
    major = place.major(host)
    files = f"/etc/postgresql/{major}/main"
    settings = [f"sudo pg_conftool {major} main set {name} '{value}'" for name, value in SETTINGS.items()]
    guests = place.worker_addresses if host == "target" else []
    entry = [f"echo 'host all all {guest}/32 scram-sha-256' | sudo tee -a {files}/pg_hba.conf" for guest in guests]
    begin = f"systemctl start postgresql@{major}-main" if place.init == "systemd" else f"pg_ctlcluster {major} main start"
    create = f"sudo pg_createcluster {major} main -- --locale=C.UTF-8 --encoding=UTF8 --no-sync"
    return ["set -e", f"sudo pg_dropcluster --stop {major} main 2>/dev/null || true", create, *settings, *entry, f"sudo {begin}"]


def psql(place: Place, host: str, text: str, database: str = "postgres") -> str:
    """Run ``text`` as superuser; ``:'role'`` stands for the password of a role. Returns psql's unaligned output."""
    variables = "".join(f"\\set {role} '{password}'\n" for role, password in place.passwords.items())
    command = f"cd / && sudo -u postgres psql -X -q -A -t -v ON_ERROR_STOP=1 -d {database} -f -"
    return ssh(place, host, command, variables + text).stdout
