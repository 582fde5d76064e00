# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The process that receives one database's changes into its spool."""

from __future__ import annotations

from ..changes.receiver import Receiver
from ..errors import ServiceError
from ..migration.paths import MigrationPaths, read_json
from ..source.plugin import PluginChoice
from ..spec import MigrationSpec
from .link import Link
from .prepare import MEMORY


def receive(paths: MigrationPaths, spec: MigrationSpec, database: str, link: Link) -> None:
    """Receive until told to stop.

    :raises MigrationError: what the service is to record.
    """
    memory = read_json(paths.work(database) / MEMORY)
    if memory is None:
        raise ServiceError(f"The worker of {database} has not prepared a slot.")
    receiver = Receiver(
        spec,
        database,
        memory["slot"],
        PluginChoice(**memory["choice"]),
        paths.spool(database),
        lambda figures: link.send(progress=figures),
        link.stop,
    )
    link.on("applied", lambda command: receiver.set_applied(int(command["lsn"])))
    receiver.run()
