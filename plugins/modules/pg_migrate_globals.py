#!/usr/bin/python
# Copyright (c) 2026, the pgops.migration authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_migrate_globals
short_description: Bring roles, memberships and settings from one PostgreSQL server to another
version_added: 1.0.0
author:
  - The pgops.migration authors (@pgops)
description:
  - Compares roles, their attributes, memberships and settings of both servers, and makes the target's like the source's.
  - Nothing that needs a superuser is ever sent to the target. Superusers of the source are left out or demoted, and each is reported.
  - Passwords are carried over as verifiers where the source lets them be read, and are never shown.
  - A migration does the same by itself; this module is for seeing it beforehand, and for doing it alone.
options:
  databases:
    description:
      - Databases whose settings (C(ALTER DATABASE ... SET)), and settings of roles in them, belong to it as well. Names, or V(all),
        patterns (V(shop_*)) and exceptions (V(!shop_test)) as in a migration; every one where none is given.
      - They come where the database is on the target already. Those of others are named in RV(left_out); the migration that makes such a
        database brings them.
    type: list
    elements: str
    default: []
  superuser_policy:
    description:
      - Superusers are left out with V(remove), and become ordinary roles with V(demote).
    type: str
    choices: [remove, demote]
    default: remove
  exclude:
    description:
      - Roles to leave out.
    type: list
    elements: str
    default: []
  carry_passwords:
    description:
      - Bring passwords over as the verifiers that the source stores, where it lets them be read. With V(false), and for roles whose
        verifier cannot be read, RV(left_out) names each role that needs a password on the target.
    type: bool
    default: true
  passwords:
    description:
      - Role to password or verifier, for roles whose verifier the source does not show. What is sent is always a verifier.
    type: dict
    default: {}
  tablespaces:
    description:
      - Tablespace of the source to the tablespace of the target that stands for it in a migration, as C(globals.tablespaces) of the
        inventory. What lies in any other goes to the target's default tablespace, and RV(left_out) names it.
    type: dict
    default: {}
  apply_parameters:
    description:
      - Set the target's server parameters like the source's, by C(ALTER SYSTEM) and a reload, where they depend neither on the server's
        size nor on its place and need no restart. It takes a superuser, or the grants of C(ALTER SYSTEM) (PostgreSQL 15 and later) and
        of C(pg_reload_conf). What is left, and everything on a provider's server, is named with the command that sets it.
      - Nothing is copied by default. C(ALTER SYSTEM RESET) takes one back.
    type: bool
    default: false
  file:
    description:
      - Path on this host of an SQL file to write the source's globals to, as C(pg_dumpall --globals-only) does, and the settings of
        databases besides. It holds verifiers and is readable by its owner alone.
    type: path
extends_documentation_fragment:
  - pgops.migration._attributes
  - pgops.migration._attributes.action
  - pgops.migration._endpoints.source
  - pgops.migration._endpoints.target
requirements:
  - Python >= 3.10
  - psycopg >= 3.1
seealso:
  - module: pgops.migration.pg_snapshot_copy
"""

EXAMPLES = r"""
- name: See what would be done to the roles of the target
  pgops.migration.pg_migrate_globals:
    source: "{{ pg_migration.source }}"
    target: "{{ pg_migration.target }}"
    databases: "{{ pg_migration.databases }}"
  check_mode: true
  diff: true
"""

RETURN = r"""
actions:
  description: What has to be done on the target, or was, in this order.
  returned: success
  type: list
  elements: dict
  contains:
    kind:
      description: What kind of thing it is about.
      type: str
      sample: role
    name:
      description: Its name.
      type: str
      sample: shop_app
    statement:
      description: The statement, with passwords masked.
      type: str
      sample: CREATE ROLE shop_app LOGIN
parameters:
  description: Server parameters that the source sets and the target has otherwise.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Its name.
      type: str
      sample: random_page_cost
    source:
      description: The source's value, in RV(parameters[].unit).
      type: str
      sample: "1.1"
    target:
      description: The target's value.
      type: str
      sample: "4"
    unit:
      description: In what both are counted.
      type: str
      sample: ms
    kind:
      description: V(copy), V(size) (to be fitted to the server), V(read_only) (the provider's) or V(unknown) (to the target).
      type: str
      sample: copy
    restart:
      description: Whether the target has to be restarted for it.
      type: bool
      sample: false
    settable:
      description: Whether it can be set there at all.
      type: bool
      sample: true
    command:
      description: What sets it.
      type: str
      sample: ALTER SYSTEM SET random_page_cost TO '1.1'
left_out:
  description: What is not brought over, with the reason.
  returned: success
  type: list
  elements: str
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
from pathlib import Path

from ..module_utils._ansible.argspec import ArgumentSpec
from ..module_utils._ansible.module import MigrationModule
from ..module_utils._ansible.options import endpoint_options
from ..module_utils._engine.globals.dump import is_written, render_globals, write_globals
from ..module_utils._engine.globals.parameters import apply_parameters, plan_parameters
from ..module_utils._engine.globals.plan import apply_globals, plan_globals
from ..module_utils._engine.postgres.drivers import require


def globals_options() -> ArgumentSpec:
    """What this module takes besides the servers."""
    return ArgumentSpec(
        {
            "databases": {"type": "list", "elements": "str", "default": []},
            "superuser_policy": {"type": "str", "choices": ["remove", "demote"], "default": "remove"},
            "exclude": {"type": "list", "elements": "str", "default": []},
            "carry_passwords": {"type": "bool", "default": True, "no_log": False},
            "passwords": {"type": "dict", "default": {}, "no_log": True},
            "tablespaces": {"type": "dict", "default": {}},
            "apply_parameters": {"type": "bool", "default": False},
            "file": {"type": "path"},
        }
    )


def main() -> t.NoReturn:
    """Entry point."""
    module = MigrationModule(endpoint_options("source").merge(endpoint_options("target")).merge(globals_options()))
    params = module.params
    with module.reporting() as result:
        require("psycopg")
        plan = plan_globals(
            module.endpoint("source"),
            module.endpoint("target"),
            databases=params["databases"],
            superuser_policy=params["superuser_policy"],
            exclude=params["exclude"],
            passwords=params["passwords"],
            verifiers=params["carry_passwords"],
            tablespaces=params["tablespaces"],
            of_databases=True,
        )
        parameters = plan_parameters(module.endpoint("source"), module.endpoint("target"), apply=params["apply_parameters"])
        text = render_globals(module.endpoint("source"), passwords=params["carry_passwords"]) if params["file"] else ""
        unwritten = bool(params["file"]) and not is_written(Path(params["file"]), text)
        before, after = ({**one, "parameters": values} for one, values in zip((plan.before, plan.after), parameters.values(), strict=True))
        result.plan(bool(plan.actions or parameters.actions) or unwritten, before, after)
        actions = [
            {"kind": action.kind, "name": action.name, "statement": action.statement} for action in (*plan.actions, *parameters.actions)
        ]
        if not module.check_mode:
            apply_globals(plan)
            apply_parameters(parameters)
            if unwritten:
                write_globals(Path(params["file"]), text)
        left_out = [str(item) for item in (*plan.skipped, *parameters.skipped)]
        result.add(actions=actions, left_out=left_out, summary=f"{len(actions)} statements")
        result.add(parameters=[one.to_dict() for one in parameters.differences])
    module.exit()


if __name__ == "__main__":
    main()
