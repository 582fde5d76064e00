# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What a cutover has changed on the target of one database before it was given back, taken back while the stream goes on.

What rests while changes are applied is seen to by the stream itself (:mod:`..changes.quiet`), the source by the fence's journal. Left are
the mark that the target serves, sequences that are not ahead any more, and a way back. A service or a target that was killed in the
cutover leaves a debt, which the ledger knows of and which is paid as soon as it can be.
"""

from __future__ import annotations

from ..cutover.completion import set_ahead
from ..cutover.watchdog import FenceJournal
from ..errors import MigrationError
from ..migration.ledger import COMPLETING, SERVES, Ledger
from ..migration.paths import MigrationPaths
from ..postgres.drivers import psycopg
from ..postgres.session import connect, server_errors
from ..spec import MigrationSpec
from .wayback import WayBack

RETRY_SECONDS = 5.0
"""Pause between attempts on a target that does not answer."""


class GiveBack:
    """The debt of ``database``.

    :ivar owed: there is something to be taken back.
    """

    def __init__(self, paths: MigrationPaths, spec: MigrationSpec, database: str, way_back: WayBack | None) -> None:
        self._journal = FenceJournal(paths.fence)
        self._spec, self._database, self._way_back = spec, database, way_back
        self.owed = False

    def recall(self) -> None:
        """Pay the debt of an attempt that was killed, and whose fence was lifted.

        :raises MigrationError: the target does not answer.
        """
        if self._journal.state() == "lifted" and self._database not in self._journal.released():
            with connect(self._spec.target, self._database, purpose="give back") as conn:
                self.owed = Ledger(conn).step_done(COMPLETING)
        if self.owed:
            self.pay()

    def begin(self, *, fenced: bool) -> None:
        """A cutover is about to change the target; from here on nobody may drop it.

        :param fenced: nobody is led to the target but by a release that the fence's journal knows of.
        """
        with (
            connect(self._spec.target, self._database, purpose="complete") as conn,
            server_errors("mark the database as complete", self._spec.target, self._database),
            conn.transaction(),
        ):
            ledger = Ledger(conn)
            ledger.mark_step(SERVES)
            if fenced:
                ledger.mark_step(COMPLETING)
            else:
                ledger.forget_step(COMPLETING)

    def pay(self) -> None:
        """Take back what is owed, as far as the servers answer."""
        try:
            if self._way_back:
                self._way_back.remove()
            if not self._spec.back_of:  # a source that a rollback would have led to is not going to serve early
                set_ahead(self._spec, self._database)
            with connect(self._spec.target, self._database, purpose="give back") as conn, conn.transaction():
                Ledger(conn).forget_step(SERVES)
                Ledger(conn).forget_step(COMPLETING)
            self.owed = False
        except (MigrationError, psycopg.Error):
            self.owed = True
