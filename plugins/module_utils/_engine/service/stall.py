# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Why nothing moves: when stream or base copy of a database stand still for some seconds, the servers are asked what our sessions wait for
(B18).

While things move it is one comparison a second. Only in a stall a session of its own is opened, which reads and holds nothing, so it can
disturb nobody; a server that cannot be asked is no error here.
"""

from __future__ import annotations

import contextlib
import threading
import time
import typing as t

from ..errors import MigrationError
from ..postgres.drivers import psycopg
from ..postgres.identifiers import object_name
from ..postgres.session import application_name, connect
from ..postgres.waits import Session, Waiting, read_waiting, read_walsender
from ..spec import Endpoint, MigrationSpec

STALL_SECONDS = 5.0
"""How long nothing may move before somebody is asked."""

LOOK_SECONDS = 1.0
ASK_SECONDS = 2.0
"""Least seconds between two questions in one stall."""

KEPT_SECONDS = 15.0
"""How long a cause is still told when it is not seen: what waits for a lock gives up now and then (``lock_timeout``) and tries again."""

APPLIER = ("applier",)
"""Purpose of the sessions that apply changes."""

CAUSES = ("lock", "standby", "io", "working", "client")
"""What a session can wait for, what tells most first: a lock, a synchronous standby, the server's disk, nothing (it works), us."""

IN_COPY = ("lock", "standby")
"""Causes that are told of a base copy: an index or a constraint may work, and read its disk, for hours."""


class Pulse(t.NamedTuple):
    """``seconds`` for which nothing has moved on ``side`` (``target``, ``source`` or ``copy``, which has sessions on both), by the sessions
    for ``purposes``."""

    side: str
    seconds: float
    purposes: tuple[str, ...] = ()


class StallWatch(threading.Thread):
    """Watches until ``over``.

    :param pulse: is asked once a second; None where nothing is under way.
    :param report: is told ``stalled``: None, or ``cause`` (of :data:`CAUSES`, or ``decoding``, ``not read``), ``side``, ``seconds``,
        ``pid`` (of who is in the way, or of our own session), ``text``.
    """

    def __init__(
        self, spec: MigrationSpec, database: str, pulse: t.Callable[[], Pulse | None], report: t.Callable[[dict[str, t.Any]], None]
    ) -> None:
        super().__init__(name=f"stall {database}", daemon=True)
        self._spec, self._database, self._pulse, self._report = spec, database, pulse, report
        self._over = threading.Event()
        self._sessions: dict[str, psycopg.Connection[t.Any]] = {}
        self._told: dict[str, t.Any] | None = None
        self._seen = self._asked = 0.0  # when the cause that is told was seen, when somebody was asked

    def stop(self) -> None:
        """End; a stall that was told is taken back."""
        self._over.set()

    def run(self) -> None:
        """The thread."""
        self._report({"stalled": None})  # of a worker before us
        while not self._over.wait(LOOK_SECONDS):
            pulse = self._pulse()
            if pulse is None or pulse.seconds < STALL_SECONDS:
                self._gone()
            elif time.monotonic() - self._asked >= ASK_SECONDS:
                self._look(pulse)
        self._gone()

    def _gone(self) -> None:
        for conn in self._sessions.values():
            conn.close()
        self._sessions = {}
        if self._told is not None:
            self._told = None
            self._report({"stalled": None})

    def _look(self, pulse: Pulse) -> None:
        self._asked = now = time.monotonic()
        found: dict[str, t.Any] | None = None
        with contextlib.suppress(MigrationError, psycopg.Error):
            found = self._walsender() if pulse.side == "source" else self._ours(pulse)
        told = self._told
        weaker = found is None or told is not None and told["cause"] == "lock" != found["cause"]
        if weaker and told is not None and now - self._seen < KEPT_SECONDS:
            found = told
        elif found is not None:
            self._seen = now
        if found is not None:
            self._told = {**found, "seconds": round(pulse.seconds, 1)}
            self._report({"stalled": self._told})
        elif told is not None:
            self._told = None
            self._report({"stalled": None})

    def _session(self, endpoint: Endpoint) -> psycopg.Connection[t.Any]:
        conn = self._sessions.get(endpoint.side)
        if conn is None or conn.closed:
            conn = self._sessions[endpoint.side] = connect(endpoint, self._database, purpose="stall")
        return conn

    def _ours(self, pulse: Pulse) -> dict[str, t.Any] | None:
        """What holds our sessions up; of several the cause that tells most."""
        ends = (self._spec.target, self._spec.source) if pulse.side == "copy" else (self._spec.target,)
        found = []
        for endpoint in ends:
            names = [application_name(endpoint, purpose) for purpose in pulse.purposes]
            found += [(cause_of(one), endpoint, one) for one in read_waiting(self._session(endpoint), names)]
        told = IN_COPY if pulse.side == "copy" else CAUSES
        found = [item for item in found if item[0] in told]
        if not found:
            return None
        cause, endpoint, waiting = min(found, key=lambda item: CAUSES.index(item[0]))
        return describe(cause, endpoint.label(self._database), endpoint.side, waiting)

    def _walsender(self) -> dict[str, t.Any] | None:
        """Why the source sends nothing."""
        endpoint = self._spec.source
        label = endpoint.label(self._database)
        conn = self._session(endpoint)
        slot = object_name(self._spec.key, self._database)
        waiting = read_walsender(conn, slot)
        if waiting is None:
            text = f"Nobody reads the replication slot {slot} on {label}."
            return {"cause": "not read", "side": "source", "pid": None, "text": text} if conn.info.server_version >= 90600 else None
        session = waiting.session
        cause = cause_of(waiting)
        if cause in ("lock", "standby"):
            return describe(cause, label, "source", waiting)
        event = f"{session.event_type}/{session.event}"
        who = f"The walsender (pid {session.pid}) on {label}"
        if session.event in ("WalSenderWriteData", "ClientWrite"):
            return {"cause": "client", "side": "source", "pid": session.pid, "text": f"{who} waits for the network or for our receiver."}
        if session.event_type == "Activity":
            text = f"{who} has sent all that there is, and nothing of it has come out of the spool: our receiver, or its disk, is behind."
            return {"cause": "client", "side": "source", "pid": session.pid, "text": text}
        doing = f"waits for its disk ({event})" if cause == "io" else "decodes WAL"
        text = f"{who} {doing}: a large transaction is read before it can be sent."
        return {"cause": "io" if cause == "io" else "decoding", "side": "source", "pid": session.pid, "text": text}


def cause_of(waiting: Waiting) -> str:
    """One of :data:`CAUSES`."""
    session = waiting.session
    if waiting.blockers or session.event_type == "Lock":
        return "lock"
    if session.event in ("SyncRep", "WaitForStandbyConfirmation", "WalSenderWaitForStandbyConfirmation"):
        return "standby"
    if session.event_type in ("IO", "LWLock", "BufferPin", "BufferIO", "Buffer", "IPC"):
        return "io"
    return "client" if session.event_type == "Client" or session.state != "active" else "working"


def describe(cause: str, label: str, side: str, waiting: Waiting) -> dict[str, t.Any]:
    """The stall for machines and for people."""
    session = waiting.session
    ours = f"{session.application or 'our session'} (pid {session.pid}) on {label}"
    event = f"{session.event_type}/{session.event}"
    pid = session.pid
    if cause == "lock":
        blocker = waiting.blockers[0] if waiting.blockers else None
        pid = blocker.pid if blocker else pid
        others = f", and {len(waiting.blockers) - 1} more" if len(waiting.blockers) > 1 else ""
        text = f"{ours} waits for a lock ({event}) held by {say(blocker) if blocker else 'a session that is not known'}{others}."
    elif cause == "standby":
        text = f"{ours} waits for a standby to confirm ({event}); see synchronous_standby_names and the server's standbys."
    elif cause == "io":
        text = f"{ours} waits for its server's disk or WAL ({event})."
    elif cause == "client":
        text = f"{ours} waits for us ({event}): the runtime host or the network to it is slow."
    else:
        text = f"{ours} works on one statement: {session.query or 'hidden'}"
    return {"cause": cause, "side": side, "pid": pid, "text": text}


def say(blocker: Session) -> str:
    """Who holds a lock: what it is, whose, since when, and its query; what is hidden from us is said to be."""
    if blocker.process == "prepared transaction":
        return "a prepared transaction (see pg_prepared_xacts; COMMIT PREPARED or ROLLBACK PREPARED ends it)"
    kind = {"session": "a session", "autovacuum worker": "an autovacuum worker"}.get(blocker.process, f"a process ({blocker.process})")
    whose = " of ".join(part for part in (f"{blocker.application!r}" if blocker.application else "", blocker.user) if part)
    words = f"{kind}, pid {blocker.pid}" + (f", {whose}" if whose else "")
    if blocker.hidden:
        return f"{words}; what it does is hidden from us (GRANT pg_read_all_stats shows it)"
    age = f", for {blocker.seconds:.0f} s" if blocker.seconds is not None else ""
    return f"{words}, {blocker.state or 'active'}{age}: {blocker.query}"
