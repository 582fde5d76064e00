# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Sessions of ours on the target that a killed run has left."""

from __future__ import annotations

import threading
import time
import typing as t

from ..errors import CopyError
from ..postgres.drivers import psycopg
from ..postgres.session import application_name
from ..spec import Endpoint
from .tools import Stopped

OURS = ("relay", "index", "finish tables", "large objects", "base copy", "schema")
"""Purposes of our sessions on both sides; those of a killed run are ended, or their CREATE INDEX would go on."""

LEFTOVER_SECONDS = 60.0
"""How long the server may take to end them."""


def end_leftovers(control: psycopg.Connection[t.Any], target: Endpoint, stop: threading.Event) -> None:
    """End sessions of an earlier run of ours that nobody holds any more, and wait until they are gone: what one of them
    still commits must be in the ledger before that is read.

    :raises CopyError: PGM3013 if one does not end. :raises Stopped: if ``stop`` is set.
    """
    names = [application_name(target, purpose) for purpose in OURS]
    deadline = time.monotonic() + LEFTOVER_SECONDS
    query = (
        "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND usename = current_user"
        " AND pid <> pg_backend_pid() AND application_name = ANY(%s)"
    )
    while left := control.execute(query, [names]).fetchall():
        if time.monotonic() > deadline:
            raise CopyError(
                f"Sessions of an earlier run do not end on {target.label()}: pid {', '.join(str(r[0]) for r in left)}.",
                code="PGM3013",
                hint="See what they wait for in pg_stat_activity of the target, then run the playbook again.",
            )
        if stop.wait(0.05):
            raise Stopped
