# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The inventory of a lab, as a user would write it: docs/inventory.md."""

from __future__ import annotations

import typing as t

import yaml

from lab import versions
from lab.place import Place


def write(place: Place) -> None:
    """Write ``inventory.yml`` into the lab's folder; it holds passwords, so nobody else may read it."""
    text = "---\n" + yaml.safe_dump(content(place), sort_keys=False, width=130)
    if not place.inventory.exists() or place.inventory.read_text() != text:
        place.inventory.touch(mode=0o600)
        place.inventory.write_text(text)


def content(place: Place) -> dict[str, t.Any]:
    """The inventory as data: the groups of the collection, and ``lab_target`` for who wants to look at the target by ssh."""
    guests = place.worker_addresses
    ends = {host: place.address(host) if place.direct else host for host in ("source", "target")}
    variables: dict[str, t.Any] = {
        "ansible_ssh_common_args": f"-F {place.keys / 'config'}",
        "ansible_control_path_dir": str(place.control_sockets),
        "ansible_python_interpreter": "/usr/bin/python3",
        "pg_migration_source_hba_entries": [
            f"host {what} migrator {guest}/32 scram-sha-256" for guest in guests for what in ("all", "replication")
        ],
        "pg_migration_source_allow_restart": True,
        "pg_migration": {
            "name": "shop-2026",
            "mode": "online",
            "source": {"type": "on_premises", "host": ends["source"], "user": "migrator", "password": place.passwords["migrator"]},
            "target": {"type": "self_managed", "host": ends["target"], "user": "admin", "password": place.passwords["admin"]},
            "databases": ["shop"],
        },
    }
    if place.direct and versions.newest(place) > versions.OWN:
        variables["pg_migration"]["copy"] = {"bindir": str(versions.tools().parent)}
    if place.init == "plain":
        variables["pg_migration_source_restart_command"] = ["pg_ctlcluster", str(place.source), "main", "restart"]
        variables["pg_migration_source_reload_command"] = ["pg_ctlcluster", str(place.source), "main", "reload"]
    runtimes = [] if place.direct else [host for host in place.hosts if host.startswith("runtime")]
    groups = {"pg_migration_source": ["source"], "pg_migration_runtime": runtimes, "lab_target": ["target"]}
    children = {group: {"hosts": dict.fromkeys(hosts)} for group, hosts in groups.items() if hosts}
    return {"all": {"children": children, "vars": variables}}
