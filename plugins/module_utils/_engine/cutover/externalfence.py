# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The fence ``external``: the writers are stopped by something else, a pooler or a command of the user's (:mod:`.gates`).

Nothing is changed on the source, so all that can be done is to prove it: sessions that are left have done nothing since, and
nothing was committed until the release (:mod:`.silence`).
"""

from __future__ import annotations

import time
import typing as t

from ..errors import CutoverAborted
from ..postgres.identifiers import quote_ident
from ..postgres.session import connect
from ..spec import Endpoint
from .sessions import LOOK_SECONDS, QUIET_LOOKS, Stranger, active_strangers, refuse_prepared, say, server_time


class ExternalFence:
    """See :class:`~.fence.Fence`. The change is ``{"database"}``."""

    def __init__(self, endpoint: Endpoint, change: dict[str, t.Any]) -> None:
        self._endpoint, self._change = endpoint, change
        self._since = ""
        self.ended = 0

    @classmethod
    def plan(cls, endpoint: Endpoint, database: str) -> dict[str, t.Any]:
        """Nothing is going to be changed."""
        return {"database": database}

    def raise_(self, deadline: float) -> str:
        """Wait until nobody does anything any more."""
        database = self._change["database"]
        with connect(self._endpoint, database, purpose="fence") as conn:
            while True:
                self._since = server_time(conn)
                for dummy in range(QUIET_LOOKS):
                    time.sleep(LOOK_SECONDS)
                    busy = active_strangers(conn, self._since)
                    if busy:
                        break
                if not busy:
                    break
                if time.monotonic() > deadline:
                    raise self._writing(busy)
            refuse_prepared(conn, self._endpoint, database)
        return "nobody is at work"

    def confirm(self, deadline: float) -> None:
        """Nobody has done anything since."""
        database = self._change["database"]
        with connect(self._endpoint, database, purpose="fence") as conn:
            busy = active_strangers(conn, self._since)
            refuse_prepared(conn, self._endpoint, database)
        if busy:
            raise self._writing(busy)

    def _writing(self, busy: t.Sequence[Stranger]) -> CutoverAborted:
        return CutoverAborted(
            f"Sessions on {self._endpoint.label(self._change['database'])} are at work though writers should be stopped: {say(busy)}.",
            code="PGM5107",
            hint="Have cutover.fence_command or the pooler stop them, or choose cutover.fence revoke_connect. Sessions that hide from"
            f" us what they do count as well: GRANT pg_read_all_stats TO {quote_ident(self._endpoint.user)}.",
        )

    def let_go(self) -> None:
        """Nothing is held."""

    @staticmethod
    def lift(endpoint: Endpoint, change: dict[str, t.Any]) -> None:
        """Nothing was changed."""
