#!/usr/bin/python
# Copyright (c) 2026, the pgops.migration authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_migration_validate
short_description: Check whether a migration of PostgreSQL databases can succeed
version_added: 1.0.0
author:
  - The pgops.migration authors (@pgops)
description:
  - Connects to both servers from the migration runtime host and checks everything that can be known before a migration starts.
  - It changes nothing on either server. Each finding tells what is wrong, on which object, and how to mend it.
options:
  fail_on:
    description:
      - Whether the task fails when a check has failed, also when there is a warning, or never.
    type: str
    choices: [failed, warning, never]
    default: failed
  report_dir:
    description:
      - Folder on the runtime host to write C(validation.json) and the page C(validation.html) to. It is made if it is missing.
      - The reports are a record of the run and do not count as a change. Nothing is written in check mode.
    type: path
extends_documentation_fragment:
  - pgops.migration._attributes
  - pgops.migration._attributes.info
  - pgops.migration._attributes.actiongroup
  - pgops.migration._migration
  - pgops.migration._endpoints.source
  - pgops.migration._endpoints.target
  - pgops.migration._migration.host
seealso:
  - module: pgops.migration.pg_configure_cdc
  - module: pgops.migration.pg_snapshot_copy
"""

EXAMPLES = r"""
- name: Check the migration
  pgops.migration.pg_migration_validate:
    name: shop-2026
    mode: online
    source: "{{ pg_migration.source }}"
    target: "{{ pg_migration.target }}"
    databases: "{{ pg_migration.databases }}"
    fail_on: never
  register: validation

- name: Show the findings
  ansible.builtin.debug:
    var: validation.lines
"""

RETURN = r"""
validation_status:
  description: Worst severity of all findings.
  returned: success
  type: str
  sample: Warning
report:
  description: The validation's report.
  returned: always
  type: dict
  contains:
    status:
      description: Succeeded, Warning or Failed.
      type: str
    findings:
      description:
        - One for each thing that was looked at, with code, scope, side, object, severity, message, fix, C(who) and C(restart).
        - C(who) says who may run the fix (one of six terms, see the collection's page on validation; empty where nothing is to be mended).
        - C(restart) says whether the server must be restarted for it.
      type: list
      elements: dict
files:
  description: The report files that were written.
  returned: when O(report_dir) is given, not in check mode
  type: list
  elements: str
lines:
  description: A table for people of the connections and of what is not as it should be; RV(report) has every finding.
  returned: always
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
from ..module_utils._ansible.options import migration_options
from ..module_utils._ansible.report import validation_error
from ..module_utils._engine.monitor.text import finding_lines
from ..module_utils._engine.postgres.drivers import require
from ..module_utils._engine.validate.runner import validate

FATAL = {"failed": ("Failed",), "warning": ("Failed", "Warning"), "never": ()}


def validate_options() -> ArgumentSpec:
    """What this module takes besides the migration."""
    return ArgumentSpec(
        {"fail_on": {"type": "str", "choices": ["failed", "warning", "never"], "default": "failed"}, "report_dir": {"type": "path"}}
    )


def main() -> t.NoReturn:
    """Entry point."""
    module = MigrationModule(migration_options().merge(validate_options()))
    with module.reporting() as result:
        spec = module.spec()
        require("psycopg")
        spec = module.manager().upcoming(spec)
        found = validate(spec, home=Path(module.params["home"]))
        report = found.to_dict()
        lines = finding_lines(report)
        result.add(validation_status=report["status"], report=report, lines=lines, summary=lines[-1])
        if module.params["report_dir"] and not module.check_mode:
            folder = Path(module.params["report_dir"])
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            result.add(files=[str(found.write_json(folder / "validation.json")), str(found.write_html(folder / "validation.html"))])
        if report["status"] in FATAL[module.params["fail_on"]]:
            module.fail(validation_error(report), phase="ValidationInProgress")
    module.exit()


if __name__ == "__main__":
    main()
