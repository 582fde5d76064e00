# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""One part of the project in a process of its own, as the service runs it: base copy, receiver or change stream.

Instructions (with passwords) come as one line of JSON; ``child.py relay --link N`` is a process of relays. Receiver and stream then say
the CPU seconds that their start took, begin at the next line, and end with their input.
"""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
import typing as t
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests"))
import conftest  # noqa: F401  # makes the checkout importable  # pylint: disable=unused-import
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.receiver import Receiver
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.stream import ChangeStream
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.ledger import Ledger
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.session import connect
from ansible_collections.pgops.migration.plugins.module_utils._engine.service.holder import HeldSnapshot
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot import relayhost
from ansible_collections.pgops.migration.plugins.module_utils._engine.source.plugin import PluginChoice
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec


def quiet(dummy: dict[str, t.Any]) -> None:
    """Nobody listens to progress here."""


def copy(spec: MigrationSpec, database: str, workdir: Path, stop: threading.Event) -> None:
    """The whole base copy under a snapshot of its own."""
    from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.basecopy import BaseCopy, CopyJob
    from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.target import prepare_target

    snapshot = HeldSnapshot(spec, database)
    prepare_target(spec, database)
    with connect(spec.target, database) as conn:
        Ledger(conn).create(spec.key)
    job = CopyJob(spec=spec, database=database, workdir=workdir, snapshot=snapshot.snapshot, start_lsn=snapshot.consistent_point)
    BaseCopy(job, quiet, snapshot.close, stop).run()


def rows(spec: MigrationSpec, database: str, answer: Path, stop: threading.Event) -> None:
    """The rows of all tables by the relays alone; seconds and CPU seconds of that are written to ``answer``."""
    from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.catalog import read_tables
    from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot import formats, plan
    from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.crew import Crew
    from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.progress import Progress
    from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.relay import Route
    from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.tables import TableCopy

    snapshot = HeldSnapshot(spec, database)
    with connect(spec.target, database) as conn, connect(spec.source, database) as here:
        Ledger(conn).create(spec.key)
        began, cpu = time.monotonic(), cpu_seconds()
        tables, there = read_tables(here), {table.qualified: table for table in read_tables(conn)}
        chosen = {x.qualified: formats.choose_format("auto", x, there[x.qualified], formats.Types(here), True) for x in tables}
        planned = plan.plan_tables(here, tables, spec.copy.chunk_bytes, spec.copy.jobs)
        units = plan.bundle([(item, chunk) for item in planned for chunk in item.chunks])
        route = Route(spec.source, spec.target, database, snapshot.snapshot, snapshot.consistent_point, chosen, "UTF8")
        TableCopy(spec.copy.jobs, Progress(quiet), stop, lambda planned: None, lambda done: None).run(
            Crew(route, command=[sys.executable, __file__, "relay"], processes=spec.copy.processes), units
        )
    answer.write_text(json.dumps({"seconds": time.monotonic() - began, "cpu_seconds": cpu_seconds() - cpu}))
    snapshot.close()


def cpu_seconds() -> float:
    """Of this process and of those that it has started and that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def main() -> int:
    """Read the instructions, obey."""
    if sys.argv[1:2] == ["relay"]:
        return relayhost.host(int(sys.argv[3]))
    told = json.loads(sys.stdin.readline())
    spec, stop = MigrationSpec.from_dict(told["spec"]), threading.Event()
    database, folder = told["database"], Path(told["folder"])
    if told["role"] == "copy":
        copy(spec, database, folder, stop)
        return 0
    if told["role"] == "rows":
        rows(spec, database, folder, stop)
        return 0
    choice = PluginChoice(**told["choice"])
    part: Receiver | ChangeStream
    if told["role"] == "receive":
        part = Receiver(spec, database, told["slot"], choice, folder, quiet, stop)
    else:
        part = ChangeStream(spec, database, choice, folder, quiet, stop)
    sys.stdout.write(f"{time.process_time()}\n")
    sys.stdout.flush()
    if not sys.stdin.readline():
        return 0
    thread = threading.Thread(target=part.run)
    thread.start()
    sys.stdin.read()
    stop.set()
    thread.join(30)
    return 0


if __name__ == "__main__":
    sys.exit(main())
