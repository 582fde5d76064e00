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
  - The service writes the page of O(output=html) on the runtime host as well, where RV(details.files) says, and again every few seconds
    while the migration runs. Such a page reloads itself; the one that is returned does not.
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
  states:
    description:
      - Only migrations in one of these states are in RV(migrations) and RV(grid). All by default.
      - They are spelled as RV(details.state) is; V(Cancelled) is another word for V(Canceled).
    type: list
    elements: str
    choices: [InProgress, WaitingForUserAction, Canceled, Failed, ValidationFailed, Succeeded, CleaningUp, Cancelled]
    default: []
  output:
    description:
      - Forms in which the migration O(name) is returned besides, see RV(rendered).
      - V(html) is one self-contained page with the list, the details, progress by table, curves over the whole run, cutover and proof.
      - V(prometheus) is Prometheus' text format, as the textfile collector of node_exporter reads it.
      - V(json) is what RV(details) holds, as text, with the samples of the run.
    type: list
    elements: str
    choices: [html, prometheus, json]
    default: []
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

- name: List those that somebody has to look after
  pgops.migration.pg_migration_info:
    states: [Failed, ValidationFailed, WaitingForUserAction]
  register: waiting

- name: Show one of them
  pgops.migration.pg_migration_info:
    name: shop-2026
  register: shop

- name: Render the page of a migration
  pgops.migration.pg_migration_info:
    name: shop-2026
    output: [html]
  register: shop

- name: Keep it on the control node
  ansible.builtin.copy:
    content: "{{ shop.rendered.html }}"
    dest: ./shop-2026.html
    mode: "0600"
  delegate_to: localhost

- name: Insist that it waits for its cutover
  ansible.builtin.assert:
    that: shop.details.substate == 'WaitingForCutoverTrigger'
"""

RETURN = r"""
migrations:
  description: The list, newest first, of the migrations in O(states).
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
    prerequisites:
      description: How many seconds the first step took, when it ended, and its limit; none before that.
      type: dict
    validation:
      description: The validation's report, with all its findings.
      type: dict
    migration:
      description:
        - The migration itself, with the progress of each database, the notes of its copy, plugin, cutover and verification.
      type: dict
    events:
      description: What happened, with times.
      type: list
      elements: dict
    service:
      description: Whether the service runs, its process id and who supervises it.
      type: dict
    files:
      description: Where log, page, certificate and validation report lie on the runtime host.
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
after_lines:
  description: What to see to after the migration, and the new connection strings, as lines of text; empty before it has succeeded.
  returned: when O(name) is given and there is such a migration
  type: list
  elements: str
note_lines:
  description: What the copy left out or adapted, a line each with the database before it; empty where there was nothing.
  returned: when O(name) is given and there is such a migration
  type: list
  elements: str
detail_lines:
  description: RV(details) as lines of text, a page for a terminal.
  returned: when O(name) is given and there is such a migration
  type: list
  elements: str
rendered:
  description: The migration in each form of O(output).
  returned: when O(output) is given and there is such a migration
  type: dict
  contains:
    html:
      description: The page.
      type: str
    prometheus:
      description: The metrics.
      type: str
    json:
      description: The details.
      type: str
"""

import json
import time
import typing as t

from ..module_utils._ansible.argspec import ArgumentSpec
from ..module_utils._ansible.module import MigrationModule
from ..module_utils._ansible.options import host_options
from ..module_utils._engine.errors import SpecificationError
from ..module_utils._engine.migration.states import ALIASES, State, state_of
from ..module_utils._engine.monitor import page, prometheus
from ..module_utils._engine.monitor.after import after_lines
from ..module_utils._engine.monitor.notes import note_lines
from ..module_utils._engine.monitor.screen import detail_lines
from ..module_utils._engine.monitor.text import cutover_lines, details, finding_lines, grid, row, seconds_of

if t.TYPE_CHECKING:
    from ..module_utils._engine.service.manager import Manager

FORMS = ("html", "prometheus", "json")


def info_options() -> ArgumentSpec:
    """What this module takes."""
    return ArgumentSpec(
        {
            "name": {"type": "str"},
            "target_host": {"type": "str"},
            "target_port": {"type": "int", "default": 5432},
            "states": {"type": "list", "elements": "str", "choices": [*(state.value for state in State), *ALIASES], "default": []},
            "output": {"type": "list", "elements": "str", "choices": list(FORMS), "default": []},
        }
    )


def render(manager: Manager, status: dict[str, t.Any], statuses: list[dict[str, t.Any]], form: str) -> str:
    """The migration in one of :data:`FORMS`; of one that has ended always the same text, so that a file of it does not change any more."""
    history = manager.history(status["key"])
    history.keep_copies(status)
    moment = seconds_of(status["ended"]) or time.time()
    if form == "html":
        return page.render(status, statuses, history.samples, moment, live=False)
    if form == "prometheus":
        return prometheus.render(status, moment)
    return json.dumps({**details(status), "samples": history.to_list()}, indent=2, ensure_ascii=False, default=str) + "\n"


def main() -> t.NoReturn:
    """Entry point."""
    module = MigrationModule(info_options().merge(host_options()))
    with module.reporting() as result:
        name, forms, host = (module.params[key] for key in ("name", "output", "target_host"))
        if forms and not name:
            raise SpecificationError("output is for one migration.", hint="Give its name.")
        target = f"{host.lower()}:{module.params['target_port']}" if host else None
        manager = module.manager()
        statuses = manager.list(target)
        wanted = [state_of(text).value for text in module.params["states"]]
        shown = [status for status in statuses if not wanted or status["state"] in wanted]
        result.add(migrations=[row(status) for status in shown], grid=grid(shown, wanted))
        if name:
            status = manager.status(name, target)
            result.add(details=details(status) if status else None)
            if status:
                lines = {"lines": finding_lines(status.get("validation")), "cutover_lines": cutover_lines(status)}
                result.add(**lines, note_lines=note_lines(status), after_lines=after_lines(status), detail_lines=detail_lines(status))
                if forms:
                    result.add(rendered={form: render(manager, status, statuses, form) for form in forms})
    module.exit()


if __name__ == "__main__":
    main()
