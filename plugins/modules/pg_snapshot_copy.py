#!/usr/bin/python
# Copyright (c) 2026, the pgops.migration authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_snapshot_copy
short_description: Start or resume a migration of PostgreSQL databases and watch its base copy
version_added: 1.0.0
author:
  - The pgops.migration authors (@pgops)
description:
  - Ensures that a migration exists and that its service runs on the migration runtime host.
  - The service copies schema, rows, indexes and constraints under one exported snapshot, and with O(mode=online) streams the changes since.
    It outlives the task, the SSH connection and the play.
  - The module watches for at most O(wait_timeout) seconds and returns. Called again, it goes on watching; what was broken off is resumed.
options:
  wait_for:
    description:
      - What the module watches for. It sets RV(reached).
      - V(validation) is reached when the validation has an outcome, V(copy) when the base copy is complete.
    type: str
    choices: [validation, copy]
    default: copy
  wait_timeout:
    description:
      - Most seconds to watch. With V(0) the module returns as soon as the service runs.
    type: int
    default: 60
extends_documentation_fragment:
  - pgops.migration._attributes
  - pgops.migration._attributes.action
  - pgops.migration._attributes.actiongroup
  - pgops.migration._migration
  - pgops.migration._endpoints.source
  - pgops.migration._endpoints.target
  - pgops.migration._migration.host
seealso:
  - module: pgops.migration.pg_cdc_stream
  - module: pgops.migration.pg_cutover
  - module: pgops.migration.pg_migration_info
"""

EXAMPLES = r"""
- name: Start the migration and return at once
  pgops.migration.pg_snapshot_copy:
    name: shop-2026
    mode: online
    source:
      host: db1.shop.internal
      user: migrator
      password: "{{ vault_source_password }}"
    target:
      host: shop.postgres.database.azure.com
      user: shopadmin
      password: "{{ vault_target_password }}"
      sslmode: verify-full
    databases: [shop, billing]
    wait_timeout: 0

- name: Show a line of progress a minute until everything is copied
  pgops.migration.pg_snapshot_copy:
    name: shop-2026
    mode: online
    source: "{{ pg_migration.source }}"
    target: "{{ pg_migration.target }}"
    databases: "{{ pg_migration.databases }}"
  register: copy
  loop: "{{ range(1440) }}"
  loop_control:
    label: "{{ copy.summary | default('waiting') }}"
    break_when:
      - copy is failed or copy.reached
"""

RETURN = r"""
action:
  description: What had to be done, V(create), V(resume) or V(none).
  returned: success
  type: str
  sample: create
databases_set:
  description: Which set of databases this is, with RV(databases_set.number), RV(databases_set.of) and all RV(databases_set.databases).
  returned: when more than eight databases are migrated, in sets of eight
  type: dict
  contains:
    name:
      description: Name of the whole migration.
      type: str
    number:
      description: Number of this set, from 1.
      type: int
    of:
      description: How many sets there are.
      type: int
    databases:
      description: The databases of all sets.
      type: list
      elements: str
  sample: {name: estate, number: 2, of: 3}
reached:
  description:
    - Whether what O(wait_for) says has come. Of several sets of databases that are migrated offline it speaks of the last one; each call
      goes on with the next set when one has succeeded.
  returned: success
  type: bool
migration:
  description: Name of the migration.
  returned: always
  type: str
  sample: shop-2026
key:
  description: What the migration is called on the runtime host, its name and six digits of its target.
  returned: when the migration exists
  type: str
  sample: shop-2026-1f0c7a
state:
  description: State of the migration.
  returned: when the migration exists
  type: str
  sample: InProgress
substate:
  description: What it does there.
  returned: when the migration exists
  type: str
  sample: MigratingData
summary:
  description: One line that tells how far it is, made for the label of a loop.
  returned: success
  type: str
  sample: MigratingData  shop  37 of 131 chunks  151.0 GB of 390.0 GB  212.0 MB/s
status:
  description:
    - Everything that is known about the migration, with the progress of each database.
    - See RV(pgops.migration.pg_migration_info#module:details) for what it holds.
  returned: when the migration exists
  type: dict
copied:
  description:
    - What was copied, a dictionary by the name of the database; the same each time that the module is run again.
    - Databases whose copy was complete before this version of the collection are not in it.
  returned: when O(wait_for=copy) is reached
  type: dict
  contains:
    count:
      description: How many tables there are.
      type: int
    rows:
      description: Rows of all tables.
      type: int
    bytes:
      description: Bytes of all tables, as COPY sent them.
      type: int
    tables:
      description: The 100 largest tables, the largest first.
      type: list
      elements: dict
      contains:
        table:
          description: Schema and name.
          type: str
        rows:
          description: Rows copied.
          type: int
        bytes:
          description: Bytes that COPY sent.
          type: int
        seconds:
          description: Seconds of work of all relays together; none where the service was killed before it could note them.
          type: float
        rate:
          description: Bytes for each of these seconds; none where they are not known or there are none.
          type: int
        format:
          description: Format of COPY, V(binary) or V(text).
          type: str
        chunks:
          description: In how many pieces it was copied.
          type: int
    file:
      description: JSON file on the migration runtime host that lists all tables in the same form.
      type: str
  sample:
    shop:
      count: 2
      rows: 1200000
      bytes: 96000000
      file: /var/lib/pg_migration/migrations/shop-2026-1f0c7a/work/shop/copied.json
      tables:
        - {table: public.item, rows: 1000000, bytes: 90000000, seconds: 1.5, rate: 60000000, format: binary, chunks: 4}
        - {table: public.customer, rows: 200000, bytes: 6000000, seconds: 0.2, rate: 30000000, format: binary, chunks: 1}
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

import typing as t

from ..module_utils._ansible.module import MigrationModule
from ..module_utils._ansible.options import migration_options, wait_options
from ..module_utils._ansible.watch import Status, copied, describe, fail_if_failed, validated, watch


def over(status: Status) -> bool:
    """Is a set of databases copied, and nothing left to do before the next one but a cutover?"""
    return copied(status) and status["substate"] != "CompletingMigration"


def main() -> t.NoReturn:
    """Entry point."""
    options = migration_options().merge(wait_options(60))
    module = MigrationModule(options.update(wait_for={"type": "str", "choices": ["validation", "copy"], "default": "copy"}))
    with module.reporting() as result:
        manager = module.manager()
        spec = module.spec()
        plan = manager.plan(spec)
        result.plan(plan.action != "none", plan.before, plan.after)
        result.add(action=plan.action, reached=False, summary=f"would {plan.action}")
        if plan.set:
            result.add(databases_set=plan.set)
        waits_for_validation = module.params["wait_for"] == "validation"
        followed = plan.more and not waits_for_validation
        ended = validated if waits_for_validation else over if followed else copied

        def tell(status: Status) -> None:
            describe(module, status, reached=ended(status) and not (followed and status["state"] == "Succeeded" and not module.check_mode))
            if ended(status) and not waits_for_validation:
                result.add(copied=manager.copied_tables(status))

        if module.check_mode:
            if plan.status:
                tell(plan.status)
            module.exit()
        started = manager.start(spec)
        status = watch(manager, started["key"], ended, module.params["wait_timeout"])
        tell(status)
        if not (waits_for_validation and status["state"] == "ValidationFailed"):
            fail_if_failed(module, status)
    module.exit()


if __name__ == "__main__":
    main()
