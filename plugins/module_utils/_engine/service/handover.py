# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""From the stream forward to the way back: when a migration with ``rollback: prepared`` has ended, its service becomes the service of its
way back.

So nobody has to ask for the stream back: no module, no playbook, and no right to start a service. The process stays the same, so who
watches over it (systemd) watches over the way back too; started again, it finds its migration ended and takes up the way back where it
was left.
"""

from __future__ import annotations

import os
import stat
import sys
import typing as t

from ..migration.back import back_spec
from ..migration.catalogue import Catalogue
from ..migration.paths import MigrationPaths
from ..migration.states import State
from ..spec import MigrationSpec
from .launcher import Lock
from .wayback import prepared

GOES_ON = (State.IN_PROGRESS, State.WAITING_FOR_USER_ACTION)


class Successor:
    """The way back of a migration, of which this process is the service from now on: nobody finds it without one."""

    def __init__(self, paths: MigrationPaths, lock: Lock) -> None:
        self._paths, self._lock = paths, lock

    def become(self) -> t.NoReturn:
        """Go on as its service. Output that goes to the old log goes to the new one."""
        if stat.S_ISREG(os.fstat(1).st_mode):
            with open(self._paths.log, "ab") as log:
                for stream in (1, 2):
                    os.dup2(log.fileno(), stream)
        os.execv(sys.executable, [*self._paths.command("serve"), "--lock", str(self._lock.hand_on())])  # nosec: our own engine


def begin_way_back(paths: MigrationPaths, spec: MigrationSpec) -> Successor | None:
    """Record the way back that the cutover of ``spec`` has left, where that was not done, and become its service; None where there is none,
    it has ended, or another process is its service.

    :raises Conflict: another migration to the source is active.
    """
    if spec.rollback != "prepared":
        return None
    back, catalogue = back_spec(spec), Catalogue(paths.catalogue)
    there = MigrationPaths(paths.home, back.key)
    record = catalogue.get(back.key)
    if record is None and not prepared(paths, back) or record is not None and State(record["state"]) not in GOES_ON:
        return None
    there.make()
    lock = Lock(there.lock)
    if not lock.take():
        lock.close()
        return None
    if record is None:
        catalogue.create(back)
    there.write_spec(back)
    return Successor(there, lock)
