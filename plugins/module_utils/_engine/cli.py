# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What the engine does as a program on the runtime host: ``serve`` a migration, ``work`` on and ``receive`` for a database,
``relay`` its rows, ``hold`` its snapshot, be the ``watchdog``; and, for people, ``status``.

Those after the first are started by it, and each loads its own part of the engine only. Arguments are names and paths only; secrets
are read from the migration's own file.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import sys
import traceback
import typing as t
from pathlib import Path

from .errors import ConnectionFailed, MigrationError
from .migration.paths import MigrationPaths
from .postgres.drivers import psycopg, require
from .service.launcher import Lock
from .service.link import Link
from .spec import MigrationSpec


def main(argv: t.Sequence[str] | None = None) -> int:
    """Run one role and return the exit status: 0 ended as it should, 1 failed, 3 another service holds the lock."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["status"]:
        from .service.show import main as show

        return show(words[1:])
    parser = argparse.ArgumentParser(
        prog="pg-migration", description="Engine of the collection pgops.migration.", epilog="For people: status --help"
    )
    parser.add_argument("role", choices=("serve", "work", "receive", "relay", "hold", "watchdog"))
    parser.add_argument("--home", type=Path, required=True, help="state directory")
    parser.add_argument("--migration", required=True, help="key of the migration")
    parser.add_argument("--database", default="", help="for work, receive, relay and hold")
    parser.add_argument("--attempt", default="", help="for watchdog")
    parser.add_argument("--lock", type=int, help="for serve: descriptor of the lock that it was handed")
    parser.add_argument("--link", type=int, help="for relay: descriptor of its tie to the worker")
    args = parser.parse_args(words)
    os.umask(0o077)
    paths = MigrationPaths(args.home, args.migration)
    if args.role == "serve":
        return _serve(paths, args.lock)
    if args.role == "watchdog":
        from .cutover.watchdog import watch

        return watch(paths.fence, paths.read_spec().source, args.attempt)
    if args.role == "relay":
        from .snapshot.relayhost import host

        return host(args.link)
    if args.role == "hold":
        from .service.holder import hold

        return hold(paths, paths.read_spec(), args.database)
    return _child(args.role, paths, args.database)


def _serve(paths: MigrationPaths, handed: int | None) -> int:
    from .migration.catalogue import Catalogue
    from .migration.states import RESUMABLE, TERMINAL, State
    from .service.handover import begin_way_back
    from .service.supervisor import Supervisor

    require()
    if not paths.folder.is_dir():  # a unit that nobody was there to disable
        sys.stderr.write(f"There is no migration {paths.key} here.\n")
        return 0
    lock = Lock(paths.lock if handed is None else handed)
    if handed is None and not lock.take():
        sys.stderr.write(f"The service of {paths.key} runs already.\n")
        return 3
    record = Catalogue(paths.catalogue).get(paths.key)
    asked = paths.asked.exists()
    paths.asked.unlink(missing_ok=True)
    if record and State(record["state"]) in RESUMABLE and not asked:  # the host has started: that is no cure
        return 0
    if record and State(record["state"]) in TERMINAL:  # started again after it had become the service of the way back
        successor = begin_way_back(paths, paths.read_spec()) if paths.spec.exists() else None  # cleaned up since
    else:
        supervisor = Supervisor(paths, paths.read_spec(), _digest(paths.engine), patient=not asked)
        asyncio.run(supervisor.run())
        successor = supervisor.successor
    lock.close()
    if successor:
        successor.become()
    return 0


def _child(role: str, paths: MigrationPaths, database: str) -> int:
    link = Link()
    link.start()
    try:
        spec: MigrationSpec = paths.read_spec()
        if role == "work":
            from .service.worker import Worker

            Worker(paths, spec, database, link).run()
        else:
            from .service.receive import receive

            receive(paths, spec, database, link)
    except MigrationError as exc:
        link.send(failed=exc.to_dict())
        return 1
    except psycopg.OperationalError as exc:
        words = f"{database}: connection lost: {' '.join(str(exc).split())}"
        link.send(failed=ConnectionFailed(words, details={"reason": "lost"}).to_dict())
        return 1
    except Exception as exc:  # a child must say why it ends, foreseen or not
        traceback.print_exc()
        link.send(failed=MigrationError(f"Unforeseen in {role} of {database}: {type(exc).__name__}: {exc}", code="PGM9001").to_dict())
        return 1
    return 0


def _digest(engine: Path) -> str:
    return hashlib.sha256(engine.read_bytes()).hexdigest()[:12]
