#!/usr/bin/python
# Copyright (c) 2026, the pgops.migration authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_migration_info
short_description: List the migrations of a runtime host, or show one
version_added: 1.0.0
author:
  - The pgops.migration authors (@pgops)
description:
  - Lists the migrations that a migration runtime host knows, newest first, and shows the details of one.
  - It only reads files on the runtime host, and works whether or not a service runs.
options:
  name:
    description:
      - Name or key of the migration to show the details of.
    type: str
  target_host:
    description:
      - Only migrations to this target.
    type: str
  target_port:
    description:
      - TCP port of O(target_host).
    type: int
    default: 5432
extends_documentation_fragment:
  - pgops.migration._attributes
  - pgops.migration._attributes.info
  - pgops.migration._migration.host
seealso:
  - module: pgops.migration.pg_snapshot_copy
"""

EXAMPLES = r"""
- name: List all migrations
  pgops.migration.pg_migration_info:
  register: migrations

- name: Show the list
  ansible.builtin.debug:
    var: migrations.grid

- name: Show one of them
  pgops.migration.pg_migration_info:
    name: shop-2026
  register: shop

- name: Insist that it waits for its cutover
  ansible.builtin.assert:
    that: shop.details.substate == 'WaitingForCutoverTrigger'
"""

RETURN = r"""
migrations:
  description: The list, newest first.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the migration.
      type: str
    status:
      description: Its state, in the words of the list.
      type: str
    substate:
      description: What it does there.
      type: str
    migration_mode:
      description: Online or offline.
      type: str
    migration_type:
      description: What it was asked to do.
      type: str
    source_server:
      description: Name or address of the source.
      type: str
    source_server_type:
      description: What kind of server that is.
      type: str
    databases:
      description: Names of the databases.
      type: list
      elements: str
    duration:
      description: Hours, minutes and seconds, running on while the migration is active.
      type: str
    start_time:
      description: ISO 8601, UTC.
      type: str
grid:
  description: The list as lines of text.
  returned: success
  type: list
  elements: str
details:
  description: Everything about one migration; none if there is no such migration.
  returned: when O(name) is given
  type: dict
  contains:
    key:
      description: What the migration is called on the runtime host.
      type: str
    name:
      description: Its name.
      type: str
    state:
      description: InProgress, WaitingForUserAction, Canceled, Failed, ValidationFailed, Succeeded or CleaningUp.
      type: str
    substate:
      description:
        - PerformingPreRequisiteSteps, ValidationInProgress, MigratingData, WaitingForCutoverTrigger, CompletingMigration or Completed.
      type: str
    validation:
      description: The validation's report, with all its findings.
      type: dict
    migration:
      description: The migration itself, with the progress of each database, plugin, cutover and verification.
      type: dict
    events:
      description: What happened, with times.
      type: list
      elements: dict
    service:
      description: Whether the service runs, its process id and who supervises it.
      type: dict
    files:
      description: Where log and report lie on the runtime host.
      type: dict
    summary:
      description: One line that tells how far it is.
      type: str
lines:
  description: The findings of the validation as a table of lines.
  returned: when O(name) is given and there is such a migration
  type: list
  elements: str
cutover_lines:
  description: The story of the cutover as lines of text; empty before it.
  returned: when O(name) is given and there is such a migration
  type: list
  elements: str
"""

import typing as t

from ..module_utils._ansible.argspec import ArgumentSpec
from ..module_utils._ansible.module import MigrationModule
from ..module_utils._ansible.options import host_options
from ..module_utils._ansible.report import cutover_lines, details, finding_lines, grid, row


def main() -> t.NoReturn:
    """Entry point."""
    options = ArgumentSpec({"name": {"type": "str"}, "target_host": {"type": "str"}, "target_port": {"type": "int", "default": 5432}})
    module = MigrationModule(options.merge(host_options()))
    with module.reporting() as result:
        host = module.params["target_host"]
        target = f"{host.lower()}:{module.params['target_port']}" if host else None
        manager = module.manager()
        statuses = manager.list(target)
        result.add(migrations=[row(status) for status in statuses], grid=grid(statuses))
        if module.params["name"]:
            status = manager.status(module.params["name"], target)
            result.add(details=details(status) if status else None)
            if status:
                result.add(lines=finding_lines(status.get("validation")), cutover_lines=cutover_lines(status))
    module.exit()


if __name__ == "__main__":
    main()
