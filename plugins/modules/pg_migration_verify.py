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
  - While changes are streamed, what differs is looked at again after the target has caught up. A row counts as different only when the
    target's version of it stayed as it was although the stream went past a moment at which the source had another one, so load makes no
    false alarm. What could not be told in many rounds is named as not compared.
  - Definitions of all classes of objects are compared as well, with owners, privileges, default privileges, comments and security labels.
    Values of options of foreign servers and user mappings are compared and never shown.
  - Without a stream both sides have to stand still.
  - After a cutover the target is written and the source is not. Where a way back follows, it is compared in that direction; otherwise the
    answer is what the cutover's own comparison has found. Databases of O(cutover.databases) that are switched over are left out.
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
from ..module_utils._engine.verify.compare import differing

if t.TYPE_CHECKING:
    from ..module_utils._engine.service.manager import Manager
    from ..module_utils._engine.spec import MigrationSpec

FOLLOWS = ("InProgress", "WaitingForUserAction")
Status = t.Dict[str, t.Any]


def what(manager: Manager, spec: MigrationSpec, status: Status | None) -> tuple[MigrationSpec, bool]:
    """The migration to compare, and whether its changes are streamed: after a cutover it is the way back, the other way round. Of one
    whose databases are switched over one by one, those that are left."""
    if status is None:
        return spec, False
    back = (status.get("way_back") or {}).get("state")
    if status["state"] == "Succeeded" and back in FOLLOWS:
        return manager.way_back(spec), True
    over = {name for name, figures in status["progress"].items() if figures.get("phase") == "finished"}
    left = [name for name in status["databases"] if status["state"] == "Succeeded" or name not in over]
    return spec.for_databases(left), status["mode"] == "online" and status["state"] in FOLLOWS


def proven(status: Status | None) -> dict[str, t.Any] | None:
    """What the cutover has found, where its target serves by now and nobody streams: the source stands still since, the target does not, so
    their rows differ rightly."""
    if status is None or status["mode"] != "online" or status["state"] != "Succeeded":
        return None
    found: dict[str, t.Any] | None = status.get("verification")
    return None if (status.get("way_back") or {}).get("state") in FOLLOWS else found


def tell(module: MigrationModule, found: dict[str, t.Any], file: Path, summary: str) -> None:
    """Put what was found into the result; differences fail the task."""
    lines = [database["summary"] for database in found["databases"].values() if database.get("summary")]
    told = {"equal": found["equal"], "complete": found["complete"], "verification": found, "file": str(file)}
    module.result.add(**told, lines=[*lines, summary], summary=summary)
    if not found["equal"]:
        module.fail(
            VerificationFailed(
                f"Source and target differ: {', '.join(differing(found['databases'])[:5]) or 'sequences or large objects'}.",
                code="PGM6001",
                hint=f"Keys and both values are in {file} on the runtime host.",
            )
        )


def verify(module: MigrationModule, manager: Manager, spec: MigrationSpec) -> None:
    """Compare, and keep what was found."""
    status = manager.status(spec.key)
    known = proven(status)
    if status and known:
        verdict = "equal" if known["equal"] else "DIFFERENT"
        summary = f"{verdict} as of the cutover, compared at {known['time']}; the target is written since, so nothing was compared again"
        tell(module, known, Path(status["files"]["report"]), summary)
        return
    compared, streaming = what(manager, spec, status)
    paths = MigrationPaths(Path(module.params["home"]), compared.key)
    switched = (status or {}).get("switched") or {}
    found = verify_all(paths, compared, streaming=streaming, switched=switched, jobs=module.params["jobs"])
    manager.remember_verified(compared.key, found)
    verdict = "equal" if found["equal"] else "DIFFERENT"
    way = ", from the target back to the source" if compared.back_of else ""
    tell(module, found, paths.folder / FILE, f"{verdict}, {found['rows']} rows in {found['seconds']:.1f} s{way}")


def main() -> t.NoReturn:
    """Entry point."""
    module = MigrationModule(migration_options().merge(ArgumentSpec({"jobs": {"type": "int", "default": 2}})))
    with module.reporting() as result:
        spec = module.spec()
        require("psycopg")
        manager = module.manager()
        spec = manager.begun(spec)
        if module.check_mode:
            result.add(summary="nothing is compared in check mode")
        else:
            verify(module, manager, spec)
    module.exit()


if __name__ == "__main__":
    main()
