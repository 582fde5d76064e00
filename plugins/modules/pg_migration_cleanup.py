#!/usr/bin/python
# Copyright (c) 2026, the pgops.migration authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_migration_cleanup
short_description: Find and remove everything that migrations made
version_added: 1.0.0
author:
  - The pgops.migration authors (@pgops)
description:
  - Finds replication slots, publications and sessions on the source, ledgers, sessions and the role that remembers globals on the target,
    and fences and working files on this host. All are known by their names, so this works where the state of the runtime host is lost.
  - What belongs to a migration that is active stays and is named, and so does what somebody is using of a migration that this host does not
    know, because another runtime host may be at work.
  - A failed migration that is cleaned up is over, its state becomes C(Canceled).
  - In check mode nothing is removed; the module lists what would be.
options:
  name:
    description:
      - Name of one migration. Without it, of all migrations between these servers.
    type: str
  force:
    description:
      - Also take away what is in use by a migration that this host does not know.
    type: bool
    default: false
  drop_target:
    description:
      - Also drop the databases on the target that a migration made and did not finish. They are recognized by the ledger in them.
    type: bool
    default: false
extends_documentation_fragment:
  - pgops.migration._attributes
  - pgops.migration._attributes.action
  - pgops.migration._endpoints.source
  - pgops.migration._endpoints.target
  - pgops.migration._migration.host
seealso:
  - module: pgops.migration.pg_cdc_stream
"""

EXAMPLES = r"""
- name: Remove what a failed migration left behind
  pgops.migration.pg_migration_cleanup:
    name: shop-2026
    source: "{{ pg_migration.source }}"
    target: "{{ pg_migration.target }}"
"""

RETURN = r"""
found:
  description: What was found and is to be removed, a line each.
  returned: success
  type: list
  elements: str
  sample: ["source: slot pgm_shop_2026_shop_1f0c7a2b in shop"]
removed:
  description: What was removed; nothing in check mode.
  returned: success
  type: list
  elements: str
  sample: ["source: slot pgm_shop_2026_shop_1f0c7a2b in shop"]
kept:
  description: What is ours and stays, with the reason.
  returned: success
  type: list
  elements: str
  sample: ["target: database shop (a database stays unless drop_target asks for it, and is not known as ours afterwards)"]
lines:
  description: All of it for people.
  returned: success
  type: list
  elements: str
summary:
  description: One line.
  returned: success
  type: str
  sample: 3 removed, 1 kept
error_code:
  description: Stable code of the error, C(PGM) and four digits.
  returned: failure
  type: str
  sample: PGM8010
hint:
  description: The one thing to do next.
  returned: failure, when there is one
  type: str
  sample: Correct user and password.
"""

import typing as t

from ..module_utils._ansible.argspec import ArgumentSpec
from ..module_utils._ansible.module import MigrationModule
from ..module_utils._ansible.options import endpoint_options, host_options
from ..module_utils._engine.spec import check_name


def cleanup_options() -> ArgumentSpec:
    """What this module takes besides the servers."""
    return ArgumentSpec(
        {
            "name": {"type": "str"},
            "force": {"type": "bool", "default": False},
            "drop_target": {"type": "bool", "default": False},
        }
    )


def clean_up(module: MigrationModule) -> None:
    """Look, tell, remove."""
    name = module.params["name"]
    seen = module.manager().cleanup(
        module.endpoint("source"),
        module.endpoint("target"),
        name=check_name(name) if name else None,
        force=module.params["force"],
        drop_target=module.params["drop_target"],
        dry=module.check_mode,
    )
    module.result.plan(bool(seen["found"]), {"ours": seen["found"]}, {"ours": []})
    verb = "would be removed" if module.check_mode else "removed"
    lines = [f"{verb}: {line}" for line in seen["found"]] + [f"kept: {line}" for line in seen["kept"]]
    summary = f"{len(seen['found'])} {verb}, {len(seen['kept'])} kept"
    module.result.add(**seen, lines=lines or ["nothing of ours was found"], summary=summary)


def main() -> t.NoReturn:
    """Entry point."""
    sides = endpoint_options("source").merge(endpoint_options("target"))
    module = MigrationModule(cleanup_options().merge(sides).merge(host_options()))
    with module.reporting():
        clean_up(module)
    module.exit()


if __name__ == "__main__":
    main()
