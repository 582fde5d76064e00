# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The process that moves one database: prepare, base copy, change stream, and its part of the cutover.

It can be killed at any moment and started again: what is done is read from the target's ledger.
"""

from __future__ import annotations

import contextlib
import queue
import secrets
import threading
import time
import typing as t

from ..changes.ddl import FILE, Baseline, refusal
from ..changes.heartbeat import Heartbeat
from ..changes.quiet import validate_restored
from ..cutover.completion import complete_again, complete_database, emit_marker
from ..cutover.precheck import precheck_database
from ..cutover.proof import LOST, ProofSnapshots
from ..cutover.silence import changes_between
from ..errors import CutoverAborted, MigrationError, StreamError
from ..globals.plan import apply_globals, plan_limits
from ..migration.ledger import Ledger
from ..migration.paths import MigrationPaths
from ..postgres.drivers import psycopg
from ..postgres.identifiers import object_name
from ..postgres.session import connect
from ..snapshot.basecopy import BaseCopy, CopyJob, Snapshot
from ..snapshot.leftovers import OURS
from ..snapshot.restraint import no_pressure
from ..snapshot.tools import Stopped
from ..source.cleanup import take_back
from ..source.plugin import PluginChoice
from ..spec import CutoverOptions, MigrationSpec
from ..verify.compare import verify_database
from .brake import Brake
from .follow import Follower
from .giveback import RETRY_SECONDS, GiveBack
from .holder import SnapshotDesk
from .identities import changed_tables, give_back_identities
from .link import Link
from .prepare import COPIED, Prepared, prepare, remember_finished, renew_snapshot
from .stall import Pulse, StallWatch
from .wayback import WayBack, wants


class Worker:
    """Moves ``database``; told what to do and heard through ``link``."""

    def __init__(self, paths: MigrationPaths, spec: MigrationSpec, database: str, link: Link) -> None:
        self._paths = paths
        self._spec = spec
        self._database = database
        self._link = link
        self._follower: Follower | None = None
        self._failure: MigrationError | None = None
        self._proof: ProofSnapshots | None = None
        self._choice: PluginChoice | None = None
        self._drained = 0
        self._waited = False
        self._way_back: WayBack | None = None
        self._give_back: GiveBack | None = None
        self._baseline = Baseline(paths.work(database) / FILE)
        link.on("retry", lambda command: self._follower.retry() if self._follower else None)

    def run(self) -> None:
        """The whole life; returns when finished or told to stop.

        :raises MigrationError: what the service is to record.
        """
        self._desk = SnapshotDesk(self._paths, self._spec, self._database)
        try:
            with contextlib.suppress(Stopped):
                self._move()
        finally:
            self._desk.close()

    def _waiting(self, whom: str) -> None:
        """The source makes no slot, or no publication, before those ``whom`` have ended.

        :raises Stopped: we are to end."""
        if self._link.stop.is_set():
            raise Stopped
        if whom:
            text = f"The source waits for {whom} before changes can be recorded."
            self._progress({"message": text} if self._waited else {"warnings": [text]})
            self._waited = True

    def _move(self) -> None:
        self._phase("preparing")
        prepared = prepare(self._spec, self._database, self._paths.work(self._database), self._desk, self._waiting)
        if self._waited:
            self._progress({"message": ""})
        if prepared.finished:
            self._phase("finished")
            self._obey()
            return
        if prepared.choice:
            self._choice = choice = prepared.choice
            self._link.send(event="slot", slot=prepared.slot, plugin=choice.plugin, reason=choice.reason)
        if prepared.snapshot:
            self._copy(prepared)
        if self._link.stop.is_set():
            return
        if prepared.choice:
            self._follow(prepared)
        else:
            self._phase("copied")
            self._obey()

    # -- base copy

    def _copy(self, prepared: Prepared) -> None:
        snapshot = prepared.snapshot
        if snapshot is None:
            return
        self._phase("copying")
        job = CopyJob(
            spec=self._spec,
            database=self._database,
            workdir=self._paths.work(self._database),
            snapshot=snapshot.snapshot,
            start_lsn=snapshot.consistent_point,
            relay_command=tuple(self._paths.command("relay", self._database)),
        )
        choice = prepared.choice

        def renew() -> Snapshot:
            return renew_snapshot(self._spec, self._database, choice, self._desk, self._waiting)

        over = threading.Event()
        pressure: t.Callable[[], float] = no_pressure
        try:
            if choice:
                guard = self._guard(choice.messages, over)
                pressure = Brake(lambda: guard.pressure, lambda text: self._progress({"warnings": [text]}))
            copy = BaseCopy(job, self._progress, snapshot.close, self._link.stop, renew if choice else None, pressure)
            watch = StallWatch(self._spec, self._database, lambda: Pulse("copy", copy.standstill(), OURS), self._progress)
            watch.start()
            try:
                copy.run()
            finally:
                watch.stop()
        finally:
            over.set()
        if self._failure:  # the guard's: the source is to be spared
            self._desk.end()
            raise self._failure
        if not self._link.stop.is_set():
            with connect(self._spec.target, self._database, purpose="copy") as conn:
                Ledger(conn).mark_step(COPIED)

    def _guard(self, messages: bool, over: threading.Event) -> Heartbeat:
        """Watch the source's WAL and tables while rows are copied; what the guard finds stops the copy."""

        def watch() -> None:
            heartbeat.run()
            if heartbeat.error:
                self._failure = heartbeat.error
                self._link.stop.set()

        heartbeat = Heartbeat(self._spec, self._database, over, messages=messages, report=self._progress, baseline=self._baseline)
        threading.Thread(target=watch, name="guard", daemon=True).start()
        return heartbeat

    # -- change stream

    def _follow(self, prepared: Prepared) -> None:
        if prepared.choice is None:
            return
        follower = Follower(self._paths, self._spec, self._database, prepared.choice, self._baseline, self._link)
        self._follower = follower
        if self._spec.rollback == "prepared":
            self._way_back = WayBack(self._paths, self._spec, self._database)
        self._give_back = GiveBack(self._paths, self._spec, self._database, self._way_back)
        self._give_back.recall()
        self._phase("streaming")
        thread = threading.Thread(target=self._guarded, args=(follower,), name="apply", daemon=True)
        thread.start()
        watch = StallWatch(self._spec, self._database, follower.pulse, self._progress)
        watch.start()
        try:
            self._obey()
        finally:
            watch.stop()
            follower.stop()
            thread.join(timeout=30)
        if follower.failure:
            raise follower.failure

    def _guarded(self, follower: Follower) -> None:
        """Run the stream; its end ends the process through the command queue."""
        follower.run()
        self._link.commands.put({"command": "stop"})

    # -- commands of the service

    def _obey(self) -> None:
        handlers: dict[str, t.Callable[[dict[str, t.Any]], dict[str, t.Any]]] = {
            "precheck": self._precheck,
            "drain": self._drain,
            "silence": self._silence,
            "resume": self._resume,
            "complete": self._complete,
            "again": self._again,
            "verify": self._verify,
            "finish": self._finish,
        }
        while True:
            command = self._next_command()
            name = command["command"]
            if name == "stop":
                return
            try:
                answer = handlers[name](command)
                self._link.send(reply=command["id"], result=answer)
            except MigrationError as exc:
                self._link.send(reply=command["id"], error=exc.to_dict())
            except Exception as exc:  # a reply must come whatever happens, or the cutover waits for its deadline
                self._link.send(reply=command["id"], error=MigrationError(f"{name}: {type(exc).__name__}: {exc}", code="PGM9001").to_dict())
            if name == "finish":
                return

    def _next_command(self) -> dict[str, t.Any]:
        """Wait for it; until then what a cutover that was given back has left is taken back."""
        while (give_back := self._give_back) is not None and give_back.owed:
            with contextlib.suppress(queue.Empty):
                return self._link.commands.get(timeout=RETRY_SECONDS)
            give_back.pay()
        return self._link.commands.get()

    def _precheck(self, command: dict[str, t.Any]) -> dict[str, t.Any]:
        """What a cutover needs of this database, and how long it would take; nothing is held or changed."""
        options = CutoverOptions(**command["options"])
        messages = bool(self._choice and self._choice.messages)
        told = precheck_database(self._spec, self._database, options, messages=messages, probe=self._probe)
        if self._way_back and wants(options, self._spec):
            told["checks"].append(self._way_back.check().to_dict())
        return told

    def _probe(self, timeout: float) -> float | None:
        """Seconds that a marker takes from the source to the target, None if it did not come in time."""
        if self._follower is None or self._follower.held:
            return None
        began, token = time.monotonic(), secrets.token_hex(8)
        lsn = emit_marker(self._spec, self._database, token)
        try:
            self._follower.stream.wait_marker(token, lsn, timeout)
        except StreamError:
            return None
        return round(time.monotonic() - began, 3)

    def _drain(self, command: dict[str, t.Any]) -> dict[str, t.Any]:
        """Write our marker on the source and wait until the target has all that was committed before it (law 10)."""
        if self._follower is None:
            raise CutoverAborted("There is no change stream to drain.")
        if held := self._follower.held:
            raise held
        stream = self._follower.stream
        with connect(self._spec.source, self._database, purpose="drain") as conn:
            self._refuse_ddl(conn)
        token = str(command["token"])
        stream.hold_at(token)
        lsn = emit_marker(self._spec, self._database, token)
        position = stream.wait_marker(token, lsn, float(command["timeout"]), self._link.stop)
        self._drained = position.end_lsn
        return {"marker": lsn, "end_lsn": position.end_lsn, "commit_time": str(position.commit_time)}

    def _silence(self, command: dict[str, t.Any]) -> dict[str, t.Any]:
        """How much was committed on the source since the marker; None where the stream cannot tell."""
        if self._choice is None or not self._choice.messages:
            return {"changes": None}
        since, token = str(command["since"]), str(command["token"])
        emit_marker(self._spec, self._database, token)
        spool, limit = self._paths.spool(self._database), float(command["timeout"])
        return {"changes": changes_between(spool, self._drained, since, token, self._choice, limit, self._link.stop)}

    def _resume(self, command: dict[str, t.Any]) -> dict[str, t.Any]:
        """The cutover was given back: apply what comes after the marker too."""
        if self._proof:
            self._proof.close()
            self._proof = None
        if self._follower:
            self._follower.stream.hold_at(None)
        if self._give_back:
            self._give_back.pay()
        return {}

    def _complete(self, command: dict[str, t.Any]) -> dict[str, t.Any]:
        """What the stream does not carry, and the snapshots that the proof is made under."""
        if self._give_back:
            self._give_back.begin(fenced=command["limit"] is not None)
        done = complete_database(self._spec, self._database, command["limit"])
        if self._way_back and command["way_back"]:
            self._way_back.make(float(command["timeout"]))
            done["ways_back"] = 1
        if command.get("proof"):
            self._proof = ProofSnapshots(self._spec, self._database)
        return done

    def _again(self, command: dict[str, t.Any]) -> dict[str, t.Any]:
        """Under a fence that let sessions live until now: what they have done since that no stream carries."""
        with connect(self._spec.source, self._database, purpose="confirm") as conn:
            self._refuse_ddl(conn)
        done = complete_again(self._spec, self._database, command["limit"])
        if self._proof:  # what was written since is on both sides now
            self._proof.close()
            self._proof = ProofSnapshots(self._spec, self._database)
        return done

    def _refuse_ddl(self, conn: psycopg.Connection[t.Any]) -> None:
        changes = self._baseline.changes(conn)
        if changes and self._spec.changes.on_ddl != "ignore":
            raise refusal(changes, self._spec.source.label(self._database))

    def _verify(self, command: dict[str, t.Any]) -> dict[str, t.Any]:
        """Compare all rows of both sides as of the cutover; writers may be at work on the target by now.

        :raises CutoverAborted: PGM5114 the cutover's snapshots have ended; without them there is nothing to compare.
        """
        proof, self._proof = self._proof, None
        try:
            if self._spec.online and (proof is None or not proof.alive):
                raise self._unproven()
            source, target = (proof.source, proof.target) if proof else ("", "")
            return verify_database(self._spec, self._database, source_snapshot=source, target_snapshot=target).to_dict()
        except MigrationError as exc:
            if proof and not proof.alive and exc.code != LOST:
                raise self._unproven() from exc
            raise
        finally:
            if proof:
                proof.close()

    def _unproven(self) -> CutoverAborted:
        return CutoverAborted(
            f"The snapshots by which {self._database} was to be compared have ended: a server or the work process was started again.",
            code=LOST,
            hint="Nothing is known to differ. Play verify while nobody writes on the target.",
        )

    def _finish(self, command: dict[str, t.Any]) -> dict[str, t.Any]:
        """Remove what is ours on both sides; the migration of this database is over."""
        self._link.stop.set()
        if self._follower:
            self._follower.stop()
        remember_finished(self._paths.work(self._database))
        if self._spec.online:
            told = take_back(self._spec.source, self._database, object_name(self._spec.key, self._database))
            self._progress({"warnings": told})
        with contextlib.suppress(MigrationError), connect(self._spec.target, self._database, purpose="finish") as conn:
            for refused in validate_restored(conn):
                self._progress({"message": refused})
            Ledger(conn).drop()
        self._leave_as_found()
        return {}

    def _leave_as_found(self) -> None:
        """What was lent for the time of the migration goes back, and what would have hindered it comes."""
        for step in (self._give_back_identities, self._bring_limits):
            try:
                told = step()
            except MigrationError as exc:
                told = [exc.message]
            if told:
                self._progress({"warnings": told})

    def _give_back_identities(self) -> list[str]:
        """Tables get back the replica identity that they had, unless a way back streams their changes from here on."""
        work, spec = self._paths.work(self._database), self._spec
        if spec.rollback != "prepared":
            give_back_identities(spec.source, spec.target, self._database, work)
        elif tables := changed_tables(work):
            return [f"The replica identity of {', '.join(tables)} stays as it is on both sides, because the way back needs it."]
        return []

    def _bring_limits(self) -> list[str]:
        """The database's connection limit and template mark, now that we need hardly any session in it."""
        spec = self._spec
        if not spec.globals.enabled or spec.copy.present or spec.back_of:
            return []
        plan = plan_limits(spec.source, spec.target, self._database)
        apply_globals(plan)
        return [f"The limits of {self._database} were not brought over: {skipped}" for skipped in plan.skipped]

    # -- reports

    def _phase(self, phase: str) -> None:
        self._link.send(phase=phase)

    def _progress(self, figures: dict[str, t.Any]) -> None:
        self._link.send(progress=figures)
