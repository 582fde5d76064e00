# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Starting the service so that it outlives module, SSH connection and playbook: by systemd where that runs, else as a detached process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess  # nosec: systemctl and our own engine
import time
import typing as t
from pathlib import Path

from ..errors import ServiceError
from ..migration.paths import MigrationPaths, own, private

SUPERVISORS = ("auto", "systemd", "process")
START_SECONDS = 20.0


def choose_supervisor(wanted: str) -> str:
    """``systemd`` or ``process``; ``auto`` asks whether systemd has booted this host (sd_booted(3))."""
    if wanted != "auto":
        return wanted
    return "systemd" if Path("/run/systemd/system").is_dir() and Path("/etc/systemd/system/pg-migration@.service").exists() else "process"


class Lock:
    """The service's lock: whoever holds it is the service. The kernel drops it with the process, however that ends."""

    def __init__(self, path: Path | int) -> None:
        """``path`` of the lock, or the descriptor that :meth:`hand_on` gave before this program began."""
        self._file: t.IO[str] = path.open("a+", encoding="utf-8") if isinstance(path, Path) else os.fdopen(path, "a+")

    def take(self) -> bool:
        """Try to become the service."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self._file.seek(0)
        self._file.truncate()
        self._file.write(str(os.getpid()))
        self._file.flush()
        return True

    def hand_on(self) -> int:
        """The descriptor that keeps the lock in the program that follows in this process."""
        os.set_inheritable(self._file.fileno(), True)
        return self._file.fileno()

    def close(self) -> None:
        """Let go."""
        self._file.close()


def running_pid(paths: MigrationPaths) -> int | None:
    """Process id of the service, None if it does not run."""
    try:
        file = paths.lock.open(encoding="utf-8")
    except FileNotFoundError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = file.read().strip()
            return int(text) if text.isdigit() else 0
        return None


def start(paths: MigrationPaths, supervisor: str, python: str) -> None:
    """Start the service and wait until it listens.

    :raises ServiceError: with the end of its log if it does not.
    """
    if not paths.engine.exists():
        raise ServiceError(
            f"There is no engine at {paths.engine}.", code="PGM8006", hint="Run the playbook pgops.migration.provision_runtime."
        )
    paths.control.unlink(missing_ok=True)
    paths.status.unlink(missing_ok=True)
    paths.asked.touch(0o600)
    own(paths.asked, paths.folder)
    if supervisor == "systemd":
        # after a reboot of the host nobody plays anything; a unit whose migration is over ends at once (cli.py)
        _systemctl("enable", paths)
        # not "start": the unit may be active as the service of the way back, which goes on behind this one again
        _systemctl("restart", paths)
    else:
        command = [python, str(paths.engine), "serve", "--home", str(paths.home), "--migration", paths.key]
        with open(private(paths.log), "ab") as log:
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/")
    _wait(paths)


def _systemctl(verb: str, paths: MigrationPaths) -> None:
    done = subprocess.run(["systemctl", verb, f"pg-migration@{paths.key}"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServiceError(f"systemctl {verb} pg-migration@{paths.key} failed: {done.stderr.strip()}", code="PGM8007")


def rest(paths: MigrationPaths, supervisor: str) -> None:
    """Have the service not begin with the host any more. Who may not say that to systemd leaves a unit that ends at once."""
    if supervisor == "systemd":
        subprocess.run(["systemctl", "disable", f"pg-migration@{paths.key}"], capture_output=True, check=False)


def _wait(paths: MigrationPaths) -> None:
    limit = time.monotonic() + START_SECONDS
    while time.monotonic() < limit:
        # the status is the first thing that the service writes; by now it may have ended already
        if paths.status.exists() and (paths.control.exists() or running_pid(paths) is None):
            return
        time.sleep(0.05)
    tail = paths.log.read_text(encoding="utf-8", errors="replace")[-800:] if paths.log.exists() else ""
    raise ServiceError(
        f"The migration service {paths.key} did not start within {START_SECONDS:.0f} s. {tail}", code="PGM8007", hint=f"See {paths.log}."
    )


def stop(paths: MigrationPaths, supervisor: str, seconds: float = 40.0) -> None:
    """Stop the service if it runs; killed when it does not end in time. It does not begin with the host any more."""
    rest(paths, supervisor)
    pid = running_pid(paths)
    if pid is None:
        return
    if supervisor == "systemd":
        subprocess.run(["systemctl", "stop", f"pg-migration@{paths.key}"], capture_output=True, check=False)
    if pid and running_pid(paths) == pid:  # no unit of its own: a process, or the way back in the unit of its migration
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 15)
    limit = time.monotonic() + seconds
    while running_pid(paths) is not None:
        if time.monotonic() > limit:
            if pid:
                os.kill(pid, 9)
            limit = time.monotonic() + seconds
        time.sleep(0.05)
