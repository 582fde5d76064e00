#!/usr/bin/python
# Copyright (c) 2026, the pgops.migration authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_configure_cdc
short_description: Set the parameters of a PostgreSQL source that change data capture needs
version_added: 1.0.0
author:
  - The pgops.migration authors (@pgops)
description:
  - Computes what C(wal_level), C(max_replication_slots), C(max_wal_senders) and C(wal_sender_timeout) of the source must be for the
    migration, and sets them. A value is never lowered.
  - Three of them need a restart of the server, which this module never makes. The role P(pgops.migration.pg_migration_source#role)
    writes the configuration file instead and can restart.
options:
  database_count:
    description:
      - Number of databases that are going to be streamed at the same time.
    type: int
    default: 8
  margin:
    description:
      - Free replication slots to have besides.
    type: int
    default: 0
  wal_sender_timeout:
    description:
      - What C(wal_sender_timeout) should be at least, with a unit or in milliseconds. V(0) is for ever. It is left alone by default.
    type: str
  method:
    description:
      - V(alter_system) sets the parameters with C(ALTER SYSTEM) and reloads the configuration. It needs a superuser, or the right to do so.
      - V(report) only tells what has to be set. This is what managed servers and configuration files need.
    type: str
    choices: [alter_system, report]
    default: alter_system
  state:
    description:
      - With V(absent), what the module had set is given back as it was. Only for O(method=alter_system).
    type: str
    choices: [present, absent]
    default: present
  home:
    description:
      - Folder on the host that runs the module, where the former values are kept.
    type: path
    default: /var/lib/pg_migration
extends_documentation_fragment:
  - pgops.migration._attributes
  - pgops.migration._attributes.action
  - pgops.migration._endpoints.source
requirements:
  - Python >= 3.10
  - psycopg >= 3.1
seealso:
  - module: pgops.migration.pg_migration_validate
"""

EXAMPLES = r"""
- name: Tell what an RDS parameter group has to say
  pgops.migration.pg_configure_cdc:
    source:
      type: aws_rds
      host: shop.abc.eu-central-1.rds.amazonaws.com
      user: migrator
      password: "{{ vault_source_password }}"
    database_count: 2
    method: report
  register: cdc

- name: Prepare a server of our own
  pgops.migration.pg_configure_cdc:
    source:
      host: db1.shop.internal
      user: postgres
      password: "{{ vault_superuser_password }}"
    database_count: 2
    wal_sender_timeout: 5min
"""

RETURN = r"""
parameters:
  description: The parameters that have to be changed, or were.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the parameter.
      type: str
      sample: max_replication_slots
    current:
      description: What the server uses, counted in RV(parameters[].unit).
      type: str
      sample: "1"
    desired:
      description: What it should be.
      type: str
      sample: "10"
    unit:
      description: The unit as C(pg_settings) counts.
      type: str
    restart:
      description: Whether it takes a restart.
      type: bool
    reason:
      description: Why.
      type: str
    written:
      description: Whether the configuration says so already and only the restart is missing.
      type: bool
    overrides:
      description: What would hide a line in an included file, such as C(postgresql.auto.conf).
      type: str
restart_required:
  description: Whether the server has to be restarted before a migration.
  returned: success
  type: bool
reload_required:
  description: Whether a parameter takes effect by a reload.
  returned: success
  type: bool
server_version:
  description: Version of the source as a number.
  returned: success
  type: int
  sample: 150020
error_code:
  description: Stable code of the error, C(PGM) and four digits.
  returned: failure
  type: str
  sample: PGM1104
hint:
  description: The one thing to do next.
  returned: failure, when there is one
  type: str
  sample: Correct user and password.
"""

import contextlib
import re
import typing as t
from pathlib import Path

from ..module_utils._ansible.argspec import ArgumentSpec
from ..module_utils._ansible.module import MigrationModule
from ..module_utils._ansible.options import endpoint_options
from ..module_utils._engine.migration.paths import read_json, write_json
from ..module_utils._engine.postgres.session import connect, server_errors
from ..module_utils._engine.source.settings import SettingChange, apply_settings, plan_settings, restore_settings


def cdc_options() -> ArgumentSpec:
    """What this module takes besides the source."""
    return ArgumentSpec(
        {
            "database_count": {"type": "int", "default": 8},
            "margin": {"type": "int", "default": 0},
            "wal_sender_timeout": {"type": "str"},
            "method": {"type": "str", "choices": ["alter_system", "report"], "default": "alter_system"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "home": {"type": "path", "default": "/var/lib/pg_migration"},
        }
    )


class Memory:
    """What the parameters were before us, kept on the host that runs the module."""

    def __init__(self, home: Path, host: str, port: int) -> None:
        self._path = home / "sources" / (re.sub(r"[^A-Za-z0-9.-]", "_", f"{host}_{port}") + ".json")

    def read(self) -> dict[str, str | None]:
        """Former values by name."""
        return read_json(self._path) or {}

    def keep(self, restore: t.Mapping[str, str | None]) -> None:
        """Remember former values; the first ones count."""
        if restore:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_json(self._path, {**restore, **self.read()})

    def forget(self) -> None:
        """The values were given back."""
        self._path.unlink(missing_ok=True)


def tell(module: MigrationModule, changes: t.Sequence[SettingChange]) -> None:
    """Return the parameters."""
    module.result.add(
        parameters=[change.to_dict() for change in changes],
        restart_required=any(change.restart for change in changes),
        reload_required=any(not change.restart for change in changes),
    )


def main() -> t.NoReturn:
    """Entry point."""
    module = MigrationModule(endpoint_options("source").merge(cdc_options()))
    params = module.params
    with module.reporting() as result:
        result.add(parameters=[], restart_required=False, reload_required=False)
        endpoint = module.endpoint("source")
        memory = Memory(Path(params["home"]), endpoint.host, endpoint.port)
        with contextlib.closing(connect(endpoint, purpose="configure")) as conn, server_errors("configure change data capture", endpoint):
            result.add(server_version=conn.info.server_version)
            if params["state"] == "absent":
                former = memory.read()
                result.plan(bool(former), {"set": sorted(former)}, {"restored": sorted(former)})
                if former and not module.check_mode:
                    restore_settings(conn, former)
                    memory.forget()
                result.add(restart_required=bool(former))
            else:
                changes = plan_settings(conn, params["database_count"], params["wal_sender_timeout"], params["margin"])
                tell(module, changes)
                todo = [change for change in changes if not change.written]
                before = {change.name: change.current + change.unit for change in todo}
                result.plan(bool(todo) and params["method"] != "report", before, {c.name: c.desired + c.unit for c in todo})
                if result.changed and not module.check_mode:
                    memory.keep(apply_settings(conn, changes).restore)
    module.exit()


if __name__ == "__main__":
    main()
