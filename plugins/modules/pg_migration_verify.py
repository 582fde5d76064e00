#!/usr/bin/python
# Copyright (c) 2026, the pgops.migration authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_migration_verify
short_description: Compare every row of source and target
version_added: 1.0.0
author:
  - The pgops.migration authors (@pgops)
description:
  - Both servers compute digests of their tables; where these differ, the rows are found and named with their key and both values.
  - While changes are streamed, what differs is looked at again after the target has caught up. A row counts as different only when it was
    not touched on the source in between, so load makes no false alarm. Rows that are written to all the time are named as not compared.
  - Without a stream both sides have to stand still.
  - Nothing is changed on either server. The certificate is written into the migration's folder. In check mode nothing is compared.
options:
  jobs:
    description:
      - Sessions on each side that read.
    type: int
    default: 2
extends_documentation_fragment:
  - pgops.migration._attributes
  - pgops.migration._attributes.action
  - pgops.migration._attributes.actiongroup
  - pgops.migration._migration
  - pgops.migration._endpoints.source
  - pgops.migration._endpoints.target
  - pgops.migration._migration.host
seealso:
  - module: pgops.migration.pg_cutover
"""

EXAMPLES = r"""
- name: Compare while the changes are streamed
  pgops.migration.pg_migration_verify:
    name: shop-2026
    mode: online
    source: "{{ pg_migration.source }}"
    target: "{{ pg_migration.target }}"
    databases: "{{ pg_migration.databases }}"
"""

RETURN = r"""
equal:
  description: Whether everything that was compared is equal.
  returned: success
  type: bool
complete:
  description: Whether every table was compared.
  returned: success
  type: bool
verification:
  description: The certificate, with digests, numbers of rows, sequences, differences and timings of each database, and the position that
    the target had.
  returned: when a comparison was made
  type: dict
lines:
  description: It for people, a line a database.
  returned: when a comparison was made
  type: list
  elements: str
summary:
  description: One line.
  returned: success
  type: str
  sample: equal, 1204332 rows in 12.1 s
file:
  description: Where the certificate is on the runtime host.
  returned: when a comparison was made
  type: str
error_code:
  description: Stable code of the error, C(PGM) and four digits.
  returned: failure
  type: str
  sample: PGM6001
hint:
  description: The one thing to do next.
  returned: failure, when there is one
  type: str
  sample: Keys and both values are in the certificate.
"""

import typing as t
from pathlib import Path

from ..module_utils._ansible.argspec import ArgumentSpec
from ..module_utils._ansible.module import MigrationModule
from ..module_utils._ansible.options import migration_options
from ..module_utils._engine.errors import VerificationFailed
from ..module_utils._engine.migration.paths import MigrationPaths
from ..module_utils._engine.postgres.drivers import require
from ..module_utils._engine.service.proof import FILE, verify_all


def main() -> t.NoReturn:
    """Entry point."""
    module = MigrationModule(migration_options().merge(ArgumentSpec({"jobs": {"type": "int", "default": 2}})))
    with module.reporting() as result:
        spec = module.spec()
        require("psycopg")
        manager = module.manager()
        spec = manager.begun(spec)
        status = manager.status(spec.key)
        if module.check_mode:
            result.add(summary="nothing is compared in check mode")
        else:
            if status:
                spec = spec.for_databases(status["databases"])
            streaming = bool(status and status["mode"] == "online" and status["state"] in ("InProgress", "WaitingForUserAction"))
            paths = MigrationPaths(Path(module.params["home"]), spec.key)
            found = verify_all(paths, spec, streaming=streaming, jobs=module.params["jobs"])
            manager.remember_verified(spec.key, found)
            verdict = "equal" if found["equal"] else "DIFFERENT"
            lines = [database["summary"] for database in found["databases"].values()]
            summary = f"{verdict}, {found['rows']} rows in {found['seconds']:.1f} s"
            told = {"equal": found["equal"], "complete": found["complete"], "verification": found, "file": str(paths.folder / FILE)}
            result.add(**told, lines=[*lines, summary], summary=summary)
            if not found["equal"]:
                names = [
                    f"{name}: {table['label']}"
                    for name, database in found["databases"].items()
                    for table in database["tables"]
                    if table["compared"] and not table["equal"]
                ]
                module.fail(
                    VerificationFailed(
                        f"Source and target differ: {', '.join(names[:5]) or 'sequences or large objects'}.",
                        code="PGM6001",
                        hint=f"Keys and both values are in {paths.folder / FILE} on the runtime host.",
                    )
                )
    module.exit()


if __name__ == "__main__":
    main()
