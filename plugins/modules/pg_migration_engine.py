#!/usr/bin/python
# Copyright (c) 2026, the pgops.migration authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_migration_engine
short_description: Install the migration engine on a runtime host
version_added: 1.0.0
author:
  - The pgops.migration authors (@pgops)
description:
  - Writes the engine, the program that the migration services run, out of the module's own payload. Modules and services thus always run
    the same source, and nothing has to be downloaded.
  - The engine is one file, C(engine/engine-DIGEST.pyz) below O(home). The link C(engine/current) points to it.
    The version before it is kept.
options:
  state:
    description:
      - Whether the engine is to be there.
    type: str
    choices: [present, absent]
    default: present
  home:
    description:
      - Folder on the runtime host that holds the engine and all migrations. It must exist for O(state=present).
    type: path
    default: /var/lib/pg_migration
extends_documentation_fragment:
  - pgops.migration._attributes
  - pgops.migration._attributes.action
requirements:
  - Python >= 3.10
notes:
  - The role P(pgops.migration.pg_migration_runtime#role) provisions a runtime host, this engine included.
"""

EXAMPLES = r"""
- name: Install the engine of this collection
  pgops.migration.pg_migration_engine:
    home: /var/lib/pg_migration
  become: true
"""

RETURN = r"""
digest:
  description: First twelve digits of the SHA-256 of the engine in this collection.
  returned: success
  type: str
  sample: 4f1c2a90be11
path:
  description: The file that holds it.
  returned: success
  type: str
  sample: /var/lib/pg_migration/engine/engine-4f1c2a90be11.pyz
current:
  description: The link to it, which services are started with.
  returned: success
  type: str
  sample: /var/lib/pg_migration/engine/current
previous:
  description: Name of the file that the link pointed to before, empty if there was none.
  returned: success
  type: str
  sample: engine-0d22c81f77aa.pyz
"""

import typing as t
from pathlib import Path

from ..module_utils._ansible import zipapp
from ..module_utils._ansible.argspec import ArgumentSpec
from ..module_utils._ansible.module import MigrationModule

# Reaches the whole engine, so that all of it travels in the payload of this module.
from ..module_utils._engine import cli  # noqa: F401  # pylint: disable=unused-import
from ..module_utils._engine.globals import dump  # noqa: F401  # pylint: disable=unused-import
from ..module_utils._engine.service import proof  # noqa: F401  # pylint: disable=unused-import
from ..module_utils._engine.source import login  # noqa: F401  # pylint: disable=unused-import


def engine_options() -> ArgumentSpec:
    """What the module takes."""
    return ArgumentSpec(
        {
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "home": {"type": "path", "default": "/var/lib/pg_migration"},
        }
    )


def main() -> t.NoReturn:
    """Entry point."""
    module = MigrationModule(engine_options())
    with module.reporting() as result:
        folder = zipapp.EngineFolder(Path(module.params["home"]))
        content = zipapp.build()
        digest = zipapp.digest_of(content)
        present = module.params["state"] == "present"
        before, after = folder.state(), {"current": f"engine-{digest}.pyz"} if present else {"current": ""}
        result.plan(folder.differs(content) if present else folder.exists(), before, after)
        result.add(digest=digest, path=str(folder.file(digest)), current=str(folder.current), previous=before["current"])
        if result.changed and not module.check_mode:
            if present:
                folder.install(content)
            else:
                folder.remove()
    module.exit()


if __name__ == "__main__":
    main()
