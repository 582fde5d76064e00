# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A clock that shows the day and is stepped while processes run, by libfaketime (Debian's package faketime). As with a real step, the
monotonic clock goes on as if nothing were."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import typing as t
from pathlib import Path

LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
"""None where the package is not installed."""

SLEEP = """\
import select
import time

time.sleep = lambda seconds: select.select([], [], [], seconds) and None
"""
"""libfaketime 0.9.10 takes the moment at which ``time.sleep`` of Python 3.11 and later ends, one of the monotonic clock, for one of the
clock that shows the day, and the call fails with EINVAL; every other wait is right."""


class Clock:
    """The clock of all processes that are started inside :meth:`carried`, and of their children; the files lie in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        (folder / "sleep").mkdir()
        (folder / "sleep" / "sitecustomize.py").write_text(SLEEP, encoding="ascii")
        self._environment = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_NO_CACHE": "1",
            "PYTHONPATH": str(folder / "sleep"),
        }
        self.set(0)

    def set(self, seconds: int) -> None:
        """Step to so many seconds from the true time; done when this returns."""
        fresh = self._file.with_name("clock.new")
        fresh.write_text(f"{seconds:+d}\n", encoding="ascii")
        fresh.replace(self._file)

    @contextlib.contextmanager
    def carried(self) -> t.Iterator[None]:
        """Processes that are started inside have this clock, however long they live."""
        kept = {name: os.environ.get(name) for name in self._environment}
        os.environ.update(self._environment)
        try:
            yield
        finally:
            for name, value in kept.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def process(self, code: str, *arguments: str) -> subprocess.Popen[str]:
        """Python with this clock that runs ``code``; one talks to it by its standard input and output."""
        with self.carried():
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join([self._environment["PYTHONPATH"], *sys.path])}
            command = [sys.executable, "-c", code, *arguments]
            return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def close(self) -> None:
        """Remove the shared memory that libfaketime keeps for each process, of those that were killed."""
        for path in Path("/dev/shm").glob("*faketime_*"):
            number = path.name.rpartition("_")[2]
            if number.isdigit() and not Path("/proc", number).exists():
                path.unlink(missing_ok=True)

    def difference(self) -> float:
        """Seconds between what a process with this clock sees and the true time."""
        return float(self.process("import time; print(time.time())").communicate(timeout=60)[0]) - time.time()
