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
  - With O(login) it makes the migration's own login with the least rights.
  - Three of the parameters need a restart of the server, which this module never makes. The role
    P(pgops.migration.pg_migration_source#role)
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
      - With V(absent), every parameter and right that the module has set is given back as it was.
    type: str
    choices: [present, absent]
    default: present
  login:
    description:
      - A login for the migration, made on the source with the least rights that it needs for O(databases); O(source.user) is then an
        administrator. Its password is set when it is made, and left alone afterwards.
      - It may stream changes, read every table, end sessions at the cutover, and is a member of the databases' owners. It is no superuser.
    type: dict
    suboptions:
      user:
        description:
          - Name of the login.
        type: str
        required: true
      password:
        description:
          - Its password. What is sent is a verifier.
        type: str
        required: true
  databases:
    description:
      - Databases that O(login) is going to migrate.
    type: list
    elements: str
    default: []
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
statements:
  description: What has to be done for O(login), or was, with passwords masked.
  returned: success
  type: list
  elements: str
instructions:
  description: How the owner of the server sets each of RV(parameters) by hand, on a provider's server with the provider's means.
  returned: success
  type: list
  elements: dict
  contains:
    parameter:
      description: The provider's name of the parameter.
      type: str
      sample: rds.logical_replication
    value:
      description: Its value.
      type: str
      sample: "1"
    command:
      description: The provider's command.
      type: str
    restart:
      description: The command that restarts the server, empty if none is needed.
      type: str
include_text:
  description: The file to include in C(postgresql.conf), for O(method=report). It is empty when every parameter is as it must be.
  returned: success
  type: str
files:
  description: C(config_file) and C(hba_file) that the server uses, empty where the login may not see them.
  returned: success
  type: dict
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
  sample: PGM1101
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
from ..module_utils._engine.postgres.profiles import profile_for
from ..module_utils._engine.postgres.session import connect, server_errors
from ..module_utils._engine.source.login import Step, apply_login, plan_login, undo_login
from ..module_utils._engine.source.settings import (
    RESTART,
    SettingChange,
    apply_settings,
    include_text,
    instructions,
    plan_settings,
    read_settings,
    restore_settings,
    server_files,
)
from ..module_utils._engine.spec import Endpoint


def cdc_options() -> ArgumentSpec:
    """What this module takes besides the source."""
    return ArgumentSpec(
        {
            "database_count": {"type": "int", "default": 8},
            "margin": {"type": "int", "default": 0},
            "wal_sender_timeout": {"type": "str"},
            "method": {"type": "str", "choices": ["alter_system", "report"], "default": "alter_system"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "login": {
                "type": "dict",
                "options": {"user": {"type": "str", "required": True}, "password": {"type": "str", "required": True, "no_log": True}},
            },
            "databases": {"type": "list", "elements": "str", "default": []},
            "home": {"type": "path", "default": "/var/lib/pg_migration"},
        }
    )


class Memory:
    """What the source was before us, kept on the host that runs the module; it holds no secret."""

    def __init__(self, home: Path, host: str, port: int) -> None:
        self._path = home / "sources" / (re.sub(r"[^A-Za-z0-9.-]", "_", f"{host}_{port}") + ".json")
        kept = read_json(self._path) or {}
        self.parameters: dict[str, str | None] = kept.get("parameters", {})
        self.undo: list[tuple[str, str]] = [(str(pair[0]), str(pair[1])) for pair in kept.get("undo", [])]

    def keep_parameters(self, restore: t.Mapping[str, str | None]) -> None:
        """Remember former values; the first ones count."""
        self.parameters = {**restore, **self.parameters}
        self._write()

    def keep_step(self, step: Step) -> None:
        """Remember how a step is taken back."""
        self.undo.append((step.database, step.undo))
        self._write()

    def drop_step(self, dummy: Step) -> None:
        """The last of the steps was taken back."""
        self.undo.pop()
        self._write()

    def _write(self) -> None:
        if self.parameters or self.undo:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_json(self._path, {"parameters": self.parameters, "undo": self.undo})

    def forget(self) -> None:
        """Everything was given back."""
        self._path.unlink(missing_ok=True)


def present(module: MigrationModule, endpoint: Endpoint, conn: t.Any, memory: Memory) -> None:
    """Plan parameters and login, tell them, and apply them unless in check mode."""
    params, result = module.params, module.result
    changes = plan_settings(conn, params["database_count"], params["wal_sender_timeout"], params["margin"])
    profile, login = profile_for(endpoint.type), params["login"]
    steps = plan_login(endpoint, login["user"], login["password"], params["databases"]) if login else []
    result.add(
        parameters=[change.to_dict() for change in changes],
        restart_required=any(change.restart for change in changes),
        reload_required=any(not change.restart for change in changes),
        statements=[step.statement for step in steps],
        instructions=instructions(changes, profile),
        include_text=include_text(changes, read_settings(conn)),
        files=server_files(conn),
    )
    todo: list[SettingChange] = [change for change in changes if not change.written] if params["method"] != "report" else []
    before: dict[str, t.Any] = {change.name: change.current + change.unit for change in todo}
    after: dict[str, t.Any] = {change.name: change.desired + change.unit for change in todo}
    if steps:
        after["statements"] = [step.statement for step in steps]
    result.plan(bool(after), before, after)
    if not module.check_mode:
        apply_login(endpoint, steps, memory.keep_step)
        if todo:
            memory.keep_parameters(apply_settings(conn, changes).restore)


def absent(module: MigrationModule, endpoint: Endpoint, conn: t.Any, memory: Memory) -> None:
    """Give back what was set."""
    former, undo = memory.parameters, [statement for dummy, statement in reversed(memory.undo) if statement]
    changed = bool(former or undo)
    before = {"set": sorted(former), "statements": []}
    module.result.plan(changed, before, {"set": [], "statements": undo} if changed else before)
    module.result.add(restart_required=any(name in RESTART for name in former), statements=undo)
    if changed and not module.check_mode:
        undo_login(endpoint, memory.undo, memory.drop_step)
        restore_settings(conn, former)
        memory.forget()


def main() -> t.NoReturn:
    """Entry point."""
    module = MigrationModule(endpoint_options("source").merge(cdc_options()))
    with module.reporting() as result:
        result.add(parameters=[], restart_required=False, reload_required=False, statements=[], instructions=[], include_text="", files={})
        endpoint = module.endpoint("source")
        memory = Memory(Path(module.params["home"]), endpoint.host, endpoint.port)
        with contextlib.closing(connect(endpoint, purpose="configure")) as conn, server_errors("configure change data capture", endpoint):
            result.add(server_version=conn.info.server_version)
            (absent if module.params["state"] == "absent" else present)(module, endpoint, conn, memory)
    module.exit()


if __name__ == "__main__":
    main()
