# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A migration runtime host in a folder: the engine as it is installed, its service as a real process, and ways to watch and kill it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import typing as t
import zipfile
from pathlib import Path

from ansible_collections.pgops.migration.plugins.module_utils._engine.service.manager import Manager
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec

REPO = Path(__file__).resolve().parent.parent
ENGINE = REPO / "plugins" / "module_utils" / "_engine"
MAIN = "import sys\nfrom pg_migration_engine.cli import main\nsys.exit(main())\n"


def write_engine(home: Path) -> None:
    """Put the checkout's engine at ``home/engine/current``, as the module ``pg_migration_engine`` does."""
    (home / "engine").mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(home / "engine" / "current", "w") as archive:
        archive.writestr("__main__.py", MAIN)
        for path in sorted(ENGINE.rglob("*.py")):
            archive.writestr(f"pg_migration_engine/{path.relative_to(ENGINE)}", path.read_text(encoding="utf-8"))


class Host:
    """One runtime host."""

    def __init__(self, home: Path) -> None:
        self.home = home
        write_engine(home)
        self.manager = Manager(home, supervisor="process", python=sys.executable)

    def until(self, key: str, reached: t.Callable[[dict[str, t.Any]], t.Any], what: str, seconds: float = 120.0) -> dict[str, t.Any]:
        """Look until ``reached(status)``; fails at once when the migration has."""
        limit = time.monotonic() + seconds
        while True:
            status = self.manager.status(key)
            if status is None:
                raise AssertionError(f"no migration {key}")
            if reached(status):
                return status
            if status["state"] in ("Failed", "ValidationFailed", "Canceled") or time.monotonic() > limit:
                raise AssertionError(f"waited for {what}; {status['summary']}\n{status['error']}\n{status['progress']}\n{self.log(key)}")
            time.sleep(0.05)

    def until_waiting(self, key: str, seconds: float = 120.0) -> dict[str, t.Any]:
        """Look until the migration waits for its cutover, caught up."""

        def caught_up(status: dict[str, t.Any]) -> bool:
            latencies = [figures.get("latency_seconds") for figures in status["progress"].values()]
            return status["state"] == "WaitingForUserAction" and all(seconds is not None and seconds < 3 for seconds in latencies)

        return self.until(key, caught_up, "WaitingForCutoverTrigger", seconds)

    def until_failed(self, key: str, seconds: float = 60.0) -> dict[str, t.Any]:
        """Look until the migration has failed and its service has ended."""
        limit = time.monotonic() + seconds
        while (status := self.manager.status(key) or {})["state"] != "Failed" or status["service"]["running"]:
            if time.monotonic() > limit:
                raise AssertionError(f"no failure: {status['summary']} {self.log(key)}")
            time.sleep(0.05)
        return status

    def cut_over(self, key: str, seconds: float = 120.0, **options: t.Any) -> dict[str, t.Any]:
        """Cut over and wait for the end."""
        status = self.try_cutover(key, seconds, **options)
        if status["state"] != "Succeeded":
            raise AssertionError(f"cutover given back: {status['cutover']}")
        return status

    def try_cutover(self, key: str, seconds: float = 120.0, **options: t.Any) -> dict[str, t.Any]:
        """Cut over and wait until it has succeeded or was given back."""
        before = (self.manager.status(key) or {})["cutover"]
        self.manager.request_cutover(key, options)

        def over(status: dict[str, t.Any]) -> bool:
            given_back = status["state"] == "WaitingForUserAction" and status["cutover"] != before
            return status["state"] == "Succeeded" or given_back

        return self.until(key, over, "the end of the cutover", seconds)

    def kill(self, key: str) -> None:
        """SIGKILL the service and wait until it is gone; its children notice by themselves."""
        status = self.manager.status(key)
        if status is None or not status["service"]["pid"]:
            raise AssertionError("the service does not run")
        os.kill(status["service"]["pid"], signal.SIGKILL)
        self.gone(key)

    def gone(self, key: str) -> None:
        """Wait until no process of ``key`` is left."""
        while self.children(key) or (self.manager.status(key) or {})["service"]["running"]:
            time.sleep(0.02)

    def children(self, key: str, role: str = "(serve|work|receive|relay|watchdog)") -> list[int]:
        """Process ids of the engine's processes for ``key`` that end with the service; of one ``role`` where it is given."""
        return _processes(f"{role} --home {self.home} .*{key}")

    def watchdogs(self, key: str) -> list[int]:
        """Process ids of those that lift the fence of ``key`` where the service cannot."""
        return _processes(f"watchdog --home {self.home} .*{key}")

    def holders(self, key: str) -> list[int]:
        """Process ids of those that hold a snapshot for ``key``; they outlive the service."""
        return _holders(self.home, key)

    def log(self, key: str) -> str:
        """End of the service's log."""
        path = self.home / "migrations" / key / "service.log"
        return path.read_text(encoding="utf-8", errors="replace")[-3000:] if path.exists() else ""

    def close(self) -> None:
        """End every service of this host."""
        end_services(self.home)


def end_services(home: Path) -> None:
    """End every service of the runtime host ``home`` and what outlives it, each by its process id."""
    if not (home / "catalogue.db").exists():
        return
    manager = Manager(home, supervisor="process")
    for status in manager.list():
        with contextlib.suppress(Exception):
            manager.stop(status["key"])
        for pid in _holders(home, status["key"]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)


def _holders(home: Path, key: str) -> list[int]:
    return _processes(f"hold --home {home} .*{key}")


def _processes(pattern: str) -> list[int]:
    found = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]


def run_whole(host: Host, spec: MigrationSpec) -> dict[str, t.Any]:
    """Start ``spec``, wait until it has caught up, cut over."""
    host.manager.start(spec)
    host.until_waiting(spec.key)
    return host.cut_over(spec.key)
