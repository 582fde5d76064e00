# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A change stream without the rest of a migration: equal schemas on both sides, a slot, a receiver and an applier, and a comparison.

Receiver and applier run in threads, or as processes of their own (``python changelab.py receive|apply FILE``) so that they can be killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import conftest  # noqa: F401  # makes the checkout importable  # pylint: disable=unused-import
import psycopg
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes import lanes as lanes_module
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.ddl import Baseline
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.receiver import Receiver
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.stream import ChangeStream, Position
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.ledger import Ledger
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.identifiers import object_name
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.session import connect
from ansible_collections.pgops.migration.plugins.module_utils._engine.source.plugin import PluginChoice, choose_plugin, publish
from ansible_collections.pgops.migration.plugins.module_utils._engine.source.slot import create_slot, drop_slot
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec

PLUGINS = ("wal2json", "pgoutput", "test_decoding")
RELATIONS = """
SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgm_migration') ORDER BY 1"""


def snapshot_of(conn: psycopg.Connection[t.Any]) -> dict[str, list[str]]:
    """All rows of all tables as sorted text."""
    conn.execute("SET extra_float_digits = 3; SET TimeZone = 'UTC'; SET search_path = public; SET lc_monetary = 'C'")
    found = {}
    for (name,) in conn.execute(RELATIONS).fetchall():
        columns = [
            row[0]
            for row in conn.execute(
                "SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
                " ORDER BY attname",
                [name],
            )
        ]
        row = f"ROW({', '.join(columns)})::text"
        found[name] = [r[0] for r in conn.execute(f"SELECT {row} FROM ONLY {name} ORDER BY 1")]
    return found


class StreamLab:
    """One streamed database."""

    def __init__(self, spec: MigrationSpec, folder: Path, plugin: str) -> None:
        self.spec, self.database = spec, spec.databases[0]
        self.folder = folder
        self.slot = object_name(spec.key, self.database)
        with connect(spec.source, self.database) as conn:
            self.baseline = Baseline(folder.parent / f"{folder.name}.fingerprint")
            self.baseline.take(conn)
            self.choice = choose_plugin(spec.source, self.database, plugin)
            self.choice = publish(conn, self.choice, self.slot)
        made = create_slot(spec.source, self.database, self.slot, self.choice.plugin)
        self.start_lsn = made.consistent_point
        made.close()
        with connect(spec.target, self.database) as conn:
            Ledger(conn).create(spec.key)
        self.reports: dict[str, t.Any] = {}
        self.warnings: list[str] = []
        self.errors: list[BaseException] = []
        self.stop = threading.Event()
        self.threads: list[threading.Thread] = []
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def report(self, facts: dict[str, t.Any]) -> None:
        """Merge what receiver and applier report; the receiver is told of what is applied, as the service does."""
        self.warnings += facts.pop("warnings", [])
        self.reports.update(facts)
        if "applied_lsn" in facts and self.receiver is not None:
            self.receiver.set_applied(facts["applied_lsn"])

    receiver: Receiver | None = None
    stream: ChangeStream | None = None

    def _thread(self, call: t.Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                call()
            except BaseException as exc:
                self.errors.append(exc)

        thread = threading.Thread(target=guarded, daemon=True)
        thread.start()
        self.threads.append(thread)

    def receive(self) -> None:
        """Start the receiver in a thread."""
        self.receiver = Receiver(self.spec, self.database, self.slot, self.choice, self.folder, self.report, self.stop)
        self._thread(self.receiver.run)

    def apply(self) -> None:
        """Start the applier in a thread."""
        self.stream = ChangeStream(self.spec, self.database, self.choice, self.folder, self.report, self.stop, self.baseline)
        self._thread(self.stream.run)

    def start(self) -> None:
        """Both."""
        self.receive()
        self.apply()

    def spawn(self, role: str) -> subprocess.Popen[bytes]:
        """Start ``receive`` or ``apply`` as a process."""
        facts = {
            "spec": {**self.spec.public(), "source": _secret(self.spec.source), "target": _secret(self.spec.target)},
            "slot": self.slot,
            "folder": str(self.folder),
            "together": lanes_module.TOGETHER,
            "choice": dataclasses.asdict(self.choice),
        }
        path = self.folder.parent / f"{self.folder.name}.json"
        path.write_text(json.dumps(facts))
        process = subprocess.Popen([sys.executable, __file__, role, str(path)], stderr=subprocess.PIPE)
        self.processes[role] = process
        return process

    def kill(self, role: str) -> None:
        """SIGKILL."""
        process = self.processes.pop(role)
        process.send_signal(signal.SIGKILL)
        process.communicate()

    def check_processes(self) -> None:
        """All processes must be alive.

        :raises RuntimeError: otherwise, with what the process said.
        """
        for role, process in self.processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"{role} ended: {(process.stderr.read() if process.stderr else b'').decode()[-2000:]}")

    def mark(self) -> tuple[str, int]:
        """Write a marker on the source; its token and LSN."""
        token = os.urandom(6).hex()
        with connect(self.spec.source, self.database) as conn:
            row = conn.execute("SELECT (pg_logical_emit_message(true, 'pgm.marker', %s) - '0/0'::pg_lsn)::bigint", [token]).fetchone()
        return token, int(row[0]) if row else 0

    def drain(self, timeout: float = 60.0) -> Position:
        """Write a marker and wait for it."""
        token, dummy = self.mark()
        if self.stream is None:
            raise RuntimeError("no stream was started")
        try:
            return self.stream.wait_marker(token, 0, timeout)
        except Exception:
            if self.errors:
                raise self.errors[0] from None
            raise

    def drain_by_position(self, timeout: float = 60.0) -> None:
        """Write a marker and wait until the target's progress is past it, for ``timeout`` seconds without any: for appliers that are
        processes."""
        dummy, lsn = self.mark()
        before, deadline = None, time.monotonic() + timeout
        with connect(self.spec.target, self.database) as conn:
            while True:
                row = conn.execute("SELECT min(end_lsn - '0/0'::pg_lsn)::bigint FROM pgm_migration.progress").fetchone()
                if row is not None and row[0] is not None and row[0] > lsn:
                    return
                self.check_processes()
                if row != before:
                    before, deadline = row, time.monotonic() + timeout
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not drained: at {row} of {lsn}")
                time.sleep(0.05)

    def differences(self) -> dict[str, tuple[list[str], list[str]]]:
        """Tables that differ: rows that only the source, only the target has."""
        with connect(self.spec.source, self.database) as a, connect(self.spec.target, self.database) as b:
            left, right = snapshot_of(a), snapshot_of(b)
        found = {}
        for name in sorted(set(left) | set(right)):
            ours, theirs = left.get(name), right.get(name)
            if ours != theirs:
                found[name] = (
                    [r for r in ours or [] if r not in (theirs or [])][:5],
                    [r for r in theirs or [] if r not in (ours or [])][:5],
                )
        return found

    def close(self) -> None:
        """Stop everything and drop the slot."""
        self.stop.set()
        for thread in self.threads:
            thread.join(20)
        for role in list(self.processes):
            self.kill(role)
        with contextlib.suppress(Exception), connect(self.spec.source, self.database) as conn:
            drop_slot(conn, self.slot)


Start = t.Callable[..., StreamLab]
"""The fixture ``streaming``."""


def same(stream: StreamLab) -> None:
    """Drain, then all rows must be equal and nothing have ended."""
    stream.drain()
    assert stream.differences() == {}
    assert stream.errors == []


def _secret(endpoint: t.Any) -> dict[str, t.Any]:
    return {**endpoint.public(), "password": endpoint.password}


def main(role: str, path: str) -> None:
    """The process of :meth:`StreamLab.spawn`."""
    facts = json.loads(Path(path).read_text())
    spec = MigrationSpec.from_dict(facts["spec"])
    choice = PluginChoice(**facts["choice"])
    stop = threading.Event()
    # in a thread: set() waits for ever for a lock that the thread in which it was interrupted holds
    signal.signal(signal.SIGTERM, lambda *dummy: threading.Thread(target=stop.set).start())
    folder = Path(facts["folder"])
    lanes_module.TOGETHER = facts["together"]
    if role == "receive":
        Receiver(spec, spec.databases[0], facts["slot"], choice, folder, lambda facts: None, stop).run()
    else:
        ChangeStream(spec, spec.databases[0], choice, folder, lambda facts: None, stop).run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
